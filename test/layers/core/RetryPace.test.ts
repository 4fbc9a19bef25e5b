/** Retries have to share with fresh events, and with nothing else. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import { RetryPace } from "../../../src/layers/core/RetryPace.ts"

const windowMs = 50
const atLeast = 25

describe("RetryPace", () => {
  it("holds nothing back where nothing else came in the window before", () => {
    const pace = new RetryPace(0.1)
    expect(pace.left(1_000)).toBe(Infinity)
    pace.took({ retries: 10_000, fresh: 0 })
    expect(pace.left(1_049)).toBe(Infinity)
    expect(pace.left(1_050)).toBe(Infinity)
  })

  it("gives retries a part of the fresh events of the window before, and some for sure", () => {
    const pace = new RetryPace(0.1)
    pace.left(1_000)
    pace.took({ retries: 0, fresh: 300 })
    expect(pace.left(1_010)).toBe(Infinity)
    expect(pace.left(1_050)).toBe(atLeast + 30)
    pace.took({ retries: 50, fresh: 7 })
    expect(pace.left(1_099)).toBe(5)
    expect(pace.left(1_100)).toBe(atLeast)
  })

  it("forgets what was longer ago, and what is yet to come of a clock that went back", () => {
    const pace = new RetryPace(0.1)
    pace.left(1_000)
    pace.took({ retries: 0, fresh: 300 })
    expect(pace.left(1_100)).toBe(Infinity)
    pace.took({ retries: 0, fresh: 300 })
    expect(pace.left(500)).toBe(Infinity)
  })

  it("says when there are more, and then there are", () => {
    const step = fc.record({ ms: fc.nat(120), fresh: fc.nat(1_000), retries: fc.nat(1_000) })
    fc.assert(
      fc.property(fc.array(step), fc.nat(), (steps, start) => {
        const pace = new RetryPace(0.05)
        let now = start
        for (const { fresh, ms, retries } of steps) {
          now += ms
          const left = pace.left(now)
          pace.took({ fresh, retries: Math.min(left, retries) })
          expect(pace.left(now)).toBeGreaterThanOrEqual(0)
          const next = pace.nextAt(now)
          expect(next).toBeGreaterThan(now)
          expect(next).toBeLessThanOrEqual(now + windowMs)
          if (pace.left(now) !== 0) continue
          now = next
          expect(pace.left(now)).toBeGreaterThanOrEqual(atLeast)
        }
      })
    )
  })
})
