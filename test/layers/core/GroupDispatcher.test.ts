/** Consumer groups: where they begin, how hubs share them, and what outlives a hub. */
import { describe, expect } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as DeadLetter from "../../../src/domain/DeadLetter.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { records } from "../../../src/testing/eventStore.ts"
import { Consumer, join } from "./Consumer.ts"
import {
  ackTimeoutMs,
  deadLetters,
  dispatcher,
  joinApart,
  publish,
  publishElsewhere,
  settings,
  settled,
  stateOf,
  test
} from "./groupsAtWork.ts"
import { Trouble } from "./TestStores.ts"

describe("GroupDispatcher: where a group begins", () => {
  test("at the start, the end, a position, a time, or positions of topics", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      yield* TestClock.setTime(100)
      yield* publish("a", "3")
      const start = yield* join({ group: "start", from: "start" })
      const end = yield* join({ group: "end", from: "new" })
      const after = yield* join({ group: "after", from: { after: 1 } })
      const time = yield* join({ group: "time", from: { time: 100 } })
      const topics = yield* join({ group: "topics", pattern: "*", from: { topics: { a: 2 } } })
      yield* publish("a", "4")
      yield* settled
      expect(start.ids).toEqual(["1", "2", "3", "4"])
      expect(end.ids).toEqual(["4"])
      expect(after.ids).toEqual(["2", "3", "4"])
      expect(time.ids).toEqual(["3", "4"])
      expect(topics.ids).toEqual(["3", "4"])
    }))

  test("is fixed when it is registered: who joins later goes on where it is", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const first = yield* joinApart({ from: "start" })
      yield* settled
      yield* first.consumer.ack("1")
      yield* first.consumer.member.leave
      const later = yield* join({ from: "new" })
      yield* settled
      expect(later.story).toEqual(["2#1"])
    }))

  test("is before the first event of topics that are born later, here or in another hub", ({ announce }) =>
    Effect.gen(function* () {
      const consumer = yield* join({ pattern: "a.*", from: "new" })
      yield* publish("a.x", "1", "2")
      yield* publishElsewhere("a.y", "3")
      yield* announce([{ topic: "a.y", head: 1 }])
      yield* settled
      expect(consumer.ids.toSorted()).toEqual(["1", "2", "3"])
    }))

  test("is before the first event of topics that were born while nobody was there", () =>
    Effect.gen(function* () {
      const early = yield* joinApart({ pattern: "*", from: "new" })
      yield* early.disconnect
      yield* publish("a", "1")
      const consumer = yield* join({ pattern: "*", from: "new" })
      yield* settled
      expect(consumer.story).toEqual(["1#1"])
    }))

  test("cannot be a position that nobody can resume", ({ groups }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      for (const wanted of [{ from: { after: 2 } }, { history: "another", from: { after: 1 } }] as const) {
        expect((yield* Effect.flip(Effect.scoped(join(wanted))))._tag).toBe("UnrecoverablePosition")
      }
      expect(yield* groups.list).toEqual([])
    }))

  test("in another history is refused until the group is removed", ({ groups }) =>
    Effect.gen(function* () {
      yield* groups.register({
        group: "g",
        pattern: "a",
        wanted: {},
        defaults: settings,
        history: "another",
        generation: "old",
        positions: new Map()
      })
      expect((yield* Effect.flip(Effect.scoped(join())))._tag).toBe("UnrecoverablePosition")
    }))

  test("goes with options that stay: others are a conflict", () =>
    Effect.gen(function* () {
      yield* join({ options: { maxAttempts: 3 } })
      yield* join({ options: { maxAttempts: 3 } })
      yield* join()
      const refused = yield* Effect.flip(join({ options: { maxAttempts: 5, ackTimeoutMs: 1 } }))
      expect(refused).toMatchObject({ _tag: "GroupConflict", differs: ["ackTimeoutMs", "maxAttempts"] })
    }))

  test("delivers nothing before the member starts", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = new Consumer()
      yield* consumer.join
      yield* publish("a", "2")
      yield* settled
      expect(consumer.ids).toEqual([])
      consumer.member.start()
      yield* settled
      expect(consumer.ids).toEqual(["1", "2"])
    }))
})

describe("GroupDispatcher: many hubs", () => {
  test("a group gets what another hub appended, in order", ({ announce }) =>
    Effect.gen(function* () {
      const consumer = yield* join()
      yield* publish("a", "1")
      yield* publishElsewhere("a", "2", "3")
      yield* announce([{ topic: "a", head: 3 }])
      yield* settled
      expect(consumer.ids).toEqual(["1", "2", "3"])
      yield* publish("a", "4")
      yield* publishElsewhere("a", "5")
      yield* publish("a", "6")
      yield* settled
      expect(consumer.ids).toEqual(["1", "2", "3", "4", "5", "6"])
    }))

  /** A hub on the same stores that knows that it is not alone. Trouble is that of the hub that may fail. */
  const hub = (mayFail: boolean) =>
    Effect.gen(function* () {
      const trouble = yield* Trouble
      const scope = yield* Scope.make()
      const groups = mayFail ? yield* GroupStore : trouble.groups
      const stores = Layer.mergeAll(
        Layer.succeed(EventStore, { ...trouble.log, changes: (yield* EventStore).changes }),
        Layer.succeed(GroupStore, { ...groups, exclusive: false })
      )
      const built = dispatcher().pipe(
        Layer.provideMerge(GroupCommitAppender.layer()),
        Layer.provideMerge(stores)
      )
      const context = yield* Layer.buildWithScope(Layer.fresh(built), scope)
      return { context, stop: Scope.close(scope, Exit.void) }
    })

  test("leave each other's members their events, and share what there is", ({ announce }) =>
    Effect.gen(function* () {
      const [one, other] = [yield* hub(true), yield* hub(false)]
      const first = yield* join({ credit: 2 }).pipe(Effect.provide(one.context))
      yield* publish("a", "1", "2", "3", "4")
      yield* announce([{ topic: "a", head: 4 }])
      yield* settled
      const second = yield* join({ credit: 10 }).pipe(Effect.provide(other.context))
      yield* settled
      expect(first.ids).toEqual(["1", "2"])
      expect(second.ids).toEqual(["3", "4"])
      yield* one.stop
      yield* other.stop
    }))

  test("give the events of a hub that died to others when their time is over", ({ announce, setOutage }) =>
    Effect.gen(function* () {
      const [dead, alive] = [yield* hub(true), yield* hub(false)]
      yield* join().pipe(Effect.provide(dead.context))
      yield* publish("a", "1")
      yield* announce([{ topic: "a", head: 1 }])
      yield* settled
      const consumer = yield* join().pipe(Effect.provide(alive.context))
      yield* TestClock.adjust(ackTimeoutMs - 100)
      expect(consumer.ids).toEqual([])
      // Nothing of the other reaches the store any more, as if its process were gone.
      setOutage("GroupStore")
      yield* TestClock.adjust(100)
      expect(consumer.story).toEqual(["1#2"])
      setOutage(undefined)
      yield* alive.stop
    }))
})

describe("GroupDispatcher: a group that stands behind the end of its topic", () => {
  const lost = ({ groups, log }: Trouble["Service"]) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      yield* groups.register({
        group: "g",
        pattern: "a",
        wanted: {},
        defaults: settings,
        history: yield* log.history,
        generation: "old",
        positions: new Map([["a", 50]])
      })
      return yield* join({ from: "start" })
    })

  /** A seek by another hub. */
  const putBack = ({ groups }: Trouble["Service"]) =>
    groups.modify({ group: "g", topic: "a" }, (state) => [
      undefined,
      { ...state!, floor: 0, next: 1, generation: "new" }
    ])

  test("ends its members, and takes new ones when it was put back", (trouble) =>
    Effect.gen(function* () {
      const ended = yield* lost(trouble)
      yield* settled
      expect(ended.ends).toEqual(["history_changed"])
      yield* putBack(trouble)
      const anew = yield* join({ from: "start" })
      yield* settled
      expect(anew.ends).toEqual([])
      expect(anew.story).toEqual(["1#1", "2#1"])
    }))

  test("does not end who joins when it was put back, while it is looked at for those who were there", (trouble) =>
    Effect.gen(function* () {
      trouble.setPace((operation) => (operation === "EventStore.head" ? [0, 5] : [0, 0]))
      const ended = yield* lost(trouble)
      yield* TestClock.adjust(1)
      expect(trouble.count("EventStore.head")).toBeGreaterThan(0)
      expect(ended.ends).toEqual([])
      yield* putBack(trouble)
      const anew = yield* join({ from: "start" })
      yield* settled
      expect(ended.ends).toEqual(["history_changed"])
      expect(anew.ends).toEqual([])
      expect(anew.story).toEqual(["1#1", "2#1"])
    }))
})

describe("GroupDispatcher: the end", () => {
  test("of a group is told to its members", ({ groups }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* settled
      yield* groups.remove("g")
      expect(yield* consumer.ack("1")).toEqual(["stale"])
      expect(consumer.ends).toEqual(["removed"])
      yield* publish("a", "2")
      yield* settled
      expect(consumer.ids).toEqual(["1"])
      expect(consumer.ends).toEqual(["removed"])
    }))

  test("of the hub takes answers, and gives nothing new", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const consumer = yield* join({ credit: 1 })
      yield* settled
      yield* GroupDelivery.use(({ drain }) => drain)
      expect(yield* consumer.ack("1")).toEqual(["done"])
      yield* publish("a", "3")
      yield* TestClock.adjust(ackTimeoutMs * 2)
      expect(consumer.ids).toEqual(["1"])
      expect(yield* GroupDelivery.useSync((delivery) => delivery.inFlight())).toBe(0)
    }))
})

describe("GroupDispatcher: a restart", () => {
  test("brings what was not acknowledged at once, and only that; the dead letters that were due, too", ({
    setOutage
  }) =>
    Effect.gen(function* () {
      const started = Effect.gen(function* () {
        const scope = yield* Scope.make()
        const built = Layer.fresh(dispatcher().pipe(Layer.provideMerge(GroupCommitAppender.layer())))
        const context = yield* Layer.buildWithScope(built, scope)
        const consumer = yield* join().pipe(Effect.provide(context), Scope.provide(scope))
        const publisher = Context.get(context, Appender)
        return { consumer, publisher, stop: Scope.close(scope, Exit.void) }
      })
      const first = yield* started
      yield* first.publisher.append(records("a", 5))
      yield* settled
      yield* first.consumer.ack("e1", "e4")
      setOutage("EventStore.append")
      yield* first.consumer.nack("e5", { mode: "poison" })
      // It dies, and says nothing to the store any more.
      setOutage("GroupStore")
      const stopped = yield* Deferred.make<void>()
      yield* Effect.forkChild(Deferred.into(first.stop, stopped))
      yield* TestClock.adjust(100)
      yield* Deferred.await(stopped)
      setOutage(undefined)
      const second = yield* started
      yield* settled
      expect(second.consumer.story).toEqual(["e2#2", "e3#2"])
      expect((yield* deadLetters()).map(({ headers }) => headers?.[DeadLetter.headers.id])).toEqual(["e5"])
      yield* second.consumer.ack("e2", "e3")
      expect(yield* stateOf()).toMatchObject({ floor: 5 })
      yield* second.stop
    }))

  test("stores what its members leave before it is gone, by a slow store as well", ({ setPace }) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const built = Layer.fresh(dispatcher().pipe(Layer.provideMerge(GroupCommitAppender.layer())))
      const context = yield* Layer.buildWithScope(built, scope)
      const consumer = yield* join().pipe(Effect.provide(context), Scope.provide(scope))
      yield* Context.get(context, Appender).append(records("a", 2))
      yield* settled
      expect(consumer.ids).toEqual(["e1", "e2"])
      setPace((operation) => (operation === "GroupStore.modify" ? [50, 0] : [0, 0]))
      const stopped = yield* Deferred.make<void>()
      yield* Effect.forkChild(Deferred.into(Scope.close(scope, Exit.void), stopped))
      yield* settled
      expect(yield* Deferred.isDone(stopped)).toBe(false)
      for (let i = 0; i < 4; i++) {
        yield* TestClock.adjust(50)
        yield* settled
      }
      yield* Deferred.await(stopped)
      const { inFlight, waiting } = yield* stateOf()
      expect([inFlight.size, waiting.size]).toEqual([0, 2])
    }))
})
