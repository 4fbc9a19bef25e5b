/** The contract of what the ops HTTP API tells of topics: which there are, how far groups are, the last of each key. */
import * as Schema from "effect/Schema"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import {
  After,
  Authorization,
  BadRequest,
  Count,
  EventJson,
  Forbidden,
  Limit,
  Next,
  NotFound,
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
  next: Next
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
  ),
  next: Next
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
  next: Next
}).annotate({ identifier: "LatestPage" })

// --- endpoints -----------------------------------------------------------------------------------------------

const readErrors = [Forbidden, NotFound, Unavailable] as const

export const Reads = HttpApiGroup.make("reads")
  .add(
    HttpApiEndpoint.get("topics", "/topics", {
      query: {
        pattern: Schema.optionalKey(Schema.String),
        after: Schema.optionalKey(After),
        limit: Schema.optionalKey(Limit)
      },
      success: Topics,
      error: [BadRequest, Unavailable]
    }).annotate(OpenApi.Description, "Topics by name, those that the token may subscribe."),
    HttpApiEndpoint.get("cursors", "/cursors", {
      query: {
        topic: TopicName,
        after: Schema.optionalKey(After),
        limit: Schema.optionalKey(Limit)
      },
      success: Cursors,
      error: readErrors
    }).annotate(OpenApi.Description, "How far each consumer group is in a topic, by the name of the group."),
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
        after: Schema.optionalKey(After),
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
