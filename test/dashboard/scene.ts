/**
 * A hub with something in each view of the dashboard: topics, groups that are behind or paused, a blocked key, dead
 * letters, outbox records that were given up, and a connection that does not read.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { expect } from "vitest"
import { createOutbox } from "../../src/layers/sqlite/createOutbox.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { everything, tokenFor } from "../support/tokens.ts"

export interface Scene {
  readonly hub: HubProcess
  /** May do all. */
  readonly operator: string
  readonly client: RawClient
  readonly publish: (topic: string, payload: unknown, opts?: object) => Promise<void>
  /** Somebody new connects, and reads nothing of what comes; the hub puts up with it for a while. */
  readonly stopReading: () => Promise<void>
  readonly stop: () => Promise<void>
}

export const operatorScopes = [...everything, "subscribe:$hub.**", "admin:**"]

const payloadOf = (i: number) => ({
  order: 1_000 + i,
  customer: `customer-${i % 17}`,
  items: [{ sku: `kettle-${i % 5}`, quantity: 1 + (i % 3) }],
  total: 19.9 + i
})

/** Its socket is not read from any more; what it subscribed comes all the same. */
const readNothing = async (hub: HubProcess): Promise<RawClient> => {
  const slow = await RawClient.authenticated(hub.ws, { sub: "report-viewer", scopes: everything })
  await slow.request({ op: "SUBSCRIBE", topic: "flood.**", opts: { from: "new" } })
  slow.socket.pause()
  return slow
}

export const startScene = async (): Promise<Scene> => {
  const directory = mkdtempSync(join(tmpdir(), "event-hub-"))
  const path = join(directory, "hub.db")
  const hub = await startHub({ HUB_STORE: `sqlite:${path}` })
  const operator = await tokenFor({ sub: "olga", scopes: operatorScopes, expiresIn: 7_200 })
  const client = await RawClient.authenticated(hub.ws, { sub: "shop", scopes: everything })

  const ok = async (message: Readonly<Record<string, unknown>>, by = client) =>
    expect(await by.request(message)).toMatchObject({ op: "OK" })
  const publish = (topic: string, payload: unknown, opts: object = {}) =>
    ok({ op: "PUBLISH", topic, payload, opts })
  const publishMany = async (topic: string, n: number, optsOf: (i: number) => object = () => ({})) => {
    for (let i = 1; i <= n; i++) client.send({ op: "PUBLISH", topic, payload: payloadOf(i), opts: optsOf(i) })
    await client.settled()
  }

  await publishMany("orders.eu.created", 120, (i) => ({
    id: `eu-${i}`,
    key: `customer-${i % 17}`,
    type: "created"
  }))
  await publishMany("orders.us.created", 60, (i) => ({ key: `customer-${i % 7}`, type: "created" }))
  await publishMany("billing.invoices", 40)
  await publish("users.changed", { name: "Ada", city: "London" }, { key: "ada", headers: { source: "crm" } })
  await publish("users.changed", { name: "Grace", city: "New York" }, { key: "grace" })
  await publish("users.changed", { name: "Ada", city: "Paris" }, { key: "ada", type: "moved" })

  // A key-ordered group: one event failed and blocks its key, others are poison, most is not taken yet.
  const mailer = await RawClient.authenticated(hub.ws, { sub: "mailer", scopes: everything })
  const at = { topic: "orders.eu.created", group: "mailer" }
  const opts = { from: "start", credit: 20, keyOrdered: true, ackTimeoutMs: 600_000 }
  await ok({ op: "SUBSCRIBE", topic: "orders.eu.*", group: "mailer", opts }, mailer)
  await mailer.events(5)
  await ok(
    { op: "NACK", ...at, id: "eu-1", reason: "SMTP 451: try again later", mode: "fail", delayMs: 600_000 },
    mailer
  )
  await ok({ op: "NACK", ...at, id: "eu-2", reason: "no e-mail address", mode: "poison" }, mailer)
  await ok(
    { op: "NACK", ...at, id: "eu-3", reason: "<b>template</b> 'welcome' is missing", mode: "poison" },
    mailer
  )
  await ok({ op: "NACK", ...at, id: "eu-4", reason: "no e-mail address", mode: "poison" }, mailer)
  await ok({ op: "ACK", ...at, ids: ["eu-5"] }, mailer)

  // Nobody is there, and it is behind in everything.
  const reports = await RawClient.authenticated(hub.ws, { sub: "reports", scopes: everything })
  await ok(
    { op: "SUBSCRIBE", topic: "orders.**", group: "reports", opts: { from: "start", credit: 1 } },
    reports
  )
  await ok(
    { op: "SUBSCRIBE", topic: "billing.**", group: "reports", opts: { from: "start", credit: 1 } },
    reports
  )
  await reports.events(1)
  await reports.close()

  const audit = await RawClient.authenticated(hub.ws, { sub: "audit", scopes: everything })
  await ok({ op: "SUBSCRIBE", topic: "billing.*", group: "audit", opts: { from: "new" } }, audit)
  const paused = await fetch(`${hub.ops}/groups/audit/pause`, {
    method: "POST",
    headers: { authorization: `Bearer ${operator}`, "content-type": "application/json" },
    body: JSON.stringify({ reason: "the archive is being moved" })
  })
  expect(paused.status).toBe(200)
  await publishMany("billing.invoices", 5)

  const flood = "x".repeat(60_000)
  const stuck: Array<RawClient> = []
  const stopReading = async () => {
    stuck.push(await readNothing(hub))
    for (let i = 0; i < 150; i++) client.send({ op: "PUBLISH", topic: "flood.a", payload: flood })
    await client.settled()
  }

  const db = new DatabaseSync(path)
  const outbox = createOutbox(db)
  outbox.transaction(() => {
    for (let i = 1; i <= 12; i++) outbox.add({ id: `sent-${i}`, topic: "shop.sold", payload: payloadOf(i) })
    const later = { notBefore: Date.now() + 3_600_000 }
    for (let i = 1; i <= 3; i++)
      outbox.add({ id: `later-${i}`, topic: "shop.reminders", payload: { i } }, later)
    for (let i = 1; i <= 3; i++)
      outbox.add({ id: `dead-${i}`, topic: "shop.refunds", payload: { refund: i } }, later)
  })
  // As the drainer leaves them after the last attempt.
  const given = "state = 'dead', attempts = 10, done_at = ?, not_before = NULL, last_error = ?"
  db.prepare(`UPDATE outbox SET ${given} WHERE topic = 'shop.refunds'`).run(
    Date.now(),
    "the log did not take it: <i>unavailable</i>"
  )
  db.exec("UPDATE outbox_counts SET n = n - 3 WHERE state = 'waiting'")
  db.exec("UPDATE outbox_counts SET n = n + 3 WHERE state = 'dead'")
  db.close()

  const stop = async () => {
    for (const one of stuck) one.socket.terminate()
    for (const one of [client, mailer, audit]) await one.close()
    await hub.stop()
    rmSync(directory, { recursive: true, force: true })
  }
  return { hub, operator, client, publish, stopReading, stop }
}
