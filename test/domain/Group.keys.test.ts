/**
 * Keys of which more events were passed over than a state can list, and keys that somebody frees: by example.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Group from "../../src/domain/Group.ts"
import { encodeState } from "../../src/domain/GroupEncoding.ts"
import * as GroupView from "../../src/domain/GroupView.ts"
import { ack, claim, entry, from, inOrder, type Keys, limits, ordered, refuse, seqs } from "./groupScene.ts"

const hot = (count: number): Keys => Array.from({ length: count }, () => "hot")

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i)

describe("the events of one key behind the first that are listed", () => {
  const wide = { window: 1_000 }

  it("are 64: the 65th is counted, and where it stands is known", () => {
    expect(inOrder(hot(65), wide).state.deferred.get("hot")).toEqual({
      seqs: range(2, 65),
      from: undefined,
      unlisted: 0
    })
    const { state } = inOrder([...hot(66), "x", "hot"], wide)
    expect(state.deferred.get("hot")).toEqual({ seqs: range(2, 65), from: 66, unlisted: 2 })
    expect(Group.openCount(state)).toBe(68)
  })

  it("are no more when there is room on the list again, since others were passed over first", () => {
    const { state } = inOrder(hot(70), wide)
    const next = claim(ack(state, 1), { options: ordered, ...wide, candidates: from(71, hot(1)) })
    expect(seqs(next)).toEqual([2])
    expect(next.state.deferred.get("hot")).toEqual({ seqs: range(3, 65), from: 66, unlisted: 6 })
  })

  it("are delivered one by one, and then the key has to be looked up before it goes on", () => {
    let state = inOrder(hot(70), wide).state
    for (const seq of range(1, 65)) {
      expect(Group.unlistedKeys(state).size).toBe(seq === 65 ? 1 : 0)
      state = ack(state, seq)
      const { deliveries, state: after } = claim(state, { options: ordered })
      expect(deliveries.map((delivery) => delivery.seq)).toEqual(seq < 65 ? [seq + 1] : [])
      state = after
    }
    expect([...Group.unlistedKeys(state)]).toEqual([["hot", 66]])
    expect([state.floor, state.next]).toEqual([65, 71])
    // A new one stays behind those that are not listed, although nobody has the key.
    const behind = claim(state, { options: ordered, candidates: from(71, hot(1)) })
    expect([seqs(behind), behind.state.deferred.get("hot")?.unlisted]).toEqual([[], 6])
    const listed = Group.list(behind.state, [{ key: "hot", from: 66, to: 71, seqs: range(66, 71) }], 1_000)
    expect(listed.deferred.get("hot")).toEqual({ seqs: range(66, 71), from: undefined, unlisted: 0 })
    expect(seqs(claim(listed, { options: ordered }))).toEqual([66])
  })
})

describe("a key with 100,000 events that were passed over", () => {
  /** Ann has the first one; 100,000 of its key and 1,000 others follow, a hundred to one. */
  const keys = range(2, 101_001).map((seq) => (seq % 101 === 0 ? undefined : "hot"))
  const others = keys.flatMap((key, i) => (key === undefined ? [i + 2] : []))

  let state = inOrder(["hot"]).state
  const delivered: Array<number> = []
  let most = 0
  for (let i = 0; i < keys.length;) {
    const shown = keys.slice(i, i + 500)
    const claimed = claim(state, {
      options: ordered,
      window: 1_000,
      member: "bob",
      candidates: from(i + 2, shown)
    })
    delivered.push(...seqs(claimed))
    i = claimed.state.next - 2
    const answers = claimed.deliveries.map(({ seq }) => ({ seq, member: "bob" }))
    state = Group.ack(claimed.state, answers).state
    most = Math.max(most, encodeState(state).length)
  }

  it("lets all others flow", () => {
    expect(others.length).toBe(1_000)
    expect(delivered).toEqual(others)
    expect(state.next).toBe(101_002)
    expect(Group.isStalled(state, 101_002, 1_000)).toBe(false)
  })

  it("has a state that stays small, and knows how many there are", () => {
    expect(most).toBeLessThan(1_000)
    expect(GroupView.counts(state)).toMatchObject({ deferred: 100_000, inFlight: 1 })
    expect(GroupView.pending(state, 101_001)).toBe(100_001)
    expect(state.floor).toBe(0)
  })
})

describe("list", () => {
  /** 3 to 10 of the key were passed over, all without a list: the window is full. Behind them is another event. */
  const full = inOrder(["x", ...hot(9)], { window: 2 }).state
  const { state } = claim(ack(full, 1), { options: ordered, window: 3, candidates: from(11, ["x"]) })
  const free = ack(state, 2, 11)
  const look = (more: Partial<Group.Listing> = {}): Group.Listing => ({
    key: "hot",
    from: 3,
    to: 11,
    seqs: range(3, 10),
    ...more
  })

  it("is asked for where nothing of a key is listed, from the first that was passed over", () => {
    expect(state.deferred.get("hot")).toEqual({ seqs: [], from: 3, unlisted: 8 })
    expect([...Group.unlistedKeys(free)]).toEqual([["hot", 3]])
    expect(Group.unlistedKeys(Group.initial("g", 0)).size).toBe(0)
    expect(seqs(claim(free, { options: ordered }))).toEqual([])
  })

  it("of all that were passed over knows all", () => {
    const listed = Group.list(free, [look()], 100)
    expect(listed.deferred.get("hot")).toEqual({ seqs: range(3, 10), from: undefined, unlisted: 0 })
    expect(seqs(claim(listed, { options: ordered }))).toEqual([3])
  })

  it("of some goes on behind where it looked", () => {
    const listed = Group.list(free, [look({ to: 5, seqs: [3, 4, 5] })], 100)
    expect(listed.deferred.get("hot")).toEqual({ seqs: [3, 4, 5], from: 6, unlisted: 5 })
    const later = claim(ack(claim(listed, { options: ordered }).state, 3), { options: ordered }).state
    expect(Group.unlistedKeys(later).size).toBe(0)
  })

  it("that finds nothing goes on behind where it looked, and takes the floor along", () => {
    const listed = Group.list(free, [look({ to: 6, seqs: [] })], 100)
    expect(listed.deferred.get("hot")).toEqual({ seqs: [], from: 7, unlisted: 8 })
    expect(listed.floor).toBe(6)
    const none = Group.list(listed, [look({ from: 7, seqs: [] })], 100)
    expect([none.deferred.size, none.floor]).toEqual([0, 11])
  })

  it("that found all there are, but did not look to the end, does not take them for all", () => {
    const listed = Group.list(free, [look({ to: 10 })], 100)
    expect(listed.deferred.get("hot")).toEqual({ seqs: range(3, 10), from: 11, unlisted: 1 })
  })

  it("lists 64 of a key, and the others are looked up again", () => {
    const many = ack(inOrder(hot(100), { window: 1 }).state, 1)
    const listed = Group.list(many, [look({ from: 2, to: 100, seqs: range(2, 100) })], 1_000)
    expect(listed.deferred.get("hot")).toEqual({ seqs: range(2, 65), from: 66, unlisted: 35 })
  })

  it("leaves half of the window alone, but lists one of each key, so that it goes on", () => {
    const listed = Group.list(free, [look()], 8)
    expect(listed.deferred.get("hot")).toEqual({ seqs: [3, 4, 5, 6], from: 7, unlisted: 4 })
    expect(Group.list(free, [look()], 1).deferred.get("hot")).toEqual({ seqs: [3], from: 4, unlisted: 7 })

    const two = inOrder(["a", "b", "a", "b", "a", "b", "a", "b"], { window: 2 }).state
    const looks = [
      { key: "a", from: 3, to: 8, seqs: [3, 5, 7] },
      { key: "b", from: 4, to: 8, seqs: [4, 6, 8] }
    ]
    const both = Group.list(ack(two, 1, 2), looks, 8)
    expect([both.deferred.get("a")?.seqs, both.deferred.get("b")?.seqs]).toEqual([[3, 5, 7], [4]])
    expect(both.deferred.get("b")).toMatchObject({ from: 6, unlisted: 2 })
  })

  it("of several keys at once is one change", () => {
    const two = inOrder(["a", "b", "a", "b"], { window: 2 }).state
    const listed = Group.list(
      two,
      [
        { key: "a", from: 3, to: 4, seqs: [3] },
        { key: "b", from: 4, to: 4, seqs: [4] }
      ],
      100
    )
    expect([...listed.deferred.values()].map(({ seqs }) => seqs)).toEqual([[3], [4]])
  })

  describe("that is out of date", () => {
    it.each([
      ["of a key of which nothing was passed over", { key: "cold" }],
      ["from where the key has gone on", { from: 2 }],
      ["from behind what was passed over", { from: 4 }]
    ])("%s changes nothing", (_, more) => {
      expect(Group.list(free, [look(more)], 100)).toBe(free)
    })

    it("does not keep the looks beside it from what they have found", () => {
      const listed = Group.list(free, [look({ key: "cold" }), look()], 100)
      expect(listed.deferred.get("hot")?.seqs).toEqual(range(3, 10))
    })

    it("by another that came before it changes nothing", () => {
      const listed = Group.list(free, [look({ to: 5, seqs: [3, 4, 5] })], 100)
      expect(Group.list(listed, [look()], 100)).toBe(listed)
    })

    it("by a trim changes nothing", () => {
      const trimmed = Group.skipTrimmed(free, 4)
      expect(Group.list(trimmed, [look()], 100)).toBe(trimmed)
    })

    it("by what was passed over since then finds that later", () => {
      const more = claim(free, { options: ordered, candidates: from(12, hot(2)) }).state
      const listed = Group.list(more, [look()], 100)
      expect(listed.deferred.get("hot")).toEqual({ seqs: range(3, 10), from: 12, unlisted: 2 })
    })

    it("by a seek does not take the place of what is listed since, although it begins at the same place", () => {
      const now = inOrder(["x", "k", "y", "k", "k", "k"], { window: 5 }).state
      expect(now.deferred.get("k")).toEqual({ seqs: [4], from: 5, unlisted: 2 })
      expect(Group.list(now, [{ key: "k", from: 5, to: 6, seqs: [5, 6] }], 100)).toBe(now)
    })

    it("by a seek lists nothing that was not looked at since", () => {
      const back = Group.seek(free, { generation: "g2", floor: 0 })
      const candidates = from(1, ["x", ...hot(4)])
      const again = claim(back, { options: ordered, window: 2, candidates }).state
      expect([again.next, again.deferred.get("hot")?.from]).toEqual([6, 3])
      const listed = Group.list(ack(again, 2), [look()], 100)
      expect(listed.deferred.get("hot")).toEqual({ seqs: [3, 4, 5], from: undefined, unlisted: 0 })
      expect(seqs(claim(listed, { options: ordered, candidates: from(6, hot(1)) }))).toEqual([3])
    })
  })
})

describe("releaseKey", () => {
  const key = "k"
  /** The first of the key failed, and comes again in a while; two wait behind it. */
  const blocked = refuse(inOrder([key, key, "l", key]).state, { delayMs: 5_000 })

  it("retries the event that blocks a key at once", () => {
    const { seq, state } = Group.releaseKey(blocked, { key, mode: "retry", now: 1_100 })
    expect(seq).toBe(1)
    expect(state.waiting.get(1)).toMatchObject({ attempt: 1, reason: "bad", notBefore: 1_100 })
    expect(seqs(claim(blocked, { options: ordered, now: 1_100 }))).toEqual([])
    expect(seqs(claim(state, { options: ordered, now: 1_100 }))).toEqual([1])
  })

  it("gives the event up that blocks a key, so that the next one comes when it is buried", () => {
    const { seq, state } = Group.releaseKey(blocked, { key, mode: "dead-letter", now: 1_100 })
    expect(seq).toBe(1)
    expect(state.waiting.size).toBe(0)
    expect(state.dying.get(1)).toEqual({
      attempt: 1,
      unanswered: 0,
      member: "",
      key,
      since: 1_000,
      reason: "given up by an operator; bad",
      letter: undefined
    })
    expect(seqs(claim(state, { options: ordered, now: 9_999 }))).toEqual([])
    expect(seqs(claim(Group.bury(state, [1]), { options: ordered }))).toEqual([2])
  })

  it("takes an event from its member to give it up, and what that says afterwards changes nothing", () => {
    const { state: running } = inOrder([key])
    const { seq, state } = Group.releaseKey(running, { key, mode: "dead-letter", now: 1_100 })
    expect(seq).toBe(1)
    expect(state.inFlight.size).toBe(0)
    expect(state.dying.get(1)).toMatchObject({ member: "ann", reason: "given up by an operator" })
    expect(state.dying.get(1)).not.toHaveProperty("deadline")
    expect(Group.ack(state, [{ seq: 1, member: "ann" }]).outcomes).toEqual(["stale"])
  })

  it("does not deliver again what a member has", () => {
    const { state: running } = inOrder([key])
    const release = Group.releaseKey(running, { key, mode: "retry", now: 1_100 })
    expect(release.seq).toBeUndefined()
    expect(release.state).toBe(running)
  })

  it.each(["retry", "dead-letter"] as const)(
    "changes nothing where nothing of the key is begun: %s",
    (mode) => {
      const dying = refuse(inOrder(["l"]).state, { mode: "poison" })
      for (const state of [Group.initial("g", 0), inOrder(["l"]).state, dying]) {
        const release = Group.releaseKey(state, { key: state === dying ? "l" : key, mode, now: 1_100 })
        expect(release.seq).toBeUndefined()
        expect(release.state).toBe(state)
      }
    }
  )

  it("keeps as much of the reason as a dead letter does", () => {
    const long = refuse(inOrder([key]).state, { reason: "r".repeat(200) })
    const { state } = Group.releaseKey(long, { key, mode: "dead-letter", now: 1_100 })
    expect(state.dying.get(1)?.reason).toBe(`given up by an operator; ${"r".repeat(200)}`)
  })

  describe("of a key to which events come back from the dead letters", () => {
    const back = { ...entry, key, attempt: 0, member: Group.nobody, letter: 7, notBefore: 9_000 }
    const waits = { ...back, attempt: 1, letter: undefined }

    it("retries the first in the log", () => {
      const waiting = new Map<number, Group.Waiting>([
        [3, waits],
        [2, back],
        [1, waits]
      ])
      const state: Group.GroupState = { ...blocked, waiting }
      const release = Group.releaseKey(state, { key, mode: "retry", now: 1_100 })
      expect(release.seq).toBe(1)
      expect([...release.state.waiting].map(([seq, { notBefore }]) => [seq, notBefore])).toEqual(
        expect.arrayContaining([
          [1, 1_100],
          [2, 9_000],
          [3, 9_000]
        ])
      )
    })

    it("gives up the one that the others wait for, and that is the one that a member has", () => {
      const state: Group.GroupState = {
        ...blocked,
        waiting: new Map([[2, back]]),
        inFlight: new Map([[4, { ...entry, key, deadline: 1_100 }]])
      }
      const first = Group.releaseKey(state, { key, mode: "dead-letter", now: 1_100 })
      expect(first.seq).toBe(4)
      const second = Group.releaseKey(Group.bury(first.state, [4]), { key, mode: "dead-letter", now: 1_100 })
      expect(second.seq).toBe(2)
      expect(second.state.dying.get(2)).toMatchObject({ letter: 7, reason: "given up by an operator" })
    })
  })
})

describe("redriven, waiting and deferred events of one key", () => {
  const key = "k"
  const redriven = (seq: number): [number, Group.Waiting] => [
    seq,
    { ...entry, key, attempt: 0, member: Group.nobody, letter: seq, notBefore: 1_000 }
  ]
  const asked = { options: ordered, now: 1_100 }
  const finish = (state: Group.GroupState) => {
    const claimed = claim(state, asked)
    return { seqs: seqs(claimed), state: ack(claimed.state, ...seqs(claimed)) }
  }

  it("go in the order of the log", () => {
    // 1 and 2 came back, 3 failed, 4 and 5 were passed over.
    const failed = Group.nack(
      inOrder([undefined, undefined, key, key, key]).state,
      [{ seq: 3, member: "ann", mode: "fail", reason: "", random: 0 }],
      limits
    ).state
    const waiting = new Map([...failed.waiting, redriven(2), redriven(1)])
    let state: Group.GroupState = { ...failed, waiting, inFlight: new Map(), deferred: failed.deferred }
    const order: Array<number> = []
    for (let i = 0; i < 6; i++) {
      const next = finish(state)
      order.push(...next.seqs)
      state = next.state
    }
    expect(order).toEqual([1, 2, 3, 4, 5])
  })

  it("wait for what a member has of the key, wherever that stands", () => {
    const state: Group.GroupState = {
      ...inOrder([undefined, undefined, key, key]).state,
      waiting: new Map([redriven(1)])
    }
    expect(seqs(claim(state, asked))).toEqual([])
    const next = claim(ack(state, 3), asked)
    expect(seqs(next)).toEqual([1])
    expect(seqs(claim(ack(next.state, 1), asked))).toEqual([4])
  })

  it("wait for the first of them, even if it waits for longer", () => {
    const [seq, first] = redriven(1)
    const waiting = new Map([[seq, { ...first, notBefore: 5_000 }], redriven(2)])
    expect(seqs(claim({ ...Group.initial("g", 9), waiting }, asked))).toEqual([])
    expect(seqs(claim({ ...Group.initial("g", 9), waiting }, { ...asked, now: 5_000 }))).toEqual([1])
  })

  it("hold new events of the key, and no others", () => {
    const state: Group.GroupState = { ...Group.initial("g", 9), waiting: new Map([redriven(1)]) }
    const claimed = claim(state, { ...asked, now: 999, candidates: from(10, [key, "other"]) })
    expect(seqs(claimed)).toEqual([11])
    expect(claimed.state.deferred.get(key)?.seqs).toEqual([10])
  })
})
