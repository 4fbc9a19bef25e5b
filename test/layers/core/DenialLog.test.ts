/** What of the things that were denied gets a line: the first of each kind, and a bounded number of them. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import { DenialLog } from "../../../src/layers/core/DenialLog.ts"

const minute = 60_000

describe("what was denied", () => {
  it("is a line when it is the first of its kind in a minute", () => {
    const log = new DenialLog()
    expect([0, 1, minute - 1].map((now) => log.isWorthALine("ann", "a", now))).toEqual([true, false, false])
    expect(log.isWorthALine("ann", "b", 2)).toBe(true)
    expect(log.isWorthALine("bob", "a", 2)).toBe(true)
    expect(log.due(minute - 1)).toEqual([])
    expect(log.due(minute)).toEqual([{ who: "ann", count: 2 }])
    expect(log.due(9 * minute)).toEqual([])
    expect(log.isWorthALine("ann", "a", 9 * minute)).toBe(true)
  })

  it("is a line again after the clock was set back, and nothing that was left out is lost", () => {
    const log = new DenialLog()
    const later = 9 * minute
    for (let i = 0; i < 1_200; i++) log.isWorthALine(`${i % 120}`, `${i}`, later)
    expect(log.isWorthALine("ann", "a", later)).toBe(false)
    expect(log.due(later - 1).reduce((sum, { count }) => sum + count, 0)).toBe(201)
    expect(log.isWorthALine("ann", "a", later - 1)).toBe(true)
    expect(log.due(later + minute)).toEqual([])
  })

  it("of one has ten lines, of all a thousand, and all of it is told in the end", () => {
    const denied = fc.record({
      who: fc.nat(200),
      kind: fc.nat(20),
      after: fc.constantFrom(0, 0, 0, 5, 2_000)
    })
    fc.assert(
      fc.property(fc.array(denied, { minLength: 1_500, maxLength: 3_000, size: "max" }), (all) => {
        const log = new DenialLog(150)
        const lines: Array<{ readonly who: string; readonly now: number }> = []
        let now = 0
        let told = 0
        for (const { after, kind, who } of all) {
          now += after
          for (const { count } of log.due(now)) told += count
          if (log.isWorthALine(`${who}`, `${kind}`, now)) lines.push({ who: `${who}`, now })
        }
        for (const { count } of log.due(now + minute)) told += count
        for (const { count } of log.due(now + 2 * minute)) told += count
        expect(lines.length + told).toBe(all.length)
        const minutes = 1 + Math.floor(now / minute)
        expect(lines.length).toBeLessThanOrEqual(minutes * 1_000)
        const first = lines.filter(({ who }) => who === lines[0]!.who)
        expect(first.length).toBeLessThanOrEqual((minutes + 1) * 10)
      }),
      { numRuns: 20 }
    )
  })
})
