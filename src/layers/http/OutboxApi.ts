/**
 * The contract of what the ops HTTP API tells of outboxes: those that the hub drains, where they are, and what is in
 * them. They hold events of any topic, so looking takes the right to administrate everything.
 */
import * as Schema from "effect/Schema"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Authorization, Count, Forbidden } from "./OpsContract.ts"

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

export const Outboxes = HttpApiGroup.make("outboxes")
  .add(
    HttpApiEndpoint.get("outboxes", "/outbox", { success: OutboxList, error: Forbidden }).annotate(
      OpenApi.Description,
      "The outboxes that the hub drains, and what is in them. One that does not answer is listed with the reason and without figures."
    )
  )
  .middleware(Authorization)
