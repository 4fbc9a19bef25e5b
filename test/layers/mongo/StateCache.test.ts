import { describe, expect, it } from "vitest"
import { initial } from "../../../src/domain/Group.ts"
import type { Stored } from "../../../src/layers/mongo/groupStates.ts"
import { StateCache } from "../../../src/layers/mongo/StateCache.ts"

const stored = (revision: string, whole = 1_000): Stored => ({
  life: "l",
  revision,
  state: initial("g", 0),
  whole,
  changes: 0
})

const key = (topic: string, group = "g") => StateCache.keyOf({ group, topic })

describe("StateCache", () => {
  it("gives each state to one, who brings it back", () => {
    const cache = new StateCache(1_000_000)
    cache.keep(key("a"), stored("1"))
    cache.keep(key("a"), stored("2"))
    expect(cache.take(key("a"))?.revision).toBe("2")
    expect(cache.take(key("a"))).toBeUndefined()
  })

  it("holds so many bytes, and lets the least recently used go", () => {
    const cache = new StateCache(5_000)
    const topics = ["a", "b", "c"]
    for (const topic of ["a", "b"]) cache.keep(key(topic), stored("1"))
    cache.keep(key("a"), cache.take(key("a"))!)
    cache.keep(key("c"), stored("1"))
    expect(topics.map((topic) => cache.take(key(topic)) !== undefined)).toEqual([true, false, true])
    // Nothing of those that went is counted.
    for (const topic of ["a", "b"]) cache.keep(key(topic), stored("1"))
    expect(topics.map((topic) => cache.take(key(topic)) !== undefined)).toEqual([true, true, false])
  })

  it("does not keep what is larger than all of it, nor what that was before", () => {
    const cache = new StateCache(5_000)
    for (const topic of ["a", "b"]) cache.keep(key(topic), stored("1"))
    cache.keep(key("a"), stored("2", 5_000))
    expect([cache.take(key("a")), cache.take(key("b"))?.revision]).toEqual([undefined, "1"])
  })

  it.each([0, 0.5, -1, NaN])("keeps nothing when it may hold %d bytes", (maxBytes) => {
    const cache = new StateCache(maxBytes)
    cache.keep(key("a"), stored("1"))
    expect(cache.take(key("a"))).toBeUndefined()
  })

  it.each([2_024.5, 1e300, Infinity])("takes %d bytes for a bound", (maxBytes) => {
    const cache = new StateCache(maxBytes)
    cache.keep(key("a"), stored("1"))
    expect(cache.take(key("a"))?.revision).toBe("1")
  })

  it("drops a group, and no other whose name begins alike", () => {
    const cache = new StateCache(1_000_000)
    for (const group of ["g", "gg"]) cache.keep(key("a", group), stored("1"))
    cache.drop("g")
    expect([cache.take(key("a", "g")), cache.take(key("a", "gg"))?.revision]).toEqual([undefined, "1"])
  })
})
