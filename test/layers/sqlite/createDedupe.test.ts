/** Exactly once for programs without Effect: the mark and the handler's writes are one transaction, or nothing. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Effect } from "effect"
import { describe, expect, it, onTestFinished } from "vitest"
import * as Settings from "../../../src/domain/Settings.ts"
import { exactlyOncePromise } from "../../../src/layers/core/exactlyOnce.ts"
import { createDedupe, type Options } from "../../../src/layers/sqlite/createDedupe.ts"
import { createOutbox } from "../../../src/layers/sqlite/createOutbox.ts"
import { dedupeVersion } from "../../../src/layers/sqlite/dedupeSchema.ts"
import { Release } from "../../../src/services/EventBus.ts"
import { temporaryDirectory } from "../../support/temporary.ts"

interface Order {
  readonly topic: string
  readonly id: string
  readonly payload: number
}

const order = (n: number): Order => ({ topic: "orders.created", id: `order-${n}`, payload: n })

const connect = (path: string): DatabaseSync => {
  const db = new DatabaseSync(path)
  onTestFinished(() => db.close())
  return db
}

const open = (options?: Options) => {
  const path = join(temporaryDirectory(), "app.db")
  const db = connect(path)
  db.exec("CREATE TABLE effects (n INTEGER NOT NULL) STRICT")
  const insert = db.prepare("INSERT INTO effects (n) VALUES (?)")
  const all = (sql: string) => db.prepare(sql).all()
  return {
    path,
    db,
    dedupe: createDedupe(db, options),
    write: ({ payload }: Order): void => void insert.run(payload),
    effects: () => all("SELECT n FROM effects ORDER BY n").map(({ n }) => n),
    marks: () => all("SELECT consumer, topic, id FROM hub_dedupe ORDER BY consumer, topic, id")
  }
}

describe("exactlyOnce", () => {
  it("handles an event, and nothing but duplicates of it after that", () => {
    const { db, dedupe, effects, marks, write } = open()
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    expect(handle(order(1))).toBe("handled")
    expect(handle(order(1))).toBe("duplicate")
    expect(handle(order(2))).toBe("handled")
    expect(effects()).toEqual([1, 2])
    expect(marks()).toEqual([
      { consumer: "billing", topic: "orders.created", id: "order-1" },
      { consumer: "billing", topic: "orders.created", id: "order-2" }
    ])
    expect(db.isTransaction).toBe(false)
  })

  it("hands the event and its context on", () => {
    const { dedupe } = open()
    const seen: Array<unknown> = []
    const handle = dedupe.exactlyOnce({
      consumer: "billing",
      handler: (event: Order, context: { readonly attempt: number } | undefined) => {
        seen.push(event, context)
      }
    })
    handle(order(1), { attempt: 3 })
    expect(seen).toEqual([order(1), { attempt: 3 }])
  })

  it("is for each consumer, and for each topic", () => {
    const { dedupe, effects, write } = open()
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    const archive = dedupe.exactlyOnce({ consumer: "archive", handler: write })
    const answers = [order(1), { ...order(1), topic: "orders.paid" }].flatMap((event) => [
      handle(event),
      archive(event),
      handle(event)
    ])
    expect(answers).toEqual(["handled", "handled", "duplicate", "handled", "handled", "duplicate"])
    expect(effects()).toEqual([1, 1, 1, 1])
  })

  it("rolls everything back when the handler throws, and the event is as new", () => {
    const { db, dedupe, effects, marks, write } = open()
    let isBroken = true
    const handle = dedupe.exactlyOnce({
      consumer: "billing",
      handler: (event: Order) => {
        write(event)
        if (isBroken) throw new Error("no luck")
      }
    })
    for (let i = 0; i < 2; i++) {
      expect(() => handle(order(1))).toThrow("no luck")
      expect([effects(), marks(), db.isTransaction]).toEqual([[], [], false])
    }
    isBroken = false
    expect(handle(order(1))).toBe("handled")
    expect(effects()).toEqual([1])
  })

  it("rolls back what COMMIT refuses", () => {
    const { db, dedupe, marks } = open()
    db.exec("PRAGMA foreign_keys = ON")
    db.exec("CREATE TABLE parents (n INTEGER PRIMARY KEY) STRICT")
    db.exec("CREATE TABLE children (n INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED) STRICT")
    const handle = dedupe.exactlyOnce({
      consumer: "billing",
      handler: (_order: Order) => db.exec("INSERT INTO children VALUES (7)")
    })
    expect(() => handle(order(1))).toThrow(/FOREIGN KEY/)
    expect([marks(), db.prepare("SELECT n FROM children").all(), db.isTransaction]).toEqual([[], [], false])
  })

  it("refuses a handler that answers a promise, says what to do, and keeps nothing of it", async () => {
    const { db, dedupe, effects, marks, write } = open()
    const handle = dedupe.exactlyOnce({
      consumer: "billing",
      handler: (event: Order) => {
        write(event)
        return Promise.reject(new Error("nobody waits for this"))
      }
    })
    const refused = { _tag: "AsyncHandler", consumer: "billing" }
    expect(() => handle(order(1))).toThrow(expect.objectContaining(refused))
    expect(() => handle(order(1))).toThrow(/make it synchronous, or use exactlyOncePromise/)
    expect([effects(), marks(), db.isTransaction]).toEqual([[], [], false])
    // It does not come up as an unhandled rejection, which would end the process, either.
    await new Promise((resolve) => setImmediate(resolve))
  })

  it("does not even start an async function: what it did after its transaction could not be rolled back", async () => {
    const { dedupe, effects, write } = open()
    const handle = dedupe.exactlyOnce({
      consumer: "billing",
      handler: async (event: Order) => {
        await Promise.resolve()
        write(event)
      }
    })
    expect(() => handle(order(1))).toThrow(expect.objectContaining({ _tag: "AsyncHandler" }))
    await new Promise((resolve) => setImmediate(resolve))
    expect(effects()).toEqual([])
  })

  it("refuses to be called inside a transaction, and leaves that alone", () => {
    const { db, dedupe, effects, write } = open()
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    db.exec("BEGIN")
    write(order(7))
    expect(() => handle(order(1))).toThrow(/outside of one/)
    db.exec("COMMIT")
    expect(effects()).toEqual([7])
  })

  it("gives an event back that cannot be tried, without counting an attempt", () => {
    const { dedupe, effects, path, write } = open({ busyTimeoutMs: 0, delayMs: 700 })
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    const other = connect(path)
    other.exec("BEGIN IMMEDIATE")
    const busy = (() => {
      try {
        return handle(order(1))
      } catch (error) {
        return error
      }
    })()
    expect(busy).toBeInstanceOf(Release)
    expect(busy).toMatchObject({
      delayMs: 700,
      nack: { mode: "release", delayMs: 700 },
      cause: { _tag: "StoreUnavailable" }
    })
    other.exec("ROLLBACK")
    expect(handle(order(1))).toBe("handled")
    expect(effects()).toEqual([1])
  })

  it("adds to the outbox in the same transaction, when that is in the same file", () => {
    const { db, dedupe, effects, write } = open()
    const outbox = createOutbox(db)
    let isBroken = true
    const handle = dedupe.exactlyOnce({
      consumer: "billing",
      handler: (event: Order) => {
        write(event)
        outbox.add({ topic: "bills.made", payload: event.payload })
        if (isBroken) throw new Error("no luck")
      }
    })
    const bills = () => db.prepare("SELECT count(*) AS n FROM outbox").get()
    expect(() => handle(order(1))).toThrow("no luck")
    expect([effects(), bills()]).toEqual([[], { n: 0 }])
    isBroken = false
    handle(order(1))
    handle(order(1))
    expect([effects(), bills()]).toEqual([[1], { n: 1 }])
  })

  it("handles each event once over several processes that are handed all of them", async () => {
    const { effects, path } = open()
    const moduleUrl = new URL("../../../src/layers/sqlite/createDedupe.ts", import.meta.url).href
    const program = `
      import { DatabaseSync } from "node:sqlite"
      import { createDedupe } from ${JSON.stringify(moduleUrl)}
      const db = new DatabaseSync(${JSON.stringify(path)})
      const insert = db.prepare("INSERT INTO effects (n) VALUES (?)")
      const handle = createDedupe(db, { busyTimeoutMs: 60_000 })
        .exactlyOnce({ consumer: "billing", handler: ({ payload }) => void insert.run(payload) })
      process.stdout.write("ready")
      process.stdin.once("data", () => {
        for (let n = 1; n <= 100; n++) handle({ topic: "t", id: String(n), payload: n })
        process.exit(0)
      })
    `
    const children = Array.from({ length: 3 }, () => {
      const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
        stdio: ["pipe", "pipe", "inherit"]
      })
      return { child, ready: once(child.stdout, "data"), exited: once(child, "exit") }
    })
    await Promise.all(children.map(({ ready }) => ready))
    for (const { child } of children) child.stdin.write("go")
    expect(await Promise.all(children.map(({ exited }) => exited))).toEqual([
      [0, null],
      [0, null],
      [0, null]
    ])
    expect(effects()).toEqual(Array.from({ length: 100 }, (_, i) => i + 1))
  })
})

describe("the lease form, over the same marks", () => {
  it("handles an event once, whichever form handled it", async () => {
    const { dedupe, effects, write } = open()
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    const later = exactlyOncePromise({
      store: dedupe.store,
      consumer: "billing",
      handler: async (event: Order) => write(event)
    })
    await later(order(1))
    expect(handle(order(1))).toBe("duplicate")
    handle(order(2))
    expect(await later(order(2))).toBeUndefined()
    expect(effects()).toEqual([1, 2])
  })

  it("keeps the transaction form out while a run holds, and lets it in after the lease", async () => {
    const { dedupe, effects, write } = open({ delayMs: 100 })
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    const { id: eventId, topic } = order(1)
    const run = { consumer: "billing", topic, eventId }
    const begun = await Effect.runPromise(dedupe.store.begin({ ...run, leaseMs: 3_600_000 }))
    expect(() => handle(order(1))).toThrow(expect.objectContaining({ _tag: "Release", delayMs: 100 }))
    expect(effects()).toEqual([])
    await Effect.runPromise(begun._tag === "Run" ? dedupe.store.release(begun.token) : Effect.die(begun))
    const crashed = await Effect.runPromise(dedupe.store.begin({ ...run, leaseMs: 0.001 }))
    await expect.poll(() => Date.now()).toBeGreaterThan(Date.now() + 2)
    expect(handle(order(1))).toBe("handled")
    const completed = Effect.runPromise(
      Effect.flip(crashed._tag === "Run" ? dedupe.store.complete(crashed.token) : Effect.die(crashed))
    )
    expect(await completed).toMatchObject({ _tag: "RunLost" })
  })
})

describe("purge", () => {
  it("forgets what was handled longer ago, and answers how many", () => {
    const { dedupe, effects, write } = open()
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    for (let n = 1; n <= 5; n++) handle(order(n))
    expect(dedupe.purge({ olderThanMs: 60_000 })).toBe(0)
    expect(dedupe.purge({ olderThanMs: -60_000 })).toBe(5)
    expect(handle(order(1))).toBe("handled")
    expect(effects()).toEqual([1, 1, 2, 3, 4, 5])
  })
})

describe("createDedupe", () => {
  const settings = (db: DatabaseSync) =>
    ["busy_timeout", "synchronous", "journal_mode"].map(
      (name) => Object.values(db.prepare(`PRAGMA ${name}`).get()!)[0]
    )

  it("waits for other writers, makes commits durable, and leaves the journal alone", () => {
    expect(settings(open().db)).toEqual([5_000, 2, "delete"])
    const { db } = open()
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
    createDedupe(db, { busyTimeoutMs: 10 })
    expect(settings(db)).toEqual([10, 2, "wal"])
    db.exec("PRAGMA synchronous = EXTRA")
    createDedupe(db)
    expect(settings(db)).toEqual([5_000, 3, "wal"])
  })

  it("may be called again, on other connections, and beside a hub's tables", () => {
    const { db, dedupe, path, write } = open()
    const handle = dedupe.exactlyOnce({ consumer: "billing", handler: write })
    handle(order(1))
    createOutbox(db)
    const again = createDedupe(connect(path)).exactlyOnce({ consumer: "billing", handler: write })
    expect(again(order(1))).toBe("duplicate")
    expect(createDedupe(db).exactlyOnce({ consumer: "billing", handler: write })(order(1))).toBe("duplicate")
  })

  it("works whatever the application's connection answers rows with", () => {
    const db = new DatabaseSync(join(temporaryDirectory(), "app.db"), {
      readBigInts: true,
      returnArrays: true
    })
    onTestFinished(() => db.close())
    for (let i = 0; i < 2; i++) {
      const handle = createDedupe(db).exactlyOnce({ consumer: "c", handler: (_order: Order) => {} })
      expect(handle(order(1))).toBe(i === 0 ? "handled" : "duplicate")
    }
  })

  it("refuses a database it cannot use, and says why", () => {
    const { db, dedupe } = open()
    const refused = (reason: RegExp) =>
      expect(() => createDedupe(db)).toThrow(
        expect.objectContaining({ _tag: "CannotRemember", reason: expect.stringMatching(reason) as string })
      )
    db.exec("BEGIN")
    refused(/transaction is open/)
    db.exec("ROLLBACK")
    db.prepare("UPDATE hub_dedupe_meta SET value = ?").run(String(dedupeVersion + 1))
    refused(/newer version wrote it/)
    db.exec("DROP TABLE hub_dedupe_meta")
    refused(/table 'hub_dedupe' that is not/)
    db.enableDefensive(false)
    db.exec("DROP TABLE hub_dedupe; PRAGMA journal_mode = OFF")
    refused(/nothing can be rolled back/)
    expect(dedupe.store.keepMs).toBe(Settings.dedupe.keepMs)
  })

  it("refuses to forget before the group has stopped delivering, and names both times", () => {
    const { db } = open()
    const group = { ackTimeoutMs: 1_000, maxAttempts: 3 }
    const backoff = { baseMs: 100, maxMs: 150 }
    const horizonMs = 3_000 + 100 + 150
    expect(createDedupe(db, { keepMs: horizonMs, group, backoff }).store.keepMs).toBe(horizonMs)
    const short = expect.objectContaining({ _tag: "DedupeTooShort", keepMs: horizonMs - 1, horizonMs })
    expect(() => createDedupe(db, { keepMs: horizonMs - 1, group, backoff })).toThrow(short)
    expect(() => createDedupe(db, { keepMs: horizonMs - 1, group, backoff })).toThrow(/3249 ms.*3250 ms/)
    // Without a word about the group it has the hub's defaults.
    expect(() => createDedupe(db, { keepMs: 60_000 })).toThrow(
      expect.objectContaining({ _tag: "DedupeTooShort" })
    )
    const dedupe = createDedupe(db, { keepMs: horizonMs, group, backoff })
    const consumer = { consumer: "slow", handler: () => {} }
    expect(() => dedupe.exactlyOnce({ ...consumer, group: { ...group, maxAttempts: 4 } })).toThrow(
      expect.objectContaining({
        _tag: "DedupeTooShort",
        keepMs: horizonMs,
        horizonMs: 4_000 + 100 + 150 + 150
      })
    )
    for (const delayMs of [0, -1, NaN, Infinity]) {
      expect(() => createDedupe(db, { delayMs })).toThrow(expect.objectContaining({ _tag: "InvalidTime" }))
    }
  })
})
