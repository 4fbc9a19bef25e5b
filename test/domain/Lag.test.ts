/** Lag against a list that says of every event where it is: the numbers are what counting that list gives. */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import type * as Group from "../../src/domain/Group.ts"
import * as Lag from "../../src/domain/Lag.ts"
import * as Ranges from "../../src/domain/Ranges.ts"

type Place = "acked" | "inFlight" | "waiting" | "dying" | "deferred"
interface Seen {
  readonly place: Place
  readonly attempt: number
}

const seen: fc.Arbitrary<ReadonlyArray<Seen>> = fc.array(
  fc.record({
    place: fc.constantFrom<Place>("acked", "acked", "inFlight", "waiting", "dying", "deferred"),
    attempt: fc.integer({ min: 1, max: 3 })
  }),
  { maxLength: 20 }
)

const mark = (seq: number, storedAt: number): Lag.Mark => ({ seq, id: `e${seq}`, ts: 0, storedAt })

/** The state of a group that has looked at these events, from seq 1 on. */
const stateOf = (seen: ReadonlyArray<Seen>): Group.GroupState => {
  const unacked = seen.findIndex(({ place }) => place !== "acked")
  const floor = unacked < 0 ? seen.length : unacked
  const at = <A>(place: Place, make: (seen: Seen) => A) =>
    new Map(seen.flatMap((one, i) => (one.place === place ? [[i + 1, make(one)] as const] : [])))
  const entry = { unanswered: 0, member: "m", key: "k" }
  return {
    generation: "g",
    floor,
    next: seen.length + 1,
    acked: Ranges.addAll(
      Ranges.empty,
      [...at("acked", () => null).keys()].filter((seq) => seq > floor)
    ),
    inFlight: at("inFlight", ({ attempt }) => ({ ...entry, attempt, deadline: 10 })),
    // A first delivery that was handed back is not counted as one.
    waiting: at("waiting", ({ attempt }) => ({ ...entry, attempt: attempt - 1, notBefore: 10 })),
    dying: at("dying", ({ attempt }) => ({ ...entry, attempt, reason: "poison" })),
    deferred: Map.groupBy(at("deferred", () => null).keys(), (seq) => `k${seq % 3}`)
  }
}

const facts = (seen: ReadonlyArray<Seen>, unseen: number): Lag.LagFacts => {
  const head = seen.length + unseen
  return {
    topic: "orders",
    group: "billing",
    state: stateOf(seen),
    cursor: undefined,
    tail: head === 0 ? undefined : mark(head, 900),
    oldestStoredAt: 400,
    dead: 4,
    window: 10,
    now: 1_000
  }
}

describe("Lag", () => {
  it("counts every event where it is", () => {
    fc.assert(
      fc.property(seen, fc.nat({ max: 5 }), fc.integer({ min: 1, max: 20 }), (seen, unseen, window) => {
        const given = { ...facts(seen, unseen), window }
        const count = (isIn: (one: Seen) => boolean) => seen.filter(isIn).length
        const pending = count(({ place }) => place !== "acked") + unseen
        const leading = seen.findIndex(({ place }) => place !== "acked")
        const aheadOfFloor = leading < 0 ? 0 : seen.length - leading
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
          dead: 4,
          stalled: unseen > 0 && aheadOfFloor >= window ? "window_full" : null
        })
      }),
      { numRuns: 500 }
    )
  })

  it("is the age of the oldest unacknowledged event", () => {
    const behind = facts([{ place: "acked", attempt: 1 }], 2)
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
    expect(Lag.lag(facts([{ place: "acked", attempt: 1 }], 0))).toMatchObject({ lagMs: 0, pending: 0 })
  })

  it("is 0 for a topic without events, and for an event that was trimmed meanwhile", () => {
    expect(Lag.lag({ ...facts([], 0), oldestStoredAt: undefined })).toMatchObject({
      lagMs: 0,
      tail: null,
      pending: 0
    })
    expect(Lag.lag({ ...facts([], 3), oldestStoredAt: undefined })).toMatchObject({ lagMs: 0, pending: 3 })
  })
})
