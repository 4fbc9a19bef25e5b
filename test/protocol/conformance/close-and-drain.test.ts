/** PROTOCOL.md, "Keeping the connection" and "When the hub stops": pings, DRAIN, and the closes that follow. */
import { once } from "node:events"
import { describe, expect, it } from "vitest"
import { startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { about, eventsOf, fresh, ok, payloadsOf, publish, upTo, useHub } from "./support.ts"

const heartbeatMs = 500
const hub = useHub({ HUB_HEARTBEAT_MS: String(heartbeatMs) })

describe.concurrent("the heartbeat", () => {
  it("MUST close with 4001 a client that leaves two pings unanswered, and keep those that answer", async () => {
    const answering = await hub.client()
    const silent = await hub.client({}, { ws: { autoPong: false } })
    expect(silent.messages[0]).toMatchObject({ heartbeatMs })
    let pings = 0
    silent.socket.on("ping", () => pings++)
    const began = Date.now()
    expect(await silent.closed).toMatchObject({ code: 4001 })
    expect(pings).toBe(2)
    expect(Date.now() - began).toBeGreaterThanOrEqual(2 * heartbeatMs)

    await answering.settled()
    expect(answering.socket.readyState).toBe(answering.socket.OPEN)
  })

  it("MUST count whatever the client sends as a sign of life", async () => {
    const busy = await hub.client({}, { ws: { autoPong: false } })
    const silent = await hub.client({}, { ws: { autoPong: false } })
    // Each ping of the hub is followed by a message instead of a pong.
    busy.socket.on("ping", () => busy.send({ op: "PING" }))
    expect(await silent.closed).toMatchObject({ code: 4001 })
    await busy.settled()
    expect(busy.socket.readyState).toBe(busy.socket.OPEN)
  })

  it("MUST free at once what a silent member of a group held", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const silent = await hub.client({}, { ws: { autoPong: false } })
    await ok(silent, { op: "SUBSCRIBE", topic, group })
    await publish(silent, topic)
    await silent.events(1)
    // It does not even read the close.
    silent.socket.pause()
    const heir = await hub.client()
    await ok(heir, { op: "SUBSCRIBE", topic, group })
    expect(payloadsOf(await heir.events(1))).toEqual([1])
    silent.socket.terminate()
  })
})

describe("PING", () => {
  it("MUST be answered by the hub's time", async () => {
    const client = await hub.client()
    const before = Date.now()
    const answer = await ok(client, { op: "PING" })
    expect(answer).toEqual({ op: "OK", ref: "r2", serverTime: expect.any(Number) })
    expect(answer["serverTime"]).toBeGreaterThanOrEqual(before)
  })

  it("MUST be answered by a pong when it is one of WebSocket's own", async () => {
    const client = await hub.client()
    const pong = once(client.socket, "pong") as Promise<[Buffer]>
    client.socket.ping("are you there?")
    expect((await pong)[0].toString()).toBe("are you there?")
  })

  it("MAY be followed by a close of the client's, which the hub answers", async () => {
    const client = await hub.client()
    client.socket.close(1000, "done")
    expect(await client.closed).toEqual({ code: 1000, reason: "done" })
  })
})

describe.concurrent("a hub that is told to stop", () => {
  it("MUST send each client a DRAIN with a slot of its own, and then close with 1012", async () => {
    const hub = await startHub({ HUB_RECONNECT_SPREAD_MS: "4000" })
    const clients = await Promise.all(upTo(4).map(() => RawClient.authenticated(hub.ws)))
    const exit = hub.stop()
    for (const client of clients) expect(await client.closed).toMatchObject({ code: 1012 })
    const slots = clients.map((client) => {
      const drains = client.messages.filter(({ op }) => op === "DRAIN")
      expect(drains).toEqual([{ op: "DRAIN", retryAfterMs: expect.any(Number) }])
      return Number(drains[0]!["retryAfterMs"])
    })
    expect(slots.toSorted((a, b) => a - b)).toEqual([0, 1000, 2000, 3000])
    expect(await exit).toEqual({ code: 0, signal: null })
  })

  it("MUST take ACK and PUBLISH until the close, and deliver nothing new to groups", async () => {
    const hub = await startHub({ HUB_DRAIN_MS: "2500" })
    const [topic, group] = [fresh(), fresh("group")]
    const client = await RawClient.authenticated(hub.ws)
    const reader = await RawClient.authenticated(hub.ws)
    await ok(reader, { op: "SUBSCRIBE", topic })
    await ok(client, { op: "SUBSCRIBE", topic, group, opts: { credit: 2 } })
    await publish(client, topic, 3)
    const [first, second] = await client.events(2)

    const exit = hub.stop()
    await client.waitFor("DRAIN", ({ op }) => op === "DRAIN")
    const drainedAt = client.messages.findIndex(({ op }) => op === "DRAIN")
    expect(await ok(client, { op: "ACK", ...about(first) })).not.toHaveProperty("stale")
    expect(await ok(client, { op: "PUBLISH", topic, payload: "during" })).toMatchObject({ seq: 4 })
    expect(await ok(reader, { op: "PUBLISH", topic, payload: "again" })).toMatchObject({ seq: 5 })
    await reader.events(5)
    await expect(RawClient.connect(hub.ws)).rejects.toThrow("HTTP 503")
    expect(client.messages.slice(drainedAt).some(({ op }) => op === "EVENT")).toBe(false)
    // With the last answer there is nothing to wait for any more.
    expect(await ok(client, { op: "ACK", ...about(second) })).not.toHaveProperty("stale")

    expect(await client.closed).toMatchObject({ code: 1012 })
    expect(await reader.closed).toMatchObject({ code: 1012 })
    expect(eventsOf(client)).toHaveLength(2)
    expect(payloadsOf(eventsOf(reader))).toEqual([1, 2, 3, "during", "again"])
    expect(await exit).toEqual({ code: 0, signal: null })
  })

  it("MUST NOT wait for ever for clients that do not answer", async () => {
    const hub = await startHub({ HUB_DRAIN_MS: "200" })
    const [topic, group] = [fresh(), fresh("group")]
    const stuck = await RawClient.authenticated(hub.ws)
    await ok(stuck, { op: "SUBSCRIBE", topic, group })
    await publish(stuck, topic)
    await stuck.events(1)
    stuck.socket.pause()
    expect(await hub.stop()).toEqual({ code: 0, signal: null })
    stuck.socket.resume()
    await stuck.closed
  })

  it("MUST NOT deliver to a group behind DRAIN when it is told to stop under load", async () => {
    const hub = await startHub({ HUB_DRAIN_MS: "0" })
    const [topic, group] = [fresh(), fresh("group")]
    const client = await RawClient.authenticated(hub.ws)
    const publisher = await RawClient.authenticated(hub.ws)
    await ok(client, { op: "SUBSCRIBE", topic, group, opts: { credit: 10_000 } })
    for (let payload = 1; payload <= 3_000; payload++) publisher.send({ op: "PUBLISH", topic, payload })
    await client.events(100)
    expect(await hub.stop()).toEqual({ code: 0, signal: null })
    expect(await client.closed).toMatchObject({ code: 1012 })
    const drainedAt = client.messages.findIndex(({ op }) => op === "DRAIN")
    expect(drainedAt).toBeGreaterThan(0)
    expect(client.messages.slice(drainedAt + 1)).toEqual([])
  })
})
