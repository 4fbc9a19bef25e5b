/** Latencies between two looks at a histogram. */
import fc from "fast-check"
import { describe, expect, it } from "@effect/vitest"
import { between, type Histogram } from "../../src/domain/HubStats.ts"

const bounds = [0.001, 0.01, 0.1, 1, Infinity]

/** A histogram written a second time: of values that are known. */
const histogramOf = (values: ReadonlyArray<number>): Histogram => ({
  buckets: bounds.map((bound) => [bound, values.filter((value) => value <= bound).length]),
  count: values.length,
  max: Math.max(0, ...values)
})

const value = fc.double({ min: 0.0001, max: 5, noNaN: true })
const values = fc.array(value, { maxLength: 50 })

/** The bounds around a value. */
const around = (one: number): readonly [number, number] => {
  const upper = bounds.findIndex((bound) => one <= bound)
  return [bounds[upper - 1] ?? 0, bounds[upper]!]
}

describe("latencies between two looks", () => {
  it("are none where nothing happened", () => {
    expect(between(undefined, histogramOf([]))).toBeNull()
    expect(between(histogramOf([0.5]), histogramOf([0.5]))).toBeNull()
  })

  it("are of what came between: each within the bounds of the true one", () => {
    fc.assert(
      fc.property(values, fc.array(value, { minLength: 1, maxLength: 50 }), (before, now) => {
        const found = between(histogramOf(before), histogramOf([...before, ...now]))!
        const sorted = now.toSorted((a, b) => a - b)
        const at = (q: number) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]!
        for (const [guess, truth] of [
          [found.p50, at(0.5)],
          [found.p99, at(0.99)]
        ] as const) {
          const [lower, upper] = around(truth)
          expect(guess).toBeGreaterThanOrEqual(lower)
          expect(guess).toBeLessThanOrEqual(upper)
        }
        expect(found.max).toBeGreaterThanOrEqual(sorted.at(-1)!)
        expect(found.p50).toBeLessThanOrEqual(found.p99)
        expect(found.p99).toBeLessThanOrEqual(found.max)
        expect(found.max).toBeLessThanOrEqual(Math.max(...before, ...now))
      })
    )
  })
})
