/** Back-off: doubling up to a cap, drawn from zero on (full jitter), and an end after the last attempt. */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Retry from "../../src/domain/Retry.ts"

const backoff = fc.record({ baseMs: fc.nat({ max: 10_000 }), maxMs: fc.nat({ max: 600_000 }) })
const attempt = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 1_000_000 }))
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

/** The longest delay, by doubling step by step. */
const ceilingOf = (
  { baseMs, maxMs }: { readonly baseMs: number; readonly maxMs: number },
  attempt: number
) => {
  let delay = baseMs
  for (let made = 1; made < attempt && delay < maxMs && delay > 0; made++) delay *= 2
  return Math.min(delay, maxMs)
}

describe("Retry", () => {
  it("draws the delay evenly from zero up to the doubled base, or the cap where that is less", () => {
    fc.assert(
      fc.property(backoff, attempt, random, (backoff, attempt, random) => {
        expect(Retry.delayMs(backoff, attempt, random)).toBe(Math.floor(random * ceilingOf(backoff, attempt)))
      }),
      { numRuns: 1_000 }
    )
  })

  it("is a whole number of milliseconds, never negative, and below the cap", () => {
    fc.assert(
      fc.property(backoff, fc.integer({ min: -5, max: 2_000 }), random, (backoff, attempt, random) => {
        const delay = Retry.delayMs(backoff, attempt, random)
        expect(Number.isSafeInteger(delay) && delay >= 0).toBe(true)
        expect(delay).toBeLessThanOrEqual(Math.max(0, backoff.maxMs - 1))
      }),
      { numRuns: 1_000 }
    )
  })

  it("doubles from the base with each attempt", () => {
    const policy = { baseMs: 100, maxMs: 1_000 }
    expect([1, 2, 3, 4, 5, 6].map((attempt) => Retry.delayMs(policy, attempt, 0.5))).toEqual([
      50, 100, 200, 400, 500, 500
    ])
    expect(Retry.delayMs(policy, 6, 0)).toBe(0)
    expect(Retry.delayMs(policy, 0, 0.5)).toBe(50)
  })

  it("stays without delay for ever when the base is zero", () => {
    expect(Retry.delayMs({ baseMs: 0, maxMs: 1_000 }, 5_000, 0.9)).toBe(0)
  })

  it("stops after the last attempt, and not before", () => {
    fc.assert(
      fc.property(
        backoff,
        fc.integer({ min: 1, max: 30 }),
        attempt,
        random,
        (backoff, maxAttempts, attempt, random) => {
          expect(Retry.afterFailure({ ...backoff, maxAttempts }, attempt, random)).toEqual(
            attempt < maxAttempts
              ? { _tag: "Retry", delayMs: Retry.delayMs(backoff, attempt, random) }
              : { _tag: "Stop" }
          )
        }
      )
    )
  })

  it("never stops without a last attempt", () => {
    const policy = { baseMs: 1, maxMs: 10, maxAttempts: Infinity }
    expect(Retry.afterFailure(policy, 1_000_000, 0.99)).toEqual({ _tag: "Retry", delayMs: 9 })
  })
})
