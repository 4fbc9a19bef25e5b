/** Counters, histograms and gauges as they stand in the registry, whoever recorded into them. */
import { describe, expect, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Metric, Scope } from "effect"
import fc from "fast-check"
import * as metrics from "../../../src/layers/core/metrics.ts"
import { CloseCode } from "../../../src/protocol/Codes.ts"

const own = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map())

const recorderOf = (context: Context.Context<never>): metrics.Recorder =>
  Effect.runSyncWith(context)(metrics.recorder)

describe("a histogram", () => {
  it("is what Effect makes of the same values, one by one or many at once", () => {
    const value = fc.oneof(
      fc.double({ min: 0, max: 20, noNaN: true }),
      fc.constantFrom(0, 0.0001, 0.0025, 1, 10, 1e9)
    )
    fc.assert(
      fc.property(fc.array(fc.tuple(value, fc.integer({ min: 1, max: 5 })), { minLength: 1 }), (values) => {
        const theirs = Context.make(Metric.MetricRegistry, new Map())
        const ours = Context.make(Metric.MetricRegistry, new Map())
        const observed = recorderOf(ours).histogram(metrics.publishDuration)
        for (const [value, times] of values) {
          observed.observe(value, times)
          for (let i = 0; i < times; i++) metrics.publishDuration.updateUnsafe(value, theirs)
        }
        const { sum, ...state } = metrics.publishDuration.valueUnsafe(ours)
        const { sum: theirSum, ...theirState } = metrics.publishDuration.valueUnsafe(theirs)
        expect(state).toEqual(theirState)
        expect(Math.abs(sum - theirSum)).toBeLessThanOrEqual(1e-9 * Math.abs(theirSum))
      })
    )
  })
})

describe("a recorder", () => {
  it.effect("records into one series, however many recorders there are", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* metrics.recorder, yield* metrics.recorder]
      one.add(metrics.appended, 2)
      other.counter(metrics.appended).count += 3
      one.observe(metrics.storedToSent, 1, { path: "live" })
      other.histogram(metrics.storedToSent, { path: "live" }).observe(2)
      expect((yield* Metric.value(metrics.appended)).count).toBe(5)
      const live = Metric.withAttributes(metrics.storedToSent, { path: "live" })
      expect((yield* Metric.value(live)).sum).toBe(3)
    }).pipe(own)
  )

  it.effect("keeps apart what differs by its labels, or by those around it", () =>
    Effect.gen(function* () {
      const plain = yield* metrics.recorder
      const around = yield* Effect.provideService(metrics.recorder, Metric.CurrentMetricAttributes, {
        source: "shop"
      })
      plain.add(metrics.outboxSent, 1)
      around.add(metrics.outboxSent, 2)
      plain.add(metrics.errorsSent, 3, { code: "forbidden" })
      plain.add(metrics.errorsSent, 4, { code: "internal" })
      const snapshot = yield* Metric.snapshot
      const counts = snapshot.map(({ attributes, id, state }) => [
        id,
        { ...attributes },
        "count" in state ? state.count : undefined
      ])
      expect(counts).toEqual([
        ["event_hub_outbox_sent_total", {}, 1],
        ["event_hub_outbox_sent_total", { source: "shop" }, 2],
        ["event_hub_errors_total", { code: "forbidden" }, 3],
        ["event_hub_errors_total", { code: "internal" }, 4]
      ])
    }).pipe(own)
  )

  it.effect("asks for a gauge when somebody reads it, until its scope closes", () =>
    Effect.gen(function* () {
      const recorder = yield* metrics.recorder
      const scope = yield* Scope.make()
      let open = 1
      yield* Scope.provide(
        recorder.gauge(metrics.connections, () => open),
        scope
      )
      open = 7
      expect((yield* Metric.value(metrics.connections)).value).toBe(7)
      yield* Scope.close(scope, Exit.void)
      expect(yield* Metric.snapshot).toEqual([])
    }).pipe(own)
  )

  it.effect(
    "makes every series of a closed set when it is told to prepare, once, and changes none that there is",
    () =>
      Effect.gen(function* () {
        const recorder = yield* metrics.recorder
        recorder.add(metrics.deadLetters, 3)
        yield* metrics.prepare
        const before = yield* Metric.snapshot
        yield* metrics.prepare
        expect(yield* Metric.snapshot).toEqual(before)
        expect((yield* Metric.value(metrics.deadLetters)).count).toBe(3)
        expect(before.length).toBeGreaterThan(60)
      }).pipe(own)
  )
})

it.effect("the clock of a turn is looked at once in a turn", () =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    let looks = 0n
    const counting: Clock.Clock = { ...clock, monotonicTimeNanosUnsafe: () => ++looks * 1_000_000_000n }
    const seconds = metrics.turnSeconds(counting)
    expect([seconds(), seconds(), seconds()]).toEqual([1, 1, 1])
    yield* Effect.promise(() => Promise.resolve())
    expect([seconds(), seconds()]).toEqual([2, 2])
  })
)

it("close codes that nobody has given a meaning are one series", () => {
  const known = new Set<number>([...Object.values(CloseCode), 1005, 1006])
  fc.assert(
    fc.property(fc.integer({ min: 1000, max: 4999 }), (code) => {
      const { code: label } = metrics.closeLabels(code)
      expect(label).toBe(known.has(code) ? String(code) : "other")
    })
  )
  expect(metrics.closeLabels(CloseCode.slowConsumer)).toEqual({ code: "4002", reason: "slow_consumer" })
})
