/** An SQLite file as a store: which files are taken, by one hub at a time, and what is said of the others. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { version, versionOf } from "../../../src/layers/sqlite/schema.ts"
import * as SqliteDatabase from "../../../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteEventStore from "../../../src/layers/sqlite/SqliteEventStore.ts"
import * as SqliteOutboxStore from "../../../src/layers/sqlite/SqliteOutboxStore.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { OutboxStore } from "../../../src/services/OutboxStore.ts"
import { temporaryDirectory } from "../../support/temporary.ts"

const open = (path: string) =>
  Layer.build(SqliteDatabase.layer({ path, writer: "inline" }).pipe(Layer.provide(RandomIds.layer))).pipe(
    Effect.map((context) => Context.get(context, SqliteDatabase.SqliteDatabase))
  )

const reasonOf = (path: string) =>
  open(path).pipe(
    Effect.scoped,
    Effect.flip,
    Effect.map((error) => error.reason)
  )

it.effect("makes the file and its directories, with write-ahead log and the current schema", () =>
  Effect.gen(function* () {
    const path = join(temporaryDirectory(), "a", "b", "hub.db")
    yield* Effect.scoped(open(path))
    const db = new DatabaseSync(path, { readOnly: true })
    expect(versionOf(db)).toBe(version)
    expect(db.prepare("PRAGMA journal_mode").get()).toEqual({ journal_mode: "wal" })
    db.close()
  })
)

it.effect("keeps the history of a file, and gives another one to another file", () =>
  Effect.gen(function* () {
    const directory = temporaryDirectory()
    const historyOf = (name: string) =>
      Effect.scoped(Effect.map(open(join(directory, name)), ({ history }) => history))
    const first = yield* historyOf("one.db")
    expect(yield* historyOf("one.db")).toBe(first)
    expect(yield* historyOf("two.db")).not.toBe(first)
  })
)

it.effect("refuses a second hub while the first is there, and no longer", () =>
  Effect.gen(function* () {
    const path = join(temporaryDirectory(), "hub.db")
    const first = yield* Scope.make()
    yield* Effect.provideService(open(path), Scope.Scope, first)
    expect(yield* reasonOf(path)).toBe("another hub is using it")
    yield* Scope.close(first, Exit.void)
    yield* Effect.scoped(open(path))
  })
)

it.effect("a program that only adds to its outbox is not stopped by the hub's lock", () =>
  Effect.gen(function* () {
    const path = join(temporaryDirectory(), "hub.db")
    yield* open(path)
    const db = new DatabaseSync(path)
    db.exec("CREATE TABLE mine (n INTEGER) STRICT; INSERT INTO mine VALUES (1)")
    db.close()
  })
)

it.effect("lives in a file beside the tables of an application, whose user_version it leaves alone", () =>
  Effect.gen(function* () {
    const path = join(temporaryDirectory(), "hub.db")
    const db = new DatabaseSync(path)
    db.exec("CREATE TABLE orders (n INTEGER) STRICT; INSERT INTO orders VALUES (7); PRAGMA user_version = 42")
    yield* Effect.scoped(open(path))
    expect(db.prepare("SELECT n FROM orders").get()).toEqual({ n: 7 })
    expect(db.prepare("PRAGMA user_version").get()).toEqual({ user_version: 42 })
    db.close()
  })
)

it.effect("refuses what is no database, and does not touch it", () =>
  Effect.gen(function* () {
    const path = join(temporaryDirectory(), "hub.db")
    writeFileSync(path, "not a database, but long enough to have a header")
    expect(yield* reasonOf(path)).toBe("it is not an SQLite database")
    expect(readFileSync(path, "utf8")).toBe("not a database, but long enough to have a header")
    expect(existsSync(`${path}.lock`)).toBe(false)
  })
)

it.effect("refuses a newer schema, and says what to do", () =>
  Effect.gen(function* () {
    const path = join(temporaryDirectory(), "hub.db")
    yield* Effect.scoped(open(path))
    const db = new DatabaseSync(path)
    db.prepare("UPDATE hub_meta SET value = ? WHERE name = 'schema_version'").run(String(version + 1))
    db.close()
    const before = readFileSync(path)
    expect(yield* reasonOf(path)).toBe(
      `it was written by a newer version (schema ${version + 1}, this one knows ${version}); update event-hub`
    )
    expect(readFileSync(path).equals(before)).toBe(true)
  })
)

it.effect("what a hub had claimed that is gone need not wait for its lease", () =>
  Effect.gen(function* () {
    const path = join(temporaryDirectory(), "hub.db")
    const openOutbox = Layer.build(
      SqliteOutboxStore.layer().pipe(
        Layer.provide(SqliteDatabase.layer({ path, writer: "inline" })),
        Layer.provide(RandomIds.layer)
      )
    ).pipe(Effect.map((context) => Context.get(context, OutboxStore)))
    const claim = (store: OutboxStore["Service"]) =>
      store.claimBatch({ limit: 10, leaseMs: 3_600_000, worker: "w" })

    yield* Effect.scoped(
      Effect.gen(function* () {
        const store = yield* openOutbox
        yield* store.add({ topic: "a", id: "one", payload: 1 })
        expect(yield* claim(store)).toHaveLength(1)
        // In its own life the lease holds.
        expect(yield* store.requeueExpired({ maxAttempts: 5 })).toEqual({ requeued: 0, dead: 0 })
      })
    )
    const store = yield* openOutbox
    expect(yield* store.requeueExpired({ maxAttempts: 5 })).toEqual({ requeued: 1, dead: 0 })
    expect((yield* claim(store)).map(({ attempts, event }) => [event.id, attempts])).toEqual([["one", 2]])
  })
)

/** The next turn: what was written before goes to the writer by itself. */
const nextTurn = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

it.effect(
  "what comes while the writer is at work gets its own answers, in order, whoever fails among it",
  () =>
    Effect.gen(function* () {
      const path = join(temporaryDirectory(), "hub.db")
      const written = yield* Scope.make()
      const db = Context.get(
        yield* Layer.buildWithScope(
          SqliteDatabase.layer({ path }).pipe(Layer.provide(RandomIds.layer)),
          written
        ),
        SqliteDatabase.SqliteDatabase
      )
      const numbers = Array.from({ length: 60 }, (_, i) => i)
      const fibers = yield* Effect.forEach(numbers, (i) =>
        Effect.gen(function* () {
          const record = { topic: "a", id: `${i % 50}`, key: undefined, tombstone: false, body: "{}" }
          // No column takes half a millisecond.
          const notBefore = i === 13 ? 0.5 : undefined
          const write = Effect.exit(db.write("outbox", "add", { record, now: 0, notBefore }))
          const fiber = yield* Effect.forkChild(write, { startImmediately: true })
          if (i % 3 === 0) yield* nextTurn
          return fiber
        })
      )
      const exits = yield* Effect.forEach(fibers, Fiber.join)
      yield* Scope.close(written, Exit.void)
      expect(exits.map((exit) => (Exit.isSuccess(exit) ? exit.value : "failed"))).toEqual(
        numbers.map((i) => (i === 13 ? "failed" : i < 50))
      )
      const reader = new DatabaseSync(path, { readOnly: true })
      expect(reader.prepare("SELECT id FROM outbox ORDER BY position").all()).toEqual(
        numbers.filter((i) => i !== 13 && i < 50).map((i) => ({ id: `${i}` }))
      )
      reader.close()
    })
)

it.effect(
  "an application that holds the file for too long makes a write unavailable, and nothing is lost",
  () =>
    Effect.gen(function* () {
      const path = join(temporaryDirectory(), "hub.db")
      const database = SqliteDatabase.layer({ path, writer: "inline", busyTimeoutMs: 20 })
      const context = yield* Layer.build(
        SqliteEventStore.layer().pipe(Layer.provide(database), Layer.provide(RandomIds.layer))
      )
      const store = Context.get(context, EventStore)
      const record = { topic: "a", id: "1", key: undefined, tombstone: false, body: '{"id":"1"}' }
      const db = new DatabaseSync(path)
      db.exec("BEGIN IMMEDIATE")
      expect(yield* Effect.flip(store.append([record]))).toMatchObject({ _tag: "StoreUnavailable" })
      db.exec("ROLLBACK")
      expect(yield* store.append([record])).toMatchObject([{ _tag: "Appended", seq: 1, duplicate: false }])
      db.close()
    })
)
