/** PROTOCOL.md, "What the hub tells of itself". */
import { describe, expect, it } from "vitest"
import type { Message } from "../../support/RawClient.ts"
import { everything } from "../../support/tokens.ts"
import { eventOf, fresh, ok, publish, refused, seqsOf, useHub } from "./support.ts"

const hub = useHub({ HUB_LIVE_MS: "100" })

const all = { scopes: [...everything, "subscribe:$hub.**"] }

const on = (topic: string) => (message: Message) => message["topic"] === topic

describe("a subscription to '$hub.…'", () => {
  it.each([
    ["nothing", {}],
    ["a start", { from: "start" }],
    ["a time", { from: { time: 1 } }],
    ["a position", { from: { after: 2 ** 50 } }],
    ["positions, and another history", { from: { topics: { "$hub.stats": 2 ** 50 } }, history: "another" }]
  ])("MUST get what comes from then on, without heads, whatever it asks for: %s", async (_, opts) => {
    const client = await hub.client(all)
    expect(await ok(client, { op: "SUBSCRIBE", topic: "$hub.stats", opts })).toMatchObject({ heads: {} })
    const seqs = seqsOf(await client.events(3))
    expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b))
    expect(client.messages.some(({ op }) => op === "GAP")).toBe(false)
  })

  it("MUST be told what changes after its OK", async () => {
    const client = await hub.client(all)
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic, group: "g" })
    await ok(client, { op: "SUBSCRIBE", topic: `$hub.topic.${topic}` })
    await ok(client, { op: "SUBSCRIBE", topic: `$hub.group.*.${topic}` })
    await publish(client, topic, 2)
    const [grown] = await client.events(1, on(`$hub.topic.${topic}`))
    expect(eventOf(grown)).toEqual({
      id: expect.any(String),
      topic: `$hub.topic.${topic}`,
      seq: expect.any(Number),
      ts: expect.any(Number),
      storedAt: expect.any(Number),
      payload: {
        topic,
        head: expect.any(Number),
        floor: 0,
        storedAt: expect.any(Number),
        eventsPerSecond: expect.any(Number)
      }
    })
    const isAll = (message: Message) =>
      on(`$hub.group.g.${topic}`)(message) &&
      (eventOf(message).payload as { readonly pending: number }).pending === 2
    const [place] = await client.events(1, isAll)
    expect(eventOf(place).payload).toEqual({
      group: "g",
      topic,
      seq: 0,
      head: 2,
      pending: 2,
      inFlight: expect.any(Number),
      lagMs: expect.any(Number)
    })
  })

  it("MUST NOT be one of a group", async () => {
    const client = await hub.client(all)
    for (const topic of ["$hub.stats", "$hub.**", "$hub.topic.a"]) {
      await refused(client, { op: "SUBSCRIBE", topic, group: "g" }, "bad_request")
    }
  })

  it("MUST have the right to the '$hub' topic, and to the one that it names", async () => {
    for (const [scopes, topic, code] of [
      [["subscribe:**"], "$hub.stats", "forbidden"],
      [["subscribe:$hub.stats"], "$hub.stats", undefined],
      [["subscribe:$hub.**"], "$hub.stats", undefined],
      [["subscribe:$hub.**"], "$hub.**", "forbidden"],
      [["subscribe:$hub.**", "subscribe:**"], "$hub.**", undefined],
      [["subscribe:$hub.**", "subscribe:a.*"], "$hub.topic.a.*", undefined],
      [["subscribe:$hub.**", "subscribe:a.*"], "$hub.group.*.a.b", undefined],
      [["subscribe:$hub.**", "subscribe:a.*"], "$hub.topic.a.**", "forbidden"],
      [["subscribe:$hub.**", "subscribe:a.*"], "$hub.*.a.b", "forbidden"],
      [["subscribe:$hub.**", "subscribe:$dead.**"], "$hub.topic.$dead.g.a", "forbidden"]
    ] as const) {
      const client = await hub.client({ scopes: [...scopes] })
      const request = { op: "SUBSCRIBE", topic }
      if (code === undefined) await ok(client, request)
      else await refused(client, request, code)
    }
  })

  it("MUST NOT get what names a topic of dead letters without the right to those", async () => {
    const publisher = await hub.client(all)
    const topic = fresh()
    await ok(publisher, { op: "SUBSCRIBE", topic, group: "dying", opts: { maxAttempts: 1 } })
    const may = await hub.client(all)
    const mayNot = await hub.client({ scopes: ["subscribe:$hub.**", "subscribe:**"] })
    for (const client of [may, mayNot]) await ok(client, { op: "SUBSCRIBE", topic: "$hub.topic.**" })
    const letters = `$hub.topic.$dead.dying.${topic}`
    const [answer] = await publish(publisher, topic)
    await publisher.events(1, on(topic))
    await ok(publisher, { op: "NACK", topic, group: "dying", id: answer!["id"] })
    await may.events(1, on(letters))
    await publish(publisher, `${topic}.after`)
    await mayNot.events(1, on(`$hub.topic.${topic}.after`))
    expect(mayNot.messages.filter(on(letters))).toEqual([])
  })
})

it("a PUBLISH to '$hub.…' MUST be forbidden", async () => {
  const client = await hub.client({ scopes: [...all.scopes, "publish:$hub.**"] })
  await refused(client, { op: "PUBLISH", topic: "$hub.stats", payload: 1 }, "forbidden")
})
