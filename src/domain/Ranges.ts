/**
 * A set of whole numbers as sorted, disjoint ranges that do not touch: which dead letters came back, or which
 * positions will not come. Ten thousand in a row are one range.
 */
export type Range = readonly [from: number, to: number]
export type Ranges = ReadonlyArray<Range>

export const empty: Ranges = []

/** The index of the first range that ends at or after the number. */
const find = (ranges: Ranges, n: number): number => {
  let low = 0
  let high = ranges.length
  while (low < high) {
    const mid = (low + high) >> 1
    if (ranges[mid]![1] < n) low = mid + 1
    else high = mid
  }
  return low
}

export const has = (ranges: Ranges, n: number): boolean => {
  const range = ranges[find(ranges, n)]
  return range !== undefined && range[0] <= n
}

const byFrom = (a: Range, b: Range): number => a[0] - b[0]

/** The set that these ranges cover, in any order and with any overlap. */
export const of = (ranges: Iterable<Range>): Ranges => merge([], [...ranges].sort(byFrom))

/** Adds numbers, in any order, in one pass. */
export const addAll = (ranges: Ranges, numbers: Iterable<number>): Ranges =>
  merge(ranges, Array.from(numbers, (n): Range => [n, n]).sort(byFrom))

/** Two lists in the order of their beginnings become one set. */
const merge = (ranges: Ranges, added: ReadonlyArray<Range>): Ranges => {
  if (added.length === 0) return ranges
  const merged: Array<[number, number]> = []
  let i = 0
  let j = 0
  while (i < ranges.length || j < added.length) {
    const a = ranges[i]
    const b = added[j]
    const takeA = b === undefined || (a !== undefined && a[0] <= b[0])
    const [from, to] = takeA ? a! : b
    if (takeA) i++
    else j++
    const last = merged.at(-1)
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to)
    else merged.push([from, to])
  }
  return merged
}

/** How many numbers the set holds. */
export const size = (ranges: Ranges): number => ranges.reduce((sum, [from, to]) => sum + to - from + 1, 0)

/** Takes numbers out, in any order, in one pass. */
export const removeAll = (ranges: Ranges, numbers: Iterable<number>): Ranges => {
  const out = Array.from(numbers).sort((a, b) => a - b)
  if (out.length === 0) return ranges
  const left: Array<Range> = []
  let i = 0
  for (const [from, to] of ranges) {
    let first = from
    for (; i < out.length && out[i]! <= to; i++) {
      if (out[i]! > first) left.push([first, out[i]! - 1])
      first = Math.max(first, out[i]! + 1)
    }
    if (first <= to) left.push([first, to])
  }
  return left
}
