/** Buckets by key, over the test's clock. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryRateLimiter from "../../../src/layers/memory/MemoryRateLimiter.ts"
import { RateLimiter } from "../../../src/services/RateLimiter.ts"

const test = (title: string, run: (limiter: RateLimiter["Service"]) => Effect.Effect<void>) =>
  it.effect(title, () => Effect.flatMap(RateLimiter, run).pipe(Effect.provide(MemoryRateLimiter.layer)))

const rate = { perSecond: 10, burst: 3 }

describe("MemoryRateLimiter", () => {
  test("lets a burst pass, and then as much as flows in", ({ take }) =>
    Effect.gen(function* () {
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
    }))

  test("spends nothing when there is not enough", ({ take }) =>
    Effect.sync(() => {
      expect(take("k", rate, 2)).toBe(undefined)
      expect(take("k", rate, 2)).toBe(100)
      expect(take("k", rate, 1)).toBe(undefined)
    }))

  test("has a bucket for every key", ({ take }) =>
    Effect.sync(() => {
      expect(take("a", rate, 3)).toBe(undefined)
      expect(take("b", rate, 3)).toBe(undefined)
      expect(take("a", rate, 1)).toBe(100)
    }))

  test("knows a rate by its numbers, and begins anew with another one", ({ take }) =>
    Effect.sync(() => {
      for (let i = 0; i < 3; i++) expect(take("k", { perSecond: 10, burst: 3 }, 1)).toBe(undefined)
      expect(take("k", { perSecond: 10, burst: 3 }, 1)).toBe(100)
      expect(take("k", { perSecond: 10, burst: 4 }, 4)).toBe(undefined)
    }))

  test("forgets full buckets when there are many, and no others", ({ take }) =>
    Effect.gen(function* () {
      const slow = { perSecond: 0.001, burst: 1 }
      expect(take("empty", slow, 1)).toBe(undefined)
      for (let i = 0; i < 30_000; i++) {
        take(`k${i}`, rate, 1)
        if (i % 5_000 === 0) yield* TestClock.adjust(1_000)
      }
      expect(take("empty", slow, 1)).toBeGreaterThan(0)
      expect(take("k0", rate, 3)).toBe(undefined)
    }))
})
