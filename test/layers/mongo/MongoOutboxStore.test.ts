import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import type { CommandStartedEvent } from "mongodb"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { MongoDatabase } from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoOutboxStore from "../../../src/layers/mongo/MongoOutboxStore.ts"
import { type OutboxClaim, OutboxStore } from "../../../src/services/OutboxStore.ts"
import { outboxStoreSuite } from "../../../src/testing/outboxStore.ts"
import { database, describeMongo } from "../../support/mongo.ts"

type Store = OutboxStore["Service"]

const sleep = (millis: number) =>
  Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, millis)))

/** A store of its own over the database, as another hub has one. */
const another = (options?: MongoOutboxStore.Options) =>
  Effect.map(Layer.build(Layer.fresh(MongoOutboxStore.layer(undefined, options))), (context) =>
    Effect.runSync(Effect.provide(OutboxStore, context))
  )

const add = (store: Store, id: string, key?: string) =>
  store.add({ topic: "orders.created", id, payload: { id }, ...(key === undefined ? {} : { key }) })

const claim = (store: Store, more: { limit?: number; leaseMs?: number; worker?: string } = {}) =>
  store.claimBatch({ limit: 100, leaseMs: 5_000, worker: "w1", ...more })

const idsOf = (claims: ReadonlyArray<OutboxClaim>) => claims.map((one) => one.event.id)

/** The commands on the outbox while an effect runs. */
const commandsOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { client } = yield* MongoDatabase
    const seen: Array<CommandStartedEvent> = []
    const note = (event: CommandStartedEvent): void => {
      if (event.command[event.commandName] === "outbox") seen.push(event)
    }
    client.on("commandStarted", note)
    const result = yield* effect
    client.off("commandStarted", note)
    return { result, commands: seen.map((event) => event.commandName) }
  })

describeMongo("mongo", (url) => {
  outboxStoreSuite(
    "mongo",
    MongoOutboxStore.layer().pipe(Layer.provide([database(url), RandomIds.layer]), Layer.orDie),
    { advance: sleep, now: Effect.sync(Date.now) }
  )

  const test = (title: string, run: Effect.Effect<void, unknown, MongoDatabase | OutboxStore>) =>
    it.live(title, () =>
      run.pipe(
        Effect.provide(
          Layer.provideMerge(
            MongoOutboxStore.layer(),
            database(url, { client: { monitorCommands: true } })
          ).pipe(Layer.provide(RandomIds.layer))
        )
      )
    )

  const outboxOf = Effect.map(MongoDatabase, ({ db }) => db.collection<{ readonly _id: string }>("outbox"))

  describe("add", () => {
    test(
      "twice changes nothing of the first, whatever became of it",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const outbox = yield* outboxOf
        const all = () => Effect.promise(() => outbox.find().toArray())
        yield* add(store, "1", "k")
        const pending = yield* all()
        yield* store.add({ topic: "orders.created", id: "1", key: "other", payload: "other" })
        expect(yield* all()).toEqual(pending)
        yield* store.markSent(yield* claim(store))
        const sent = yield* all()
        yield* store.add({ topic: "orders.created", id: "1", payload: 2 }, { notBefore: Date.now() + 60_000 })
        expect(yield* all()).toEqual(sent)
      })
    )

    test(
      "of one event by many at once is one record, and no error",
      Effect.gen(function* () {
        const stores = yield* Effect.all([another(), another(), another(), another()])
        yield* Effect.forEach(
          Array.from({ length: 40 }, (_, i) => i),
          (i) => add(stores[i % 4]!, `${i % 5}`),
          { concurrency: "unbounded" }
        )
        expect(idsOf(yield* claim(stores[0]!)).toSorted()).toEqual(["0", "1", "2", "3", "4"])
      }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
    )

    test(
      "keeps what looks like an expression",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const event = {
          topic: "a",
          id: "$$NOW",
          key: "$a.b",
          type: "$type",
          headers: { "$h.x": "$y" },
          ts: 1,
          payload: { "$set.a": { $literal: "$$ROOT" }, "a.b": ["$x", "$$REMOVE"] }
        }
        yield* store.add(event)
        yield* store.add({ topic: "a", id: "$b", key: "$a.b", payload: "$x" })
        const [first, second] = yield* claim(store)
        expect(JSON.parse(first!.event.body)).toEqual(event)
        expect(first!.event).toMatchObject({ id: "$$NOW", key: "$a.b" })
        yield* store.fail([{ claim: first!, error: "$lastError: $$ROOT", retryInMs: undefined }])
        yield* store.fail([{ claim: second!, error: "$x", retryInMs: 0 }])
        expect((yield* store.list({ limit: 1, state: "Dead" })).items[0]).toMatchObject({
          id: "$$NOW",
          lastError: "$lastError: $$ROOT"
        })
        expect(idsOf(yield* claim(store, { worker: "$worker" }))).toEqual(["$b"])
      })
    )
  })

  describe("round trips", () => {
    test(
      "a claim of 100 takes at most 4, also when records have become due, and marking them 1",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        for (let i = 0; i < 450; i++) yield* add(store, `${i}`)
        for (let i = 0; i < 4; i++) {
          const { commands, result } = yield* commandsOf(claim(store))
          expect(result.length).toBe(100)
          expect(commands.length).toBeLessThanOrEqual(4)
          const marked = yield* commandsOf(store.markSent(result))
          expect(marked.result.marked).toBe(100)
          expect(marked.commands).toEqual(["update"])
          yield* sleep(260)
        }
      })
    )

    test(
      "with keys likewise",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        for (let i = 0; i < 220; i++) yield* add(store, `${i}`, `k${i % 30}`)
        const first = yield* commandsOf(claim(store))
        expect(first.result.length).toBe(100)
        expect(first.commands).toEqual(["update", "find", "update", "aggregate"])
        const marked = yield* commandsOf(store.markSent(first.result))
        expect(marked.commands).toEqual(["update"])
      })
    )

    test(
      "marking takes 3 when others were blocked behind one of the records",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const other = yield* another()
        for (let i = 0; i < 20; i++) yield* add(store, `${i}`, `k${i % 10}`)
        const first = yield* claim(store, { limit: 10 })
        expect(yield* claim(other, { worker: "w2" })).toEqual([])
        const marked = yield* commandsOf(store.markSent(first))
        expect(marked.result).toEqual({ marked: 10, lost: [] })
        expect(marked.commands).toEqual(["update", "find", "update", "update"])
        expect((yield* claim(store, { worker: "w2" })).length).toBe(10)
      }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
    )

    test(
      "a claim that gives records back takes at most 5, and one look that nobody waits for",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const other = yield* another()
        const outbox = yield* outboxOf
        for (let i = 0; i < 150; i++) yield* add(store, `${i}`, `k${i % 10}`)
        const held = yield* claim(other, { limit: 10, worker: "w2" })
        yield* Effect.promise(() => outbox.updateOne({ id: "55" }, { $unset: { key: 1, inLine: 1 } }))
        yield* sleep(260)
        const { commands, result } = yield* commandsOf(claim(store).pipe(Effect.tap(() => sleep(50))))
        expect(idsOf(result)).toEqual(["55"])
        expect(commands).toEqual(["update", "find", "update", "aggregate", "update", "find"])
        yield* other.markSent(held)
        expect(idsOf(yield* claim(store, { limit: 10 }))).toEqual(
          Array.from({ length: 10 }, (_, i) => `${10 + i}`)
        )
      }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
    )

    test(
      "a claim of nothing takes 2, and taking back leases that have not ended takes 1",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const { commands } = yield* commandsOf(claim(store))
        expect(commands).toEqual(["update", "find"])
        const requeued = yield* commandsOf(store.requeueExpired({ maxAttempts: 3 }))
        expect(requeued.commands).toEqual(["find"])
      })
    )
  })

  describe("a worker with claims under way", () => {
    const claimMore = (store: Store, limit = 10) =>
      store.claimBatch({ limit, leaseMs: 10_000, worker: "w1", whileHolding: true })

    test(
      "passes over the lines that it holds, which costs nothing and blocks nothing",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        for (let i = 0; i < 30; i++) yield* add(store, `${i}`, `k${i % 15}`)
        yield* add(store, "alone")
        const first = yield* claim(store, { limit: 10 })
        expect(idsOf(first)).toEqual(Array.from({ length: 10 }, (_, i) => `${i}`))
        const second = yield* commandsOf(claimMore(store))
        expect(idsOf(second.result)).toEqual(["10", "11", "12", "13", "14", "25", "26", "27", "28", "29"])
        expect(second.commands).not.toContain("bulkWrite")
        expect(idsOf(yield* claimMore(store))).toEqual(["alone"])
        expect((yield* store.stats).counts).toMatchObject({ Blocked: 0, Pending: 10 })
        yield* store.markSent(first)
        expect(idsOf(yield* claimMore(store))).toEqual(Array.from({ length: 10 }, (_, i) => `${15 + i}`))
      })
    )

    test(
      "takes a line again when its last record there is settled, whatever way",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        for (const id of ["1", "2", "3", "4"]) yield* add(store, id, "k")
        const [one, two] = yield* claim(store, { limit: 2 })
        expect(yield* claimMore(store)).toEqual([])
        yield* store.markSent([one!])
        expect(yield* claimMore(store)).toEqual([])
        yield* store.release([two!])
        expect(idsOf(yield* claimMore(store))).toEqual(["2", "3", "4"])
      })
    )

    test(
      "does not keep a line whose lease has ended",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        yield* add(store, "1", "k")
        yield* claim(store, { leaseMs: 100 })
        yield* add(store, "2", "k")
        yield* sleep(1_200)
        yield* store.requeueExpired({ maxAttempts: 3 })
        expect(idsOf(yield* claimMore(store))).toEqual(["1", "2"])
      })
    )
  })

  describe("several hubs", () => {
    test(
      "keep the order of a key, whatever they take at once and whatever fails",
      Effect.gen(function* () {
        const stores = yield* Effect.all(Array.from({ length: 8 }, () => another()))
        const total = 120
        for (let i = 0; i < total; i++) yield* add(stores[i % 8]!, `${i}`, "k")
        const done: Array<string> = []
        let round = 0
        const drainer = (store: Store, n: number) =>
          Effect.gen(function* () {
            while (done.length < total) {
              const claims = yield* claim(store, { limit: 1 + ((round++ + n) % 7), worker: `w${n}` })
              for (let i = 0; i < claims.length; i++) {
                const one = claims[i]!
                const fate = Math.random()
                if (fate < 0.15) {
                  // The rest of a key's run stops at its first failure.
                  yield* store.fail([{ claim: one, error: "no luck", retryInMs: fate < 0.08 ? 0 : 5 }])
                  yield* store.release(claims.slice(i + 1))
                  break
                }
                done.push(one.event.id)
                yield* store.markSent([one])
              }
              if (claims.length === 0) yield* sleep(2)
            }
          })
        yield* Effect.all(
          stores.map((store, n) => drainer(store, n)),
          { concurrency: "unbounded" }
        )
        expect(done).toEqual(Array.from({ length: total }, (_, i) => `${i}`))
      }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
    )

    test(
      "share a backlog, and each record goes to one",
      Effect.gen(function* () {
        const stores = yield* Effect.all([another(), another(), another()])
        for (let i = 0; i < 600; i++) yield* add(stores[0]!, `${i}`)
        const seen: Array<string> = []
        const drainer = (store: Store): Effect.Effect<void, unknown> =>
          Effect.gen(function* () {
            while (seen.length < 600) {
              const claims = yield* claim(store, { limit: 20 })
              seen.push(...idsOf(claims))
              yield* store.markSent(claims)
            }
          })
        yield* Effect.all(stores.map(drainer), { concurrency: "unbounded" })
        expect(new Set(seen).size).toBe(seen.length)
        expect((yield* stores[0]!.stats).counts.Sent).toBe(600)
      }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
    )

    test(
      "stop when one of them says so",
      Effect.gen(function* () {
        const [one, two] = yield* Effect.all([another(), another()])
        for (let i = 0; i < 500; i++) yield* add(one, `${i}`)
        expect((yield* claim(two, { limit: 1 })).length).toBe(1)
        yield* one.setPaused(true)
        expect(yield* claim(two)).toEqual([])
        expect((yield* two.list({ limit: 1 })).items.map(({ id }) => id)).toEqual(["0"])
        yield* one.setPaused(false)
        expect((yield* claim(two)).length).toBe(100)
      }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
    )

    test(
      "hear of what others add",
      Effect.gen(function* () {
        const [one, two] = yield* Effect.all([another(), another()])
        const heard = yield* Effect.forkScoped(Stream.runHead(two.changes))
        yield* add(one, "1")
        expect((yield* Fiber.join(heard))._tag).toBe("Some")
      }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
    )
  })

  test(
    "a line with thousands behind a failing head leaves the ready records, and comes back in parts",
    Effect.gen(function* () {
      const store = yield* OutboxStore
      const outbox = yield* outboxOf
      yield* add(store, "head", "k")
      const [head] = yield* claim(store)
      yield* add(store, "template", "k")
      const total = 1_500
      yield* Effect.promise(async () => {
        const template = await outbox.findOne({ id: "template" })
        await outbox.deleteOne({ id: "template" })
        await outbox.insertMany(
          Array.from({ length: total }, (_, i) => {
            const place = `${template!._id}-${String(i).padStart(6, "0")}`
            return { ...template, _id: place, order: place, id: `${i}` }
          })
        )
      })
      yield* add(store, "other", "x")
      // However many are in its way, what is behind them is found.
      expect(idsOf(yield* claim(store))).toEqual(["other"])
      expect((yield* store.stats).counts).toMatchObject({ Blocked: total, Pending: 0 })
      yield* store.markSent([head!])
      const { counts } = yield* store.stats
      expect(counts.Pending).toBeGreaterThan(0)
      expect(counts.Pending).toBeLessThan(500)
      const seen: Array<string> = []
      while (seen.length < total) {
        const claims = yield* claim(store)
        expect(claims.length).toBeGreaterThan(0)
        seen.push(...idsOf(claims))
        yield* store.markSent(claims)
      }
      expect(seen).toEqual(Array.from({ length: total }, (_, i) => `${i}`))
    })
  )

  test(
    "the server deletes what was sent, if it is told to, and its time may change",
    Effect.gen(function* () {
      const outbox = yield* outboxOf
      for (const keepSentMs of [60_000, 120_000]) {
        yield* another({ keepSentMs })
        const indexes = yield* Effect.promise(() => outbox.indexes())
        expect(indexes.filter((index) => index.expireAfterSeconds !== undefined)).toMatchObject([
          { key: { sentAt: -1 }, expireAfterSeconds: keepSentMs / 1_000 }
        ])
      }
    }).pipe(Effect.scoped, Effect.provide(RandomIds.layer))
  )
})
