/**
 * The contract of the ops HTTP API: paths, parameters, answers, errors.
 *
 * Errors are problem documents (RFC 9457). Without a token the answer is 401; a topic that the token may not
 * subscribe is 403 whether it exists or not, so that names do not leak.
 */
import { Context, Schema } from "effect"
import {
  HttpApi,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSchema,
  HttpApiSecurity,
  OpenApi
} from "effect/http-api"
import type { Claims } from "../../domain/Claims.ts"

// --- errors --------------------------------------------------------------------------------------------------

const type = "about:blank"

export class Unauthorized extends HttpApiError.Problem<Unauthorized>()("Unauthorized", {
  type,
  status: 401,
  title: "Unauthorized"
}) {}

export class Forbidden extends HttpApiError.Problem<Forbidden>()("Forbidden", {
  type,
  status: 403,
  title: "Forbidden"
}) {}

export class NotFound extends HttpApiError.Problem<NotFound>()("NotFound", {
  type,
  status: 404,
  title: "Not Found"
}) {}

export class BadRequest extends HttpApiError.Problem<BadRequest>()("BadRequest", {
  type,
  status: 400,
  title: "Bad Request"
}) {}

export class Unavailable extends HttpApiError.Problem<Unavailable>()("Unavailable", {
  type,
  status: 503,
  title: "Service Unavailable"
}) {}

// --- middleware ----------------------------------------------------------------------------------------------

/** Who asks. */
export class CurrentClaims extends Context.Service<CurrentClaims, Claims>()(
  "event-hub/layers/http/OpsApi/CurrentClaims"
) {}

export class Authorization extends HttpApiMiddleware.Service<
  Authorization,
  { provides: CurrentClaims; requires: never }
>()("event-hub/layers/http/OpsApi/Authorization", {
  security: { bearer: HttpApiSecurity.bearer },
  error: [Unauthorized, Unavailable]
}) {}

/** Turns a request that does not fit the contract into a problem that names what is wrong. */
export class Problems extends HttpApiMiddleware.Service<Problems>()("event-hub/layers/http/OpsApi/Problems", {
  error: BadRequest
}) {}

// --- shapes --------------------------------------------------------------------------------------------------

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const Limit = Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 1_000 }))

const TopicName = Schema.String.annotate({ description: "A concrete topic." })

export const EventJson = Schema.Struct({
  id: Schema.String,
  topic: Schema.String,
  seq: Count,
  ts: Schema.Finite,
  storedAt: Schema.Finite,
  payload: Schema.Unknown,
  type: Schema.optionalKey(Schema.String),
  key: Schema.optionalKey(Schema.String),
  headers: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  tags: Schema.optionalKey(Schema.Array(Schema.String)),
  caused_by: Schema.optionalKey(Schema.String),
  sid: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "Event" })

const Mark = Schema.Struct({
  seq: Count,
  id: Schema.String,
  ts: Schema.Finite,
  storedAt: Schema.Finite
}).annotate({ identifier: "Mark" })

export const Topics = Schema.Struct({
  topics: Schema.Array(
    Schema.Struct({ topic: Schema.String, head: Count, floor: Count, storedAt: Schema.Finite })
  ),
  next: Schema.NullOr(Schema.String)
}).annotate({ identifier: "Topics" })

export const Cursors = Schema.Struct({
  topic: Schema.String,
  cursors: Schema.Array(
    Schema.Struct({
      group: Schema.String,
      seq: Count,
      lastId: Schema.NullOr(Schema.String),
      lastTs: Schema.NullOr(Schema.Finite),
      pending: Count,
      inFlight: Count
    })
  )
}).annotate({ identifier: "Cursors" })

export const LagJson = Schema.Struct({
  topic: Schema.String,
  group: Schema.String,
  lastCursor: Schema.NullOr(Mark),
  tail: Schema.NullOr(Mark),
  lagMs: Schema.Finite,
  pending: Count,
  inFlight: Count,
  waiting: Count,
  deferred: Count,
  redelivered: Count,
  dead: Count,
  stalled: Schema.NullOr(Schema.Literals(["window_full"]))
}).annotate({ identifier: "Lag" })

export const LatestPage = Schema.Struct({
  topic: Schema.String,
  seq: Count,
  items: Schema.Array(EventJson),
  next: Schema.NullOr(Schema.String)
}).annotate({ identifier: "LatestPage" })

export const Check = Schema.Struct({
  name: Schema.String,
  ok: Schema.Boolean,
  detail: Schema.optionalKey(Schema.String)
})

export const Ready = Schema.Struct({
  ready: Schema.Literal(true),
  checks: Schema.Array(Check)
}).annotate({ identifier: "Ready" })

/** The hub runs, and takes no work: it stops, or its store does not answer. */
export const NotReady = Schema.Struct({ ready: Schema.Literal(false), checks: Schema.Array(Check) })
  .annotate({ identifier: "NotReady" })
  .pipe(HttpApiSchema.status(503))

// --- endpoints -----------------------------------------------------------------------------------------------

const readErrors = [Forbidden, NotFound, Unavailable] as const

export const Reads = HttpApiGroup.make("reads")
  .add(
    HttpApiEndpoint.get("topics", "/topics", {
      query: {
        pattern: Schema.optionalKey(Schema.String),
        after: Schema.optionalKey(Schema.String),
        limit: Schema.optionalKey(Limit)
      },
      success: Topics,
      error: [BadRequest, Unavailable]
    }).annotate(OpenApi.Description, "Topics by name, those that the token may subscribe."),
    HttpApiEndpoint.get("cursors", "/cursors", {
      query: { topic: TopicName },
      success: Cursors,
      error: readErrors
    }).annotate(OpenApi.Description, "How far each consumer group is in a topic."),
    HttpApiEndpoint.get("lag", "/lag", {
      query: { topic: TopicName, group: Schema.String },
      success: LagJson,
      error: readErrors
    }).annotate(OpenApi.Description, "How far a consumer group is behind in a topic, and why."),
    HttpApiEndpoint.get("latestByKey", "/latest-by-key", {
      query: {
        topic: TopicName,
        key: Schema.optionalKey(Schema.Array(Schema.String)),
        after: Schema.optionalKey(Schema.String),
        limit: Schema.optionalKey(Limit)
      },
      success: [LatestPage, Schema.NullOr(EventJson), Schema.Record(Schema.String, EventJson)],
      error: readErrors
    }).annotate(
      OpenApi.Description,
      "One key: its last event, or null. Several: an object by key. None: a page of all keys, and the seq from which a live subscription goes on without a hole."
    )
  )
  .middleware(Authorization)

export const Health = HttpApiGroup.make("health").add(
  HttpApiEndpoint.get("healthz", "/healthz", {
    success: Schema.Struct({ status: Schema.Literal("ok") })
  }).annotate(OpenApi.Description, "The process answers."),
  HttpApiEndpoint.get("readyz", "/readyz", { success: [Ready, NotReady] }).annotate(
    OpenApi.Description,
    "The hub takes work."
  ),
  HttpApiEndpoint.get("metrics", "/metrics", {
    success: Schema.String.pipe(
      HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4; charset=utf-8" })
    )
  }).annotate(OpenApi.Description, "Metrics in the Prometheus text format.")
)

export class OpsApi extends HttpApi.make("event-hub")
  .add(Reads)
  .add(Health)
  .middleware(Problems)
  .annotateMerge(OpenApi.annotations({ title: "event-hub ops API", version: "1" })) {}
