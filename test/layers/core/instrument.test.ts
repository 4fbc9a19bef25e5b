/** Spans and times of the stores, at the seam; and metrics whose number does not grow with what they count. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Metric, Option, Tracer } from "effect"
import { TestClock } from "effect/testing"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Hub from "../../../src/hub/Hub.ts"
import { instrument } from "../../../src/layers/core/instrument.ts"
import * as metrics from "../../../src/layers/core/metrics.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../../../src/layers/memory/MemoryGroupStore.ts"
import * as MemoryOutboxStore from "../../../src/layers/memory/MemoryOutboxStore.ts"
import * as MemoryRevocationStore from "../../../src/layers/memory/MemoryRevocationStore.ts"
import { EventBus } from "../../../src/services/EventBus.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { OutboxStore } from "../../../src/services/OutboxStore.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import { record } from "../../../src/testing/eventStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

/** A tracer that remembers its spans, and a registry of one test. */
const observed = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const observe = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(
      Effect.provideService(Tracer.Tracer, tracer),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  return { spans, observe }
}

/** `name{labels}` of every series that was recorded. */
const series = Effect.map(Metric.snapshot, (snapshot) =>
  snapshot.map(({ attributes, id }) => {
    const labels = Object.entries(attributes ?? {}).filter(([name]) => name !== "time_unit")
    return `${id}{${labels.map(([name, value]) => `${name}=${value}`).join(",")}}`
  })
)

const durations = (operation: string) =>
  Metric.value(Metric.withAttributes(metrics.storeDuration, { operation }))

describe("instrument", () => {
  const stores = Layer.effect(EventStore, EventStore).pipe((layer) => instrument(EventStore, layer))

  it.effect("gives every call a span of its method's name, and says how it ended", () => {
    const { observe, spans } = observed()
    return Effect.gen(function* () {
      const store = yield* EventStore
      const trouble = yield* Trouble
      yield* store.append([record("a", "1")])
      yield* store.history
      expect(yield* store.read({ topic: "a", after: 0, limit: 1 })).toHaveLength(1)
      trouble.next("EventStore.head", "fail")
      expect(yield* Effect.flip(store.head("a"))).toBeInstanceOf(StoreUnavailable)
      expect(spans.map(({ name }) => name)).toEqual([
        "EventStore.append",
        "EventStore.history",
        "EventStore.read",
        "EventStore.head"
      ])
      const ends = spans.map(({ status }) => status._tag === "Ended" && Exit.isSuccess(status.exit))
      expect(ends).toEqual([true, true, true, false])
    }).pipe(Effect.provide(stores.pipe(Layer.provideMerge(TestStores.layer()))), observe)
  })

  it.effect("makes no span where nobody would hear of it, and says whether an operation failed", () =>
    Effect.gen(function* () {
      const spans: Array<boolean> = []
      const looking = Layer.effect(
        EventStore,
        Effect.map(EventStore, (store) => ({
          ...store,
          history: Effect.tap(store.history, () =>
            Effect.map(Effect.option(Effect.currentSpan), (span) => spans.push(Option.isSome(span)))
          )
        }))
      )
      const stores = instrument(EventStore, looking).pipe(Layer.provideMerge(TestStores.layer()))
      const { observe } = observed()
      yield* Effect.gen(function* () {
        const store = yield* EventStore
        yield* store.history
        yield* observe(store.history)
        expect(spans).toEqual([false, true])
        const { next } = yield* Trouble
        next("EventStore.head", "fail")
        yield* Effect.flip(store.head("a"))
        yield* store.head("a")
        const errors = (operation: string) =>
          Effect.map(
            Metric.value(Metric.withAttributes(metrics.storeErrors, { operation })),
            ({ count }) => count
          )
        expect(yield* errors("EventStore.head")).toBe(1)
        expect(yield* errors("EventStore.history")).toBe(0)
      }).pipe(Effect.provide(stores), Effect.provideService(Metric.MetricRegistry, new Map()))
    })
  )

  it.effect("makes the caller's span the parent", () => {
    const { observe, spans } = observed()
    return Effect.gen(function* () {
      yield* EventStore.use((store) => store.history).pipe(Effect.withSpan("business"))
      const [business, history] = spans
      expect(Option.getOrThrow(history!.parent).spanId).toBe(business!.spanId)
    }).pipe(Effect.provide(stores.pipe(Layer.provideMerge(TestStores.layer()))), observe)
  })

  it.effect("times every call, whether it works, fails, or is interrupted", () =>
    Effect.gen(function* () {
      const store = yield* EventStore
      const { next, setPace } = yield* Trouble
      setPace(() => [0, 30])
      const call = Effect.forkChild(Effect.exit(store.head("a")))
      yield* call
      yield* TestClock.adjust(30)
      next("EventStore.head", "fail after")
      yield* call
      yield* TestClock.adjust(30)
      yield* Effect.forkChild(Effect.timeoutOption(store.head("a"), 20))
      yield* TestClock.adjust(20)
      const { count, max, min } = yield* durations("EventStore.head")
      expect([count, min, max]).toEqual([3, 0.02, 0.03])
    }).pipe(Effect.provide(stores.pipe(Layer.provideMerge(TestStores.layer()))), observed().observe)
  )

  it.effect("leaves alone what is no effect", () =>
    Effect.gen(function* () {
      expect((yield* GroupStore).exclusive).toBe(true)
    }).pipe(Effect.provide(instrument(GroupStore, MemoryGroupStore.layer)))
  )
})

describe("metrics", () => {
  const bus = Hub.bus(
    Layer.mergeAll(
      instrument(EventStore, MemoryEventStore.layer()),
      instrument(GroupStore, MemoryGroupStore.layer),
      instrument(OutboxStore, MemoryOutboxStore.layer()),
      MemoryRevocationStore.layer
    ).pipe(Layer.provideMerge(RandomIds.layerTest())),
    {
      limits: Settings.limits,
      groups: Settings.groups,
      appender: Settings.appender,
      drainer: Settings.drainer,
      retention: Settings.retention
    }
  )

  it.effect("count what happens", () =>
    Effect.gen(function* () {
      const { consume, publish } = yield* EventBus
      const outbox = yield* OutboxStore
      yield* publish([
        { topic: "a", id: "1", payload: 1 },
        { topic: "a", id: "2", payload: 2 }
      ])
      yield* publish([{ topic: "a", id: "1", payload: 1 }])
      yield* outbox.add({ topic: "b", payload: 1 })
      yield* Effect.forkScoped(
        consume(
          { pattern: "a", group: "g", from: "start", options: { maxAttempts: 2 } },
          ({ attempt, id }) => (id === "1" || attempt > 2 ? Effect.void : Effect.fail("no luck"))
        )
      )
      yield* TestClock.adjust("10 seconds")
      const count = (metric: Metric.Counter<number>) =>
        Effect.map(Metric.value(metric), (state) => state.count)
      expect(yield* count(metrics.appended)).toBe(4)
      expect(yield* count(metrics.duplicates)).toBe(1)
      expect(yield* count(metrics.notAppended)).toBe(0)
      expect(yield* count(Metric.withAttributes(metrics.outboxSent, { source: "hub" }))).toBe(1)
      expect(yield* count(metrics.groupDeliveries)).toBe(3)
      expect(yield* count(metrics.groupRedeliveries)).toBe(1)
      expect(yield* count(metrics.groupAcks)).toBe(1)
      expect(yield* count(metrics.groupNacks)).toBe(2)
      expect(yield* count(metrics.deadLetters)).toBe(1)
      const batches = yield* Metric.value(metrics.batchSize)
      expect([batches.count, batches.sum]).toEqual([4, 5])
    }).pipe(Effect.scoped, Effect.provide(bus), observed().observe)
  )

  it.effect("are as many for hundreds of topics, groups and keys as for one", () => {
    const live = (from: number, to: number) =>
      Effect.gen(function* () {
        const { consume, publish } = yield* EventBus
        const outbox = yield* OutboxStore
        for (let i = from; i < to; i++) {
          yield* publish([{ topic: `topic.${i}`, key: `key-${i}`, payload: 1 }])
          yield* outbox.add({ topic: `outbox.${i}`, payload: 1 })
          yield* Effect.forkScoped(
            consume({ pattern: `topic.${i}`, group: `group-${i}`, from: "start" }, () => Effect.void)
          )
        }
        yield* TestClock.adjust("1 second")
        return yield* series
      })
    return Effect.gen(function* () {
      const few = yield* live(0, 1)
      const many = yield* live(1, 300)
      expect(many).toHaveLength(few.length)
      for (const name of many) {
        expect(name).toMatch(/^event_hub_/)
        expect(name).not.toMatch(/topic\.|group-|key-/)
      }
    }).pipe(Effect.scoped, Effect.provide(bus), observed().observe)
  })

  it.effect("are recorded into the registry of the program, without a fiber", () =>
    Effect.gen(function* () {
      const recorder = yield* metrics.recorder
      recorder.add(metrics.connectionsClosed, 1, { code: "1000" })
      recorder.add(metrics.connectionsClosed, 2, { code: "4002" })
      recorder.add(metrics.connectionsClosed, 3, { code: "1000" })
      expect((yield* series).toSorted()).toEqual([
        "event_hub_connections_closed_total{code=1000}",
        "event_hub_connections_closed_total{code=4002}"
      ])
      const closed = Metric.withAttributes(metrics.connectionsClosed, { code: "1000" })
      expect((yield* Metric.value(closed)).count).toBe(4)
    }).pipe(observed().observe)
  )
})
