/** What live subscribers get: everything from their position on, once, in order, whatever happens meanwhile. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as TailFeed from "../../../src/layers/core/TailFeed.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { LiveFeed } from "../../../src/services/LiveFeed.ts"
import { record, records } from "../../../src/testing/eventStore.ts"
import { follow, Follower, pattern } from "./Follower.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

const layer = TailFeed.layer.pipe(
  Layer.provideMerge(GroupCommitAppender.layer()),
  Layer.provideMerge(TestStores.layer())
)

const test = <E>(
  title: string,
  run: (
    trouble: Trouble["Service"]
  ) => Effect.Effect<void, E, Scope.Scope | LiveFeed | Appender | TestStores.TestStores>
) => it.effect(title, () => Effect.flatMap(Trouble, run).pipe(Effect.scoped, Effect.provide(layer)))

const publish = (topic: string, ...ids: ReadonlyArray<string>) =>
  Appender.use((appender) => appender.append(ids.map((id) => record(topic, id))))

/** What another hub appends: this one is not told, unless the store says so. */
const publishElsewhere = (topic: string, ...ids: ReadonlyArray<string>) =>
  Trouble.use(({ log }) => log.append(ids.map((id) => record(topic, id))))

const settled = TestClock.adjust(1_000)

describe("TailFeed: where a subscription begins", () => {
  test("new: behind what is there, and tells where that ends", () =>
    Effect.gen(function* () {
      yield* publish("a.x", "1", "2")
      yield* publish("a.y", "1")
      yield* publish("b", "1")
      const follower = yield* follow({ pattern: "a.*" })
      expect([...follower.subscription!.heads]).toEqual([
        ["a.x", 2],
        ["a.y", 1]
      ])
      yield* publish("a.x", "3")
      yield* publish("b", "2")
      yield* publish("a.y", "2")
      expect(follower.story).toEqual(["a.x:3", "a.y:2"])
      expect(follower.subscription!.behind()).toBe(0)
    }))

  test("start: at the first event of every topic", () =>
    Effect.gen(function* () {
      yield* publish("a.x", "1", "2")
      yield* publish("a.y", "1")
      const follower = yield* follow({ pattern: "a.*", from: "start" })
      yield* settled
      yield* publish("a.x", "3")
      expect(follower.seqs("a.x")).toEqual([1, 2, 3])
      expect(follower.seqs("a.y")).toEqual([1])
      expect(follower.subscription!.behind()).toBe(0)
    }))

  test("after: behind a position, and at the end when the position is the end", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3")
      const middle = yield* follow({ pattern: "a", from: { after: 1 } })
      const end = yield* follow({ pattern: "a", from: { after: 3 } })
      const nothing = yield* follow({ pattern: "unborn", from: { after: 0 } })
      yield* publish("a", "4")
      yield* publish("unborn", "1")
      yield* settled
      expect(middle.seqs("a")).toEqual([2, 3, 4])
      expect(end.seqs("a")).toEqual([4])
      expect(nothing.seqs("unborn")).toEqual([1])
    }))

  test("time: at the first event stored then or later", () =>
    Effect.gen(function* () {
      yield* publish("a.x", "1")
      yield* TestClock.setTime(1_000)
      yield* publish("a.x", "2")
      yield* publish("a.y", "1")
      yield* TestClock.setTime(2_000)
      yield* publish("a.x", "3")
      const at = yield* follow({ pattern: "a.*", from: { time: 1_000 } })
      const later = yield* follow({ pattern: "a.*", from: { time: 2_001 } })
      yield* settled
      yield* publish("a.y", "2")
      expect(at.seqs("a.x")).toEqual([2, 3])
      expect(at.seqs("a.y")).toEqual([1, 2])
      expect(later.story).toEqual(["a.y:2"])
    }))

  test("topics: each at its own position, and the others as `rest` says", () =>
    Effect.gen(function* () {
      yield* publish("a.x", "1", "2", "3")
      yield* publish("a.y", "1", "2")
      yield* publish("a.constructor", "1")
      const rest = yield* follow({ pattern: "a.*", from: { topics: { "a.x": 2 } } })
      const none = yield* follow({ pattern: "a.*", from: { topics: { "a.x": 2 }, rest: "new" } })
      yield* settled
      expect(rest.seqs("a.x")).toEqual([3])
      expect(rest.seqs("a.y")).toEqual([1, 2])
      expect(rest.seqs("a.constructor")).toEqual([1])
      expect(none.story).toEqual(["a.x:3"])
      yield* publish("a.z", "1")
      expect(rest.seqs("a.z")).toEqual([1])
      expect(none.seqs("a.z")).toEqual([1])
    }))

  test("new: with what is committed while the ends are looked up", ({ setPace }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      setPace((operation) => (operation === "EventStore.append" ? [0, 0] : [0, 10]))
      const subscribing = yield* Effect.forkChild(follow({ pattern: "*" }))
      yield* TestClock.adjust(5)
      yield* publish("a", "2")
      yield* publish("b", "1")
      yield* settled
      const follower = yield* Fiber.join(subscribing)
      expect(follower.story.toSorted()).toEqual(["a:2", "b:1"])
    }))

  test("nothing comes before `start`, and nothing is lost by waiting with it", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const feed = yield* LiveFeed
      const seen: Array<number> = []
      const subscription = yield* feed.subscribe({
        pattern: pattern("a"),
        from: "new",
        history: undefined,
        sink: { deliver: ({ records }) => seen.push(...records.map(({ seq }) => seq)) > 0, gap: () => {} }
      })
      yield* publish("a", "2")
      yield* publish("a", "3")
      yield* settled
      expect(seen).toEqual([])
      subscription.start()
      yield* settled
      yield* publish("a", "4")
      expect(seen).toEqual([2, 3, 4])
    }))
})

describe("TailFeed: positions that cannot be resumed", () => {
  const refused = (wanted: ConstructorParameters<typeof Follower>[0]) =>
    Effect.flip(Effect.scoped(follow(wanted)))

  test("are those of another history", () =>
    Effect.gen(function* () {
      const feed = yield* LiveFeed
      const history = yield* feed.history
      yield* publish("a", "1")
      const own = yield* follow({ pattern: "a", from: { after: 0 }, history })
      yield* settled
      expect(own.seqs("a")).toEqual([1])
      expect(yield* refused({ pattern: "a", from: { after: 0 }, history: "another" })).toMatchObject({
        _tag: "UnrecoverablePosition",
        reason: "it belongs to another history of the store"
      })
    }))

  test("are those beyond the end of a topic, or of a topic that is not there", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      for (const [pattern, from] of [
        ["a", { after: 2 }],
        ["b", { after: 1 }],
        ["*", { topics: { a: 2 } }],
        ["*", { topics: { b: 1 } }],
        ["a", { topics: { a: 1, b: 1 } }]
      ] as const) {
        expect((yield* refused({ pattern, from }))._tag).toBe("UnrecoverablePosition")
      }
      expect((yield* refused({ pattern: "a", from: { after: 2 } })).message).toContain("'a' ends at 1")
    }))

  test("are not those that another hub gave, further on than this one has looked", () =>
    Effect.gen(function* () {
      yield* publish("a.x", "1")
      const early = yield* follow({ pattern: "a.*" })
      yield* publishElsewhere("a.x", "2", "3")
      yield* publishElsewhere("a.y", "1", "2")
      const after = yield* follow({ pattern: "a.x", from: { after: 3 } })
      const topics = yield* follow({ pattern: "a.*", from: { topics: { "a.x": 2, "a.y": 1 } } })
      const atTheEnd = yield* follow({ pattern: "a.*", from: { topics: { "a.x": 3, "a.y": 2 } } })
      yield* settled
      expect(topics.story.toSorted()).toEqual(["a.x:3", "a.y:2"])
      yield* publish("a.x", "4")
      yield* publish("a.y", "3")
      yield* settled
      expect(after.story).toEqual(["a.x:4"])
      expect(topics.story.toSorted()).toEqual(["a.x:3", "a.x:4", "a.y:2", "a.y:3"])
      expect(atTheEnd.story.toSorted()).toEqual(["a.x:4", "a.y:3"])
      expect(early.seqs("a.x")).toEqual([2, 3, 4])
      expect(early.seqs("a.y")).toEqual([1, 2, 3])
    }))

  test("of topics that the pattern does not match let nothing out", () =>
    Effect.gen(function* () {
      yield* publish("secret", "1", "2")
      expect((yield* refused({ pattern: "a.*", from: { topics: { secret: 1 } } }))._tag).toBe(
        "UnrecoverablePosition"
      )
      const follower = yield* follow({ pattern: "a.*", from: { topics: { secret: 0 } } })
      yield* publish("secret", "3")
      yield* settled
      expect(follower.story).toEqual([])
    }))
})

describe("TailFeed: what was trimmed", () => {
  test("is told as a gap to whoever had a position before it", ({ log }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3", "4", "5", "6")
      yield* log.trim({ topic: "a", upTo: 4 })
      const after = yield* follow({ pattern: "a", from: { after: 2 } })
      const topics = yield* follow({ pattern: "*", from: { topics: { a: 0 } } })
      yield* settled
      expect(after.story).toEqual(["a:3-4", "a:5", "a:6"])
      expect(after.gaps).toEqual([{ topic: "a", from: 3, to: 4 }])
      expect(topics.story).toEqual(["a:1-4", "a:5", "a:6"])
    }))

  test("is no gap to whoever asked for the start, or for a time", ({ log }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3")
      yield* log.trim({ topic: "a", upTo: 2 })
      const start = yield* follow({ pattern: "a", from: "start" })
      const time = yield* follow({ pattern: "a", from: { time: 0 } })
      const rest = yield* follow({ pattern: "*", from: { topics: {} } })
      yield* settled
      for (const { story } of [start, time, rest]) expect(story).toEqual(["a:3"])
    }))

  test("is told once, also when the subscriber takes nothing at the time", ({ log }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3")
      yield* log.trim({ topic: "a", upTo: 2 })
      const follower = new Follower({ pattern: "a", from: { after: 0 } })
      follower.takes = () => false
      const { resume } = yield* follower.subscribe
      yield* settled
      expect(follower.story).toEqual(["a:1-2"])
      follower.takes = () => true
      resume()
      yield* settled
      expect(follower.story).toEqual(["a:1-2", "a:3"])
    }))

  test("while a subscriber was behind is told when it comes to it", ({ log }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3")
      const follower = new Follower({ pattern: "a", from: "start" })
      follower.takes = ({ records }) => records[0]!.seq === 1
      const { resume } = yield* follower.subscribe
      yield* settled
      yield* publish("a", "4")
      yield* publish("a", "5", "6")
      yield* log.trim({ topic: "a", upTo: 5 })
      follower.takes = () => true
      resume()
      yield* settled
      expect(follower.story).toEqual(["a:1", "a:2", "a:3", "a:4-5", "a:6"])
    }))

  test("of what another hub appended is told to those at the end, and to those that are behind", ({
    announce,
    log
  }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const atTheEnd = yield* follow({ pattern: "a" })
      const slow = yield* follow({ pattern: "*" })
      slow.takes = () => false
      yield* publish("a", "2")
      yield* publishElsewhere("a", "3", "4", "5")
      yield* log.trim({ topic: "a", upTo: 4 })
      yield* announce([{ topic: "a", head: 5 }])
      yield* settled
      expect(atTheEnd.story).toEqual(["a:2", "a:3-4", "a:5"])
      slow.takes = () => true
      slow.subscription!.resume()
      yield* settled
      expect(slow.story).toEqual(["a:2-4", "a:5"])
    }))
})

describe("TailFeed: topics and subscribers", () => {
  test("gives topics that are born later, from their first event on", ({ announce }) =>
    Effect.gen(function* () {
      const wide = yield* follow({ pattern: "a.**" })
      const start = yield* follow({ pattern: "a.*", from: "start" })
      yield* publish("a.x", "1", "2")
      yield* publish("a", "1")
      yield* publishElsewhere("a.y", "1")
      yield* announce([{ topic: "a.y", head: 1 }])
      yield* settled
      expect(wide.story).toEqual(["a.x:1", "a.x:2", "a:1", "a.y:1"])
      expect(start.story).toEqual(["a.x:1", "a.x:2", "a.y:1"])
    }))

  test("gives all of a topic that nobody spoke of, also when another subscriber finds it first", () =>
    Effect.gen(function* () {
      const early = yield* follow({ pattern: "a.*" })
      yield* publishElsewhere("a.x", "1", "2")
      const late = yield* follow({ pattern: "a.**" })
      expect([...late.subscription!.heads]).toEqual([["a.x", 2]])
      yield* publish("a.x", "3")
      yield* settled
      expect(early.story).toEqual(["a.x:1", "a.x:2", "a.x:3"])
      expect(late.story).toEqual(["a.x:3"])
    }))

  test("gives events once to a subscriber of overlapping patterns' topics, and the hub's own only by name", () =>
    Effect.gen(function* () {
      const all = yield* follow({ pattern: "**" })
      const own = yield* follow({ pattern: "$dead.**" })
      yield* publish("a", "1")
      yield* publish("$dead.g.a", "1")
      expect(all.story).toEqual(["a:1"])
      expect(own.story).toEqual(["$dead.g.a:1"])
    }))

  test("hands one batch to all subscribers of a pattern", () =>
    Effect.gen(function* () {
      const one = yield* follow({ pattern: "a" })
      const other = yield* follow({ pattern: "a" })
      yield* publish("a", "1", "2")
      expect(one.batches).toHaveLength(1)
      expect(other.batches[0]).toBe(one.batches[0])
    }))

  test("reads what another hub appended in between, in order", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const follower = yield* follow({ pattern: "a" })
      yield* publishElsewhere("a", "2", "3")
      yield* publish("a", "4")
      yield* publishElsewhere("a", "5")
      yield* publish("a", "6")
      yield* settled
      expect(follower.seqs("a")).toEqual([2, 3, 4, 5, 6])
    }))

  test("takes the store's word for growth that is no news, was told twice, or is not there yet", ({
    announce
  }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const follower = yield* follow({ pattern: "a" })
      yield* announce([
        { topic: "a", head: 1 },
        { topic: "a", head: 2 },
        { topic: "unknown", head: 7 },
        { topic: "a", head: 5 }
      ])
      yield* settled
      yield* publish("a", "3")
      yield* announce([{ topic: "a", head: 3 }])
      yield* settled
      expect(follower.seqs("a")).toEqual([3])
    }))

  test("gives what the store held already when it said that it failed", ({ next }) =>
    Effect.gen(function* () {
      const follower = yield* follow({ pattern: "a" })
      next("EventStore.append", "fail after")
      yield* Effect.flip(publish("a", "1"))
      yield* settled
      expect(follower.seqs("a")).toEqual([1])
      yield* publishElsewhere("a", "2")
      expect(yield* publish("a", "2")).toMatchObject([{ duplicate: true }])
      yield* settled
      expect(follower.seqs("a")).toEqual([1, 2])
    }))
})

describe("TailFeed: slow subscribers", () => {
  test("are served from the store when they take events again, and do not hold up the others", () =>
    Effect.gen(function* () {
      const fast = yield* follow({ pattern: "a.*" })
      const slow = yield* follow({ pattern: "a.*" })
      slow.takes = () => false
      for (const one of records("a.x", 50)) yield* Appender.use(({ append }) => append([one]))
      yield* publish("a.y", "1")
      expect(fast.seqs("a.x")).toHaveLength(50)
      expect(slow.story).toEqual([])
      expect(slow.subscription!.behind()).toBe(2)
      slow.takes = () => true
      slow.subscription!.resume()
      yield* settled
      yield* publish("a.x", "e51")
      expect(slow.seqs("a.x")).toEqual(fast.seqs("a.x"))
      expect(slow.seqs("a.y")).toEqual([1])
      expect(slow.subscription!.behind()).toBe(0)
    }))

  test("may refuse again and again, in the middle of what they read", () =>
    Effect.gen(function* () {
      yield* Appender.use(({ append }) => append(records("a", 2_000)))
      const follower = new Follower({ pattern: "a", from: "start" })
      let offered = 0
      follower.takes = () => ++offered % 3 === 0
      const { resume } = yield* follower.subscribe
      for (let i = 0; i < 20; i++) {
        resume()
        yield* TestClock.adjust(1)
        if (i < 5) yield* publish("a", `later-${i}`)
      }
      expect(follower.seqs("a")).toEqual(Array.from({ length: 2_005 }, (_, i) => i + 1))
    }))

  test("that read many topics do not wait for the whole past of one of them", () =>
    Effect.gen(function* () {
      yield* Appender.use(({ append }) => append([...records("a.long", 3_000), record("a.short", "1")]))
      const follower = yield* follow({ pattern: "a.*", from: "start" })
      yield* settled
      expect(follower.story.indexOf("a.short:1")).toBeLessThan(1_000)
      expect(follower.events).toHaveLength(3_001)
    }))

  test("meet the end while it moves on, however the store's answers are delayed", ({ setPace }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      setPace((operation) => (operation === "EventStore.read" ? [0, 10] : [0, 0]))
      const follower = yield* follow({ pattern: "a", from: "start" })
      yield* TestClock.adjust(5)
      yield* publish("a", "3")
      yield* TestClock.adjust(10)
      yield* publish("a", "4")
      yield* TestClock.adjust(6)
      yield* publish("a", "5")
      yield* settled
      yield* publish("a", "6")
      yield* settled
      expect(follower.seqs("a")).toEqual([1, 2, 3, 4, 5, 6])
    }))

  test("do not miss what is committed while the store says that there is no more", ({ setPace }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      setPace((operation) =>
        operation === "EventStore.readTime" ? [10, 0] : operation === "EventStore.read" ? [0, 10] : [0, 0]
      )
      const subscribing = yield* Effect.forkChild(follow({ pattern: "a", from: { time: 60_000 } }))
      yield* TestClock.adjust(5)
      // The subscription knows the end at 1, and is told to begin behind 2.
      yield* publish("a", "2")
      yield* TestClock.adjust(10)
      yield* publish("a", "3")
      yield* settled
      const follower = yield* Fiber.join(subscribing)
      yield* publish("a", "4")
      yield* settled
      expect(follower.seqs("a")).toEqual([3, 4])
    }))
})

describe("TailFeed: stores that fail", () => {
  test("refuse a subscription, and take the next one", ({ setOutage }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      setOutage("EventStore")
      expect((yield* Effect.flip(Effect.scoped(follow({ pattern: "a" }))))._tag).toBe("StoreUnavailable")
      setOutage(undefined)
      const follower = yield* follow({ pattern: "a", from: "start" })
      yield* settled
      expect(follower.seqs("a")).toEqual([1])
    }))

  test("are waited for by those that are behind, and by those at the end", ({ announce, setOutage }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const end = yield* follow({ pattern: "a" })
      setOutage("EventStore.read")
      const behind = yield* follow({ pattern: "a", from: "start" })
      yield* publishElsewhere("a", "3")
      yield* announce([{ topic: "a", head: 3 }])
      yield* TestClock.adjust("1 minute")
      expect([...end.story, ...behind.story]).toEqual([])
      setOutage(undefined)
      yield* TestClock.adjust("5 seconds")
      expect(end.seqs("a")).toEqual([3])
      expect(behind.seqs("a")).toEqual([1, 2, 3])
    }))
})

describe("TailFeed: the end of a subscription", () => {
  test("brings nothing any more, and is forgotten", () =>
    Effect.gen(function* () {
      const follower = new Follower({ pattern: "a" })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* follower.subscribe
          yield* publish("a", "1")
        })
      )
      yield* publish("a", "2")
      expect(follower.seqs("a")).toEqual([1])
      const next = yield* follow({ pattern: "a" })
      expect(next.subscription!.heads.get("a")).toBe(2)
      yield* publish("a", "3")
      yield* settled
      expect(next.seqs("a")).toEqual([3])
    }))

  test("ends reading: a subscriber that is behind and leaves costs the store nothing any more", ({
    count,
    setPace
  }) =>
    Effect.gen(function* () {
      yield* Appender.use(({ append }) => append(records("a", 5_000)))
      setPace((operation) => (operation === "EventStore.read" ? [10, 0] : [0, 0]))
      const follower = new Follower({ pattern: "a", from: "start" })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* follower.subscribe
          yield* TestClock.adjust(15)
        })
      )
      const reads = count("EventStore.read")
      yield* settled
      expect(follower.strays).toEqual([])
      expect(count("EventStore.read")).toBeLessThanOrEqual(reads)
    }))

  test("in the middle of subscribing leaves nothing behind for the next one", ({ setPace }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      setPace((operation) => (operation === "EventStore.topics" ? [0, 10] : [0, 0]))
      const scope = yield* Scope.make()
      const early = yield* Effect.forkChild(follow({ pattern: "a" }).pipe(Scope.provide(scope)))
      yield* TestClock.adjust(5)
      yield* Fiber.interrupt(early)
      yield* Scope.close(scope, Exit.void)
      yield* settled
      setPace(() => [0, 0])
      yield* publish("a", "2")
      const next = yield* follow({ pattern: "a" })
      expect(next.subscription!.heads.get("a")).toBe(2)
      yield* publish("a", "3")
      yield* settled
      expect(next.seqs("a")).toEqual([3])
    }))

  test("while the end is being read does not disturb who subscribes then", ({ announce, setPace }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const scope = yield* Scope.make()
      yield* follow({ pattern: "a" }).pipe(Scope.provide(scope))
      yield* publishElsewhere("a", "2")
      setPace((operation) => (operation === "EventStore.read" ? [0, 10] : [0, 0]))
      yield* announce([{ topic: "a", head: 2 }])
      yield* TestClock.adjust(5)
      yield* Scope.close(scope, Exit.void)
      const next = yield* follow({ pattern: "a" })
      yield* settled
      yield* publish("a", "3")
      yield* settled
      expect(next.story).toEqual(["a:3"])
    }))
})
