/** The endpoints of OutboxApi, over OutboxSources. */
import * as Effect from "effect/Effect"
import { HttpApiBuilder } from "effect/http-api"
import { AccessControl } from "../../services/AccessControl.ts"
import { type MeasuredSource, OutboxSources } from "../../services/OutboxSources.ts"
import { OpsApi } from "./OpsApi.ts"
import { makeRights } from "./rights.ts"

const shown = ({ at, drainer, lacks, name, problem, stats }: MeasuredSource) => ({
  name,
  at,
  ok: problem === undefined,
  problem: problem ?? null,
  lacks,
  drainer:
    drainer === undefined
      ? null
      : { worker: drainer.worker, sent: drainer.sent, failed: drainer.failed, lost: drainer.lost },
  stats:
    stats === undefined
      ? null
      : {
          counts: {
            pending: stats.counts.Pending,
            blocked: stats.counts.Blocked,
            claimed: stats.counts.Claimed,
            sent: stats.counts.Sent,
            dead: stats.counts.Dead
          },
          oldestAddedAt: stats.oldestAddedAt ?? null,
          paused: stats.paused
        }
})

export const outboxes = HttpApiBuilder.group(
  OpsApi,
  "outboxes",
  Effect.fn(function* (handlers) {
    const rights = makeRights(yield* AccessControl)
    const sources = yield* OutboxSources

    return handlers.handleAll({
      outboxes: () =>
        Effect.gen(function* () {
          yield* rights.permitOutboxes
          return { outboxes: (yield* sources.measure).map(shown) }
        })
    })
  })
)
