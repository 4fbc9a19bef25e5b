/**
 * What `/metrics` answers: the registry of the hub as Prometheus' text, with what has to be looked up for it.
 *
 * Outboxes are counted, and readiness is found out, beside the scrape: it waits a moment for the answer, and with a
 * slow database it shows what was known before, and since when. Nothing is looked up while nobody scrapes.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import type { MeasuredSource, OutboxSource, OutboxSources } from "../../services/OutboxSources.ts"
import type { OutboxStats } from "../../services/OutboxStore.ts"
import * as metrics from "../core/metrics.ts"

/** The least time between two looks. One that takes long is repeated less often: a tenth of the time, at most. */
const refreshMs = 5_000
const shareOfTime = 10

/** How long a scrape waits for a look that it began. */
const moment = "100 millis"

interface Known {
  source: OutboxSource
  stats: OutboxStats | undefined
  /** When `stats` were true. */
  measuredAt: number
}

export interface Options {
  readonly sources: OutboxSources["Service"]
  /** Whether the hub takes work; asks its store. */
  readonly isReady: Effect.Effect<boolean>
  /** What is known of that without asking. */
  readonly isDraining: () => boolean
}

/** The text, whenever it is asked for. */
export const makeExposition = ({
  isDraining,
  isReady,
  sources
}: Options): Effect.Effect<Effect.Effect<string>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const recorder = yield* metrics.recorder
    const clock = yield* Clock.Clock
    const now = () => clock.currentTimeMillisUnsafe()
    const fork = yield* FiberSet.makeRuntime()
    const outboxes = new Map<string, Known>()
    let wasReady = false
    let isLooking = false
    let lookAgainAt = -Infinity

    for (const source of yield* sources.list) {
      const known: Known = { source, stats: undefined, measuredAt: 0 }
      outboxes.set(source.name, known)
      const labels = { source: source.name }
      const counted = (count: (stats: OutboxStats) => number) => () =>
        known.stats === undefined ? NaN : count(known.stats)
      yield* recorder.gauge(metrics.outboxUp, () => (known.source.problem === undefined ? 1 : 0), labels)
      yield* recorder.gauge(
        metrics.outboxPaused,
        counted(({ paused }) => (paused ? 1 : 0)),
        labels
      )
      yield* recorder.gauge(
        metrics.outboxPending,
        counted(({ counts }) => counts.Pending + counts.Blocked + counts.Claimed),
        labels
      )
      yield* recorder.gauge(
        metrics.outboxDead,
        counted(({ counts }) => counts.Dead),
        labels
      )
      yield* recorder.gauge(
        metrics.outboxAge,
        counted(({ oldestAddedAt }) =>
          oldestAddedAt === undefined ? 0 : Math.max(0, now() - oldestAddedAt) / 1000
        ),
        labels
      )
      yield* recorder.gauge(metrics.outboxMeasured, () => known.measuredAt / 1000, labels)
    }
    yield* recorder.gauge(metrics.ready, () => (wasReady && !isDraining() ? 1 : 0))

    const noted = (measured: ReadonlyArray<MeasuredSource>, at: number): void => {
      for (const { name, stats } of measured) {
        const known = outboxes.get(name)
        if (known === undefined || stats === undefined) continue
        known.stats = stats
        known.measuredAt = at
      }
    }

    const look = Effect.gen(function* () {
      const began = now()
      const [isReadyNow] = yield* Effect.all(
        [isReady, Effect.map(sources.measure, (measured) => noted(measured, now()))],
        { concurrency: "unbounded" }
      )
      wasReady = isReadyNow
      lookAgainAt = now() + Math.max(refreshMs, shareOfTime * (now() - began))
    }).pipe(Effect.ensuring(Effect.sync(() => void (isLooking = false))))

    const refresh = Effect.suspend(() => {
      if (isLooking || now() < lookAgainAt) return Effect.void
      isLooking = true
      return Effect.timeoutOption(Fiber.await(fork(look)), moment)
    })

    return Effect.gen(function* () {
      for (const source of yield* sources.list) {
        const known = outboxes.get(source.name)
        if (known !== undefined) known.source = source
      }
      yield* refresh
      return yield* PrometheusMetrics.format()
    })
  })
