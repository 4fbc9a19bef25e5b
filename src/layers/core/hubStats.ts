/** Takes the figures of the hub together: from its metrics, from Standing, and from the parts that say how they are. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as HubStats from "../../domain/HubStats.ts"
import { Ids } from "../../services/Ids.ts"
import { type MeasuredSource, ownSource } from "../../services/OutboxSources.ts"
import { Standing, type StandingTotals } from "../../services/Standing.ts"
import { Vitals } from "../../services/Vitals.ts"
import * as metrics from "./metrics.ts"

/** Outboxes are asked what is in them no more often than this, in milliseconds: some have to count. */
const measureEveryMs = 5_000

/** How long a tick waits for what has to be counted. */
const patience = "50 millis"

const totals: Readonly<Record<HubStats.TotalName, { readonly id: string }>> = {
  appended: metrics.appended,
  duplicates: metrics.duplicates,
  notAppended: metrics.notAppended,
  trimmed: metrics.trimmed,
  liveDeliveries: metrics.liveDeliveries,
  groupDeliveries: metrics.groupDeliveries,
  redeliveries: metrics.groupRedeliveries,
  acks: metrics.groupAcks,
  nacks: metrics.groupNacks,
  deadLetters: metrics.deadLetters,
  outboxSent: metrics.outboxSent,
  outboxFailed: metrics.outboxFailed,
  errors: metrics.errorsSent,
  rateLimited: metrics.rateLimited,
  connectionsOpened: metrics.connectionsOpened,
  connectionsClosed: metrics.connectionsClosed
}

const latencies: Readonly<Record<HubStats.LatencyName, { readonly id: string }>> = {
  publish: metrics.publishDuration,
  append: metrics.appendWait,
  commit: metrics.commitDuration,
  delivery: metrics.storedToSent
}

const latencyIds = new Set(Object.values(latencies).map(({ id }) => id))

/** Histograms of one name and several labels as one; they have the same bounds. */
const together = (a: HubStats.Histogram | undefined, b: HubStats.Histogram): HubStats.Histogram =>
  a === undefined
    ? b
    : {
        buckets: b.buckets.map(([bound, upTo], i) => [bound, upTo + (a.buckets[i]?.[1] ?? 0)]),
        count: a.count + b.count,
        max: Math.max(a.max, b.max)
      }

const outboxOf = (sources: ReadonlyArray<MeasuredSource>, now: number): HubStats.HubStats["outbox"] => {
  let found: { pending: number; dead: number; oldestAgeMs: number; paused: boolean } | null = null
  for (const { stats } of sources) {
    if (stats === undefined) continue
    found ??= { pending: 0, dead: 0, oldestAgeMs: 0, paused: false }
    const { counts, oldestAddedAt = now, paused } = stats
    found.pending += counts.Pending + counts.Blocked + counts.Claimed
    found.dead += counts.Dead
    found.oldestAgeMs = Math.max(found.oldestAgeMs, now - oldestAddedAt)
    found.paused ||= paused
  }
  return found
}

const mapValues = <K extends string, A, B>(all: Readonly<Record<K, A>>, f: (value: A) => B) =>
  Object.fromEntries(Object.entries<A>(all).map(([key, value]) => [key, f(value)])) as Record<K, B>

/** One who looks again and again: what it says of a time is since its own last look. */
export type Sampler = Effect.Effect<HubStats.HubStats>

export const hubStats: Effect.Effect<
  Effect.Effect<Sampler, never, Scope.Scope>,
  never,
  Ids | Standing | Vitals
> = Effect.gen(function* () {
  const standing = yield* Standing
  const vitals = yield* Vitals
  const hub = (yield* Ids).next()
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const startedAt = clock.currentTimeMillisUnsafe()
  /** Shared by all samplers, and asked in the background: a slow outbox holds up nothing. */
  let measured: ReadonlyArray<MeasuredSource> = []
  let measuredAt = -Infinity

  const measure = Effect.gen(function* () {
    const now = clock.currentTimeMillisUnsafe()
    const { outboxes } = vitals.parts()
    if (outboxes === undefined || now - measuredAt < measureEveryMs) return
    measuredAt = now
    measured = yield* outboxes
  })

  return Effect.gen(function* () {
    const scope = yield* Effect.scope
    const { process } = vitals.parts()
    const processVitals = process === undefined ? undefined : yield* process

    /** What the registry holds of all that is told, by the ids of the metrics. */
    const readMetrics = () => {
      const counters = new Map<string, number>()
      const histograms = new Map<string, HubStats.Histogram>()
      for (const { id, state, type } of Metric.snapshotUnsafe(context)) {
        if (type === "Counter") counters.set(id, (counters.get(id) ?? 0) + Number(state.count))
        else if (type === "Histogram" && latencyIds.has(id)) {
          histograms.set(id, together(histograms.get(id), state))
        }
      }
      return { counters, histograms }
    }

    let standings: StandingTotals | undefined
    let isStoreUp = true

    /** Who is first waits for all to be counted: until then, what is known is told, and goes on being counted. */
    const look = standing.totals.pipe(
      Effect.timeoutOption(patience),
      Effect.match({
        onFailure: () => {
          standings = undefined
          isStoreUp = false
        },
        onSuccess: (totals) => {
          standings = Option.getOrElse(totals, () => standings)
          isStoreUp = true
        }
      })
    )

    let before = readMetrics().histograms

    return Effect.gen(function* () {
      yield* Effect.forkIn(measure, scope)
      yield* look
      const at = clock.currentTimeMillisUnsafe()
      const parts = vitals.parts()
      const connections = parts.connections?.() ?? []
      const own = measured.find(({ name }) => name === ownSource)
      const { counters, histograms } = readMetrics()
      const since = before
      before = histograms
      const { loopDelayMs = null, rssBytes = null } = processVitals?.() ?? {}
      return {
        at,
        hub,
        startedAt,
        ready: parts.isDraining?.() !== true && isStoreUp && own?.problem === undefined,
        connections: connections.length,
        outboundBytes: connections.reduce((sum, { outboundBytes }) => sum + outboundBytes, 0),
        totals: mapValues(totals, ({ id }) => counters.get(id) ?? 0),
        latency: mapValues(latencies, ({ id }) => {
          const now = histograms.get(id)
          return now === undefined ? null : HubStats.between(since.get(id), now)
        }),
        outbox: outboxOf(measured, at),
        pending: standings?.pending ?? null,
        inFlight: standings?.inFlight ?? null,
        topics: standings?.topics ?? null,
        groups: standings?.groups ?? null,
        loopDelayMs,
        rssBytes
      }
    })
  })
})
