/**
 * What the endpoints of the ops HTTP API have in common: their errors, who asks, and shapes.
 *
 * Errors are problem documents (RFC 9457). Without a token the answer is 401; what the token has no right to is 403
 * whether it exists or not, so that names do not leak.
 */
import * as Context from "effect/Context"
import * as Schema from "effect/Schema"
import { HttpApiError, HttpApiMiddleware, HttpApiSecurity } from "effect/http-api"
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

/** It is there, and this cannot be done to it as it is now. */
export class Conflict extends HttpApiError.Problem<Conflict>()("Conflict", {
  type,
  status: 409,
  title: "Conflict"
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

export const unavailable = () => new Unavailable({ detail: "the store does not answer; try again" })

// --- middleware ----------------------------------------------------------------------------------------------

/** Who asks. */
export class CurrentClaims extends Context.Service<CurrentClaims, Claims>()(
  "event-hub/layers/http/OpsContract/CurrentClaims"
) {}

export class Authorization extends HttpApiMiddleware.Service<
  Authorization,
  { provides: CurrentClaims; requires: never }
>()("event-hub/layers/http/OpsContract/Authorization", {
  security: { bearer: HttpApiSecurity.bearer },
  error: [Unauthorized, Unavailable]
}) {}

/** Turns a request that does not fit the contract into a problem that names what is wrong. */
export class Problems extends HttpApiMiddleware.Service<Problems>()(
  "event-hub/layers/http/OpsContract/Problems",
  {
    error: BadRequest
  }
) {}

// --- shapes --------------------------------------------------------------------------------------------------

export const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

export const Limit = Schema.NumberFromString.check(
  Schema.isInt(),
  Schema.isBetween({ minimum: 1, maximum: 1_000 })
)

/** Items of a page, unless the request says otherwise. */
export const defaultLimit = 100

/** Where a page begins: what `next` of the one before it said. */
export const After = Schema.String.annotate({ description: "`next` of the page before." })

export const Next = Schema.NullOr(Schema.String).annotate({
  description: "Give it as `after` to get the next page; null: this was the last."
})

/** A parameter or a field that nobody knows is refused: one that was meant to restrict a change must not get lost. */
export const strict = { onExcessProperty: "error" } as const

/** One line of a log. */
const Reason = Schema.String.check(
  Schema.isMaxLength(1_000),
  // Without control characters. As ranges, which every program understands that reads the contract.
  // oxlint-disable-next-line no-control-regex
  Schema.isPattern(/^[^\u0000-\u001f\u007f-\u009f]*$/, { message: "Expected a text of one line" })
).annotate({ description: "Why this is done: for the log." })

/** Of everything that changes something. */
export const reason = { reason: Schema.optionalKey(Reason) }

/** A body that may be left out. */
export const optionalReason = [Schema.Struct(reason), Schema.Null] as const

/** Of every change that cannot be taken back. */
export const dryRun = {
  dryRun: Schema.optionalKey(
    Schema.Boolean.annotate({ description: "Says what would happen, and changes nothing." })
  )
}

/** The same for a request without a body. */
export const dryRunInQuery = {
  dryRun: Schema.optionalKey(
    Schema.Literals(["true", "false"]).annotate({
      description: "true: says what would happen, and changes nothing."
    })
  )
}

export const TopicName = Schema.String.annotate({ description: "A concrete topic." })

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
