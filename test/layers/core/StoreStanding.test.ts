/** When Standing asks the stores, what it does when they fail, and what it hears of other hubs. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, PubSub, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Group from "../../../src/domain/Group.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as StoreStanding from "../../../src/layers/core/StoreStanding.ts"
import * as WatchedGroupStore from "../../../src/layers/core/WatchedGroupStore.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { type GroupChange, GroupStore } from "../../../src/services/GroupStore.ts"
import { Standing } from "../../../src/services/Standing.ts"
import { records } from "../../../src/testing/eventStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

interface Scene {
  readonly standing: Standing["Service"]
  readonly groups: GroupStore["Service"]
  readonly trouble: Trouble["Service"]
  /** By this hub. */
  readonly append: (topic: string, count: number, from?: number) => Effect.Effect<unknown, unknown>
  readonly register: (group: string, pattern: string) => Effect.Effect<unknown, unknown>
  /** What another hub has to say of groups. */
  readonly announce: (...changes: ReadonlyArray<GroupChange>) => Effect.Effect<unknown>
  readonly logged: ReadonlyArray<string>
}

const at = (floor: number) => () => [undefined, Group.initial("g", floor)] as const

const test = (
  title: string,
  run: (scene: Scene) => Effect.Effect<void, unknown, Scope.Scope>,
  settings: Partial<Settings.StandingSettings> & { readonly isShared?: boolean } = {}
) =>
  it.effect(title, () => {
    const { isShared = false, ...more } = settings
    const logged: Array<string> = []
    const log = Logger.layer([Logger.make(({ message }) => void logged.push(String([message].flat()[0])))])
    return Effect.gen(function* () {
      const changes = yield* PubSub.unbounded<ReadonlyArray<GroupChange>>()
      const shared = Layer.effect(
        GroupStore,
        Effect.map(GroupStore, (store) => ({
          ...store,
          exclusive: !isShared,
          changes: Stream.fromPubSub(changes)
        }))
      )
      const layer = StoreStanding.layer({ ...Settings.standing, ...more }).pipe(
        Layer.provideMerge(GroupCommitAppender.layer()),
        Layer.provideMerge(WatchedGroupStore.layer),
        Layer.provideMerge(shared),
        Layer.provideMerge(TestStores.layer())
      )
      yield* Effect.gen(function* () {
        const groups = yield* GroupStore
        const appender = yield* Appender
        yield* run({
          standing: yield* Standing,
          groups,
          trouble: yield* Trouble,
          append: (topic, count, from) => appender.append(records(topic, count, from)),
          register: (group, pattern) =>
            groups.register({
              group,
              pattern,
              wanted: {},
              defaults: Settings.groups,
              history: "h",
              generation: "g",
              positions: new Map()
            }),
          announce: (...all) => Effect.andThen(PubSub.publish(changes, all), settle),
          logged
        })
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(log))
  })

/** What goes on by itself comes to its end, for this moment. */
const settle = Effect.repeat(Effect.yieldNow, { times: 200 })

const looks = ({ trouble }: Scene) =>
  ["EventStore.topics", "GroupStore.list", "GroupStore.topicsOf", "GroupStore.read"].reduce(
    (sum, operation) => sum + trouble.count(operation),
    0
  )

const pendingOf = ({ standing }: Scene, group = "g") =>
  Effect.map(standing.groups, (all) => all.get(group)?.pending)

describe("the stores are asked", () => {
  test("not at all while nobody looks", (scene) =>
    Effect.gen(function* () {
      yield* scene.register("g", "**")
      yield* scene.append("a", 3)
      yield* TestClock.adjust("1 hour")
      expect(looks(scene)).toBe(0)
    }))

  test("once a second at most, however many look at once", (scene) =>
    Effect.gen(function* () {
      yield* scene.register("g", "**")
      yield* scene.append("a", 3)
      const all = Effect.forEach(Array.from({ length: 20 }), () => pendingOf(scene), {
        concurrency: "unbounded"
      })
      expect(new Set(yield* all)).toEqual(new Set([3]))
      const first = looks(scene)
      yield* scene.append("a", 1, 4)
      yield* TestClock.adjust("900 millis")
      expect(new Set(yield* all)).toEqual(new Set([3]))
      expect(looks(scene)).toBe(first)
      yield* TestClock.adjust("100 millis")
      expect(new Set(yield* all)).toEqual(new Set([4]))
      // Who is registered: nothing else is looked up because a topic grew.
      expect(looks(scene)).toBe(first + 1)
    }))

  test("anew when nobody has looked for a while", (scene) =>
    Effect.gen(function* () {
      yield* scene.append("a", 1)
      yield* scene.standing.totals
      expect(scene.trouble.count("EventStore.topics")).toBe(2)
      yield* TestClock.adjust("20 seconds")
      yield* scene.standing.totals
      expect(scene.trouble.count("EventStore.topics")).toBe(2)
      yield* TestClock.adjust("2 minutes")
      yield* scene.standing.totals
      expect(scene.trouble.count("EventStore.topics")).toBe(4)
    }))

  test("not anew while somebody follows what changes", (scene) =>
    Effect.gen(function* () {
      yield* scene.standing.watch
      yield* TestClock.adjust("10 minutes")
      yield* scene.standing.totals
      expect(scene.trouble.count("EventStore.topics")).toBe(2)
    }))
})

describe("a group that somebody joins", () => {
  test("is not read anew, and none of its places changed", (scene) =>
    Effect.gen(function* () {
      const { append, register, standing, trouble } = scene
      yield* register("g", "**")
      yield* append("a", 5)
      const watch = yield* standing.watch
      const before = trouble.count("GroupStore.topicsOf")
      yield* register("g", "**")
      yield* TestClock.adjust("1 second")
      expect(yield* watch.take(9)).toEqual([])
      expect(trouble.count("GroupStore.topicsOf")).toBe(before)
    }))

  test("for other topics, or that went and came again, is read", (scene) =>
    Effect.gen(function* () {
      const { append, groups, register } = scene
      yield* register("g", "a")
      yield* append("a", 5)
      yield* append("b", 3)
      expect(yield* pendingOf(scene)).toBe(5)
      yield* register("g", "b")
      yield* groups.modify({ group: "g", topic: "b" }, at(1))
      yield* TestClock.adjust("1 second")
      expect(yield* pendingOf(scene)).toBe(7)
      yield* groups.remove("g")
      yield* register("g", "b")
      yield* TestClock.adjust("1 second")
      expect(yield* pendingOf(scene)).toBe(3)
    }))
})

describe("a store that is slow", () => {
  test(
    "is asked once more for all who come meanwhile, and what they get is none of before",
    (scene) =>
      Effect.gen(function* () {
        const { append, register, trouble } = scene
        yield* register("g", "**")
        yield* append("a", 1)
        expect(yield* pendingOf(scene)).toBe(1)
        const before = trouble.count("GroupStore.list")
        trouble.setPace((operation) => (operation === "GroupStore.list" ? [60_000, 0] : [0, 0]))
        const first = yield* Effect.forkChild(pendingOf(scene), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        yield* append("a", 1, 2)
        const later: Array<Fiber.Fiber<number | undefined, unknown>> = []
        for (let n = 0; n < 20; n++) {
          later.push(yield* Effect.forkChild(pendingOf(scene), { startImmediately: true }))
          yield* TestClock.adjust("1 second")
        }
        yield* TestClock.adjust("10 minutes")
        yield* Fiber.join(first)
        for (const fiber of later) expect(yield* Fiber.join(fiber)).toBe(2)
        expect(trouble.count("GroupStore.list")).toBe(before + 2)
      }),
    { refreshMs: 0 }
  )

  test(
    "loses nothing of what changes while the ages of what changed before are looked up",
    (scene) =>
      Effect.gen(function* () {
        const { append, register, standing, trouble } = scene
        yield* register("g", "**")
        const watch = yield* standing.watch
        yield* append("a", 1)
        trouble.next("EventStore.read", (_args, run) =>
          Effect.andThen(Effect.andThen(append("a", 1, 2), standing.totals), run)
        )
        expect(yield* watch.take(9)).toMatchObject([{ topic: "a", pending: 1 }])
        expect(yield* watch.take(9)).toMatchObject([{ topic: "a", pending: 2 }])
        expect(yield* watch.take(9)).toEqual([])
      }),
    { refreshMs: 0 }
  )
})

describe("a store that fails", () => {
  test("when ages are looked up makes them come with the next, by what they changed since then", (scene) =>
    Effect.gen(function* () {
      const { append, groups, register, standing, trouble } = scene
      yield* register("g", "**")
      yield* append("a", 1)
      yield* append("b", 9)
      const watch = yield* standing.watch
      yield* append("a", 3, 2)
      yield* append("b", 1, 10)
      yield* TestClock.adjust("1 second")
      trouble.next("EventStore.read", "fail")
      yield* Effect.flip(watch.take(1))
      yield* groups.modify({ group: "g", topic: "b" }, at(1))
      yield* TestClock.adjust("1 second")
      // By 3 since it was told, and the other one is where it was.
      expect(yield* watch.take(1)).toMatchObject([{ topic: "a", pending: 4 }])
      expect(yield* watch.take(9)).toMatchObject([{ topic: "b", pending: 9 }])
    }))

  test("is told, and nothing is lost of what changed", (scene) =>
    Effect.gen(function* () {
      const { append, groups, register, standing, trouble } = scene
      yield* register("g", "**")
      yield* append("a", 5)
      const watch = yield* standing.watch
      yield* groups.modify({ group: "g", topic: "a" }, at(2))
      yield* append("b", 1)
      for (const operation of ["GroupStore.list", "GroupStore.read"]) {
        yield* TestClock.adjust("1 second")
        trouble.next(operation, "fail")
        expect((yield* Effect.flip(watch.take(9)))._tag).toBe("StoreUnavailable")
      }
      yield* TestClock.adjust("1 second")
      const told = yield* watch.take(9)
      expect(told.map(({ pending, topic }) => [topic, pending]).sort()).toEqual([
        ["a", 3],
        ["b", 1]
      ])
    }))

  test("in the middle of a first look is asked again", (scene) =>
    Effect.gen(function* () {
      yield* scene.register("g", "**")
      yield* scene.append("a", 2)
      for (const operation of ["EventStore.topics", "GroupStore.list", "GroupStore.topicsOf"]) {
        scene.trouble.next(operation, "fail")
        expect((yield* Effect.flip(pendingOf(scene)))._tag).toBe("StoreUnavailable")
      }
      expect(yield* pendingOf(scene)).toBe(2)
    }))

  test("when a group is new leaves no group without its states", (scene) =>
    Effect.gen(function* () {
      const { append, groups, register, standing, trouble } = scene
      yield* append("a", 9)
      const watch = yield* standing.watch
      yield* register("g", "**")
      yield* groups.modify({ group: "g", topic: "a" }, at(8))
      yield* TestClock.adjust("1 second")
      trouble.next("GroupStore.topicsOf", "fail")
      yield* Effect.flip(watch.take(9))
      expect(yield* watch.take(9)).toMatchObject([{ group: "g", topic: "a", pending: 1 }])
      expect(yield* pendingOf(scene)).toBe(1)
    }))
})

describe("a store that fails while groups are read", () => {
  test("leaves no change untold of those that were read", (scene) =>
    Effect.gen(function* () {
      const { append, groups, register, standing, trouble } = scene
      for (const group of ["g", "h"]) yield* register(group, "**")
      yield* append("a", 9)
      const watch = yield* standing.watch
      for (const group of ["g", "h"]) {
        yield* groups.remove(group)
        yield* register(group, "**")
      }
      yield* groups.modify({ group: "g", topic: "a" }, at(5))
      yield* TestClock.adjust("1 second")
      trouble.next("GroupStore.topicsOf", (_args, run) => run, "fail")
      yield* Effect.flip(watch.take(9))
      expect(yield* watch.take(9)).toContainEqual(expect.objectContaining({ group: "g", pending: 4 }))
    }))
})

describe("whoever asks and goes away", () => {
  test("spoils nothing for those who stay", (scene) =>
    Effect.gen(function* () {
      yield* scene.register("g", "**")
      yield* scene.append("a", 1)
      scene.trouble.setPace((operation) => (operation === "GroupStore.list" ? [100, 0] : [0, 0]))
      const leaving = yield* Effect.forkChild(scene.standing.totals, { startImmediately: true })
      const staying = yield* Effect.forkChild(pendingOf(scene), { startImmediately: true })
      yield* TestClock.adjust("50 millis")
      leaving.interruptUnsafe()
      yield* TestClock.adjust("10 seconds")
      expect(staying.pollUnsafe()).toMatchObject({ _tag: "Success", value: 1 })
    }))
})

describe("other hubs", () => {
  test(
    "are heard: topics that grew, states that moved, groups that came",
    (scene) =>
      Effect.gen(function* () {
        const { announce, append, register, trouble } = scene
        yield* register("g", "**")
        yield* append("a", 5)
        expect(yield* pendingOf(scene)).toBe(5)
        yield* trouble.log.append(records("b", 2))
        yield* trouble.announce([{ topic: "b", head: 2 }])
        yield* trouble.groups.modify({ group: "g", topic: "a" }, at(4))
        yield* announce({ group: "g", topic: "a" })
        yield* TestClock.adjust("1 second")
        expect(yield* pendingOf(scene)).toBe(3)
        yield* trouble.groups.remove("g")
        yield* announce({ group: "g", topic: undefined })
        yield* TestClock.adjust("1 second")
        expect(yield* pendingOf(scene)).toBeUndefined()
      }),
    { isShared: true }
  )

  test(
    "are looked after anew now and then, and who follows is told what was not heard",
    (scene) =>
      Effect.gen(function* () {
        const { append, register, standing, trouble } = scene
        yield* register("g", "**")
        yield* append("a", 5)
        yield* append("b", 1)
        const watch = yield* standing.watch
        yield* trouble.groups.modify({ group: "g", topic: "a" }, at(4))
        yield* TestClock.adjust("1 second")
        expect(yield* watch.take(9)).toEqual([])
        yield* TestClock.adjust("1 minute")
        expect(yield* watch.take(9)).toMatchObject([{ topic: "a", pending: 1, seq: 4 }])
        expect(yield* watch.take(9)).toEqual([])
      }),
    { isShared: true }
  )
})

describe("more topics than are looked at", () => {
  test(
    "are left out, and the log says so",
    ({ append, logged, standing }) =>
      Effect.gen(function* () {
        for (const topic of ["a", "b", "c"]) yield* append(topic, 1)
        expect((yield* standing.totals).topics).toBe(2)
        expect(logged).toEqual(["there are more topics than it is looked at who is behind in"])
      }),
    { maxTopics: 2 }
  )
})

describe("growth", () => {
  test("is of what this hub appended, and of those topics that are shown", ({ append, standing }) =>
    Effect.gen(function* () {
      yield* append("fast", 30)
      yield* append("slow", 10)
      yield* append("hidden", 99)
      const growing = yield* standing.growing({ limit: 2, show: (topic) => topic !== "hidden" })
      expect(growing).toMatchObject([
        { topic: "fast", head: 30, eventsPerSecond: 30 },
        { topic: "slow", head: 10, eventsPerSecond: 10 }
      ])
      yield* TestClock.adjust("10 seconds")
      expect(yield* standing.growing({ limit: 9, show: () => true })).toEqual([])
      expect(standing.growthOf("fast")).toEqual({ eventsPerSecond: 0, bytesPerSecond: 0 })
    }))
})
