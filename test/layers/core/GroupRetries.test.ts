/** What is kept of the retries is what a look at all of them would find. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import * as Group from "../../../src/domain/Group.ts"
import { GroupRetries } from "../../../src/layers/core/GroupRetries.ts"

/** A group in which an event waits for each of these times. */
const waiting = (times: ReadonlyArray<number>, unanswered = 0): Group.GroupState => ({
  ...Group.initial("g", 0),
  next: times.length + 1,
  waiting: new Map(
    times.map((notBefore, i) => [
      i + 1,
      {
        attempt: 1,
        unanswered,
        member: Group.nobody,
        key: undefined,
        since: 0,
        reason: "bad",
        letter: undefined,
        notBefore
      }
    ])
  )
})

const nothing = { fresh: 0, retries: 0 }

describe("GroupRetries", () => {
  it("says how many are due and when the next is, whatever it was asked before", () => {
    const all = fc.array(fc.array(fc.nat(500), { maxLength: 8 }), { minLength: 1, maxLength: 3 })
    const looks = fc.array(fc.record({ state: fc.nat(2), now: fc.nat(600) }), { maxLength: 20 })
    fc.assert(
      fc.property(all, looks, (all, looks) => {
        const states = all.map((times) => waiting(times))
        const retries = new GroupRetries(false)
        for (const { now, state: i } of looks) {
          const times = all[i % all.length]!
          const state = states[i % states.length]!
          expect(retries.ready(state, now)).toBe(times.filter((at) => at <= now).length)
          expect(retries.nextAt(state, now)).toBe(Math.min(Infinity, ...times.filter((at) => at >= now)))
        }
      })
    )
  })

  it("has those that must share with fresh events wait for the next window", () => {
    const retries = new GroupRetries(false)
    const state = waiting(Array.from({ length: 100 }, () => 0))
    retries.ready(state, 1_000)
    retries.took({ fresh: 200, retries: 0 }, 200)
    expect(retries.ready(state, 1_050)).toBe(25 + 10)
    expect(retries.left(1_050)).toBe(35)
    expect(retries.nextAt(state, 1_050)).toBe(1_100)
    expect(retries.ready(state, 1_100)).toBe(100)
    expect(retries.nextAt(state, 1_100)).toBe(Infinity)
  })

  it("has one of twenty that are handed out come first, and no more than a round of them", () => {
    const retries = new GroupRetries(false)
    retries.took(nothing, 30)
    expect([retries.takeDue(), retries.takeDue()]).toEqual([1, 0])
    retries.took(nothing, 10)
    expect(retries.takeDue()).toBe(1)
    for (let i = 0; i < 100; i++) retries.took(nothing, 512)
    expect(retries.takeDue()).toBe(512)
  })

  it("looks for suspects again when there may be some", () => {
    const retries = new GroupRetries(false)
    const suspects = waiting([1_000], Group.aloneAfter)
    expect(retries.hasSuspect(suspects, 999)).toBe(false)
    expect(retries.hasSuspect(suspects, 1_000)).toBe(true)
    expect(retries.hasSuspect(waiting([1_000]), 1_000)).toBe(false)
    expect(retries.hasSuspect(suspects, 1_000)).toBe(false)
    retries.mayHaveSuspects()
    expect(retries.hasSuspect(suspects, 1_000)).toBe(true)
  })
})
