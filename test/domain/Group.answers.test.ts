/** What members say of their deliveries, and what becomes of a delivery of which nobody says anything: by example. */
import { describe, expect, it } from "@effect/vitest"
import * as Group from "../../src/domain/Group.ts"
import {
  ack,
  claim as claimed,
  from,
  holding,
  inOrder,
  keyless,
  limits,
  ordered,
  refusal,
  refuse
} from "./groupScene.ts"

const claim = (state: Group.GroupState, member: string, count = 0, now = 1_000) =>
  claimed(state, { now, member, candidates: from(state.next, keyless(count)) }).state

/** Ann has the events 1, 2 and 3, until 1100. */
const held = holding(3)
const lapsed = Group.expire(held, { now: 1_100, maxAttempts: 3 })
/** Bob has them now, for the second time. */
const takenOver = claim(lapsed, "bob", 0, 1_100)

describe("ack", () => {
  it("moves the floor over what is done without a hole", () => {
    const some = Group.ack(held, [{ seq: 3, member: "ann" }])
    expect(some).toMatchObject({ outcomes: ["done"], state: { floor: 0, next: 4 } })
    expect([...some.state.inFlight.keys()]).toEqual([1, 2])
    const more = ack(some.state, 1)
    expect(more.floor).toBe(1)
    expect(ack(more, 2)).toEqual(Group.initial("g", 3))
  })

  it("of many at once answers each in its place", () => {
    const answers = [2, 9, 2, 1].map((seq) => ({ seq, member: "ann" }))
    const { outcomes, state } = Group.ack(held, answers)
    expect(outcomes).toEqual(["done", "stale", "already", "done"])
    expect(state.floor).toBe(2)
  })

  it("of what is done already is answered so, whoever asks", () => {
    const state = ack(held, 1, 3)
    const again = Group.ack(state, [
      { seq: 1, member: "ann", attempt: 1 },
      { seq: 3, member: "bob" }
    ])
    expect(again).toEqual({ state, outcomes: ["already", "already"] })
    expect(again.state).toBe(state)
  })

  it.each([
    ["somebody else", { seq: 1, member: "bob" }],
    ["somebody else who knows the attempt", { seq: 1, member: "bob", attempt: 1 }],
    ["its member, about another attempt", { seq: 1, member: "ann", attempt: 2 }],
    ["a member, about what is not delivered", { seq: 4, member: "ann" }]
  ])("by %s changes nothing", (_, answer) => {
    expect(Group.ack(held, [answer])).toEqual({ state: held, outcomes: ["stale"] })
  })

  it("of what was passed over changes nothing, listed or not", () => {
    // Room for one on the list: 3 is on it, 4 and 5 are not.
    const { state } = inOrder(["k", "l", "k", "k", "k"], { window: 4 })
    expect(state.deferred.get("k")).toEqual({ seqs: [3], from: 4, unlisted: 2 })
    const of = (...seqs: ReadonlyArray<number>) =>
      Group.ack(
        state,
        seqs.map((seq) => ({ seq, member: "ann" }))
      )
    expect(of(3, 4, 5)).toEqual({ state, outcomes: ["stale", "stale", "stale"] })
    expect(of(2).outcomes).toEqual(["done"])
  })

  it("of what is done is stale where only its key could tell it from what was passed over", () => {
    const { state } = inOrder(["k", "k", "k", "l"], { window: 3 })
    expect(state.deferred.get("k")?.from).toBe(3)
    const done = ack(state, 4)
    expect(Group.ack(done, [{ seq: 4, member: "ann" }])).toEqual({ state: done, outcomes: ["stale"] })
  })

  it("of a delivery that lapsed counts until somebody else has it", () => {
    expect(Group.ack(lapsed, [{ seq: 1, member: "ann" }])).toMatchObject({
      outcomes: ["done"],
      state: { floor: 1 }
    })
    const late = [
      { seq: 1, member: "ann" },
      { seq: 2, member: "ann", attempt: 1 }
    ]
    expect(Group.ack(takenOver, late)).toEqual({ state: takenOver, outcomes: ["stale", "stale"] })
  })

  it("of a delivery that lapsed needs the attempt from a member that came back under another name", () => {
    const outcomes = Group.ack(lapsed, [
      { seq: 1, member: "ann again" },
      { seq: 2, member: "ann again", attempt: 2 },
      { seq: 3, member: "ann again", attempt: 1 }
    ]).outcomes
    expect(outcomes).toEqual(["stale", "stale", "done"])
  })

  it("of a dying event changes nothing: its dead letter is under way", () => {
    const state = refuse(held, { mode: "poison" })
    expect(Group.ack(state, [{ seq: 1, member: "ann" }])).toEqual({ state, outcomes: ["stale"] })
  })
})

describe("nack", () => {
  it.each([
    { attempt: 1, random: 0, delay: 0 },
    { attempt: 1, random: 0.5, delay: 20 },
    { attempt: 2, random: 0.5, delay: 40 },
    { attempt: 3, random: 0.5, delay: 50 }
  ])("backs off after attempt $attempt", ({ attempt, delay, random }) => {
    const entry = { ...held.inFlight.get(1)!, attempt }
    const state = { ...held, inFlight: new Map([[1, entry]]) }
    const refused = Group.nack(state, [refusal({ random })], { ...limits, maxAttempts: 9 })
    expect(refused.outcomes).toEqual(["done"])
    expect(refused.state.waiting.get(1)).toMatchObject({ attempt, unanswered: 0, notBefore: 1_000 + delay })
  })

  it("waits as long as the member says, and not at all after a release", () => {
    const waitOf = (more: Partial<Group.Refusal>) => refuse(held, more).waiting.get(1)!.notBefore
    expect(waitOf({ delayMs: 0 })).toBe(1_000)
    expect(waitOf({ delayMs: 5_000 })).toBe(6_000)
    expect(waitOf({ mode: "release" })).toBe(1_000)
    expect(waitOf({ mode: "release", delayMs: 70 })).toBe(1_070)
  })

  it("takes a released attempt back, so that the event comes with the same number", () => {
    const state = refuse(held, { mode: "release" })
    expect(claim(state, "bob").inFlight.get(1)).toMatchObject({ member: "bob", attempt: 1 })
  })

  it("gives up after the last attempt, and at once when it is poison", () => {
    const last = Group.nack(held, [refusal()], { ...limits, maxAttempts: 1 }).state
    expect(last.dying.get(1)).toMatchObject({ attempt: 1, reason: "bad", since: 1_000 })
    const poison = refuse(held, { mode: "poison", reason: "worse" })
    expect(poison.dying.get(1)).toMatchObject({ attempt: 1, reason: "worse" })
    expect(poison.inFlight.has(1)).toBe(false)
  })

  it("does not give up one attempt before the last", () => {
    expect(Group.nack(held, [refusal()], { ...limits, maxAttempts: 2 }).state.waiting.has(1)).toBe(true)
  })

  it.each(["fail", "poison"] as const)("never gives up where there is no last attempt: %s", (mode) => {
    const { state } = Group.nack(held, [refusal({ mode })], { ...limits, maxAttempts: Infinity })
    expect(state.dying.size).toBe(0)
    expect(state.waiting.get(1)).toMatchObject({ attempt: 1, reason: "bad", notBefore: 1_020 })
  })

  it("never gives up by a release, whatever the attempt", () => {
    const { state } = Group.nack(held, [refusal({ mode: "release" })], { ...limits, maxAttempts: 1 })
    expect(state.dying.size).toBe(0)
    expect(state.waiting.get(1)?.attempt).toBe(0)
  })

  it("keeps the reason: the last one that was given", () => {
    const once = refuse(held)
    expect(once.waiting.get(1)?.reason).toBe("bad")
    const again = claim(once, "ann", 0, 1_020)
    expect(refuse(again, { reason: "" }).waiting.get(1)?.reason).toBe("bad")
    expect(refuse(again, { reason: "worse" }).waiting.get(1)?.reason).toBe("worse")
  })

  it("keeps as much of a long reason as a state can hold for many", () => {
    const reasonOf = (length: number) => refuse(held, { reason: "r".repeat(length) }).waiting.get(1)?.reason
    expect(reasonOf(200)).toBe("r".repeat(200))
    expect(reasonOf(201)).toBe(`${"r".repeat(199)}…`)
    expect(reasonOf(100_000)).toBe(`${"r".repeat(199)}…`)
  })

  it("keeps more of the reason of one that dies, since the dead letter says it", () => {
    const reasonOf = (length: number) =>
      refuse(held, { mode: "poison", reason: "r".repeat(length) }).dying.get(1)?.reason
    expect(reasonOf(1_000)).toBe("r".repeat(1_000))
    expect(reasonOf(1_001)).toBe(`${"r".repeat(999)}…`)
  })

  it("counts once, however often it is said", () => {
    const release = refusal({ mode: "release" })
    const once = Group.nack(held, [release, release], limits)
    expect(once.outcomes).toEqual(["done", "stale"])
    const again = Group.nack(once.state, [release], limits)
    expect(again.outcomes).toEqual(["stale"])
    expect(again.state).toBe(once.state)
    expect(once.state.waiting.get(1)?.attempt).toBe(0)
  })

  it("of a delivery that lapsed counts until somebody else has it", () => {
    const refused = Group.nack(lapsed, [refusal({ delayMs: 500 })], { ...limits, now: 1_200 })
    expect(refused.state.waiting.get(1)).toMatchObject({
      attempt: 1,
      unanswered: 1,
      reason: "bad",
      notBefore: 1_700
    })
    const poison = Group.nack(lapsed, [refusal({ mode: "poison" })], limits).state
    expect([poison.waiting.has(1), poison.dying.get(1)?.attempt]).toEqual([false, 1])
    expect(Group.nack(takenOver, [refusal()], limits)).toEqual({ state: takenOver, outcomes: ["stale"] })
  })

  it("of what is acknowledged is answered so", () => {
    const state = ack(held, 1)
    expect(Group.nack(state, [refusal()], limits)).toEqual({ state, outcomes: ["already"] })
  })
})

describe("extend", () => {
  it("gives more time from now on", () => {
    const { outcomes, state } = Group.extend(held, [{ seq: 1, member: "ann", byMs: 500 }], 1_050)
    expect(outcomes).toEqual(["done"])
    expect([...state.inFlight.values()].map(({ deadline }) => deadline)).toEqual([1_550, 1_100, 1_100])
  })

  it("never takes time away", () => {
    const { state } = Group.extend(held, [{ seq: 1, member: "ann", byMs: 10 }], 1_000)
    expect(state.inFlight.get(1)?.deadline).toBe(1_100)
  })

  it("comes too late for a delivery that lapsed, and for one that is somebody else's", () => {
    const extension = { seq: 1, member: "ann", byMs: 500 }
    for (const state of [lapsed, takenOver]) {
      const extended = Group.extend(state, [extension], 1_100)
      expect(extended.outcomes).toEqual(["stale"])
      expect(extended.state).toBe(state)
    }
  })

  it("of what is acknowledged is answered so", () => {
    const state = ack(held, 1)
    expect(Group.extend(state, [{ seq: 1, member: "ann", byMs: 5 }], 1_000).outcomes).toEqual(["already"])
  })
})

describe("deliveries that end without an answer", () => {
  it("lapse at their deadline, not before, and the attempt counts", () => {
    expect(Group.expire(held, { now: 1_099, maxAttempts: 3 })).toBe(held)
    expect(lapsed.inFlight.size).toBe(0)
    expect(lapsed.waiting.get(1)).toMatchObject({
      attempt: 1,
      unanswered: 1,
      member: "ann",
      since: 1_000,
      reason: "the acknowledgement timed out",
      notBefore: 1_100
    })
    expect(lapsed.waiting.get(1)).not.toHaveProperty("deadline")
    expect(takenOver.inFlight.get(1)).toMatchObject({
      member: "bob",
      attempt: 2,
      unanswered: 1,
      since: 1_000
    })
    expect(takenOver.inFlight.get(1)).not.toHaveProperty("notBefore")
  })

  it("go back when their member is lost, at once, and the attempt counts", () => {
    const both = claim(held, "bob", 1)
    const state = Group.removeMembers(both, (member) => member === "ann", { now: 1_001, maxAttempts: 3 })
    expect([...state.inFlight.keys()]).toEqual([4])
    expect(state.waiting.get(3)).toMatchObject({
      attempt: 1,
      unanswered: 1,
      reason: "its member was lost",
      notBefore: 1_001
    })
    expect(Group.removeMembers(both, () => false, { now: 1_001, maxAttempts: 3 })).toBe(both)
  })

  it("go back when their member says goodbye, and the attempt does not count", () => {
    const again = claim(refuse(held, { delayMs: 0 }), "ann")
    const state = Group.leave(again, "ann", 1_001)
    expect(state.waiting.get(1)).toMatchObject({ attempt: 1, unanswered: 0, member: "", reason: "bad" })
    expect(state.waiting.get(2)).toMatchObject({ attempt: 0, unanswered: 0, reason: "", notBefore: 1_001 })
    expect(state.waiting.get(2)).not.toHaveProperty("deadline")
    expect(Group.leave(held, "bob", 1_001)).toBe(held)
    expect(Group.ack(state, [{ seq: 2, member: "ann" }]).outcomes).toEqual(["stale"])
  })

  it("die with the last attempt, with a reason that says why", () => {
    expect(Group.expire(held, { now: 1_100, maxAttempts: 1 }).dying.get(2)).toEqual({
      attempt: 1,
      unanswered: 1,
      member: "ann",
      key: undefined,
      since: 1_000,
      reason: "the acknowledgement timed out",
      letter: undefined
    })
    const lost = Group.removeMembers(held, () => true, { now: 1_000, maxAttempts: 1 })
    expect(lost.dying.get(2)?.reason).toBe("its member was lost")
    expect(lost.waiting.size + lost.inFlight.size).toBe(0)
  })

  it("lapse and die at the same time, each as it has to", () => {
    const again = claim(refuse(holding(2), { seq: 2, delayMs: 0 }), "ann")
    const state = Group.expire(again, { now: 1_100, maxAttempts: 2 })
    expect([[...state.waiting.keys()], [...state.dying.keys()], state.inFlight.size]).toEqual([[1], [2], 0])
  })
})

describe("dying events", () => {
  const dying = Group.removeMembers(held, () => true, { now: 1_000, maxAttempts: 1 })

  it("are never delivered, and hold the floor until they are buried", () => {
    expect(claim(dying, "bob", 1, 9_999).inFlight.has(1)).toBe(false)
    expect(dying.floor).toBe(0)
    const some = Group.bury(dying, [1, 3])
    expect([some.floor, [...some.dying.keys()]]).toEqual([1, [2]])
    expect(Group.bury(dying, [3, 2, 1])).toEqual(Group.initial("g", 3))
  })

  it("are the only ones that can be buried", () => {
    expect(Group.bury(held, [1, 2, 9])).toBe(held)
    const buried = Group.bury(dying, [1])
    expect(Group.bury(buried, [1])).toBe(buried)
    expect(Group.bury(lapsed, [1])).toBe(lapsed)
  })

  it("hold their key until they are buried", () => {
    const { state } = inOrder(["k", "k"])
    const gone = refuse(state, { mode: "poison" })
    expect(claimed(gone, { options: ordered }).deliveries).toEqual([])
    expect(claimed(Group.bury(gone, [1]), { options: ordered }).deliveries).toMatchObject([{ seq: 2 }])
  })
})
