/** Outboxes besides the hub's own: opened when they can be, drained side by side, told of, and closed in order. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, References, Scope } from "effect"
import { TestClock } from "effect/testing"
import type * as Settings from "../../../src/domain/Settings.ts"
import * as Defaults from "../../../src/domain/Settings.ts"
import * as DrainedSources from "../../../src/layers/core/DrainedSources.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as MemoryOutboxStore from "../../../src/layers/memory/MemoryOutboxStore.ts"
import { type OutboxSource, OutboxSources } from "../../../src/services/OutboxSources.ts"
import { OutboxStore } from "../../../src/services/OutboxStore.ts"
import { StoreLacks } from "../../../src/services/StoreLacks.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

const settings: Settings.DrainerSettings = { ...Defaults.drainer, intervalMs: 250 }

/** An outbox in memory that is there before anybody opens it, and after it was closed. */
const outboxOf = (name: string, options: { readonly failures?: number } = {}) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Layer.fresh(MemoryOutboxStore.layer()))
    const store = Context.get(context, OutboxStore)
    const happened: Array<string> = []
    let attempts = 0
    let lose: (reason: string) => void = () => {}
    let instead: Partial<OutboxStore["Service"]> = {}
    const source: DrainedSources.Source = {
      name,
      at: `memory:${name}`,
      open: (onLost) =>
        Layer.mergeAll(
          Layer.effect(
            OutboxStore,
            Effect.gen(function* () {
              attempts++
              if (attempts <= (options.failures ?? 0)) {
                return yield* Effect.fail(new Error("no way", { cause: new Error(`attempt ${attempts}`) }))
              }
              lose = onLost
              happened.push("opened")
              yield* Effect.addFinalizer(() => Effect.sync(() => void happened.push("closed")))
              return OutboxStore.of({
                ...store,
                markSent: (claims) =>
                  Effect.tap(store.markSent(claims), () =>
                    Effect.sync(
                      () => void happened.push(`sent ${claims.map(({ event }) => event.id).join()}`)
                    )
                  ),
                ...instead
              })
            })
          ),
          Layer.succeed(StoreLacks, [`${name} has no legs`])
        )
    }
    return {
      source,
      store,
      happened,
      attempts: () => attempts,
      lose: (reason: string) => lose(reason),
      /** From the next opening on. */
      replace: (members: Partial<OutboxStore["Service"]>) => void (instead = members)
    }
  })

const start = (others: ReadonlyArray<DrainedSources.Source>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const context = yield* Layer.buildWithScope(
      Layer.fresh(
        DrainedSources.layer(settings, { at: "memory:", others }).pipe(
          Layer.provide(GroupCommitAppender.layer())
        )
      ),
      scope
    )
    // What was begun in the background comes to its first wait.
    yield* TestClock.adjust(0)
    return { sources: Context.get(context, OutboxSources), stop: Scope.close(scope, Exit.void) }
  })

const test = <E>(
  title: string,
  run: (trouble: Trouble["Service"]) => Effect.Effect<void, E, Scope.Scope | TestStores.TestStores>
) =>
  it.effect(title, () =>
    Effect.flatMap(Trouble, run).pipe(
      Effect.scoped,
      Effect.provide(TestStores.layer()),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  )

const add = (store: OutboxStore["Service"], id: string) => store.add({ id, topic: "a", payload: 1 })

const log = Effect.map(
  Trouble.use((trouble) => trouble.log.read({ topic: "a", after: 0, limit: 1_000 })),
  (stored) => stored.map(({ id }) => id)
)

const problemsOf = (sources: ReadonlyArray<OutboxSource>) =>
  Object.fromEntries(sources.map(({ name, problem }) => [name, problem]))

describe("a source that cannot be opened", () => {
  test("is tried again with back-off until it can, and holds up no other", ({ outbox }) =>
    Effect.gen(function* () {
      const late = yield* outboxOf("late", { failures: 2 })
      const other = yield* outboxOf("other")
      yield* add(outbox, "own")
      yield* add(late.store, "late")
      yield* add(other.store, "other")
      const { sources } = yield* start([late.source, other.source])
      expect(problemsOf(yield* sources.list)).toEqual({
        hub: undefined,
        late: "no way: attempt 1",
        other: undefined
      })
      expect((yield* log).toSorted()).toEqual(["other", "own"])
      // Half a second, then one.
      yield* TestClock.adjust(499)
      expect(late.attempts()).toBe(1)
      yield* TestClock.adjust(1)
      expect(problemsOf(yield* sources.list)).toMatchObject({ late: "no way: attempt 2" })
      yield* TestClock.adjust(999)
      expect(late.attempts()).toBe(2)
      yield* TestClock.adjust(1)
      expect(problemsOf(yield* sources.list)).toMatchObject({ late: undefined })
      expect((yield* log).toSorted()).toEqual(["late", "other", "own"])
    }))

  test("waits no longer than ten seconds, however often it failed", () =>
    Effect.gen(function* () {
      const never = yield* outboxOf("never", { failures: Infinity })
      yield* start([never.source])
      // 0.5, 1, 2, 4 and 8 seconds, then 10 each time.
      yield* TestClock.adjust("15500 millis")
      expect(never.attempts()).toBe(6)
      yield* TestClock.adjust("100 seconds")
      expect(never.attempts()).toBe(16)
    }))

  test("a bug in a store is a problem of that source alone", ({ outbox }) =>
    Effect.gen(function* () {
      const broken: DrainedSources.Source = {
        name: "broken",
        at: "nowhere",
        open: () => Layer.effect(OutboxStore, Effect.die(new Error("a bug,\n  by name")))
      }
      const { sources } = yield* start([broken])
      expect(problemsOf(yield* sources.list)).toEqual({ hub: undefined, broken: "a bug, by name" })
      yield* add(outbox, "own")
      yield* TestClock.adjust(0)
      expect(yield* log).toEqual(["own"])
    }))
})

describe("what is told of sources", () => {
  test("is by their stores, as long as they are open", () =>
    Effect.gen(function* () {
      const shop = yield* outboxOf("shop")
      const gone = yield* outboxOf("gone", { failures: Infinity })
      const { sources } = yield* start([shop.source, gone.source])
      const told = (name: string) => Effect.map(Effect.flip(sources.storeOf(name)), ({ message }) => message)
      yield* add(shop.store, "1")
      const page = yield* Effect.flatMap(sources.storeOf("shop"), (store) => store.list({ limit: 10 }))
      expect(page.items.map(({ id }) => id)).toEqual(["1"])
      expect((yield* Effect.flatMap(sources.storeOf("hub"), (store) => store.stats)).paused).toBe(false)
      expect(yield* told("nobody")).toBe("there is no outbox 'nobody'")
      expect(yield* told("gone")).toMatch(/^outbox 'gone' is not open: no way: attempt 1/)
      shop.lose("the server is gone")
      yield* TestClock.adjust(0)
      expect(yield* told("shop")).toBe("outbox 'shop' is not open: the server is gone")
      yield* TestClock.adjust(500)
      yield* sources.storeOf("shop")
    }))

  test("is who they are, what was done, what is in them, and what they lack", ({ outbox }) =>
    Effect.gen(function* () {
      const shop = yield* outboxOf("shop")
      const gone = yield* outboxOf("gone", { failures: Infinity })
      const { sources } = yield* start([shop.source, gone.source])
      yield* add(outbox, "own")
      yield* add(shop.store, "1")
      yield* add(shop.store, "2")
      yield* shop.store.add({ id: "3", topic: "a", payload: 1 }, { notBefore: 1_000_000 })
      yield* TestClock.adjust(250)
      const measured = yield* sources.measure
      expect(measured).toMatchObject([
        {
          name: "hub",
          at: "memory:",
          problem: undefined,
          lacks: [],
          drainer: { sent: 1 },
          stats: { counts: { Pending: 0, Sent: 1 } }
        },
        {
          name: "shop",
          at: "memory:shop",
          problem: undefined,
          lacks: ["shop has no legs"],
          drainer: { sent: 2, failed: 0, lost: 0 },
          stats: { counts: { Pending: 1, Sent: 2 }, oldestAddedAt: 0, paused: false }
        },
        { name: "gone", problem: "no way: attempt 1", lacks: [], drainer: undefined, stats: undefined }
      ])
      const workers = measured.map(({ drainer }) => drainer?.worker)
      expect(new Set(workers).size).toBe(3)
    }))

  test("does not wait for a store that never answers, nor for one that answers with an error", (trouble) =>
    Effect.gen(function* () {
      const silent = yield* outboxOf("silent")
      silent.replace({ stats: Effect.never })
      const { sources } = yield* start([silent.source])
      trouble.next("OutboxStore.stats", "fail")
      const asked = yield* Effect.forkChild(sources.measure, { startImmediately: true })
      yield* TestClock.adjust("1500 millis")
      expect(yield* Fiber.join(asked)).toMatchObject([
        { name: "hub", problem: expect.stringContaining("OutboxStore.stats"), stats: undefined },
        { name: "silent", problem: "its store does not answer in time", stats: undefined }
      ])
    }))

  test("is the drainer's problem while its store fails, and nothing when it works again", () =>
    Effect.gen(function* () {
      const shop = yield* outboxOf("shop")
      const { sources } = yield* start([shop.source])
      const trouble = yield* Trouble
      trouble.setOutage("EventStore.append")
      yield* add(shop.store, "1")
      yield* TestClock.adjust(250)
      expect(problemsOf(yield* sources.list)["shop"]).toContain("not available")
      trouble.setOutage(undefined)
      yield* TestClock.adjust("10 seconds")
      expect(problemsOf(yield* sources.list)).toEqual({ hub: undefined, shop: undefined })
      expect(yield* log).toEqual(["1"])
    }))
})

describe("a source that is lost", () => {
  test("is closed, and opened anew", () =>
    Effect.gen(function* () {
      const shop = yield* outboxOf("shop")
      const { sources } = yield* start([shop.source])
      shop.lose("the disk fell out")
      yield* TestClock.adjust(0)
      expect(problemsOf(yield* sources.list)["shop"]).toBe("the disk fell out")
      expect(shop.happened).toEqual(["opened", "closed"])
      yield* add(shop.store, "1")
      yield* TestClock.adjust(500)
      expect(problemsOf(yield* sources.list)["shop"]).toBeUndefined()
      expect(shop.happened).toEqual(["opened", "closed", "opened", "sent 1"])
    }))
})

describe("the end", () => {
  test("comes when every batch is finished, side by side, and each store is closed behind its own", (trouble) =>
    Effect.gen(function* () {
      const shops = [yield* outboxOf("a"), yield* outboxOf("b")]
      // An append takes a second: the batches are claimed by then, and not settled.
      trouble.setPace((operation) => (operation === "EventStore.append" ? [1_000, 0] : [0, 0]))
      for (const [i, shop] of shops.entries()) yield* add(shop.store, `${i}`)
      const { stop } = yield* start(shops.map(({ source }) => source))
      const stopping = yield* Effect.forkChild(stop, { startImmediately: true })
      yield* TestClock.adjust(999)
      for (const shop of shops) expect(shop.happened).toEqual(["opened"])
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopping)
      for (const [i, shop] of shops.entries())
        expect(shop.happened).toEqual(["opened", `sent ${i}`, "closed"])
      expect((yield* log).toSorted()).toEqual(["0", "1"])
    }))

  test("does not wait for a source that is being opened", () =>
    Effect.gen(function* () {
      let isClosed = false
      const stuck: DrainedSources.Source = {
        name: "stuck",
        at: "far away",
        open: () =>
          Layer.effect(
            OutboxStore,
            Effect.gen(function* () {
              yield* Effect.addFinalizer(() => Effect.sync(() => void (isClosed = true)))
              return yield* Effect.never
            })
          )
      }
      const { sources, stop } = yield* start([stuck])
      expect(problemsOf(yield* sources.list)["stuck"]).toMatch(/first time/)
      yield* stop
      expect(isClosed).toBe(true)
    }))
})
