/** How outbox records come into the log: each once, in the order of its key, whatever fails on the way. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Layer, Random, References, Scope } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import type { EventRecord } from "../../../src/domain/Event.ts"
import type { StateName } from "../../../src/domain/Outbox.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as AppendingDrainer from "../../../src/layers/core/AppendingDrainer.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import { OutboxDrainer } from "../../../src/services/OutboxDrainer.ts"
import type { OutboxClaim, OutboxEvent } from "../../../src/services/OutboxStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

/** With a random number of a half, the first retry waits 50 ms, the second 100 ms. */
const settings: Settings.DrainerSettings = {
  ...Settings.drainer,
  batchSize: 10,
  leaseMs: 1_000,
  intervalMs: 250,
  retry: { baseMs: 100, maxMs: 10_000, maxAttempts: 3 }
}

const half = Layer.succeed(Random.Random, { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 1 })

/** A drainer with an appender of its own, as another process has it, until it is stopped. */
const start = (more: Partial<Settings.DrainerSettings> = {}) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const layer = AppendingDrainer.layer({ ...settings, ...more }).pipe(
      Layer.provide(half),
      Layer.provide(GroupCommitAppender.layer())
    )
    const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
    const stopped = yield* Deferred.make<void>()
    return {
      drainer: Context.get(context, OutboxDrainer),
      /** Begins to stop; `stopped` says when that is done. */
      stop: Effect.forkChild(Deferred.into(Scope.close(scope, Exit.void), stopped), {
        startImmediately: true
      }),
      stopped: Deferred.isDone(stopped)
    }
  })

type Run<E> = (trouble: Trouble["Service"]) => Effect.Effect<void, E, Scope.Scope | TestStores.TestStores>

const testWith =
  (options: Parameters<typeof TestStores.layer>[0]) =>
  <E>(title: string, run: Run<E>) =>
    it.effect(title, () =>
      Effect.flatMap(Trouble, run).pipe(
        Effect.scoped,
        Effect.provide(TestStores.layer(options)),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    )

const test = testWith({ maxRecordLength: 1_000 })

const add = (id: string, more: Partial<OutboxEvent> & { readonly notBefore?: number } = {}) =>
  Trouble.use(({ outbox }) => {
    const { notBefore, ...event } = more
    return outbox.add({ topic: "a", payload: 1, id, ...event }, notBefore === undefined ? {} : { notBefore })
  })

const addAll = (ids: ReadonlyArray<string>, more: Partial<OutboxEvent> = {}) =>
  Effect.forEach(ids, (id) => add(id, more), { discard: true })

const states = Effect.map(
  Trouble.use(({ outbox }) => outbox.list({ limit: 1_000 })),
  ({ items }) => Object.fromEntries(items.map(({ id, state }): [string, StateName] => [id, state]))
)

const entryOf = (id: string) =>
  Effect.map(
    Trouble.use(({ outbox }) => outbox.list({ limit: 1_000 })),
    ({ items }) => items.find((item) => item.id === id)!
  )

const log = (topic = "a") =>
  Effect.map(
    Trouble.use((trouble) => trouble.log.read({ topic, after: 0, limit: 10_000 })),
    (stored) => stored.map(({ id }) => id)
  )

/** The log takes everything but events of one topic. */
const allBut =
  (topic: string): TestStores.Fault =>
  ([batch]) =>
    Effect.gen(function* () {
      const trouble = yield* Trouble
      const records = batch as ReadonlyArray<EventRecord>
      const stored = [...(yield* trouble.log.append(records.filter((one) => one.topic !== topic)))]
      let refused = false
      return records.map((one) => {
        if (one.topic !== topic) return stored.shift()
        const reason = refused ? "behind_refused" : "unavailable"
        refused = true
        return { _tag: "NotAppended", topic, id: one.id, reason }
      })
    }) as Effect.Effect<unknown, unknown>

const settled = TestClock.adjust(10)

describe("AppendingDrainer", () => {
  test("brings what waits into the log, batch by batch until nothing is left", ({ count }) =>
    Effect.gen(function* () {
      const ids = Array.from({ length: 35 }, (_, i) => `${i}`)
      yield* addAll(ids)
      const { drainer } = yield* start()
      yield* settled
      expect(yield* log()).toEqual(ids)
      expect(new Set(Object.values(yield* states))).toEqual(new Set(["Sent"]))
      expect(count("EventStore.append")).toBe(4)
      expect(yield* drainer.status).toMatchObject({ sent: 35, failed: 0, lost: 0, problem: undefined })
    }))

  test("costs a constant number of calls for a batch", ({ calls, count }) =>
    Effect.gen(function* () {
      yield* addAll(Array.from({ length: 10 }, (_, i) => `${i}`))
      yield* start()
      yield* settled
      expect(count("OutboxStore.claimBatch")).toBe(2)
      expect(count("OutboxStore.markSent")).toBe(1)
      expect(calls.length).toBeLessThan(10)
    }))

  test("wakes when something is added, and looks by itself when nobody tells", ({ count }) =>
    Effect.gen(function* () {
      const { drainer } = yield* start()
      yield* settled
      yield* add("1")
      yield* TestClock.adjust(1)
      expect(yield* log()).toEqual(["1"])
      const looks = count("OutboxStore.claimBatch")
      yield* TestClock.adjust(248)
      expect(count("OutboxStore.claimBatch")).toBe(looks)
      yield* TestClock.adjust(2)
      expect(count("OutboxStore.claimBatch")).toBe(looks + 1)
      yield* drainer.wake
      yield* TestClock.adjust(1)
      expect(count("OutboxStore.claimBatch")).toBe(looks + 2)
    }))

  test("leaves a record alone until its time has come", () =>
    Effect.gen(function* () {
      yield* start()
      yield* add("later", { notBefore: 1_000 })
      yield* add("now")
      yield* TestClock.adjust(999)
      expect(yield* log()).toEqual(["now"])
      yield* TestClock.adjust(settings.intervalMs)
      expect(yield* log()).toEqual(["now", "later"])
    }))

  test("stands still while the outbox is paused, and goes on at once", ({ outbox }) =>
    Effect.gen(function* () {
      yield* start()
      yield* settled
      yield* outbox.setPaused(true)
      yield* addAll(["1", "2"])
      yield* TestClock.adjust("1 minute")
      expect(yield* log()).toEqual([])
      yield* outbox.setPaused(false)
      yield* TestClock.adjust(1)
      expect(yield* log()).toEqual(["1", "2"])
    }))

  test("deletes what was sent long enough ago, and nothing else", () =>
    Effect.gen(function* () {
      yield* start({ keepSentMs: 100_000 })
      yield* add("old")
      yield* add("waits", { notBefore: 86_400_000 })
      yield* TestClock.adjust(50_000)
      yield* add("new")
      yield* TestClock.adjust(1)
      expect(yield* states).toEqual({ old: "Sent", waits: "Pending", new: "Sent" })
      yield* TestClock.adjust(75_000)
      expect(yield* states).toEqual({ waits: "Pending", new: "Sent" })
    }))
})

describe("AppendingDrainer: a log that fails", () => {
  test("costs no attempt, however often it fails, and loses nothing", ({ setOutage }) =>
    Effect.gen(function* () {
      setOutage("EventStore")
      const { drainer } = yield* start()
      yield* addAll(["1", "2"], { key: "k" })
      yield* TestClock.adjust("5 minutes")
      expect(yield* log()).toEqual([])
      expect(yield* entryOf("1")).toMatchObject({ state: "Pending", attempts: 0 })
      expect((yield* drainer.status).problem).toBe("the store is not available (EventStore.append)")
      setOutage(undefined)
      yield* TestClock.adjust("10 seconds")
      expect(yield* log()).toEqual(["1", "2"])
      expect(yield* entryOf("1")).toMatchObject({ state: "Sent", attempts: 1 })
      expect((yield* drainer.status).problem).toBe(undefined)
    }))

  test("and had stored the events all the same gets them once", ({ next }) =>
    Effect.gen(function* () {
      next("EventStore.append", "fail after", "fail after")
      yield* addAll(["1", "2", "3"])
      yield* start()
      yield* TestClock.adjust("10 seconds")
      expect(yield* log()).toEqual(["1", "2", "3"])
      expect(yield* states).toEqual({ 1: "Sent", 2: "Sent", 3: "Sent" })
    }))

  test("for one topic only is tried again with back-off; its key waits, and others flow past", ({ next }) =>
    Effect.gen(function* () {
      next("EventStore.append", allBut("down"), allBut("down"))
      yield* addAll(["1", "2"], { topic: "down", key: "k" })
      yield* addAll(["3", "4"])
      const { drainer } = yield* start()
      yield* TestClock.adjust(1)
      expect(yield* log()).toEqual(["3", "4"])
      expect(yield* entryOf("1")).toMatchObject({
        state: "Pending",
        attempts: 1,
        notBefore: 50,
        lastError: "unavailable"
      })
      expect(yield* entryOf("2")).toMatchObject({ state: "Blocked", attempts: 0 })
      expect(yield* drainer.status).toMatchObject({ sent: 2, failed: 1 })
      // There is nobody else to show that the log works: this attempt does not count.
      yield* TestClock.adjust(250)
      expect(yield* entryOf("1")).toMatchObject({ state: "Pending", attempts: 1 })
      yield* TestClock.adjust(250)
      expect(yield* log("down")).toEqual(["1", "2"])
      expect(yield* states).toEqual({ 1: "Sent", 2: "Sent", 3: "Sent", 4: "Sent" })
    }))

  test("for one topic only until the last attempt leaves the record dead, and its key goes on", ({ next }) =>
    Effect.gen(function* () {
      next("EventStore.append", allBut("down"), allBut("down"), allBut("down"))
      yield* addAll(["1", "2"], { topic: "down", key: "k" })
      yield* start()
      for (let attempt = 1; attempt <= 3; attempt++) {
        yield* add(`healthy ${attempt}`, { notBefore: attempt * 1_000 })
      }
      // Each time something else is due, too, and shows that the log works.
      yield* Trouble.use(({ outbox }) => outbox.setPaused(true))
      for (let attempt = 1; attempt <= 3; attempt++) {
        yield* TestClock.adjust(1_100)
        yield* Trouble.use(({ outbox }) => outbox.setPaused(false))
        yield* TestClock.adjust(1)
        yield* Trouble.use(({ outbox }) => outbox.setPaused(true))
      }
      yield* Trouble.use(({ outbox }) => outbox.setPaused(false))
      yield* TestClock.adjust(1_000)
      expect(yield* entryOf("1")).toMatchObject({ state: "Dead", attempts: 3, lastError: "unavailable" })
      expect(yield* log("down")).toEqual(["2"])
    }))

  test("for one topic only holds up no other, however many of its records stand first", ({ count, next }) =>
    Effect.gen(function* () {
      next("EventStore.append", ...Array.from({ length: 12 }, () => allBut("down")))
      const ids = Array.from({ length: 35 }, (_, i) => `${i}`)
      yield* addAll(ids, { topic: "down" })
      yield* addAll(["3", "4"])
      const { drainer } = yield* start()
      yield* TestClock.adjust(1)
      expect(yield* log()).toEqual(["3", "4"])
      expect(count("EventStore.append")).toBe(4)
      // Only the attempt of which others show that it was not the log's fault counts.
      expect(yield* drainer.status).toMatchObject({ sent: 2, failed: 1 })
      const attempts = (yield* Trouble.use(({ outbox }) => outbox.list({ limit: 35 }))).items.map(
        (item) => item.attempts
      )
      expect(attempts.reduce((sum, n) => sum + n, 0)).toBe(1)
      yield* TestClock.adjust("1 minute")
      expect((yield* log("down")).toSorted()).toEqual(ids.toSorted())
    }))

  test("for one topic only is asked for it less and less", ({ count, next }) =>
    Effect.gen(function* () {
      next("EventStore.append", ...Array.from({ length: 40 }, () => allBut("down")))
      yield* add("1", { topic: "down" })
      yield* start({ intervalMs: 10 })
      yield* TestClock.adjust("1 minute")
      expect(count("EventStore.append")).toBeLessThan(20)
      expect(yield* entryOf("1")).toMatchObject({ state: "Pending", attempts: 0 })
    }))

  test("to take records that are too large for it holds up no other, however many of them stand first", () =>
    Effect.gen(function* () {
      const large = Array.from({ length: 35 }, (_, i) => `large ${i}`)
      yield* addAll(large, { payload: "x".repeat(1_000) })
      yield* addAll(["1", "2"])
      const { drainer } = yield* start()
      yield* settled
      expect(yield* log()).toEqual(["1", "2"])
      expect(yield* drainer.status).toMatchObject({ sent: 2, failed: 35 })
      expect((yield* entryOf("large 34")).attempts).toBe(1)
    }))

  test("to take a record that is too large for it, and what stands behind it, keeps the rest in order", ({
    next
  }) =>
    Effect.gen(function* () {
      yield* add("large", { key: "k", payload: "x".repeat(1_000) })
      yield* addAll(["2", "3", "4"], { key: "k" })
      // The second of the appends that follow the refusal fails.
      const pass: TestStores.Fault = (_args, run) => run
      next("EventStore.append", pass, pass, "fail")
      yield* start()
      yield* TestClock.adjust("10 seconds")
      expect(yield* log()).toEqual(["2", "3", "4"])
      expect(yield* states).toEqual({ large: "Dead", 2: "Sent", 3: "Sent", 4: "Sent" })
      expect(yield* entryOf("4")).toMatchObject({ attempts: 1 })
    }))

  test("to take a record that is too large for it leaves it dead at once; what stood behind it goes on", () =>
    Effect.gen(function* () {
      yield* add("large", { key: "k", payload: "x".repeat(1_000) })
      yield* addAll(["2", "3"], { key: "k" })
      const { drainer } = yield* start()
      yield* settled
      expect(yield* states).toEqual({ large: "Dead", 2: "Sent", 3: "Sent" })
      expect(yield* entryOf("large")).toMatchObject({ attempts: 1, lastError: "too_large" })
      expect(yield* log()).toEqual(["2", "3"])
      expect(yield* drainer.status).toMatchObject({ sent: 2, failed: 1 })
    }))
})

describe("AppendingDrainer: an outbox that fails", () => {
  test("what is no event is dead at once, whoever wrote it there, and its key goes on", ({ next }) =>
    Effect.gen(function* () {
      yield* addAll(["1", "2", "3"], { key: "k" })
      const spoil = (claims: ReadonlyArray<OutboxClaim>) =>
        claims.map((claim) =>
          claim.event.id === "2" ? { ...claim, event: { ...claim.event, body: '{"id":"2",' } } : claim
        )
      next("OutboxStore.claimBatch", (_, run) =>
        Effect.map(run, (claims) => spoil(claims as ReadonlyArray<OutboxClaim>))
      )
      const { drainer } = yield* start()
      yield* TestClock.adjust(0)
      expect(yield* log()).toEqual(["1", "3"])
      expect(yield* states).toEqual({ "1": "Sent", "2": "Dead", "3": "Sent" })
      expect(yield* entryOf("2")).toMatchObject({
        lastError: "this record holds no event: its text is no JSON object"
      })
      expect(yield* drainer.status).toMatchObject({ sent: 2, failed: 1, problem: undefined })
    }))

  test("to say that records are sent is told again, and the log has each of them once", ({ next }) =>
    Effect.gen(function* () {
      next("OutboxStore.markSent", "fail", "fail after", "fail")
      yield* addAll(["1", "2"])
      yield* start()
      yield* TestClock.adjust(900)
      expect(yield* log()).toEqual(["1", "2"])
      expect(yield* states).toEqual({ 1: "Sent", 2: "Sent" })
      expect(yield* entryOf("1")).toMatchObject({ attempts: 1 })
    }))

  test("is waited for, and its claims are settled when it is back", ({ setOutage }) =>
    Effect.gen(function* () {
      const { drainer } = yield* start()
      yield* settled
      setOutage("OutboxStore")
      yield* add("1")
      yield* TestClock.adjust("1 minute")
      expect((yield* drainer.status).problem).toMatch(/OutboxStore/)
      setOutage("OutboxStore.markSent")
      yield* TestClock.adjust("6 seconds")
      expect(yield* log()).toEqual(["1"])
      expect(yield* states).toEqual({ 1: "Claimed" })
      setOutage(undefined)
      yield* TestClock.adjust("6 seconds")
      expect(yield* entryOf("1")).toMatchObject({ state: "Sent", attempts: 1 })
      expect((yield* drainer.status).problem).toBe(undefined)
    }))

  test("together with the log gives the attempt back when it is back", ({ next, setOutage }) =>
    Effect.gen(function* () {
      yield* add("1")
      next("EventStore.append", "fail")
      setOutage("OutboxStore.release")
      yield* start()
      yield* TestClock.adjust("20 seconds")
      expect(yield* states).toEqual({ 1: "Claimed" })
      setOutage(undefined)
      yield* TestClock.adjust("6 seconds")
      expect(yield* entryOf("1")).toMatchObject({ state: "Sent", attempts: 1 })
    }))
})

describe("AppendingDrainer: workers", () => {
  test("takes over what a lost worker had claimed, also from an outbox that never runs empty", ({
    outbox,
    setPace
  }) =>
    Effect.gen(function* () {
      yield* add("stuck")
      yield* outbox.claimBatch({ limit: 1, leaseMs: 1_000, worker: "lost" })
      yield* addAll(Array.from({ length: 100 }, (_, i) => `${i}`))
      setPace((operation) => (operation === "EventStore.append" ? [100, 0] : [0, 0]))
      yield* start({ batchSize: 1 })
      yield* TestClock.adjust("3 seconds")
      expect(yield* log()).toContain("stuck")
      expect(Object.values(yield* states)).toContain("Pending")
    }))

  test("that die leave their claims to others when the lease is over, and the attempt counts", ({ outbox }) =>
    Effect.gen(function* () {
      yield* addAll(["1", "2"], { key: "k" })
      yield* outbox.claimBatch({ limit: 1, leaseMs: settings.leaseMs, worker: "dead" })
      yield* start()
      yield* TestClock.adjust(settings.leaseMs - 1)
      expect(yield* states).toEqual({ 1: "Claimed", 2: "Blocked" })
      expect(yield* log()).toEqual([])
      yield* TestClock.adjust(settings.intervalMs)
      expect(yield* log()).toEqual(["1", "2"])
      expect(yield* entryOf("1")).toMatchObject({ attempts: 2, lastError: "the lease ran out" })
    }))

  test("that die of a record leave it dead after the last attempt, and its key goes on", ({ outbox }) =>
    Effect.gen(function* () {
      yield* addAll(["bad", "good"], { key: "k" })
      for (let attempt = 1; attempt <= 3; attempt++) {
        yield* outbox.requeueExpired({ maxAttempts: 3 })
        expect(yield* outbox.claimBatch({ limit: 1, leaseMs: 100, worker: `${attempt}` })).toHaveLength(1)
        yield* TestClock.adjust(200)
      }
      yield* start()
      yield* settled
      expect(yield* states).toEqual({ bad: "Dead", good: "Sent" })
      expect(yield* log()).toEqual(["good"])
    }))

  test("that come back after their lease change nothing, and add nothing to the log", ({ setPace }) =>
    Effect.gen(function* () {
      yield* addAll(["1", "2"], { key: "k" })
      // The first takes ages to hear that its events are in the log.
      setPace((operation) => (operation === "EventStore.append" ? [0, 5_000] : [0, 0]))
      const slow = yield* start()
      yield* settled
      expect(yield* states).toEqual({ 1: "Claimed", 2: "Claimed" })
      setPace(() => [0, 0])
      const fast = yield* start()
      yield* TestClock.adjust(2_000)
      expect(yield* states).toEqual({ 1: "Sent", 2: "Sent" })
      yield* TestClock.adjust(5_000)
      expect(yield* log()).toEqual(["1", "2"])
      expect(yield* slow.drainer.status).toMatchObject({ sent: 0, lost: 2 })
      expect(yield* fast.drainer.status).toMatchObject({ sent: 2, lost: 0 })
    }))

  test("finish the batch that they have when they are told to stop, and take no other", ({ setPace }) =>
    Effect.gen(function* () {
      yield* addAll(Array.from({ length: 25 }, (_, i) => `${i}`))
      setPace((operation) => (operation === "EventStore.append" ? [100, 100] : [0, 0]))
      const { stop, stopped } = yield* start()
      yield* TestClock.adjust(250)
      yield* stop
      expect(yield* stopped).toBe(false)
      yield* TestClock.adjust(500)
      expect(yield* stopped).toBe(true)
      expect(yield* log()).toHaveLength(20)
      const counts = Object.values(yield* states)
      expect(counts.filter((state) => state === "Sent")).toHaveLength(20)
      expect(counts.filter((state) => state === "Pending")).toHaveLength(5)
    }))

  test("do not wait for ever when they are told to stop and the store hangs", ({ next }) =>
    Effect.gen(function* () {
      yield* add("1")
      next("EventStore.append", "hang")
      const { stop, stopped } = yield* start()
      yield* settled
      yield* stop
      yield* TestClock.adjust("2 seconds")
      expect(yield* stopped).toBe(false)
      yield* TestClock.adjust("5 seconds")
      expect(yield* stopped).toBe(true)
    }))

  test("stop at once when they have nothing", () =>
    Effect.gen(function* () {
      const { stop, stopped } = yield* start()
      yield* settled
      yield* stop
      yield* Effect.yieldNow
      yield* settled
      expect(yield* stopped).toBe(true)
      yield* add("1")
      yield* TestClock.adjust("1 minute")
      expect(yield* log()).toEqual([])
    }))
})

describe("AppendingDrainer: several batches at once", () => {
  const testThree = testWith({ batchesAtOnce: 3 })
  const testFour = testWith({ batchesAtOnce: 4 })
  const ids = Array.from({ length: 70 }, (_, i) => `${i}`)
  const holdings = (trouble: Trouble["Service"]) =>
    trouble.calls.flatMap(({ args, operation }) =>
      operation === "OutboxStore.claimBatch"
        ? [(args[0] as { readonly whileHolding?: boolean }).whileHolding]
        : []
    )

  testThree("claims while others are appended and marked, and no more than that many", (trouble) =>
    Effect.gen(function* () {
      yield* addAll(ids)
      // A mark takes longer than all claims.
      trouble.setPace((operation) => (operation === "OutboxStore.markSent" ? [1_000, 0] : [1, 0]))
      const { drainer } = yield* start({ leaseMs: 10_000 })
      yield* TestClock.adjust(500)
      expect(trouble.count("OutboxStore.claimBatch")).toBe(3)
      expect(holdings(trouble)).toEqual([false, true, true])
      expect((yield* log()).length).toBe(30)
      yield* TestClock.adjust(5_000)
      expect((yield* log()).toSorted()).toEqual(ids.toSorted())
      expect(yield* drainer.status).toMatchObject({ sent: 70, lost: 0, problem: undefined })
    })
  )

  testFour("asks for half as many at a time as may be under way", (trouble) =>
    Effect.gen(function* () {
      yield* addAll(ids)
      trouble.setPace((operation) =>
        operation === "OutboxStore.claimBatch"
          ? [10, 0]
          : operation === "OutboxStore.markSent"
            ? [1_000, 0]
            : [0, 0]
      )
      yield* start({ leaseMs: 10_000 })
      yield* TestClock.adjust(5)
      expect(trouble.count("OutboxStore.claimBatch")).toBe(1)
      yield* TestClock.adjust(10)
      expect(trouble.count("OutboxStore.claimBatch")).toBe(3)
      yield* TestClock.adjust(10)
      expect(trouble.count("OutboxStore.claimBatch")).toBe(4)
      yield* TestClock.adjust(500)
      expect(holdings(trouble)).toEqual([false, true, true, true])
      yield* TestClock.adjust(5_000)
      expect((yield* log()).toSorted()).toEqual(ids.toSorted())
    })
  )

  testFour("seldom looks for more beside a batch that keeps back all that is due", (trouble) =>
    Effect.gen(function* () {
      const many = Array.from({ length: 400 }, (_, i) => `${i}`)
      yield* Effect.forEach(many, (id) => add(id, { key: "k" }), { discard: true })
      trouble.setPace(() => [1, 0])
      yield* start({ leaseMs: 10_000 })
      for (let i = 0; i < 200; i++) yield* TestClock.adjust(1)
      expect(yield* log()).toEqual(many)
      const beside = holdings(trouble).filter((isBeside) => isBeside)
      expect(beside.length).toBeGreaterThan(0)
      expect(beside.length).toBeLessThan(12)
    })
  )

  testThree("has one under way while little is due", (trouble) =>
    Effect.gen(function* () {
      yield* addAll(ids.slice(0, 4))
      trouble.setPace((operation) => (operation === "OutboxStore.markSent" ? [1_000, 0] : [1, 0]))
      yield* start({ leaseMs: 10_000 })
      yield* TestClock.adjust(500)
      expect(trouble.count("OutboxStore.claimBatch")).toBe(1)
      yield* TestClock.adjust(1_000)
      expect(holdings(trouble).slice(0, 2)).toEqual([false, false])
    })
  )

  testThree("finishes all of them when it is told to stop", (trouble) =>
    Effect.gen(function* () {
      yield* addAll(ids)
      trouble.setPace((operation) => (operation === "OutboxStore.markSent" ? [1_000, 0] : [1, 0]))
      const { stop, stopped } = yield* start({ leaseMs: 10_000 })
      yield* TestClock.adjust(500)
      yield* stop
      yield* TestClock.adjust(100)
      expect(yield* stopped).toBe(false)
      yield* TestClock.adjust(1_000)
      expect(yield* stopped).toBe(true)
      const found = Object.values(yield* states)
      expect(found.filter((state) => state === "Sent").length).toBe(30)
      expect(found.filter((state) => state === "Pending").length).toBe(40)
    })
  )

  testThree("shows a defect, and goes on when it is over", (trouble) =>
    Effect.gen(function* () {
      yield* addAll(ids)
      trouble.setPace(() => [1, 0])
      const defect = () => Effect.die(new Error("a bug in the store"))
      trouble.next("OutboxStore.markSent", defect)
      trouble.next("OutboxStore.requeueExpired", defect)
      const { drainer } = yield* start({ leaseMs: 2_000 })
      yield* TestClock.adjust(50)
      expect((yield* drainer.status).problem).toBe("a bug in the store")
      for (let i = 0; i < 100; i++) yield* TestClock.adjust(100)
      expect((yield* log()).toSorted()).toEqual(ids.toSorted())
      expect(new Set(Object.values(yield* states))).toEqual(new Set(["Sent"]))
      expect((yield* drainer.status).problem).toBe(undefined)
    })
  )

  testThree("gives all of them back when the log fails, and goes on when it is back", (trouble) =>
    Effect.gen(function* () {
      yield* addAll(ids)
      trouble.setPace(() => [1, 0])
      trouble.setOutage("EventStore")
      const { drainer } = yield* start({ leaseMs: 10_000 })
      yield* TestClock.adjust(1_000)
      expect((yield* drainer.status).problem).toContain("EventStore.append")
      trouble.setOutage(undefined)
      yield* TestClock.adjust(20_000)
      expect((yield* log()).toSorted()).toEqual(ids.toSorted())
      expect((yield* entryOf("0")).attempts).toBe(1)
      expect((yield* drainer.status).problem).toBe(undefined)
    })
  )
})

describe("AppendingDrainer, whatever happens", () => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        _tag: fc.constant("Add" as const),
        topic: fc.constantFrom("a", "b"),
        keys: fc.array(fc.constantFrom("", "k", "l"), { minLength: 1, maxLength: 5 })
      })
    },
    {
      weight: 3,
      arbitrary: fc.record({
        _tag: fc.constant("Fail" as const),
        operation: fc.constantFrom(
          "EventStore.append",
          "OutboxStore.claimBatch",
          "OutboxStore.markSent",
          "OutboxStore.release",
          "OutboxStore.fail",
          "OutboxStore.requeueExpired"
        ),
        fault: fc.constantFrom<TestStores.Fault>("fail", "fail after")
      })
    },
    {
      weight: 1,
      arbitrary: fc.record({ _tag: fc.constant("Down" as const), topic: fc.constantFrom("a", "b") })
    },
    {
      weight: 2,
      arbitrary: fc.record({ _tag: fc.constant("Restart" as const), which: fc.nat(1), crash: fc.boolean() })
    },
    {
      weight: 6,
      arbitrary: fc.record({ _tag: fc.constant("Wait" as const), ms: fc.oneof(fc.nat(20), fc.nat(1_500)) })
    }
  )

  it("every record comes into the log once, and those of a key in their order", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 5, maxLength: 40 }),
        fc.array(fc.tuple(fc.nat(8), fc.nat(8)), { minLength: 1, maxLength: 10 }),
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, paces, batchSize, batchesAtOnce) =>
          Effect.gen(function* () {
            const trouble = yield* Trouble
            let called = 0
            trouble.setPace(() => paces[called++ % paces.length]!)
            const more = {
              batchSize,
              leaseMs: 200,
              intervalMs: 500,
              retry: { baseMs: 50, maxMs: 200, maxAttempts: 1_000 }
            }
            const workers = [yield* start(more), yield* start(more)]
            const added: Array<{ readonly id: string; readonly line: string }> = []

            const restart = (which: number, crash: boolean) =>
              Effect.gen(function* () {
                if (crash) trouble.setOutage("OutboxStore")
                const old = workers[which]!
                yield* old.stop
                while (!(yield* old.stopped)) yield* TestClock.adjust(100)
                trouble.setOutage(undefined)
                workers[which] = yield* start(more)
              })

            for (const one of steps) {
              switch (one._tag) {
                case "Add":
                  for (const key of one.keys) {
                    const id = `${added.length}`
                    added.push({ id, line: key === "" ? `alone ${id}` : `${one.topic} ${key}` })
                    yield* add(id, { topic: one.topic, ...(key === "" ? {} : { key }) })
                  }
                  break
                case "Fail":
                  trouble.next(one.operation, one.fault)
                  break
                case "Down":
                  trouble.next("EventStore.append", allBut(one.topic))
                  break
                case "Restart":
                  yield* restart(one.which, one.crash)
                  break
                case "Wait":
                  yield* TestClock.adjust(one.ms)
              }
            }
            trouble.setPace(() => [0, 0])
            // In steps: the clock does not wait for fibers that others have woken.
            for (let i = 0; i < 100; i++) yield* TestClock.adjust(100)
            const stored = [...(yield* log("a")), ...(yield* log("b"))]
            expect(stored.toSorted()).toEqual(added.map(({ id }) => id).toSorted())
            for (const { line } of added) {
              const ofLine = added.filter((one) => one.line === line).map(({ id }) => id)
              expect(stored.filter((id) => ofLine.includes(id))).toEqual(ofLine)
            }
            expect(Object.values(yield* states).every((state) => state === "Sent")).toBe(true)
            for (const { stop } of workers) yield* stop
            yield* TestClock.adjust("1 second")
          }).pipe(
            Effect.scoped,
            Effect.provide(TestStores.layer({ batchesAtOnce })),
            Effect.provideService(References.MinimumLogLevel, "None"),
            Effect.provide(TestClock.layer()),
            Effect.runPromise
          )
      ),
      { numRuns: 60 }
    ))
})
