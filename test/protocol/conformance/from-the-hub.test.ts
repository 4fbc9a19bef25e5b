/** PROTOCOL.md, what comes from the hub by itself: GAP, END, closes of revoked tokens, and errors of the store. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { driverMessage, type EmbeddedHub, startEmbeddedHub } from "../../support/EmbeddedHub.ts"
import { RawClient } from "../../support/RawClient.ts"
import { tokenFor, type TokenOptions } from "../../support/tokens.ts"
import { about, eventsOf, fresh, idOf, ok, payloadsOf, publish, refused, seqsOf, upTo } from "./support.ts"

let hub: EmbeddedHub

beforeAll(async () => {
  hub = await startEmbeddedHub({ HUB_DRAIN_MS: "0", LIMIT_BATCH_EVENTS: "5000" })
})

afterAll(async () => {
  await hub.stop()
})

const connect = (token?: TokenOptions) => RawClient.authenticated(hub.ws, token)

/** So many events, of which the first are trimmed. */
const trimmed = async (n: number, upTo: number): Promise<readonly [client: RawClient, topic: string]> => {
  const client = await connect()
  const topic = fresh()
  await publish(client, topic, n)
  expect(await hub.run(hub.events.trim({ topic, upTo }))).toBe(upTo)
  return [client, topic]
}

describe("GAP", () => {
  it("MUST come first when a position lies below the trim, and names what will not come", async () => {
    const [client, topic] = await trimmed(6, 4)
    await ok(client, { op: "SUBSCRIBE", topic, opts: { from: { after: 1 } } })
    await client.events(2)
    expect(client.messages.slice(-3)).toMatchObject([
      { op: "GAP", sub: topic, topic, from: 2, to: 4, reason: "trimmed" },
      { op: "EVENT", event: { seq: 5 } },
      { op: "EVENT", event: { seq: 6 } }
    ])
    expect(client.messages.at(-3)).toEqual({
      op: "GAP",
      sub: topic,
      topic,
      from: 2,
      to: 4,
      reason: "trimmed"
    })
  })

  it("MUST come for each topic by itself when positions of several are given", async () => {
    const [client, topic] = await trimmed(3, 2)
    const other = `${topic}.other`
    await publish(client, other, 3)
    const topics = { [topic]: 0, [other]: 1 }
    await ok(client, { op: "SUBSCRIBE", topic: `${topic}.**`, opts: { from: { topics } } })
    await client.events(3)
    expect(client.messages.filter(({ op }) => op === "GAP")).toEqual([
      { op: "GAP", sub: `${topic}.**`, topic, from: 1, to: 2, reason: "trimmed" }
    ])
  })

  it("MUST NOT come when nothing is missing", async () => {
    const [client, topic] = await trimmed(4, 2)
    await ok(client, { op: "SUBSCRIBE", topic, opts: { from: { after: 2 } } })
    await client.events(2)
    expect(client.messages.some(({ op }) => op === "GAP")).toBe(false)
  })

  it("MUST NOT come from start: what is there is all there is", async () => {
    const [client, topic] = await trimmed(4, 2)
    await ok(client, { op: "SUBSCRIBE", topic, opts: { from: "start" } })
    expect(seqsOf(await client.events(2))).toEqual([3, 4])
    expect(client.messages.some(({ op }) => op === "GAP")).toBe(false)
  })

  it("MUST come to a group whose events were trimmed before it took them", async () => {
    const client = await connect()
    const [topic, group] = [fresh(), fresh("group")]
    await ok(client, { op: "SUBSCRIBE", topic, group })
    await client.close()
    const next = await connect()
    await publish(next, topic, 5)
    await hub.run(hub.events.trim({ topic, upTo: 3 }))
    await ok(next, { op: "SUBSCRIBE", topic, group })
    const events = await next.events(2)
    expect(next.messages.find(({ op }) => op === "GAP")).toEqual({
      op: "GAP",
      sub: topic,
      topic,
      group,
      from: 1,
      to: 3,
      reason: "trimmed"
    })
    expect(seqsOf(events)).toEqual([4, 5])
    expect(await ok(next, { op: "ACK", topic, group, ids: events.map(idOf) })).not.toHaveProperty("stale")
  })

  it("MUST NOT keep back the id: below the trim it may be a new event", async () => {
    const client = await connect()
    const topic = fresh()
    const request = { op: "PUBLISH", topic, payload: 1, opts: { id: "mine" } }
    await ok(client, request)
    await publish(client, topic)
    await hub.run(hub.events.trim({ topic, upTo: 1 }))
    expect(await ok(client, request)).toMatchObject({ seq: 3, duplicate: false })
  })
})

describe("END", () => {
  it("MUST come when the group is removed, and the connection goes on", async () => {
    const client = await connect()
    const [topic, group] = [fresh(), fresh("group")]
    await ok(client, { op: "SUBSCRIBE", topic, group })
    await publish(client, topic)
    const [event] = await client.events(1)
    await hub.run(hub.groups.remove(group))
    await publish(client, topic)
    expect(await client.waitFor("END", ({ op }) => op === "END")).toEqual({
      op: "END",
      sub: topic,
      group,
      reason: "removed"
    })
    await refused(client, { op: "ACK", ...about(event) }, "not_subscribed")
    await ok(client, { op: "SUBSCRIBE", topic, group, opts: { from: "start" } })
    await client.events(3)
  })
})

describe("a revoked token", () => {
  it("MUST close its connections with 4102, and no others", async () => {
    const revoked = await connect({ claims: { jti: "stolen" } })
    const other = await connect({ claims: { jti: "mine" } })
    await hub.run(hub.revocations.revoke({ _tag: "Token", tokenId: "stolen" }))
    expect(await revoked.closed).toMatchObject({ code: 4102 })
    await other.settled()
    await expect(connect({ claims: { jti: "stolen" } })).rejects.toThrow("jwt_invalid")
  })
})

describe("a store that takes its time", () => {
  beforeAll(() => {
    hub.faults.topicsMs = 100
  })
  afterAll(() => {
    hub.faults.topicsMs = 0
  })

  it("MUST NOT change the order in which messages apply", async () => {
    const client = await connect()
    const [topic, group] = [fresh(), fresh("group")]
    client.send([
      { op: "SUBSCRIBE", ref: 1, topic: `${topic}.*` },
      { op: "SUBSCRIBE", ref: 2, topic: `${topic}.*`, group },
      { op: "SUBSCRIBE", ref: 3, topic: `${topic}.*` },
      { op: "PUBLISH", ref: 4, topic: `${topic}.a`, payload: "a" },
      { op: "ACK", ref: 5, topic: `${topic}.a`, group, id: "unknown" }
    ])
    client.send({ op: "UNSUBSCRIBE", ref: 6, topic: `${topic}.*` })
    client.send({ op: "PUBLISH", ref: 7, topic: `${topic}.b`, payload: "b" })
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 7)
    const by = new Map(answers.map(({ code, op, ref }) => [ref, code ?? op]))
    expect([1, 2, 3, 4, 5, 6, 7].map((ref) => by.get(ref))).toEqual([
      ...["OK", "OK", "already_subscribed", "OK", "OK", "OK", "OK"]
    ])
    await client.events(2, (message) => message["group"] === group)
    await client.settled()
    expect(payloadsOf(eventsOf(client, (message) => message["group"] === group))).toEqual(["a", "b"])
    const live = payloadsOf(eventsOf(client, (message) => message["group"] === undefined))
    expect(["a"].slice(0, live.length)).toEqual(live)
  })

  it("MUST NOT lose an event that is published behind a subscription", async () => {
    const client = await connect()
    const topic = fresh()
    client.send([
      { op: "SUBSCRIBE", topic },
      { op: "PUBLISH", topic, payload: 1 }
    ])
    expect(payloadsOf(await client.events(1))).toEqual([1])
  })

  it("MUST NOT hold up what has nothing to do with the subscription", async () => {
    const client = await connect()
    const topic = fresh()
    client.send([
      { op: "SUBSCRIBE", ref: 1, topic },
      { op: "PUBLISH", ref: 2, topic: `${topic}.other`, payload: 1 },
      { op: "PING", ref: 3 }
    ])
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 3)
    expect(answers.map(({ ref }) => ref).at(-1)).toBe(1)
  })

  it("MUST decide again by a token that comes behind a subscription", async () => {
    const client = await connect()
    const topic = fresh()
    client.send([
      { op: "SUBSCRIBE", ref: 1, topic },
      { op: "AUTH", ref: 2, token: await tokenFor({ scopes: [] }) },
      { op: "PUBLISH", ref: 3, topic, payload: 1 }
    ])
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 3)
    expect(answers).toMatchObject([
      { op: "OK", ref: 1 },
      { op: "OK", ref: 2, revoked: [{ topic }] },
      { op: "ERR", ref: 3, code: "forbidden" }
    ])
  })

  it("MUST NOT be waited for by a client that is gone", async () => {
    const client = await connect()
    const [topic, group] = [fresh(), fresh("group")]
    client.send({ op: "SUBSCRIBE", topic, group })
    client.socket.terminate()
    await client.closed
    const next = await connect()
    await ok(next, { op: "SUBSCRIBE", topic, group })
    await publish(next, topic, 3)
    await next.events(3)
  })
})

describe("a store that takes its time for something else", () => {
  it("MUST NOT lead to frames of more than 1,000 messages, however many events it stores at once", async () => {
    const client = await connect()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    hub.faults.appendMs = 50
    for (let n = 0; n < 3_000; n += 1_000) {
      client.send(Array.from({ length: 1_000 }, (_, i) => ({ op: "PUBLISH", topic, payload: n + i + 1 })))
    }
    expect(payloadsOf(await client.events(3_000))).toEqual(upTo(3_000))
    hub.faults.appendMs = 0
    const sizes = client.frames.map((frame) => (Array.isArray(frame) ? frame.length : 1))
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1_000)
  })

  it("MUST NOT let an UNSUBSCRIBE overtake an ACK of events that have to be looked up", async () => {
    const [leaver, heir] = [await connect(), await connect()]
    const [topic, group] = [fresh(), fresh("group")]
    await ok(leaver, { op: "SUBSCRIBE", topic, group })
    await publish(leaver, topic, 3)
    const ids = (await leaver.events(3)).map(idOf)
    hub.faults.findMs = 50
    leaver.send([
      { op: "ACK", topic, group, ids: ["unknown", ids[0], ids[2]], ref: "ack" },
      { op: "UNSUBSCRIBE", topic, group, ref: "bye" }
    ])
    expect(await leaver.waitFor("OK", ({ ref }) => ref === "ack")).toMatchObject({ stale: ["unknown"] })
    await leaver.waitFor("OK", ({ ref }) => ref === "bye")
    hub.faults.findMs = 0
    await ok(heir, { op: "SUBSCRIBE", topic, group })
    await heir.events(1)
    await heir.settled()
    expect(payloadsOf(eventsOf(heir))).toEqual([2])
  })

  it("MUST be waited for by a hub that stops: what was asked is answered before the close", async () => {
    const stopping = await startEmbeddedHub()
    const client = await RawClient.authenticated(stopping.ws)
    const topic = fresh()
    stopping.faults.appendMs = 100
    client.send(upTo(10).map((ref) => ({ op: "PUBLISH", ref, topic, payload: ref })))
    await ok(client, { op: "PING" })
    await stopping.stop()
    expect(await client.closed).toMatchObject({ code: 1012 })
    const refs = client.messages
      .filter(({ op, seq }) => op === "OK" && seq !== undefined)
      .map(({ ref }) => ref)
    expect(refs).toEqual(upTo(10))
  })

  it("MUST NOT let events of a group come behind DRAIN", async () => {
    const stopping = await startEmbeddedHub({ HUB_DRAIN_MS: "200" })
    const client = await RawClient.authenticated(stopping.ws)
    const [topic, group] = [fresh(), fresh("group")]
    await ok(client, { op: "SUBSCRIBE", topic, group })
    await publish(client, topic)
    await client.events(1)
    stopping.faults.modifyMs = 50
    await publish(client, topic)
    await stopping.stop()
    expect(await client.closed).toMatchObject({ code: 1012 })
    expect(client.messages.at(-1)).toMatchObject({ op: "DRAIN" })
    expect(payloadsOf(eventsOf(client))).toEqual([1, 1])
  })
})

describe("a store that fails", () => {
  it("MUST lead to unavailable, which may be tried again, and to no second event", async () => {
    const client = await connect()
    const topic = fresh()
    const request = { op: "PUBLISH", topic, payload: 1, opts: { id: "mine" } }
    hub.faults.append = true
    const answer = await refused(client, request, "unavailable")
    expect(answer["retryable"]).toBe(true)
    expect(JSON.stringify(answer)).not.toContain("ECONNRESET")
    hub.faults.append = false
    expect(await ok(client, request)).toMatchObject({ seq: 1, duplicate: false })
  })

  it("MUST refuse a subscription with unavailable, and what waited behind it goes on", async () => {
    const client = await connect()
    const topic = fresh()
    hub.faults.topics = "unavailable"
    for (const group of [undefined, "g"]) {
      const answer = await refused(client, { op: "SUBSCRIBE", topic, group }, "unavailable")
      expect(JSON.stringify(answer)).not.toContain("ECONNRESET")
    }
    client.send([
      { op: "SUBSCRIBE", ref: 1, topic },
      { op: "PUBLISH", ref: 2, topic, payload: 1 }
    ])
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 2)
    expect(answers.map(({ code, ref }) => [ref, code])).toEqual([
      [1, "unavailable"],
      [2, undefined]
    ])
    hub.faults.topics = "none"
    await ok(client, { op: "SUBSCRIBE", topic })
  })

  it("MUST be internal when it is a bug: with an id that stands in the log, and without what the driver said", async () => {
    const client = await connect()
    const topic = fresh()
    hub.faults.topics = "bug"
    const { msg, retryable } = await refused(client, { op: "SUBSCRIBE", topic }, "internal")
    hub.faults.topics = "none"
    expect(retryable).toBe(true)
    expect(msg).not.toContain("ECONNRESET")
    const [id] = /[0-9a-f-]{36}/.exec(String(msg))!
    const line = hub.log.find((line) => line.includes(id))
    expect(line).toContain(driverMessage)
    await ok(client, { op: "SUBSCRIBE", topic })
  })
})
