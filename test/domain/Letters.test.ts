/** What becomes of dead letters, told while they go their way; and filters that say what they mean. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { deadLetter, deathOf } from "../../src/domain/DeadLetter.ts"
import * as Event from "../../src/domain/Event.ts"
import * as Group from "../../src/domain/Group.ts"
import * as GroupRedrive from "../../src/domain/GroupRedrive.ts"
import * as Letters from "../../src/domain/Letters.ts"
import * as Settings from "../../src/domain/Settings.ts"

const original = (seq: number, key: string | undefined): Event.StoredRecord => ({
  ...Result.getOrThrow(
    Event.encodeEvent(
      { id: `e${seq}`, topic: "orders", ts: 0, payload: seq, ...(key === undefined ? {} : { key }) },
      Settings.limits
    )
  ),
  seq,
  storedAt: seq
})

/** The n-th letter is of the n-th of these events. */
const lettersOf = (events: ReadonlyArray<{ readonly seq: number; readonly key: string | undefined }>) =>
  events.map(({ key, seq }, i) => {
    const death = { record: original(seq, key), group: "g", generation: "g1", attempts: 3, reason: "no" }
    const record = { ...deadLetter({ ...death, redrives: i }), seq: i + 1, storedAt: 100 + i }
    return { record, death: deathOf(record)! }
  })

const statuses = (state: Group.GroupState, letters: ReturnType<typeof lettersOf>) =>
  letters.map(({ death, record }) => Letters.statusOf(state, record, death))

const candidates = (from: number, to: number, keyOf: (seq: number) => string | undefined) =>
  Array.from({ length: to - from + 1 }, (_, i) => ({ seq: from + i, key: keyOf(from + i) }))

describe("statusOf", () => {
  const keyOf = (seq: number) => (seq % 3 === 0 ? undefined : `k${seq % 3}`)

  const scene = fc.record({
    /** Events whose letters there are; some died twice. */
    dead: fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 15 }),
    /** Where the group stands in the log: before some of them, when somebody went back. */
    floor: fc.nat(12),
    claimed: fc.nat(8),
    acked: fc.array(fc.nat(12), { maxLength: 6 }),
    keyOrdered: fc.boolean(),
    asked: fc.array(
      fc.record({ next: fc.integer({ min: 1, max: 15 }), upTo: fc.integer({ min: 1, max: 15 }) }),
      { maxLength: 3 }
    )
  })

  const live = (given: typeof scene extends fc.Arbitrary<infer A> ? A : never): Group.GroupState => {
    const start = Group.initial("g1", given.floor)
    const { state } = Group.claim(start, {
      now: 0,
      member: "m",
      limit: given.claimed,
      retriesFirst: 0,
      mode: "shared",
      candidates: candidates(given.floor + 1, 12, keyOf),
      options: { ...Settings.groups, keyOrdered: given.keyOrdered },
      window: 6
    })
    return Group.ack(
      state,
      given.acked.map((seq) => ({ seq, member: "m" }))
    ).state
  }

  it("is dead until asked for, then on its way, and back when its event is done", () => {
    fc.assert(
      fc.property(scene, (given) => {
        const letters = lettersOf(given.dead.map((seq) => ({ seq, key: keyOf(seq) })))
        let state = live(given)
        expect(new Set(statuses(state, letters))).toEqual(new Set(["dead"]))
        for (const { next, upTo } of given.asked) {
          state = Result.getOrThrow(GroupRedrive.plan(state, { next, upTo, filter: {} }))
        }
        const isAsked = (letter: number) =>
          given.asked.some(({ next, upTo }) => letter >= next && letter <= upTo)
        const expected = letters.map(({ record }) => (isAsked(record.seq) ? "redriving" : "dead"))
        expect(statuses(state, letters)).toEqual(expected)

        // Each is back in the group, or found to be on its way.
        for (let i = 0; state.redrive.plans.length > 0 && i < 10; i++) {
          const [{ next, upTo }] = state.redrive.plans as [Group.RedrivePlan]
          const found = letters
            .filter(({ record }) => record.seq >= next && record.seq <= upTo)
            .map(({ death, record }) => ({ letter: record.seq, seq: death.seq, key: record.key }))
          state = GroupRedrive.admit(state, { plan: state.redrive.plans[0]!, letters: found, to: upTo }, 5)
        }
        expect(state.redrive.plans).toEqual([])
        const admitted = statuses(state, letters)
        letters.forEach(({ death, record }, i) => {
          if (!isAsked(record.seq)) return expect(admitted[i]).toBe("dead")
          // Of an event that died twice one letter brings it back; the other has nothing left to do.
          const bringer = state.waiting.get(death.seq)?.letter
          const isDone = bringer !== undefined && bringer !== record.seq
          expect(admitted[i]).toBe(isDone ? "redriven" : "redriving")
        })

        // All that came back gets done.
        const waiting = [...state.waiting.keys()]
        const { state: claimed } = Group.claim(state, {
          now: 10,
          member: "n",
          limit: 100,
          retriesFirst: 100,
          mode: "shared",
          candidates: [],
          options: { ...Settings.groups, keyOrdered: false },
          window: 100
        })
        const done = Group.ack(
          claimed,
          waiting.map((seq) => ({ seq, member: "n" }))
        ).state
        letters.forEach(({ death, record }) => {
          const isBack = waiting.includes(death.seq) && isAsked(record.seq)
          if (isBack) expect(Letters.statusOf(done, record, death)).toBe("redriven")
        })
      }),
      { numRuns: 500 }
    )
  })

  it("a letter whose event died again is back, and the new one is dead", () => {
    const letters = lettersOf([
      { seq: 3, key: undefined },
      { seq: 3, key: undefined }
    ])
    const state: Group.GroupState = {
      ...Group.initial("g1", 9),
      redrive: { plans: [], letters: [[1, 1]] }
    }
    expect(statuses(state, letters)).toEqual(["redriven", "dead"])
  })

  it("is on its way while it is about to die again", () => {
    const letters = lettersOf([{ seq: 3, key: undefined }])
    const entry = { attempt: 3, unanswered: 0, member: "m", key: undefined, since: 0, reason: "", letter: 1 }
    const state: Group.GroupState = {
      ...Group.initial("g1", 9),
      dying: new Map([[3, entry]]),
      redrive: { plans: [], letters: [[1, 1]] }
    }
    expect(statuses(state, letters)).toEqual(["redriving"])
  })
})

describe("checkFilter", () => {
  const reasonOf = (filter: Group.RedriveFilter) =>
    Result.match(Letters.checkFilter(filter), {
      onFailure: ({ message }) => message,
      onSuccess: () => "fine"
    })

  it("takes what can be meant, up to its limits", () => {
    for (const filter of [
      {},
      { key: "" },
      { letters: [1] },
      { letters: Array.from({ length: Letters.maxFilterLetters }, (_, i) => i + 1) },
      { ids: Array.from({ length: Letters.maxFilterIds }, (_, i) => `e${i}`) },
      { ids: ["x".repeat(Letters.maxFilterLength)], key: "x".repeat(Letters.maxFilterLength) },
      { since: 0, until: 1 },
      { since: -5 }
    ]) {
      expect(Letters.checkFilter(filter)).toEqual(Result.succeed(filter))
    }
  })

  it.each<[Group.RedriveFilter, RegExp]>([
    [{ letters: [] }, /an empty list matches nothing/],
    [{ ids: [] }, /an empty list matches nothing/],
    [{ letters: [0] }, /from 1 on/],
    [{ letters: [1.5] }, /from 1 on/],
    [{ letters: [Number.NaN] }, /from 1 on/],
    [{ letters: new Array<number>(1_001).fill(1) }, /at most 1000/],
    [{ ids: new Array<string>(101).fill("x") }, /at most 100/],
    [{ ids: ["a", ""] }, /an id is empty/],
    [{ reason: "" }, /the reason is empty/],
    [{ reason: "x".repeat(257) }, /longer than 256/],
    [{ key: "x".repeat(257) }, /longer than 256/],
    [{ ids: ["x".repeat(257)] }, /longer than 256/],
    [{ since: Number.NaN }, /milliseconds/],
    [{ until: Infinity }, /milliseconds/],
    [{ since: 5, until: 5 }, /'since' is not before 'until'/]
  ])("refuses %j", (filter, reason) => {
    expect(reasonOf(filter)).toMatch(reason)
  })
})

describe("rangeOf", () => {
  it("leaves out nothing that can match, and all that lies beyond the letters that are named", () => {
    fc.assert(
      fc.property(
        fc.option(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), { nil: undefined }),
        fc.integer({ min: 1, max: 30 }),
        fc.nat(30),
        (letters, from, more) => {
          const within = { from, to: from + more - 1 }
          const range = Letters.rangeOf(letters === undefined ? {} : { letters }, within)
          const there = Array.from({ length: more }, (_, i) => from + i)
          const wanted = there.filter((one) => letters === undefined || letters.includes(one))
          for (const one of wanted) expect(one >= range.from && one <= range.to).toBe(true)
          expect(range.from).toBeGreaterThanOrEqual(within.from)
          expect(range.to).toBeLessThanOrEqual(within.to)
          if (letters !== undefined) expect(range.to).toBeLessThanOrEqual(Math.max(...letters))
        }
      )
    )
  })
})
