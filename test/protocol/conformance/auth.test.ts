/** PROTOCOL.md, "AUTH": first, in time, with a token that holds; and again with a newer one. */
import { describe, expect, it } from "vitest"
import type { Message, RawClient } from "../../support/RawClient.ts"
import { tokenFor, type TokenOptions } from "../../support/tokens.ts"
import { contextOf, eventsOf, fresh, legacy, ok, payloadsOf, publish, refused, useHub } from "./support.ts"

// So many tokens are refused here that the answers would wait; that they do is told below.
const hub = useHub({ LIMIT_AUTH_DELAY_MS: "0" })

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

const authenticate = async (client: RawClient, token: TokenOptions): Promise<Message> =>
  client.request({ op: "AUTH", token: await tokenFor(token) })

/** A token whose `alg` is `none`. */
const unsigned = (): string => {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const exp = Math.floor(Date.now() / 1000) + 600
  return `${part({ alg: "none", typ: "JWT" })}.${part({ sub: "tester", exp, scopes: ["publish:**"] })}.`
}

const past = () => Math.floor(Date.now() / 1000) - 60
const future = () => Math.floor(Date.now() / 1000) + 60

describe("the first AUTH", () => {
  it("MUST be answered by OK with what a client has to know", async () => {
    const client = await hub.connect()
    const before = Date.now()
    const exp = Math.floor(before / 1000) + 600
    const answer = await authenticate(client, { claims: { exp } })
    expect(answer).toEqual({
      op: "OK",
      ref: "r1",
      connection: expect.stringMatching(uuid),
      history: expect.stringMatching(uuid),
      expiresAt: exp * 1000,
      serverTime: expect.any(Number),
      heartbeatMs: 25_000,
      limits: {
        maxFrameBytes: 1_048_576,
        maxPayloadBytes: 262_144,
        maxMessagesPerFrame: 1_000,
        maxSubscriptions: 1_000,
        maxCredit: 10_000,
        maxAckIds: 10_000
      }
    })
    expect(answer["serverTime"]).toBeGreaterThanOrEqual(before)
  })

  it("MUST be answered by OK without a ref, too", async () => {
    const client = await hub.connect()
    client.send({ op: "AUTH", token: await tokenFor() })
    expect(await client.waitFor("OK", () => true)).not.toHaveProperty("ref")
  })

  it("MUST name another connection each time, and the same history", async () => {
    const answers = [await hub.client(), await hub.client()].map((client) => client.messages[0]!)
    expect(answers[0]!["connection"]).not.toBe(answers[1]!["connection"])
    expect(answers[0]!["history"]).toBe(answers[1]!["history"])
  })

  it("MUST come before everything else: what follows it in the same array waits for it", async () => {
    const client = await hub.connect()
    const topic = fresh()
    client.send([
      { op: "AUTH", ref: 1, token: await tokenFor() },
      { op: "SUBSCRIBE", ref: 2, topic },
      { op: "PUBLISH", ref: 3, topic, payload: 1 }
    ])
    const answers = await client.waitForAll("three answers", ({ op }) => op === "OK", 3)
    expect(answers.map(({ ref }) => ref)).toEqual([1, 2, 3])
    expect(payloadsOf(await client.events(1))).toEqual([1])
  })

  it("MUST NOT mix up what follows it in the same array: what waits for a subscription waits", async () => {
    const client = await hub.connect()
    const topic = fresh()
    const group = fresh("group")
    const twice = [
      { op: "SUBSCRIBE", topic, group },
      { op: "UNSUBSCRIBE", topic, group },
      { op: "SUBSCRIBE", topic },
      { op: "PUBLISH", topic, payload: 1 },
      { op: "UNSUBSCRIBE", topic }
    ]
    const requests = [{ op: "AUTH", token: await tokenFor() }, ...twice, ...twice]
    client.send(requests.map((request, i) => ({ ...request, ref: i })))
    const answers = await client.waitForAll("the answers", ({ ref }) => ref !== undefined, requests.length)
    expect(answers.map(({ op }) => op)).toEqual(requests.map(() => "OK"))
    await ok(client, { op: "PING" })
  })

  it("MUST come before everything else: frames that follow it are not looked at before", async () => {
    const client = await hub.connect()
    client.send({ op: "AUTH", ref: 1, token: await tokenFor() })
    client.send({ op: "PING", ref: 2 })
    client.send("no JSON")
    client.send({ op: "PING", ref: 3 })
    const answers = await client.waitForAll("four answers", () => true, 4)
    expect(answers.map(({ code, ref }) => ref ?? code)).toEqual([1, 2, "bad_request", 3])
  })

  it.each(["PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "EXTEND", "PING"])(
    "MUST come before everything else: %s is no_token, and the connection is closed with 4401",
    async (op) => {
      const client = await hub.connect()
      client.send([
        { op, ref: "first", topic: "a", payload: 1, group: "g", id: "1" },
        { op: "AUTH", ref: "second", token: await tokenFor() }
      ])
      expect(await client.closed).toMatchObject({ code: 4401 })
      expect(client.messages).toMatchObject([{ op: "ERR", ref: "first", code: "no_token" }])
      expect(client.messages).toHaveLength(1)
    }
  )

  it("MAY come after a message that is malformed", async () => {
    const client = await hub.connect()
    client.send("no JSON")
    client.send({ op: "HELLO", ref: 1 })
    expect(await authenticate(client, {})).toMatchObject({ op: "OK" })
    expect(client.messages.slice(0, 2)).toMatchObject([
      { op: "ERR", code: "bad_request" },
      { op: "ERR", code: "bad_request", ref: 1 }
    ])
  })
})

describe("a token", () => {
  const refusedWith = async (message: Readonly<Record<string, unknown>>, code: string): Promise<void> => {
    const client = await hub.connect()
    const topic = fresh()
    client.send([
      { op: "AUTH", ref: 1, ...message },
      { op: "PUBLISH", ref: 2, topic, payload: 1 }
    ])
    expect(await client.closed).toMatchObject({ code: 4401 })
    expect(client.messages).toEqual([{ op: "ERR", ref: 1, code, msg: expect.any(String), retryable: false }])
    // Nothing behind the AUTH was looked at.
    expect(await ok(await hub.client(), { op: "PUBLISH", topic, payload: 1 })).toMatchObject({ seq: 1 })
  }

  it("MUST be refused with no_token and 4401 when there is none", () => refusedWith({}, "no_token"))

  it("MUST be refused with no_token and 4401 when it is empty", () => refusedWith({ token: "" }, "no_token"))

  it.each<readonly [string, () => string | Promise<string>]>([
    ["is none", () => "garbage"],
    ["is signed by another key", () => tokenFor({ secret: "another secret of thirty-two bytes" })],
    ["is not signed", unsigned],
    ["has no sub", () => tokenFor({ claims: { sub: undefined } })],
    ["has an empty sub", () => tokenFor({ sub: "" })],
    ["has no exp", () => tokenFor({ claims: { exp: undefined } })],
    ["has a scope without a pattern", () => tokenFor({ scopes: ["publish:**", "subscribe"] })],
    ["has a scope with an action that does not exist", () => tokenFor({ scopes: ["read:**"] })],
    ["has a scope whose pattern is none", () => tokenFor({ scopes: ["publish:a..b"] })],
    ["has scopes that are no array", () => tokenFor({ claims: { scopes: "publish:**" } })],
    ["has a policy that is none", () => tokenFor({ claims: { policy: { rules: [{ effect: "allow" }] } } })],
    [
      "has a time that is over, and is signed by another key",
      () => tokenFor({ claims: { exp: past() }, secret: "another secret of thirty-two bytes" })
    ]
  ])("MUST be refused with jwt_invalid and 4401 when it %s", async (_why, token) => {
    await refusedWith({ token: await token() }, "jwt_invalid")
  })

  it("MUST be refused with token_expired and 4401 when only its time is over", async () => {
    await refusedWith({ token: await tokenFor({ claims: { exp: past() } }) }, "token_expired")
  })

  it("MUST be refused with token_expired and 4401 when only its time is still to come", async () => {
    await refusedWith({ token: await tokenFor({ claims: { nbf: future() } }) }, "token_expired")
  })

  it("MUST be answered without a ref when it is refused", async () => {
    const client = await hub.connect()
    client.send({ op: "AUTH", token: "garbage" })
    expect(await client.closed).toMatchObject({ code: 4401 })
    expect(client.messages).toMatchObject([{ op: "ERR", code: "jwt_invalid" }])
    expect(client.messages[0]).not.toHaveProperty("ref")
  })

  it("MUST give no rights when it has no scopes", async () => {
    for (const token of [{ scopes: [] }, { claims: { scopes: undefined } }]) {
      const client = await hub.client(token)
      await refused(client, { op: "PUBLISH", topic: "a", payload: 1 }, "forbidden")
      await refused(client, { op: "SUBSCRIBE", topic: "a" }, "forbidden")
      await ok(client, { op: "PING" })
    }
  })
})

describe.concurrent("the time of an AUTH, and of its token", () => {
  const hasty = useHub({ LIMIT_AUTH_MS: "1500", JWT_CLOCK_TOLERANCE_MS: "0" })

  it("MUST end with a close with 4103 when no AUTH came", async () => {
    const client = await hasty.connect()
    expect(await client.closed).toMatchObject({ code: 4103 })
    expect(client.messages).toEqual([])
  })

  it("MUST NOT be longer for a client that sends something else that is not understood", async () => {
    const client = await hasty.connect()
    const sending = setInterval(() => client.send({ op: "HELLO" }), 300)
    const { code } = await client.closed
    clearInterval(sending)
    expect(code).toBe(4103)
  })

  it("MUST NOT concern who is authenticated", async () => {
    const client = await hasty.client()
    expect(await (await hasty.connect()).closed).toMatchObject({ code: 4103 })
    await client.settled()
  })

  it("MUST end with a close with 4101 when the token's is over, unless a newer one came", async () => {
    const [first, second] = [await hasty.connect(), await hasty.connect()]
    const exp = Math.floor(Date.now() / 1000) + 2
    expect(await authenticate(first, { claims: { exp } })).toMatchObject({ expiresAt: exp * 1000 })
    expect(await authenticate(second, { claims: { exp } })).toMatchObject({ op: "OK" })
    expect(await authenticate(second, {})).toMatchObject({ op: "OK" })

    expect(await first.closed).toMatchObject({ code: 4101 })
    expect(Date.now()).toBeGreaterThanOrEqual(exp * 1000)
    await second.settled()
    expect(second.socket.readyState).toBe(second.socket.OPEN)
  })
})

describe("a further AUTH", () => {
  it("MUST be answered by OK with the new expiry and with what it ended", async () => {
    const client = await hub.client()
    const exp = Math.floor(Date.now() / 1000) + 1_234
    const answer = await authenticate(client, { claims: { exp } })
    expect(answer).toMatchObject({ op: "OK", expiresAt: exp * 1000, revoked: [] })
    expect(answer["connection"]).toBe(client.messages[0]!["connection"])
  })

  it("MUST be answered without a ref, too", async () => {
    const client = await hub.client()
    client.send({ op: "AUTH", token: await tokenFor() })
    await ok(client, { op: "PING" })
    expect(client.messages[1]).toMatchObject({ op: "OK", revoked: [] })
  })

  it("MUST be forbidden for another sub, and changes nothing", async () => {
    const client = await hub.client({ sub: "alice", scopes: ["publish:a"] })
    expect(await authenticate(client, { sub: "bob", scopes: ["publish:**"] })).toMatchObject({
      op: "ERR",
      code: "forbidden"
    })
    await ok(client, { op: "PUBLISH", topic: "a", payload: 1 })
    await refused(client, { op: "PUBLISH", topic: "b", payload: 1 }, "forbidden")
  })

  it("MUST close the connection with 4401 when its token is refused", async () => {
    const client = await hub.client()
    client.send([
      { op: "AUTH", ref: 1, token: "garbage" },
      { op: "PING", ref: 2 }
    ])
    expect(await client.closed).toMatchObject({ code: 4401 })
    expect(client.messages.slice(1)).toMatchObject([{ op: "ERR", ref: 1, code: "jwt_invalid" }])
  })

  it("MUST be done before what follows it, which goes by the new rights", async () => {
    const client = await hub.client({ scopes: ["publish:a"] })
    client.send([
      { op: "PUBLISH", ref: 1, topic: "b", payload: 1 },
      { op: "AUTH", ref: 2, token: await tokenFor({ scopes: ["publish:b"] }) },
      { op: "PUBLISH", ref: 3, topic: "b", payload: 1 },
      { op: "PUBLISH", ref: 4, topic: "a", payload: 1 }
    ])
    const results = new Map<unknown, string>()
    for (const { op, ref } of await client.waitForAll("answers", ({ ref }) => ref !== "r1", 4)) {
      results.set(ref, op)
    }
    expect([1, 2, 3, 4].map((ref) => results.get(ref))).toEqual(["ERR", "OK", "OK", "ERR"])
  })

  it("MUST end the subscriptions that the new token does not allow, and name them", async () => {
    const [kept, lost] = [fresh("kept"), fresh("lost")]
    const group = fresh("group")
    const client = await hub.client()
    await ok(client, { op: "SUBSCRIBE", topic: `${kept}.*` })
    await ok(client, { op: "SUBSCRIBE", topic: `${lost}.*` })
    await ok(client, { op: "SUBSCRIBE", topic: `${lost}.*`, group })

    const answer = await authenticate(client, { scopes: [`subscribe:${kept}.**`] })
    expect(answer["revoked"]).toEqual([{ topic: `${lost}.*` }, { topic: `${lost}.*`, group }])
    expect(client.messages.filter(({ op }) => op === "END")).toEqual([
      { op: "END", sub: `${lost}.*`, reason: "revoked" },
      { op: "END", sub: `${lost}.*`, group, reason: "revoked" }
    ])

    const publisher = await hub.client()
    await publish(publisher, `${lost}.a`)
    await publish(publisher, `${kept}.a`)
    await client.events(1, ({ topic }) => topic === `${kept}.a`)
    await client.settled()
    expect(eventsOf(client).map(({ topic }) => topic)).toEqual([`${kept}.a`])
    await refused(client, { op: "UNSUBSCRIBE", topic: `${lost}.*` }, "not_subscribed")
    await refused(client, { op: "ACK", topic: `${lost}.a`, group, id: "1" }, "not_subscribed")
  })

  it("MUST give back what an ended group subscription held, and its attempt does not count", async () => {
    const topic = fresh()
    const group = fresh("group")
    const publisher = await hub.client()
    const [loser, heir] = [await hub.client(), await hub.client()]
    await ok(loser, { op: "SUBSCRIBE", topic, group })
    await publish(publisher, topic)
    await loser.events(1)
    await ok(heir, { op: "SUBSCRIBE", topic, group })
    expect(await authenticate(loser, { scopes: [] })).toMatchObject({ revoked: [{ topic, group }] })
    const [event] = await heir.events(1)
    expect(contextOf(event).attempt).toBe(1)
  })

  it("MUST NOT let the hub look at more than is allowed when it comes behind a subscription", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send([
      { op: "SUBSCRIBE", ref: 1, topic },
      { op: "AUTH", ref: 2, token: await tokenFor({ scopes: [] }) }
    ])
    const answers = await client.waitForAll("two answers", ({ ref }) => ref === 1 || ref === 2, 2)
    expect(answers).toMatchObject([
      { op: "OK", ref: 1 },
      { op: "OK", ref: 2, revoked: [{ topic }] }
    ])
  })
})

describe("a refused AUTH", () => {
  const slow = useHub({ LIMIT_AUTH_DELAY_MS: "400", LIMIT_AUTH_DELAY_MAX_MS: "800" })

  it("MUST be answered at once three times; later ones MAY wait, and none that is accepted does", async () => {
    const tried = async (token: string): Promise<number> => {
      const client = await slow.connect()
      const before = performance.now()
      client.send([
        { op: "AUTH", ref: 1, token },
        { op: "PING", ref: 2 }
      ])
      expect(await client.closed).toMatchObject({ code: 4401 })
      expect(client.messages).toMatchObject([{ op: "ERR", ref: 1, code: "jwt_invalid" }])
      return performance.now() - before
    }
    const first = [await tried("a"), await tried("b"), await tried("c")]
    // A timer may be a millisecond early.
    for (const least of [399, 799, 799]) expect(await tried("d")).toBeGreaterThanOrEqual(least)
    expect(Math.min(...first)).toBeLessThan(399)
    const waiting = tried("e")
    const honest = await slow.client()
    await ok(honest, { op: "PING" })
    expect(await waiting).toBeGreaterThanOrEqual(799)
  })
})

describe("a token that expires", () => {
  const warning = useHub({ HUB_EXPIRY_WARNING_MS: "1000", JWT_CLOCK_TOLERANCE_MS: "500" })

  it("MUST be told of once by EXPIRING, before the connection is closed", async () => {
    const client = await warning.client({ expiresIn: 2 })
    expect(await client.closed).toMatchObject({ code: 4101 })
    const told = client.messages.filter(({ op }) => op === "EXPIRING")
    const { expiresAt } = client.messages[0]!
    expect(told).toEqual([{ op: "EXPIRING", expiresAt, closesInMs: expect.any(Number) }])
    expect(told[0]!["closesInMs"]).toBeGreaterThan(0)
    expect(told[0]!["closesInMs"]).toBeLessThanOrEqual(1_500)
  })

  it("MUST NOT be told of to a client that offered no subprotocol", async () => {
    const client = await warning.client({ expiresIn: 2 }, legacy)
    expect(await client.closed).toMatchObject({ code: 4101 })
    expect(client.messages.map(({ op }) => op)).toEqual(["OK"])
  })
})
