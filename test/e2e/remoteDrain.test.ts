/** Services that bring their outboxes to a hub of another process, which is killed and comes back meanwhile. */
import { DatabaseSync } from "node:sqlite"
import { join } from "node:path"
import { type Db, MongoClient } from "mongodb"
import { describe, expect, it, onTestFinished } from "vitest"
import { drainOutbox as drainMongo, type OutboxDrain } from "../../src/hub/drainMongoOutbox.ts"
import { drainOutbox as drainSqlite } from "../../src/hub/drainSqliteOutbox.ts"
import { createOutbox as createMongoOutbox } from "../../src/layers/mongo/createOutbox.ts"
import { createOutbox as createSqliteOutbox } from "../../src/layers/sqlite/createOutbox.ts"
import type { OutboxEvent } from "../../src/services/OutboxStore.ts"
import { describeMongo, urlOfNewDatabase } from "../support/mongo.ts"
import { RawClient } from "../support/RawClient.ts"
import { returningHub } from "../support/ReturningHub.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"

const eventsOf = (count: number, keys: number): ReadonlyArray<OutboxEvent & { readonly id: string }> =>
  Array.from({ length: count }, (_, i) => ({
    id: `e${i}`,
    topic: "orders.created",
    key: `k${i % keys}`,
    payload: i
  }))

const until = async (what: string, is: () => Promise<boolean> | boolean): Promise<void> => {
  const end = Date.now() + 100_000
  while (!(await is())) {
    if (Date.now() > end) throw new Error(`it did not happen: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** All that the log of the hub has, once each, and each key in order. */
const expectAll = async (url: string, count: number): Promise<void> => {
  const client = await RawClient.authenticated(url)
  await client.request({ op: "SUBSCRIBE", topic: "orders.*", opts: { from: "start" } })
  const events = (await client.waitForAll("the log", ({ op }) => op === "EVENT", count)).map(
    ({ event }) =>
      event as { readonly id: string; readonly key: string; readonly payload: number; readonly seq: number }
  )
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
  expect(new Set(events.map(({ id }) => id)).size).toBe(count)
  for (const line of Map.groupBy(events, ({ key }) => key).values()) {
    const payloads = line.map(({ payload }) => payload)
    expect(payloads).toEqual(payloads.toSorted((a, b) => a - b))
  }
  client.socket.close()
}

/** Whatever is slow on a machine that is busy, an answer is not given up here. */
const patient = { answerTimeoutMs: 15_000, reconnectBaseMs: 50, reconnectMaxMs: 200 }
const closeLater = (drain: OutboxDrain): OutboxDrain => {
  onTestFinished(() => drain.close())
  return drain
}

/** Nobody may do more than it may: this one cannot even read what it brings. */
const publisher = () => tokenFor({ scopes: ["publish:orders.*"] })

const sentBy = (drains: ReadonlyArray<OutboxDrain>): number =>
  drains.map((drain) => drain.status().sent).reduce((a, b) => a + b, 0)

describe("an outbox in an SQLite file", () => {
  it("comes to a hub that is killed meanwhile, each record once and each key in order", async () => {
    const hub = await returningHub()
    const path = join(temporaryDirectory(), "service.db")
    const db = new DatabaseSync(path)
    onTestFinished(() => db.close())
    const outbox = createSqliteOutbox(db)
    const events = eventsOf(3_000, 97)
    outbox.transaction(() => events.forEach((event) => outbox.add(event)))
    const problems: Array<Error> = []
    const drain = closeLater(
      await drainSqlite({
        path,
        hub: { url: hub.url, token: publisher, ...patient },
        onProblem: (problem) => problems.push(problem)
      })
    )
    await until("some are sent", () => drain.status().sent > 300)
    await hub.hub().kill()
    await hub.start()
    await until("all are sent", () => drain.status().sent >= 3_000)
    await expectAll(hub.url, 3_000)
    expect(drain.status().sent).toBe(3_000)
  }, 120_000)
})

describeMongo("an outbox in a MongoDB", (mongo) => {
  const left = (db: Db) => db.collection("outbox").countDocuments({ state: { $ne: "sent" } })

  const open = async () => {
    const client = new MongoClient(urlOfNewDatabase(mongo))
    const db = client.db()
    onTestFinished(async () => {
      await db.dropDatabase()
      await client.close()
    })
    const outbox = createMongoOutbox(db)
    await outbox.prepare()
    const addAll = async (events: ReadonlyArray<OutboxEvent>) => {
      // One after the other within a key; the keys beside each other.
      await Promise.all(
        [...Map.groupBy(events, ({ key }) => key).values()].map(async (line) => {
          for (const event of line) await outbox.add(event)
        })
      )
    }
    return { db, addAll }
  }

  it("comes to a hub that is killed meanwhile by two services, each record once and each key in order", async () => {
    const hub = await returningHub()
    const { addAll, db } = await open()
    await addAll(eventsOf(1_200, 53))
    const start = async () =>
      closeLater(await drainMongo({ db, hub: { url: hub.url, token: publisher, ...patient } }))
    const drains = [await start(), await start()]
    await until("some are sent", () => sentBy(drains) > 200)
    await hub.hub().kill()
    await hub.start()
    await until("all are sent", async () => (await left(db)) === 0)
    await expectAll(hub.url, 1_200)
    // Nothing of a hub was made beside it.
    expect((await db.listCollections().toArray()).map(({ name }) => name)).toEqual(["outbox"])
  }, 120_000)

  it("has what the hub's policy forbids dead with the reason, and the rest in the log", async () => {
    const hub = await returningHub()
    const { addAll, db } = await open()
    const secrets = Array.from({ length: 5 }, (_, i) => ({
      id: `s${i}`,
      topic: "secrets.made",
      key: "s",
      payload: i
    }))
    await addAll([...secrets, ...eventsOf(200, 10)])
    const drain = closeLater(
      await drainMongo({
        db,
        hub: { url: hub.url, token: publisher, ...patient },
        settings: { retry: { baseMs: 10, maxMs: 20, maxAttempts: 3 } }
      })
    )
    await until("all are sent", () => drain.status().sent >= 200)
    const dead = () => db.collection("outbox").find({ state: "dead" }).sort({ _id: 1 }).toArray()
    await until("the others are dead", async () => (await dead()).length === 5)
    expect((await dead()).map(({ lastError }) => lastError)).toEqual(
      secrets.map(() => "no right to publish 'secrets.made'")
    )
    await expectAll(hub.url, 200)
  }, 120_000)

  it("is left as it is when the drain is closed, and goes on with the next", async () => {
    const hub = await returningHub()
    const { addAll, db } = await open()
    await addAll(eventsOf(500, 20))
    const options = { db, hub: { url: hub.url, token: publisher, ...patient } }
    const first = await drainMongo(options)
    await until("some are sent", () => first.status().sent > 0)
    await first.close()
    closeLater(await drainMongo(options))
    await until("all are sent", async () => (await left(db)) === 0)
    await expectAll(hub.url, 500)
  }, 120_000)

  it("refuses leases that a batch could outlast", async () => {
    const { db } = await open()
    const hub = { url: "ws://127.0.0.1:1", token: "t", answerTimeoutMs: 10_000 }
    await expect(drainMongo({ db, hub, settings: { leaseMs: 19_000 } })).rejects.toThrow(
      "'leaseMs' must be at least 2 times 'answerTimeoutMs', which is 10000"
    )
  })

  it("says once that the hub is not there, and whose", async () => {
    const { addAll, db } = await open()
    await addAll(eventsOf(1, 1))
    const problems: Array<string> = []
    const drain = closeLater(
      await drainMongo({
        db,
        hub: { url: "ws://127.0.0.1:1/ws", token: "t", answerTimeoutMs: 50 },
        onProblem: ({ message }) => problems.push(message)
      })
    )
    await until("it is said", () => problems.length > 0)
    expect(problems).toEqual([
      "the outbox cannot be drained: the store is not available (publish to 127.0.0.1:1): the hub does not answer"
    ])
    expect(drain.status().problem).toContain("publish to 127.0.0.1:1")
  })
})
