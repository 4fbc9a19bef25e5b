/** Lag against a list that says of every event where it is: the numbers are what counting that list gives. */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Group from "../../src/domain/Group.ts"
import * as GroupView from "../../src/domain/GroupView.ts"
import * as Lag from "../../src/domain/Lag.ts"
import * as Ranges from "../../src/domain/Ranges.ts"

type Place = "acked" | "inFlight" | "waiting" | "dying" | "deferred"
interface Seen {
  readonly place: Place
  readonly attempt: number
  readonly key: string
  readonly isRedriven: boolean
}

const seen: fc.Arbitrary<ReadonlyArray<Seen>> = fc.array(
  fc.record({
    place: fc.constantFrom<Place>("acked", "acked", "inFlight", "waiting", "dying", "deferred"),
    attempt: fc.integer({ min: 1, max: 3 }),
    key: fc.constantFrom("a", "b", "c", "d"),
    isRedriven: fc.boolean()
  }),
  { maxLength: 20 }
)

const mark = (seq: number, storedAt: number): Lag.Mark => ({ seq, id: `e${seq}`, ts: 0, storedAt })

const isOpen = ({ isRedriven, place }: Seen): boolean =>
  place === "deferred" || (place !== "acked" && !isRedriven)

/** Where an event that came back stands among the dead letters. */
const letterOf = (i: number): number => 101 + i

const isRedriven = (one: Seen): boolean => one.isRedriven && one.place !== "acked" && one.place !== "deferred"

/** The state of a group that has looked at these events, from seq 1 on. */
const stateOf = (seen: ReadonlyArray<Seen>): Group.GroupState => {
  const open = seen.findIndex(isOpen)
  const at = <A>(place: Place, make: (entry: Group.Entry) => A) =>
    new Map(
      seen.flatMap(({ attempt, isRedriven, key, ...one }, i) => {
        if (one.place !== place) return []
        const letter = isRedriven ? letterOf(i) : undefined
        return [
          [i + 1, make({ attempt, unanswered: 0, member: "m", key, since: 0, reason: "", letter })] as const
        ]
      })
    )
  const passed = Map.groupBy(
    seen.flatMap(({ key, place }, i) => (place === "deferred" ? [{ key, seq: i + 1 }] : [])),
    ({ key }) => key
  )
  return {
    ...Group.initial("g", open < 0 ? seen.length : open),
    next: seen.length + 1,
    inFlight: at("inFlight", (entry) => ({ ...entry, deadline: 10 })),
    // A first delivery that was handed back is not counted as one.
    waiting: at("waiting", (entry) => ({ ...entry, attempt: entry.attempt - 1, notBefore: 10 })),
    dying: at("dying", (entry) => entry),
    redrive: {
      plans: [],
      letters: Ranges.addAll(
        Ranges.empty,
        seen.flatMap((one, i) => (isRedriven(one) ? [letterOf(i)] : []))
      )
    },
    // One of each key is listed, and where the others begin is known.
    deferred: new Map(
      Array.from(passed, ([key, [first, ...others]]) => [
        key,
        { seqs: [first!.seq], from: others[0]?.seq, unlisted: others.length }
      ])
    )
  }
}

const facts = (seen: ReadonlyArray<Seen>, unseen: number): Lag.LagFacts => {
  const head = seen.length + unseen
  return {
    topic: "orders",
    group: "billing",
    state: stateOf(seen),
    keyOrdered: true,
    paused: false,
    sameHistory: true,
    cursor: undefined,
    head,
    tail: head === 0 ? undefined : mark(head, 900),
    oldestStoredAt: 400,
    letters: { floor: 0, head: 124 },
    arrivals: { events: 0, bornAt: undefined },
    window: 10,
    now: 1_000
  }
}

const ack: Seen = { place: "acked", attempt: 1, key: "a", isRedriven: false }

describe("Lag", () => {
  it("counts every event where it is", () => {
    fc.assert(
      fc.property(seen, fc.nat({ max: 5 }), fc.integer({ min: 1, max: 20 }), (seen, unseen, window) => {
        const given = { ...facts(seen, unseen), window }
        const count = (isIn: (one: Seen) => boolean) => seen.filter(isIn).length
        const pending = count(isOpen) + unseen
        /** What the state has to name one by one. */
        const begun = count(({ place }) => place !== "acked" && place !== "deferred")
        const listed = new Set(seen.filter(({ place }) => place === "deferred").map(({ key }) => key)).size
        expect(Lag.lag(given)).toEqual({
          topic: "orders",
          group: "billing",
          lastCursor: null,
          tail: given.tail ?? null,
          lagMs: pending === 0 ? 0 : 600,
          pending,
          inFlight: count(({ place }) => place === "inFlight"),
          waiting: count(({ place }) => place === "waiting"),
          deferred: count(({ place }) => place === "deferred"),
          redelivered: count(
            ({ attempt, place }) => attempt > 1 && (place === "inFlight" || place === "waiting")
          ),
          dead: 124 - count(isRedriven),
          redriven: count(isRedriven),
          stalled: unseen > 0 && begun + listed >= window ? "window_full" : null,
          blockedKeys: GroupView.blockedKeys(given.state).length,
          ratePerSecond: null,
          arrivalPerSecond: 0,
          catchUpMs: pending === 0 ? 0 : null
        })
        expect(Lag.lag({ ...given, keyOrdered: false }).blockedKeys).toBe(0)
      }),
      { numRuns: 500 }
    )
  })

  it("is the age of the oldest unacknowledged event", () => {
    const behind = facts([ack], 2)
    expect(Lag.lag({ ...behind, cursor: mark(1, 300), oldestStoredAt: 400, now: 1_500 })).toMatchObject({
      lastCursor: mark(1, 300),
      tail: mark(3, 900),
      lagMs: 1_100,
      pending: 2
    })
  })

  it("is never negative, also when the store's clock is ahead of the hub's", () => {
    expect(Lag.lag({ ...facts([], 1), oldestStoredAt: 2_000 }).lagMs).toBe(0)
  })

  it("is 0 when nothing is unacknowledged, whatever the oldest event was", () => {
    expect(Lag.lag(facts([ack], 0))).toMatchObject({ lagMs: 0, pending: 0 })
  })

  it("is 0 for a topic without events, and for an event that was trimmed meanwhile", () => {
    expect(Lag.lag({ ...facts([], 0), oldestStoredAt: undefined })).toMatchObject({
      lagMs: 0,
      tail: null,
      pending: 0
    })
    expect(Lag.lag({ ...facts([], 3), oldestStoredAt: undefined })).toMatchObject({ lagMs: 0, pending: 3 })
  })

  it("counts what is pending also when the last event was trimmed meanwhile", () => {
    expect(Lag.lag({ ...facts([ack], 3), tail: undefined })).toMatchObject({ tail: null, pending: 3 })
  })

  it("counts as dead what stands in the dead letters and did not come back", () => {
    const letter = fc.integer({ min: 1, max: 30 })
    fc.assert(
      fc.property(fc.uniqueArray(letter), fc.nat(30), fc.nat(30), (back, floor, more) => {
        const given = facts([], 1)
        const head = floor + more
        const redrive = { plans: [], letters: Ranges.addAll(Ranges.empty, back) }
        const there = Array.from({ length: more }, (_, i) => floor + i + 1)
        expect(Lag.lag({ ...given, state: { ...given.state, redrive }, letters: { floor, head } }).dead).toBe(
          there.filter((one) => !back.includes(one)).length
        )
      })
    )
    expect(Lag.lag({ ...facts([], 1), letters: undefined }).dead).toBe(0)
  })

  describe("stalled", () => {
    const full = facts(
      Array.from({ length: 10 }, () => ({ ...ack, place: "inFlight" as const })),
      1
    )

    it("says what is in the way, and first what nothing else helps against", () => {
      expect(Lag.lag(full).stalled).toBe("window_full")
      expect(Lag.lag({ ...full, paused: true }).stalled).toBe("paused")
      expect(Lag.lag({ ...full, paused: true, sameHistory: false }).stalled).toBe("history")
      expect(Lag.lag({ ...full, paused: true, head: 5, state: Group.initial("g", 6) }).stalled).toBe(
        "history"
      )
      expect(Lag.lag({ ...full, head: 6, state: Group.initial("g", 6) }).stalled).toBeNull()
    })

    it("is paused also when there is nothing to do, and full only when there is", () => {
      expect(Lag.lag({ ...facts([], 0), paused: true }).stalled).toBe("paused")
      expect(Lag.lag({ ...full, head: 10 }).stalled).toBeNull()
    })
  })

  describe("catching up", () => {
    /** A group that got `done` of 1,000 events done within ten seconds, and sees nothing but the log's end. */
    const at = (done: number, arrived: number, more: Partial<Lag.LagFacts> = {}): Lag.LagFacts => ({
      ...facts([], 1_000),
      state: { ...Group.initial("g", done), pace: [{ at: 0, done: 0 }] },
      arrivals: { events: arrived, bornAt: undefined },
      now: 10_000,
      ...more
    })

    it("takes what is pending, by how much faster it gets done than it comes in", () => {
      expect(Lag.lag(at(200, 300))).toMatchObject({
        pending: 800,
        ratePerSecond: 20,
        arrivalPerSecond: 10,
        catchUpMs: 80_000
      })
    })

    it("is never when it comes in as fast or faster, and 0 when nothing is pending", () => {
      expect(Lag.lag(at(200, 600)).catchUpMs).toBeNull()
      expect(Lag.lag(at(200, 6_000)).catchUpMs).toBeNull()
      expect(Lag.lag(at(0, 0)).catchUpMs).toBeNull()
      expect(Lag.lag(at(1_000, 6_000)).catchUpMs).toBe(0)
    })

    it("is not known before the pace was measured, and not given to a group that does not move", () => {
      const { state } = at(200, 0)
      expect(Lag.lag(at(200, 0, { state: { ...state, pace: [] } }))).toMatchObject({
        ratePerSecond: null,
        catchUpMs: null
      })
      expect(Lag.lag(at(200, 0, { paused: true })).catchUpMs).toBeNull()
      expect(Lag.lag(at(200, 0, { sameHistory: false })).catchUpMs).toBeNull()
      expect(Lag.lag(at(1_000, 0, { paused: true })).catchUpMs).toBe(0)
      expect(Lag.lag(at(1_000, 0, { sameHistory: false })).catchUpMs).toBeNull()
    })

    it("measures a new topic over its life, and none over less than a second", () => {
      const arrivals = (bornAt: number | undefined) =>
        Lag.lag(at(0, 0, { arrivals: { events: 60, bornAt } })).arrivalPerSecond
      expect(arrivals(undefined)).toBe(2)
      expect(arrivals(-90_000)).toBe(2)
      expect(arrivals(0)).toBe(6)
      expect(arrivals(9_900)).toBe(60)
      // The store's clock may be ahead.
      expect(arrivals(11_000)).toBe(60)
    })

    it("is always a time that can be said, or null", () => {
      fc.assert(
        fc.property(fc.nat(1_000), fc.nat(1e6), fc.nat(1e9), fc.nat(1e6), (done, arrived, after, bornAt) => {
          const { arrivalPerSecond, catchUpMs, pending, ratePerSecond } = Lag.lag(
            at(done, arrived, { arrivals: { events: arrived, bornAt }, now: 1_000 + after })
          )
          expect(arrivalPerSecond).toBeGreaterThanOrEqual(0)
          expect(ratePerSecond).toBeGreaterThanOrEqual(0)
          if (catchUpMs !== null) {
            expect(Number.isSafeInteger(catchUpMs)).toBe(true)
            expect(catchUpMs === 0).toBe(pending === 0)
          }
        })
      )
    })
  })
})
