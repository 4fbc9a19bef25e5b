/** What an operator sees of the records of an outbox and does with them; and who may. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { never, type ShopOutbox, shopOutbox } from "../../support/shopOutbox.ts"
import { everything } from "../../support/tokens.ts"
import { ask, askAs, expectProblem, json, read } from "./ops.ts"

const operator = { sub: "olga", scopes: ["admin:**"] }
const directory = mkdtempSync(join(tmpdir(), "event-hub-outbox-"))

let hub: HubProcess
let shop: ShopOutbox

interface Records {
  readonly records: ReadonlyArray<{ readonly id: string; readonly state: string }>
  readonly next: string | null
}

const records = async (query = "", source = "shop") =>
  (await read(hub, `/outbox/${source}/records?${query}`, operator)) as Records

const idsOf = ({ records }: Records) => records.map(({ id }) => id)

const change = async (path: string, body?: unknown): Promise<unknown> => {
  const answer = await askAs(hub, operator, path, body === undefined ? { method: "POST" } : json(body))
  expect([path, answer.status, answer.json]).toEqual([path, 200, answer.json])
  return answer.json
}

const statsOf = async (source: string) => {
  const { outboxes } = (await read(hub, "/outbox", operator)) as {
    readonly outboxes: ReadonlyArray<{ readonly name: string; readonly ok: boolean; readonly stats: unknown }>
  }
  return outboxes.find(({ name }) => name === source)
}

const logged = (msg: string) => hub.lines.filter((line) => line.msg === msg)

beforeAll(async () => {
  const file = join(directory, "shop.db")
  shop = shopOutbox(file)
  hub = await startHub({
    OUTBOX_SOURCES: `shop=sqlite:${file} gone=sqlite:${join(directory, "nothing.db")}`
  })
  await hub.lineWhere(({ msg, source }) => msg === "an outbox is being drained" && source === "shop")
  shop.add([
    { id: "sent-1", state: "sent" },
    { id: "claimed-1", state: "claimed", key: "k", payload: { of: "claimed" } },
    { id: "blocked-1", state: "blocked", key: "k" },
    { id: "later-1", state: "waiting" },
    { id: "dead-1", state: "dead", error: "the log refuses it" },
    { id: "dead-2", state: "dead", topic: "orders.lost", error: "no luck" },
    { id: "broken-1", state: "dead", body: "{", error: "no JSON" },
    { id: "sent-2", state: "sent" }
  ])
})

afterAll(async () => {
  await hub.stop()
  shop.close()
  rmSync(directory, { recursive: true, force: true })
})

describe("records", () => {
  it("are shown with their state, what became of them, and their event", async () => {
    const all = await records()
    expect(all).toMatchObject({ source: "shop", next: null })
    expect(idsOf(all)).toEqual([
      "sent-1",
      "claimed-1",
      "blocked-1",
      "later-1",
      "dead-1",
      "dead-2",
      "broken-1",
      "sent-2"
    ])
    const nothing = { key: null, notBefore: null, worker: null, leaseUntil: null, lastError: null }
    expect(all.records[1]).toEqual({
      id: "claimed-1",
      topic: "orders.made",
      state: "claimed",
      attempts: 1,
      addedAt: 1_001,
      ...nothing,
      key: "k",
      worker: "w1",
      leaseUntil: never,
      event: { id: "claimed-1", topic: "orders.made", ts: 1, key: "k", payload: { of: "claimed" } }
    })
    expect(all.records[3]).toMatchObject({ ...nothing, state: "pending", attempts: 0, notBefore: never })
    expect(all.records[5]).toMatchObject({ state: "dead", topic: "orders.lost", lastError: "no luck" })
    expect(all.records[6]).toMatchObject({ id: "broken-1", event: null, lastError: "no JSON" })
  })

  it("by state, in pages", async () => {
    expect(idsOf(await records("state=pending"))).toEqual(["later-1"])
    expect(idsOf(await records("state=blocked"))).toEqual(["blocked-1"])
    expect(idsOf(await records("state=sent"))).toEqual(["sent-1", "sent-2"])
    const seen: Array<string> = []
    let next: string | null = ""
    do {
      const page: Records = await records(`state=dead&limit=2${next === "" ? "" : `&after=${next}`}`)
      expect(page.records.length).toBeGreaterThan(0)
      seen.push(...idsOf(page))
      next = page.next
    } while (next !== null)
    expect(seen).toEqual(["dead-1", "dead-2", "broken-1"])
    expectProblem(await askAs(hub, operator, "/outbox/shop/records?state=lost"), 400, /'state'/)
    expectProblem(
      await askAs(hub, operator, "/outbox/shop/records?stat=dead"),
      400,
      /no query parameter 'stat'/
    )
  })

  it("a page of large ones holds fewer than asked for, and goes on", async () => {
    const large = Array.from({ length: 60 }, (_, i) => `large-${i}`)
    shop.add(
      large.map((id) => ({ id, state: "waiting", topic: "large", payload: "x".repeat(200_000) }) as const)
    )
    const seen: Array<string> = []
    let next: string | null = null
    let pages = 0
    do {
      const page: Records = await records(`state=pending&limit=1000${next === null ? "" : `&after=${next}`}`)
      expect(JSON.stringify(page).length).toBeLessThan(5_000_000)
      seen.push(...idsOf(page))
      next = page.next
      pages++
    } while (next !== null)
    expect(seen).toEqual(["later-1", ...large])
    expect(pages).toBe(3)
  })

  it("of the hub's own outbox, too", async () => {
    expect(await records("", "hub")).toEqual({ source: "hub", records: [], next: null })
  })
})

describe("changes", () => {
  it("pause: no drainer takes anything until it is resumed", async () => {
    const reason = "the log is being moved"
    expect(await change("/outbox/shop/pause", { reason })).toEqual({ source: "shop", paused: true })
    expect(await statsOf("shop")).toMatchObject({ stats: { paused: true } })
    expect(await change("/outbox/shop/resume")).toEqual({ source: "shop", paused: false })
    expect(await statsOf("shop")).toMatchObject({ stats: { paused: false } })
    expect(logged("outbox paused")).toMatchObject([{ sub: "olga", source: "shop", reason }])
    expect(logged("outbox resumed")).toMatchObject([{ sub: "olga", source: "shop" }])
  })

  it("redrive: some or all dead records, after a look at how many", async () => {
    await change("/outbox/shop/pause")
    const ids = [
      { topic: "orders.lost", id: "dead-2" },
      { topic: "orders.made", id: "sent-1" },
      { topic: "orders.made", id: "nothing" }
    ]
    const redrive = (body: object) =>
      change("/outbox/shop/redrive", { ...body, reason: "the topic is there" })
    expect(await redrive({ ids, dryRun: true })).toEqual({ source: "shop", dryRun: true, matched: 1 })
    expect(await redrive({ all: true, dryRun: true })).toEqual({ source: "shop", dryRun: true, matched: 3 })
    expect(idsOf(await records("state=dead"))).toEqual(["dead-1", "dead-2", "broken-1"])
    expect(logged("outbox records redriven")).toEqual([])
    expect(await redrive({ ids })).toEqual({ source: "shop", dryRun: false, matched: 1 })
    expect(idsOf(await records("state=dead"))).toEqual(["dead-1", "broken-1"])
    expect(logged("outbox records redriven")).toMatchObject([
      { sub: "olga", source: "shop", ids, matched: 1, reason: "the topic is there" }
    ])
    await change("/outbox/shop/resume")
    await expect.poll(async () => idsOf(await records("state=sent"))).toContain("dead-2")
    expect(await read(hub, "/topics?pattern=orders.lost")).toMatchObject({ topics: [{ head: 1 }] })
  })

  it.each([
    [{}, /'(ids|all)' is missing/],
    [{ all: false }, /'all'/],
    [{ all: true, ids: [] }, /there is no body field/],
    [{ all: true, dryrun: true }, /there is no body field 'dryrun'/],
    [{ ids: [{ id: "1" }] }, /'ids.0.topic' is missing/],
    [{ ids: Array.from({ length: 1_001 }, () => ({ topic: "a", id: "b" })) }, /'ids'/]
  ])("a redrive that does not say what is refused: %#", async (body, detail) => {
    expectProblem(await askAs(hub, operator, "/outbox/shop/redrive", json(body)), 400, detail)
  })

  it("purge: what was sent long ago, after a look at how many", async () => {
    const purge = (body: object) => change("/outbox/shop/purge", { reason: "the disk is full", ...body })
    const century = 3_155_760_000_000
    expect(await purge({ olderThanMs: century, dryRun: true })).toMatchObject({ matched: 0 })
    const minute = { olderThanMs: 60_000 }
    expect(await purge({ ...minute, dryRun: true })).toEqual({ source: "shop", dryRun: true, matched: 2 })
    expect(idsOf(await records("state=sent"))).toEqual(expect.arrayContaining(["sent-1", "sent-2"]))
    expect(await purge(minute)).toEqual({ source: "shop", dryRun: false, matched: 2 })
    expect(idsOf(await records("state=sent"))).toEqual(["dead-2"])
    expect(logged("outbox purged")).toMatchObject([
      { sub: "olga", source: "shop", ...minute, matched: 2, reason: "the disk is full" }
    ])
    for (const olderThanMs of [-1, 1.5, century + 1, "1"]) {
      const answer = await askAs(hub, operator, "/outbox/shop/purge", json({ olderThanMs }))
      expectProblem(answer, 400, /'olderThanMs'/)
    }
  })
})

const calls: ReadonlyArray<readonly [path: string, init: RequestInit]> = [
  ["records", {}],
  ["redrive", json({ all: true, dryRun: true })],
  ["purge", json({ olderThanMs: 0, dryRun: true })],
  ["pause", { method: "POST" }],
  ["resume", { method: "POST" }]
]

it.each(calls)("%s: 401, then 403, then 404 or 503", async (name, init) => {
  const path = (source: string) => `/outbox/${source}/${name}`
  expectProblem(await ask(hub, path("shop"), init), 401, /token/)
  for (const token of [{ scopes: everything }, { scopes: ["admin:orders.**"] }]) {
    for (const source of ["shop", "nobody", "gone"]) {
      expectProblem(await askAs(hub, token, path(source), init), 403, /^no right to administrate '\*\*'$/)
    }
  }
  expectProblem(await askAs(hub, operator, path("nobody"), init), 404, /no outbox 'nobody'/)
  const gone = await askAs(hub, operator, path("gone"), init)
  expectProblem(gone, 503, /outbox 'gone' is not open: there is no such file/)
})
