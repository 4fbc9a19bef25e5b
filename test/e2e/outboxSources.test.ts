/**
 * Hubs that drain the outboxes of others: two MongoDB databases, one of which is not there at first, a collection that
 * is a relay's, and the file of a service on SQLite.
 */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { MongoClient } from "mongodb"
import { expect, it, onTestFinished } from "vitest"
import { claimOwnership, createOutbox } from "../../src/layers/mongo/index.ts"
import { featuresOf } from "../../src/layers/mongo/MongoDatabase.ts"
import { createOutbox as createSqliteOutbox } from "../../src/layers/sqlite/index.ts"
import { askAs, read } from "../layers/http/ops.ts"
import { type Exposition, parsePrometheus } from "../layers/http/prometheus.ts"
import { type HubProcess, runToEnd, startHub } from "../support/HubProcess.ts"
import { describeMongo, dropDatabase, urlOfNewDatabase } from "../support/mongo.ts"
import { proxyTo } from "../support/mongoProxy.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"

interface Shown {
  readonly name: string
  readonly at: string
  readonly ok: boolean
  readonly problem: string | null
  readonly drainer: { readonly sent: number } | null
  readonly stats: { readonly counts: Readonly<Record<string, number>> } | null
}

const admin = { scopes: ["admin:**"] }

const outboxesOf = async (hub: HubProcess): Promise<ReadonlyMap<string, Shown>> => {
  const { outboxes } = (await read(hub, "/outbox", admin)) as { readonly outboxes: ReadonlyArray<Shown> }
  return new Map(outboxes.map((one) => [one.name, one]))
}

/** The outbox as soon as `is` holds; the time limit of the test is its own. */
const outboxWhere = async (hub: HubProcess, name: string, is: (shown: Shown) => boolean): Promise<Shown> => {
  for (;;) {
    const shown = (await outboxesOf(hub)).get(name)
    if (shown !== undefined && is(shown)) return shown
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const readiness = async (hub: HubProcess) => {
  const answer = await fetch(`${hub.ops}/readyz`)
  const { checks, ready } = (await answer.json()) as {
    readonly ready: boolean
    readonly checks: ReadonlyArray<{ readonly name: string; readonly detail?: string }>
  }
  return { status: answer.status, ready, checks: new Map(checks.map((check) => [check.name, check])) }
}

/** What is in an outbox is looked up beside the scrape that first asks for it. */
const scrapeWhere = async (hub: HubProcess, is: (exposition: Exposition) => boolean): Promise<Exposition> => {
  for (;;) {
    const exposition = parsePrometheus(await (await fetch(`${hub.ops}/metrics`)).text())
    if (is(exposition)) return exposition
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const start = async (env: Readonly<Record<string, string>>): Promise<HubProcess> => {
  const hub = await startHub(env)
  onTestFinished(async () => void (await hub.kill()))
  return hub
}

const idsOf = async (hub: HubProcess, topic: string, n: number): Promise<ReadonlyArray<string>> => {
  const client = await RawClient.authenticated(hub.ws)
  await client.request({ op: "SUBSCRIBE", topic, opts: { from: "start" } })
  await client.events(n)
  await client.settled()
  const ids = client.messages.flatMap(({ event, op }) =>
    op === "EVENT" ? [(event as { readonly id: string }).id] : []
  )
  await client.close()
  return ids
}

it("what is wrong with sources stops the start with one line, without their passwords", async () => {
  const { code, stderr, stdout } = await runToEnd({
    HUB_STORE: "memory:",
    OUTBOX_SOURCES: "shop=mongodb://anna:geheim@h shop"
  })
  expect(stderr).toMatch(
    /^event-hub: the configuration is wrong: OUTBOX_SOURCES entry 1 .*; OUTBOX_SOURCES entry 2 .*\n$/
  )
  expect(stdout + stderr).not.toContain("geheim")
  expect(code).toBe(1)
})

it(
  "a service's own SQLite file is drained once it is there, by one hub at a time",
  { timeout: 60_000 },
  async () => {
    const path = join(temporaryDirectory(), "billing.db")
    const env = { HUB_STORE: "memory:", OUTBOX_SOURCES: `billing=sqlite:${path}` }
    const hub = await start(env)
    const { problem } = await outboxWhere(
      hub,
      "billing",
      ({ problem }) => problem?.includes("no such file") === true
    )
    expect(problem).toBe("there is no such file; the service that adds to it makes it")
    expect(await readiness(hub)).toMatchObject({ status: 200, ready: true })

    const db = new DatabaseSync(path)
    onTestFinished(() => db.close())
    const outbox = createSqliteOutbox(db)
    const add = (id: string) => outbox.transaction(() => outbox.add({ id, topic: "bills.made", payload: id }))
    add("1")
    expect(await idsOf(hub, "bills.made", 1)).toEqual(["1"])

    const heir = await start(env)
    const waiting = await outboxWhere(
      heir,
      "billing",
      ({ problem }) => problem?.includes("another hub") === true
    )
    expect(waiting).toMatchObject({ ok: false, drainer: null, stats: null })
    expect(await hub.stop()).toEqual({ code: 0, signal: null })
    add("2")
    expect(await idsOf(heir, "bills.made", 1)).toEqual(["2"])
  }
)

it("looking at outboxes takes the right to administrate everything", async () => {
  const hub = await start({ HUB_STORE: "memory:" })
  expect((await fetch(`${hub.ops}/outbox`)).status).toBe(401)
  expect((await askAs(hub, {}, "/outbox")).status).toBe(403)
  expect((await askAs(hub, { scopes: ["admin:orders.**"] }, "/outbox")).status).toBe(403)
  expect(await read(hub, "/outbox", admin)).toMatchObject({
    outboxes: [{ name: "hub", at: "memory:", ok: true, problem: null, lacks: [], stats: { paused: false } }]
  })
})

describeMongo("outboxes in MongoDB databases", (mongo) => {
  const newDatabase = async () => {
    const url = urlOfNewDatabase(mongo)
    const client = new MongoClient(url)
    onTestFinished(async () => {
      await client.close()
      await dropDatabase(url)
    })
    return { url, db: client.db() }
  }

  it(
    "are drained by a hub on SQLite; one that is not there at first holds up nothing",
    { timeout: 60_000 },
    async () => {
      const [shop, crm] = [await newDatabase(), await newDatabase()]
      const way = await proxyTo(crm.url)
      way.cut()
      await claimOwnership(shop.db.collection("relayed"), "relay")
      const [host, secret] = [new URL(way.url.replace("mongodb:", "http:")).host, "geheim"]
      const hub = await start({
        HUB_STORE: `sqlite:${join(temporaryDirectory(), "hub.db")}`,
        MONGO_SERVER_SELECTION_TIMEOUT_MS: "500",
        OUTBOX_SOURCES: [
          `shop=${shop.url}#events_to_send`,
          `crm=${way.url}`,
          `foreign=${shop.url}#relayed`,
          `lost=mongodb://anna:${secret}@127.0.0.1:1/lost`
        ].join("\n ")
      })
      const boxes = {
        shop: createOutbox(shop.db, { collection: "events_to_send" }),
        crm: createOutbox(crm.db)
      }
      await boxes.shop.prepare()
      await boxes.crm.prepare()
      for (const id of ["1", "2"]) await boxes.shop.add({ id, topic: "shop.sold", payload: id })
      await boxes.crm.add({ id: "late", topic: "crm.met", payload: 1 })

      expect(await idsOf(hub, "shop.sold", 2)).toEqual(["1", "2"])
      await outboxWhere(hub, "lost", ({ problem }) => problem?.includes("ECONNREFUSED") === true)
      await outboxWhere(hub, "crm", ({ problem }) => problem !== null && !problem.includes("first time"))
      await outboxWhere(hub, "foreign", ({ problem }) => problem?.includes("relay") === true)
      const answer = await askAs(hub, admin, "/outbox")
      expect(answer.text).not.toMatch(/geheim|anna/)
      const before = await outboxesOf(hub)
      expect([...before.keys()]).toEqual(["hub", "shop", "crm", "foreign", "lost"])
      expect(before.get("crm")).toMatchObject({ ok: false, drainer: null, stats: null })
      expect(before.get("crm")?.at).toMatch(new RegExp(`^mongodb://${host}/test_\\w+#outbox$`))
      expect(before.get("lost")?.at).toBe("mongodb://127.0.0.1:1/lost#outbox")
      expect(before.get("foreign")?.problem).toContain("'relayed' is the outbox of a relay")

      const notYet = await readiness(hub)
      expect([notYet.status, notYet.ready]).toEqual([200, true])
      expect(notYet.checks.get("outbox")).toEqual({ name: "outbox", ok: true })
      expect(notYet.checks.get("outbox:crm")).toMatchObject({ ok: false, required: false })
      const { changeStreams, transactions } = await featuresOf(shop.db)
      const lacks = [
        changeStreams ? [] : ["no change streams"],
        transactions ? [] : ["no transactions"]
      ].flat()
      for (const lack of lacks) expect(notYet.checks.get("outbox:shop")?.detail).toContain(lack)
      expect(notYet.checks.get("outbox:shop")).toMatchObject({ ok: true, required: false })
      expect(JSON.stringify([...notYet.checks, hub.lines])).not.toContain(secret)

      const { valueOf } = await scrapeWhere(hub, ({ valueOf }) =>
        Number.isFinite(valueOf('event_hub_outbox_pending_records{source="shop"}'))
      )
      expect(valueOf('event_hub_outbox_up{source="shop"}')).toBe(1)
      expect(valueOf('event_hub_outbox_up{source="crm"}')).toBe(0)
      expect(valueOf('event_hub_outbox_sent_total{source="shop"}')).toBe(2)
      expect(valueOf('event_hub_outbox_pending_records{source="shop"}')).toBe(0)

      way.mend()
      expect(await idsOf(hub, "crm.met", 1)).toEqual(["late"])
      await outboxWhere(hub, "crm", ({ ok, drainer }) => ok && drainer?.sent === 1)
      expect((await readiness(hub)).checks.get("outbox:crm")).toMatchObject({ ok: true })

      // What goes away later comes back by itself, and is told of meanwhile.
      way.cut()
      await outboxWhere(hub, "crm", ({ ok, stats }) => !ok && stats === null)
      expect((await readiness(hub)).ready).toBe(true)
      await boxes.crm.add({ id: "again", topic: "crm.met", payload: 1 })
      way.mend()
      expect(await idsOf(hub, "crm.met", 2)).toEqual(["late", "again"])

      const collections = await shop.db.listCollections().toArray()
      expect(collections.map(({ name }) => name).toSorted()).toEqual(["events_to_send", "relayed"])
      expect(await hub.stop()).toEqual({ code: 0, signal: null })
    }
  )

  it("two hubs over one log and one source bring everything once", { timeout: 60_000 }, async () => {
    const [log, shop] = [await newDatabase(), await newDatabase()]
    const env = { MONGO_URL: log.url, OUTBOX_SOURCES: `shop=${shop.url}`, OUTBOX_BATCH_SIZE: "5" }
    const hubs = await Promise.all([start(env), start(env)])
    const { changeStreams, transactions } = await featuresOf(log.db)
    const store = (await readiness(hubs[0])).checks.get("store")
    expect(store).toMatchObject({ ok: true })
    if (!transactions) expect(store?.detail).toContain("no transactions")
    if (!changeStreams) expect(store?.detail).toContain("no change streams")
    const outbox = createOutbox(shop.db)
    await outbox.prepare()
    const ids = Array.from({ length: 200 }, (_, n) => `e${n}`)
    await Promise.all(
      ids.map((id, n) => outbox.add({ id, topic: "shop.sold", key: `k${n % 7}`, payload: n }))
    )
    const found = await idsOf(hubs[0], "shop.sold", ids.length)
    expect(found.toSorted()).toEqual(ids.toSorted())
    for (const hub of hubs)
      await outboxWhere(hub, "shop", ({ stats }) => stats?.counts["sent"] === ids.length)
    const sent = await Promise.all(
      hubs.map(async (hub) => (await outboxesOf(hub)).get("shop")?.drainer?.sent)
    )
    expect((sent[0] ?? 0) + (sent[1] ?? 0)).toBe(ids.length)
    expect(await Promise.all(hubs.map((hub) => hub.stop()))).toEqual(
      hubs.map(() => ({ code: 0, signal: null }))
    )
  })
})
