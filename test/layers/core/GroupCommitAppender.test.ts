/** How events are gathered, committed and answered, with stores that work and stores that do not. */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import fc from "fast-check"
import { TestClock } from "effect/testing"
import type { EventRecord, StoredRecord } from "../../../src/domain/Event.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import { Appender, type AppendOutcome } from "../../../src/services/Appender.ts"
import { record, records } from "../../../src/testing/eventStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

type Parts = { readonly appender: Appender["Service"]; readonly trouble: Trouble["Service"] }

const layer = (settings: Partial<Settings.AppenderSettings> = {}) =>
  GroupCommitAppender.layer({ ...Settings.appender, ...settings }).pipe(
    Layer.provideMerge(TestStores.layer({ maxRecordLength: 10_000 }))
  )

const parts = Effect.gen(function* () {
  return { appender: yield* Appender, trouble: yield* Trouble }
})

const test = (
  title: string,
  run: (parts: Parts) => Effect.Effect<void, unknown, Scope.Scope>,
  settings?: Partial<Settings.AppenderSettings>
) => it.effect(title, () => Effect.flatMap(parts, run).pipe(Effect.scoped, Effect.provide(layer(settings))))

/** The ids of each batch that the store was given. */
const batches = ({ calls }: Trouble["Service"]) =>
  calls
    .filter(({ operation }) => operation === "EventStore.append")
    .map(({ args }) => (args[0] as ReadonlyArray<EventRecord>).map(({ id }) => id))

const idsIn = ({ log }: Trouble["Service"], topic: string) =>
  Effect.map(log.read({ topic, after: 0, limit: 10_000 }), (stored) => stored.map(({ id }) => id))

const summary = (outcome: AppendOutcome) =>
  outcome._tag === "Appended" ? outcome.seq : outcome._tag === "NotAppended" ? outcome.reason : outcome._tag

/** Hands events over one by one, and collects what becomes of them. */
const offerAll = (appender: Appender["Service"], all: ReadonlyArray<EventRecord>) => {
  const outcomes: Array<readonly [string, ReturnType<typeof summary>]> = []
  const taken = all.map((one) => appender.offer(one, (outcome) => outcomes.push([one.id, summary(outcome)])))
  return { outcomes, taken }
}

/** The store is busy with one event, so that what comes now has to wait. */
const busy = ({ appender, trouble }: Parts) =>
  Effect.gen(function* () {
    trouble.setPace(() => [0, 10])
    const first = yield* Effect.forkChild(appender.append([record("busy", "first")]))
    yield* TestClock.adjust(1)
    return first
  })

describe("GroupCommitAppender: batches", () => {
  test("commits what comes in one turn together, in its order", ({ appender, trouble }) =>
    Effect.gen(function* () {
      const { outcomes } = offerAll(appender, records("a", 3))
      expect(appender.queued()).toBe(3)
      yield* TestClock.adjust(0)
      expect(outcomes).toEqual([
        ["e1", 1],
        ["e2", 2],
        ["e3", 3]
      ])
      expect(batches(trouble)).toEqual([["e1", "e2", "e3"]])
      expect(appender.queued()).toBe(0)
    }))

  test("gathers what comes while a commit is under way", (parts) =>
    Effect.gen(function* () {
      const { appender, trouble } = parts
      const first = yield* busy(parts)
      const others = yield* Effect.forkChild(
        Effect.forEach(records("a", 5), (one) => appender.append([one]), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust(1)
      expect(appender.queued()).toBe(5)
      yield* TestClock.adjust(30)
      yield* Fiber.join(first)
      yield* Fiber.join(others)
      expect(batches(trouble)).toEqual([["first"], ["e1", "e2", "e3", "e4", "e5"]])
    }))

  test(
    "ends a batch at the most events",
    (parts) =>
      Effect.gen(function* () {
        yield* busy(parts)
        offerAll(parts.appender, records("a", 7))
        yield* TestClock.adjust(100)
        expect(batches(parts.trouble)).toEqual([["first"], ["e1", "e2", "e3"], ["e4", "e5", "e6"], ["e7"]])
      }),
    { maxBatchEvents: 3 }
  )

  test(
    "ends a batch at the most bytes, and takes an event that is larger alone",
    (parts) =>
      Effect.gen(function* () {
        const text = (id: string, length: number) => record("a", id, "x".repeat(length))
        yield* busy(parts)
        offerAll(parts.appender, [
          text("1", 400),
          text("2", 400),
          text("3", 400),
          text("4", 2_000),
          text("5", 1)
        ])
        yield* TestClock.adjust(100)
        expect(batches(parts.trouble)).toEqual([["first"], ["1", "2"], ["3"], ["4"], ["5"]])
      }),
    { maxBatchBytes: 1_000 }
  )

  test("answers an append of nothing without the store", ({ appender, trouble }) =>
    Effect.gen(function* () {
      expect(yield* appender.append([])).toEqual([])
      expect(batches(trouble)).toEqual([])
    }))

  test(
    "answers an append that spans batches in the order of its events",
    ({ appender }) =>
      Effect.gen(function* () {
        const mixed = [...records("a", 3), ...records("b", 3), record("a", "e2"), record("b", "e4")]
        const results = yield* appender.append(mixed)
        expect(results.map((result) => [result.topic, result.id, summary(result)])).toEqual([
          ["a", "e1", 1],
          ["a", "e2", 2],
          ["a", "e3", 3],
          ["b", "e1", 1],
          ["b", "e2", 2],
          ["b", "e3", 3],
          ["a", "e2", 2],
          ["b", "e4", 4]
        ])
        expect(results.map((result) => result._tag === "Appended" && result.duplicate)).toEqual([
          ...[false, false, false, false, false, false],
          true,
          false
        ])
      }),
    { maxBatchEvents: 3 }
  )

  it("keeps the order of every publisher in every topic, whatever the limits and the pace of the store", () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          maxBatchEvents: fc.integer({ min: 1, max: 7 }),
          maxBatchBytes: fc.integer({ min: 1, max: 400 }),
          paces: fc.array(fc.tuple(fc.nat(5), fc.nat(5)), { minLength: 1, maxLength: 10 }),
          publishers: fc.array(
            fc.array(
              fc.record({
                topic: fc.constantFrom("a", "b"),
                gap: fc.nat(4),
                count: fc.integer({ min: 1, max: 4 })
              }),
              {
                maxLength: 8
              }
            ),
            { minLength: 1, maxLength: 4 }
          )
        }),
        ({ maxBatchBytes, maxBatchEvents, paces, publishers }) =>
          Effect.gen(function* () {
            const { appender, trouble } = yield* parts
            let called = 0
            trouble.setPace(() => paces[called++ % paces.length]!)
            const announced: Array<StoredRecord> = []
            yield* appender.onCommitted((committed) => announced.push(...committed))
            const published = yield* Effect.forkChild(
              Effect.forEach(
                publishers,
                (steps, publisher) =>
                  Effect.forEach(steps, ({ count, gap, topic }, step) =>
                    Effect.sleep(gap).pipe(
                      Effect.andThen(
                        Effect.forkChild(
                          appender.append(
                            Array.from({ length: count }, (_, i) =>
                              record(topic, `${publisher}-${step}-${i}`)
                            )
                          ),
                          { startImmediately: true }
                        )
                      )
                    )
                  ).pipe(Effect.flatMap(Fiber.joinAll)),
                { concurrency: "unbounded" }
              )
            )
            yield* TestClock.adjust(5_000)
            const results = (yield* Fiber.join(published)).flat(2)
            for (const topic of ["a", "b"]) {
              const ids = yield* idsIn(trouble, topic)
              for (const [publisher, steps] of publishers.entries()) {
                const own = steps.flatMap(({ count, topic: to }, step) =>
                  to === topic ? Array.from({ length: count }, (_, i) => `${publisher}-${step}-${i}`) : []
                )
                expect(ids.filter((id) => id.startsWith(`${publisher}-`))).toEqual(own)
              }
              expect(announced.filter((one) => one.topic === topic).map(({ id }) => id)).toEqual(ids)
              for (const result of results) {
                if (result.topic === topic) expect(ids[Number(summary(result)) - 1]).toBe(result.id)
              }
            }
          }).pipe(
            Effect.scoped,
            Effect.provide(layer({ maxBatchEvents, maxBatchBytes })),
            Effect.provide(TestClock.layer()),
            Effect.runPromise
          )
      ),
      { numRuns: 60 }
    ))
})

describe("GroupCommitAppender: limits", () => {
  test(
    "answers Overloaded when the queue is full, and stores nothing of what it refused",
    (parts) =>
      Effect.gen(function* () {
        const { appender, trouble } = parts
        yield* busy(parts)
        expect(offerAll(appender, records("a", 3)).taken).toEqual([true, true, true])
        const refused = yield* Effect.flip(appender.append(records("b", 2)))
        expect(refused).toMatchObject({ _tag: "Overloaded", queued: 3 })
        expect(offerAll(appender, records("c", 2)).taken).toEqual([true, false])
        yield* TestClock.adjust(100)
        expect(yield* idsIn(trouble, "b")).toEqual([])
        expect(yield* idsIn(trouble, "c")).toEqual(["e1"])
        expect(
          (yield* appender.append(records("b", 2)).pipe(
            Effect.forkChild,
            Effect.tap(() => TestClock.adjust(20)),
            Effect.flatMap(Fiber.join)
          )).map(summary)
        ).toEqual([1, 2])
      }),
    { maxQueuedEvents: 4 }
  )
})

describe("GroupCommitAppender: stores that fail", () => {
  test("fails what is under way and all that waits, and goes on with what comes after", (parts) =>
    Effect.gen(function* () {
      const { appender, trouble } = parts
      trouble.next("EventStore.append", "fail")
      trouble.setPace(() => [10, 0])
      const early = offerAll(appender, records("a", 2))
      yield* TestClock.adjust(1)
      const waiting = offerAll(appender, [record("a", "e3"), record("b", "e1")])
      yield* TestClock.adjust(100)
      expect([...early.outcomes, ...waiting.outcomes]).toEqual([
        ["e1", "StoreUnavailable"],
        ["e2", "StoreUnavailable"],
        ["e3", "StoreUnavailable"],
        ["e1", "StoreUnavailable"]
      ])
      expect(trouble.count("EventStore.append")).toBe(1)
      const later = offerAll(appender, records("a", 2))
      yield* TestClock.adjust(100)
      expect(later.outcomes).toEqual([
        ["e1", 1],
        ["e2", 2]
      ])
    }))

  test("answers an append with the store's error, also when a part of it was stored", ({
    appender,
    trouble
  }) =>
    Effect.gen(function* () {
      trouble.next("EventStore.append", "fail after")
      const failed = yield* Effect.flip(appender.append(records("a", 2)))
      expect(failed).toMatchObject({ _tag: "StoreUnavailable", operation: "EventStore.append" })
      const again = yield* appender.append(records("a", 2))
      expect(again).toMatchObject([
        { seq: 1, duplicate: true },
        { seq: 2, duplicate: true }
      ])
    }))

  test("takes a store that dies for one that is not available", ({ appender, trouble }) =>
    Effect.gen(function* () {
      trouble.next("EventStore.append", () => Effect.die("out of order"))
      const failed = yield* Effect.flip(appender.append([record("a", "1")]))
      expect(failed._tag).toBe("StoreUnavailable")
    }))

  test("stores nothing that waits behind an event whose topic did not answer", (parts) =>
    Effect.gen(function* () {
      const { appender, trouble } = parts
      trouble.next("EventStore.append", ([batch]) =>
        Effect.succeed(
          (batch as ReadonlyArray<EventRecord>).map(({ id, topic }) =>
            topic === "a"
              ? { _tag: "NotAppended", topic, id, reason: "unavailable" }
              : { _tag: "Appended", topic, id, seq: 1, storedAt: 0, duplicate: false }
          )
        )
      )
      trouble.setPace(() => [0, 10])
      const early = offerAll(appender, [record("a", "1"), record("b", "1")])
      yield* TestClock.adjust(1)
      const waiting = offerAll(appender, [record("a", "2"), record("b", "2")])
      yield* TestClock.adjust(100)
      expect(early.outcomes).toEqual([
        ["1", "unavailable"],
        ["1", 1]
      ])
      expect(waiting.outcomes).toEqual([
        ["2", "behind_refused"],
        ["2", 1]
      ])
      expect(yield* idsIn(trouble, "a")).toEqual([])
    }))

  test("hands on what the store refuses, and stores the rest", ({ appender, trouble }) =>
    Effect.gen(function* () {
      const large = { ...record("a", "large"), body: " ".repeat(10_001) }
      const results = yield* appender.append([record("a", "1"), large, record("a", "2"), record("b", "1")])
      expect(results.map(summary)).toEqual([1, "too_large", "behind_refused", 1])
      expect(yield* idsIn(trouble, "a")).toEqual(["1"])
    }))

  test("does not call back what was handed over when its publisher is interrupted", (parts) =>
    Effect.gen(function* () {
      const { appender, trouble } = parts
      yield* busy(parts)
      const publisher = yield* Effect.forkChild(appender.append(records("a", 2)))
      yield* TestClock.adjust(1)
      yield* Fiber.interrupt(publisher)
      yield* TestClock.adjust(100)
      expect(yield* idsIn(trouble, "a")).toEqual(["e1", "e2"])
    }))
})

describe("GroupCommitAppender: listeners", () => {
  test("hear what was committed before its publishers do, in order, and no duplicates", ({ appender }) =>
    Effect.gen(function* () {
      const heard: Array<string> = []
      yield* appender.onCommitted((all) => heard.push(...all.map(({ id, seq }) => `heard ${id}:${seq}`)))
      yield* appender.append([record("a", "1"), record("a", "2")])
      const answered = offerAll(appender, [record("a", "2"), record("a", "3"), record("a", "3")])
      appender.offer(record("a", "4"), () => heard.push("answered 4"))
      yield* TestClock.adjust(0)
      expect(answered.outcomes).toEqual([
        ["2", 2],
        ["3", 3],
        ["3", 3]
      ])
      expect(heard).toEqual(["heard 1:1", "heard 2:2", "heard 3:3", "heard 4:4", "answered 4"])
    }))

  test("hear nothing of a batch that brought nothing new, nor of one that failed", ({ appender, trouble }) =>
    Effect.gen(function* () {
      yield* appender.append([record("a", "1")])
      let heard = 0
      yield* appender.onCommitted(() => heard++)
      yield* appender.append([record("a", "1")])
      trouble.next("EventStore.append", "fail")
      yield* Effect.flip(appender.append([record("a", "2")]))
      expect(heard).toBe(0)
    }))

  test("hear of events that were there already, once for each topic", ({ appender, trouble }) =>
    Effect.gen(function* () {
      const heard: Array<unknown> = []
      yield* appender.onGrown((grown) => heard.push(...grown))
      yield* trouble.log.append([...records("a", 3), record("b", "1")])
      yield* appender.append([...records("a", 3), record("b", "1"), record("c", "1")])
      expect(heard).toEqual([
        { topic: "a", head: 3 },
        { topic: "b", head: 1 }
      ])
    }))

  test("hear how far the topics of a failed append reach, when the store can be asked again", ({
    appender,
    trouble
  }) =>
    Effect.gen(function* () {
      const heard: Array<unknown> = []
      yield* appender.onGrown((grown) => heard.push(...grown))
      trouble.next("EventStore.append", "fail after", "fail")
      trouble.setOutage("EventStore.head")
      yield* Effect.flip(appender.append([...records("a", 2), record("b", "1")]))
      yield* Effect.flip(appender.append([record("c", "1")]))
      yield* TestClock.adjust("1 minute")
      expect(heard).toEqual([])
      trouble.setOutage(undefined)
      yield* TestClock.adjust("5 seconds")
      expect(heard).toEqual([
        { topic: "a", head: 2 },
        { topic: "b", head: 1 }
      ])
    }))

  test("hear of a topic that was restored, and how far one reaches of which nobody knows", ({
    appender,
    trouble
  }) =>
    Effect.gen(function* () {
      const heard: Array<unknown> = []
      yield* appender.onGrown((grown) => heard.push(...grown))
      yield* TestClock.adjust("1 second")
      const events = records("a", 3).map((item) => ({ ...item, storedAt: 5 }))
      yield* appender.restore({ topic: "a", firstSeq: 41, events })
      expect(heard).toEqual([{ topic: "a", head: 43 }])
      const exists = yield* Effect.flip(appender.restore({ topic: "a", firstSeq: 1, events }))
      expect(exists._tag).toBe("TopicExists")
      trouble.next("EventStore.restore", "fail after")
      const failed = yield* Effect.flip(
        appender.restore({ topic: "b", firstSeq: 7, events: [{ ...record("b", "1"), storedAt: 5 }] })
      )
      expect(failed._tag).toBe("StoreUnavailable")
      yield* TestClock.adjust("5 seconds")
      expect(heard.slice(1)).toEqual([{ topic: "b", head: 7 }])
    }))

  test("hear of a topic that was restored also when whoever did it does not wait for the answer", ({
    appender,
    trouble
  }) =>
    Effect.gen(function* () {
      const heard: Array<unknown> = []
      yield* appender.onGrown((grown) => heard.push(...grown))
      trouble.setPace((operation) => (operation === "EventStore.restore" ? [0, 1_000] : [0, 0]))
      const events = [{ ...record("a", "1"), storedAt: 0 }]
      const restoring = yield* Effect.forkChild(appender.restore({ topic: "a", firstSeq: 7, events }))
      yield* TestClock.adjust("500 millis")
      expect(yield* trouble.log.head("a")).toMatchObject({ head: 7 })
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(restoring))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(interrupting)
      expect(heard).toEqual([{ topic: "a", head: 7 }])
    }))

  test("hear nothing any more when their scope closes", ({ appender }) =>
    Effect.gen(function* () {
      let heard = 0
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* appender.onCommitted(() => heard++)
          yield* appender.append([record("a", "1")])
        })
      )
      yield* appender.append([record("a", "2")])
      expect(heard).toBe(1)
    }))
})

describe("GroupCommitAppender: the end", () => {
  /** An appender that a test closes by itself, over stores that live on. */
  const closable = Effect.gen(function* () {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(Layer.fresh(GroupCommitAppender.layer()), scope)
    const appender = yield* Effect.provide(Appender, context)
    const closed = yield* Deferred.make<void>()
    const close = Effect.forkChild(Deferred.into(Scope.close(scope, Exit.void), closed))
    return { appender, close, closed, trouble: yield* Trouble }
  })

  const endTest = (
    title: string,
    run: (parts: Effect.Success<typeof closable>) => Effect.Effect<void, unknown, Scope.Scope>
  ) =>
    it.effect(title, () =>
      Effect.flatMap(closable, run).pipe(Effect.scoped, Effect.provide(TestStores.layer()))
    )

  endTest(
    "stores and answers what was handed over before it closes",
    ({ appender, close, closed, trouble }) =>
      Effect.gen(function* () {
        trouble.setPace(() => [10, 10])
        const { outcomes } = offerAll(appender, records("a", 2))
        yield* TestClock.adjust(5)
        const waiting = offerAll(appender, [record("a", "e3")])
        yield* close
        yield* TestClock.adjust(5)
        expect(yield* Deferred.isDone(closed)).toBe(false)
        yield* TestClock.adjust(100)
        expect([...outcomes, ...waiting.outcomes]).toEqual([
          ["e1", 1],
          ["e2", 2],
          ["e3", 3]
        ])
        expect(yield* Deferred.isDone(closed)).toBe(true)
      })
  )

  endTest("takes nothing any more", ({ appender, close }) =>
    Effect.gen(function* () {
      yield* close
      yield* TestClock.adjust(0)
      expect(offerAll(appender, records("a", 1)).taken).toEqual([false])
      expect((yield* Effect.flip(appender.append(records("a", 1))))._tag).toBe("Overloaded")
    })
  )

  endTest(
    "does not wait for a store that hangs, and says so to all that wait",
    ({ appender, close, closed, trouble }) =>
      Effect.gen(function* () {
        trouble.next("EventStore.append", "hang")
        const under = offerAll(appender, records("a", 1))
        yield* TestClock.adjust(1)
        const waiting = offerAll(appender, records("b", 1))
        yield* close
        yield* TestClock.adjust("2 seconds")
        expect(yield* Deferred.isDone(closed)).toBe(false)
        yield* TestClock.adjust("2 seconds")
        expect(yield* Deferred.isDone(closed)).toBe(true)
        expect([...under.outcomes, ...waiting.outcomes]).toEqual([
          ["e1", "StoreUnavailable"],
          ["e1", "StoreUnavailable"]
        ])
      })
  )
})
