/**
 * Whoever has no right to a topic learns nothing of it, on any endpoint: no event, no name, not even whether there is
 * one. Every endpoint is asked with names that exist and with names that do not; the answers have to be the same, but
 * for what was asked. An endpoint that is missing here fails, so that one that is added later is looked at, too.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { type ShopOutbox, shopOutbox } from "../../support/shopOutbox.ts"
import { everything, tokenFor, type TokenOptions } from "../../support/tokens.ts"
import { endpoints } from "./endpoints.ts"
import { ask, askAs, json } from "./ops.ts"

/** In every name, key, id, payload and reason that is none of the reader's business. */
const marker = "zq7"

/** What a reader may ask about. */
interface Names {
  readonly topic: string
  readonly pattern: string
  readonly group: string
  readonly key: string
  readonly id: string
  /** Of a topic of the hub's own: the one that it names. */
  readonly original?: string
}

const existing: Names = {
  topic: `${marker}.orders`,
  pattern: `${marker}.**`,
  group: `${marker}-group`,
  key: `${marker}-key`,
  id: `${marker}-1`
}

const absent: Names = {
  topic: "absent.orders",
  pattern: "absent.**",
  group: "absent-group",
  key: "absent-key",
  id: "absent-1"
}

/** The same names, for what the hub itself writes of them. */
const ownOf = (names: Names, prefix: string): Names => ({
  ...names,
  original: names.topic,
  topic: `${prefix}.${names.topic}`,
  pattern: `${prefix}.**`
})

type Request = readonly [path: string, init?: RequestInit]

const query = (fields: Readonly<Record<string, string>>): string => String(new URLSearchParams(fields))

const pages = (path: string): ReadonlyArray<Request> => {
  const more = path.includes("?") ? "&" : "?"
  return [[path], [`${path}${more}limit=1`], [`${path}${more}after=0`], [`${path}${more}limit=1000`]]
}

const ndjson = (topic: string, id: string): RequestInit => {
  const header = { format: "event-hub/export", version: 1, history: "h", exportedAt: 1, topic: "**" }
  const event = { seq: 1, storedAt: 1, id, topic, ts: 1, payload: 1 }
  return {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: `${JSON.stringify(header)}\n${JSON.stringify(event)}\n`
  }
}

const at = ({ group, topic }: Names) => query({ topic, group })

/** Every plausible way to ask each endpoint about a name. */
const asked: Readonly<Record<string, (names: Names) => ReadonlyArray<Request>>> = {
  "GET /topics": ({ pattern, topic }) => [
    ...pages("/topics"),
    ...pages(`/topics?${query({ pattern })}`),
    ...pages(`/topics?${query({ pattern: topic })}`)
  ],
  "GET /cursors": ({ topic }) => pages(`/cursors?${query({ topic })}`),
  "GET /lag": (names) => [[`/lag?${at(names)}`]],
  "GET /latest-by-key": ({ key, topic }) => [
    ...pages(`/latest-by-key?${query({ topic })}`),
    [`/latest-by-key?${query({ topic, key })}`],
    [`/latest-by-key?${query({ topic, key })}&key=other`]
  ],
  "GET /events": ({ pattern, topic }) => [
    ...pages(`/events?${query({ topic })}`),
    ...pages(`/events?${query({ topic: pattern })}`),
    ...pages("/events?topic=**"),
    [`/events?${query({ topic, from: "1", to: "2", order: "desc" })}`]
  ],
  "GET /export": ({ pattern, topic }) => [
    ["/export"],
    [`/export?${query({ topic })}`],
    [`/export?${query({ topic: pattern })}`],
    [`/export?${query({ topic, from: "1", to: "2" })}`]
  ],
  "POST /import": ({ id, topic }) => [
    ["/import", ndjson(topic, id)],
    ["/import?dryRun=true", ndjson(topic, id)],
    ["/import?strict=true", ndjson(topic, id)]
  ],
  "POST /publish": ({ id, topic }) => [
    ["/publish", json({ topic, payload: 1 })],
    ["/publish", json([{ topic, payload: 1, id }])]
  ],
  "GET /groups": () => pages("/groups"),
  "GET /groups/:group": ({ group }) => pages(`/groups/${group}`),
  "POST /groups/:group/seek": ({ group, pattern, topic }) => [
    [`/groups/${group}/seek`, json({ to: "start", dryRun: true })],
    [`/groups/${group}/seek`, json({ to: { seq: 0 }, topic })],
    [`/groups/${group}/seek`, json({ to: "end", topic: pattern })]
  ],
  "POST /groups/:group/pause": ({ group }) => [[`/groups/${group}/pause`, json({})]],
  "POST /groups/:group/resume": ({ group }) => [[`/groups/${group}/resume`, json({})]],
  "DELETE /groups/:group": ({ group }) => [
    [`/groups/${group}`, { method: "DELETE" }],
    [`/groups/${group}?dryRun=true`, { method: "DELETE" }]
  ],
  "GET /groups/:group/blocked-keys": ({ group, topic }) => [
    [`/groups/${group}/blocked-keys?${query({ topic })}`],
    [`/groups/${group}/blocked-keys?${query({ topic, limit: "1" })}`]
  ],
  "POST /groups/:group/release-key": ({ group, key, topic }) => [
    [`/groups/${group}/release-key`, json({ topic, key, mode: "retry", dryRun: true })],
    [`/groups/${group}/release-key`, json({ topic, key, mode: "dead-letter" })]
  ],
  "GET /dead-letters": (names) => [
    ...pages(`/dead-letters?${at(names)}`),
    [`/dead-letters?${at(names)}&${query({ id: names.id, key: names.key })}`],
    [`/dead-letters?${at(names)}&letter=1`]
  ],
  "POST /dead-letters/redrive": ({ group, id, topic }) => [
    ["/dead-letters/redrive", json({ group, topic, dryRun: true })],
    ["/dead-letters/redrive", json({ group, topic, filter: { ids: [id] } })]
  ],
  "GET /outbox": () => [["/outbox"]],
  "GET /outbox/:source/records": () => pages("/outbox/shop/records"),
  "POST /outbox/:source/redrive": ({ id, topic }) => [
    ["/outbox/shop/redrive", json({ all: true, dryRun: true })],
    ["/outbox/shop/redrive", json({ ids: [{ topic, id }] })]
  ],
  "POST /outbox/:source/purge": () => [["/outbox/shop/purge", json({ olderThanMs: 0, dryRun: true })]],
  "POST /outbox/:source/pause": () => [["/outbox/shop/pause", json({})]],
  "POST /outbox/:source/resume": () => [["/outbox/shop/resume", json({})]],
  "GET /policy/explain": ({ group, topic }) =>
    ["publish", "subscribe", "admin"].flatMap((action): ReadonlyArray<Request> => [
      [`/policy/explain?${query({ action, topic })}`],
      [`/policy/explain?${query({ action, topic, group })}`]
    ]),
  "POST /policy/explain": ({ topic }) => [
    ["/policy/explain", json({ policy: "allow subscribe **", action: "subscribe", topic })]
  ],
  "GET /top": () => [
    ["/top?by=lag"],
    ["/top?by=lag&limit=1000"],
    ["/top?by=rate"],
    ["/top?by=rate&limit=1000"],
    ["/top?by=slow"]
  ],
  "GET /connections": () => pages("/connections"),
  "POST /revocations": ({ id }) => [
    ["/revocations", json({ tokenId: id })],
    ["/revocations", json({ sub: `${id}-user`, dryRun: true })]
  ],
  "GET /revocations": () => pages("/revocations"),
  "DELETE /revocations/:id": ({ id }) => [
    [`/revocations/${id}`, { method: "DELETE" }],
    [`/revocations/${id}?dryRun=true`, { method: "DELETE" }]
  ],
  "GET /healthz": () => [["/healthz"]],
  "GET /readyz": () => [["/readyz"]],
  "GET /metrics": () => [["/metrics"]]
}

/** Their figures change by themselves. */
const moving = new Set(["/metrics", "/readyz"])

const rule = (effect: "allow" | "deny", action: string, ...topics: ReadonlyArray<string>) => ({
  effect,
  action,
  topics
})

const denied = [`${marker}.**`, "absent.**"]

const readers: Readonly<Record<string, TokenOptions | undefined>> = {
  "nobody, without a token": undefined,
  "a token without rights": { scopes: [] },
  "a token with rights elsewhere": { scopes: ["publish:mine.**", "subscribe:mine.**", "admin:mine.**"] },
  "a token for everything else": {
    claims: {
      policy: {
        rules: [rule("deny", "*", ...denied), rule("allow", "*", "**", "$dead.**", "$hub.**")]
      }
    }
  },
  "an operator of everything else": {
    claims: {
      policy: {
        rules: [
          ...["admin", "publish", "subscribe"].map((action) => rule("deny", action, ...denied)),
          rule("allow", "admin", "**"),
          rule("allow", "*", "**", "$dead.**")
        ]
      }
    }
  }
}

const operator = { scopes: [...everything, "admin:**"] }

const directory = mkdtempSync(join(tmpdir(), "event-hub-leaks-"))
let hub: HubProcess
let shop: ShopOutbox
let clients: ReadonlyArray<RawClient>

beforeAll(async () => {
  const file = join(directory, "shop.db")
  shop = shopOutbox(file)
  hub = await startHub({
    GROUP_RETRY_BASE_MS: "60000",
    GROUP_RETRY_MAX_MS: "60000",
    OUTBOX_SOURCES: `shop=sqlite:${file}`
  })
  await hub.lineWhere(({ msg, source }) => msg === "an outbox is being drained" && source === "shop")
  const { group, id, key, topic } = existing
  const payload = { of: marker }
  shop.add([
    { id, state: "dead", topic, key, payload, error: marker },
    { id: `${marker}-2`, state: "waiting", topic, payload }
  ])
  const token = await tokenFor({ sub: `${marker}-user`, scopes: everything })
  const client = await RawClient.connect(hub.ws)
  await client.request({ op: "AUTH", token })
  for (const [at, n] of [
    [topic, 1],
    [topic, 2],
    [topic, 3],
    ["mine.a", 1]
  ] as const) {
    const opts = at === topic ? { id: `${marker}-${n}`, key: n === 1 ? key : `${key}-${n}` } : { key: "mine" }
    await client.request({ op: "PUBLISH", topic: at, payload: at === topic ? payload : 1, opts })
  }
  const opts = { from: "start", keyOrdered: true }
  for (const at of [topic, `${marker}.*`]) await client.request({ op: "SUBSCRIBE", topic: at, group, opts })
  // A group whose other topics the reader may see.
  for (const at of [topic, "mine.a"])
    await client.request({ op: "SUBSCRIBE", topic: at, group: "shared", opts })
  await client.waitForAll("what both groups take", ({ op }) => op === "EVENT", 3)
  const nack = { op: "NACK", topic, group, reason: marker }
  await client.request({ ...nack, id })
  await client.request({ ...nack, id: `${marker}-2` })
  const release = json({ topic, key: `${key}-2`, mode: "dead-letter" })
  expect(await askAs(hub, operator, `/groups/${group}/release-key`, release)).toMatchObject({ status: 200 })
  const revocation = json({ tokenId: `${marker}-token`, reason: marker })
  expect(await askAs(hub, operator, "/revocations", revocation)).toMatchObject({ status: 200 })
  const follower = await RawClient.connect(hub.ws)
  await follower.request({ op: "AUTH", token })
  await follower.request({ op: "SUBSCRIBE", topic: "$hub.**" })
  clients = [client, follower]
})

afterAll(async () => {
  for (const client of clients) await client.close()
  await hub.stop()
  shop.close()
  rmSync(directory, { recursive: true, force: true })
})

/** Without what was asked, and without what differs from one moment to the next. */
const withoutNames = (text: string, names: Names): string =>
  Object.entries(names)
    .toSorted(([, a], [, b]) => b.length - a.length)
    .reduce(
      (text, [what, name]) => text.replaceAll(name, `<${what}>`),
      // The reader's own rules.
      text.replaceAll(denied.join(" "), "<denied>")
    )
    .replaceAll(/"(lagMs|eventsPerSecond|bytesPerSecond)":[\d.e-]+/g, '"$1":0')
    .replaceAll(/"exportedAt":\d+/g, '"exportedAt":0')
    .replaceAll(/"sha256":"\w+"/g, '"sha256":""')

const answers = async (reader: TokenOptions | undefined, names: Names, name: string) =>
  Promise.all(
    asked[name]!(names).map(async ([path, init]) => {
      const answer = reader === undefined ? await ask(hub, path, init) : await askAs(hub, reader, path, init)
      return {
        path: withoutNames(decodeURIComponent(path), names),
        status: answer.status,
        text: moving.has(path) ? "" : withoutNames(answer.text, names),
        isLeaking: withoutNames(answer.text, names).includes(marker)
      }
    })
  )

it("names every endpoint", () => {
  expect(Object.keys(asked).sort()).toEqual(endpoints.map(({ name }) => name).sort())
})

it("is worth something: with all rights the marker is in the answers", async () => {
  const letters = async () => (await askAs(hub, operator, `/dead-letters?${at(existing)}`)).json
  await expect
    .poll(letters)
    .toMatchObject({ letters: [{ reason: expect.stringContaining(marker) as string }] })
  const shows = async (path: string) => (await askAs(hub, operator, path)).text.includes(marker)
  for (const path of [
    "/topics",
    "/groups",
    `/cursors?topic=${existing.topic}`,
    `/latest-by-key?topic=${existing.topic}`,
    "/outbox/shop/records",
    "/revocations",
    "/groups/shared"
  ]) {
    expect([path, await shows(path)]).toEqual([path, true])
  }
})

describe.each(Object.keys(readers))("%s", (reader) => {
  it.each(Object.keys(asked))("%s", async (name) => {
    const pairs: ReadonlyArray<readonly [Names, Names]> = [
      [existing, absent],
      [ownOf(existing, `$dead.${existing.group}`), ownOf(absent, `$dead.${absent.group}`)],
      [ownOf(existing, "$hub.topic"), ownOf(absent, "$hub.topic")]
    ]
    for (const [there, notThere] of pairs) {
      const found = await answers(readers[reader], there, name)
      expect(found.filter(({ isLeaking }) => isLeaking)).toEqual([])
      expect(found).toEqual(await answers(readers[reader], notThere, name))
    }
  })
})
