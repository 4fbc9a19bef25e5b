/**
 * The contract of the ops HTTP API: paths, parameters, answers, errors. What concerns consumer groups is in
 * GroupsApi, what concerns outboxes in OutboxApi.
 */
import * as Schema from "effect/Schema"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Groups } from "./GroupsApi.ts"
import { Outboxes } from "./OutboxApi.ts"
import {
  Authorization,
  BadRequest,
  Count,
  EventJson,
  Forbidden,
  Limit,
  NotFound,
  Problems,
  TopicName,
  Unavailable
} from "./OpsContract.ts"

// --- shapes --------------------------------------------------------------------------------------------------

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
  redriven: Count,
  stalled: Schema.NullOr(Schema.Literals(["history", "paused", "window_full"])),
  blockedKeys: Count,
  ratePerSecond: Schema.NullOr(Schema.Finite),
  arrivalPerSecond: Schema.Finite,
  catchUpMs: Schema.NullOr(Count)
}).annotate({ identifier: "Lag" })

export const LatestPage = Schema.Struct({
  topic: Schema.String,
  seq: Count,
  history: Schema.String,
  items: Schema.Array(EventJson),
  next: Schema.NullOr(Schema.String)
}).annotate({ identifier: "LatestPage" })

export const Check = Schema.Struct({
  name: Schema.String,
  ok: Schema.Boolean,
  required: Schema.optionalKey(
    Schema.Boolean.annotate({ description: "false: the hub takes work also when this is not ok." })
  ),
  detail: Schema.optionalKey(
    Schema.String.annotate({ description: "What is wrong, or what an operator should know." })
  )
})

export const Ready = Schema.Struct({
  ready: Schema.Literal(true),
  checks: Schema.Array(Check)
}).annotate({ identifier: "Ready" })

/**
 * The hub runs, and takes no work: it stops, or its store does not answer. The outboxes of others do not count: while
 * one business database is down, the hubs are to go on with everything else.
 */
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
    }).annotate(
      OpenApi.Description,
      "How far a consumer group is behind in a topic, why, and when it will have caught up."
    ),
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
      "One key: its last event, or null. Several: an object by key. None: a page of all keys, and the seq and the history from which a live subscription goes on without a hole."
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
  .add(Groups)
  .add(Outboxes)
  .add(Health)
  .middleware(Problems)
  .annotateMerge(OpenApi.annotations({ title: "event-hub ops API", version: "1" })) {}
