/** What every DedupeStore promises, as tests: run them against your own backend. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Begun, DedupeStore, type RunToken } from "../services/DedupeStore.ts"

type Store = DedupeStore["Service"]

export interface DedupeStoreCapabilities {
  /** Lets time pass for the store: `TestClock.adjust` where it reads Effect's Clock, else a real sleep. */
  readonly advance: (millis: number) => Effect.Effect<void>
  /**
   * Stores over the same marks that share nothing else, such as connections of several processes; none: only
   * one process can have them.
   */
  readonly beside?: (n: number) => Effect.Effect<ReadonlyArray<Store>, unknown, Scope.Scope>
}

const event = { consumer: "mailer", topic: "orders.created", eventId: "1" }

/** Longer than a test takes on a server that has much to do: only what `advance` does ends it. */
const leaseMs = 60_000

const order = (n: number) => ({ ...event, eventId: String(n), leaseMs })

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

/** `layer` has a new store each time it is built, which keeps what was handled for a minute at least. */
export const dedupeStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<DedupeStore, E>,
  { advance, beside }: DedupeStoreCapabilities
): void => {
  const test = (title: string, run: (store: Store) => Effect.Effect<void, unknown, Scope.Scope>) =>
    it.effect(title, () => Effect.flatMap(DedupeStore, run).pipe(Effect.scoped, Effect.provide(layer)))

  const begin = (store: Store, more: Partial<typeof event> & { leaseMs?: number } = {}) =>
    store.begin({ ...event, leaseMs, ...more })

  const tagOf = (begun: Effect.Effect<Begun, unknown>) => Effect.map(begun, ({ _tag }) => _tag)

  const run = (store: Store, more: Parameters<typeof begin>[1] = {}): Effect.Effect<RunToken, unknown> =>
    Effect.flatMap(begin(store, more), (begun) =>
      begun._tag === "Run"
        ? Effect.succeed(begun.token)
        : Effect.fail(new Error(`there is no run: ${begun._tag}`))
    )

  const lost = { _tag: "RunLost", ...event }

  /** Of many, each event was given to exactly one. */
  const oneEach = (answers: ReadonlyArray<readonly [n: number, begun: Begun]>, n: number) => {
    const runs = answers.flatMap(([i, begun]) => (begun._tag === "Run" ? [i] : []))
    expect(runs.sort((a, b) => a - b)).toEqual(upTo(n))
    expect(answers.filter(([, begun]) => begun._tag === "Done")).toEqual([])
  }

  describe(`${name}: DedupeStore`, () => {
    test("says how long it keeps what was handled", ({ keepMs }) =>
      Effect.sync(() => expect(keepMs).toBeGreaterThanOrEqual(60_000)))

    describe("begin", () => {
      test("gives an event to one, and tells the others until when", (store) =>
        Effect.gen(function* () {
          yield* run(store)
          const first = yield* begin(store)
          yield* advance(300)
          const second = yield* begin(store)
          if (first._tag !== "InProgress" || second._tag !== "InProgress") {
            return yield* Effect.fail(new Error("another run began"))
          }
          expect(second.until).toBe(first.until)
          expect(first.leftMs).toBeLessThanOrEqual(leaseMs)
          expect(second.leftMs).toBeGreaterThanOrEqual(1)
          expect(first.leftMs - second.leftMs).toBeGreaterThanOrEqual(300)
        }))

      test("gives each event to one, however many ask at the same moment", (store) =>
        Effect.gen(function* () {
          const answers = yield* Effect.forEach(
            upTo(50).flatMap((n) => upTo(8).map(() => n)),
            (n) => Effect.map(store.begin(order(n)), (begun) => [n, begun] as const),
            { concurrency: "unbounded" }
          )
          oneEach(answers, 50)
        }))

      test("knows an event by its consumer, its topic and its id", (store) =>
        Effect.gen(function* () {
          const others = [{ consumer: "archive" }, { topic: "orders.paid" }, { eventId: "2" }]
          const token = yield* run(store)
          for (const other of others) expect(yield* tagOf(begin(store, other))).toBe("Run")
          yield* store.complete(token)
          expect(yield* tagOf(begin(store))).toBe("Done")
          for (const other of others) expect(yield* tagOf(begin(store, other))).toBe("InProgress")
        }))

      test("takes any strings for what they are", (store) =>
        Effect.gen(function* () {
          const strings = ["", "'", '"', "$set", "a.b", "%", "\\", "😀", "\u0000", "a\u0000b", "a"]
          // Every pair of them meets in every pair of places.
          const events = strings.flatMap((consumer, i) =>
            strings.map((topic, j) => ({ consumer, topic, eventId: strings[(i + j) % strings.length]! }))
          )
          const tokens = yield* Effect.forEach(events, (one) => run(store, one))
          expect(tokens).toMatchObject(events)
          expect(new Set(tokens.map((token) => token.run)).size).toBe(events.length)
          const half = tokens.filter((_, i) => i % 2 === 0)
          yield* Effect.forEach(half, store.complete)
          const tags = yield* Effect.forEach(events, (one) => tagOf(begin(store, one)))
          expect(tags).toEqual(events.map((_, i) => (i % 2 === 0 ? "Done" : "InProgress")))
        }))
    })

    describe("leases", () => {
      test("end, and the event goes to one of those who ask then", (store) =>
        Effect.gen(function* () {
          yield* run(store)
          yield* advance(leaseMs + 1)
          const answers = yield* Effect.forEach(upTo(8), () => tagOf(begin(store)), {
            concurrency: "unbounded"
          })
          expect(answers.sort()).toEqual([...Array.from({ length: 7 }, () => "InProgress"), "Run"])
        }))

      test("that ended leave a run that changes nothing once it was taken over", (store) =>
        Effect.gen(function* () {
          const stale = yield* run(store)
          yield* advance(leaseMs + 1)
          const fresh = yield* run(store)
          const before = yield* begin(store)
          expect(yield* Effect.flip(store.complete(stale))).toMatchObject(lost)
          expect(yield* Effect.flip(store.extend(stale, 60_000))).toMatchObject(lost)
          yield* store.release(stale)
          expect(yield* begin(store)).toMatchObject({
            _tag: "InProgress",
            until: before._tag === "InProgress" ? before.until : undefined
          })
          yield* store.complete(fresh)
          expect(yield* Effect.flip(store.complete(stale))).toMatchObject(lost)
          yield* store.release(stale)
          expect(yield* tagOf(begin(store))).toBe("Done")
        }))

      test("that ended, but were not taken over, still count", (store) =>
        Effect.gen(function* () {
          const token = yield* run(store)
          yield* advance(2 * leaseMs)
          yield* store.complete(token)
          expect(yield* tagOf(begin(store))).toBe("Done")
        }))

      test("are renewed from now on, and never get shorter", (store) =>
        Effect.gen(function* () {
          const token = yield* run(store)
          yield* advance(0.8 * leaseMs)
          yield* store.extend(token, leaseMs)
          yield* store.extend(token, 1)
          yield* advance(0.8 * leaseMs)
          expect(yield* tagOf(begin(store))).toBe("InProgress")
          yield* advance(0.2 * leaseMs + 1)
          // Nobody took it over: it is prolonged all the same.
          yield* store.extend(token, leaseMs)
          expect(yield* tagOf(begin(store))).toBe("InProgress")
          yield* advance(leaseMs + 1)
          expect(yield* tagOf(begin(store))).toBe("Run")
        }))

      test("may be any number of milliseconds, and longer than any clock", (store) =>
        Effect.gen(function* () {
          yield* run(store, { leaseMs: 0.5 })
          yield* advance(2)
          const token = yield* run(store, { leaseMs: 1_000.25 })
          yield* store.extend(token, 1e300)
          yield* advance(100_000)
          expect(yield* tagOf(begin(store))).toBe("InProgress")
        }))
    })

    describe("complete", () => {
      test("is for good, and may be said again", (store) =>
        Effect.gen(function* () {
          const token = yield* run(store)
          yield* store.complete(token)
          yield* advance(2 * leaseMs)
          yield* store.complete(token)
          yield* store.extend(token, leaseMs)
          yield* store.release(token)
          const tags = yield* Effect.forEach(upTo(8), () => tagOf(begin(store)), { concurrency: "unbounded" })
          expect(new Set(tags)).toEqual(new Set(["Done"]))
        }))

      test("of a run nobody knows fails", (store) =>
        Effect.gen(function* () {
          const unknown = { ...event, run: "unheard of" }
          expect(yield* Effect.flip(store.complete(unknown))).toMatchObject(lost)
          const token = yield* run(store)
          expect(yield* Effect.flip(store.complete(unknown))).toMatchObject(lost)
          expect(yield* Effect.flip(store.complete({ ...token, topic: "orders.paid" }))).toMatchObject({
            _tag: "RunLost",
            topic: "orders.paid"
          })
          expect(yield* tagOf(begin(store))).toBe("InProgress")
        }))
    })

    describe("release", () => {
      test("gives a run back at once, as if it had not begun", (store) =>
        Effect.gen(function* () {
          const first = yield* run(store)
          yield* store.release(first)
          yield* store.release(first)
          const second = yield* run(store)
          expect(second.run).not.toBe(first.run)
          expect(yield* Effect.flip(store.complete(first))).toMatchObject(lost)
          yield* store.release(first)
          expect(yield* tagOf(begin(store))).toBe("InProgress")
        }))

      test("of a run nobody knows does nothing", (store) => store.release({ ...event, run: "unheard of" }))
    })

    describe("purge", () => {
      test("forgets what was completed longer ago than that, and nothing else", (store) =>
        Effect.gen(function* () {
          yield* store.complete(yield* run(store, { eventId: "old" }))
          yield* advance(10_000)
          yield* store.complete(yield* run(store, { eventId: "young" }))
          yield* advance(1_000)
          expect(yield* store.purge({ olderThanMs: 20_000 })).toBe(0)
          expect(yield* store.purge({ olderThanMs: 5_000 })).toBe(1)
          expect(yield* tagOf(begin(store, { eventId: "young" }))).toBe("Done")
          expect(yield* tagOf(begin(store, { eventId: "old" }))).toBe("Run")
        }))

      test("never forgets a run that was not completed, however old", (store) =>
        Effect.gen(function* () {
          const running = yield* run(store, { leaseMs: 100_000 })
          const lapsed = yield* run(store, { eventId: "lapsed", leaseMs: 1_000 })
          yield* advance(50_000)
          expect(yield* store.purge({ olderThanMs: 0 })).toBe(0)
          expect(yield* tagOf(begin(store))).toBe("InProgress")
          yield* store.complete(running)
          yield* store.complete(lapsed)
          expect(yield* tagOf(begin(store, { eventId: "lapsed" }))).toBe("Done")
        }))

      test("counts from the completion", (store) =>
        Effect.gen(function* () {
          const tokens = yield* Effect.forEach(upTo(20), (n) => run(store, { eventId: `${n}` }))
          yield* advance(30_000)
          yield* Effect.forEach(tokens, store.complete)
          expect(yield* store.purge({ olderThanMs: 20_000 })).toBe(0)
          yield* advance(2_000)
          expect(yield* store.purge({ olderThanMs: 1_000 })).toBe(20)
          expect(yield* store.purge({ olderThanMs: 1_000 })).toBe(0)
        }))
    })

    if (beside !== undefined) {
      describe("several processes", () => {
        const stores = (title: string, use: (stores: ReadonlyArray<Store>) => Effect.Effect<void, unknown>) =>
          it.effect(title, () => Effect.scoped(Effect.flatMap(beside(4), use)))

        stores("give each event to one of them", (stores) =>
          Effect.gen(function* () {
            const answers = yield* Effect.forEach(
              upTo(50).flatMap((n) => stores.map((store) => [n, store] as const)),
              ([n, store]) => Effect.map(store.begin(order(n)), (begun) => [n, begun] as const),
              { concurrency: "unbounded" }
            )
            oneEach(answers, 50)
          })
        )

        stores("see what the others did", ([one, other]) =>
          Effect.gen(function* () {
            const token = yield* run(one!)
            expect(yield* tagOf(begin(other!))).toBe("InProgress")
            yield* advance(leaseMs + 1)
            const taken = yield* run(other!)
            expect(yield* Effect.flip(one!.complete(token))).toMatchObject(lost)
            yield* other!.complete(taken)
            expect(yield* tagOf(begin(one!))).toBe("Done")
            yield* advance(1_000)
            expect(yield* one!.purge({ olderThanMs: 500 })).toBe(1)
            expect(yield* tagOf(begin(other!))).toBe("Run")
          })
        )
      })
    }
  })
}
