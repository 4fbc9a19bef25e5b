/** What a run does about trouble, with transactions that fail when told to, and with real ones where there are any. */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { MongoError, MongoServerError } from "mongodb"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { MongoDatabase, MongoSession } from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoOutboxStore from "../../../src/layers/mongo/MongoOutboxStore.ts"
import * as MongoTransaction from "../../../src/layers/mongo/MongoTransaction.ts"
import { OutboxStore } from "../../../src/services/OutboxStore.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import { database, describeMongo } from "../../support/mongo.ts"
import { hasTransactions, noTransactions } from "./transactions.ts"

const labelled = (label: string, code?: number): MongoError => {
  const error = new MongoServerError({ message: label, ...(code === undefined ? {} : { code }) })
  error.addErrorLabel(label)
  return error
}

const transient = labelled("TransientTransactionError")
const unknown = labelled("UnknownTransactionCommitResult")

describeMongo("MongoTransaction", (url) => {
  const provided = <A, E>(effect: Effect.Effect<A, E, MongoDatabase | OutboxStore>) =>
    effect.pipe(
      Effect.provide(
        Layer.provideMerge(
          MongoOutboxStore.layer(),
          database(url, { client: { monitorCommands: true } })
        ).pipe(Layer.provide(RandomIds.layer))
      )
    )

  const test = (title: string, run: Effect.Effect<void, unknown, MongoDatabase | OutboxStore>) =>
    it.live(title, () => provided(run))

  const ids = Effect.flatMap(OutboxStore, (store) =>
    Effect.map(store.list({ limit: 100 }), ({ items }) => items.map(({ id }) => id))
  )

  describe("with transactions that write at once", () => {
    /** A session without a transaction, and commits that end as they are told to, one after the other. */
    const scripted = (commits: ReadonlyArray<MongoError | undefined>, options?: MongoTransaction.Options) =>
      Effect.map(MongoDatabase, ({ client }) => {
        const calls: Array<string> = []
        const left = [...commits]
        const start = Effect.sync((): MongoTransaction.Transaction => {
          const session = client.startSession()
          const call = (name: string) => async () => void calls.push(name)
          return {
            session,
            begin: () => void calls.push("begin"),
            commit: async () => {
              calls.push("commit")
              const error = left.length > 1 ? left.shift() : left[0]
              if (error !== undefined) throw error
            },
            abort: call("abort"),
            end: async () => {
              calls.push("end")
              await session.endSession()
            }
          }
        })
        return { calls, run: MongoTransaction.runWith(start, options) }
      })

    test(
      "commits once, and answers what the effect does",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const { calls, run } = yield* scripted([undefined])
        expect(yield* run(store.add({ topic: "a", id: "1", payload: 1 }))).toBe("1")
        expect(calls).toEqual(["begin", "commit", "end"])
      })
    )

    test(
      "a passing error inside begins anew, with the same ids and times",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const { calls, run } = yield* scripted([undefined])
        let attempts = 0
        const seen: Array<ReadonlyArray<string>> = []
        const result = yield* run(
          Effect.gen(function* () {
            const made = [
              yield* store.add({ topic: "a", payload: 1 }),
              yield* store.add({ topic: "a", id: "given", payload: 2 }),
              yield* store.add({ topic: "b", payload: 3 })
            ]
            seen.push(made)
            if (++attempts < 3) {
              return yield* attempts === 1
                ? Effect.fail(new StoreUnavailable({ operation: "orders", cause: transient }))
                : Effect.die(new Error("wrapped", { cause: transient }))
            }
            return made
          })
        )
        expect(seen).toEqual([result, result, result])
        expect(new Set(result).size).toBe(3)
        expect(yield* ids).toEqual(result)
        expect(calls).toEqual(["begin", "abort", "begin", "abort", "begin", "commit", "end"])
      })
    )

    test(
      "a passing error of the commit begins anew, too",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const { calls, run } = yield* scripted([transient, undefined])
        const id = yield* run(store.add({ topic: "a", payload: 1 }))
        expect(calls).toEqual(["begin", "commit", "begin", "commit", "end"])
        expect(yield* ids).toEqual([id])
      })
    )

    test(
      "gives up after its time with what was wrong",
      Effect.gen(function* () {
        const { calls, run } = yield* scripted([undefined], { retryForMs: 0 })
        const failure = new StoreUnavailable({ operation: "orders", cause: transient })
        expect(yield* Effect.flip(run(Effect.fail(failure)))).toBe(failure)
        expect(calls).toEqual(["begin", "abort", "end"])
      })
    )

    test(
      "an unknown commit is sent again, and nothing else is",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const { calls, run } = yield* scripted([unknown, unknown, undefined])
        yield* run(store.add({ topic: "a", payload: 1 }))
        expect(calls).toEqual(["begin", "commit", "commit", "commit", "end"])
      })
    )

    test(
      "a commit that stays unknown succeeded if the records are there",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const { calls, run } = yield* scripted([unknown], { retryCommitForMs: 0 })
        expect(yield* run(store.add({ topic: "a", id: "1", payload: 1 }))).toBe("1")
        expect(calls).toEqual(["begin", "commit", "end"])
      })
    )

    test(
      "else it fails with the ids of what was added, be it that others added the same",
      Effect.gen(function* () {
        const store = yield* OutboxStore
        const { db } = yield* MongoDatabase
        const { run } = yield* scripted([labelled("UnknownTransactionCommitResult", 50)])
        const failure = yield* Effect.flip(
          run(
            Effect.gen(function* () {
              yield* store.add({ topic: "a", id: "1", payload: 1 })
              yield* store.add({ topic: "b", id: "2", payload: 2 })
              yield* store.add({ topic: "b", id: "2", payload: 2 })
              yield* Effect.promise(() => db.collection("outbox").deleteMany({ id: "2" }))
            })
          )
        )
        expect(failure).toMatchObject({
          _tag: "CommitUnknown",
          events: [
            { topic: "a", id: "1" },
            { topic: "b", id: "2" }
          ]
        })
        const replaced = yield* scripted([unknown], { retryCommitForMs: 0 })
        const second = yield* Effect.flip(
          replaced.run(
            Effect.gen(function* () {
              yield* store.add({ topic: "c", id: "3", payload: 1 })
              yield* Effect.promise(() => db.collection("outbox").deleteMany({ id: "3" }))
              const { run } = yield* scripted([undefined])
              yield* run(store.add({ topic: "c", id: "3", payload: "of another" }))
            })
          )
        )
        expect(second).toMatchObject({ _tag: "CommitUnknown", events: [{ topic: "c", id: "3" }] })
      })
    )

    test(
      "a failure of the effect aborts and passes through; so does an interruption",
      Effect.gen(function* () {
        const failed = yield* scripted([undefined])
        expect(yield* Effect.flip(failed.run(Effect.fail("no stock")))).toBe("no stock")
        expect(failed.calls).toEqual(["begin", "abort", "end"])
        const interrupted = yield* scripted([undefined])
        const started = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(
          interrupted.run(Effect.andThen(Deferred.succeed(started, undefined), Effect.never))
        )
        yield* Deferred.await(started)
        yield* Fiber.interrupt(fiber)
        expect(interrupted.calls).toEqual(["begin", "abort", "end"])
        const exit = yield* Fiber.await(fiber)
        expect(Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause)).toBe(true)
      })
    )
  })

  test(
    "where there are no transactions it says at once what to do",
    Effect.gen(function* () {
      const { features } = yield* MongoDatabase
      if (features.transactions) return
      const failure = yield* Effect.flip(MongoTransaction.run(Effect.void))
      expect(failure._tag).toBe("TransactionsUnsupported")
      expect(failure.message).toContain("replica set")
    })
  )

  test(
    "what is added in a session is a part of its transaction",
    Effect.gen(function* () {
      const { client } = yield* MongoDatabase
      const store = yield* OutboxStore
      const commands: Array<Record<string, unknown>> = []
      client.on("commandStarted", ({ command }) => {
        if (command["update"] === "outbox") commands.push({ ...command })
      })
      const session = client.startSession()
      session.startTransaction()
      yield* store
        .add({ topic: "a", payload: 1 })
        .pipe(Effect.provideService(MongoSession, session), Effect.exit)
      yield* Effect.promise(() => session.abortTransaction().catch(() => {}))
      yield* Effect.promise(() => session.endSession())
      expect(commands.length).toBe(1)
      expect(commands[0]).toMatchObject({ autocommit: false, startTransaction: true })
      expect(commands[0]?.["lsid"]).toBeDefined()
      expect(commands[0]?.["txnNumber"]).toBeDefined()
    })
  )

  describe("with real transactions", () => {
    const testReal = (title: string, run: Effect.Effect<void, unknown, MongoDatabase | OutboxStore>) =>
      it(title, async ({ skip }) => {
        if (!(await hasTransactions(url))) return skip(noTransactions)
        await Effect.runPromise(provided(run))
      })

    testReal(
      "the application's write and its event are there together, or not at all",
      Effect.gen(function* () {
        const { db } = yield* MongoDatabase
        const store = yield* OutboxStore
        const orders = db.collection("orders")
        yield* Effect.promise(() => db.createCollection("orders"))
        const order = (n: number) =>
          Effect.gen(function* () {
            const session = yield* MongoSession
            yield* Effect.tryPromise(() => orders.insertOne({ n }, { session }))
            yield* store.add({ topic: "orders.created", id: `${n}`, payload: { n } })
            yield* store.add({ topic: "orders.created", id: `${n}`, payload: { n } })
          })
        yield* MongoTransaction.run(order(1))
        const failed = yield* Effect.flip(
          MongoTransaction.run(Effect.andThen(order(2), Effect.fail("no stock")))
        )
        expect(failed).toBe("no stock")
        expect(yield* ids).toEqual(["1"])
        expect(yield* Effect.promise(() => orders.countDocuments())).toBe(1)
      })
    )

    testReal(
      "those that write to the same document take turns, and each event is there once",
      Effect.gen(function* () {
        const { db } = yield* MongoDatabase
        const store = yield* OutboxStore
        const stock = db.collection<{ readonly _id: string; readonly left: number }>("stock")
        yield* Effect.promise(() => stock.insertOne({ _id: "x", left: 10 }))
        const take = Effect.gen(function* () {
          const session = yield* MongoSession
          yield* Effect.tryPromise(() => stock.updateOne({ _id: "x" }, { $inc: { left: -1 } }, { session }))
          yield* store.add({ topic: "stock.taken", payload: 1 })
        })
        yield* Effect.all(
          Array.from({ length: 10 }, () => MongoTransaction.run(take)),
          { concurrency: "unbounded" }
        )
        expect((yield* ids).length).toBe(10)
        expect((yield* Effect.promise(() => stock.findOne({ _id: "x" })))?.left).toBe(0)
      })
    )
  })
})
