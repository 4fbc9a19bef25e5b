/**
 * Every way out of the hub decides again: whatever denies a topic, neither an event of it nor its name comes out, on no
 * path; and what is allowed does come, so that nothing passes by saying nothing. An endpoint that is in none of the tables
 * fails here, so that one that is added later is looked at, too.
 *
 * Whether answers about denied topics differ from those about topics that there are none of, test/layers/http/leaks says.
 */
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { type IncomingMessage, request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { records } from "../../src/testing/eventStore.ts"
import { endpoints } from "../layers/http/endpoints.ts"
import { type EmbeddedHub, startEmbeddedHub } from "../support/EmbeddedHub.ts"
import { type Message, RawClient } from "../support/RawClient.ts"
import { everything, tokenFor, type TokenOptions } from "../support/tokens.ts"

/** In all names, keys, ids and payloads of what is allowed, and of what is denied. */
const open = "opn"
const secret = "zq9"
const both = [secret, open] as const

const operator: TokenOptions = {
  sub: "olga",
  scopes: [...everything, "subscribe:$hub.**", "admin:**"]
}

// --- what denies ---------------------------------------------------------------------------------------------

const rule = (
  effect: "allow" | "deny",
  action: string,
  topics: ReadonlyArray<string>,
  more: object = {}
) => ({
  effect,
  action,
  topics,
  ...more
})

const all = rule("allow", "*", ["**", "$dead.**", "$hub.**"])
const embedded = (...rules: ReadonlyArray<object>): TokenOptions => ({ claims: { policy: { rules } } })

const roles = `
role all:
  allow subscribe ** $dead.** $hub.**
role careful:
  deny subscribe *.${secret}
role reader:
  deny subscribe *.\${claim.hidden}
  allow subscribe ** $dead.** $hub.**
`

interface Denial {
  readonly token: TokenOptions
  /** It binds consumer groups, and nobody else. */
  readonly isOfGroups?: boolean
}

const denials: Readonly<Record<string, Denial>> = {
  "a topic": { token: embedded(rule("deny", "subscribe", [`shop.${secret}`, `old.${secret}`]), all) },
  "a pattern": { token: embedded(rule("deny", "subscribe", [`*.${secret}`]), all) },
  "a pattern, to publish, too": { token: embedded(rule("deny", "*", [`**.${secret}`]), all) },
  "that nothing allows it": {
    token: embedded(
      rule("allow", "subscribe", [
        `*.${open}`,
        `$dead.*.shop.${open}`,
        `$hub.topic.shop.${open}`,
        `$hub.group.*.shop.${open}`,
        "$hub.stats"
      ])
    )
  },
  "groups alone": {
    token: embedded(rule("deny", "subscribe", [`*.${secret}`], { groups: "*" }), all),
    isOfGroups: true
  },
  "a role": { token: { claims: { scopes: undefined, roles: ["reader"], hidden: secret } } },
  "a role behind one that allows": { token: { claims: { scopes: undefined, roles: ["all", "careful"] } } },
  "a role beside scopes": {
    token: {
      scopes: ["subscribe:**", "subscribe:$dead.**", "subscribe:$hub.**"],
      claims: { roles: ["careful"] }
    }
  },
  "a placeholder that nothing fills": {
    token: { claims: { scopes: undefined, roles: ["reader"] } }
  }
}

/** It denies what it means of everything: what is allowed does not come either. */
const deniesAll = "a placeholder that nothing fills"

// --- the hub -------------------------------------------------------------------------------------------------

const directory = mkdtempSync(join(tmpdir(), "event-hub-paths-"))
const policyFile = join(directory, "policy")
let hub: EmbeddedHub
let publisher: RawClient
let groups = 0

const publish = async (): Promise<void> => {
  // The denied one first: when the other has come, it would have come, too.
  for (const name of both) {
    const message = {
      op: "PUBLISH",
      topic: `shop.${name}`,
      payload: { of: name },
      opts: { key: `${name}-new` }
    }
    expect(await publisher.request(message)).toMatchObject({ op: "OK" })
  }
}

const fresh = (): string => `group${groups++}`

const subscribe = (client: RawClient, topic: string, more: object = {}): Promise<Message> =>
  client.request({ op: "SUBSCRIBE", topic, ...more })

beforeAll(async () => {
  writeFileSync(policyFile, roles)
  hub = await startEmbeddedHub({
    HUB_POLICY: policyFile,
    HUB_FILES_INTERVAL_MS: "100",
    HUB_LIVE_MS: "100"
  })
  publisher = await RawClient.authenticated(hub.ws, operator)
  for (const name of both) {
    for (const at of ["shop", "old"]) {
      for (const n of [1, 2, 3]) {
        const opts = { id: `${at}-${name}-${n}`, key: `${name}-key` }
        await publisher.request({ op: "PUBLISH", topic: `${at}.${name}`, payload: { of: name }, opts })
      }
    }
    await hub.run(hub.events.trim({ topic: `old.${name}`, upTo: 2 }))
    const topic = `shop.${name}`
    for (const group of ["buried", "ordered"]) {
      const opts = { from: "start", keyOrdered: true, maxAttempts: group === "buried" ? 1 : 5 }
      await subscribe(publisher, topic, { group, opts })
      await publisher.waitFor("what is given up", (one) => one["group"] === group && one["topic"] === topic)
      const nack = { op: "NACK", topic, group, id: `shop-${name}-1`, reason: name, delayMs: 600_000 }
      expect(await publisher.request(nack)).toMatchObject({ op: "OK" })
    }
  }
  for (const name of both) {
    const topic = `$dead.buried.shop.${name}`
    await subscribe(publisher, topic, { opts: { from: "start" } })
    await publisher.waitFor("a dead letter", (one) => one.op === "EVENT" && one["topic"] === topic)
  }
})

afterAll(async () => {
  await publisher.close()
  await hub.stop()
  rmSync(directory, { recursive: true, force: true })
})

// --- ways out ------------------------------------------------------------------------------------------------

interface Reader {
  readonly token: string
  /** What has to come. */
  readonly wants: ReadonlyArray<string>
}

interface Path {
  /** What came out. */
  readonly run: (reader: Reader) => Promise<string>
  /** Only members of groups see it. */
  readonly isOfGroups?: boolean
}

type Ask = readonly [topic: string, more?: object]

/** Asks for all of it, lets something happen, and answers what came: of refusals, nothing but what was asked for. */
const overSocket = async (
  { token, wants }: Reader,
  asks: ReadonlyArray<Ask>,
  {
    ops = ["EVENT", "GAP"],
    meanwhile
  }: { readonly ops?: ReadonlyArray<string>; readonly meanwhile?: () => Promise<void> } = {}
): Promise<string> => {
  const client = await RawClient.connect(hub.ws)
  await client.request({ op: "AUTH", token })
  const before = client.messages.length
  for (const [topic, more] of asks) await subscribe(client, topic, more)
  await meanwhile?.()
  const isWanted = (name: string) => (message: Message) =>
    ops.includes(message.op) && JSON.stringify(message).includes(name)
  for (const name of wants) await client.waitFor(`something of ${name}`, isWanted(name))
  await client.settled()
  await client.close()
  return client.messages
    .slice(before)
    .filter(({ op }) => op !== "ERR")
    .map((message) => JSON.stringify(message))
    .join("\n")
}

const each = (topic: (name: string) => string, more?: object): ReadonlyArray<Ask> =>
  both.map((name) => (more === undefined ? [topic(name)] : [topic(name), more]))

const shop = (name: string): string => `shop.${name}`

/** Names that are asked for are no news. */
const get = async ({ token }: Reader, ...paths: ReadonlyArray<string>): Promise<string> => {
  const texts: Array<string> = []
  for (const path of paths) {
    const answer = await fetch(hub.ops + path, { headers: { authorization: `Bearer ${token}` } })
    const text = await answer.text()
    expect([path, answer.status]).toEqual([path, expect.toBeOneOf([200, 403, 404])])
    if (answer.status === 200) texts.push(text)
  }
  return texts.join("\n")
}

const http = (...paths: ReadonlyArray<string>): Path => ({ run: (reader) => get(reader, ...paths) })

const perTopic = (path: (name: string) => string): ReadonlyArray<string> => both.map(path)

/** Endpoints that show something of topics. */
const reads: Readonly<Record<string, Path>> = {
  "GET /topics": http("/topics", "/topics?pattern=shop.*", `/topics?pattern=*.${secret}`, "/topics?limit=1"),
  "GET /cursors": http(...perTopic((name) => `/cursors?topic=shop.${name}`)),
  "GET /lag": {
    run: async (reader) =>
      (
        await Promise.all(
          both.map(async (name) =>
            (await get(reader, `/lag?topic=shop.${name}&group=buried`)) === "" ? "" : name
          )
        )
      ).join("\n")
  },
  "GET /latest-by-key": http(
    ...perTopic((name) => `/latest-by-key?topic=shop.${name}`),
    ...perTopic((name) => `/latest-by-key?topic=old.${name}`),
    ...perTopic((name) => `/latest-by-key?topic=shop.${name}&key=${name}-key`)
  ),
  "GET /events": http(
    ...["asc", "desc"].flatMap((order) => [
      ...perTopic((name) => `/events?topic=shop.${name}&order=${order}`),
      `/events?topic=shop.*&order=${order}`,
      `/events?topic=**&order=${order}`,
      `/events?topic=**&order=${order}&from=@0&to=@9999999999999`,
      `/events?topic=$dead.**&order=${order}`,
      ...perTopic((name) => `/events?topic=$dead.buried.shop.${name}&order=${order}`)
    ])
  ),
  "GET /export": http(
    "/export",
    "/export?topic=shop.*",
    "/export?topic=$dead.**",
    ...perTopic((name) => `/export?topic=shop.${name}`),
    ...perTopic((name) => `/export?topic=$dead.buried.shop.${name}`)
  ),
  "GET /groups": http("/groups", "/groups?limit=1"),
  "GET /groups/:group": http("/groups/buried", "/groups/ordered"),
  "GET /groups/:group/blocked-keys": http(
    ...perTopic((name) => `/groups/ordered/blocked-keys?topic=shop.${name}`)
  ),
  "GET /dead-letters": http(
    ...perTopic((name) => `/dead-letters?group=buried&topic=shop.${name}`),
    ...perTopic((name) => `/dead-letters?group=buried&topic=shop.${name}&id=shop-${name}-1`)
  ),
  "GET /top": http("/top?by=lag", "/top?by=rate")
}

const start = { opts: { from: "start" } }

const paths: Readonly<Record<string, Path>> = {
  ...reads,
  live: { run: (reader) => overSocket(reader, each(shop), { meanwhile: publish }) },
  "live, by patterns": {
    run: (reader) =>
      overSocket(reader, [[`*.${open}`], ["shop.*"], ["**"], [`**.${secret}`], ["*.*"]], {
        meanwhile: publish
      })
  },
  "from the start": { run: (reader) => overSocket(reader, [...each(shop, start), ["shop.*", start]]) },
  "behind a position": {
    run: (reader) => overSocket(reader, each(shop, { opts: { from: { after: 1 } } }))
  },
  "behind positions of topics": {
    run: (reader) => {
      const from = { topics: { [shop(open)]: 1, [shop(secret)]: 1 }, rest: "start" }
      const own = (name: string) => ({ opts: { from: { topics: { [shop(name)]: 1 } } } })
      return overSocket(reader, [
        ["shop.*", { opts: { from } }],
        ...both.map((name) => [shop(name), own(name)] as const)
      ])
    }
  },
  "from a time": {
    run: (reader) => {
      const past = { opts: { from: { time: 0 } } }
      return overSocket(reader, [...each(shop, past), ["shop.*", past], ["**", past]])
    }
  },
  GAP: {
    run: (reader) => {
      const from = { topics: { [`old.${open}`]: 0, [`old.${secret}`]: 0 } }
      return overSocket(
        reader,
        [...each((name) => `old.${name}`, { opts: { from: { after: 0 } } }), ["old.*", { opts: { from } }]],
        { ops: ["GAP"] }
      )
    }
  },
  "heads of an OK": {
    run: (reader) => overSocket(reader, [...each(shop), ["shop.*"], ["**"], [`*.${open}`]], { ops: ["OK"] })
  },
  "dead letters as they come": {
    run: (reader) =>
      overSocket(reader, [
        ...each((name) => `$dead.buried.shop.${name}`, start),
        ["$dead.**", start],
        ["$dead.buried.*.*", start]
      ])
  },
  "$hub.topic": {
    run: (reader) =>
      overSocket(reader, [...each((name) => `$hub.topic.shop.${name}`), ["$hub.**"], ["$hub.topic.*.*"]], {
        meanwhile: publish
      })
  },
  "$hub.group": {
    run: (reader) =>
      overSocket(reader, [...each((name) => `$hub.group.*.shop.${name}`), ["$hub.**"], ["$hub.group.**"]], {
        meanwhile: publish
      })
  },
  group: {
    isOfGroups: true,
    run: (reader) => overSocket(reader, each(shop, { group: fresh(), ...start }))
  },
  "group, by patterns": {
    isOfGroups: true,
    run: (reader) => {
      const group = fresh()
      return overSocket(
        reader,
        ["shop.*", "**", shop(open)].map((topic) => [topic, { group, ...start }] as const)
      )
    }
  },
  "group, what another member did not answer": {
    isOfGroups: true,
    run: async (reader) => {
      const group = fresh()
      const member = await RawClient.authenticated(hub.ws, operator)
      for (const name of both) await subscribe(member, shop(name), { group, ...start })
      for (const name of both) {
        await member.waitFor("an event", ({ op, topic }) => op === "EVENT" && topic === shop(name))
      }
      await member.close()
      return overSocket(reader, [...each(shop, { group }), ["shop.*", { group }]])
    }
  }
}

/** They name no topic to anybody. */
const nameless: Readonly<Record<string, Path>> = {
  "GET /healthz": http("/healthz"),
  "GET /readyz": http("/readyz"),
  "GET /metrics": http("/metrics"),
  "$hub.stats": {
    run: ({ token }) =>
      overSocket({ token, wants: ["totals"] }, [["$hub.stats"]], {
        meanwhile: publish
      })
  }
}

/** They take the right to administrate everything. */
const closed: ReadonlyArray<string> = [
  "GET /connections",
  "GET /outbox",
  "GET /outbox/:source/records",
  "GET /revocations"
]

/** What an operator changes, where the right to administrate a topic is denied: of what is allowed, and of what is not. */
const changes: Readonly<Record<string, (name: string) => readonly [path: string, body: object]>> = {
  "POST /dead-letters/redrive": (name) => [
    "/dead-letters/redrive",
    { group: "buried", topic: shop(name), dryRun: true }
  ],
  "POST /groups/:group/release-key": (name) => [
    "/groups/ordered/release-key",
    { topic: shop(name), key: `${name}-key`, mode: "retry", dryRun: true }
  ],
  "POST /groups/:group/seek": (name) => [
    "/groups/buried/seek",
    { to: "end", topic: shop(name), dryRun: true }
  ],
  "POST /publish": (name) => ["/publish", { topic: shop(name), payload: { of: name } }]
}

/** Nothing of a topic comes out; who may change what is tested where it is changed. */
const elsewhere: ReadonlyArray<string> = [
  "GET /policy/explain", // the token's own rules
  "POST /policy/explain",
  "POST /import",
  "POST /groups/:group/pause",
  "POST /groups/:group/resume",
  "DELETE /groups/:group",
  "POST /outbox/:source/redrive",
  "POST /outbox/:source/purge",
  "POST /outbox/:source/pause",
  "POST /outbox/:source/resume",
  "POST /revocations",
  "DELETE /revocations/:id"
]

it("every endpoint is in one of the tables", () => {
  const named = [
    ...Object.keys(reads),
    ...Object.keys(nameless),
    ...closed,
    ...Object.keys(changes),
    ...elsewhere
  ]
  expect(named.filter((name) => /^[A-Z]+ \//.test(name)).sort()).toEqual(
    endpoints.map(({ name }) => name).sort()
  )
})

describe("who may see everything sees both: the paths are worth something", () => {
  it.each(Object.keys(paths))("%s", async (name) => {
    const text = await paths[name]!.run({ token: await tokenFor(operator), wants: both })
    for (const one of both) expect(text).toContain(one)
  })
})

describe("what names nobody", () => {
  it.each(Object.keys(nameless))("%s", async (name) => {
    const text = await nameless[name]!.run({ token: await tokenFor(operator), wants: [] })
    expect(text).not.toBe("")
    for (const one of both) expect(text).not.toContain(one)
  })
})

describe.each(Object.entries(denials).filter(([name]) => name !== deniesAll))(
  "denied: %s",
  (_, { isOfGroups = false, token }) => {
    const bound = Object.entries(paths).filter(([, path]) => !isOfGroups || path.isOfGroups === true)

    it.each(bound)("%s", async (_name, path) => {
      const text = await path.run({ token: await tokenFor(token), wants: [open] })
      expect(text).toContain(open)
      expect(text).not.toContain(secret)
    })

    it.each(isOfGroups ? [] : closed)("%s is refused", async (name) => {
      const path = name.replace("GET ", "").replace(":source", "hub")
      const headers = { authorization: `Bearer ${await tokenFor(token)}` }
      const answer = await fetch(hub.ops + path, { headers })
      expect([answer.status, (await answer.text()).includes(secret)]).toEqual([403, false])
    })
  }
)

describe(`denied: ${deniesAll}`, () => {
  it.each(Object.entries(paths))("%s", async (_name, path) => {
    const { token } = denials[deniesAll]!
    const text = await path.run({ token: await tokenFor(token), wants: [] })
    for (const one of both) expect(text).not.toContain(one)
  })
})

it("what a wildcard of a subscription does not mean is decided event by event", async () => {
  // `**` does not match what begins with `$`, so `$hub.**` is allowed, and not what it tells of dead letters.
  const scopes = ["subscribe:**", "subscribe:$hub.**"]
  const reader = await RawClient.authenticated(hub.ws, { scopes })
  const seer = await RawClient.authenticated(hub.ws, operator)
  for (const client of [reader, seer]) {
    expect(await subscribe(client, "$hub.**")).toMatchObject({ op: "OK" })
  }
  const [topic, group] = [`late.${open}`, "late"]
  await subscribe(seer, topic, { group, opts: { maxAttempts: 1 } })
  await seer.request({ op: "PUBLISH", topic, payload: 1, opts: { id: "late" } })
  await seer.waitFor("the event", ({ op, topic: at }) => op === "EVENT" && at === topic)
  await seer.request({ op: "NACK", topic, group, id: "late" })
  const about = (topic: string) => (message: Message) => message.op === "EVENT" && message["topic"] === topic
  await seer.waitFor("what is told of the dead letter", about(`$hub.topic.$dead.${group}.${topic}`))
  await publish()
  await reader.waitFor("what is told of another topic", about(`$hub.topic.shop.${open}`))
  await reader.settled()
  expect(reader.messages.filter(({ topic }) => String(topic).includes("$dead"))).toEqual([])
  await Promise.all([reader.close(), seer.close()])
})

describe("denied to an operator of everything else", () => {
  const rules = [
    ...["admin", "publish"].map((action) => rule("deny", action, [`*.${secret}`])),
    all,
    rule("allow", "admin", ["**"])
  ]

  it.each(Object.keys(changes))("%s", async (name) => {
    const token = await tokenFor(embedded(...rules))
    const statusOf = async (of: string): Promise<number> => {
      const [path, body] = changes[name]!(of)
      const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
      return (await fetch(hub.ops + path, { method: "POST", headers, body: JSON.stringify(body) })).status
    }
    expect([await statusOf(open), await statusOf(secret)]).toEqual([200, 403])
  })
})

// --- rights that are lost on the way -------------------------------------------------------------------------

describe("a right that is lost while connected", () => {
  const allowed = "role changing:\n  allow subscribe ** $dead.** $hub.**\n"
  const denied = `role changing:\n  deny subscribe *.${secret}\n  allow subscribe ** $dead.** $hub.**\n`
  const setFile = (text: string): void => writeFileSync(policyFile, roles + text)

  /** As it is taken by the hub. */
  const isTaken = async (token: string, status: number): Promise<void> => {
    const headers = { authorization: `Bearer ${token}` }
    await expect
      .poll(async () => (await fetch(`${hub.ops}/cursors?topic=shop.${secret}`, { headers })).status, {
        timeout: 10_000
      })
      .toBe(status)
  }

  const changing: TokenOptions = { claims: { scopes: undefined, roles: ["changing"] } }

  const ways: Readonly<Record<string, (client: RawClient, token: string) => Promise<unknown>>> = {
    "by another AUTH": async (client) => {
      const token = await tokenFor(denials["a pattern"]!.token)
      expect(await client.request({ op: "AUTH", token })).toMatchObject({ op: "OK" })
    },
    "by another policy file": async (_client, token) => {
      setFile(denied)
      await isTaken(token, 403)
    }
  }

  const begin = async (): Promise<string> => {
    setFile(allowed)
    const token = await tokenFor(changing)
    // A role that the hub does not know yet is refused.
    await isTaken(token, 200)
    return token
  }

  it.each(Object.keys(ways))("%s: what was subscribed ends, and nothing more comes", async (way) => {
    const token = await begin()
    const client = await RawClient.connect(hub.ws)
    await client.request({ op: "AUTH", token })
    const group = fresh()
    const asks: ReadonlyArray<Ask> = [
      ...each(shop),
      ...each(shop, { group }),
      ...each((name) => `$dead.buried.shop.${name}`, start),
      ...each((name) => `$hub.topic.shop.${name}`),
      ["shop.*"],
      ["*.*", { group }]
    ]
    for (const [topic, more] of asks) expect(await subscribe(client, topic, more)).toMatchObject({ op: "OK" })
    await publish()
    await client.waitForAll(
      "what is denied later",
      ({ op, topic }) => op === "EVENT" && topic === shop(secret),
      2
    )
    await ways[way]!(client, token)
    const ends = await client.waitForAll("ENDs", ({ op }) => op === "END", 6)
    expect(ends.map(({ group, reason, sub }) => [sub, group ?? "", reason]).sort()).toEqual(
      [
        [shop(secret), "", "revoked"],
        [shop(secret), group, "revoked"],
        [`$dead.buried.shop.${secret}`, "", "revoked"],
        [`$hub.topic.shop.${secret}`, "", "revoked"],
        ["shop.*", "", "revoked"],
        ["*.*", group, "revoked"]
      ].sort()
    )
    await client.settled()
    const before = client.messages.length
    for (let n = 0; n < 2; n++) await publish()
    await expect
      .poll(
        () =>
          client.messages.slice(before).filter(({ op, topic }) => op === "EVENT" && topic === shop(open))
            .length
      )
      .toBeGreaterThanOrEqual(4)
    await client.settled()
    expect(
      client.messages.slice(before).filter((message) => JSON.stringify(message).includes(secret))
    ).toEqual([])
    await client.close()
  })

  it("by another policy file: an export that is on its way is cut off", async () => {
    const token = await begin()
    const topic = `long.${secret}`
    for (let from = 1; from <= 200_000; from += 20_000) {
      await hub.run(hub.events.append(records(topic, 20_000, from)))
    }
    const sent = request(`${hub.ops}/export?topic=${topic}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    onTestFinished(() => void sent.destroy())
    sent.on("error", () => {})
    sent.end()
    const [answer] = (await once(sent, "response")) as [IncomingMessage]
    await once(answer, "readable")
    setFile(denied)
    await isTaken(token, 403)
    const pieces: Array<Buffer> = []
    answer.on("data", (piece: Buffer) => pieces.push(piece))
    await new Promise<void>((resolve) => {
      answer.on("error", () => resolve())
      answer.on("end", () => resolve())
    })
    expect([answer.complete, Buffer.concat(pieces).includes('"end":true')]).toEqual([false, false])
    expect(hub.log.filter((line) => line.includes("an export was cut off"))).toHaveLength(1)
  })
})
