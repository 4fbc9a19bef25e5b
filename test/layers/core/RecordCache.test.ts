/** Records that may soon be needed again, within a bound. */
import { describe, expect, it } from "@effect/vitest"
import type { StoredRecord } from "../../../src/domain/Event.ts"
import { RecordCache } from "../../../src/layers/core/RecordCache.ts"

const one = (topic: string, seq: number, length = 744): StoredRecord => ({
  topic,
  seq,
  id: `e${seq}`,
  key: undefined,
  tombstone: false,
  body: "x".repeat(length),
  storedAt: 1_000
})

describe("RecordCache", () => {
  it("has what was kept, of each topic its own", () => {
    const cache = new RecordCache(10_000)
    cache.keep(one("a", 1))
    cache.keep(one("b", 1))
    expect(cache.get("a", 1)).toEqual(one("a", 1))
    expect(cache.get("b", 1)?.topic).toBe("b")
    expect(cache.get("a", 2)).toBeUndefined()
  })

  it("lets go of what is done with", () => {
    const cache = new RecordCache(10_000)
    cache.keep(one("a", 1))
    cache.drop("a", 1)
    expect(cache.get("a", 1)).toBeUndefined()
  })

  it("stays within its bytes: what was not needed for the longest gives way", () => {
    const cache = new RecordCache(3_000)
    for (const seq of [1, 2, 3]) cache.keep(one("a", seq))
    cache.get("a", 1)
    cache.keep(one("a", 4))
    expect([1, 2, 3, 4].map((seq) => cache.get("a", seq) !== undefined)).toEqual([true, false, true, true])
  })

  it("keeps nothing that is larger than all of it, and nothing at all when it has no bytes", () => {
    const small = new RecordCache(3_000)
    small.keep(one("a", 1, 5_000))
    expect(small.get("a", 1)).toBeUndefined()
    const none = new RecordCache(0)
    none.keep(one("a", 1))
    none.drop("a", 1)
    expect(none.get("a", 1)).toBeUndefined()
  })
})
