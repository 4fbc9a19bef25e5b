/** Dead letters that come back to their group: by example. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as Group from "../../src/domain/Group.ts"
import * as GroupRedrive from "../../src/domain/GroupRedrive.ts"
import * as GroupView from "../../src/domain/GroupView.ts"
import * as Ranges from "../../src/domain/Ranges.ts"
import { ack, claim, entry, from, holding, inOrder, keyless, ordered, refuse, seqs } from "./groupScene.ts"

const ask = (state: Group.GroupState, more: Partial<Group.RedrivePlan> = {}): Group.GroupState =>
  Result.getOrThrow(GroupRedrive.plan(state, { next: 1, upTo: 10, filter: {}, ...more }))

/** Letter n is of event n, unless something else is said. */
const letter = (n: number, more: Partial<GroupRedrive.Letter> = {}): GroupRedrive.Letter => ({
  letter: n,
  seq: n,
  key: undefined,
  ...more
})

const letters = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, i) => letter(first + i))

/** Admits what was found for the first plan, up to its end. */
const admit = (
  state: Group.GroupState,
  found: ReadonlyArray<GroupRedrive.Letter>,
  more: { readonly to?: number; readonly plan?: Group.RedrivePlan } = {}
): Group.GroupState => {
  const plan = more.plan ?? state.redrive.plans[0]!
  return GroupRedrive.admit(state, { plan, letters: found, to: more.to ?? plan.upTo }, 2_000)
}

/** Everything up to 20 is done, one way or another. */
const done = Group.initial("g", 20)

describe("a plan", () => {
  it("is part of the state, behind those that were asked before", () => {
    const state = ask(ask(done, { upTo: 3, filter: { key: "k" } }), { next: 4, filter: { reason: "bad" } })
    expect(state.redrive).toEqual({
      plans: [
        { next: 1, upTo: 3, filter: { key: "k" } },
        { next: 4, upTo: 10, filter: { reason: "bad" } }
      ],
      letters: []
    })
    expect(state.waiting.size).toBe(0)
  })

  it("of nothing is none", () => {
    expect(Result.getOrThrow(GroupRedrive.plan(done, { next: 11, upTo: 10, filter: {} }))).toBe(done)
    expect(ask(done, { next: 10, upTo: 10 }).redrive.plans.length).toBe(1)
  })

  it("of all takes the place of those within it, and of no others", () => {
    const within = ask(ask(done, { upTo: 3, filter: { key: "k" } }), {
      next: 2,
      upTo: 10,
      filter: { key: "l" }
    })
    const beyond = { next: 5, upTo: 11, filter: { key: "m" } }
    const before = { next: 1, upTo: 4, filter: { key: "n" } }
    const all = { next: 2, upTo: 10, filter: {} }
    expect(ask(ask(ask(within, beyond), before), all).redrive.plans).toEqual([
      { next: 1, upTo: 3, filter: { key: "k" } },
      beyond,
      before,
      all
    ])
  })

  it("is refused where a hundred wait already, and says what to do; asked for all at once it is not", () => {
    const filter = { key: "k" }
    let state = done
    for (let i = 0; i < 100; i++) state = ask(state, { filter })
    const refused = GroupRedrive.plan(state, { next: 1, upTo: 10, filter })
    const error = Result.getOrThrow(Result.flip(refused))
    expect(error).toMatchObject({ _tag: "RedriveRefused" })
    expect(error.message).toBe(
      "the dead letters do not come back: 100 redrives wait already; let a member of the group take them, " +
        "or ask for all at once"
    )
    expect(ask(state).redrive.plans).toEqual([{ next: 1, upTo: 10, filter: {} }])
  })

  it("is refused where too many came back piece by piece, unless it is for all", () => {
    const scattered = (count: number): Group.GroupState => ({
      ...done,
      redrive: { plans: [], letters: Array.from({ length: count }, (_, i) => [2 * i, 2 * i] as const) }
    })
    const piece = { next: 1, upTo: 99_999, filter: { letters: [5] } }
    expect(Result.isSuccess(GroupRedrive.plan(scattered(9_999), piece))).toBe(true)
    const error = Result.getOrThrow(Result.flip(GroupRedrive.plan(scattered(10_000), piece)))
    expect(error.message).toContain("too many came back piece by piece; ask for all of them")
    expect(Result.isSuccess(GroupRedrive.plan(scattered(10_000), { ...piece, filter: {} }))).toBe(true)
  })
})

describe("letters that come back", () => {
  it("wait, to be delivered at once, as events that nobody has had", () => {
    const state = admit(ask(done), [letter(3, { seq: 7, key: "k" })])
    expect(state.waiting).toEqual(
      new Map([
        [
          7,
          {
            attempt: 0,
            unanswered: 0,
            member: Group.nobody,
            key: "k",
            since: 2_000,
            reason: "",
            letter: 3,
            notBefore: 2_000
          }
        ]
      ])
    )
    const claimed = claim(state, { now: 2_000 })
    expect(claimed.deliveries).toEqual([
      { seq: 7, attempt: 1, redelivered: true, deadline: 2_100, letter: 3 }
    ])
    expect(GroupView.counts(claimed.state)).toMatchObject({ redriven: 1, inFlight: 1 })
  })

  it("are no part of the log: neither the floor nor what is pending knows of them", () => {
    const state = claim(admit(ask(done), letters(3, 4)), { now: 2_000, limit: 1 }).state
    expect([state.floor, state.next, Group.doneCount(state), GroupView.pending(state, 20)]).toEqual([
      20, 21, 20, 0
    ])
    expect(ack(state, 3)).toMatchObject({ floor: 20, next: 21 })
    const ahead = claim(state, { candidates: from(21, keyless(2)) }).state
    expect(ack(ahead, 21).floor).toBe(21)
    expect(ack(ahead, 22).floor).toBe(20)
  })

  it("count within the window, so that the group does not begin too much", () => {
    const state = admit(ask(done), letters(1, 3))
    expect(Group.isStalled(state, 30, 3)).toBe(true)
    expect(seqs(claim(state, { now: 1_000, window: 3, candidates: from(21, keyless(3)) }))).toEqual([])
    expect(seqs(claim(state, { now: 1_000, window: 4, candidates: from(21, keyless(3)) }))).toEqual([21])
  })

  it("end their plan when all of it was looked at", () => {
    const two = ask(ask(done), { next: 5, filter: { key: "k" } })
    const one = admit(two, [letter(2)])
    expect(one.redrive).toEqual({ plans: [{ next: 5, upTo: 10, filter: { key: "k" } }], letters: [[2, 2]] })
    expect(admit(one, []).redrive).toEqual({ plans: [], letters: [[2, 2]] })
  })

  it("that were looked for in part go on behind that part", () => {
    const half = admit(ask(done), [letter(2), letter(4)], { to: 5 })
    expect(half.redrive).toEqual({
      plans: [{ next: 6, upTo: 10, filter: {} }],
      letters: [
        [2, 2],
        [4, 4]
      ]
    })
    expect(admit(half, letters(6, 10)).redrive).toEqual({
      plans: [],
      letters: [
        [2, 2],
        [4, 4],
        [6, 10]
      ]
    })
    const none = admit(ask(done), [], { to: 5 })
    expect(none.redrive.plans).toEqual([{ next: 6, upTo: 10, filter: {} }])
    expect(none.waiting).toBe(done.waiting)
  })

  it("are none, where none was asked back", () => {
    const plan = { next: 1, upTo: 10, filter: {} }
    expect(GroupRedrive.admit(done, { plan, letters: letters(1, 3), to: 10 }, 2_000)).toBe(done)
  })

  it("hold back events of their key until they are done, in the order of the log", () => {
    const state = admit(ask(inOrder(["k", "k", "k"]).state), [])
    const back = admit(ask(Group.seek(state, { generation: "g2", floor: 9 })), [
      letter(1, { seq: 5, key: "k" }),
      letter(2, { seq: 3, key: "k" })
    ])
    const asked = { now: 2_000, options: ordered, candidates: from(10, ["k", "l"]) }
    const first = claim(back, asked)
    expect(seqs(first)).toEqual([11, 3])
    const second = claim(ack(first.state, 3), asked)
    expect(seqs(second)).toEqual([5])
    expect(seqs(claim(ack(second.state, 5), asked))).toEqual([10])
  })
})

describe("no letter comes back twice at once", () => {
  it("by two plans over the same letters", () => {
    const twice = ask(ask(done, { filter: { key: "k" } }), { filter: { letters: [2, 3] } })
    const once = admit(twice, [letter(2), letter(3)])
    const again = admit(once, [letter(2), letter(3)])
    expect(again.redrive).toEqual({ plans: [], letters: [[2, 3]] })
    expect(again.waiting).toBe(once.waiting)
  })

  it("by two plans, when the first is over: it was done, and stays so", () => {
    const taken = claim(admit(ask(done), [letter(2)]), { now: 2_000 }).state
    const acked = ack(taken, 2)
    expect(acked.waiting.size + acked.inFlight.size).toBe(0)
    const again = admit(ask(acked), [letter(2)])
    expect(again.waiting.size).toBe(0)
    expect(again.redrive).toEqual({ plans: [], letters: [[2, 2]] })
  })

  it("when its event is on its way: with a member, waiting, passed over, or not looked at yet", () => {
    // ann has 1 and 2, 3 failed; 4 is passed over and listed, 5 and 6 are not; 7 was not looked at.
    const open = refuse(
      claim(inOrder(["k", "l", "m", "k"]).state, {
        options: ordered,
        window: 5,
        candidates: from(5, ["k", "k"])
      }).state,
      { seq: 3 }
    )
    expect(open.deferred.get("k")).toEqual({ seqs: [4], from: 5, unlisted: 2 })
    const found = [
      letter(1, { key: "k" }),
      letter(2, { key: "l" }),
      letter(3, { key: "m" }),
      letter(4, { key: "k" }),
      letter(5, { key: "k" }),
      letter(6, { key: "k" }),
      letter(7, { key: "new" })
    ]
    const state = admit(ask(open), found)
    expect(state.waiting).toBe(open.waiting)
    expect(state.redrive).toEqual({ plans: [], letters: [[1, 7]] })
  })

  it("when it is of another key than what was passed over", () => {
    const open = inOrder(["l", "k", "k", "k"], { window: 2 }).state
    expect(open.deferred.get("k")?.from).toBe(3)
    const acked = ack(claim(open, { options: ordered, window: 9, candidates: from(5, ["m"]) }).state, 1, 5)
    const found = [letter(1, { key: "l" }), letter(2, { seq: 5, key: "m" }), letter(3, { seq: 4, key: "k" })]
    expect([...admit(ask(acked), found).waiting.keys()]).toEqual([1, 5])
  })

  it("when two letters are of one event: one of them comes back, and both are done with", () => {
    const state = admit(ask(done), [letter(1, { seq: 4 }), letter(2, { seq: 4 })])
    expect(state.waiting.get(4)?.letter).toBe(1)
    expect(state.redrive.letters).toEqual([[1, 2]])
  })

  it("when its event dies at the moment: it waits until the group has let go of that", () => {
    const dying = refuse(holding(3), { seq: 2, mode: "poison" })
    const asked = ask(ack(dying, 1, 3))
    const state = admit(asked, letters(1, 3))
    expect([...state.waiting.keys()]).toEqual([1])
    expect(state.redrive).toEqual({ plans: [{ next: 2, upTo: 10, filter: {} }], letters: [[1, 1]] })
    // Nothing changes until then.
    expect(admit(state, letters(2, 3))).toBe(state)
    const buried = admit(Group.bury(state, [2]), letters(2, 3))
    expect([...buried.waiting.keys()]).toEqual([1, 2, 3])
    expect(buried.redrive).toEqual({ plans: [], letters: [[1, 3]] })
  })
})

describe("a look for letters that is out of date", () => {
  const two = ask(ask(done, { filter: { key: "k" } }), { filter: { key: "l" } })
  const [first, second] = two.redrive.plans

  it("since somebody else has admitted them changes nothing", () => {
    const state = admit(two, [letter(2, { key: "k" })])
    expect(admit(state, [letter(2, { key: "k" })], { plan: first! })).toBe(state)
  })

  it("since the plan has gone on does not take it back", () => {
    const state = admit(two, [letter(2, { key: "k" })], { to: 4 })
    expect(admit(state, [letter(2, { key: "k" }), letter(5, { key: "k" })], { plan: first! })).toBe(state)
  })

  it("since it is for another plan does not end this one", () => {
    expect(admit(two, [letter(3, { key: "l" })], { plan: second! })).toBe(two)
  })

  it("is none for a plan that was written down and read again", () => {
    const filter = { until: 9, since: 1, reason: "bad", key: "k", ids: ["a"], letters: [2] }
    const read = { letters: [2], ids: ["a"], key: "k", reason: "bad", since: 1, until: 9 }
    const state = ask(done, { filter })
    const plan = { filter: read, upTo: 10, next: 1 }
    expect(admit(state, [letter(2)], { plan }).redrive.plans).toEqual([])
    for (const other of [
      { letters: [3] },
      { ids: [] },
      { key: "l" },
      { reason: "" },
      { since: 2 },
      { until: 8 }
    ]) {
      expect(admit(state, [letter(2)], { plan: { ...plan, filter: { ...read, ...other } } })).toBe(state)
    }
    expect(admit(state, [letter(2)], { plan: { ...plan, upTo: 9 } })).toBe(state)
    expect(admit(state, [letter(2)], { plan: { ...plan, next: 2 } })).toBe(state)
  })
})

describe("a second death", () => {
  it("is a second letter, that comes back when it is asked for again", () => {
    const taken = claim(admit(ask(done), [letter(1, { seq: 4 })]), { now: 2_000 }).state
    const dead = refuse(taken, { seq: 4, mode: "poison", reason: "again" })
    expect(dead.dying.get(4)).toMatchObject({ letter: 1, attempt: 1, reason: "again" })
    const buried = Group.bury(dead, [4])
    expect([buried.dying.size, buried.floor]).toEqual([0, 20])
    const found = [letter(1, { seq: 4 }), letter(2, { seq: 4 })]
    const back = admit(ask(buried), found)
    expect(back.waiting.get(4)).toMatchObject({ letter: 2, attempt: 0 })
    expect(back.redrive).toEqual({ plans: [], letters: [[1, 2]] })
  })

  it("comes after as many attempts as the first", () => {
    let state = admit(ask(done), [letter(1)])
    for (let attempt = 1; attempt <= 3; attempt++) {
      const claimed = claim(state, { now: 9_000 })
      expect(claimed.deliveries).toMatchObject([{ seq: 1, attempt, letter: 1 }])
      state = refuse(claimed.state)
    }
    expect(state.dying.get(1)).toMatchObject({ attempt: 3, letter: 1 })
  })
})

describe("more letters than come back at once", () => {
  const { redriveWindow } = GroupRedrive
  const many = Group.initial("g", 5_000)
  const upTo = redriveWindow + 500

  it("wait for their turn among the dead letters", () => {
    const asked = ask(many, { upTo })
    expect(GroupRedrive.isWaiting(asked)).toBe(true)
    const full = admit(asked, letters(1, upTo))
    expect(full.waiting.size).toBe(redriveWindow)
    expect(full.redrive).toEqual({
      plans: [{ next: redriveWindow + 1, upTo, filter: {} }],
      letters: [[1, redriveWindow]]
    })
    expect(GroupRedrive.isWaiting(full)).toBe(false)
    expect(admit(full, letters(redriveWindow + 1, upTo))).toBe(full)
    const taken = claim(full, { now: 2_000, limit: 10 })
    expect(GroupRedrive.isWaiting(taken.state)).toBe(false)
    expect(GroupRedrive.isWaiting(ack(taken.state, 1))).toBe(true)
    const acked = ack(taken.state, ...seqs(taken))
    const next = admit(acked, letters(redriveWindow + 1, upTo))
    expect(next.waiting.size).toBe(redriveWindow)
    expect(next.redrive).toEqual({
      plans: [{ next: redriveWindow + 11, upTo, filter: {} }],
      letters: [[1, redriveWindow + 10]]
    })
  })

  it("have the room to themselves: what comes from the log takes none of it", () => {
    const busy = ask(holding(redriveWindow + 1), { upTo: 3 })
    expect(GroupRedrive.isWaiting(busy)).toBe(true)
    const state = admit(Group.skipTrimmed(ack(busy, 1, 2, 3), 3), letters(1, 3))
    expect(state.waiting.size).toBe(3)
  })

  it("take no room for those whose event is on its way", () => {
    const asked = ask(many, { upTo })
    const here = Group.seek(asked, { generation: "g2", floor: redriveWindow })
    const state = admit(here, letters(1, upTo))
    expect(state.waiting.size).toBe(redriveWindow)
    expect(state.redrive).toEqual({ plans: [], letters: [[1, upTo]] })
  })

  it("are none, where nothing was asked back", () => {
    expect(GroupRedrive.isWaiting(many)).toBe(false)
  })
})

describe("dead letters that were trimmed", () => {
  const back = admit(ask(done), [letter(2), letter(3), letter(6)], { to: 7 })

  it("are forgotten, and the others are not", () => {
    const some = GroupRedrive.forgetTrimmed(ack(claim(back, { now: 2_000 }).state, 2, 3, 6), 3)
    expect(some.redrive.letters).toEqual([[6, 6]])
    expect(some.redrive.plans).toEqual([{ next: 8, upTo: 10, filter: {} }])
  })

  it("of a part of a range leave that range", () => {
    const state = { ...done, redrive: { plans: [], letters: Ranges.of([[2, 9]]) } }
    expect(GroupRedrive.forgetTrimmed(state, 5)).toBe(state)
    expect(GroupRedrive.forgetTrimmed(state, 8)).toBe(state)
    expect(GroupRedrive.forgetTrimmed(state, 9).redrive.letters).toEqual([])
  })

  it("take those along that were to come back from them, wherever they are", () => {
    const events: Group.GroupState = {
      ...back,
      inFlight: new Map([
        [3, { ...entry, letter: 3, deadline: 1 }],
        [4, { ...entry, deadline: 1 }]
      ]),
      waiting: new Map([
        [2, back.waiting.get(2)!],
        [6, back.waiting.get(6)!]
      ]),
      dying: new Map([[1, { ...entry, letter: 1 }]])
    }
    const state = GroupRedrive.forgetTrimmed(events, 3)
    expect([...Group.entriesOf(state)].map(([seq]) => seq)).toEqual([4, 6])
    expect(state.redrive.letters).toEqual([[6, 6]])
  })

  it("take nothing along from the log", () => {
    const state = holding(3)
    expect(GroupRedrive.forgetTrimmed(state, 99)).toBe(state)
  })

  it("below all that is known change nothing", () => {
    expect(GroupRedrive.forgetTrimmed(back, 1)).toBe(back)
  })
})

describe("the first dead letter that is needed", () => {
  it("is none, where none comes back", () => {
    expect(GroupRedrive.firstNeeded(done)).toBeUndefined()
    expect(GroupRedrive.firstNeeded(holding(3))).toBeUndefined()
  })

  it("is the first of all plans", () => {
    const plans = ask(ask(done, { next: 5, filter: { key: "k" } }), { next: 3, filter: { key: "l" } })
    expect(GroupRedrive.firstNeeded(plans)).toBe(3)
  })

  it("is the first that is on its way, wherever it is", () => {
    const state = admit(ask(done), [letter(2), letter(3), letter(6)], { to: 7 })
    expect(GroupRedrive.firstNeeded(state)).toBe(2)
    const taken = claim(state, { now: 2_000 }).state
    expect(GroupRedrive.firstNeeded(taken)).toBe(2)
    const dying = refuse(ack(taken, 2), { seq: 3, mode: "poison" })
    expect(GroupRedrive.firstNeeded(dying)).toBe(3)
    expect(GroupRedrive.firstNeeded(Group.bury(dying, [3]))).toBe(6)
    expect(GroupRedrive.firstNeeded(ack(Group.bury(dying, [3]), 6))).toBe(8)
  })
})
