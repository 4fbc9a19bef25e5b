/** How a group's position moves otherwise than by its members: seeks and trims, by example. */
import { describe, expect, it } from "@effect/vitest"
import * as Group from "../../src/domain/Group.ts"
import * as GroupView from "../../src/domain/GroupView.ts"
import { ack, claim, entry, from, holding, inOrder, keyless, ordered, refuse, seqs } from "./groupScene.ts"

/** Events that came back from the dead letters: one with ann, one that lapsed, one that waits, one that dies. */
const redriven: Group.GroupState = {
  ...Group.initial("g", 9),
  inFlight: new Map([[2, { ...entry, attempt: 2, letter: 1, deadline: 1_100 }]]),
  waiting: new Map([
    [4, { ...entry, letter: 2, unanswered: 1, notBefore: 1_000 }],
    [6, { ...entry, attempt: 0, member: Group.nobody, letter: 3, notBefore: 5_000 }]
  ]),
  dying: new Map([[8, { ...entry, attempt: 3, letter: 4, reason: "bad" }]]),
  redrive: { plans: [{ next: 5, upTo: 9, filter: { key: "k" } }], letters: [[1, 4]] },
  pace: [{ at: 0, done: 5 }]
}

describe("seek", () => {
  it("goes on from the new position in a new generation, with nothing in flight", () => {
    const state = Group.seek(holding(5), { generation: "g2", floor: 1 })
    expect(state).toEqual(Group.initial("g2", 1))
    expect(seqs(claim(state, { candidates: from(2, keyless(2)) }))).toEqual([2, 3])
  })

  it("forgets what waits, dies and was passed over, forwards and backwards", () => {
    const some = refuse(refuse(inOrder(["k", "k", "l", "m"]).state, { mode: "poison" }), { seq: 3 })
    expect(some).toMatchObject({ waiting: new Map([[3, {}]]), dying: new Map([[1, {}]]) })
    for (const floor of [0, 2, 50]) {
      expect(Group.seek(some, { generation: "g2", floor })).toEqual(Group.initial("g2", floor))
    }
  })

  it("brings back what a member had from the dead letters, at once, as if it had not had it", () => {
    const state = Group.seek(redriven, { generation: "g2", floor: 20 })
    expect(state.inFlight.size).toBe(0)
    expect(state.waiting.get(2)).toEqual({
      ...entry,
      attempt: 1,
      member: Group.nobody,
      letter: 1,
      notBefore: 1_000
    })
    expect(claim(state).deliveries).toMatchObject([
      { seq: 2, attempt: 2, letter: 1 },
      { seq: 4, attempt: 2, letter: 2 }
    ])
  })

  it("keeps what waits or dies on its way back, and takes no answer from before to it", () => {
    const state = Group.seek(redriven, { generation: "g2", floor: 20 })
    expect([...state.waiting.keys()].toSorted()).toEqual([2, 4, 6])
    expect(state.waiting.get(6)).toEqual(redriven.waiting.get(6))
    expect(state.dying).toEqual(redriven.dying)
    const late = [2, 4].map((seq) => ({ seq, member: "ann" }))
    expect(Group.ack(redriven, late).outcomes).toEqual(["done", "done"])
    expect(Group.ack(state, late)).toEqual({ state, outcomes: ["stale", "stale"] })
  })

  it("leaves what comes back behind the new position to the log, which brings it again", () => {
    const kept = (floor: number) =>
      [...Group.entriesOf(Group.seek(redriven, { generation: "g2", floor }))].map(([seq]) => seq).toSorted()
    expect(kept(8)).toEqual([2, 4, 6, 8])
    expect(kept(7)).toEqual([2, 4, 6])
    expect(kept(4)).toEqual([2, 4])
    expect(kept(1)).toEqual([])
  })

  it("keeps what was asked back, and measures its pace anew", () => {
    const state = Group.seek(redriven, { generation: "g2", floor: 20 })
    expect(state.redrive).toEqual(redriven.redrive)
    expect(state.pace).toEqual([])
  })

  it("leaves dead what the log brings again, so that it can be asked back once more", () => {
    expect(redriven.redrive.letters).toEqual([[1, 4]])
    const lettersAt = (floor: number) => Group.seek(redriven, { generation: "g2", floor }).redrive.letters
    expect(lettersAt(8)).toEqual([[1, 4]])
    expect(lettersAt(3)).toEqual([[1, 1]])
    expect(lettersAt(1)).toEqual([])
  })

  it("to where the group stands delivers what was open as new", () => {
    const state = Group.seek(refuse(holding(2)), { generation: "g2", floor: 0 })
    expect(claim(state, { candidates: from(1, keyless(2)) }).deliveries).toMatchObject([
      { seq: 1, attempt: 1, redelivered: false },
      { seq: 2, attempt: 1, redelivered: false }
    ])
  })
})

describe("trimmed events", () => {
  it("are passed over when the group had not taken them", () => {
    expect(Group.skipTrimmed(Group.initial("g", 2), 7)).toEqual(Group.initial("g", 7))
  })

  it("are passed over with all that is known of them, and no others", () => {
    // ann has 1, 3, 5 and 6; 2 and 4 were passed over.
    const before = inOrder(["k", "k", "l", "k", undefined, undefined]).state
    const state = Group.skipTrimmed(ack(before, 5), 3)
    expect(state).toMatchObject({ floor: 3, next: 7 })
    expect(state.deferred).toEqual(new Map([["k", { seqs: [4], from: undefined, unlisted: 0 }]]))
    expect([...state.inFlight.keys()]).toEqual([6])
  })

  it("are passed over, whether they wait or die", () => {
    const before = refuse(refuse(holding(3), { mode: "poison" }), { seq: 2 })
    const state = Group.skipTrimmed(before, 2)
    expect([state.floor, state.waiting.size, state.dying.size]).toEqual([2, 0, 0])
    expect([...state.inFlight.keys()]).toEqual([3])
  })

  it("take the floor through what was acknowledged behind them", () => {
    expect(Group.skipTrimmed(ack(holding(5), 3, 4), 2).floor).toBe(4)
  })

  it("at or below the floor change nothing", () => {
    const state = ack(holding(3), 1, 2)
    expect(Group.skipTrimmed(state, 2)).toBe(state)
    expect(Group.skipTrimmed(state, 1)).toBe(state)
  })

  it("come back from the dead letters all the same", () => {
    const state = Group.skipTrimmed(redriven, 20)
    expect(state).toEqual({ ...redriven, floor: 20, next: 21 })
  })

  describe("of a key of which not all that were passed over are listed", () => {
    /** Of k, ann has 1; 3 and 4 are listed, and 5, 7 and 9 are not. The others are ann's. */
    const { state } = inOrder(["k", undefined, "k", "k", "k", undefined, "k", undefined, "k"], { window: 6 })
    const passed = { seqs: [3, 4], from: 5, unlisted: 3 }

    it("leave the others to be looked up", () => {
      expect(state.deferred.get("k")).toEqual(passed)
      expect(Group.skipTrimmed(state, 3).deferred.get("k")).toEqual({ ...passed, seqs: [4] })
      expect(Group.skipTrimmed(state, 4).deferred.get("k")).toEqual({ ...passed, seqs: [] })
      expect(Group.skipTrimmed(state, 6).deferred.get("k")).toEqual({ seqs: [], from: 7, unlisted: 3 })
    })

    it("are counted until it is known how many are left, but never as more than there can be", () => {
      const { deferred } = Group.skipTrimmed(state, 7)
      expect(deferred.get("k")).toEqual({ seqs: [], from: 8, unlisted: 2 })
      const trimmed = Group.skipTrimmed(state, 8)
      expect(trimmed.deferred.get("k")).toEqual({ seqs: [], from: 9, unlisted: 1 })
      expect(GroupView.pending(trimmed, 9)).toBe(1)
      expect(trimmed.floor).toBe(8)
    })

    it("leave nothing of it, when they are all that was looked at", () => {
      const trimmed = Group.skipTrimmed(state, 9)
      expect(trimmed).toEqual(Group.initial("g", 9))
      expect(Group.skipTrimmed(state, 12)).toEqual(Group.initial("g", 12))
    })

    it("are never more than are pending at all, of however many keys", () => {
      const keys = ["a", "b", "c", "d"]
      const many = inOrder([...keys, ...keys, ...keys, ...keys], { window: 4 }).state
      const trimmed = Group.skipTrimmed(many, 13)
      expect(trimmed.deferred.size).toBe(4)
      expect(Group.openCount(trimmed)).toBeGreaterThan(3)
      expect(Group.doneCount(trimmed)).toBe(13)
      expect(GroupView.pending(trimmed, 16)).toBe(3)
    })
  })
})

describe("what a trim takes from the group", () => {
  it("is what it has not looked at", () => {
    expect(Group.lostTo(Group.initial("g", 2), 7)).toEqual([[3, 7]])
    expect(Group.lostTo(Group.initial("g", 7), 7)).toEqual([])
  })

  it("is nothing that a member has in hand, or that is done", () => {
    const state = ack(holding(3), 1)
    expect(Group.lostTo(state, 3)).toEqual([])
    expect(Group.lostTo(state, 5)).toEqual([[4, 5]])
  })

  it("is what waits and what dies", () => {
    const state = refuse(refuse(holding(4), { seq: 2, mode: "poison" }), { seq: 4 })
    expect(Group.lostTo(state, 4)).toEqual([
      [2, 2],
      [4, 4]
    ])
    expect(Group.lostTo(state, 3)).toEqual([[2, 2]])
    expect(Group.lostTo(state, 1)).toEqual([])
  })

  it("is what was passed over", () => {
    const { state } = inOrder(["k", "k", "l", "k", "k"])
    expect(Group.lostTo(state, 4)).toEqual([
      [2, 2],
      [4, 4]
    ])
  })

  it("is all from where what is not listed begins, since nobody knows which it is", () => {
    const { state } = inOrder(["k", "k", "l", "k", "l", undefined], { window: 4, options: ordered })
    expect(state.deferred.get("k")).toEqual({ seqs: [2], from: 4, unlisted: 1 })
    expect(Group.lostTo(state, 3)).toEqual([[2, 2]])
    expect(Group.lostTo(state, 4)).toEqual([
      [2, 2],
      [4, 4]
    ])
    expect(Group.lostTo(state, 6)).toEqual([
      [2, 2],
      [4, 6]
    ])
    expect(Group.lostTo(state, 9)).toEqual([
      [2, 2],
      [4, 9]
    ])
  })

  it("is nothing that comes back from the dead letters", () => {
    expect(Group.lostTo(redriven, 9)).toEqual([])
  })
})
