/**
 * The contract of what the ops HTTP API tells of outboxes, and lets an operator do with them: those that the hub
 * drains, where they are, and what is in them. They hold events of any topic, so looking takes the right to
 * administrate everything, as changing does.
 */
import * as Schema from "effect/Schema"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import {
  After,
  Authorization,
  BadRequest,
  Count,
  dryRun,
  EventJson,
  Forbidden,
  Limit,
  Next,
  NotFound,
  optionalReason,
  reason,
  strict,
  Unavailable
} from "./OpsContract.ts"

const Drainer = Schema.Struct({
  worker: Schema.String.annotate({ description: "The name that its claims carry." }),
  sent: Count.annotate({ description: "Records brought into the log." }),
  failed: Count.annotate({ description: "Attempts that failed." }),
  lost: Count.annotate({ description: "Claims that another worker took over." })
}).annotate({ description: "Since the outbox was opened." })

const Stats = Schema.Struct({
  counts: Schema.Struct({
    pending: Count,
    blocked: Count,
    claimed: Count,
    sent: Count,
    dead: Count
  }),
  oldestAddedAt: Schema.NullOr(Schema.Finite).annotate({
    description: "When the oldest record was added that is neither sent nor dead."
  }),
  paused: Schema.Boolean
})

export const OutboxList = Schema.Struct({
  outboxes: Schema.Array(
    Schema.Struct({
      name: Schema.String.annotate({ description: "`hub` is the hub's own." }),
      at: Schema.String.annotate({ description: "Where it is, without secrets." }),
      ok: Schema.Boolean,
      problem: Schema.NullOr(Schema.String).annotate({
        description: "Why nothing of it comes into the log, or nobody knows what is in it."
      }),
      lacks: Schema.Array(Schema.String).annotate({ description: "What its server cannot do." }),
      drainer: Schema.NullOr(Drainer),
      stats: Schema.NullOr(Stats)
    })
  )
}).annotate({ identifier: "Outboxes" })

/** As it will come into the log, which gives it its place and its time. */
const { seq: _seq, storedAt: _storedAt, ...event } = EventJson.fields

export const OutboxEventJson = Schema.Struct(event).annotate({ identifier: "OutboxEvent" })

export const RecordState = Schema.Literals(["pending", "blocked", "claimed", "sent", "dead"]).annotate({
  description:
    "pending: waits for a drainer, or for its time; blocked: behind an earlier record of its key; claimed: a drainer has it; sent: in the log; dead: given up."
})

export const OutboxRecords = Schema.Struct({
  source: Schema.String,
  records: Schema.Array(
    Schema.Struct({
      id: Schema.String,
      topic: Schema.String,
      key: Schema.NullOr(Schema.String),
      state: RecordState,
      attempts: Count,
      addedAt: Schema.Finite,
      notBefore: Schema.NullOr(Schema.Finite),
      worker: Schema.NullOr(Schema.String),
      leaseUntil: Schema.NullOr(Schema.Finite),
      lastError: Schema.NullOr(Schema.String),
      event: Schema.NullOr(OutboxEventJson).annotate({ description: "null: what stands there is no event." })
    })
  ),
  next: Next
}).annotate({ identifier: "OutboxRecords" })

/** Records that one request may name. */
const maxRecords = 1_000

const These = Schema.Struct({
  ids: Schema.Array(Schema.Struct({ topic: Schema.String, id: Schema.String })).check(
    Schema.isMaxLength(maxRecords)
  ),
  ...dryRun,
  ...reason
})

const All = Schema.Struct({ all: Schema.Literal(true), ...dryRun, ...reason })

/** A hundred years, in milliseconds. */
const longestAge = 3_155_760_000_000

const Matched = Schema.Struct({ source: Schema.String, dryRun: Schema.Boolean, matched: Count })

const source = { source: Schema.String.annotate({ description: "The name of an outbox." }) }

const errors = [BadRequest, Forbidden, NotFound, Unavailable] as const

export const Outboxes = HttpApiGroup.make("outboxes")
  .add(
    HttpApiEndpoint.get("outboxes", "/outbox", { success: OutboxList, error: Forbidden }).annotate(
      OpenApi.Description,
      "The outboxes that the hub drains, and what is in them. One that does not answer is listed with the reason and without figures."
    ),
    HttpApiEndpoint.get("records", "/outbox/:source/records", {
      params: source,
      query: {
        state: Schema.optionalKey(RecordState),
        after: Schema.optionalKey(After),
        limit: Schema.optionalKey(Limit)
      },
      success: OutboxRecords,
      error: errors
    }).annotate(
      OpenApi.Description,
      "What is in an outbox, the oldest first. A page may hold fewer than asked for; it was the last when 'next' is null."
    ),
    HttpApiEndpoint.post("redrive", "/outbox/:source/redrive", {
      params: source,
      payload: Schema.Union([These, All]),
      success: Matched,
      error: errors
    }).annotate(
      OpenApi.Description,
      "Lets dead records go to the log again, with all their attempts: those that are named, or all. Records that are not dead are passed over."
    ),
    HttpApiEndpoint.post("purge", "/outbox/:source/purge", {
      params: source,
      payload: Schema.Struct({
        olderThanMs: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: longestAge })),
        ...dryRun,
        ...reason
      }),
      success: Matched,
      error: errors
    }).annotate(OpenApi.Description, "Deletes records that were sent longer ago than this. No others."),
    HttpApiEndpoint.post("pause", "/outbox/:source/pause", {
      params: source,
      payload: optionalReason,
      success: Schema.Struct({ source: Schema.String, paused: Schema.Literal(true) }),
      error: errors
    }).annotate(
      OpenApi.Description,
      "No drainer of any hub takes records from it until it is resumed; what one has, it finishes."
    ),
    HttpApiEndpoint.post("resume", "/outbox/:source/resume", {
      params: source,
      payload: optionalReason,
      success: Schema.Struct({ source: Schema.String, paused: Schema.Literal(false) }),
      error: errors
    }).annotate(OpenApi.Description, "Lets a paused outbox be drained again.")
  )
  .middleware(Authorization)
  .annotate(HttpApi.PayloadParseOptions, strict)
  .annotate(HttpApi.QueryParseOptions, strict)
