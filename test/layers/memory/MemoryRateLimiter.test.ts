/** Buckets by key, over the test's clock; and any use of many of them against a model that forgets nothing. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import { TestClock } from "effect/testing"
import type { Spending } from "../../../src/domain/Quota.ts"
import type { Rate } from "../../../src/domain/RateLimit.ts"
import * as MemoryRateLimiter from "../../../src/layers/memory/MemoryRateLimiter.ts"
import { RateLimiter } from "../../../src/services/RateLimiter.ts"

type Limiter = RateLimiter["Service"]

const on = (
  run: (limiter: Limiter) => Effect.Effect<void>,
  settings?: Parameters<typeof MemoryRateLimiter.layer>[0]
) => Effect.flatMap(RateLimiter, run).pipe(Effect.provide(MemoryRateLimiter.layer(settings)))

const rate = { perSecond: 10, burst: 3 }

const of = (
  key: string,
  rate: Rate,
  cost: number,
  kind: Spending["kind"] = "connection_messages"
): Spending => ({
  kind,
  key,
  rate,
  cost
})

/** How long one spending has to wait; nothing when it was spent. */
const taker =
  ({ take }: Limiter) =>
  (key: string, rate: Rate, cost: number): number | undefined =>
    take([of(key, rate, cost)])?.retryAfterMs

describe("MemoryRateLimiter", () => {
  it.effect("lets a burst pass, and then as much as flows in", () =>
    on((limiter) =>
      Effect.gen(function* () {
        const take = taker(limiter)
        expect([take("k", rate, 1), take("k", rate, 1), take("k", rate, 1)]).toEqual([
          undefined,
          undefined,
          undefined
        ])
        expect(take("k", rate, 1)).toBe(100)
        expect(take("k", rate, 2)).toBe(200)
        yield* TestClock.adjust(99)
        expect(take("k", rate, 1)).toBe(1)
        yield* TestClock.adjust(1)
        expect(take("k", rate, 1)).toBe(undefined)
        expect(take("k", rate, 1)).toBe(100)
      })
    )
  )

  it.effect("spends from all or from none, and names the one that takes longest", () =>
    on(({ take }) =>
      Effect.sync(() => {
        const slow = { perSecond: 1, burst: 1 }
        const both = [of("a", rate, 1), of("b", slow, 1, "topic_events")]
        expect(take(both)).toBe(undefined)
        expect(take(both)).toEqual({ kind: "topic_events", retryAfterMs: 1_000 })
        expect(take([of("a", rate, 2)])).toBe(undefined)
        expect(take([of("a", rate, 1)])).toEqual({ kind: "connection_messages", retryAfterMs: 100 })
        expect(take(both)).toEqual({ kind: "topic_events", retryAfterMs: 1_000 })
        expect(take([])).toBe(undefined)
      })
    )
  )

  it.effect("looks without spending", () =>
    on(({ look, take }) =>
      Effect.sync(() => {
        for (let i = 0; i < 5; i++) expect(look([of("k", rate, 3)])).toBe(undefined)
        expect(take([of("k", rate, 3)])).toBe(undefined)
        expect(look([of("k", rate, 3)])).toMatchObject({ retryAfterMs: 300 })
      })
    )
  )

  it.effect("has a bucket for every key", () =>
    on((limiter) =>
      Effect.sync(() => {
        const take = taker(limiter)
        expect(take("a", rate, 3)).toBe(undefined)
        expect(take("b", rate, 3)).toBe(undefined)
        expect(take("a", rate, 1)).toBe(100)
      })
    )
  )

  it.effect("keeps what was spent when the rate of a key changes: going to and fro gives nothing", () =>
    on((limiter) =>
      Effect.gen(function* () {
        const take = taker(limiter)
        const wider = { perSecond: 10, burst: 4 }
        for (let i = 0; i < 3; i++) expect(take("k", { perSecond: 10, burst: 3 }, 1)).toBe(undefined)
        expect(take("k", rate, 1)).toBe(100)
        expect(take("k", wider, 1)).toBe(undefined)
        for (let i = 0; i < 5; i++) {
          expect(take("k", rate, 1)).toBeGreaterThan(0)
          expect(take("k", wider, 1)).toBeGreaterThan(0)
        }
        yield* TestClock.adjust(400)
        expect(take("k", rate, 3)).toBe(undefined)
      })
    )
  )

  it.effect("forgets full buckets when there are many, and no others", () =>
    on((limiter) =>
      Effect.gen(function* () {
        const take = taker(limiter)
        const slow = { perSecond: 0.001, burst: 1 }
        expect(take("empty", slow, 1)).toBe(undefined)
        for (let i = 0; i < 30_000; i++) {
          take(`k${i}`, rate, 1)
          if (i % 5_000 === 0) yield* TestClock.adjust(1_000)
        }
        expect(take("empty", slow, 1)).toBeGreaterThan(0)
        expect(take("k0", rate, 3)).toBe(undefined)
      })
    )
  )

  it.effect("with more busy ones than it remembers, forgets those that would be full first", () =>
    on(
      (limiter) =>
        Effect.sync(() => {
          const take = taker(limiter)
          const wide = { perSecond: 1, burst: 1_000 }
          for (const key of ["greedy", "another"]) expect(take(key, wide, 1_000)).toBe(undefined)
          for (let i = 0; i < 1_000; i++) expect(take(`once-${i}`, wide, 1)).toBe(undefined)
          for (const key of ["greedy", "another"]) expect(take(key, wide, 1)).toBe(1_000)
        }),
      { maxBuckets: 16 }
    )
  )

  const keys = ["a", "b", "c"] as const
  const anyRate = fc.record({
    perSecond: fc.integer({ min: 1, max: 50 }),
    burst: fc.integer({ min: 1, max: 20 })
  })
  const step = fc.record({
    waitMs: fc.oneof(fc.constant(0), fc.nat(3), fc.nat(400)),
    costs: fc.uniqueArray(fc.tuple(fc.constantFrom(...keys), fc.nat(25)), {
      selector: ([key]) => key,
      maxLength: 3
    })
  })

  it("answers as buckets do that are refilled millisecond by millisecond", () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({ a: anyRate, b: anyRate, c: anyRate }),
        fc.array(step, { maxLength: 40 }),
        (rates, steps) =>
          on(({ take }) =>
            Effect.gen(function* () {
              const level = new Map<string, number>(keys.map((key) => [key, rates[key].burst * 1_000]))
              const tick = (levels: Map<string, number>) => {
                for (const key of keys) {
                  levels.set(key, Math.min(rates[key].burst * 1_000, levels.get(key)! + rates[key].perSecond))
                }
              }
              for (const { costs, waitMs } of steps) {
                yield* TestClock.adjust(waitMs)
                for (let ms = 0; ms < waitMs; ms++) tick(level)
                const needs = costs.map(
                  ([key, cost]) => [key, Math.min(cost, rates[key].burst) * 1_000] as const
                )
                const passes = (levels: ReadonlyMap<string, number>) =>
                  needs.every(([key, need]) => levels.get(key)! >= need)
                const limited = take(costs.map(([key, cost]) => of(key, rates[key], cost)))
                // The first millisecond in which all of it passes, if nobody else spends.
                const later = new Map(level)
                let wait = 0
                for (; !passes(later); wait++) tick(later)
                expect(limited?.retryAfterMs ?? 0).toBe(wait)
                if (limited !== undefined) continue
                for (const [key, need] of needs) level.set(key, level.get(key)! - need)
              }
            })
          ).pipe(Effect.provide(TestClock.layer()), Effect.runPromise)
      )
    ))
})
