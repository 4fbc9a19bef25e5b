/** Events that were handled, in a database of the application's: one connection, and several. */
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { dedupeSql } from "../../../src/layers/sqlite/dedupeCommands.ts"
import { prepareDedupe } from "../../../src/layers/sqlite/dedupeSchema.ts"
import * as SqliteDedupeStore from "../../../src/layers/sqlite/SqliteDedupeStore.ts"
import { DedupeStore } from "../../../src/services/DedupeStore.ts"
import { dedupeStoreSuite } from "../../../src/testing/dedupeStore.ts"
import { temporaryPath } from "./temporary.ts"

const connection = (path: string) =>
  Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(path)),
    (db) => Effect.sync(() => db.close())
  )

const storeOn = (db: DatabaseSync, options?: SqliteDedupeStore.Options) =>
  Layer.provide(SqliteDedupeStore.layer(db, options), RandomIds.layer)

const service = (db: DatabaseSync, options?: SqliteDedupeStore.Options) =>
  Effect.map(Layer.build(storeOn(db, options)), Context.get(DedupeStore))

/** With WAL a commit costs less; what is left of the journals is tested below. */
const layer = Layer.unwrap(
  Effect.map(Effect.flatMap(temporaryPath, connection), (db) => {
    db.exec("PRAGMA journal_mode = WAL")
    return storeOn(db)
  })
)

dedupeStoreSuite("sqlite", layer, {
  advance: TestClock.adjust,
  beside: (n) =>
    Effect.flatMap(temporaryPath, (path) =>
      Effect.forEach(Array.from({ length: n }), () => Effect.flatMap(connection(path), service))
    )
})

const event = { consumer: "c", topic: "t", eventId: "1", leaseMs: 1_000 }

describe("SqliteDedupeStore", () => {
  it.effect("is part of a transaction that is open: rolled back, it never happened", () =>
    Effect.gen(function* () {
      const path = yield* temporaryPath
      const [db, other] = yield* Effect.all([connection(path), connection(path)])
      const [store, beside] = yield* Effect.all([service(db), service(other)])
      db.exec("BEGIN IMMEDIATE")
      expect(yield* store.begin(event)).toMatchObject({ _tag: "Run" })
      expect(yield* store.begin(event)).toMatchObject({ _tag: "InProgress" })
      db.exec("ROLLBACK")
      expect(yield* beside.begin(event)).toMatchObject({ _tag: "Run" })
      db.exec("BEGIN IMMEDIATE")
      const begun = yield* store.begin({ ...event, eventId: "2" })
      if (begun._tag === "Run") yield* store.complete(begun.token)
      db.exec("COMMIT")
      expect(yield* beside.begin({ ...event, eventId: "2" })).toEqual({ _tag: "Done" })
    }).pipe(Effect.scoped)
  )

  it.effect("says that it is not available while another connection writes for too long", () =>
    Effect.gen(function* () {
      const path = yield* temporaryPath
      const [db, other] = yield* Effect.all([connection(path), connection(path)])
      const store = yield* service(db, { busyTimeoutMs: 0 })
      other.exec("BEGIN IMMEDIATE")
      expect(yield* Effect.flip(store.begin(event))).toMatchObject({
        _tag: "StoreUnavailable",
        operation: "DedupeStore.begin"
      })
      expect(db.isTransaction).toBe(false)
      other.exec("ROLLBACK")
      expect(yield* store.begin(event)).toMatchObject({ _tag: "Run" })
    }).pipe(Effect.scoped)
  )

  it.effect("forgets by itself, with what is new, and so does not grow for ever", () =>
    Effect.gen(function* () {
      const db = yield* connection(":memory:")
      const store = yield* service(db, { keepMs: 1_000 })
      const rows = () => db.prepare("SELECT count(*) AS n FROM hub_dedupe").get()?.["n"]
      const handle = (eventId: string) =>
        Effect.flatMap(store.begin({ ...event, eventId }), (begun) =>
          begun._tag === "Run" ? store.complete(begun.token) : Effect.void
        )
      yield* store.begin({ ...event, consumer: "crashed" })
      for (let n = 0; n < 40; n++) yield* handle(`a${n}`)
      yield* TestClock.adjust(1_001)
      for (let n = 0; n < 20; n++) yield* handle(`b${n}`)
      expect(rows()).toBe(21)
      expect(yield* store.begin({ ...event, consumer: "crashed" })).toMatchObject({ _tag: "Run" })
    }).pipe(Effect.scoped)
  )

  it.effect("purges any number, in statements that each take a part of it", () =>
    Effect.gen(function* () {
      const db = yield* connection(":memory:")
      const store = yield* service(db)
      for (let n = 0; n < 2_100; n++) {
        const begun = yield* store.begin({ ...event, eventId: `${n}` })
        if (begun._tag === "Run") yield* store.complete(begun.token)
      }
      yield* TestClock.adjust(1_000)
      expect(yield* store.purge({ olderThanMs: 500 })).toBe(2_100)
    }).pipe(Effect.scoped)
  )

  it.effect("fails with what is wrong about a database", () =>
    Effect.gen(function* () {
      const db = yield* connection(yield* temporaryPath)
      db.exec("CREATE TABLE hub_dedupe (mine TEXT)")
      expect(yield* Effect.flip(service(db))).toMatchObject({
        _tag: "CannotRemember",
        message: expect.stringContaining("rename that table") as string
      })
      const closed = new DatabaseSync(":memory:")
      closed.close()
      expect(yield* Effect.flip(service(closed))).toMatchObject({ _tag: "StoreUnavailable" })
    }).pipe(Effect.scoped)
  )

  it("no statement reads the table from end to end, or sorts it", () => {
    const db = new DatabaseSync(":memory:")
    prepareDedupe(db, 0)
    for (const statement of Object.values(dedupeSql)) {
      const plan = db
        .prepare(`EXPLAIN QUERY PLAN ${statement}`)
        .all(...Array.from(statement.matchAll(/\?/g), () => null))
        .map((row) => String(row["detail"]))
      expect(plan.filter((step) => /^SCAN|TEMP B-TREE/.test(step))).toEqual([])
    }
    db.close()
  })
})
