/** One run per lease: over deliveries at the same moment, failures, crashes, and a store that is away. */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Clock, Context, Effect, Exit, Fiber, Layer, Random, type Scope } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import * as Settings from "../../../src/domain/Settings.ts"
import { exactlyOnce, exactlyOncePromise, type OnceOptions } from "../../../src/layers/core/exactlyOnce.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as GroupDispatcher from "../../../src/layers/core/GroupDispatcher.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as StoreEventBus from "../../../src/layers/core/StoreEventBus.ts"
import * as TailFeed from "../../../src/layers/core/TailFeed.ts"
import * as MemoryDedupeStore from "../../../src/layers/memory/MemoryDedupeStore.ts"
import { DedupeStore } from "../../../src/services/DedupeStore.ts"
import { EventBus, type Handled, Release } from "../../../src/services/EventBus.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

type Store = DedupeStore["Service"]
type Operation = "begin" | "extend" | "complete" | "release"

/** The store in memory, whose operations a test makes fail, or never answer. */
interface Scene {
  readonly store: Store
  readonly faults: Map<Operation, "fail" | "hang">
  readonly calls: ReadonlyArray<Operation>
  /** The handler as a consumer would call it. */
  readonly handler: <E, R>(
    handler: (event: Handled) => Effect.Effect<unknown, E, R>,
    options?: Partial<OnceOptions>
  ) => Effect.Effect<(event: Handled) => Effect.Effect<void, unknown, R>>
}

const makeScene = Effect.gen(function* () {
  const store = yield* MemoryDedupeStore.make().pipe(Effect.provide(RandomIds.layerTest("run")))
  const faults = new Map<Operation, "fail" | "hang">()
  const calls: Array<Operation> = []
  const meet = <A, E>(operation: Operation, effect: Effect.Effect<A, E>) =>
    Effect.suspend((): Effect.Effect<A, E | StoreUnavailable> => {
      calls.push(operation)
      const fault = faults.get(operation)
      if (fault === "hang") return Effect.never
      return fault === "fail"
        ? Effect.fail(new StoreUnavailable({ operation, cause: "the test wants it" }))
        : effect
    })
  const troubled = DedupeStore.of({
    ...store,
    begin: (run) => meet("begin", store.begin(run)),
    extend: (token, leaseMs) => meet("extend", store.extend(token, leaseMs)),
    complete: (token) => meet("complete", store.complete(token)),
    release: (token) => meet("release", store.release(token))
  })
  const scene: Scene = {
    store: troubled,
    faults,
    calls,
    handler: (handler, options) =>
      exactlyOnce({ consumer: "c", leaseMs: 3_000, delayMs: 500, ...options, handler }).pipe(
        Effect.provideService(DedupeStore, troubled),
        Effect.orDie
      )
  }
  return scene
})

const test = (title: string, run: (scene: Scene) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.effect(title, () => Effect.scoped(Effect.flatMap(makeScene, run)))

const event = (id = "1"): Handled => ({ topic: "a", id, seq: 1, ts: 0, storedAt: 0, payload: id, attempt: 1 })

/** What a fiber has come to, without waiting for it. */
const stateOf = (fiber: Fiber.Fiber<unknown, unknown>) => {
  const exit = fiber.pollUnsafe()
  if (exit === undefined) return "runs"
  if (Exit.isSuccess(exit)) return "succeeded"
  const error = Cause.squash(exit.cause)
  return typeof error === "object" && error !== null && "_tag" in error ? error._tag : "failed"
}

describe("exactlyOnce", () => {
  test("runs once, however often the event is delivered", ({ handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() => Effect.sync(() => runs++))
      for (let i = 0; i < 3; i++) yield* handle(event())
      expect(runs).toBe(1)
      yield* handle(event("2"))
      yield* handle({ ...event(), topic: "b" })
      expect(runs).toBe(3)
    }))

  test("runs once for deliveries at the same moment, and gives the others back until later", ({ handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() =>
        Effect.andThen(
          Effect.sync(() => runs++),
          Effect.sleep(100)
        )
      )
      const fibers = yield* Effect.forEach(Array.from({ length: 20 }), () =>
        Effect.forkScoped(handle(event()))
      )
      yield* TestClock.adjust(50)
      expect(fibers.map(stateOf).sort()).toEqual([...Array.from({ length: 19 }, () => "Release"), "runs"])
      expect(yield* Effect.flip(handle(event()))).toMatchObject({ _tag: "Release", delayMs: 500 })
      yield* TestClock.adjust(50)
      yield* handle(event())
      expect(runs).toBe(1)
    }))

  test("asks for no more than what is left of the lease", ({ handler, store }) =>
    Effect.gen(function* () {
      const handle = yield* handler(() => Effect.void)
      yield* store.begin({ consumer: "c", topic: "a", eventId: "1", leaseMs: 3_000 })
      yield* TestClock.adjust(2_800)
      expect(yield* Effect.flip(handle(event()))).toMatchObject({ _tag: "Release", delayMs: 200 })
      yield* TestClock.adjust(200)
      yield* handle(event())
    }))

  test("is a run for each consumer", ({ handler }) =>
    Effect.gen(function* () {
      const runs: Array<string> = []
      for (const consumer of ["c", "d", "c"]) {
        yield* (yield* handler(() => Effect.sync(() => runs.push(consumer)), { consumer }))(event())
      }
      expect(runs).toEqual(["c", "d"])
    }))

  test("gives its run back at once when the handler fails or dies, and fails like it", ({ handler }) =>
    Effect.gen(function* () {
      const ends = [Effect.fail("no luck"), Effect.die(new Error("a bug")), Effect.void, Effect.fail("never")]
      let runs = 0
      const handle = yield* handler(() => ends[runs++]!)
      expect(yield* Effect.flip(handle(event()))).toBe("no luck")
      expect(Cause.squash(yield* Effect.flip(Effect.sandbox(handle(event()))))).toEqual(new Error("a bug"))
      yield* handle(event())
      yield* handle(event())
      expect(runs).toBe(3)
    }))

  test("gives its run back when it throws instead of answering an effect", ({ handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() => {
        if (++runs === 1) throw new Error("a bug")
        return Effect.void
      })
      expect(Exit.isFailure(yield* Effect.exit(handle(event())))).toBe(true)
      yield* handle(event())
      expect(runs).toBe(2)
    }))

  test("gives its run back when it is interrupted", ({ handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() => Effect.suspend(() => (++runs === 1 ? Effect.never : Effect.void)))
      const fiber = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(1)
      yield* Fiber.interrupt(fiber)
      yield* handle(event())
      expect(runs).toBe(2)
    }))

  test("keeps the run of a handler that takes many leases, and nobody else begins", ({ calls, handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() =>
        Effect.andThen(
          Effect.sync(() => runs++),
          Effect.sleep(30_000)
        )
      )
      const fiber = yield* Effect.forkScoped(handle(event()))
      for (let i = 0; i < 29; i++) {
        yield* TestClock.adjust(1_000)
        expect(yield* Effect.flip(handle(event()))).toMatchObject({ _tag: "Release" })
      }
      yield* TestClock.adjust(1_000)
      yield* Fiber.join(fiber)
      yield* handle(event())
      expect(runs).toBe(1)
      // At each third of the lease, and no more once it is done.
      expect(calls.filter((call) => call === "extend").length).toBeLessThanOrEqual(30)
      expect(calls.filter((call) => call === "extend").length).toBeGreaterThanOrEqual(29)
      const renewed = calls.length
      yield* TestClock.adjust(60_000)
      expect(calls.length).toBe(renewed)
    }))

  test("keeps its run over an outage of the store that is shorter than the lease", ({ faults, handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() =>
        Effect.andThen(
          Effect.sync(() => runs++),
          Effect.sleep(10_000)
        )
      )
      const fiber = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(1_500)
      faults.set("extend", "fail")
      yield* TestClock.adjust(2_000)
      faults.clear()
      yield* TestClock.adjust(1_000)
      expect(yield* Effect.flip(handle(event()))).toMatchObject({ _tag: "Release" })
      yield* TestClock.adjust(10_000)
      yield* Fiber.join(fiber)
      expect(runs).toBe(1)
    }))

  test("ends a run that was taken over, which is not marked as done", ({ faults, handler }) =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const handle = yield* handler((one) =>
        Effect.sync(() => log.push(`begin ${one.attempt}`)).pipe(
          Effect.andThen(Effect.sleep(10_000)),
          Effect.onInterrupt(() => Effect.sync(() => log.push(`interrupted ${one.attempt}`)))
        )
      )
      // Renewing does not get through: for the store it is as if the process stood still.
      faults.set("extend", "fail")
      const first = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(3_500)
      const second = yield* Effect.forkScoped(handle({ ...event(), attempt: 2 }))
      yield* TestClock.adjust(100)
      faults.clear()
      yield* TestClock.adjust(1_000)
      expect(stateOf(first)).toBe("RunLost")
      expect(yield* Effect.flip(Fiber.join(first))).toMatchObject({ consumer: "c", topic: "a", eventId: "1" })
      expect(stateOf(second)).toBe("runs")
      yield* TestClock.adjust(10_000)
      yield* Fiber.join(second)
      expect(log).toEqual(["begin 1", "begin 2", "interrupted 1"])
      yield* handle(event())
      expect(log).toHaveLength(3)
    }))

  test("does not mark a run that was taken over in the end", ({ faults, handler, store }) =>
    Effect.gen(function* () {
      const handle = yield* handler(() => Effect.sleep(3_200))
      faults.set("extend", "fail")
      const fiber = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(3_100)
      const key = { consumer: "c", topic: "a", eventId: "1", leaseMs: 60_000 }
      const taken = yield* store.begin(key)
      expect(taken._tag).toBe("Run")
      yield* TestClock.adjust(200)
      expect(yield* Effect.flip(Fiber.join(fiber))).toMatchObject({ _tag: "RunLost" })
      // Nor does it give back what is not its own.
      expect((yield* store.begin(key))._tag).toBe("InProgress")
    }))

  test("runs again after the lease when its process died", ({ handler, store }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() => Effect.sync(() => runs++))
      // What is left of a process that died: a run that nobody renews.
      yield* store.begin({ consumer: "c", topic: "a", eventId: "1", leaseMs: 3_000 })
      yield* Effect.flip(handle(event()))
      expect(runs).toBe(0)
      yield* TestClock.adjust(3_000)
      yield* handle(event())
      yield* handle(event())
      expect(runs).toBe(1)
    }))

  test("is not tried when the store is away, which counts no attempt", ({ faults, handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() => Effect.sync(() => runs++))
      faults.set("begin", "fail")
      const error = yield* Effect.flip(handle(event()))
      expect(error).toBeInstanceOf(Release)
      expect(error).toMatchObject({ delayMs: 500, cause: { _tag: "StoreUnavailable" } })
      expect(String(error)).toContain("the store is not available")
      expect(runs).toBe(0)
    }))

  test("marks what was done as soon as the store is back, within a lease", ({ faults, handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() => Effect.sync(() => runs++))
      faults.set("complete", "fail")
      const fiber = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(2_000)
      expect(stateOf(fiber)).toBe("runs")
      faults.clear()
      yield* TestClock.adjust(1_000)
      expect(stateOf(fiber)).toBe("succeeded")
      yield* handle(event())
      expect(runs).toBe(1)
    }))

  test("takes a store that does not answer for one that is away", ({ faults, handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() =>
        Effect.andThen(
          Effect.sync(() => runs++),
          Effect.sleep(7_000)
        )
      )
      faults.set("begin", "hang")
      const refused = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(3_000)
      expect(stateOf(refused)).toBe("Release")
      faults.clear()

      const fiber = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(500)
      faults.set("extend", "hang")
      yield* TestClock.adjust(1_000)
      faults.clear()
      yield* TestClock.adjust(3_000)
      faults.set("complete", "hang")
      expect(yield* Effect.flip(handle(event()))).toMatchObject({ _tag: "Release" })
      yield* TestClock.adjust(4_000)
      expect(stateOf(fiber)).toBe("runs")
      faults.clear()
      yield* TestClock.adjust(4_000)
      expect(stateOf(fiber)).toBe("succeeded")
      yield* handle(event())
      expect(runs).toBe(1)
    }))

  test("fails when it could not be marked for a whole lease, and then runs again", ({ faults, handler }) =>
    Effect.gen(function* () {
      let runs = 0
      const handle = yield* handler(() => Effect.sync(() => runs++))
      faults.set("complete", "fail")
      const fiber = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(5_000)
      expect(stateOf(fiber)).toBe("StoreUnavailable")
      faults.clear()
      yield* handle(event())
      expect(runs).toBe(2)
    }))

  test("does not hold up a consumer that ends: a store that never answers gets some seconds", ({
    faults,
    handler
  }) =>
    Effect.gen(function* () {
      const handle = yield* handler(() => Effect.never)
      const fiber = yield* Effect.forkScoped(handle(event()))
      yield* TestClock.adjust(1)
      faults.set("release", "hang")
      const interrupted = yield* Effect.forkScoped(Fiber.interrupt(fiber))
      yield* TestClock.adjust(2_000)
      expect(stateOf(interrupted)).toBe("runs")
      yield* TestClock.adjust(1_000)
      expect(stateOf(interrupted)).toBe("succeeded")
    }))

  test("is refused at its making when the store forgets too early, or a time is none", ({ store }) =>
    Effect.gen(function* () {
      const make = (options: Partial<OnceOptions>, keepMs = store.keepMs) =>
        exactlyOnce({ consumer: "c", handler: () => Effect.void, ...options }).pipe(
          Effect.provideService(DedupeStore, { ...store, keepMs }),
          Effect.flip
        )
      expect(yield* make({}, 1_000)).toMatchObject({
        _tag: "DedupeTooShort",
        keepMs: 1_000,
        horizonMs: 543_000
      })
      const group = { ackTimeoutMs: 86_400_000, maxAttempts: 8 }
      expect(yield* make({ group })).toMatchObject({ _tag: "DedupeTooShort", keepMs: 604_800_000 })
      expect(yield* make({ leaseMs: 0 })).toMatchObject({ _tag: "InvalidTime", setting: "leaseMs" })
      expect(yield* make({ delayMs: NaN })).toMatchObject({ _tag: "InvalidTime", setting: "delayMs" })
    }))
})

describe("exactlyOnce: whatever happens", () => {
  /** A delivery: when it comes, for how long its handler works, and how that ends. */
  const delivery = fc.record({
    at: fc.nat(6_000),
    worksMs: fc.nat(2_500),
    end: fc.constantFrom("succeeds", "fails", "crashes")
  })

  interface Run {
    readonly from: number
    to: number
    end: "succeeds" | "fails" | "crashes"
  }

  const leaseMs = 900

  it("no two runs at the same time, none after one that succeeded, and none within a lease of one that crashed", () =>
    fc.assert(
      fc.asyncProperty(fc.array(delivery, { minLength: 1, maxLength: 12 }), async (deliveries) => {
        const runs: Array<Run> = []
        await Effect.gen(function* () {
          const { handler, store } = yield* makeScene
          for (const { at, end, worksMs } of deliveries) {
            const live = yield* handler(
              () =>
                Effect.gen(function* () {
                  const run: Run = { from: yield* Clock.currentTimeMillis, to: Infinity, end }
                  runs.push(run)
                  yield* Effect.sleep(worksMs)
                  run.to = yield* Clock.currentTimeMillis
                  if (end === "fails") yield* Effect.fail("no luck")
                }),
              { leaseMs }
            )
            /** A process that dies right after its handler: nobody completes, renews or releases. */
            const crash = Effect.gen(function* () {
              const begun = yield* store.begin({ consumer: "c", topic: "a", eventId: "1", leaseMs })
              if (begun._tag !== "Run") return
              const now = yield* Clock.currentTimeMillis
              runs.push({ from: now, to: now + leaseMs, end })
            })
            yield* Effect.forkScoped(Effect.delay(end === "crashes" ? crash : Effect.exit(live(event())), at))
          }
          yield* TestClock.adjust(10_000)
          // Whatever is left is handled in the end, and just once.
          const last = yield* handler(() =>
            Effect.sync(() => runs.push({ from: 10_000, to: 10_000, end: "succeeds" }))
          )
          yield* last(event())
          yield* last(event())
        }).pipe(Effect.scoped, Effect.provide(TestClock.layer()), Effect.runPromise)
        for (const [i, { from }] of runs.entries()) {
          if (i > 0) expect(from).toBeGreaterThanOrEqual(runs[i - 1]!.to)
        }
        expect(runs.map(({ end }) => end).indexOf("succeeds")).toBe(runs.length - 1)
      }),
      { numRuns: 300 }
    ))
})

describe("exactlyOnce: with the bus", () => {
  const layer = StoreEventBus.layer().pipe(
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
    Layer.provideMerge(GroupCommitAppender.layer(Settings.appender)),
    Layer.provideMerge(TestStores.layer()),
    Layer.provideMerge(MemoryDedupeStore.layer().pipe(Layer.provide(RandomIds.layerTest("run"))))
  )

  const membership = { pattern: "a", group: "g", from: "start" } as const

  const floor = Effect.flatMap(Trouble, ({ groups }) =>
    Effect.map(groups.read({ group: "g", topic: "a" }), (state) => state?.floor)
  )

  it.effect("a delivery that is given back counts no attempt, and comes again after its time", () =>
    Effect.gen(function* () {
      const bus = yield* EventBus
      yield* bus.publish([{ topic: "a", id: "1", payload: 1 }])
      const seen: Array<readonly [at: number, attempt: number]> = []
      yield* Effect.forkScoped(
        bus.consume({ ...membership, options: { maxAttempts: 2 } }, ({ attempt }) =>
          Effect.gen(function* () {
            seen.push([yield* Clock.currentTimeMillis, attempt])
            if (seen.length < 5) yield* new Release({ delayMs: 300 })
          })
        )
      )
      yield* TestClock.adjust(2_000)
      expect(seen).toEqual([0, 300, 600, 900, 1_200].map((at) => [at, 1]))
      expect(yield* floor).toBe(1)
    }).pipe(Effect.scoped, Effect.provide(layer))
  )

  it.effect("two members that have the same event run it once: the one waits until the other is done", () =>
    Effect.gen(function* () {
      const bus = yield* EventBus
      const runs: Array<string> = []
      const asked: Array<string> = []
      const consumer = (name: string) =>
        Effect.gen(function* () {
          const handle = yield* exactlyOnce({
            consumer: "c",
            leaseMs: 600,
            delayMs: 200,
            handler: ({ attempt }) =>
              // Longer than three leases, and than two acknowledgement time-outs of the group.
              Effect.andThen(
                Effect.sync(() => runs.push(`${name}#${attempt}`)),
                Effect.sleep(2_500)
              )
          })
          yield* Effect.forkScoped(
            bus.consume({ ...membership, options: { maxAttempts: 3 } }, (event) => {
              asked.push(name)
              return handle(event)
            })
          )
        })
      yield* consumer("one")
      yield* consumer("other")
      yield* bus.publish([{ topic: "a", id: "1", payload: 1 }])
      yield* TestClock.adjust(10)
      yield* TestClock.adjust(5_000)
      expect(runs).toHaveLength(1)
      expect(asked.length).toBeGreaterThan(2)
      expect(yield* floor).toBe(1)
      expect(yield* Effect.flatMap(Trouble, ({ log }) => log.head("$dead.g.a"))).toBeUndefined()
    }).pipe(Effect.scoped, Effect.provide(layer))
  )
})

describe("exactlyOncePromise", () => {
  interface Job {
    readonly topic: string
    readonly id: string
    readonly payload: number
  }

  const job: Job = { topic: "a", id: "1", payload: 7 }

  const failure = (promise: Promise<unknown>): Promise<unknown> =>
    promise.then(
      () => {
        throw new Error("it did not fail")
      },
      (error: unknown) => error
    )

  const makeStore = (options?: MemoryDedupeStore.Options): Promise<Store> =>
    Effect.runPromise(
      Effect.scoped(
        Effect.map(
          Layer.build(MemoryDedupeStore.layer(options).pipe(Layer.provide(RandomIds.layer))),
          Context.get(DedupeStore)
        )
      )
    )

  it("answers what the handler answers, and then nothing any more", async () => {
    const seen: Array<unknown> = []
    const handle = exactlyOncePromise({
      store: await makeStore(),
      consumer: "c",
      handler: async ({ payload }: Job, context: { readonly attempt: number } | undefined) => {
        seen.push(context)
        return payload * 2
      }
    })
    expect(await handle(job, { attempt: 1 })).toBe(14)
    expect(await handle(job, { attempt: 2 })).toBeUndefined()
    expect(await handle({ ...job, id: "2" })).toBe(14)
    expect(seen).toEqual([{ attempt: 1 }, undefined])
  })

  it("refuses a delivery at the same moment so that the client gives it back", async () => {
    const { promise, resolve } = Promise.withResolvers<string>()
    const handle = exactlyOncePromise({
      store: await makeStore(),
      consumer: "c",
      leaseMs: 3_600_000,
      delayMs: 250,
      handler: (_job: Job) => promise
    })
    const first = handle(job)
    const refused = await failure(handle(job))
    expect(refused).toBeInstanceOf(Release)
    expect(refused).toMatchObject({ nack: { mode: "release", delayMs: 250 } })
    resolve("done")
    expect(await first).toBe("done")
    expect(await handle(job)).toBeUndefined()
  })

  it("is rejected with what the handler throws, and gives its run back", async () => {
    const errors: Array<unknown> = [new TypeError("a bug"), "a string", undefined]
    let runs = 0
    const handle = exactlyOncePromise({
      store: await makeStore(),
      consumer: "c",
      handler: (_job: Job) => {
        if (runs === 1) throw errors[runs++]
        return runs < errors.length ? Promise.reject(errors[runs++]) : "done"
      }
    })
    for (const error of errors) expect(await failure(handle(job))).toBe(error)
    expect(await handle(job)).toBe("done")
  })

  it("tells the handler when its run was lost, and is not marked as done", async () => {
    const store = await makeStore()
    // Renewing says that somebody else has it.
    const lost = await Effect.runPromise(
      Effect.flip(store.complete({ consumer: "c", topic: "a", eventId: "1", run: "unheard of" }))
    )
    const aborted = Promise.withResolvers<void>()
    const handle = exactlyOncePromise({
      store: { ...store, extend: () => Effect.fail(lost) },
      consumer: "c",
      leaseMs: 3,
      handler: (_job: Job, _context: undefined, signal) =>
        new Promise<void>(() => signal.addEventListener("abort", () => aborted.resolve()))
    })
    expect(await failure(handle(job))).toMatchObject({
      _tag: "RunLost",
      consumer: "c",
      topic: "a",
      eventId: "1"
    })
    await aborted.promise
  })

  it("throws at its making when the store forgets too early", async () => {
    const store = await makeStore({ keepMs: 1_000 })
    expect(() => exactlyOncePromise({ store, consumer: "c", handler: async () => {} })).toThrow(
      expect.objectContaining({ _tag: "DedupeTooShort", keepMs: 1_000, horizonMs: 543_000 })
    )
  })
})
