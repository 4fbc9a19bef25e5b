/** PROTOCOL.md, "Old clients": no subprotocol, no refs, one message a frame, and nothing else to know. */
import { describe, expect, it } from "vitest"
import type { RawClient } from "../../support/RawClient.ts"
import { tokenFor } from "../../support/tokens.ts"
import { contextOf, eventOf, eventsOf, fresh, idOf, legacy, payloadsOf, useHub } from "./support.ts"

const hub = useHub()

/** Connected as they did, with AUTH answered. */
const oldClient = async (scopes?: ReadonlyArray<string>): Promise<RawClient> => {
  const client = await hub.connect(legacy)
  client.send({ op: "AUTH", token: await tokenFor(scopes === undefined ? {} : { scopes }) })
  expect(await client.waitFor("OK", () => true)).toMatchObject({ op: "OK" })
  return client
}

describe("an old client", () => {
  it("MUST be answered by OK to an AUTH without ref", async () => {
    const client = await oldClient()
    expect(client.frames).toHaveLength(1)
    expect(client.messages[0]).not.toHaveProperty("ref")
  })

  it.each<readonly [string, (() => Promise<string>) | undefined, string]>([
    ["no token", undefined, "no_token"],
    [
      "a token of another key",
      () => tokenFor({ secret: "another secret of thirty-two bytes" }),
      "jwt_invalid"
    ]
  ])("MUST be answered by ERR to an AUTH with %s", async (_what, token, code) => {
    const client = await hub.connect(legacy)
    client.send({ op: "AUTH", token: await token?.() })
    expect(await client.closed).toMatchObject({ code: 4401 })
    expect(client.frames).toMatchObject([{ op: "ERR", code, msg: expect.any(String) }])
  })

  it("MUST be told no_token when it begins with something else", async () => {
    const client = await hub.connect(legacy)
    client.send({ op: "PUBLISH", topic: "a", payload: 1 })
    await client.closed
    expect(client.messages).toMatchObject([{ op: "ERR", code: "no_token" }])
  })

  it("MUST get events of its group in the old shape, and acknowledge them without ref", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const client = await oldClient()
    client.send({ op: "SUBSCRIBE", topic, group })
    client.send({ op: "PUBLISH", topic, payload: { n: 1 } })
    const [event] = await client.events(1)
    expect(event).toMatchObject({
      op: "EVENT",
      topic,
      group,
      event: { id: expect.any(String), payload: { n: 1 }, ts: expect.any(Number), topic },
      ctx: { attempt: 1 }
    })
    client.send({ op: "ACK", topic, group, id: idOf(event) })
    client.send({ op: "UNSUBSCRIBE", topic, group })
    client.send({ op: "SUBSCRIBE", topic, group })
    client.send({ op: "PUBLISH", topic, payload: { n: 2 } })
    await client.events(2)
    expect(payloadsOf(eventsOf(client))).toEqual([{ n: 1 }, { n: 2 }])
    expect(client.messages.map(({ op }) => op)).toEqual(["OK", "EVENT", "EVENT"])
  })

  it("MUST get a refused event again", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const client = await oldClient()
    client.send({ op: "SUBSCRIBE", topic, group })
    client.send({ op: "PUBLISH", topic, payload: 1 })
    const [event] = await client.events(1)
    client.send({ op: "NACK", topic, group, id: idOf(event), reason: "not now" })
    const again = (await client.events(2)).at(-1)
    expect(idOf(again)).toBe(idOf(event))
    expect(contextOf(again)).toMatchObject({ attempt: 2, redelivered: true })
  })

  it("MUST get live events when it names no group, or null", async () => {
    for (const group of [undefined, null]) {
      const topic = fresh()
      const client = await oldClient()
      client.send({ op: "SUBSCRIBE", topic, group })
      client.send({ op: "PUBLISH", topic, payload: 1 })
      const [event] = await client.events(1)
      expect(eventOf(event)).toMatchObject({ topic, payload: 1 })
      expect(event).not.toHaveProperty("ctx")
      client.send({ op: "UNSUBSCRIBE", topic, group })
      client.send({ op: "PUBLISH", topic, payload: 2 })
      client.send({ op: "PING", ref: "done" })
      await client.waitFor("OK", ({ ref }) => ref === "done")
    }
  })

  it("MUST be told forbidden, and stay", async () => {
    const client = await oldClient(["publish:allowed"])
    client.send({ op: "PUBLISH", topic: "other", payload: 1 })
    client.send({ op: "SUBSCRIBE", topic: "other", group: "g" })
    const errors = await client.waitForAll("ERRs", ({ op }) => op === "ERR", 2)
    expect(errors).toMatchObject([
      { code: "forbidden", msg: expect.any(String) },
      { code: "forbidden", msg: expect.any(String) }
    ])
    expect(client.socket.readyState).toBe(client.socket.OPEN)
  })

  it("MUST get one message a frame, however many there are", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const client = await oldClient()
    client.send({ op: "SUBSCRIBE", topic })
    client.send({ op: "SUBSCRIBE", topic, group })
    const n = 80
    for (let payload = 1; payload <= n; payload++) client.send({ op: "PUBLISH", topic, payload })
    await client.events(2 * n)
    expect(client.frames).toHaveLength(client.messages.length)
    expect(client.frames.some((frame) => Array.isArray(frame))).toBe(false)
  })
})
