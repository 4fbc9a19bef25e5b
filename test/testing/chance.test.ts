import { describe, expect, it } from "vitest"
import { chance } from "../../src/testing/chance.ts"

describe("chance", () => {
  it("follows from the seed and from what it is about, whoever is asked first", () => {
    const [one, other] = [chance(7), chance(7)]
    expect(one("a", 1)).toBe(other("a", 1))
    expect(other("b")).toBe(one("b"))
    expect(one("a", 1)).toBe(chance(7)("a", 1))
    const distinct = new Set([one("a", 1), one("a1"), one("a", 2), one(1, "a"), chance(8)("a", 1)])
    expect(distinct.size).toBe(5)
  })

  it("is even, also of numbers in a row", () => {
    for (const seed of [1, 2, 999_999]) {
      const roll = chance(seed)
      const tenths = new Array<number>(10).fill(0)
      for (let i = 0; i < 10_000; i++) tenths[Math.floor(roll("fate", `e${i}`, 1) * 10)]!++
      for (const count of tenths) {
        expect(count).toBeGreaterThan(850)
        expect(count).toBeLessThan(1_150)
      }
    }
  })
})
