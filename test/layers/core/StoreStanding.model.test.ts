/** What Standing says of random groups and topics as they go on, against asking the Inspector about each place. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import * as Group from "../../../src/domain/Group.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Topic from "../../../src/domain/Topic.ts"
import * as TestHub from "../../../src/hub/TestHub.ts"
import { EventBus } from "../../../src/services/EventBus.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { Inspector } from "../../../src/services/Inspector.ts"
import { type GroupStanding, type Place, Standing } from "../../../src/services/Standing.ts"

const topics = ["a.x", "a.y", "b.x", "b.y.z"]
const patterns = ["a.*", "a.x", "**", "*.x", "b.**", "a.**"]
const names = ["g", "h", "i"]

type Step =
  | { readonly do: "publish"; readonly topic: string; readonly count: number }
  | { readonly do: "register"; readonly group: string; readonly pattern: string; readonly at: number }
  | {
      readonly do: "move"
      readonly group: string
      readonly topic: string
      readonly by: number
      readonly open: number
    }
  | { readonly do: "remove"; readonly group: string }
  | { readonly do: "pass"; readonly ms: number }
  | { readonly do: "look" }

const topic = fc.constantFrom(...topics)
const group = fc.constantFrom(...names)

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("publish" as const),
      topic,
      count: fc.integer({ min: 1, max: 5 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("register" as const),
      group,
      pattern: fc.constantFrom(...patterns),
      at: fc.nat(3)
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("move" as const),
      group,
      topic,
      by: fc.nat(3),
      open: fc.nat(2)
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), group }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("pass" as const), ms: fc.nat(40_000) }) },
  { weight: 4, arbitrary: fc.constant({ do: "look" } as const) }
)

const entry = {
  attempt: 1,
  unanswered: 0,
  member: "m",
  key: undefined,
  since: 0,
  reason: "r",
  letter: undefined,
  deadline: 9
} as const

const moved = (state: Group.GroupState, by: number, open: number): Group.GroupState => {
  const floor = state.floor + by
  return {
    ...state,
    floor,
    next: floor + open + 1,
    inFlight: new Map(Array.from({ length: open }, (_, i) => [floor + i + 1, entry]))
  }
}

/** What there is, by asking for each topic. */
const truth = Effect.gen(function* () {
  const inspector = yield* Inspector
  const store = yield* EventStore
  const places = new Map<string, Place>()
  for (const name of topics) {
    const info = yield* store.head(name)
    if (info === undefined) continue
    for (const { group, inFlight, pending, seq } of (yield* inspector.cursors({ topic: name, limit: 100 }))
      .items) {
      places.set(`${group} ${name}`, { group, topic: name, seq, head: info.head, pending, inFlight })
    }
  }
  return places
})

const sums = (places: ReadonlyMap<string, Place>, registered: Iterable<string>) => {
  const found = new Map<string, GroupStanding>()
  for (const name of registered) {
    const own = [...places.values()].filter(({ group }) => group === name)
    const sum = (of: "pending" | "inFlight") => own.reduce((total, place) => total + place[of], 0)
    const topicsBehind = own.filter(({ pending }) => pending > 0).length
    found.set(name, { pending: sum("pending"), inFlight: sum("inFlight"), topicsBehind })
  }
  return found
}

const run = (steps: ReadonlyArray<Step>) =>
  Effect.gen(function* () {
    const bus = yield* EventBus
    const groups = yield* GroupStore
    const standing = yield* Standing
    /** A follower of changes knows what it saw in the beginning, and what it was told. */
    const followed = new Map<string, Place>(yield* truth)
    const watch = yield* standing.watch
    let id = 0
    let lives = 0

    const look = Effect.gen(function* () {
      const places = yield* truth
      const registered = new Set((yield* groups.list).map((one) => one.group))
      expect(yield* standing.groups).toEqual(sums(places, registered))
      const all = [...places.values()].map(({ pending }) => pending).filter((pending) => pending > 0)
      const worst = yield* standing.behind({ limit: 3, show: () => true })
      expect(worst.map(({ pending }) => pending)).toEqual(all.sort((a, b) => b - a).slice(0, 3))
      for (const { lagMs, ...place } of worst) {
        expect(lagMs).toBeGreaterThanOrEqual(0)
        expect(places.get(`${place.group} ${place.topic}`)).toEqual(place)
      }
      const hidden = yield* standing.behind({
        limit: 9,
        show: (group, name) => `${group} ${name}` === "g a.x"
      })
      expect(hidden.map(({ group, topic }) => `${group} ${topic}`)).toEqual(
        (places.get("g a.x")?.pending ?? 0) > 0 ? ["g a.x"] : []
      )
      for (;;) {
        const told = yield* watch.take(2)
        for (const { lagMs: _lagMs, ...place } of told) followed.set(`${place.group} ${place.topic}`, place)
        if (told.length < 2) break
      }
      for (const [key, place] of places) expect([key, followed.get(key)]).toEqual([key, place])
    })

    for (const one of steps) {
      switch (one.do) {
        case "publish":
          yield* bus.publish(
            Array.from({ length: one.count }, () => ({ topic: one.topic, id: `${++id}`, payload: 1 }))
          )
          break
        case "register": {
          const places = yield* truth
          const heads = new Map([...places.values()].map(({ head, topic }) => [topic, head]))
          yield* groups.register({
            group: one.group,
            pattern: one.pattern,
            wanted: {},
            defaults: Settings.groups,
            history: "h",
            generation: `${++lives}`,
            positions: new Map(
              [...heads]
                .filter(([name]) => Topic.matches(Result.getOrThrow(Topic.parsePattern(one.pattern)), name))
                .map(([name, head]) => [name, Math.min(head, one.at)])
            )
          })
          break
        }
        case "move": {
          const registered = (yield* groups.list).some(({ group }) => group === one.group)
          const head = (yield* truth).get(`${one.group} ${one.topic}`)?.head
          if (!registered || head === undefined) break
          yield* groups.modify({ group: one.group, topic: one.topic }, (state = Group.initial("m", 0)) => {
            const next = moved(state, one.by, one.open)
            return [undefined, next.next - 1 > head ? state : next]
          })
          break
        }
        case "remove":
          yield* groups.remove(one.group)
          // Nobody is told that a place is gone.
          for (const key of followed.keys()) if (key.startsWith(`${one.group} `)) followed.delete(key)
          break
        case "pass":
          yield* TestClock.adjust(one.ms)
          break
        case "look":
          yield* look
      }
    }
    yield* look
  }).pipe(
    Effect.scoped,
    Effect.provide(TestHub.layer({ standing: { ...Settings.standing, refreshMs: 0, keepMs: 20_000 } })),
    Effect.provide(TestClock.layer())
  )

describe("StoreStanding", () => {
  it(
    "says what asking for each place says, and tells of each change",
    () =>
      fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 25 }), (steps) => Effect.runPromise(run(steps))),
        { numRuns: 150 }
      ),
    60_000
  )
})
