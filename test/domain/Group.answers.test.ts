/** What members say of their deliveries, and what becomes of a delivery of which nobody says anything: by example. */
import { describe, expect, it } from "@effect/vitest"
import * as Group from "../../src/domain/Group.ts"

const options: Group.GroupOptions = { ackTimeoutMs: 100, maxAttempts: 3, keyOrdered: false }
const limits = { now: 1_000, maxAttempts: 3, backoff: { baseMs: 40, maxMs: 100 } }

const claim = (state: Group.GroupState, member: string, seqs: ReadonlyArray<number> = [], now = 1_000) =>
  Group.claim(state, {
    now,
    member,
    limit: 10,
    mode: "shared",
    candidates: seqs.map((seq) => ({ seq, key: undefined })),
    options,
    window: 100
  }).state

/** Ann has the events 1, 2 and 3, until 1100. */
const held = claim(Group.initial("g", 0), "ann", [1, 2, 3])
const lapsed = Group.expire(held, { now: 1_100, maxAttempts: 3 })
/** Bob has them now, for the second time. */
const takenOver = claim(lapsed, "bob", [], 1_100)

const refusal = (more: Partial<Group.Refusal> = {}): Group.Refusal => ({
  seq: 1,
  member: "ann",
  mode: "fail",
  reason: "bad",
  random: 0.5,
  ...more
})

describe("ack", () => {
  it("moves the floor over what is done without a hole, and keeps the rest as ranges", () => {
    const some = Group.ack(held, [{ seq: 3, member: "ann" }])
    expect(some).toMatchObject({ outcomes: ["done"], state: { floor: 0, acked: [[3, 3]] } })
    const more = Group.ack(some.state, [{ seq: 1, member: "ann" }])
    expect(more.state).toMatchObject({ floor: 1, acked: [[3, 3]] })
    const all = Group.ack(more.state, [{ seq: 2, member: "ann" }])
    expect(all.state).toEqual({ ...Group.initial("g", 3) })
  })

  it("of many at once answers each in its place", () => {
    const answers = [2, 9, 2, 1].map((seq) => ({ seq, member: "ann" }))
    const { outcomes, state } = Group.ack(held, answers)
    expect(outcomes).toEqual(["done", "stale", "already", "done"])
    expect(state.floor).toBe(2)
  })

  it("of what is done already is answered so, whoever asks", () => {
    const { state } = Group.ack(held, [
      { seq: 1, member: "ann" },
      { seq: 3, member: "ann" }
    ])
    const again = Group.ack(state, [
      { seq: 1, member: "ann", attempt: 1 },
      { seq: 3, member: "bob" }
    ])
    expect(again).toEqual({ state, outcomes: ["already", "already"] })
  })

  it.each([
    ["somebody else", { seq: 1, member: "bob" }],
    ["somebody else who knows the attempt", { seq: 1, member: "bob", attempt: 1 }],
    ["its member, about another attempt", { seq: 1, member: "ann", attempt: 2 }],
    ["a member, about what is not delivered", { seq: 4, member: "ann" }]
  ])("by %s changes nothing", (_, answer) => {
    expect(Group.ack(held, [answer])).toEqual({ state: held, outcomes: ["stale"] })
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
    const { state } = Group.nack(held, [refusal({ mode: "poison" })], limits)
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
    const waitOf = (more: Partial<Group.Refusal>) =>
      Group.nack(held, [refusal(more)], limits).state.waiting.get(1)!.notBefore
    expect(waitOf({ delayMs: 0 })).toBe(1_000)
    expect(waitOf({ delayMs: 5_000 })).toBe(6_000)
    expect(waitOf({ mode: "release" })).toBe(1_000)
    expect(waitOf({ mode: "release", delayMs: 70 })).toBe(1_070)
  })

  it("takes a released attempt back, so that the event comes with the same number", () => {
    const { state } = Group.nack(held, [refusal({ mode: "release" })], limits)
    expect(claim(state, "bob").inFlight.get(1)).toMatchObject({ member: "bob", attempt: 1 })
  })

  it("gives up after the last attempt, and at once when it is poison", () => {
    const last = Group.nack(held, [refusal()], { ...limits, maxAttempts: 1 })
    expect(last.state.dying.get(1)).toMatchObject({ attempt: 1, reason: "bad" })
    const poison = Group.nack(held, [refusal({ mode: "poison", reason: "worse" })], limits)
    expect(poison.state.dying.get(1)).toMatchObject({ attempt: 1, reason: "worse" })
    expect(poison.state.inFlight.has(1)).toBe(false)
  })

  it("never gives up by a release, whatever the attempt", () => {
    const { state } = Group.nack(held, [refusal({ mode: "release" })], { ...limits, maxAttempts: 1 })
    expect(state.dying.size).toBe(0)
    expect(state.waiting.get(1)?.attempt).toBe(0)
  })

  it("counts once, however often it is said", () => {
    const once = Group.nack(held, [refusal({ mode: "release" }), refusal({ mode: "release" })], limits)
    expect(once.outcomes).toEqual(["done", "stale"])
    expect(Group.nack(once.state, [refusal({ mode: "release" })], limits)).toEqual({
      state: once.state,
      outcomes: ["stale"]
    })
    expect(once.state.waiting.get(1)?.attempt).toBe(0)
  })

  it("of a delivery that lapsed counts until somebody else has it", () => {
    const refused = Group.nack(lapsed, [refusal({ delayMs: 500 })], { ...limits, now: 1_200 })
    expect(refused.state.waiting.get(1)).toMatchObject({ attempt: 1, unanswered: 1, notBefore: 1_700 })
    expect(Group.nack(takenOver, [refusal()], limits)).toEqual({ state: takenOver, outcomes: ["stale"] })
  })

  it("of what is acknowledged is answered so", () => {
    const { state } = Group.ack(held, [{ seq: 1, member: "ann" }])
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
    expect(Group.extend(lapsed, [extension], 1_100)).toEqual({ state: lapsed, outcomes: ["stale"] })
    expect(Group.extend(takenOver, [extension], 1_100)).toEqual({ state: takenOver, outcomes: ["stale"] })
  })
})

describe("deliveries that end without an answer", () => {
  it("lapse at their deadline, not before, and the attempt counts", () => {
    expect(Group.expire(held, { now: 1_099, maxAttempts: 3 })).toBe(held)
    expect(lapsed.inFlight.size).toBe(0)
    expect(lapsed.waiting.get(1)).toMatchObject({ attempt: 1, unanswered: 1, notBefore: 1_100 })
    expect(takenOver.inFlight.get(1)).toMatchObject({ member: "bob", attempt: 2, unanswered: 1 })
  })

  it("go back when their member is lost, at once, and the attempt counts", () => {
    const both = claim(held, "bob", [4])
    const state = Group.removeMembers(both, (member) => member === "ann", { now: 1_001, maxAttempts: 3 })
    expect([...state.inFlight.keys()]).toEqual([4])
    expect(state.waiting.get(3)).toMatchObject({ attempt: 1, unanswered: 1, notBefore: 1_001 })
    expect(Group.removeMembers(both, () => false, { now: 1_001, maxAttempts: 3 })).toBe(both)
  })

  it("go back when their member says goodbye, and the attempt does not count", () => {
    const state = Group.leave(held, "ann", 1_001)
    expect(state.waiting.get(1)).toMatchObject({ attempt: 0, unanswered: 0, notBefore: 1_001 })
    expect(Group.leave(held, "bob", 1_001)).toBe(held)
  })

  it("die with the last attempt, with a reason that says why", () => {
    expect(Group.expire(held, { now: 1_100, maxAttempts: 1 }).dying.get(2)).toMatchObject({
      attempt: 1,
      unanswered: 1,
      reason: "the acknowledgement timed out"
    })
    const lost = Group.removeMembers(held, () => true, { now: 1_000, maxAttempts: 1 })
    expect(lost.dying.get(2)?.reason).toBe("its member was lost")
    expect(lost.waiting.size).toBe(0)
  })
})

describe("dying events", () => {
  const dying = Group.removeMembers(held, () => true, { now: 1_000, maxAttempts: 1 })

  it("are never delivered, and hold the floor until they are buried", () => {
    expect(claim(dying, "bob", [4], 9_999).inFlight.has(1)).toBe(false)
    expect(dying.floor).toBe(0)
    expect(Group.bury(dying, [1, 3])).toMatchObject({ floor: 1, acked: [[3, 3]] })
    expect(Group.bury(dying, [3, 2, 1])).toEqual(Group.initial("g", 3))
  })

  it("are the only ones that can be buried", () => {
    expect(Group.bury(held, [1, 2, 9])).toBe(held)
    const buried = Group.bury(dying, [1])
    expect(Group.bury(buried, [1])).toBe(buried)
  })
})
