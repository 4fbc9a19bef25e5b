/** The endpoints of OutboxApi, over OutboxSources. Who changed what, and why, is logged. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { HttpApiBuilder } from "effect/http-api"
import {
  type MeasuredSource,
  OutboxSources,
  type SourceNotFound,
  type SourceNotOpen
} from "../../services/OutboxSources.ts"
import type { OutboxEntry, OutboxStore } from "../../services/OutboxStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { audited } from "./audit.ts"
import { OpsApi } from "./OpsApi.ts"
import { defaultLimit, NotFound, Unavailable, unavailable } from "./OpsContract.ts"
import { OutboxEventJson, type RecordState } from "./OutboxApi.ts"
import { makeRights } from "./rights.ts"

/** Bytes of events in one page, about; and the records of the first look, before it is known how large they are. */
const maxPageBytes = 4 * 1024 * 1024
const firstLook = 16

const problemOf = (error: SourceNotFound | SourceNotOpen | StoreUnavailable): NotFound | Unavailable => {
  switch (error._tag) {
    case "SourceNotFound":
      return new NotFound({ detail: error.message })
    case "SourceNotOpen":
      return new Unavailable({ detail: error.message })
    default:
      return unavailable()
  }
}

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

const stateNames = {
  pending: "Pending",
  blocked: "Blocked",
  claimed: "Claimed",
  sent: "Sent",
  dead: "Dead"
} as const

const recordStates = {
  Pending: "pending",
  Blocked: "blocked",
  Claimed: "claimed",
  Sent: "sent",
  Dead: "dead"
} as const satisfies Record<OutboxEntry["state"], typeof RecordState.Type>

const eventOf = Schema.decodeUnknownOption(Schema.fromJsonString(OutboxEventJson))

const recordJson = (entry: OutboxEntry) => ({
  id: entry.id,
  topic: entry.topic,
  key: entry.key ?? null,
  state: recordStates[entry.state],
  attempts: entry.attempts,
  addedAt: entry.addedAt,
  notBefore: entry.notBefore ?? null,
  worker: entry.worker ?? null,
  leaseUntil: entry.leaseUntil ?? null,
  lastError: entry.lastError ?? null,
  event: Option.getOrNull(eventOf(entry.event.body))
})

interface Wanted {
  readonly state: OutboxEntry["state"] | undefined
  readonly after: string | undefined
  readonly limit: number
}

/** As many as fit into an answer: looks are as long as the size of what was seen lets them be. */
const readPage = (store: OutboxStore["Service"], { after, limit, state }: Wanted) =>
  Effect.gen(function* () {
    const entries: Array<OutboxEntry> = []
    let bytes = 0
    let next = after
    let size = Math.min(firstLook, limit)
    do {
      const page = yield* store.list({
        limit: size,
        ...(state === undefined ? {} : { state }),
        ...(next === undefined ? {} : { after: next })
      })
      for (const entry of page.items) {
        entries.push(entry)
        bytes += entry.event.body.length
      }
      next = page.next
      const fitting = Math.floor((maxPageBytes - bytes) / Math.max(1, bytes / entries.length))
      size = Math.min(limit - entries.length, fitting)
    } while (next !== undefined && size > 0)
    return { entries, next }
  })

export const outboxes = HttpApiBuilder.group(
  OpsApi,
  "outboxes",
  Effect.fn(function* (handlers) {
    const rights = yield* makeRights
    const sources = yield* OutboxSources

    const changed = <A, R>(change: Effect.Effect<A, StoreUnavailable, R>) =>
      Effect.mapError(change, problemOf)

    /** Its store, for whoever may know of it. */
    const open = (source: string) =>
      Effect.andThen(rights.permitEverything, Effect.mapError(sources.storeOf(source), problemOf))

    const setPaused = (source: string, reason: string | undefined, paused: boolean) =>
      Effect.gen(function* () {
        const store = yield* open(source)
        const what = paused ? "outbox paused" : "outbox resumed"
        yield* changed(audited(store.setPaused(paused), { what, reason, fields: { source } }))
      })

    return handlers.handleAll({
      outboxes: () =>
        Effect.gen(function* () {
          yield* rights.permitEverything
          return { outboxes: (yield* sources.measure).map(shown) }
        }),

      records: ({ params: { source }, query: { after, limit = defaultLimit, state } }) =>
        Effect.gen(function* () {
          const store = yield* open(source)
          const wanted = { after, limit, state: state === undefined ? undefined : stateNames[state] }
          const { entries, next } = yield* Effect.mapError(readPage(store, wanted), problemOf)
          return { source, records: entries.map(recordJson), next: next ?? null }
        }),

      redrive: ({ params: { source }, payload }) =>
        Effect.gen(function* () {
          const store = yield* open(source)
          const { dryRun = false, reason } = payload
          const which = "ids" in payload ? payload.ids : "all"
          const change = store.redrive(which, { dryRun })
          const fields = { source, ...(which === "all" ? { all: true } : { ids: which }) }
          const matched = yield* changed(
            dryRun
              ? change
              : audited(change, {
                  what: "outbox records redriven",
                  reason,
                  fields,
                  outcome: (matched) => ({ matched })
                })
          )
          return { source, dryRun, matched }
        }),

      purge: ({ params: { source }, payload: { dryRun = false, olderThanMs, reason } }) =>
        Effect.gen(function* () {
          const store = yield* open(source)
          const change = store.purge({ olderThanMs, dryRun })
          const matched = yield* changed(
            dryRun
              ? change
              : audited(change, {
                  what: "outbox purged",
                  reason,
                  fields: { source, olderThanMs },
                  outcome: (matched) => ({ matched })
                })
          )
          return { source, dryRun, matched }
        }),

      pause: ({ params: { source }, payload }) =>
        Effect.as(setPaused(source, payload?.reason, true), { source, paused: true as const }),

      resume: ({ params: { source }, payload }) =>
        Effect.as(setPaused(source, payload?.reason, false), { source, paused: false as const })
    })
  })
)
