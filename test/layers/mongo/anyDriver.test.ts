/**
 * Applications come with a copy of the driver of their own, whose classes are others: to the type checker, for their
 * private members, and to `instanceof`.
 */
import { createRequire } from "node:module"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import type * as Driver from "mongodb"
import { Db, MongoClient, MongoServerError } from "mongodb"
import { describe, expectTypeOf, onTestFinished } from "vitest"
import { outboxIn } from "../../../src/layers/mongo/addToOutbox.ts"
import type { AnyDb, AnyDbWithSessions, AnySession } from "../../../src/layers/mongo/anyDriver.ts"
import type * as ApplicationDatabase from "../../../src/layers/mongo/ApplicationDatabase.ts"
import { createDedupe, type Dedupe } from "../../../src/layers/mongo/createDedupe.ts"
import { type AddOptions, createOutbox, type Outbox } from "../../../src/layers/mongo/createOutbox.ts"
import {
  createRelayStore,
  type RelaySource,
  type RelayStore
} from "../../../src/layers/mongo/createRelayStore.ts"
import { prepareDedupe } from "../../../src/layers/mongo/dedupeCommands.ts"
import { expireSent } from "../../../src/layers/mongo/expireSent.ts"
import { isUnavailable } from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoTransaction from "../../../src/layers/mongo/MongoTransaction.ts"
import type { DedupeDocument } from "../../../src/layers/mongo/schema.ts"
import type { EventSink } from "../../../src/layers/mongo/wireOutbox.ts"
import { describeMongo, urlOfNewDatabase } from "../../support/mongo.ts"
import { hasTransactions } from "./transactions.ts"

// --- another copy, to the type checker -------------------------------------------------------------------------

declare class OtherSession {
  private readonly id: string
  inTransaction(): boolean
  withTransaction<T = unknown>(
    f: (session: OtherSession) => Promise<T>,
    options?: { readonly readConcern?: { readonly level: string } }
  ): Promise<T>
  endSession(options?: { readonly force?: boolean }): Promise<void>
}

declare class OtherCursor {
  private readonly id: string
  sort(order: string | Readonly<Record<string, 1 | -1>>): this
  limit(count: number): this
  toArray(): Promise<Array<never>>
}

interface OtherOptions {
  readonly session?: OtherSession
}

declare class OtherCollection {
  private readonly name: string
  get collectionName(): string
  updateOne(filter: object, update: object, options?: OtherOptions): Promise<{ upsertedCount: number }>
  findOne(filter: object, options?: OtherOptions): Promise<{ _id: string } | null>
  find(filter: object, options?: OtherOptions): OtherCursor
  deleteMany(filter: object, options?: OtherOptions): Promise<{ deletedCount: number }>
  createIndex(key: object, options?: object): Promise<string>
  indexes(): Promise<Array<{ name?: string }>>
  dropIndex(name: string): Promise<object>
}

declare class OtherClient {
  private readonly topology: string
  db(name?: string, options?: { readonly authSource?: string }): OtherDb
  startSession(options?: { readonly snapshot?: boolean }): OtherSession
}

declare class OtherDb {
  private readonly namespace: string
  readonly client: OtherClient
  get databaseName(): string
  collection(name: string, options?: { readonly strict?: boolean }): OtherCollection
  command(command: Record<string, unknown>, options?: OtherOptions): Promise<Record<string, unknown>>
}

describe("the types of another copy of the driver", () => {
  it("are others", () => {
    expectTypeOf<OtherDb>().not.toExtend<Driver.Db>()
    expectTypeOf<OtherSession>().not.toExtend<Driver.ClientSession>()
  })

  it("are taken where an application's own are, as are those of this one", () => {
    type Source = Parameters<typeof createOutbox>[0]
    expectTypeOf<OtherDb>().toExtend<Source>()
    expectTypeOf<Driver.Db>().toExtend<Source>()
    expectTypeOf<{ readonly session: OtherSession; readonly notBefore: number }>().toExtend<AddOptions>()
    expectTypeOf<{ readonly session: Driver.ClientSession }>().toExtend<AddOptions>()

    expectTypeOf<OtherCollection>().toExtend<RelaySource>()
    expectTypeOf<{ readonly connection: OtherDb; readonly name: string }>().toExtend<RelaySource>()
    type SaveOptions = NonNullable<Parameters<RelayStore["save"]>[1]>
    expectTypeOf<{ readonly session: OtherSession }>().toExtend<SaveOptions>()

    expectTypeOf<OtherDb>().toExtend<ApplicationDatabase.ApplicationDatabase>()
    expectTypeOf<Outbox>().toExtend<EventSink>()
  })

  it("come back to the handlers that createDedupe calls", () => {
    const ofOther = (db: OtherDb) => createDedupe(db)
    const ofThis = (db: Driver.Db) => createDedupe(db)
    expectTypeOf(ofOther).returns.toEqualTypeOf<Dedupe<OtherSession>>()
    expectTypeOf(ofThis).returns.toEqualTypeOf<Dedupe>()
    expectTypeOf<Dedupe<OtherSession>>().not.toExtend<Dedupe>()
  })

  it("are not mistaken for something else", () => {
    expectTypeOf<OtherClient>().not.toExtend<AnyDb>()
    expectTypeOf<OtherCollection>().not.toExtend<AnyDb>()
    expectTypeOf<Driver.MongoClient>().not.toExtend<AnyDb>()
    expectTypeOf<Driver.Collection>().not.toExtend<AnyDb>()
    expectTypeOf<Promise<OtherDb>>().not.toExtend<AnyDb>()
    expectTypeOf<string>().not.toExtend<AnyDb>()
    expectTypeOf<object>().not.toExtend<AnyDb>()
    expectTypeOf<Omit<OtherDb, "client">>().not.toExtend<AnyDbWithSessions>()
    // A connection of a data layer: its `db` is meant.
    expectTypeOf<{ readonly db: OtherDb; collection(name: string): OtherCollection }>().not.toExtend<AnyDb>()

    expectTypeOf<OtherDb>().not.toExtend<AnySession>()
    expectTypeOf<Driver.MongoClient>().not.toExtend<AnySession>()
    // Data layers begin sessions with a promise.
    expectTypeOf<Promise<OtherSession>>().not.toExtend<AnySession>()
    expectTypeOf<string>().not.toExtend<AnySession>()
    expectTypeOf<object>().not.toExtend<AnySession>()
    expectTypeOf<{ readonly session: Promise<OtherSession> }>().not.toExtend<AddOptions>()
  })
})

// --- another copy, at work ---------------------------------------------------------------------------------------

/** The driver, loaded once more. */
const loadAnother = (): typeof Driver => {
  const require = createRequire(import.meta.url)
  for (const file of Object.keys(require.cache)) {
    if (/[\\/]node_modules[\\/]mongodb[\\/]/.test(file)) delete require.cache[file]
  }
  return require("mongodb")
}

const another = loadAnother()

it("an error of another copy of the driver is told by what it says", () => {
  const error = new another.MongoServerError({ message: "over", code: 91, errorLabels: [] })
  expect(error).not.toBeInstanceOf(MongoServerError)
  expect(isUnavailable(error)).toBe(true)
  expect(isUnavailable(new another.MongoServerError({ message: "twice", code: 11_000 }))).toBe(false)
})

it.live("a transaction is tried again for an error of another copy of the driver", () =>
  Effect.gen(function* () {
    const session = new MongoClient("mongodb://127.0.0.1:1/none").startSession()
    const done = () => Promise.resolve()
    const start = Effect.succeed({ session, begin: () => {}, commit: done, abort: done, end: done })
    const error = new another.MongoServerError({
      message: "another primary",
      errorLabels: ["TransientTransactionError"]
    })
    let runs = 0
    const work = Effect.suspend(() => (++runs < 3 ? Effect.fail(error) : Effect.succeed(runs)))
    expect(yield* MongoTransaction.runWith(start)(work)).toBe(3)
  })
)

describeMongo("another copy of the driver", (url) => {
  const open = (): Driver.Db => {
    const client = new another.MongoClient(urlOfNewDatabase(url))
    const db = client.db()
    onTestFinished(async () => {
      await db.dropDatabase()
      await client.close()
    })
    return db
  }

  it("adds to the outbox, with and without a session", async () => {
    const db = open()
    expect(db).not.toBeInstanceOf(Db)
    const outbox = createOutbox(db)
    await db.client.withSession(async (session) => {
      await outbox.add({ topic: "orders.created", id: "1", payload: 1 }, { session })
    })
    const ids = await Promise.all(
      Array.from({ length: 4 }, () => outbox.add({ topic: "orders.created", id: "2", payload: 2 }))
    )
    expect(ids).toEqual(["2", "2", "2", "2"])
    const found = await db.collection("outbox").find().sort({ _id: 1 }).toArray()
    expect(found.map(({ id }) => String(id))).toEqual(["1", "2"])
  })

  it("stores for a relay, however many save the same at once", async () => {
    const store = createRelayStore({ connection: open(), name: "relay" })
    const event = { type: "orders.created", payload: 1, meta: { id: "1" } }
    await Promise.all(Array.from({ length: 4 }, () => store.save(event)))
    expect(await store.getPending(10)).toEqual([event])
  })

  it("has the times changed after which what is done is forgotten", async () => {
    const db = open()
    const outbox = outboxIn(db, "outbox")
    const handled = db.collection<DedupeDocument>("dedupe")
    for (const seconds of [60, 120]) {
      await expireSent(outbox, seconds * 1_000)
      await prepareDedupe(handled, seconds * 1_000)
      const indexes = [...(await outbox.indexes()), ...(await handled.indexes())]
      expect(indexes.flatMap(({ expireAfterSeconds }) => expireAfterSeconds ?? [])).toEqual([
        seconds,
        seconds
      ])
    }
  })

  it("marks what was handled, or is told that its server has no transactions", async () => {
    const db = open()
    const dedupe = createDedupe(db)
    const handle = dedupe.exactlyOnce({
      consumer: "billing",
      handler: async ({ id }: { readonly topic: string; readonly id: string }, session) => {
        await db.collection("effects").insertOne({ of: id }, { session })
      }
    })
    const event = { topic: "orders.created", id: "1" }
    if (!(await hasTransactions(url))) {
      await expect(handle(event)).rejects.toMatchObject({ _tag: "TransactionsUnsupported" })
      return
    }
    expect([await handle(event), await handle(event)]).toEqual(["handled", "duplicate"])
    expect(await db.collection("effects").countDocuments()).toBe(1)
  })
})
