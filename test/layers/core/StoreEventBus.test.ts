/** What programs see of the hub: publish, subscribe, consume. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Random, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as DeadLetter from "../../../src/domain/DeadLetter.ts"
import * as Event from "../../../src/domain/Event.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as GroupDispatcher from "../../../src/layers/core/GroupDispatcher.ts"
import * as StoreEventBus from "../../../src/layers/core/StoreEventBus.ts"
import * as TailFeed from "../../../src/layers/core/TailFeed.ts"
import {
  EventBus,
  type Handled,
  Poison,
  type Received,
  type Trimmed
} from "../../../src/services/EventBus.ts"
import { LiveFeed } from "../../../src/services/LiveFeed.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

const layer = StoreEventBus.layer({ ...Settings.limits, maxPayloadBytes: 1_000 }).pipe(
  Layer.provideMerge(
    Layer.mergeAll(
      TailFeed.layer,
      GroupDispatcher.layer({
        ...Settings.groups,
        ackTimeoutMs: 1_000,
        backoff: { baseMs: 100, maxMs: 1_000 }
      }).pipe(
        Layer.provide(Layer.succeed(Random.Random, { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 1 }))
      )
    )
  ),
  Layer.provideMerge(GroupCommitAppender.layer({ ...Settings.appender, maxQueuedEvents: 10_000 })),
  Layer.provideMerge(TestStores.layer({ maxRecordLength: 900 }))
)

interface Parts {
  readonly bus: EventBus["Service"]
  readonly trouble: Trouble["Service"]
}

const test = <E>(
  title: string,
  run: (parts: Parts) => Effect.Effect<void, E, Scope.Scope | LiveFeed | TestStores.TestStores>
) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      return yield* run({ bus: yield* EventBus, trouble: yield* Trouble })
    }).pipe(Effect.scoped, Effect.provide(layer))
  )

const publish = (bus: EventBus["Service"], topic: string, ...ids: ReadonlyArray<string>) =>
  bus.publish(ids.map((id) => ({ topic, id, payload: { id } })))

const storedIn = ({ log }: Trouble["Service"], topic: string) =>
  Effect.map(log.read({ topic, after: 0, limit: 10_000 }), (stored) => stored.map(Event.decode))

const settled = TestClock.adjust(10)

describe("StoreEventBus: publish", () => {
  test("answers in the order of its events, over topics, with the first result for a duplicate", ({ bus }) =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_000)
      const published = yield* bus.publish([
        { topic: "a", id: "1", payload: 1 },
        { topic: "b", id: "1", payload: 2 },
        { topic: "a", id: "2", payload: 3 },
        { topic: "a", id: "1", payload: 4 }
      ])
      expect(published).toEqual([
        { topic: "a", id: "1", seq: 1, storedAt: 1_000, duplicate: false },
        { topic: "b", id: "1", seq: 1, storedAt: 1_000, duplicate: false },
        { topic: "a", id: "2", seq: 2, storedAt: 1_000, duplicate: false },
        { topic: "a", id: "1", seq: 1, storedAt: 1_000, duplicate: true }
      ])
    }))

  test("makes what is not given, and keeps what is", ({ bus, trouble }) =>
    Effect.gen(function* () {
      yield* TestClock.setTime(7)
      const event = {
        topic: "a",
        id: "own",
        ts: 3,
        payload: { deep: [1, null, "ü"] },
        type: "t",
        key: "k",
        headers: { h: "v" },
        tags: ["x"],
        caused_by: "c",
        sid: "s"
      }
      const [made] = yield* bus.publish([{ topic: "a", payload: null }, event])
      const [first, second] = yield* storedIn(trouble, "a")
      expect(first).toEqual({ topic: "a", id: made!.id, ts: 7, payload: null, seq: 1, storedAt: 7 })
      expect(made!.id.length).toBeGreaterThan(0)
      expect(second).toEqual({ ...event, seq: 2, storedAt: 7 })
    }))

  test("publishes nothing when one of the events cannot be published", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const fails = (event: { readonly topic: string; readonly payload: unknown }) =>
        Effect.flip(bus.publish([{ topic: "a", payload: 1 }, event]))
      expect((yield* fails({ topic: "a..b", payload: 1 }))._tag).toBe("InvalidTopic")
      expect((yield* fails({ topic: "$dead.g.a", payload: 1 }))._tag).toBe("InvalidTopic")
      expect((yield* fails({ topic: "a", payload: undefined }))._tag).toBe("InvalidEvent")
      expect((yield* fails({ topic: "a", payload: "x".repeat(1_001) }))._tag).toBe("PayloadTooLarge")
      expect(yield* storedIn(trouble, "a")).toEqual([])
    }))

  test("says what the store says", ({ bus, trouble }) =>
    Effect.gen(function* () {
      trouble.next("EventStore.append", "fail")
      expect((yield* Effect.flip(publish(bus, "a", "1")))._tag).toBe("StoreUnavailable")
      const large = { topic: "a", payload: "x".repeat(950) }
      expect(yield* Effect.flip(bus.publish([large]))).toMatchObject({
        _tag: "InvalidEvent",
        reason: "it is too large for the store"
      })
      expect((yield* Effect.flip(bus.publish([{ topic: "a", payload: 1 }, large])))._tag).toBe("InvalidEvent")
      expect(
        yield* Effect.flip(bus.publish(Array.from({ length: 10_001 }, () => ({ topic: "a", payload: 1 }))))
      ).toMatchObject({ _tag: "Overloaded" })
    }))

  test("hands on the span it happens in, and leaves a given one alone", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const { spanId, traceId } = yield* Effect.gen(function* () {
        yield* bus.publish([{ topic: "a", payload: 1, headers: { h: "v" } }])
        yield* bus.publish([{ topic: "a", payload: 2, headers: { traceparent: "theirs" } }])
        return yield* Effect.currentSpan
      }).pipe(Effect.withSpan("business"))
      yield* bus.publish([{ topic: "a", payload: 3 }])
      expect((yield* storedIn(trouble, "a")).map(({ headers }) => headers)).toEqual([
        { h: "v", traceparent: `00-${traceId}-${spanId}-01` },
        { traceparent: "theirs" },
        undefined
      ])
    }))
})

describe("StoreEventBus: limits", () => {
  test("are the event's own: a span is not the reason why one is refused", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const headers = Object.fromEntries(
        Array.from({ length: Settings.limits.maxHeaders }, (_, i) => [`h${i}`, "v"])
      )
      yield* bus.publish([{ topic: "a", payload: 1, headers }]).pipe(Effect.withSpan("business"))
      expect((yield* storedIn(trouble, "a"))[0]!.headers).toEqual(headers)
    }))
})

describe("StoreEventBus: subscribe", () => {
  const collect = <E>(stream: Stream.Stream<Received | Trimmed, E>) =>
    Effect.gen(function* () {
      const items: Array<Received | Trimmed> = []
      const fiber = yield* Effect.forkScoped(
        Stream.runForEach(stream, (item) => Effect.sync(() => items.push(item)))
      )
      yield* settled
      return { items, fiber }
    })

  test("streams whole events, from now on unless told otherwise", ({ bus }) =>
    Effect.gen(function* () {
      yield* publish(bus, "a.x", "1")
      const live = yield* collect(bus.subscribe({ pattern: "a.*" }))
      const all = yield* collect(bus.subscribe({ pattern: "a.*", from: "start" }))
      yield* publish(bus, "a.x", "2")
      yield* publish(bus, "b", "1")
      yield* settled
      const second = { id: "2", topic: "a.x", ts: 20, payload: { id: "2" }, seq: 2, storedAt: 20 }
      expect(live.items).toEqual([{ _tag: "Received", event: second }])
      expect(all.items).toHaveLength(2)
      expect(all.items[1]).toEqual({ _tag: "Received", event: second })
    }))

  test("tells what was trimmed", ({ bus, trouble }) =>
    Effect.gen(function* () {
      yield* publish(bus, "a", "1", "2", "3")
      yield* trouble.log.trim({ topic: "a", upTo: 2 })
      const { items } = yield* collect(bus.subscribe({ pattern: "a", from: { after: 0 } }))
      expect(items).toMatchObject([
        { _tag: "Trimmed", topic: "a", from: 1, to: 2 },
        { _tag: "Received", event: { seq: 3 } }
      ])
    }))

  test("fails with what is wrong about it", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const fails = (subscription: Parameters<typeof bus.subscribe>[0]) =>
        Effect.flip(Stream.runDrain(bus.subscribe(subscription)))
      expect((yield* fails({ pattern: "a.b*" }))._tag).toBe("InvalidPattern")
      expect((yield* fails({ pattern: "a", from: { after: 1 } }))._tag).toBe("UnrecoverablePosition")
      expect((yield* fails({ pattern: "a", history: "another" }))._tag).toBe("UnrecoverablePosition")
      trouble.setOutage("EventStore.topics")
      expect((yield* fails({ pattern: "a" }))._tag).toBe("StoreUnavailable")
    }))

  test("loses nothing to a reader that is slower than the topic, and holds little for it", ({
    bus,
    trouble
  }) =>
    Effect.gen(function* () {
      const seqs: Array<number> = []
      const fiber = yield* Effect.forkScoped(
        bus.subscribe({ pattern: "a" }).pipe(
          Stream.runForEach((item) =>
            Effect.andThen(
              Effect.sync(() => item._tag === "Received" && seqs.push(item.event.seq)),
              item._tag === "Received" && item.event.seq % 100 === 1 ? Effect.sleep(10) : Effect.void
            )
          )
        )
      )
      yield* settled
      for (let i = 0; i < 50; i++) {
        yield* bus.publish(Array.from({ length: 100 }, () => ({ topic: "a", payload: 1 })))
      }
      expect(seqs.length).toBeLessThan(2_000)
      expect(trouble.count("EventStore.read")).toBe(0)
      yield* TestClock.adjust(1_000)
      expect(seqs).toEqual(Array.from({ length: 5_000 }, (_, i) => i + 1))
      // The feed stopped handing over, and the store was asked later.
      expect(trouble.count("EventStore.read")).toBeGreaterThan(0)
      yield* Fiber.interrupt(fiber)
    }))

  test("ends with its stream", ({ bus }) =>
    Effect.gen(function* () {
      yield* publish(bus, "a", "1", "2", "3")
      const two = yield* bus
        .subscribe({ pattern: "a", from: "start" })
        .pipe(Stream.take(2), Stream.runCollect)
      expect(two).toHaveLength(2)
      const { fiber, items } = yield* collect(bus.subscribe({ pattern: "a" }))
      yield* Fiber.interrupt(fiber)
      yield* publish(bus, "a", "4")
      yield* settled
      expect(items).toEqual([])
    }))
})

describe("StoreEventBus: consume", () => {
  const membership = { pattern: "a", group: "g", from: "start" } as const

  const floor = ({ groups }: Trouble["Service"]) =>
    Effect.map(groups.read({ group: "g", topic: "a" }), (state) => state?.floor)

  test("acknowledges what its handler handles", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const handled: Array<Handled> = []
      yield* publish(bus, "a", "1")
      yield* Effect.forkScoped(
        bus.consume(membership, (event) => Effect.sync(() => void handled.push(event)))
      )
      yield* settled
      yield* publish(bus, "a", "2")
      yield* settled
      expect(handled).toEqual([
        { id: "1", topic: "a", ts: 0, payload: { id: "1" }, seq: 1, storedAt: 0, attempt: 1 },
        { id: "2", topic: "a", ts: 10, payload: { id: "2" }, seq: 2, storedAt: 10, attempt: 1 }
      ])
      expect(yield* floor(trouble)).toBe(2)
    }))

  test("brings an event again whose handler fails or dies, after a back-off", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const attempts: Array<string> = []
      yield* publish(bus, "a", "fails", "dies")
      yield* Effect.forkScoped(
        bus.consume(membership, ({ attempt, id }) => {
          attempts.push(`${id}#${attempt}`)
          if (attempt > 1) return Effect.void
          return id === "fails" ? Effect.fail("no luck") : Effect.die(new Error("a bug"))
        })
      )
      yield* TestClock.adjust(40)
      expect(attempts).toEqual(["fails#1", "dies#1"])
      yield* TestClock.adjust(20)
      expect(attempts).toEqual(["fails#1", "dies#1", "fails#2", "dies#2"])
      expect(yield* floor(trouble)).toBe(2)
    }))

  test("gives a poisonous event up at once", ({ bus, trouble }) =>
    Effect.gen(function* () {
      yield* publish(bus, "a", "bad", "good")
      yield* Effect.forkScoped(
        bus.consume(membership, ({ id }) =>
          id === "bad" ? Effect.fail(new Poison({ reason: "cannot be read" })) : Effect.void
        )
      )
      yield* settled
      expect(yield* floor(trouble)).toBe(2)
      const [letter] = yield* storedIn(trouble, DeadLetter.deadLetterTopic("g", "a"))
      expect(letter!.headers).toMatchObject({
        [DeadLetter.headers.id]: "bad",
        [DeadLetter.headers.reason]: "cannot be read"
      })
    }))

  test("handles as many at once as it is told to", ({ bus, trouble }) =>
    Effect.gen(function* () {
      let running = 0
      let most = 0
      yield* publish(bus, "a", ..."123456789")
      yield* Effect.forkScoped(
        bus.consume({ ...membership, concurrency: 3 }, () =>
          Effect.gen(function* () {
            most = Math.max(most, ++running)
            yield* Effect.sleep(10)
            running--
          })
        )
      )
      yield* TestClock.adjust(5)
      // What it cannot handle yet is left to others.
      const state = yield* trouble.groups.read({ group: "g", topic: "a" })
      expect(state!.inFlight.size).toBe(3)
      yield* TestClock.adjust(20)
      expect(most).toBe(3)
      yield* TestClock.adjust(25)
      expect(running).toBe(0)
    }))

  test("gives back what it has when it is interrupted, and counts no attempt for it", ({ bus, trouble }) =>
    Effect.gen(function* () {
      let interrupted = 0
      const handled: Array<string> = []
      yield* publish(bus, "a", "1", "2")
      const first = yield* Effect.forkScoped(
        bus.consume({ ...membership, options: { maxAttempts: 1 } }, ({ id }) =>
          id === "1" ? Effect.void : Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
        )
      )
      yield* settled
      yield* Fiber.interrupt(first)
      expect(interrupted).toBe(1)
      yield* Effect.forkScoped(
        bus.consume(membership, ({ attempt, id }) => Effect.sync(() => void handled.push(`${id}#${attempt}`)))
      )
      yield* settled
      expect(handled).toEqual(["2#1"])
      expect(yield* storedIn(trouble, DeadLetter.deadLetterTopic("g", "a"))).toEqual([])
    }))

  test("does not handle an event again because the store was away when it was done", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const handled: Array<string> = []
      yield* publish(bus, "a", "1")
      yield* Effect.forkScoped(
        bus.consume({ ...membership, options: { maxAttempts: 1 } }, ({ attempt, id }) =>
          Effect.sleep(10).pipe(Effect.andThen(Effect.sync(() => void handled.push(`${id}#${attempt}`))))
        )
      )
      yield* TestClock.adjust(5)
      trouble.setOutage("GroupStore")
      yield* TestClock.adjust(10_000)
      trouble.setOutage(undefined)
      yield* TestClock.adjust(10_000)
      expect(handled).toEqual(["1#1"])
      expect(yield* floor(trouble)).toBe(1)
      expect(yield* storedIn(trouble, DeadLetter.deadLetterTopic("g", "a"))).toEqual([])
    }))

  test("continues the trace of the event", ({ bus }) =>
    Effect.gen(function* () {
      const { traceId } = yield* Effect.andThen(publish(bus, "a", "1"), Effect.currentSpan).pipe(
        Effect.withSpan("business")
      )
      const traces: Array<string> = []
      yield* Effect.forkScoped(
        bus.consume(membership, () =>
          Effect.map(
            Effect.orDie(Effect.currentSpan),
            (span) => void traces.push(`${span.name} ${span.traceId}`)
          )
        )
      )
      yield* settled
      expect(traces).toEqual([`EventBus.handle ${traceId}`])
    }))

  test("fails with what is wrong about it", ({ bus }) =>
    Effect.gen(function* () {
      const fails = (wanted: Parameters<typeof bus.consume>[0]) =>
        Effect.flip(bus.consume(wanted, () => Effect.void))
      expect((yield* fails({ ...membership, pattern: "a..b" }))._tag).toBe("InvalidPattern")
      expect((yield* fails({ ...membership, from: { after: 1 } }))._tag).toBe("UnrecoverablePosition")
      yield* Effect.forkScoped(bus.consume(membership, () => Effect.void))
      yield* settled
      expect((yield* fails({ ...membership, options: { keyOrdered: true } }))._tag).toBe("GroupConflict")
    }))

  test("ends when its group is removed", ({ bus, trouble }) =>
    Effect.gen(function* () {
      const consumer = yield* Effect.forkScoped(Effect.flip(bus.consume(membership, () => Effect.void)))
      yield* settled
      yield* trouble.groups.remove("g")
      yield* publish(bus, "a", "1")
      yield* settled
      expect(yield* Fiber.join(consumer)).toMatchObject({ _tag: "GroupNotFound", group: "g" })
    }))
})
