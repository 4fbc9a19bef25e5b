/** Two hubs over one database whose own clocks are two minutes apart: they behave as one. */
import { expect, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer } from "effect"
import * as Group from "../../../src/domain/Group.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { MongoDatabase } from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoDedupeStore from "../../../src/layers/mongo/MongoDedupeStore.ts"
import * as MongoEventStore from "../../../src/layers/mongo/MongoEventStore.ts"
import * as MongoGroupStore from "../../../src/layers/mongo/MongoGroupStore.ts"
import * as MongoOutboxStore from "../../../src/layers/mongo/MongoOutboxStore.ts"
import { DedupeStore } from "../../../src/services/DedupeStore.ts"
import { type Appended, EventStore } from "../../../src/services/EventStore.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { OutboxStore } from "../../../src/services/OutboxStore.ts"
import { record } from "../../../src/testing/eventStore.ts"
import { database, describeMongo } from "../../support/mongo.ts"

const minute = 60_000

/** The machine's clock, set wrong. */
const wrongBy = (offset: number): Clock.Clock => ({
  currentTimeMillisUnsafe: () => Date.now() + offset,
  currentTimeMillis: Effect.sync(() => Date.now() + offset),
  currentTimeNanosUnsafe: () => BigInt(Date.now() + offset) * 1_000_000n,
  currentTimeNanos: Effect.sync(() => BigInt(Date.now() + offset) * 1_000_000n),
  monotonicTimeNanosUnsafe: () => process.hrtime.bigint(),
  monotonicTimeNanos: Effect.sync(() => process.hrtime.bigint()),
  sleep: (duration) => Effect.provideService(Effect.sleep(duration), Clock.Clock, wrongBy(0))
})

const stores = Layer.mergeAll(
  MongoEventStore.layer(),
  MongoGroupStore.layer(),
  MongoOutboxStore.layer(),
  MongoDedupeStore.layer()
).pipe(Layer.provide(RandomIds.layer))

/** The stores of a hub whose clock is wrong, also while it is built. */
const hub = (offset: number) =>
  Effect.map(Layer.build(Layer.fresh(stores)), (context) => ({
    events: Context.get(context, EventStore),
    groups: Context.get(context, GroupStore),
    outbox: Context.get(context, OutboxStore),
    dedupe: Context.get(context, DedupeStore),
    /** Does it by its own clock. */
    does: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.provideService(effect, Clock.Clock, wrongBy(offset))
  })).pipe(Effect.provideService(Clock.Clock, wrongBy(offset)))

describeMongo("hubs whose clocks are two minutes apart", (url) => {
  const test = (
    title: string,
    run: (
      slow: Effect.Success<ReturnType<typeof hub>>,
      fast: Effect.Success<ReturnType<typeof hub>>
    ) => Effect.Effect<void, unknown, MongoDatabase>
  ) =>
    it.live(title, () =>
      Effect.gen(function* () {
        yield* run(yield* hub(-minute), yield* hub(minute))
      }).pipe(Effect.scoped, Effect.provide(database(url)))
    )

  test("store events at the database's time, which never goes back", (slow, fast) =>
    Effect.gen(function* () {
      const { now } = yield* MongoDatabase
      const before = now()
      const times: Array<number> = []
      for (const [i, { does, events }] of [slow, fast, slow, fast, slow].entries()) {
        const [result] = yield* does(events.append([record("a", `${i}`)]))
        times.push((result as Appended).storedAt)
      }
      expect(times).toEqual(times.toSorted((a, b) => a - b))
      // The database's clock is asked, not ours: both ends are of one clock, up to what an answer takes.
      expect(Math.abs(times[0]! - before)).toBeLessThan(minute / 2)
      expect(Math.abs(times.at(-1)! - now())).toBeLessThan(minute / 2)
    }))

  test("respect each other's leases on the outbox, and find them over when they are", (slow, fast) =>
    Effect.gen(function* () {
      yield* slow.does(slow.outbox.add({ topic: "a", id: "1", payload: null }))
      const claim = (one: typeof slow, leaseMs: number) =>
        one.does(one.outbox.claimBatch({ limit: 10, leaseMs, worker: "w" }))
      expect(yield* claim(slow, minute / 2)).toHaveLength(1)
      expect(yield* fast.does(fast.outbox.requeueExpired({ maxAttempts: 3 }))).toEqual({
        requeued: 0,
        dead: 0
      })
      expect(yield* claim(fast, 1)).toHaveLength(0)

      yield* fast.does(fast.outbox.add({ topic: "a", id: "2", payload: null }))
      expect(yield* claim(fast, 1)).toHaveLength(1)
      yield* Effect.sleep(50)
      expect(yield* slow.does(slow.outbox.requeueExpired({ maxAttempts: 3 }))).toEqual({
        requeued: 1,
        dead: 0
      })
      expect((yield* claim(slow, 1)).map(({ event }) => event.id)).toEqual(["2"])
    }))

  test("mean the same by the deadlines of a group", (slow, fast) =>
    Effect.gen(function* () {
      yield* slow.does(
        slow.groups.register({
          group: "g",
          pattern: "a",
          wanted: {},
          defaults: Settings.groups,
          history: "h",
          generation: "1",
          positions: new Map()
        })
      )
      const at = { group: "g", topic: "a" }
      const times: Array<number> = []
      for (const { does, groups } of [slow, fast, slow, fast]) {
        yield* does(
          groups.modify(at, (state, now) => {
            times.push(now)
            return [
              undefined,
              { ...(state ?? Group.initial("1", 0)), floor: times.length, next: times.length + 1 }
            ]
          })
        )
      }
      expect(Math.max(...times) - Math.min(...times)).toBeLessThan(minute / 2)
    }))

  test("do not run a handler twice that the other one runs", (slow, fast) =>
    Effect.gen(function* () {
      const run = { consumer: "c", topic: "a", eventId: "1", leaseMs: minute / 2 }
      expect(yield* slow.does(slow.dedupe.begin(run))).toMatchObject({ _tag: "Run" })
      expect(yield* fast.does(fast.dedupe.begin(run))).toMatchObject({ _tag: "InProgress" })
      const short = { ...run, eventId: "2", leaseMs: 1 }
      expect(yield* fast.does(fast.dedupe.begin(short))).toMatchObject({ _tag: "Run" })
      yield* Effect.sleep(50)
      expect(yield* slow.does(slow.dedupe.begin(short))).toMatchObject({ _tag: "Run" })
    }))
})
