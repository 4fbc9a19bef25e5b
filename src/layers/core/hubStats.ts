/** Takes the figures of the hub together: from its metrics, from Standing, and from the parts that say how they are. */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Metric from "effect/Metric"
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

/** A store that has not let it be counted after so many seconds is as good as away. */
const lateAfterSeconds = 5

const totals: Readonly<Record<HubStats.TotalName, Metric.Counter<number>>> = {
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

const latencies: Readonly<Record<HubStats.LatencyName, Metric.Histogram<number>>> = {
  publish: metrics.publishDuration,
  append: metrics.appendWait,
  commit: metrics.commitDuration,
  delivery: metrics.storedToSent
}

/** Histograms of one name and several labels as one; they have the same bounds. */
const together = (all: ReadonlyArray<HubStats.Histogram>): HubStats.Histogram | undefined => {
  const [first, ...others] = all
  return first === undefined
    ? undefined
    : {
        buckets: first.buckets.map(([bound, upTo], i) => [
          bound,
          others.reduce((sum, { buckets }) => sum + (buckets[i]?.[1] ?? 0), upTo)
        ]),
        count: all.reduce((sum, { count }) => sum + count, 0),
        max: Math.max(...all.map(({ max }) => max))
      }
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
  const reader = yield* metrics.reader
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

    const readLatencies = () => mapValues(latencies, (metric) => together(reader.histograms(metric)))

    let standings: StandingTotals | undefined
    let isStoreUp = true
    /** A count that has not come to its end. Nobody asks for another one meanwhile. */
    let counting: { readonly done: Deferred.Deferred<void>; readonly since: number } | undefined

    const count = (done: Deferred.Deferred<void>) =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(standing.totals)
        isStoreUp = Exit.isSuccess(exit)
        standings = Exit.isSuccess(exit) ? exit.value : undefined
        counting = undefined
        yield* Deferred.succeed(done, undefined)
      })

    /** Waits a little for all to be counted: what takes longer is told by a later look, and what is known until then. */
    const look = Effect.gen(function* () {
      if (counting === undefined) {
        counting = { done: Deferred.makeUnsafe(), since: metrics.secondsOf(clock) }
        yield* Effect.forkIn(count(counting.done), scope)
      }
      const { done, since } = counting
      yield* Effect.timeoutOption(Deferred.await(done), patience)
      if (Deferred.isDoneUnsafe(done) || metrics.secondsOf(clock) - since <= lateAfterSeconds) return
      standings = undefined
      isStoreUp = false
    })

    let before = readLatencies()

    return Effect.gen(function* () {
      yield* Effect.forkIn(measure, scope)
      yield* look
      const at = clock.currentTimeMillisUnsafe()
      const parts = vitals.parts()
      const connections = parts.connections?.() ?? []
      const own = measured.find(({ name }) => name === ownSource)
      const since = before
      const now = readLatencies()
      before = now
      const between = (name: HubStats.LatencyName) => {
        const upTo = now[name]
        return upTo === undefined ? null : HubStats.between(since[name], upTo)
      }
      const { loopDelayMs = null, rssBytes = null } = processVitals?.() ?? {}
      return {
        at,
        hub,
        startedAt,
        ready: parts.isDraining?.() !== true && isStoreUp && own?.problem === undefined,
        connections: connections.length,
        outboundBytes: connections.reduce((sum, { outboundBytes }) => sum + outboundBytes, 0),
        totals: mapValues(totals, reader.count),
        latency: {
          publish: between("publish"),
          append: between("append"),
          commit: between("commit"),
          delivery: between("delivery")
        },
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
