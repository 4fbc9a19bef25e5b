/** What is looked up for a scrape: beside it, no more often than said, and never waited for for long. */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Metric } from "effect"
import { TestClock } from "effect/testing"
import { makeExposition } from "../../../src/layers/http/exposition.ts"
import type { MeasuredSource, OutboxSource } from "../../../src/services/OutboxSources.ts"
import { SourceNotFound } from "../../../src/services/OutboxSources.ts"
import { parsePrometheus } from "./prometheus.ts"

const source: OutboxSource = {
  name: "shop",
  at: "memory:",
  problem: undefined,
  drainer: undefined,
  lacks: []
}

const measured = (pending: number, oldestAddedAt: number | undefined): MeasuredSource => ({
  ...source,
  stats: {
    counts: { Pending: pending, Blocked: 1, Claimed: 1, Sent: 9, Dead: 3 },
    oldestAddedAt,
    paused: false
  }
})

/** An exposition over sources that answer when, and what, the test says. */
const scene = Effect.gen(function* () {
  const state = {
    looks: 0,
    problem: undefined as string | undefined,
    answer: Effect.succeed(measured(5, 0)) as Effect.Effect<MeasuredSource>,
    isReady: true,
    isDraining: false
  }
  const exposition = yield* makeExposition({
    sources: {
      list: Effect.sync(() => [{ ...source, problem: state.problem }]),
      storeOf: (name) => Effect.fail(new SourceNotFound({ name })),
      measure: Effect.suspend(() => {
        state.looks++
        return Effect.map(state.answer, (one) => [one])
      })
    },
    isReady: Effect.sync(() => state.isReady),
    isDraining: () => state.isDraining
  })
  /** Scrapes, and lets the moment pass that a scrape may wait. */
  const scrape = Effect.gen(function* () {
    const scraping = yield* Effect.forkChild(exposition, { startImmediately: true })
    yield* TestClock.adjust("100 millis")
    const { valueOf } = parsePrometheus(yield* Fiber.join(scraping))
    const of = (name: string) => valueOf(`event_hub_outbox_${name}{source="shop"}`)
    return {
      up: of("up"),
      pending: of("pending_records"),
      dead: of("dead_records"),
      age: of("oldest_age_seconds"),
      measured: of("measured_timestamp_seconds"),
      ready: valueOf("event_hub_ready")
    }
  })
  return { state, scrape }
})

const own = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(Effect.scoped, Effect.provideService(Metric.MetricRegistry, new Map()))

describe("the exposition", () => {
  it.effect("shows what is in the outboxes, looked up no more often than every five seconds", () =>
    Effect.gen(function* () {
      const { scrape, state } = yield* scene
      yield* TestClock.adjust("10 seconds")
      expect(yield* scrape).toEqual({ up: 1, pending: 7, dead: 3, age: 10, measured: 10, ready: 1 })
      state.answer = Effect.succeed(measured(0, undefined))
      // The age goes on: it is of now, and not of the last look.
      expect(yield* scrape).toMatchObject({ pending: 7, age: 10.1, measured: 10 })
      expect(state.looks).toBe(1)
      yield* TestClock.adjust("5 seconds")
      expect(yield* scrape).toMatchObject({ pending: 2, age: 0 })
      expect(state.looks).toBe(2)
    }).pipe(own)
  )

  it.effect("looks nothing up while nobody scrapes", () =>
    Effect.gen(function* () {
      const { scrape, state } = yield* scene
      yield* TestClock.adjust("1 hour")
      expect(state.looks).toBe(0)
      yield* scrape
      yield* TestClock.adjust("1 hour")
      expect(state.looks).toBe(1)
    }).pipe(own)
  )

  it.effect("never waits for a slow store, and shows since when it knows what it shows", () =>
    Effect.gen(function* () {
      const { scrape, state } = yield* scene
      const first = yield* Deferred.make<MeasuredSource>()
      state.answer = Deferred.await(first)
      expect(yield* scrape).toEqual({ up: 1, pending: NaN, dead: NaN, age: NaN, measured: 0, ready: 0 })
      yield* TestClock.adjust("20 seconds")
      // One look at a time, however long it takes.
      expect(yield* scrape).toMatchObject({ pending: NaN, measured: 0 })
      expect(state.looks).toBe(1)
      yield* Deferred.succeed(first, measured(5, 0))
      expect(yield* scrape).toMatchObject({ pending: 7, ready: 1 })
      // It took twenty seconds, so it is not asked again for two hundred.
      yield* TestClock.adjust("199 seconds")
      yield* scrape
      expect(state.looks).toBe(1)
      yield* TestClock.adjust("5 seconds")
      yield* scrape
      expect(state.looks).toBe(2)
    }).pipe(own)
  )

  it.effect(
    "keeps what it knew of an outbox that does not answer, and says at once that it is not drained",
    () =>
      Effect.gen(function* () {
        const { scrape, state } = yield* scene
        expect(yield* scrape).toMatchObject({ up: 1, pending: 7, measured: 0 })
        state.problem = "gone"
        state.answer = Effect.succeed({ ...source, stats: undefined })
        expect(yield* scrape).toMatchObject({ up: 0, pending: 7 })
        yield* TestClock.adjust("6 seconds")
        expect(yield* scrape).toMatchObject({ up: 0, pending: 7, measured: 0 })
        expect(state.looks).toBe(2)
      }).pipe(own)
  )

  it.effect("says at once that a hub is not ready when it drains", () =>
    Effect.gen(function* () {
      const { scrape, state } = yield* scene
      expect(yield* scrape).toMatchObject({ ready: 1 })
      state.isDraining = true
      expect(yield* scrape).toMatchObject({ ready: 0 })
      state.isDraining = false
      state.isReady = false
      yield* TestClock.adjust("6 seconds")
      expect(yield* scrape).toMatchObject({ ready: 0 })
    }).pipe(own)
  )
})
