/** What people are told of a consumer group on a topic: by example. */
import { describe, expect, it } from "@effect/vitest"
import * as Group from "../../src/domain/Group.ts"
import * as GroupView from "../../src/domain/GroupView.ts"
import { ack, claim, entry, from, holding, inOrder, keyless, limits, ordered, refuse } from "./groupScene.ts"

describe("counts", () => {
  it("of a group that has nothing are zero", () => {
    expect(GroupView.counts(Group.initial("g", 5))).toEqual({
      inFlight: 0,
      waiting: 0,
      deferred: 0,
      redelivered: 0,
      dying: 0,
      redriven: 0
    })
  })

  it("are of what is open, acknowledgements above the floor excepted", () => {
    expect(GroupView.counts(ack(holding(5), 2, 4))).toMatchObject({ inFlight: 3, redelivered: 0 })
  })

  it("say what waits, dies, and was passed over, listed or not", () => {
    const { state } = inOrder(["k", "l", "m", "k", "k", "k"], { window: 5 })
    expect(state.deferred.get("k")).toEqual({ seqs: [4], from: 5, unlisted: 2 })
    const some = refuse(refuse(state, { seq: 2, mode: "poison" }), { seq: 3 })
    expect(GroupView.counts(some)).toEqual({
      inFlight: 1,
      waiting: 1,
      deferred: 3,
      redelivered: 1,
      dying: 1,
      redriven: 0
    })
  })

  it("count as redelivered what was delivered and not handed back unharmed", () => {
    const lapsed = Group.expire(holding(2), { now: 1_100, maxAttempts: 3 })
    expect(GroupView.counts(lapsed)).toMatchObject({ waiting: 2, redelivered: 2 })
    expect(GroupView.counts(claim(lapsed, { now: 1_100, limit: 1 }).state)).toMatchObject({
      inFlight: 1,
      redelivered: 2
    })
    expect(GroupView.counts(Group.leave(holding(2), "ann", 1_000))).toMatchObject({
      waiting: 2,
      redelivered: 0
    })
  })

  it("count as redriven what came back from the dead letters, wherever it is", () => {
    const state: Group.GroupState = {
      ...holding(1),
      waiting: new Map([[5, { ...entry, letter: 1, notBefore: 0 }]]),
      dying: new Map([[6, { ...entry, letter: 2 }]])
    }
    expect(GroupView.counts(state).redriven).toBe(2)
    const all = { ...state, inFlight: new Map([[7, { ...entry, letter: 3, deadline: 0 }]]) }
    expect(GroupView.counts(all).redriven).toBe(3)
  })
})

describe("pending", () => {
  it("is what is not acknowledged, delivered or not", () => {
    expect(GroupView.pending(Group.initial("g", 5), 5)).toBe(0)
    expect(GroupView.pending(Group.initial("g", 5), 7)).toBe(2)
    expect(GroupView.pending(ack(holding(5), 2, 4), 9)).toBe(7)
  })

  it("is nothing in a topic that ends before the group's position", () => {
    expect(GroupView.pending(Group.initial("g", 5), 3)).toBe(0)
  })

  it("does not count what comes back from the dead letters", () => {
    const state: Group.GroupState = {
      ...Group.initial("g", 5),
      waiting: new Map([[2, { ...entry, letter: 1, notBefore: 0 }]]),
      redrive: { plans: [], letters: [[1, 1]] }
    }
    expect(GroupView.pending(state, 7)).toBe(2)
    expect(Group.doneCount(state)).toBe(5)
    expect(Group.openCount(state)).toBe(0)
  })

  it("has an oldest, where there is one", () => {
    expect(GroupView.oldestUnacked(ack(holding(5), 2, 4), 9)).toBe(1)
    expect(GroupView.oldestUnacked(ack(holding(5), 1), 9)).toBe(2)
    expect(GroupView.oldestUnacked(Group.initial("g", 5), 6)).toBe(6)
    expect(GroupView.oldestUnacked(Group.initial("g", 5), 5)).toBeUndefined()
  })
})

describe("the pace of a group", () => {
  const at = (state: Group.GroupState, now: number) => Group.sampled(state, now)
  const begun = at(Group.initial("g", 100), 5_000)

  it("is not known before it was measured for a second", () => {
    expect(GroupView.rate(Group.initial("g", 100), 99_999)).toBeUndefined()
    expect(begun.pace).toEqual([{ at: 5_000, done: 100 }])
    expect(GroupView.rate(begun, 5_999)).toBeUndefined()
    expect(GroupView.rate(begun, 6_000)).toBe(0)
  })

  it("is what was done since the older sample", () => {
    const later = { ...begun, floor: 130, next: 131 }
    expect(GroupView.rate(later, 7_000)).toBe(15)
    const two = at(later, 15_000)
    expect(two.pace).toEqual([
      { at: 5_000, done: 100 },
      { at: 15_000, done: 130 }
    ])
    expect(GroupView.rate(two, 15_000)).toBe(3)
  })

  it("counts what is done ahead of the floor", () => {
    const held = at(claim(Group.initial("g", 100), { candidates: from(101, keyless(5)) }).state, 5_000)
    expect(held.pace).toEqual([{ at: 5_000, done: 100 }])
    expect(GroupView.rate(ack(held, 103, 104), 7_000)).toBe(1)
  })

  it("is sampled every ten seconds at most, and the last two samples are kept", () => {
    expect(at(begun, 5_000)).toBe(begun)
    expect(at(begun, 14_999)).toBe(begun)
    const two = at(begun, 15_000)
    expect(at(two, 24_999)).toBe(two)
    expect(at(two, 25_000).pace.map((sample) => sample.at)).toEqual([15_000, 25_000])
  })

  it("begins anew after a minute in which nothing happened, and when the clock was set back", () => {
    expect(at(begun, 65_000).pace.length).toBe(2)
    expect(at(begun, 65_001).pace).toEqual([{ at: 65_001, done: 100 }])
    expect(at(begun, 4_999).pace).toEqual([{ at: 4_999, done: 100 }])
  })

  it("is never less than nothing", () => {
    const less = { ...begun, next: 90, floor: 89 }
    expect(GroupView.rate(less, 7_000)).toBe(0)
  })
})

describe("blocked keys", () => {
  const keys = (state: Group.GroupState) => {
    const blocked = GroupView.blockedKeys(state).map(({ key }) => key)
    expect(GroupView.countBlockedKeys(state)).toBe(blocked.length)
    return blocked
  }

  it("are none, where nothing failed", () => {
    expect(keys(inOrder(["k", "k", "l"]).state)).toEqual([])
    expect(keys(Group.initial("g", 9))).toEqual([])
  })

  it("say which event the others wait for, since when, until when, and why", () => {
    const { state } = inOrder(["k", "l", "k", "k"])
    expect(GroupView.blockedKeys(refuse(state, { delayMs: 500 }))).toEqual([
      {
        key: "k",
        seq: 1,
        state: "waiting",
        attempt: 1,
        since: 1_000,
        notBefore: 1_500,
        reason: "bad",
        behind: 2
      }
    ])
  })

  it("are keys whose event is tried again, and those whose event dies", () => {
    const failed = refuse(inOrder(["k", "l", "k"]).state, { delayMs: 0 })
    const again = claim(failed, { options: ordered }).state
    expect(keys(again)).toEqual(["k"])
    expect(GroupView.blockedKeys(again)).toMatchObject([
      { key: "k", seq: 1, state: "inFlight", attempt: 2, notBefore: undefined, reason: "bad", behind: 1 }
    ])
    expect(GroupView.blockedKeys(refuse(again, { mode: "poison", reason: "worse" }))).toMatchObject([
      { key: "k", seq: 1, state: "dying", attempt: 2, notBefore: undefined, reason: "worse", behind: 1 }
    ])
  })

  it("are keys whose event dies after its first attempt", () => {
    expect(keys(refuse(inOrder(["k"]).state, { mode: "poison" }))).toEqual(["k"])
  })

  it("are keys whose event was handed back, until somebody has it", () => {
    const back = Group.leave(inOrder(["k"]).state, "ann", 1_000)
    expect(GroupView.blockedKeys(back)).toMatchObject([{ key: "k", attempt: 0, state: "waiting", behind: 0 }])
    expect(keys(claim(back, { options: ordered }).state)).toEqual([])
  })

  it("have no events without a key among them", () => {
    const all = Group.leave(refuse(refuse(holding(3)), { seq: 2, mode: "poison" }), "ann", 1_000)
    expect(keys(all)).toEqual([])
    expect(keys(claim(all, { now: 2_000 }).state)).toEqual([])
  })

  it("count those behind that are not listed", () => {
    const { state } = inOrder(["k", "k", "k", "k"], { window: 1 })
    expect(GroupView.blockedKeys(refuse(state))).toMatchObject([{ key: "k", behind: 3 }])
  })

  it("come with the longest blocked first, and then in the order of the log", () => {
    const all = inOrder(["a", "b", "c"]).state
    const fail = (seq: number) => ({ seq, member: "ann", mode: "fail", reason: "", random: 0 }) as const
    const { state } = Group.nack(all, [fail(3), fail(2), fail(1)], limits)
    expect(keys(state)).toEqual(["a", "b", "c"])
    const older: Group.GroupState = {
      ...state,
      waiting: new Map([...state.waiting, [3, { ...state.waiting.get(3)!, since: 1 }]])
    }
    expect(keys(older)).toEqual(["c", "a", "b"])
  })

  describe("with events that came back from the dead letters", () => {
    const waits: Group.Waiting = { ...entry, key: "k", attempt: 1, letter: 7, notBefore: 2_000 }
    const runs: Group.InFlight = { ...entry, key: "k", attempt: 2, deadline: 1_100 }
    const dies: Group.Dying = { ...entry, key: "k", attempt: 3 }

    it("wait for the one that a member has, wherever it stands", () => {
      const state: Group.GroupState = {
        ...Group.initial("g", 9),
        inFlight: new Map([[8, runs]]),
        waiting: new Map([
          [3, waits],
          [2, waits]
        ])
      }
      expect(GroupView.blockedKeys(state)).toMatchObject([{ seq: 8, state: "inFlight", behind: 2 }])
    })

    it("wait for the first of them, when none of them is with a member", () => {
      const waiting = new Map([
        [3, waits],
        [2, waits],
        [4, waits]
      ])
      const state: Group.GroupState = { ...Group.initial("g", 9), waiting }
      expect(GroupView.blockedKeys(state)).toMatchObject([{ seq: 2, state: "waiting", behind: 2 }])
    })

    it("wait for the first that dies", () => {
      const state: Group.GroupState = {
        ...Group.initial("g", 9),
        inFlight: new Map([[2, runs]]),
        waiting: new Map([[1, waits]]),
        dying: new Map([
          [6, dies],
          [5, dies]
        ])
      }
      expect(GroupView.blockedKeys(state)).toMatchObject([{ seq: 5, state: "dying", behind: 3 }])
      expect(keys(state)).toEqual(["k"])
    })

    it("are not blocked by one that is delivered for the first time, but by one that dies", () => {
      const first: Group.GroupState = {
        ...Group.initial("g", 9),
        inFlight: new Map([[2, { ...runs, attempt: 1 }]]),
        waiting: new Map([[1, waits]])
      }
      expect(keys(first)).toEqual([])
      expect(keys({ ...first, dying: new Map([[5, dies]]) })).toEqual(["k"])
    })
  })
})

describe("what a seek would do", () => {
  const effect = (state: Group.GroupState, floor: number, unlisted?: number) =>
    GroupView.seekEffect(state, floor, unlisted)

  it("backwards: what was acknowledged behind there comes again", () => {
    expect(effect(Group.initial("g", 9), 4)).toEqual({ again: 5, skipped: 0 })
    // 1, 3 and 5 are with ann.
    const some = ack(holding(5), 2, 4)
    expect(effect(some, 0)).toEqual({ again: 2, skipped: 0 })
    expect(effect(some, 2)).toEqual({ again: 1, skipped: 1 })
  })

  it("forwards: what is not acknowledged before there does not come", () => {
    expect(effect(Group.initial("g", 4), 9)).toEqual({ again: 0, skipped: 5 })
    const some = ack(holding(5), 2, 4)
    expect(effect(some, 5)).toEqual({ again: 0, skipped: 3 })
    expect(effect(some, 8)).toEqual({ again: 0, skipped: 6 })
  })

  it("to where it stands: nothing", () => {
    expect(effect(Group.initial("g", 9), 9)).toEqual({ again: 0, skipped: 0 })
  })

  it("counts what waits and what dies, and nothing that comes back from the dead letters", () => {
    const state = refuse(refuse(holding(4), { mode: "poison" }), { seq: 2 })
    expect(effect(state, 4)).toEqual({ again: 0, skipped: 4 })
    const letter = { ...entry, letter: 1, notBefore: 0 }
    const back: Group.GroupState = {
      ...Group.initial("g", 9),
      waiting: new Map([[2, letter]]),
      redrive: { plans: [], letters: [[1, 1]] }
    }
    expect(effect(back, 4)).toEqual({ again: 5, skipped: 0 })
    expect(effect(back, 9)).toEqual({ again: 0, skipped: 0 })
  })

  describe("with events that were passed over", () => {
    /** Of k, 2 is listed; 4, 5 and 7 are not. 3 and 6 are others, and done; 1 is ann's. */
    const begun = inOrder(["k", "k", undefined, "k", "k", undefined, "k"], { window: 4 }).state
    const state = ack(begun, 3, 6)

    it("has to look into the log for those that are not listed, and no further than it must", () => {
      expect(state.deferred.get("k")).toEqual({ seqs: [2], from: 4, unlisted: 3 })
      expect(GroupView.unlistedUpTo(state, 3)).toBeUndefined()
      expect(GroupView.unlistedUpTo(state, 4)).toEqual({ from: 4, to: 4 })
      expect(GroupView.unlistedUpTo(state, 6)).toEqual({ from: 4, to: 6 })
      expect(GroupView.unlistedUpTo(state, 7)).toBeUndefined()
      expect(GroupView.unlistedUpTo(state, 9)).toBeUndefined()
      expect(GroupView.unlistedUpTo(Group.initial("g", 9), 4)).toBeUndefined()
    })

    it("knows them there", () => {
      const keys = ["k", "k", undefined, "k", "k", undefined, "k", "k"]
      const seqs = keys.flatMap((key, i) => (GroupView.isUnlisted(state, { seq: i + 1, key }) ? [i + 1] : []))
      expect(seqs).toEqual([4, 5, 7])
      expect(GroupView.isUnlisted(state, { seq: 5, key: "l" })).toBe(false)
    })

    it("counts them", () => {
      expect(effect(state, 0)).toEqual({ again: 2, skipped: 0 })
      expect(effect(state, 2)).toEqual({ again: 2, skipped: 2 })
      expect(effect(state, 3)).toEqual({ again: 1, skipped: 2 })
      expect(effect(state, 5, 2)).toEqual({ again: 1, skipped: 4 })
      expect(effect(state, 6, 2)).toEqual({ again: 0, skipped: 4 })
      expect(effect(state, 7)).toEqual({ again: 0, skipped: 5 })
      expect(effect(state, 9)).toEqual({ again: 0, skipped: 7 })
    })

    it("is never less than nothing, where more are counted than there are", () => {
      const trimmed = Group.skipTrimmed(inOrder(["k", "k", "k", "k", "k"], { window: 1 }).state, 3)
      expect(effect(trimmed, 4, 1)).toEqual({ again: 0, skipped: 1 })
    })
  })
})
