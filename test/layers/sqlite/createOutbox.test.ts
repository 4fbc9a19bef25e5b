/** The outbox of programs without Effect: part of their transaction, or nothing. */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it, onTestFinished } from "vitest"
import { createOutbox } from "../../../src/layers/sqlite/createOutbox.ts"
import { version } from "../../../src/layers/sqlite/schema.ts"
import { temporaryDirectory } from "../../support/temporary.ts"

const open = () => {
  const db = new DatabaseSync(join(temporaryDirectory(), "hub.db"))
  onTestFinished(() => db.close())
  db.exec("CREATE TABLE orders (n INTEGER PRIMARY KEY) STRICT")
  const records = () => db.prepare("SELECT topic, id, key, state, body FROM outbox ORDER BY position").all()
  return { db, records, outbox: createOutbox(db) }
}

describe("add", () => {
  it("is committed with the transaction it is in", () => {
    const { db, outbox, records } = open()
    const id = outbox.transaction(() => {
      db.exec("INSERT INTO orders VALUES (1)")
      return outbox.add({ topic: "orders.created", key: "k", payload: { n: 1 } })
    })
    const [record] = records()
    expect(record).toMatchObject({ topic: "orders.created", id, key: "k", state: "pending" })
    expect(JSON.parse(String(record?.["body"]))).toMatchObject({
      id,
      topic: "orders.created",
      payload: { n: 1 }
    })
    expect(db.prepare("SELECT count(*) AS n FROM orders").get()).toEqual({ n: 1 })
  })

  it("is rolled back with it", () => {
    const { db, outbox, records } = open()
    expect(() =>
      outbox.transaction(() => {
        db.exec("INSERT INTO orders VALUES (1)")
        outbox.add({ topic: "orders.created", payload: 1 })
        db.exec("INSERT INTO orders VALUES (1)")
      })
    ).toThrow(/UNIQUE/)
    expect(records()).toEqual([])
    expect(db.prepare("SELECT count(*) AS n FROM orders").get()).toEqual({ n: 0 })
    expect(db.isTransaction).toBe(false)
  })

  it("adds the same id once, within a transaction and over two", () => {
    const { outbox, records } = open()
    outbox.transaction(() => {
      outbox.add({ topic: "a", id: "one", payload: 1 })
      outbox.add({ topic: "a", id: "one", payload: 2 })
    })
    outbox.add({ topic: "a", id: "one", payload: 3 })
    expect(records().map(({ id }) => id)).toEqual(["one"])
  })

  it("with a later notBefore waits for its time", () => {
    const { outbox, records } = open()
    outbox.add({ topic: "a", payload: 1 }, { notBefore: Date.now() + 60_000 })
    outbox.add({ topic: "a", payload: 2 }, { notBefore: Date.now() - 1 })
    expect(records().map(({ state }) => state)).toEqual(["waiting", "pending"])
  })

  it.each([
    [{ topic: "a..b", payload: 1 }, "InvalidTopic"],
    [{ topic: "$dead.x", payload: 1 }, "InvalidTopic"],
    [{ topic: "a", payload: "x".repeat(300_000) }, "PayloadTooLarge"],
    [{ topic: "a", payload: undefined }, "InvalidEvent"],
    [{ topic: "a", payload: 1, id: "" }, "InvalidEvent"]
  ])("throws for %o before anything is written", (event, tag) => {
    const { outbox, records } = open()
    expect(() => outbox.transaction(() => outbox.add(event))).toThrow(expect.objectContaining({ _tag: tag }))
    expect(records()).toEqual([])
  })
})

describe("createOutbox", () => {
  it("waits for other writers, and makes commits durable", () => {
    const { db } = open()
    expect(db.prepare("PRAGMA busy_timeout").get()).toEqual({ timeout: 5_000 })
    expect(db.prepare("PRAGMA synchronous").get()).toEqual({ synchronous: 2 })
    expect(db.prepare("PRAGMA journal_mode").get()).toEqual({ journal_mode: "wal" })
  })

  it("refuses to be called inside a transaction", () => {
    const { db } = open()
    db.exec("BEGIN")
    expect(() => createOutbox(db)).toThrow(/before/)
    db.exec("ROLLBACK")
  })

  it("refuses a file of a newer version", () => {
    const { db } = open()
    db.prepare("UPDATE hub_meta SET value = ? WHERE name = 'schema_version'").run(String(version + 1))
    expect(() => createOutbox(db)).toThrow(/newer version/)
  })
})
