/** Events that were handled, in a MongoDB: one connection, and several. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { type ClientSession, MongoClient } from "mongodb"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MongoDatabase from "../../../src/layers/mongo/MongoDatabase.ts"
import { createDedupe, type Dedupe } from "../../../src/layers/mongo/createDedupe.ts"
import * as MongoDedupeStore from "../../../src/layers/mongo/MongoDedupeStore.ts"
import { collection } from "../../../src/layers/mongo/schema.ts"
import { DedupeStore } from "../../../src/services/DedupeStore.ts"
import { dedupeStoreSuite } from "../../../src/testing/dedupeStore.ts"
import { database, describeMongo, dropDatabase, urlOfNewDatabase } from "../../support/mongo.ts"

type Database = MongoDatabase.MongoDatabase["Service"]

/** The database of the test that runs. */
let current: Database | undefined

const sleep = (millis: number) =>
  Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, millis + 1)))

/** So long a test really waits; the times of longer ones are moved, since nobody moves the server's. */
const longestSleep = 1_500

const advance = (millis: number): Effect.Effect<void> =>
  millis <= longestSleep
    ? sleep(millis)
    : Effect.promise(async () => {
        const earlier = (field: string) => ({
          $cond: [{ $eq: [{ $type: `$${field}` }, "date"] }, { $subtract: [`$${field}`, millis] }, "$$REMOVE"]
        })
        await collection(current!.db, "dedupe").updateMany({}, [
          { $set: { leaseUntil: earlier("leaseUntil"), doneAt: earlier("doneAt") } }
        ])
      })

const storeOf = (options?: MongoDedupeStore.Options) =>
  Layer.tap(MongoDedupeStore.layer(options).pipe(Layer.provide(RandomIds.layer)), () =>
    Effect.map(MongoDatabase.MongoDatabase, (database) => void (current = database))
  )

describeMongo("MongoDedupeStore", (url) => {
  const connection = (own: string) =>
    Effect.map(
      Layer.build(
        Layer.fresh(
          storeOf().pipe(Layer.provide(MongoDatabase.layer({ url: own })), Layer.provide(RandomIds.layer))
        )
      ),
      Context.get(DedupeStore)
    )

  dedupeStoreSuite("mongo", Layer.provide(storeOf(), database(url)), {
    advance,
    beside: (n) =>
      Effect.gen(function* () {
        const own = urlOfNewDatabase(url)
        yield* Effect.addFinalizer(() => Effect.promise(() => dropDatabase(own)))
        return yield* Effect.forEach(Array.from({ length: n }), () => connection(own))
      })
  })

  const event = { consumer: "c", topic: "t", eventId: "1", leaseMs: 1_000 }

  describe("MongoDedupeStore", () => {
    it.effect("each operation is one command, and names the topic", () =>
      Effect.gen(function* () {
        const store = yield* DedupeStore
        const sent: Array<string> = []
        current!.client.on("commandStarted", ({ command, commandName }) => {
          if (commandName === "hello") return
          sent.push(commandName)
          const [{ q } = { q: command["query"] }] = command["updates"] ?? command["deletes"] ?? []
          expect(q).toMatchObject({ _id: { consumer: "c", topic: "t" }, topic: "t" })
        })
        const begun = yield* store.begin(event)
        yield* store.begin(event)
        if (begun._tag !== "Run") throw new Error("there is no run")
        yield* store.extend(begun.token, 1_000)
        yield* store.complete(begun.token)
        yield* store.release(begun.token)
        expect(sent).toEqual(["findAndModify", "findAndModify", "update", "update", "delete"])
      }).pipe(Effect.provide(Layer.provide(storeOf(), database(url, { client: { monitorCommands: true } }))))
    )

    it.effect("is part of the transaction that a program is in", () =>
      Effect.gen(function* () {
        const store = yield* DedupeStore
        const { client } = current!
        const sent: Array<Record<string, unknown>> = []
        client.on("commandStarted", ({ command, commandName }) => {
          if (commandName === "findAndModify" || commandName === "update") sent.push(command)
        })
        const session = client.startSession()
        session.startTransaction()
        const token = { consumer: "c", topic: "t", eventId: "1", run: "r" }
        // A server without transactions refuses what it is sent.
        yield* Effect.exit(Effect.provideService(store.begin(event), MongoDatabase.MongoSession, session))
        yield* Effect.exit(Effect.provideService(store.complete(token), MongoDatabase.MongoSession, session))
        yield* Effect.promise(() => session.endSession().catch(() => {}))
        expect(sent.length).toBeGreaterThan(0)
        expect(sent[0]).toMatchObject({ startTransaction: true })
        for (const command of sent) {
          expect(command).toMatchObject({ lsid: session.id, autocommit: false })
          expect(command["txnNumber"]).toBeDefined()
          expect(command["writeConcern"]).toBeUndefined()
        }
      }).pipe(Effect.provide(Layer.provide(storeOf(), database(url, { client: { monitorCommands: true } }))))
    )

    it.effect("lets the server forget after `keepMs`, and says so when that changed", () =>
      Effect.gen(function* () {
        const { db } = yield* MongoDatabase.MongoDatabase
        const keep = (keepMs: number) =>
          Effect.gen(function* () {
            yield* Layer.build(Layer.fresh(storeOf({ keepMs })))
            const all = yield* Effect.promise(() => collection(db, "dedupe").indexes())
            return all.flatMap(({ expireAfterSeconds }) => expireAfterSeconds ?? [])
          })
        expect(yield* keep(60_000)).toEqual([60])
        expect(yield* keep(60_000)).toEqual([60])
        expect(yield* keep(90_500)).toEqual([91])
        expect(yield* keep(Number.MAX_SAFE_INTEGER)).toEqual([2 ** 31 - 1])
      }).pipe(Effect.scoped, Effect.provide(database(url)))
    )

    it.effect("purges any number, in commands that each take a part of it", () =>
      Effect.gen(function* () {
        const store = yield* DedupeStore
        const old = new Date(Date.now() - 3_600_000)
        yield* Effect.promise(() =>
          collection(current!.db, "dedupe").insertMany(
            Array.from({ length: 2_100 }, (_, i) => ({
              _id: { consumer: "c", topic: `t${i % 3}`, id: `${i}` },
              topic: `t${i % 3}`,
              run: "r",
              leaseUntil: old,
              doneAt: old
            }))
          )
        )
        expect(yield* store.purge({ olderThanMs: 7_200_000 })).toBe(0)
        expect(yield* store.purge({ olderThanMs: 1_800_000 })).toBe(2_100)
      }).pipe(Effect.provide(Layer.provide(storeOf(), database(url))))
    )
  })

  describe("createDedupe", () => {
    /** A handler that writes, and how the server takes it. */
    const scene = <A>(
      run: (scene: {
        readonly dedupe: Dedupe
        readonly effects: () => Promise<ReadonlyArray<unknown>>
        readonly client: MongoClient
        readonly hasTransactions: boolean
      }) => Promise<A>
    ) =>
      Effect.promise(async () => {
        const own = urlOfNewDatabase(url)
        const client = await MongoClient.connect(own)
        try {
          const db = client.db()
          const { transactions } = await MongoDatabase.featuresOf(db)
          return await run({
            dedupe: createDedupe(db),
            effects: async () =>
              (await db.collection("effects").find().toArray()).map(({ n }) => n as unknown),
            client,
            hasTransactions: transactions
          })
        } finally {
          await client.close()
          await dropDatabase(own)
        }
      })

    const order = { topic: "orders.created", id: "order-1", n: 7 }

    it.effect(
      "commits the mark and what the handler writes together; where there are no transactions it says so",
      () =>
        scene(async ({ client, dedupe, effects, hasTransactions }) => {
          let isBroken = true
          const handle = dedupe.exactlyOnce({
            consumer: "billing",
            handler: async ({ n }: typeof order, session) => {
              await client.db().collection("effects").insertOne({ n }, { session })
              if (isBroken) throw new Error("no luck")
            }
          })
          if (!hasTransactions) {
            await expect(handle(order)).rejects.toMatchObject({ _tag: "TransactionsUnsupported" })
            await expect(dedupe.prepare()).rejects.toThrow(/replica set/)
            return
          }
          await expect(handle(order)).rejects.toThrow("no luck")
          expect(await effects()).toEqual([])
          isBroken = false
          const both = await Promise.all([handle(order), handle(order)])
          expect(both.toSorted()).toEqual(["duplicate", "handled"])
          expect(await effects()).toEqual([7])
        })
    )

    it.effect("runs handlers in sessions of their own, which end whatever becomes of them", () =>
      scene(async ({ client }) => {
        const sessions: Array<ClientSession> = []
        const start = () => {
          const session = client.startSession()
          session.withTransaction = (f) => f(session)
          sessions.push(session)
          return session
        }
        /** Says that it has transactions, and runs what is to be in one without. */
        const db = {
          databaseName: client.db().databaseName,
          collection: (name: string) => client.db().collection(name),
          command: async () => ({ setName: "scripted" }),
          admin: () => ({ command: async () => ({ version: "scripted" }) }),
          client: { startSession: start }
        }
        const given: Array<ClientSession> = []
        const handle = createDedupe(db).exactlyOnce({
          consumer: "billing",
          handler: ({ n }: typeof order, session) => {
            given.push(session)
            if (n === 0) throw new Error("no luck")
          }
        })
        await expect(handle({ ...order, id: "broken", n: 0 })).rejects.toThrow("no luck")
        expect([await handle(order), await handle(order)]).toEqual(["handled", "duplicate"])
        expect(given).toEqual(sessions.slice(0, 2))
        expect(sessions.map(({ hasEnded }) => hasEnded)).toEqual([true, true, true])
      })
    )

    it.effect("gives an event back that cannot be tried, without counting an attempt", () =>
      Effect.promise(async () => {
        const client = new MongoClient("mongodb://127.0.0.1:1/x", { serverSelectionTimeoutMS: 50 })
        const dedupe = createDedupe(client.db(), { delayMs: 700 })
        const handle = dedupe.exactlyOnce({ consumer: "billing", handler: () => {} })
        await expect(handle(order)).rejects.toMatchObject({
          delayMs: 700,
          nack: { mode: "release", delayMs: 700 },
          cause: { _tag: "StoreUnavailable" }
        })
        await client.close()
      })
    )

    it("refuses to forget what the group may still deliver", () => {
      const db = new MongoClient("mongodb://127.0.0.1:1/x").db()
      expect(() => createDedupe(db, { keepMs: 1_000 })).toThrow(
        expect.objectContaining({ _tag: "DedupeTooShort" })
      )
      expect(() => createDedupe(db, { delayMs: 0 })).toThrow(expect.objectContaining({ _tag: "InvalidTime" }))
    })
  })
})
