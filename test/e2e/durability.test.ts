/** What was acknowledged is there after SIGKILL, in order, once: publishes and outbox records. */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { expect, it } from "vitest"
import { createOutbox } from "../../src/layers/sqlite/createOutbox.ts"
import { startHub } from "../support/HubProcess.ts"
import { durableStore } from "../support/hubStore.ts"
import { type Message, RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"

const readAll = async (url: string, topic: string, n: number): Promise<ReadonlyArray<Message>> => {
  const reader = await RawClient.authenticated(url)
  reader.send({ op: "SUBSCRIBE", topic, opts: { from: "start" } })
  await reader.events(n)
  // A repeat or a stray event would come now.
  await reader.settled()
  const events = reader.messages.filter(({ op }) => op === "EVENT")
  await reader.close()
  return events
}

const fieldOf = (message: Message, field: string): unknown =>
  (message["event"] as Readonly<Record<string, unknown>>)[field]

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

it("2,000 acknowledged publishes survive SIGKILL: in order, no gap, no repeat", async () => {
  const env = durableStore()
  const first = await startHub(env)
  const publisher = await RawClient.authenticated(first.ws)
  for (const i of upTo(2_000)) publisher.send({ op: "PUBLISH", ref: i, topic: "orders.created", payload: i })
  const answers = await publisher.waitForAll("all answers", ({ ref }) => typeof ref === "number", 2_000)
  expect((await first.kill()).signal).toBe("SIGKILL")
  expect(answers.map(({ op, ref, seq }) => [op, ref, seq])).toEqual(upTo(2_000).map((i) => ["OK", i, i]))

  const second = await startHub(env)
  const events = await readAll(second.ws, "orders.*", 2_000)
  expect(events.map((event) => fieldOf(event, "seq"))).toEqual(upTo(2_000))
  expect(events.map((event) => fieldOf(event, "payload"))).toEqual(upTo(2_000))
  expect((await second.stop()).code).toBe(0)
})

it("publishes under way at a SIGKILL are stored as a prefix, and repeated with their ids make no second event", async () => {
  const env = durableStore()
  const first = await startHub(env)
  const publisher = await RawClient.authenticated(first.ws)
  const publish = (client: RawClient, i: number) =>
    client.send({ op: "PUBLISH", ref: i, topic: "orders.created", payload: i, opts: { id: `id-${i}` } })
  for (const i of upTo(3_000)) publish(publisher, i)
  await publisher.waitForAll("some answers", ({ ref }) => typeof ref === "number", 500)
  await first.kill()
  await publisher.closed
  const acknowledged = publisher.messages.filter(({ ref }) => typeof ref === "number").length

  const second = await startHub(env)
  const again = await RawClient.authenticated(second.ws)
  for (const i of upTo(3_000)) publish(again, i)
  const answers = await again.waitForAll("all answers", ({ ref }) => typeof ref === "number", 3_000)
  expect(answers.map(({ op, seq }) => [op, seq])).toEqual(upTo(3_000).map((i) => ["OK", i]))
  expect(answers.slice(0, acknowledged).every(({ duplicate }) => duplicate === true)).toBe(true)
  const events = await readAll(second.ws, "orders.created", 3_000)
  expect(events.map((event) => fieldOf(event, "id"))).toEqual(upTo(3_000).map((i) => `id-${i}`))
  await second.stop()
})

it.each([
  ["of one key", 1],
  ["of many keys, several batches at once", 100]
])(
  "2,000 outbox records %s arrive once each, whatever the hub does: killed while draining, three times",
  async (_of, keys) => {
    const path = join(temporaryDirectory(), "hub.db")
    const db = new DatabaseSync(path)
    const outbox = createOutbox(db)
    db.exec("CREATE TABLE orders (n INTEGER PRIMARY KEY) STRICT")
    const insert = db.prepare("INSERT INTO orders (n) VALUES (?)")
    const write = (from: number, to: number) => {
      for (let n = from; n <= to; n++) {
        outbox.transaction(() => {
          insert.run(n)
          outbox.add({ topic: "orders.created", key: `${n % keys}`, payload: n })
        })
      }
    }
    const env = { HUB_STORE: `sqlite:${path}`, OUTBOX_BATCH_SIZE: "7" }
    write(1, 500)
    for (const n of [1_000, 1_500, 2_000]) {
      const hub = await startHub(env)
      write(n - 499, n)
      await hub.kill()
    }
    const hub = await startHub(env)
    const events = await readAll(hub.ws, "orders.created", 2_000)
    const payloads = events.map((event) => Number(fieldOf(event, "payload")))
    expect(payloads.toSorted((a, b) => a - b)).toEqual(upTo(2_000))
    for (let key = 0; key < keys; key++) {
      expect(payloads.filter((n) => n % keys === key)).toEqual(upTo(2_000).filter((n) => n % keys === key))
    }
    expect((await hub.stop()).code).toBe(0)
    expect(db.prepare("SELECT state, count(*) AS n FROM outbox GROUP BY state").all()).toEqual([
      { state: "sent", n: 2_000 }
    ])
    expect(db.prepare("SELECT state, n FROM outbox_counts WHERE n <> 0").all()).toEqual([
      { state: "sent", n: 2_000 }
    ])
    db.close()
  }
)

it("a transaction of an application that rolls back leaves no event, under load", async () => {
  const path = join(temporaryDirectory(), "hub.db")
  const hub = await startHub({ HUB_STORE: `sqlite:${path}` })
  const publisher = await RawClient.authenticated(hub.ws)
  const db = new DatabaseSync(path)
  const outbox = createOutbox(db)
  const kept: Array<number> = []
  for (const i of upTo(300)) {
    publisher.send({ op: "PUBLISH", ref: i, topic: "load", payload: i })
    if (i % 10 === 0) await publisher.settled()
    const rollBack = i % 3 === 0
    try {
      outbox.transaction(() => {
        outbox.add({ topic: "orders", payload: i })
        if (rollBack) throw new Error("no")
      })
      kept.push(i)
    } catch {
      expect(rollBack).toBe(true)
    }
  }
  const answers = await publisher.waitForAll("all answers", ({ ref }) => typeof ref === "number", 300)
  expect(answers.every(({ op }) => op === "OK")).toBe(true)
  const events = await readAll(hub.ws, "orders", kept.length)
  expect(new Set(events.map((event) => fieldOf(event, "payload")))).toEqual(new Set(kept))
  expect((await readAll(hub.ws, "load", 300)).map((event) => fieldOf(event, "seq"))).toEqual(upTo(300))
  await hub.stop()
  db.close()
})

it("a group gets again what it has not acknowledged, and nothing it has, after a SIGKILL", async () => {
  const env = durableStore()
  const first = await startHub(env)
  const client = await RawClient.authenticated(first.ws)
  await client.request({ op: "SUBSCRIBE", topic: "jobs", group: "workers", opts: { credit: 200 } })
  for (const i of upTo(100))
    client.send({ op: "PUBLISH", topic: "jobs", payload: i, opts: { id: `job-${i}` } })
  await client.events(100)
  const odd = upTo(100).filter((i) => i % 2 === 1)
  const ids = odd.map((i) => `job-${i}`)
  expect(await client.request({ op: "ACK", topic: "jobs", group: "workers", ids })).toMatchObject({
    op: "OK"
  })
  await first.kill()

  const second = await startHub(env)
  const again = await RawClient.authenticated(second.ws)
  await again.request({ op: "SUBSCRIBE", topic: "jobs", group: "workers", opts: { credit: 200 } })
  const events = await again.events(50)
  expect(events.map((event) => fieldOf(event, "payload")).sort()).toEqual(
    upTo(100)
      .filter((i) => i % 2 === 0)
      .sort()
  )
  await again.settled()
  expect(again.messages.filter(({ op }) => op === "EVENT")).toHaveLength(50)
  await second.stop()
})
