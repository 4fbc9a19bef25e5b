/**
 * Every endpoint that changes something says in the log who did it and why: each one of the contract, so that one that
 * is added later and says nothing fails here. What is refused, and a dry run, is no change and makes no line.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { type ShopOutbox, shopOutbox } from "../../support/shopOutbox.ts"
import { everything } from "../../support/tokens.ts"
import { endpoints } from "./endpoints.ts"
import { askAs, json } from "./ops.ts"

const operator = { sub: "olga", scopes: [...everything, "admin:**"] }
const directory = mkdtempSync(join(tmpdir(), "event-hub-audit-"))

let hub: HubProcess
let client: RawClient
let shop: ShopOutbox
let exported: string
let revoked: string

interface Call {
  readonly path: string
  readonly init: RequestInit
  /** The same as a dry run; none where the endpoint knows none. */
  readonly dry?: Call
}

const post = (path: string, body: object, dry?: object): Call => ({
  path,
  init: json(body),
  ...(dry === undefined ? {} : { dry: { path, init: json({ ...body, ...dry }) } })
})

const ndjson = (): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/x-ndjson" },
  body: exported
})

const dryRun = { dryRun: true }

/** A change by each endpoint, for the reason given; in an order in which all of them find something to do. */
const changes: Readonly<Record<string, (reason: string) => Call>> = {
  "POST /publish": (reason) => {
    const query = new URLSearchParams({ reason })
    return { path: `/publish?${query}`, init: json({ topic: "audit.made", payload: 1 }) }
  },
  "POST /import": (reason) => {
    const query = new URLSearchParams({ reason })
    const dry = { path: `/import?${query}&dryRun=true`, init: ndjson() }
    return { path: `/import?${query}`, init: ndjson(), dry }
  },
  "POST /groups/:group/release-key": (reason) =>
    post("/groups/audited/release-key", { topic: "audit.a", key: "k", mode: "dead-letter", reason }, dryRun),
  "POST /dead-letters/redrive": (reason) =>
    post("/dead-letters/redrive", { group: "audited", topic: "audit.a", reason }, dryRun),
  "POST /groups/:group/seek": (reason) => post("/groups/audited/seek", { to: "end", reason }, dryRun),
  "POST /groups/:group/pause": (reason) => post("/groups/audited/pause", { reason }),
  "POST /groups/:group/resume": (reason) => post("/groups/audited/resume", { reason }),
  "DELETE /groups/:group": (reason) => {
    const path = `/groups/audited?${new URLSearchParams({ reason })}`
    const init = { method: "DELETE" }
    return { path, init, dry: { path: `${path}&dryRun=true`, init } }
  },
  "POST /outbox/:source/redrive": (reason) => post("/outbox/shop/redrive", { all: true, reason }, dryRun),
  "POST /outbox/:source/purge": (reason) => post("/outbox/shop/purge", { olderThanMs: 1, reason }, dryRun),
  "POST /outbox/:source/pause": (reason) => post("/outbox/shop/pause", { reason }),
  "POST /outbox/:source/resume": (reason) => post("/outbox/shop/resume", { reason }),
  "POST /revocations": (reason) => post("/revocations", { tokenId: "audited", reason }, dryRun),
  "DELETE /revocations/:id": (reason) => {
    const path = `/revocations/${revoked}?${new URLSearchParams({ reason })}`
    const init = { method: "DELETE" }
    return { path, init, dry: { path: `${path}&dryRun=true`, init } }
  }
}

/** A POST only because of what it is asked with. */
const changesNothing = ["POST /policy/explain"]

beforeAll(async () => {
  const file = join(directory, "shop.db")
  shop = shopOutbox(file)
  hub = await startHub({
    GROUP_RETRY_BASE_MS: "60000",
    GROUP_RETRY_MAX_MS: "60000",
    OUTBOX_SOURCES: `shop=sqlite:${file}`
  })
  await hub.lineWhere(({ msg, source }) => msg === "an outbox is being drained" && source === "shop")
  shop.add([
    { id: "sent", state: "sent" },
    { id: "dead", state: "dead" }
  ])
  client = await RawClient.authenticated(hub.ws)
  const topic = "audit.a"
  for (const id of ["1", "2"]) {
    await client.request({ op: "PUBLISH", topic, payload: id, opts: { id, key: "k" } })
  }
  const opts = { from: "start", keyOrdered: true }
  await client.request({ op: "SUBSCRIBE", topic, group: "audited", opts })
  await client.events(1)
  await client.request({ op: "NACK", topic, group: "audited", id: "1", reason: "not now" })
  exported = (await askAs(hub, operator, `/export?topic=${topic}`)).text
  const revocation = await askAs(hub, operator, "/revocations", json({ tokenId: "gone" }))
  revoked = (revocation.json as { readonly id: string }).id
})

afterAll(async () => {
  await client.close()
  await hub.stop()
  shop.close()
  rmSync(directory, { recursive: true, force: true })
})

const linesFor = (reason: string) => hub.lines.filter((line) => line["reason"] === reason)

it("names every endpoint that changes something", () => {
  const named = endpoints.filter(({ method }) => method !== "GET").map(({ name }) => name)
  expect(named.filter((name) => !changesNothing.includes(name)).sort()).toEqual(Object.keys(changes).sort())
})

it.each(Object.keys(changes))("%s", async (name) => {
  const reason = `why ${name}`
  const { dry, init, path } = changes[name]!(reason)
  const refused = await askAs(hub, { scopes: [], sub: "nobody" }, path, init)
  if (dry !== undefined) {
    const answer = await askAs(hub, operator, dry.path, dry.init)
    expect([answer.status, answer.json]).toMatchObject([200, { dryRun: true }])
  }
  const answer = await askAs(hub, operator, path, init)
  expect([answer.status, answer.text]).toEqual([200, answer.text])
  // Lines come in the order in which they were written: one that should not be there would be before this one.
  await hub.lineWhere((line) => line["reason"] === reason && line["sub"] === "olga")
  // An import answers 200 to somebody who may write nowhere: its lines are bad ones.
  const mine =
    refused.status === 200 ? linesFor(reason).filter(({ sub }) => sub === "olga") : linesFor(reason)
  expect(mine).toHaveLength(1)
  expect(mine[0]!.msg).not.toMatch(/not known/)
})
