/** A consumer group's options, and what a claim chooses: by example. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Group from "../../src/domain/Group.ts"
import {
  ack,
  claim,
  from,
  holding,
  inOrder,
  keyless,
  limits,
  options,
  ordered,
  refuse,
  seqs
} from "./groupScene.ts"

describe("registration", () => {
  const registered: Group.Registration = {
    group: "billing",
    pattern: "orders.**",
    options,
    registeredAt: 0,
    paused: false,
    lastUsedAt: 0,
    history: "h"
  }

  it("agrees with the same options, and with none", () => {
    expect(Group.conflicts(registered, {})).toEqual(Result.succeed(registered))
    expect(Group.conflicts(registered, { ...options })).toEqual(Result.succeed(registered))
  })

  it.each(["ackTimeoutMs", "maxAttempts", "keyOrdered"] as const)("refuses another %s", (name) => {
    const wanted = { ...options, [name]: name === "keyOrdered" ? true : 7 }
    const conflict = Result.getOrThrow(Result.flip(Group.conflicts(registered, wanted)))
    expect(conflict).toMatchObject({ _tag: "GroupConflict", group: "billing", differs: [name] })
  })

  it("names all that differs, in words", () => {
    const conflict = Result.getOrThrow(
      Result.flip(Group.conflicts(registered, { keyOrdered: true, maxAttempts: 4 }))
    )
    expect(conflict.message).toBe(
      "group 'billing' is registered with another maxAttempts and another keyOrdered"
    )
  })

  it.effect("says the same as an Effect", () =>
    Effect.gen(function* () {
      expect(yield* Group.agree(registered, { maxAttempts: 3 })).toEqual(registered)
      const conflict = yield* Effect.flip(Group.agree(registered, { maxAttempts: 4 }))
      expect(conflict.differs).toEqual(["maxAttempts"])
    })
  )
})

describe("claim", () => {
  it("delivers new events in their order, as many as the member takes", () => {
    const claimed = claim(Group.initial("g", 4), { limit: 2, candidates: from(5, keyless(3)) })
    const first = { attempt: 1, redelivered: false, deadline: 1_100, letter: undefined }
    expect(claimed.deliveries).toEqual([
      { seq: 5, ...first },
      { seq: 6, ...first }
    ])
    expect(claimed.state.next).toBe(7)
    expect(claimed.state.floor).toBe(4)
  })

  it("notes who has it, until when, since when, and that it did not fail", () => {
    const { state } = claim(Group.initial("g", 0), { now: 1_007, member: "bob", candidates: from(1, ["k"]) })
    expect(state.inFlight.get(1)).toEqual({
      attempt: 1,
      unanswered: 0,
      member: "bob",
      key: "k",
      since: 1_007,
      reason: "",
      letter: undefined,
      deadline: 1_107
    })
  })

  it.each([0, -1])("delivers nothing to a member that takes %d", (limit) => {
    const state = Group.leave(holding(2), "ann", 1_000)
    const asked = { limit, retriesFirst: 1, candidates: from(3, keyless(2)) }
    expect(claim(state, asked)).toEqual({ state, deliveries: [] })
    expect(claim(state, { ...asked, mode: "alone" })).toEqual({ state, deliveries: [] })
  })

  it("answers the very state it was given when there is nothing to deliver", () => {
    const state = holding(2)
    expect(claim(state).state).toBe(state)
  })

  it("never goes past a hole in the candidates", () => {
    expect(seqs(claim(Group.initial("g", 0), { candidates: from(2, keyless(2)) }))).toEqual([])
    const holed = [...from(1, keyless(2)), ...from(4, keyless(2))]
    expect(seqs(claim(Group.initial("g", 0), { candidates: holed }))).toEqual([1, 2])
  })

  it("delivers a retry again when it is due, with the next attempt, and remembers when it began and why", () => {
    const state = refuse(holding(1), { delayMs: 50 })
    expect(seqs(claim(state, { now: 1_049 }))).toEqual([])
    const again = claim(state, { now: 1_050, member: "bob" })
    expect(again.deliveries).toEqual([
      { seq: 1, attempt: 2, redelivered: true, deadline: 1_150, letter: undefined }
    ])
    expect(again.state.waiting.size).toBe(0)
    expect(again.state.inFlight.get(1)).toMatchObject({ member: "bob", since: 1_000, reason: "bad" })
  })

  it("does not give a member again what it let lapse, where others are there to take it", () => {
    const all = claim(holding(3), { member: "bob", candidates: from(4, keyless(1)) }).state
    const lapsed = Group.expire(refuse(all, { seq: 2, delayMs: 0 }), { now: 1_100, maxAttempts: 9 })
    const asked = { now: 1_100, retriesFirst: 1 }
    expect(seqs(claim(lapsed, { ...asked, hasOthers: true }))).toEqual([2, 4])
    expect(seqs(claim(lapsed, { ...asked, hasOthers: true, member: "bob" }))).toEqual([1, 2, 3])
    expect(seqs(claim(lapsed, { ...asked, hasOthers: false }))).toEqual([1, 2, 3, 4])
    expect(seqs(claim(lapsed, asked))).toEqual([1, 2, 3, 4])
    const handedBack = Group.leave(all, "ann", 1_100)
    expect(seqs(claim(handedBack, { ...asked, hasOthers: true }))).toEqual([1, 2, 3])
  })

  it("says of what was handed back that it comes again, although the attempt is the first", () => {
    const { deliveries } = claim(Group.leave(holding(1), "ann", 1_000), { member: "bob" })
    expect(deliveries).toMatchObject([{ seq: 1, attempt: 1, redelivered: true }])
  })

  describe("with retries and fresh events", () => {
    const retries = Group.leave(holding(20), "ann", 1_000)
    const candidates = from(21, keyless(20))

    it.each([
      { limit: 5, retriesFirst: 0, expected: [21, 22, 23, 24, 25] },
      { limit: 5, retriesFirst: 2, expected: [1, 2, 21, 22, 23] },
      { limit: 5, retriesFirst: 9, expected: [1, 2, 3, 4, 5] },
      { limit: 1, retriesFirst: 0, expected: [21] },
      { limit: 1, retriesFirst: 1, expected: [1] }
    ])("gives $retriesFirst of $limit to retries first", ({ expected, limit, retriesFirst }) => {
      expect(seqs(claim(retries, { limit, retriesFirst, candidates }))).toEqual(expected)
    })

    it("gives retries what fresh events leave, the oldest first", () => {
      const some = { limit: 10, retriesFirst: 2, candidates: from(21, keyless(3)) }
      expect(seqs(claim(retries, some))).toEqual([1, 2, 21, 22, 23, 3, 4, 5, 6, 7])
      expect(seqs(claim(retries, { limit: 5 }))).toEqual([1, 2, 3, 4, 5])
    })

    it("gives nothing but retries where there are more of them than the member takes", () => {
      const { state } = claim(retries, { limit: 3, retriesFirst: 3, candidates })
      expect(state.next).toBe(21)
    })
  })
})

describe("key order", () => {
  const start = inOrder(["k", "k", "l", undefined, "k"])

  it("passes over events whose key is busy, and lets others flow", () => {
    expect(seqs(start)).toEqual([1, 3, 4])
    expect(start.state.deferred).toEqual(new Map([["k", { seqs: [2, 5], from: undefined, unlisted: 0 }]]))
    expect(start.state.next).toBe(6)
  })

  it("passes over them even when the member takes no more", () => {
    const claimed = inOrder(["k", "k", "l"], { limit: 1 })
    expect(seqs(claimed)).toEqual([1])
    expect(claimed.state.next).toBe(3)
  })

  it("is of no concern to events without a key", () => {
    expect(seqs(inOrder(keyless(3)))).toEqual([1, 2, 3])
  })

  it("goes on with a key when its event is done", () => {
    expect(seqs(claim(start.state, { options: ordered }))).toEqual([])
    const second = claim(ack(start.state, 1), { options: ordered })
    expect(seqs(second)).toEqual([2])
    expect(second.deliveries).toMatchObject([{ attempt: 1, redelivered: false }])
    const third = claim(ack(second.state, 2), { options: ordered })
    expect(seqs(third)).toEqual([5])
    expect(third.state.deferred.size).toBe(0)
  })

  it("takes what was passed over before new events of any key", () => {
    const claimed = claim(ack(start.state, 1), { options: ordered, candidates: from(6, ["k", "m"]) })
    expect(seqs(claimed)).toEqual([2, 7])
    expect(claimed.state.deferred.get("k")?.seqs).toEqual([5, 6])
    const one = claim(ack(start.state, 1), { options: ordered, limit: 1, candidates: from(6, ["m"]) })
    expect([seqs(one), one.state.next]).toEqual([[2], 6])
  })

  it("delivers one event of a key at a time, also when it is the last that was passed over", () => {
    const free = ack(inOrder(["k", "k"]).state, 1)
    const claimed = claim(free, { options: ordered, candidates: from(3, ["k", "k"]) })
    expect(seqs(claimed)).toEqual([2])
    expect(claimed.state.deferred.get("k")?.seqs).toEqual([3, 4])
  })

  it("counts retries and what was passed over together", () => {
    const begun = inOrder(["a", "b", "c", "a", "b", "c"]).state
    const state = refuse(ack(begun, 1, 2), { seq: 3, delayMs: 0 })
    expect(seqs(claim(state, { options: ordered, limit: 2, retriesFirst: 1 }))).toEqual([3, 4])
  })

  it("never delivers a new event of a key past one that was passed over, however free the key is", () => {
    const free = ack(start.state, 1, 3, 4)
    const claimed = claim(free, { options: ordered, limit: 1, candidates: from(6, ["k"]) })
    expect([seqs(claimed), claimed.state.deferred.get("k")?.seqs]).toEqual([[2], [5, 6]])
  })

  it("takes the oldest of what was passed over first, so that one busy key does not keep another waiting", () => {
    // With a credit of 1, k's next would always be free before l's turn came.
    let state = inOrder(["k", "l", "k", "l", "k", "k", "k"], { limit: 10 }).state
    state = ack(state, 1, 2)
    const order: Array<number> = []
    for (let i = 0; i < 5; i++) {
      const claimed = claim(state, { options: ordered, limit: 1 })
      order.push(...seqs(claimed))
      state = ack(claimed.state, ...seqs(claimed))
    }
    expect(order).toEqual([3, 4, 5, 6, 7])
  })

  it("holds a key while its event waits or dies, and goes on when it is buried", () => {
    const failed = refuse(start.state, { mode: "fail" })
    expect(seqs(claim(failed, { options: ordered, now: 1_001 }))).toEqual([])
    const dying = refuse(start.state, { mode: "poison" })
    expect(seqs(claim(dying, { options: ordered }))).toEqual([])
    expect(seqs(claim(Group.bury(dying, [1]), { options: ordered }))).toEqual([2])
  })

  it("delivers the retry of a key before what waits behind it", () => {
    const failed = refuse(start.state, { delayMs: 50 })
    const again = claim(failed, { options: ordered, now: 1_050, candidates: from(6, ["k"]) })
    expect(seqs(again)).toEqual([1])
    expect(again.state.deferred.get("k")?.seqs).toEqual([2, 5, 6])
  })

  it("is of no concern to a group that does not ask for it", () => {
    const claimed = claim(Group.initial("g", 0), { candidates: from(1, ["k", "k", "k"]) })
    expect(seqs(claimed)).toEqual([1, 2, 3])
    const back = Group.leave(claimed.state, "ann", 1_000)
    expect(seqs(claim(back))).toEqual([1, 2, 3])
  })
})

describe("the window", () => {
  const full = claim(Group.initial("g", 0), { window: 3, candidates: from(1, keyless(5)) })
  const more = { window: 3, candidates: from(4, keyless(5)) }

  it("stops a group that has begun too much and not finished it, and says so", () => {
    expect(seqs(full)).toEqual([1, 2, 3])
    expect(seqs(claim(full.state, more))).toEqual([])
    expect(Group.isStalled(full.state, 5, 3)).toBe(true)
  })

  it("is no reason where there is nothing new", () => {
    expect(Group.isStalled(full.state, 3, 3)).toBe(false)
    expect(Group.isStalled(full.state, 4, 3)).toBe(true)
    expect(Group.isStalled(Group.initial("g", 0), 5, 3)).toBe(false)
  })

  it("is not how far a group is ahead of its oldest event: that one waits, and the others flow", () => {
    let state = refuse(full.state, { delayMs: 100_000 })
    for (let next = 4; next < 1_000; next += 2) {
      state = ack(state, next - 2, next - 1)
      const claimed = claim(state, { window: 3, candidates: from(next, keyless(5)) })
      expect(seqs(claimed)).toEqual([next, next + 1])
      state = claimed.state
    }
    expect(state.floor).toBe(0)
  })

  it("is taken by what waits and dies as well", () => {
    const waits = refuse(full.state, { delayMs: 100_000 })
    const dies = refuse(waits, { seq: 2, mode: "poison" })
    expect(seqs(claim(dies, more))).toEqual([])
    expect(seqs(claim(Group.bury(dies, [2]), more))).toEqual([4])
  })

  it("does not stop retries", () => {
    const back = Group.leave(full.state, "ann", 1_000)
    expect(seqs(claim(back, more))).toEqual([1, 2, 3])
  })

  it("holds lists of what was passed over in one half of what is left, and what can be delivered in the other", () => {
    const { state } = inOrder(
      Array.from({ length: 10 }, () => "k"),
      { window: 10 }
    )
    expect(state.deferred.get("k")).toEqual({ seqs: [2, 3, 4, 5, 6], from: 7, unlisted: 4 })
    const others = claim(state, { options: ordered, window: 10, candidates: from(11, keyless(9)) })
    expect(seqs(others)).toEqual([11, 12, 13, 14])
    expect(Group.isStalled(others.state, 19, 10)).toBe(true)
  })

  it("is taken by a key of which nothing is listed, so that keys without end are none", () => {
    // Each of these keys is busy, and has another event behind it that finds no room on a list.
    const keys = Array.from({ length: 4 }, (_, i) => `k${i}`)
    const busy = inOrder([...keys, ...keys], { window: 4 })
    expect(seqs(busy)).toEqual([1, 2, 3, 4])
    expect([...Group.unlistedKeys(busy.state)]).toEqual(keys.map((key, i) => [key, i + 5]))
    const free = ack(busy.state, 1, 2, 3, 4)
    const asked = { options: ordered, window: 4, candidates: from(9, ["new"]) }
    expect(Group.isStalled(free, 9, 4)).toBe(true)
    expect(seqs(claim(free, asked))).toEqual([])
    const looks = keys.map((key, i) => ({ key, from: i + 5, to: 8, seqs: [i + 5] }))
    const listed = claim(Group.list(free, looks, 4), asked)
    expect(seqs(listed)).toEqual([5, 6, 7, 8])
    expect(seqs(claim(ack(listed.state, 5), asked))).toEqual([9])
  })
})

const lenient = { now: 1_000, maxAttempts: 10 }
const everyone = () => true
const once = Group.removeMembers(holding(3), everyone, lenient)
const suspects = Group.removeMembers(claim(once).state, everyone, lenient)

describe("suspects", () => {
  it("are events of which two deliveries ended without a word", () => {
    expect(Group.suspectDue(once, 1_000, false)).toBe(false)
    expect(Group.suspectDue(suspects, 1_000, false)).toBe(true)
    expect(Group.suspectDue(suspects, 999, false)).toBe(false)
  })

  it("are delivered one at a time, and never beside others", () => {
    const shared = { retriesFirst: 3, candidates: from(4, keyless(2)) }
    expect(seqs(claim(suspects, shared))).toEqual([4, 5])
    const alone = claim(suspects, { ...shared, mode: "alone" })
    expect(alone.deliveries).toEqual([
      { seq: 1, attempt: 3, redelivered: true, deadline: 1_100, letter: undefined }
    ])
    expect(Group.holdsSuspect(alone.state, "ann")).toBe(true)
    expect(Group.holdsSuspect(alone.state, "bob")).toBe(false)
    // What waits is with nobody, and what is no suspect is none.
    expect(Group.holdsSuspect(suspects, "ann")).toBe(false)
    expect(Group.holdsSuspect(holding(1), "ann")).toBe(false)
  })

  it("are not for the member that let them lapse, where others are there to take them", () => {
    const alone = { mode: "alone", hasOthers: true } as const
    expect(seqs(claim(suspects, alone))).toEqual([])
    expect(seqs(claim(suspects, { ...alone, member: "bob" }))).toEqual([1])
  })

  it("are nothing else than suspects, for a member that takes them", () => {
    expect(seqs(claim(once, { mode: "alone", candidates: from(4, keyless(2)) }))).toEqual([])
  })

  it("are not events that were refused, however often", () => {
    const fail = (state: Group.GroupState) =>
      Group.nack(state, [{ seq: 1, member: "ann", mode: "fail", reason: "", random: 0 }], {
        ...limits,
        maxAttempts: 10
      }).state
    const refused = fail(claim(fail(claim(fail(holding(1))).state)).state)
    expect(refused.waiting.get(1)).toMatchObject({ attempt: 3, unanswered: 0 })
    expect(Group.suspectDue(refused, 1_000, false)).toBe(false)
  })

  it("are not due while an earlier event of their key is open", () => {
    const lost = (state: Group.GroupState) => Group.removeMembers(state, everyone, lenient)
    const again = claim(lost(inOrder(["k"]).state), { options: ordered }).state
    const suspect = lost(again)
    expect(Group.suspectDue(suspect, 1_000, true)).toBe(true)
    const { waiting } = suspect
    const behind = new Map([...waiting, [0, { ...waiting.get(1)!, unanswered: 0, notBefore: 2_000 }]])
    expect(Group.suspectDue({ ...suspect, waiting: behind }, 1_000, true)).toBe(false)
    expect(Group.suspectDue({ ...suspect, waiting: behind }, 1_000, false)).toBe(true)
  })

  it("that are not due do not hide one that is", () => {
    const later = Group.nack(
      claim(suspects, { mode: "alone" }).state,
      [{ seq: 1, member: "ann", mode: "release", reason: "", random: 0, delayMs: 500 }],
      limits
    ).state
    expect(Group.suspectDue(later, 1_000, false)).toBe(true)
    expect(seqs(claim(later, { mode: "alone" }))).toEqual([2])
  })
})

describe("ten thousand acknowledgements out of order", () => {
  it("cost nothing in the state: the first is open, and nothing else is known", () => {
    const count = 10_001
    const state = holding(count)
    const acked = ack(state, ...Array.from({ length: count - 1 }, (_, i) => count - i))
    expect(acked).toEqual({
      ...Group.initial("g", 0),
      next: count + 1,
      inFlight: new Map([[1, state.inFlight.get(1)]])
    })
    expect(ack(acked, 1)).toEqual(Group.initial("g", count))
  })
})

describe("when something happens by itself", () => {
  it("is never, where nothing was begun", () => {
    expect(Group.nextDeadline(Group.initial("g", 5))).toBe(Infinity)
    expect(Group.outlook(Group.initial("g", 5), 1_000)).toEqual({ due: 0, next: Infinity })
  })

  it("is the next deadline of a delivery", () => {
    expect(Group.nextDeadline(holding(2))).toBe(1_100)
    expect(Group.nextDeadline(refuse(holding(1)))).toBe(Infinity)
  })

  it("is the next retry that is not due yet, beside those that are", () => {
    const two = refuse(refuse(holding(3), { delayMs: 70 }), { seq: 2, delayMs: 500 })
    expect(Group.outlook(two, 1_069)).toEqual({ due: 0, next: 1_070 })
    expect(Group.outlook(two, 1_070)).toEqual({ due: 1, next: 1_500 })
    expect(Group.outlook(two, 1_500)).toEqual({ due: 2, next: Infinity })
  })

  it("does not have to be known where more is due than anybody asks for", () => {
    const two = refuse(refuse(holding(3), { delayMs: 70 }), { seq: 2, delayMs: 80 })
    expect(Group.outlook(two, 1_090, 2)).toEqual({ due: 2, next: Infinity })
    expect(Group.outlook(two, 1_090, 1)).toEqual({ due: 2, next: 1_090 })
    expect(Group.outlook(two, 1_090, 0)).toEqual({ due: 1, next: 1_090 })
  })

  it("is when a suspect is due as well, which is not among the others that are", () => {
    const held = claim(suspects, { mode: "alone" }).state
    const handedBack = refuse(held, { seq: 1, mode: "release", delayMs: 70 })
    expect(Group.outlook(suspects, 999).next).toBe(1_000)
    expect(Group.outlook(suspects, 1_000)).toEqual({ due: 0, next: Infinity })
    expect(Group.outlook(handedBack, 1_000)).toEqual({ due: 0, next: 1_070 })
    expect([once, suspects, held, handedBack].map(Group.hasSuspects)).toEqual([false, true, true, true])
  })
})
