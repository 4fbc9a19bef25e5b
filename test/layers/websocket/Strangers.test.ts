/** What strangers may send: each a little, all of them together so much more, and nothing of it counts when they go. */
import { expect, it } from "@effect/vitest"
import fc from "fast-check"
import { type Stranger, Strangers } from "../../../src/layers/websocket/Strangers.ts"

it("each may send a little, and all of them together so much more", () => {
  const strangers = new Strangers({ bytesOfEach: 10, bytesOfAll: 100 })
  const [first, second, third] = [strangers.join(), strangers.join(), strangers.join()]
  expect(first.heard(10)).toBe(true)
  expect(first.heard(60)).toBe(true)
  expect(second.heard(50)).toBe(true)
  expect(second.heard(1)).toBe(false)
  // Who is modest is no worse off for it.
  expect(third.heard(10)).toBe(true)
  expect(third.heard(1)).toBe(false)
  second.leave()
  expect(third.heard(39)).toBe(true)
  expect(third.heard(1)).toBe(false)
})

it("what counts is the sum of what those who are there sent beyond theirs", () => {
  const events = fc.array(fc.tuple(fc.nat(9), fc.nat(40)), { maxLength: 100 })
  fc.assert(
    fc.property(events, (all) => {
      const strangers = new Strangers({ bytesOfEach: 10, bytesOfAll: 100 })
      const there = new Map<number, { readonly stranger: Stranger; heard: number }>()
      for (const [who, bytes] of all) {
        const one = there.get(who) ?? { stranger: strangers.join(), heard: 0 }
        there.set(who, one)
        if (bytes === 0) {
          one.stranger.leave()
          there.delete(who)
          continue
        }
        const may = one.stranger.heard(bytes)
        one.heard += bytes
        const beyond = [...there.values()].reduce((sum, { heard }) => sum + Math.max(0, heard - 10), 0)
        expect(strangers.bytesBeyond).toBe(beyond)
        expect(may).toBe(one.heard <= 10 || beyond <= 100)
      }
    })
  )
})
