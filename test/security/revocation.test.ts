/**
 * A token that is revoked at one hub ends at every hub of the store, within a second, and stays revoked after a restart.
 * While the store is away, what is connected stays, and nobody new comes in. What goes on for long, an export or an
 * import, is decided again on its way.
 */
import { once } from "node:events"
import { type IncomingMessage, request } from "node:http"
import { join } from "node:path"
import { describe, expect, it, onTestFinished } from "vitest"
import { OpsApi } from "../../src/layers/http/OpsApi.ts"
import { records } from "../../src/testing/eventStore.ts"
import { askAs, json } from "../layers/http/ops.ts"
import { driverMessage, type EmbeddedHub, startEmbeddedHub } from "../support/EmbeddedHub.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { describeMongo, dropDatabase, urlOfNewDatabase } from "../support/mongo.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { everything, tokenFor } from "../support/tokens.ts"

const operator = { sub: "olga", scopes: ["admin:**"] }

/** The promise is a second; a machine that has much to do gets more, and what it took is printed. */
const promisedMs = 1_000
const patienceMs = 5_000

const start = async (env: Readonly<Record<string, string>>): Promise<HubProcess> => {
  const hub = await startHub(env)
  onTestFinished(() => void hub.kill())
  return hub
}

const revoke = async (hub: HubProcess, body: object): Promise<void> => {
  expect(await askAs(hub, operator, "/revocations", json(body))).toMatchObject({ status: 200 })
}

const connect = (hub: HubProcess, jti: string, sub = "alice"): Promise<RawClient> =>
  RawClient.authenticated(hub.ws, { sub, claims: { jti, iat: Math.floor(Date.now() / 1000) - 5 } })

/** How long it takes until a connection is closed with 4102, in milliseconds. */
const closing = async (client: RawClient, began: number): Promise<number> => {
  expect(await client.closed).toMatchObject({ code: 4102 })
  return performance.now() - began
}

const isRefused = async (hub: HubProcess, jti: string, sub = "alice"): Promise<boolean> => {
  const iat = Math.floor(Date.now() / 1000) - 5
  const { status, text } = await askAs(hub, { sub, claims: { jti, iat } }, "/topics")
  return status === 401 && text.includes("it was revoked")
}

const restarts = (name: string, env: () => Readonly<Record<string, string>>) =>
  it(`holds after the hub was killed (${name})`, async () => {
    const where = env()
    const first = await start(where)
    await revoke(first, { tokenId: "one" })
    await revoke(first, { sub: "bob" })
    await first.kill()
    const second = await start(where)
    expect(await isRefused(second, "one")).toBe(true)
    expect(await isRefused(second, "another", "bob")).toBe(true)
    expect(await isRefused(second, "another")).toBe(false)
    await second.stop()
  })

describe.each([
  ["memory", () => ({ HUB_STORE: "memory:" })],
  ["sqlite", () => ({ HUB_STORE: `sqlite:${join(temporaryDirectory(), "hub.db")}` })]
] as const)("one hub (%s)", (name, env) => {
  it("ends the connections of a token at once, and no others", async () => {
    const hub = await start(env())
    const [one, other] = [await connect(hub, "one"), await connect(hub, "other")]
    const began = performance.now()
    await revoke(hub, { tokenId: "one" })
    const ms = await closing(one, began)
    console.log(`${name}: closed after ${Math.round(ms)} ms`)
    expect(ms).toBeLessThan(patienceMs)
    await other.settled()
    await other.close()
    expect(await isRefused(hub, "one")).toBe(true)
    await hub.stop()
  })
})

restarts("sqlite", () => ({ HUB_STORE: `sqlite:${join(temporaryDirectory(), "hub.db")}` }))

describeMongo("hubs over one MongoDB", (url) => {
  const own = (): Readonly<Record<string, string>> => {
    const database = urlOfNewDatabase(url)
    onTestFinished(() => dropDatabase(database))
    return { MONGO_URL: database }
  }

  restarts("mongo", own)

  it("a token that is revoked at one ends at the others, too", async () => {
    const env = own()
    const [here, there] = await Promise.all([start(env), start(env)])
    const times: Array<number> = []
    for (let n = 0; n < 5; n++) {
      const client = await connect(there, `t${n}`)
      const began = performance.now()
      await revoke(here, { tokenId: `t${n}` })
      times.push(await closing(client, began))
    }
    times.sort((a, b) => a - b)
    const [longest] = times.slice(-1)
    console.log(
      `another hub: closed after ${Math.round(times[0]!)} to ${Math.round(longest!)} ms, promised are ${promisedMs}`
    )
    expect(longest).toBeLessThan(patienceMs)
    // Both at once, and one taken back: each hub knows all of it.
    const [one, two] = [await connect(there, "one"), await connect(here, "two")]
    await Promise.all([revoke(here, { tokenId: "one" }), revoke(there, { tokenId: "two" })])
    await Promise.all([closing(one, 0), closing(two, 0)])
    for (const hub of [here, there]) {
      for (const jti of ["one", "two", "t0"]) await expect.poll(() => isRefused(hub, jti)).toBe(true)
    }
    const { revocations } = (await askAs(there, operator, "/revocations")).json as {
      readonly revocations: ReadonlyArray<{ readonly id: string; readonly tokenId: string }>
    }
    const { id } = revocations.find(({ tokenId }) => tokenId === "one")!
    expect(await askAs(there, operator, `/revocations/${id}`, { method: "DELETE" })).toMatchObject({
      status: 200
    })
    await expect.poll(() => isRefused(here, "one"), { timeout: patienceMs }).toBe(false)
    expect(await isRefused(here, "two")).toBe(true)
    await Promise.all([here.stop(), there.stop()])
  })
})

const embedded = async (env: Readonly<Record<string, string>> = {}): Promise<EmbeddedHub> => {
  const hub = await startEmbeddedHub(env)
  onTestFinished(() => hub.stop())
  return hub
}

describe("a store that is away", () => {
  it("keeps sessions, and takes no new ones until it is back", async () => {
    const hub = await embedded({ HUB_REVOCATION_INTERVAL_MS: "50", HUB_REVOCATION_STALE_MS: "1000" })
    const token = await tokenFor()
    const client = await RawClient.authenticated(hub.ws)
    const topics = (bearer = token) =>
      fetch(`${hub.ops}/topics`, { headers: { authorization: `Bearer ${bearer}` } }).then(
        ({ status }) => status
      )
    expect(await topics()).toBe(200)
    hub.faults.revocations = true
    await expect.poll(() => topics(), { timeout: 10_000 }).toBe(503)
    const refused = await RawClient.connect(hub.ws)
    expect(await refused.request({ op: "AUTH", token })).toMatchObject({ op: "ERR", code: "unavailable" })
    expect(await client.request({ op: "PUBLISH", topic: "a", payload: 1 })).toMatchObject({ op: "OK" })
    // What is revoked here is known here, whether it can be looked at or not.
    await hub.run(
      hub.revocations.revoke({ _tag: "Subject", sub: "tester", issuedBefore: Date.now() + 2_000 })
    )
    expect(await client.closed).toMatchObject({ code: 4102 })
    hub.faults.revocations = false
    const other = await tokenFor({ sub: "somebody else" })
    await expect.poll(() => topics(other), { timeout: 10_000 }).toBe(200)
    expect(await topics()).toBe(401)
    await (await RawClient.authenticated(hub.ws, { sub: "somebody else" })).close()
    refused.socket.terminate()
    const lines = hub.log.filter((line) => /revoked elsewhere|known again/.test(line))
    expect(lines).toHaveLength(2)
    expect(lines.join()).not.toContain(token)
    expect(lines[0]).toContain(driverMessage)
  })
})

describe("an export that goes on", () => {
  const filled = async (): Promise<EmbeddedHub> => {
    const hub = await embedded()
    for (let from = 1; from <= 200_000; from += 20_000) {
      await hub.run(hub.events.append(records("a", 20_000, from)))
    }
    return hub
  }

  /** Reads the beginning of an export, does something, reads the rest, and answers whether it came to an end. */
  const cut = async (
    hub: EmbeddedHub,
    token: string,
    encoding: string,
    meanwhile: () => Promise<unknown>
  ) => {
    const sent = request(`${hub.ops}/export`, {
      headers: { authorization: `Bearer ${token}`, "accept-encoding": encoding }
    })
    sent.on("error", () => {})
    sent.end()
    const [answer] = (await once(sent, "response")) as [IncomingMessage]
    expect(answer.statusCode).toBe(200)
    await once(answer, "readable")
    await meanwhile()
    const pieces: Array<Buffer> = []
    answer.on("data", (piece: Buffer) => pieces.push(piece))
    await new Promise<void>((resolve) => {
      answer.on("error", () => resolve())
      answer.on("end", () => resolve())
    })
    return { isWhole: answer.complete, text: Buffer.concat(pieces).toString("latin1") }
  }

  const logged = (hub: EmbeddedHub, reason: RegExp) =>
    hub.log.filter((line) => line.includes("an export was cut off") && reason.test(line))

  it.each(["identity", "gzip"])(
    "ends without its last line when its token is revoked (%s)",
    async (encoding) => {
      const hub = await filled()
      const token = await tokenFor({ claims: { jti: "one" } })
      const { isWhole, text } = await cut(hub, token, encoding, () =>
        hub.run(hub.revocations.revoke({ _tag: "Token", tokenId: "one" }))
      )
      expect([isWhole, text.includes('"end":true')]).toEqual([false, false])
      expect(logged(hub, /revoked/)).toHaveLength(1)
    }
  )

  it("ends when its token expires", async () => {
    const hub = await filled()
    const token = await tokenFor({ expiresIn: 3 - 5 })
    const { isWhole } = await cut(
      hub,
      token,
      "identity",
      () => new Promise((resolve) => setTimeout(resolve, 3_100))
    )
    expect(isWhole).toBe(false)
    expect(logged(hub, /expired/)).toHaveLength(1)
  })

  it("goes on as long as nothing changes", async () => {
    const hub = await filled()
    const token = await tokenFor()
    const { isWhole, text } = await cut(hub, token, "identity", () =>
      hub.run(hub.revocations.revoke({ _tag: "Token", tokenId: "another" }))
    )
    expect([isWhole, text.includes('"end":true')]).toEqual([true, true])
    expect(logged(hub, /./)).toEqual([])
  })
})

describe("an import that goes on", () => {
  const lineOf = (seq: number): string =>
    `${JSON.stringify({ seq, storedAt: 1, id: `e${seq}`, topic: "imported", ts: 1, payload: "x".repeat(2_000) })}\n`
  const header = `${JSON.stringify({ format: "event-hub/export", version: 1, history: "h", exportedAt: 1, topic: "**" })}\n`

  it("takes nothing more when its token is revoked, and its report says so", async () => {
    const hub = await embedded()
    const token = await tokenFor({ scopes: [...everything, "admin:**"], claims: { jti: "one" } })
    const sent = request(`${hub.ops}/import`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/x-ndjson" }
    })
    const answered = once(sent, "response") as Promise<[IncomingMessage]>
    sent.write(header)
    for (let seq = 1; seq <= 1_000; seq++) sent.write(lineOf(seq))
    const head = () => hub.run(hub.events.head("imported")).then((info) => info?.head ?? 0)
    await expect.poll(head, { timeout: 10_000 }).toBeGreaterThan(0)
    await hub.run(hub.revocations.revoke({ _tag: "Token", tokenId: "one" }))
    // What was on its way may have been taken: what is sent from now on is not.
    for (let seq = 1_001; seq <= 3_000; seq++) sent.write(lineOf(seq))
    sent.end()
    const [answer] = await answered
    const report = JSON.parse(Buffer.concat(await answer.toArray()).toString()) as Record<string, unknown>
    expect(report).toMatchObject({
      complete: false,
      missing: expect.stringMatching(/^it was stopped behind line \d+: the token was revoked$/) as string
    })
    expect(await head()).toBe(report["restored"])
    expect(await head()).toBeLessThanOrEqual(1_000)
    const lines = hub.log.filter((line) => line.includes("events imported"))
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain("the token was revoked")
  })

  it("is not read on for ever when its token is revoked, and is answered", async () => {
    const hub = await embedded()
    const token = await tokenFor({ scopes: [...everything, "admin:**"], claims: { jti: "one" } })
    const sent = request(`${hub.ops}/import`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/x-ndjson" }
    })
    const answered = once(sent, "response") as Promise<[IncomingMessage]>
    const gone = new Promise<void>((resolve) => {
      sent.on("close", resolve)
      sent.on("error", () => resolve())
    })
    sent.write(header)
    let seq = 0
    const flood = (): void => {
      while (!sent.destroyed && sent.write(lineOf(++seq)));
    }
    sent.on("drain", flood)
    flood()
    const head = () => hub.run(hub.events.head("imported")).then((info) => info?.head ?? 0)
    await expect.poll(head, { timeout: 10_000 }).toBeGreaterThan(0)
    await hub.run(hub.revocations.revoke({ _tag: "Token", tokenId: "one" }))
    const [answer] = await answered
    expect(answer.headers.connection).toBe("close")
    expect(Buffer.concat(await answer.toArray()).toString()).toContain("the token was revoked")
    await gone
  })
})

describe("a request whose body comes late", () => {
  const contract = Object.values(OpsApi.groups).flatMap(({ endpoints }) => Object.values(endpoints))
  const changing = contract.filter(({ method }) => method !== "GET")
  const bodied = changing.filter(({ payload }) => payload.size > 0)

  it("can only be one of these: what changes something has a body, or is done at once", () => {
    expect(changing.filter(({ payload }) => payload.size === 0).map(({ method }) => method)).toEqual(
      changing.filter(({ method }) => method === "DELETE").map(({ method }) => method)
    )
    expect(bodied.length).toBeGreaterThan(8)
  })

  /** Sends the head and the beginning of a body, does something, sends the rest, and answers what is answered. */
  const late = async (
    hub: EmbeddedHub,
    {
      body,
      path,
      token,
      type = "application/json"
    }: Record<"body" | "path" | "token", string> & { type?: string },
    meanwhile: () => Promise<unknown>
  ) => {
    const before = hub.verified()
    const sent = request(hub.ops + path, {
      method: "POST",
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": type,
        "content-length": Buffer.byteLength(body)
      }
    })
    const answered = once(sent, "response") as Promise<[IncomingMessage]>
    sent.write(body.slice(0, 1))
    await expect.poll(hub.verified, { timeout: 10_000 }).toBe(before + 1)
    await meanwhile()
    sent.end(body.slice(1))
    const [answer] = await answered
    return { status: answer.statusCode, text: Buffer.concat(await answer.toArray()).toString() }
  }

  const all = [...everything, "admin:**"]

  it("does nothing when its token was revoked meanwhile, at every endpoint", async () => {
    const hub = await embedded()
    for (const [i, { method, path: named }] of bodied.entries()) {
      expect(method).toBe("POST")
      const path = named.replace(/:[^/]+/g, "x")
      const jti = `late${i}`
      const token = await tokenFor({ scopes: all, claims: { jti } })
      const type = path === "/import" ? "application/x-ndjson" : "application/json"
      const { status, text } = await late(hub, { path, token, type, body: "{}\n" }, () =>
        hub.run(hub.revocations.revoke({ _tag: "Token", tokenId: jti }))
      )
      // An import says what became of it.
      expect([path, status]).toEqual([path, path === "/import" ? 200 : 401])
      expect([path, text]).toEqual([path, expect.stringContaining("the token was revoked")])
    }
  })

  it("publishes nothing then, and revokes nothing", async () => {
    const hub = await embedded()
    const bodies = {
      "/publish": JSON.stringify({ topic: "late", payload: 1 }),
      "/revocations": JSON.stringify({ sub: "somebody" })
    }
    for (const [path, body] of Object.entries(bodies)) {
      const token = await tokenFor({ scopes: all, claims: { jti: path } })
      const revoked = () => hub.run(hub.revocations.revoke({ _tag: "Token", tokenId: path }))
      expect(await late(hub, { path, token, body }, revoked)).toMatchObject({ status: 401 })
    }
    expect(await hub.run(hub.events.head("late"))).toBeUndefined()
    const { items } = await hub.run(hub.revocations.list())
    expect(items.map(({ what }) => what._tag)).toEqual(["Token", "Token"])
    const token = await tokenFor({ scopes: all })
    const none = () => Promise.resolve()
    expect(await late(hub, { path: "/publish", token, body: bodies["/publish"] }, none)).toMatchObject({
      status: 200
    })
  })

  it("does nothing when its token expired meanwhile", async () => {
    const hub = await embedded()
    const token = await tokenFor({ scopes: all, expiresIn: 2 - 5 })
    const body = JSON.stringify({ topic: "late", payload: 1 })
    const answer = await late(
      hub,
      { path: "/publish", token, body },
      () => new Promise((resolve) => setTimeout(resolve, 2_100))
    )
    expect(answer).toMatchObject({
      status: 401,
      text: expect.stringContaining("the token has expired") as string
    })
    expect(await hub.run(hub.events.head("late"))).toBeUndefined()
  })
})

describe("an age that tokens may have", () => {
  it("ends connections as an expiry does", async () => {
    const hub = await embedded({ JWT_MAX_AGE_MS: "60000" })
    const iat = Math.floor(Date.now() / 1000) - 63
    const client = await RawClient.connect(hub.ws)
    const token = await tokenFor({ claims: { iat } })
    expect(await client.request({ op: "AUTH", token })).toMatchObject({
      op: "OK",
      expiresAt: (iat + 60) * 1000
    })
    expect(await client.closed).toMatchObject({ code: 4101 })
  })

  it("says nothing of a static token, which stays revoked", async () => {
    const hub = await embedded({ JWT_MAX_AGE_MS: "60000", STATIC_TOKEN: "s".repeat(32) })
    await hub.run(hub.revocations.revoke({ _tag: "IssuedBefore", issuedBefore: 1_000 }))
    await hub.run(hub.revocations.revoke({ _tag: "Subject", sub: "tester", issuedBefore: 1_000 }))
    const { items } = await hub.run(hub.revocations.list())
    expect(items.map(({ until }) => until)).toEqual([undefined, undefined])
  })
})
