/** A consumer group's options, what a claim chooses, and how positions move: by example. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Group from "../../src/domain/Group.ts"

const options: Group.GroupOptions = { ackTimeoutMs: 100, maxAttempts: 3, keyOrdered: false }
const limits = { now: 1_000, maxAttempts: 3, backoff: { baseMs: 40, maxMs: 100 } }

/** Candidates from a seq on, one for each key. */
const from = (first: number, keys: ReadonlyArray<string | undefined>): ReadonlyArray<Group.Candidate> =>
  keys.map((key, i) => ({ seq: first + i, key }))

const keyless = (count: number) => Array.from({ length: count }, () => undefined)

const claim = (state: Group.GroupState, more: Partial<Group.Claim> = {}): Group.Claimed =>
  Group.claim(state, {
    now: 1_000,
    member: "ann",
    limit: 10,
    mode: "shared",
    candidates: [],
    options,
    window: 100,
    ...more
  })

const seqs = ({ deliveries }: Group.Claimed) => deliveries.map(({ seq }) => seq)

const ack = (state: Group.GroupState, ...answers: ReadonlyArray<number>) =>
  Group.ack(
    state,
    answers.map((seq) => ({ seq, member: "ann" }))
  ).state

/** A group in which ann has the first `count` events. */
const holding = (count: number) =>
  claim(Group.initial("g", 0), { limit: count, candidates: from(1, keyless(count)) }).state

const ordered = { ...options, keyOrdered: true }

describe("registration", () => {
  const registered: Group.Registration = {
    group: "billing",
    pattern: "orders.**",
    options,
    registeredAt: 0,
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
    const first = { attempt: 1, redelivered: false, deadline: 1_100 }
    expect(claimed.deliveries).toEqual([
      { seq: 5, ...first },
      { seq: 6, ...first }
    ])
    expect(claimed.state.next).toBe(7)
    expect(claimed.state.floor).toBe(4)
  })

  it.each([0, -1])("delivers nothing to a member that takes %d", (limit) => {
    const state = Group.initial("g", 0)
    expect(claim(state, { limit, candidates: from(1, keyless(2)) })).toEqual({ state, deliveries: [] })
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

  it("delivers a retry again when it is due, with the next attempt", () => {
    const refusal = { seq: 1, member: "ann", mode: "fail", reason: "", random: 0, delayMs: 50 } as const
    const { state } = Group.nack(holding(1), [refusal], limits)
    expect(seqs(claim(state, { now: 1_049 }))).toEqual([])
    expect(claim(state, { now: 1_050, member: "bob" }).deliveries).toEqual([
      { seq: 1, attempt: 2, redelivered: true, deadline: 1_150 }
    ])
  })

  describe("with retries and fresh events", () => {
    const retries = Group.leave(holding(20), "ann", 1_000)
    const candidates = from(21, keyless(20))

    it.each([
      { limit: 10, expected: [1, 2, 21, 22, 23, 24, 25, 26, 27, 28] },
      { limit: 4, expected: [1, 21, 22, 23] },
      { limit: 1, expected: [1] }
    ])("gives retries a fifth of $limit, one at the least", ({ expected, limit }) => {
      expect(seqs(claim(retries, { limit, candidates }))).toEqual(expected)
    })

    it("gives retries what fresh events leave", () => {
      expect(seqs(claim(retries, { limit: 10, candidates: from(21, keyless(3)) }))).toEqual([
        1, 2, 21, 22, 23, 3, 4, 5, 6, 7
      ])
      expect(seqs(claim(retries, { limit: 5 }))).toEqual([1, 2, 3, 4, 5])
    })
  })
})

describe("key order", () => {
  const start = claim(Group.initial("g", 0), {
    options: ordered,
    candidates: from(1, ["k", "k", "l", undefined, "k"])
  })

  it("passes over events whose key is busy, and lets others flow", () => {
    expect(seqs(start)).toEqual([1, 3, 4])
    expect(start.state.deferred).toEqual(new Map([["k", [2, 5]]]))
    expect(start.state.next).toBe(6)
  })

  it("passes over them even when the member takes no more", () => {
    const claimed = claim(Group.initial("g", 0), {
      options: ordered,
      limit: 1,
      candidates: from(1, ["k", "k", "l"])
    })
    expect(seqs(claimed)).toEqual([1])
    expect(claimed.state.next).toBe(3)
  })

  it("goes on with a key when its event is done", () => {
    expect(seqs(claim(start.state, { options: ordered }))).toEqual([])
    const second = claim(ack(start.state, 1), { options: ordered })
    expect(seqs(second)).toEqual([2])
    expect(seqs(claim(ack(second.state, 2), { options: ordered }))).toEqual([5])
  })

  it("takes what was passed over before new events of any key", () => {
    const claimed = claim(ack(start.state, 1), { options: ordered, candidates: from(6, ["k", "m"]) })
    expect(seqs(claimed)).toEqual([2, 7])
    expect(claimed.state.deferred).toEqual(new Map([["k", [5, 6]]]))
  })

  it("holds a key while its event waits or dies, and goes on when it is buried", () => {
    const refuse = (mode: "fail" | "poison") =>
      Group.nack(start.state, [{ seq: 1, member: "ann", mode, reason: "bad", random: 0.5 }], limits).state
    expect(seqs(claim(refuse("fail"), { options: ordered, now: 1_001 }))).toEqual([])
    expect(seqs(claim(refuse("poison"), { options: ordered }))).toEqual([])
    expect(seqs(claim(Group.bury(refuse("poison"), [1]), { options: ordered }))).toEqual([2])
  })

  it("is of no concern to a group that does not ask for it", () => {
    expect(seqs(claim(Group.initial("g", 0), { candidates: from(1, ["k", "k", "k"]) }))).toEqual([1, 2, 3])
  })
})

describe("the window", () => {
  const full = claim(Group.initial("g", 0), { window: 3, candidates: from(1, keyless(5)) })

  it("stops a group that is too far ahead of its oldest event, and says so", () => {
    expect(seqs(full)).toEqual([1, 2, 3])
    const behind = ack(full.state, 2, 3)
    expect(seqs(claim(behind, { window: 3, candidates: from(4, keyless(2)) }))).toEqual([])
    expect(Group.isStalled(behind, 5, 3)).toBe(true)
    expect(Group.isStalled(behind, 3, 3)).toBe(false)
  })

  it("lets it go on when that event is done", () => {
    const state = ack(full.state, 1, 2)
    expect(Group.isStalled(state, 5, 3)).toBe(false)
    expect(seqs(claim(state, { window: 3, candidates: from(4, keyless(2)) }))).toEqual([4, 5])
  })

  it("holds back passed-over events, too", () => {
    const claimed = claim(Group.initial("g", 0), {
      window: 3,
      options: ordered,
      candidates: from(1, ["k", "k", "k", "k"])
    })
    expect(claimed.state.deferred).toEqual(new Map([["k", [2, 3]]]))
    expect(Group.isStalled(claimed.state, 4, 3)).toBe(true)
  })
})

describe("suspects", () => {
  const lenient = { now: 1_000, maxAttempts: 10 }
  const everyone = () => true
  const again = claim(Group.removeMembers(holding(3), everyone, lenient)).state
  const suspects = Group.removeMembers(again, everyone, lenient)

  it("are events of which two deliveries ended without a word", () => {
    expect(Group.suspectDue(Group.removeMembers(holding(3), everyone, lenient), 1_000)).toBe(false)
    expect(Group.suspectDue(suspects, 1_000)).toBe(true)
    expect(Group.suspectDue(suspects, 999)).toBe(false)
  })

  it("are delivered one at a time, and never beside others", () => {
    expect(seqs(claim(suspects, { candidates: from(4, keyless(2)) }))).toEqual([4, 5])
    const alone = claim(suspects, { mode: "alone", candidates: from(4, keyless(2)) })
    expect(alone.deliveries).toEqual([{ seq: 1, attempt: 3, redelivered: true, deadline: 1_100 }])
    expect(Group.holdsSuspect(alone.state, "ann")).toBe(true)
    expect(Group.holdsSuspect(alone.state, "bob")).toBe(false)
  })

  it("are not events that were refused, however often", () => {
    const refuse = (state: Group.GroupState) =>
      Group.nack(state, [{ seq: 1, member: "ann", mode: "fail", reason: "", random: 0 }], {
        ...limits,
        maxAttempts: 10
      }).state
    const refused = refuse(claim(refuse(claim(refuse(holding(1))).state)).state)
    expect(refused.waiting.get(1)).toMatchObject({ attempt: 3, unanswered: 0 })
    expect(Group.suspectDue(refused, 1_000)).toBe(false)
  })
})

describe("seek", () => {
  it("goes on from the new position in a new generation, with nothing in flight", () => {
    const state = Group.seek({ generation: "g2", floor: 1 })
    expect(state).toEqual(Group.initial("g2", 1))
    expect(seqs(claim(state, { candidates: from(2, keyless(2)) }))).toEqual([2, 3])
  })
})

describe("trimmed events", () => {
  it("are passed over when the group had not taken them", () => {
    const state = Group.skipTrimmed(Group.initial("g", 2), 7)
    expect(state).toEqual(Group.initial("g", 7))
  })

  it("are passed over with all that is known of them, and no others", () => {
    const candidates = from(1, ["k", "k", "l", "k", undefined, undefined])
    const before = claim(Group.initial("g", 0), { options: ordered, candidates }).state
    const state = Group.skipTrimmed(ack(before, 5), 3)
    expect(state).toMatchObject({ floor: 3, next: 7, acked: [[5, 5]], deferred: new Map([["k", [4]]]) })
    expect([...state.inFlight.keys()]).toEqual([6])
  })

  it("take the floor through what was acknowledged behind them", () => {
    expect(Group.skipTrimmed(ack(holding(5), 3, 4), 2).floor).toBe(4)
  })

  it("at or below the floor change nothing", () => {
    const state = ack(holding(3), 1, 2)
    expect(Group.skipTrimmed(state, 2)).toBe(state)
    expect(Group.skipTrimmed(state, 1)).toBe(state)
  })
})

describe("read-outs", () => {
  it("of a group that has nothing are zero, none and never", () => {
    const state = Group.initial("g", 5)
    expect(Group.counts(state)).toEqual({ inFlight: 0, waiting: 0, deferred: 0, redelivered: 0, dying: 0 })
    expect(Group.pending(state, 5)).toBe(0)
    expect(Group.oldestUnacked(state, 5)).toBeUndefined()
    expect(Group.wakeAt(state)).toBe(Infinity)
  })

  it("count what is open, acknowledgements above the floor excepted", () => {
    const state = ack(holding(5), 2, 4)
    expect(Group.pending(state, 9)).toBe(7)
    expect(Group.oldestUnacked(state, 9)).toBe(1)
    expect(Group.counts(state)).toMatchObject({ inFlight: 3, redelivered: 0 })
  })

  it("count as redelivered what was delivered and not handed back unharmed", () => {
    const lapsed = Group.expire(holding(2), { now: 1_100, maxAttempts: 3 })
    expect(Group.counts(lapsed)).toMatchObject({ waiting: 2, redelivered: 2 })
    expect(Group.counts(claim(lapsed, { now: 1_100, limit: 1 }).state)).toMatchObject({ redelivered: 2 })
    expect(Group.counts(Group.leave(holding(2), "ann", 1_000))).toMatchObject({ waiting: 2, redelivered: 0 })
  })

  it("wake at the next deadline or the next retry, whichever is earlier", () => {
    expect(Group.wakeAt(holding(2))).toBe(1_100)
    const refusal = { seq: 1, member: "ann", mode: "fail", reason: "", random: 0, delayMs: 70 } as const
    expect(Group.wakeAt(Group.nack(holding(2), [refusal], limits).state)).toBe(1_070)
  })
})
