/** A set of numbers as ranges holds what a Set holds, and is always written in its one shortest form. */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Ranges from "../../src/domain/Ranges.ts"

const numbers = fc.array(fc.oneof(fc.nat({ max: 30 }), fc.nat({ max: 1_000 })), { maxLength: 30 })
const batches = fc.array(numbers, { maxLength: 6 })

const build = (batches: ReadonlyArray<ReadonlyArray<number>>): Ranges.Ranges =>
  batches.reduce<Ranges.Ranges>((ranges, numbers) => Ranges.addAll(ranges, numbers), Ranges.empty)

/** The runs of a Set, found by walking over every number. */
const runsOf = (set: ReadonlySet<number>): Ranges.Ranges => {
  const starts = [...set].filter((n) => !set.has(n - 1)).sort((a, b) => a - b)
  return starts.map((from) => {
    let to = from
    while (set.has(to + 1)) to++
    return [from, to]
  })
}

describe("Ranges", () => {
  it("are the runs of the numbers that were added, sorted, and none touches the next", () => {
    fc.assert(
      fc.property(batches, (batches) => {
        expect(build(batches)).toEqual(runsOf(new Set(batches.flat())))
      }),
      { numRuns: 1_000 }
    )
  })

  it("have exactly the numbers that were added, and their number is the size", () => {
    fc.assert(
      fc.property(batches, (batches) => {
        const ranges = build(batches)
        const set = new Set(batches.flat())
        const all = Array.from({ length: 1_003 }, (_, i) => i - 1)
        expect(all.filter((n) => Ranges.has(ranges, n))).toEqual(all.filter((n) => set.has(n)))
        expect(Ranges.size(ranges)).toBe(set.size)
      })
    )
  })

  it("do not depend on the order of what is added, nor on how often", () => {
    fc.assert(
      fc.property(batches, (batches) => {
        expect(build([batches.flat()])).toEqual(build(batches))
        expect(build([...batches, ...batches.toReversed()])).toEqual(build(batches))
      })
    )
  })

  it("leave the set they are added to as it was", () => {
    const before = Ranges.addAll(Ranges.empty, [1, 2, 9])
    const after = Ranges.addAll(before, new Set([3, 8, 20]))
    expect(before).toEqual([
      [1, 2],
      [9, 9]
    ])
    expect(after).toEqual([
      [1, 3],
      [8, 9],
      [20, 20]
    ])
  })

  it("are empty at first, and adding nothing changes nothing", () => {
    expect([Ranges.size(Ranges.empty), Ranges.has(Ranges.empty, 0)]).toEqual([0, false])
    const ranges = build([[4, 5]])
    expect(Ranges.addAll(ranges, [])).toBe(ranges)
  })

  it("of ranges in any order and with any overlap are the runs of all that they cover", () => {
    const range = fc
      .tuple(fc.nat({ max: 60 }), fc.nat({ max: 12 }))
      .map(([from, n]) => [from, from + n] as const)
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), (ranges) => {
        const all = ranges.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i))
        expect(Ranges.of(ranges)).toEqual(runsOf(new Set(all)))
        expect(Ranges.of(new Set(ranges))).toEqual(Ranges.of(ranges.toReversed()))
      }),
      { numRuns: 1_000 }
    )
  })

  it("of ranges are new ones: the old ones stay as they were", () => {
    const ranges: Array<Ranges.Range> = [
      [4, 6],
      [1, 5]
    ]
    expect(Ranges.of(ranges)).toEqual([[1, 6]])
    expect(ranges).toEqual([
      [4, 6],
      [1, 5]
    ])
    expect(Ranges.of([])).toEqual(Ranges.empty)
  })

  it("are without what is taken out of them, in any order, and whether they had it or not", () => {
    fc.assert(
      fc.property(batches, numbers, (batches, out) => {
        const kept = new Set(batches.flat().filter((n) => !out.includes(n)))
        expect(Ranges.removeAll(build(batches), out)).toEqual(runsOf(kept))
      }),
      { numRuns: 1_000 }
    )
    const ranges = build([[4, 5]])
    expect(Ranges.removeAll(ranges, [])).toBe(ranges)
    expect(ranges).toEqual([[4, 5]])
  })

  it("stay one range for ten thousand numbers in a row, in any order", () => {
    const shuffled = Array.from({ length: 10_000 }, (_, i) => (i * 7_919) % 10_000)
    expect(Ranges.addAll(Ranges.empty, shuffled)).toEqual([[0, 9_999]])
  })
})
