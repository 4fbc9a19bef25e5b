/** What the Inspector says of random groups and topics, against counting everything there is. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { deadLetterTopic } from "../../../src/domain/DeadLetter.ts"
import * as Event from "../../../src/domain/Event.ts"
import * as Group from "../../../src/domain/Group.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as StoreInspector from "../../../src/layers/core/StoreInspector.ts"
import { Inspector } from "../../../src/services/Inspector.ts"
import { record } from "../../../src/testing/eventStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

const window = 5

const layer = StoreInspector.layer({ ...Settings.groups, window }).pipe(
  Layer.provideMerge(TestStores.layer())
)

type Place = "acked" | "inFlight" | "waiting" | "retried" | "dying" | "fresh"

const place = fc.constantFrom<Place>("acked", "acked", "inFlight", "waiting", "retried", "dying", "fresh")

const life = fc.record({
  events: fc.array(
    fc.record({
      key: fc.constantFrom(undefined, "k", "l", "m"),
      payload: fc.constantFrom(1, 2, null),
      after: fc.nat(50)
    }),
    { minLength: 1, maxLength: 30 }
  ),
  places: fc.array(place, { minLength: 30, maxLength: 30 }),
  trimmed: fc.nat(10),
  dead: fc.nat(3),
  later: fc.nat(1_000)
})

/** A state in which each event is where it should be; from the first `fresh` on the group has seen nothing. */
const stateOf = (places: ReadonlyArray<Place>): Group.GroupState => {
  const next = places.includes("fresh") ? places.indexOf("fresh") + 1 : places.length + 1
  const entry = {
    unanswered: 0,
    member: "m",
    key: undefined,
    since: 0,
    reason: "r",
    letter: undefined
  } as const
  const at = (wanted: Place) => places.slice(0, next - 1).flatMap((one, i) => (one === wanted ? [i + 1] : []))
  const acked = at("acked")
  let floor = 0
  while (acked.includes(floor + 1)) floor++
  return {
    ...Group.initial("g", floor),
    next,
    inFlight: new Map(at("inFlight").map((seq) => [seq, { ...entry, attempt: 1, deadline: 9 }])),
    waiting: new Map<number, Group.Waiting>([
      ...at("waiting").map((seq) => [seq, { ...entry, attempt: 0, notBefore: 9 }] as const),
      ...at("retried").map((seq) => [seq, { ...entry, attempt: 2, notBefore: 9 }] as const)
    ]),
    dying: new Map(at("dying").map((seq) => [seq, { ...entry, attempt: 3 }]))
  }
}

describe("StoreInspector", () => {
  it("says what counting says", () =>
    fc.assert(
      fc.asyncProperty(life, ({ dead, events, later, places: all, trimmed }) =>
        Effect.gen(function* () {
          const { groups, log } = yield* Trouble
          const inspector = yield* Inspector
          for (const [i, { after, key, payload }] of events.entries()) {
            yield* log.append([
              record("a", `e${i + 1}`, payload, { ts: i, ...(key === undefined ? {} : { key }) })
            ])
            yield* TestClock.adjust(after)
          }
          const before = yield* log.read({ topic: "a", after: 0, limit: 100 })
          yield* TestClock.adjust(later)
          for (let i = 0; i < dead; i++) yield* log.append([record(deadLetterTopic("met", "a"), `${i}`)])
          const registration = {
            wanted: {},
            defaults: Settings.groups,
            history: yield* log.history,
            generation: "g",
            positions: new Map()
          }
          yield* groups.register({ ...registration, group: "met", pattern: "a" })
          yield* groups.register({ ...registration, group: "unmet", pattern: "*" })
          yield* groups.register({ ...registration, group: "others", pattern: "b" })
          const places = all.slice(0, events.length)
          const state = stateOf(places)
          yield* groups.modify({ group: "met", topic: "a" }, () => [undefined, state])
          yield* log.trim({ topic: "a", upTo: trimmed })

          const stored = (yield* log.read({ topic: "a", after: 0, limit: 100 })).map(Event.decode)
          const head = events.length
          const markOf = (seq: number) => {
            const found = stored.find((event) => event.seq === seq)
            return found === undefined
              ? null
              : { seq: found.seq, id: found.id, ts: found.ts, storedAt: found.storedAt }
          }
          const taken = places.slice(0, state.next - 1)
          const count = (...wanted: ReadonlyArray<Place>) =>
            taken.filter((one) => wanted.includes(one)).length
          const pending = head - count("acked")
          const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
          // What was trimmed is not there to have an age: the first that is there counts.
          const oldest = stored.find((event) => event.seq > state.floor)
          const expected = {
            topic: "a",
            group: "met",
            lastCursor: markOf(state.floor),
            tail: markOf(head),
            lagMs: pending === 0 || oldest === undefined ? 0 : now - oldest.storedAt,
            pending,
            inFlight: count("inFlight"),
            waiting: count("waiting", "retried"),
            deferred: 0,
            redelivered: count("retried"),
            dead,
            redriven: 0,
            stalled:
              state.next <= head && count("inFlight", "waiting", "retried", "dying") >= window
                ? "window_full"
                : null,
            blockedKeys: 0,
            ratePerSecond: null,
            // All of it came within the last 30 s; one that has lost events may be older than that.
            arrivalPerSecond:
              (stored.length * 1_000) /
              (stored[0]!.seq > 1 ? 30_000 : Math.max(1_000, now - stored[0]!.storedAt)),
            catchUpMs: pending === 0 ? 0 : null
          }
          expect(yield* inspector.lag({ topic: "a", group: "met" })).toEqual(expected)
          expect(yield* inspector.lag({ topic: "a", group: "unmet" })).toMatchObject({
            lastCursor: null,
            pending: head,
            lagMs: now - stored[0]!.storedAt,
            dead: 0
          })
          expect((yield* Effect.flip(inspector.lag({ topic: "a", group: "others" })))._tag).toBe(
            "GroupNotOnTopic"
          )
          expect((yield* Effect.flip(inspector.lag({ topic: "b", group: "others" })))._tag).toBe(
            "TopicNotFound"
          )

          const cursor = markOf(state.floor)
          expect((yield* inspector.cursors({ topic: "a", limit: 100 })).items).toEqual([
            {
              group: "met",
              seq: state.floor,
              lastId: cursor?.id ?? null,
              lastTs: cursor?.ts ?? null,
              pending,
              inFlight: count("inFlight")
            },
            { group: "unmet", seq: 0, lastId: null, lastTs: null, pending: head, inFlight: 0 }
          ])

          const latest = new Map<string, Event.Event>()
          for (const event of before.map(Event.decode)) {
            if (event.key === undefined) continue
            if (event.payload === null) latest.delete(event.key)
            else latest.set(event.key, event)
          }
          expect(yield* inspector.latestOf({ topic: "a", keys: ["k", "l", "m", "x"] })).toEqual(latest)
          const pages: Array<Event.Event> = []
          let after: string | undefined
          do {
            const page = yield* inspector.latestByKey({
              topic: "a",
              limit: 2,
              ...(after === undefined ? {} : { after })
            })
            expect(page.seq).toBe(head)
            pages.push(...page.items)
            after = page.next
          } while (after !== undefined)
          expect(pages).toEqual([...latest].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, event]) => event))
        }).pipe(Effect.provide(layer), Effect.provide(TestClock.layer()), Effect.runPromise)
      ),
      { numRuns: 150 }
    ))
})
