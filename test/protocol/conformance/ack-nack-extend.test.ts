/** PROTOCOL.md, "ACK", "NACK" and "EXTEND": what an answer to a delivery does, and what becomes of silence. */
import { describe, expect, it } from "vitest"
import type { Message, RawClient } from "../../support/RawClient.ts"
import { tokenFor } from "../../support/tokens.ts"
import {
  about,
  contextOf,
  eventOf,
  eventsOf,
  fresh,
  idOf,
  ok,
  payloadsOf,
  publish,
  refused,
  useHub
} from "./support.ts"

const hub = useHub({ GROUP_RETRY_BASE_MS: "20", LIMIT_ACK_IDS: "10" })

const join = (
  client: RawClient,
  topic: string,
  group: string,
  opts: Readonly<Record<string, unknown>> = {}
) => ok(client, { op: "SUBSCRIBE", topic, group, opts })

/** A client in a group of its own on a topic of its own, with so many events that it has not answered. */
const holding = async (n: number, opts: Readonly<Record<string, unknown>> = {}) => {
  const client = await hub.client()
  const [topic, group] = [fresh(), fresh("group")]
  await join(client, topic, group, opts)
  await publish(client, topic, n)
  return { client, topic, group, events: await client.events(n) }
}

/** The nth delivery of this event. */
const delivery = async (client: RawClient, id: string, n: number): Promise<Message> =>
  (await client.events(n, (message) => idOf(message) === id)).at(-1)!

/** The hub has noticed that the members of the group are gone. */
const untilFree = async (topic: string, group: string): Promise<void> => {
  const headers = { Authorization: `Bearer ${await tokenFor()}` }
  for (;;) {
    const response = await fetch(`${hub.process.ops}/lag?topic=${topic}&group=${group}`, { headers })
    const { inFlight } = (await response.json()) as { readonly inFlight: number }
    if (inFlight === 0) return
  }
}

describe("ACK", () => {
  it("MUST be answered by OK when it is stored, for one id and for several", async () => {
    const { client, events, group, topic } = await holding(4)
    const [one, ...more] = events.map(idOf)
    expect(await ok(client, { op: "ACK", topic, group, id: one })).toEqual({
      op: "OK",
      ref: expect.any(String)
    })
    expect(await ok(client, { op: "ACK", topic, group, ids: more })).not.toHaveProperty("stale")
  })

  it("MUST take many ids in any order, the same one twice, and none at all", async () => {
    const { client, events, group, topic } = await holding(3, { credit: 3 })
    const ids = events.map(idOf)
    const answer = await ok(client, { op: "ACK", topic, group, ids: [ids[2], ids[0], ids[2], ids[1]] })
    expect(answer).not.toHaveProperty("stale")
    expect(await ok(client, { op: "ACK", topic, group, ids: [] })).not.toHaveProperty("stale")
    await publish(client, topic, 3)
    await client.events(6)
  })

  it("MUST be OK for what is acknowledged already, by whomever", async () => {
    const { client, events, group, topic } = await holding(2)
    const other = await hub.client()
    await join(other, topic, group)
    for (const member of [client, client, other]) {
      const answer = await ok(member, { op: "ACK", topic, group, ids: events.map(idOf) })
      if (member === other) expect(answer).not.toHaveProperty("stale")
    }
  })

  it("MUST be OK for what is acknowledged already, also by another subscription of the group", async () => {
    const client = await hub.client()
    const [root, group] = [fresh(), fresh("group")]
    await join(client, `${root}.b.*`, group)
    await join(client, `${root}.a.*`, group)
    await publish(client, `${root}.a.x`)
    const [event] = await client.events(1)
    for (let i = 0; i < 2; i++) {
      expect(await ok(client, { op: "ACK", ...about(event) })).not.toHaveProperty("stale")
    }
  })

  it("MUST list in stale what it is not about: unknown ids, and what others have", async () => {
    const { client, events, group, topic } = await holding(2)
    const other = await hub.client()
    await join(other, topic, group)
    const ids = events.map(idOf)
    expect(await ok(other, { op: "ACK", topic, group, ids: ["unknown", ids[1]] })).toMatchObject({
      stale: ["unknown", ids[1]]
    })
    // That changed nothing for whoever has it.
    expect(await ok(client, { op: "ACK", topic, group, ids })).not.toHaveProperty("stale")
  })

  it("MUST list in stale a delivery that is somebody else's by now", async () => {
    // Long enough for all of them to be published before the first one lapses.
    const { client: slow, group, topic } = await holding(20, { ackTimeoutMs: 2_000, credit: 20 })
    const heir = await hub.client()
    await join(heir, topic, group, { credit: 20 })
    // What lapses is divided among the members.
    const [taken] = await heir.events(1)
    expect(contextOf(taken).attempt).toBeGreaterThan(1)
    const id = idOf(taken)
    expect(eventsOf(slow).map(idOf)).toContain(id)
    expect(await ok(slow, { op: "ACK", topic, group, id, attempt: 1 })).toMatchObject({ stale: [id] })
  })

  it("MUST be about the given attempt, and an answer about another one frees no credit", async () => {
    const { client, events, group, topic } = await holding(1, { credit: 1 })
    const id = idOf(events[0])
    await publish(client, topic)
    expect(await ok(client, { op: "ACK", topic, group, id, attempt: 2 })).toMatchObject({ stale: [id] })
    await client.settled()
    expect(eventsOf(client)).toHaveLength(1)
    expect(await ok(client, { op: "ACK", topic, group, id, attempt: 1 })).not.toHaveProperty("stale")
    await client.events(2)
  })

  it("MUST be accepted for a delivery that lapsed and that nobody took yet, from another connection", async () => {
    const { client: lost, events, group, topic } = await holding(2)
    lost.socket.terminate()
    await untilFree(topic, group)
    const back = await hub.client()
    back.send([
      { op: "SUBSCRIBE", ref: "sub", topic, group },
      { op: "ACK", ref: "ack", topic, group, id: idOf(events[0]), attempt: 1 }
    ])
    expect(await back.waitFor("OK", ({ ref }) => ref === "ack")).toEqual({ op: "OK", ref: "ack" })
    await back.events(1)
    await back.settled()
    expect(eventsOf(back).map(idOf)).toEqual([idOf(events[1])])
  })

  it("MUST mean this connection's current delivery without an attempt", async () => {
    const { client, events, group, topic } = await holding(1)
    const id = idOf(events[0])
    await ok(client, { op: "NACK", topic, group, id, delayMs: 0 })
    expect(contextOf(await delivery(client, id, 2)).attempt).toBe(2)
    expect(await ok(client, { op: "ACK", topic, group, id })).not.toHaveProperty("stale")
    await publish(client, topic)
    await client.events(3)
  })

  it("MUST be answered only when it fails, without a ref", async () => {
    const { client, events, group, topic } = await holding(2, { credit: 2 })
    client.send([
      { op: "ACK", topic, group, ids: [idOf(events[0]), "unknown"] },
      { op: "ACK", topic: "a b", group, id: "1" }
    ])
    await client.waitFor("ERR", ({ op }) => op === "ERR")
    await publish(client, topic)
    await client.events(3)
    expect(client.messages.filter(({ op, ref }) => op !== "EVENT" && ref === undefined)).toMatchObject([
      { op: "ERR", code: "invalid_topic" }
    ])
  })

  it("MUST be bad_request with more ids than allowed", async () => {
    const client = await hub.client()
    expect(client.messages[0]).toMatchObject({ limits: { maxAckIds: 10 } })
    const ids = Array.from({ length: 11 }, (_, i) => `${i}`)
    await refused(client, { op: "ACK", topic: "a", group: "g", ids }, "bad_request")
  })
})

describe("ACK, NACK and EXTEND", () => {
  const ops = ["ACK", "NACK", "EXTEND"]

  it.each(ops)("MUST be invalid_topic for everyone when the topic is none: %s", async (op) => {
    for (const token of [{}, { scopes: [] }]) {
      const client = await hub.client(token)
      for (const topic of ["a..b", "a.*", "**"]) {
        await refused(client, { op, topic, group: "g", id: "1" }, "invalid_topic")
      }
    }
  })

  it.each(ops)("MUST be not_subscribed when no subscription of the connection fits: %s", async (op) => {
    const client = await hub.client()
    const [root, group] = [fresh(), fresh("group")]
    await join(client, `${root}.*`, group)
    await ok(client, { op: "SUBSCRIBE", topic: `${root}.**` })
    for (const [topic, name] of [
      [`${root}.a`, fresh("group")],
      [`${root}.a.b`, group],
      [root, group]
    ]) {
      await refused(client, { op, topic, group: name, id: "1" }, "not_subscribed")
    }
    await ok(client, { op, topic: `${root}.a`, group, id: "1" })
  })

  it.each(["NACK", "EXTEND"])("MUST list in stale what %s is not about", async (op) => {
    const { client, events, group, topic } = await holding(1)
    const other = await hub.client()
    await join(other, topic, group)
    const id = idOf(events[0])
    for (const request of [
      { op, topic, group, id: "unknown" },
      { op, topic, group, id, attempt: 2 }
    ]) {
      expect(await ok(client, request)).toMatchObject({ stale: [request.id] })
    }
    expect(await ok(other, { op, topic, group, id })).toMatchObject({ stale: [id] })
    expect(await ok(client, { op, topic, group, id, attempt: 1 })).not.toHaveProperty("stale")
  })

  it.each([
    ["NACK", "delayMs"],
    ["EXTEND", "byMs"]
  ])("MUST be bad_request when the time is longer than allowed: %s", async (op, field) => {
    const { client, events, group, topic } = await holding(1)
    const request = { op, topic, group, id: idOf(events[0]) }
    await refused(client, { ...request, [field]: 12 * 3_600_000 + 1 }, "bad_request")
    await ok(client, { ...request, [field]: 12 * 3_600_000 })
  })
})

describe("NACK", () => {
  it("MUST count an attempt and deliver again after a back-off, when it says nothing else", async () => {
    const { client, events, group, topic } = await holding(1)
    const id = idOf(events[0])
    for (const attempt of [2, 3, 4]) {
      await ok(client, { op: "NACK", topic, group, id, ...(attempt > 2 ? { mode: "fail" } : {}) })
      expect(contextOf(await delivery(client, id, attempt))).toMatchObject({ attempt, redelivered: true })
    }
  })

  it("MUST free its credit at once", async () => {
    const { client, events } = await holding(1, { credit: 1 })
    const { topic } = about(events[0])
    await publish(client, String(topic))
    await ok(client, { op: "NACK", ...about(events[0]), delayMs: 60_000 })
    expect(eventOf((await client.events(2)).at(-1)).seq).toBe(2)
  })

  it("MUST wait for delayMs instead of the back-off", async () => {
    const { client, events } = await holding(1)
    const id = idOf(events[0])
    const before = Date.now()
    await ok(client, { op: "NACK", ...about(events[0]), delayMs: 250 })
    expect(contextOf(await delivery(client, id, 2)).attempt).toBe(2)
    expect(Date.now() - before).toBeGreaterThanOrEqual(250)
  })

  it("MUST NOT count the attempt with release, and delivers again at once", async () => {
    const { client, events } = await holding(1, { maxAttempts: 2 })
    const id = idOf(events[0])
    for (let n = 2; n <= 5; n++) {
      await ok(client, { op: "NACK", ...about(events[0]), mode: "release" })
      expect(contextOf(await delivery(client, id, n))).toMatchObject({ attempt: 1, redelivered: true })
    }
  })

  it("MUST give others the chance to take what was released", async () => {
    const { client, events, group, topic } = await holding(1, { credit: 1 })
    const other = await hub.client()
    await join(other, topic, group)
    await publish(client, topic)
    await other.events(1)
    await ok(client, { op: "NACK", ...about(events[0]), mode: "release", delayMs: 0 })
    const again = (messages: ReadonlyArray<Message>) => messages.filter((event) => eventOf(event).seq === 1)
    await Promise.race([client.events(2), other.events(2)])
    expect([...again(eventsOf(client)), ...again(eventsOf(other))]).toHaveLength(2)
  })

  it("MUST put the event into the dead letters at once with poison, with its reason", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await ok(client, { op: "SUBSCRIBE", topic: `$dead.${group}.**` })
    await join(client, topic, group)
    const opts = {
      id: "mine",
      key: "k",
      type: "t",
      headers: { a: "1" },
      tags: ["x"],
      caused_by: "c",
      sid: "s",
      ts: 5
    }
    await ok(client, { op: "PUBLISH", topic, payload: { n: 1 }, opts })
    const [event] = await client.events(1)
    const { headers: _headers, id: _id, ...same } = opts
    await ok(client, { op: "NACK", ...about(event), mode: "poison", reason: "it has no customer" })
    const [letter] = await client.events(1, ({ sub }) => sub === `$dead.${group}.**`)
    expect(letter).toMatchObject({
      topic: `$dead.${group}.${topic}`,
      event: {
        ...same,
        topic: `$dead.${group}.${topic}`,
        seq: 1,
        payload: { n: 1 },
        headers: {
          a: "1",
          "dead-group": group,
          "dead-topic": topic,
          "dead-seq": "1",
          "dead-id": "mine",
          "dead-attempts": "1",
          "dead-reason": "it has no customer"
        }
      }
    })
    expect(idOf(letter).startsWith("mine:")).toBe(true)
    await client.settled()
    expect(eventsOf(client, (message) => message["group"] === group)).toHaveLength(1)
  })

  it("MUST put the event into the dead letters when its attempts are used up", async () => {
    const { client, events, group, topic } = await holding(1, { maxAttempts: 3 })
    const id = idOf(events[0])
    await ok(client, { op: "SUBSCRIBE", topic: `$dead.${group}.${topic}` })
    for (const attempt of [1, 2, 3]) {
      await delivery(client, id, attempt)
      await ok(client, { op: "NACK", topic, group, id, reason: `failed ${attempt}`, delayMs: 0 })
    }
    const [letter] = await client.events(1, ({ sub }) => String(sub).startsWith("$dead."))
    expect(eventOf(letter).headers).toMatchObject({ "dead-attempts": "3", "dead-reason": "failed 3" })
    await client.settled()
    expect(eventsOf(client, (message) => message["group"] === group)).toHaveLength(3)
  })
})

describe("dead letters", () => {
  it("MUST go to groups like other events, and are never given up again", async () => {
    const { client, events, group, topic } = await holding(1)
    await ok(client, { op: "NACK", ...about(events[0]), mode: "poison" })
    const undertaker = fresh("group")
    const dead = `$dead.${group}.${topic}`
    await join(client, dead, undertaker, { from: "start", maxAttempts: 1 })
    for (let n = 1; n <= 3; n++) {
      const event = (await client.events(n, (message) => message["group"] === undertaker)).at(-1)
      expect(contextOf(event).attempt).toBe(n)
      await ok(client, { op: "NACK", ...about(event), mode: n === 2 ? "poison" : "fail", delayMs: 0 })
    }
    const last = (await client.events(4, (message) => message["group"] === undertaker)).at(-1)
    expect(await ok(client, { op: "ACK", ...about(last) })).not.toHaveProperty("stale")
  })

  it("MUST NOT be readable without the right to them, and the right to their originals", async () => {
    const cases: ReadonlyArray<
      readonly [scopes: ReadonlyArray<string>, topic: string, code: string | undefined]
    > = [
      [["subscribe:**"], "$dead.g.a.b", "forbidden"],
      [["subscribe:$dead.**"], "$dead.g.a.b", "forbidden"],
      [["subscribe:$dead.**", "subscribe:a.*"], "$dead.g.a.b", undefined],
      [["subscribe:$dead.**", "subscribe:a.*"], "$dead.*.a.*", undefined],
      [["subscribe:$dead.**", "subscribe:a.*"], "$dead.g.a.**", "forbidden"],
      [["subscribe:$dead.**", "subscribe:a.*"], "$dead.g.**", "forbidden"],
      [["subscribe:$dead.**", "subscribe:a.*"], "$dead.**", "forbidden"],
      [["subscribe:$dead.**", "subscribe:**"], "$dead.**", undefined]
    ]
    for (const [scopes, topic, code] of cases) {
      for (const group of [undefined, fresh("group")]) {
        const client = await hub.client({ scopes })
        const request = { op: "SUBSCRIBE", topic, group }
        if (code === undefined) await ok(client, request)
        else await refused(client, request, code)
        await client.close()
      }
    }
  })
})

describe.concurrent("EXTEND", () => {
  /** Two events, of which the first was extended before its deadline. */
  const extended = async (ackTimeoutMs: number, byMs: number | undefined) => {
    for (;;) {
      const { client, events } = await holding(2, { ackTimeoutMs })
      const [kept, lapsing] = events.map(idOf) as [string, string]
      const before = Date.now()
      const answer = await ok(client, { op: "EXTEND", ...about(events[0]), attempt: 1, byMs })
      // A machine that is very busy may be too late; then there was nothing to extend.
      if (answer["stale"] === undefined) return { client, before, kept, lapsing, event: events[0] }
    }
  }

  it("MUST give more time, while others lapse", async () => {
    const { client, event, kept, lapsing } = await extended(400, 60_000)
    await delivery(client, lapsing, 2)
    await client.settled()
    expect(eventsOf(client, (message) => idOf(message) === kept)).toHaveLength(1)
    expect(await ok(client, { op: "ACK", ...about(event), attempt: 1 })).not.toHaveProperty("stale")
  })

  it("MUST give the group's time-out when it does not say how much", async () => {
    const { before, client, kept } = await extended(400, undefined)
    await delivery(client, kept, 2)
    expect(Date.now() - before).toBeGreaterThanOrEqual(400)
  })

  it("MUST NOT take time away", async () => {
    const { client, event, kept } = await extended(400, 1)
    const again = await delivery(client, kept, 2)
    expect(contextOf(again).deadline).toBeGreaterThanOrEqual(contextOf(event).deadline + 400)
  })
})

describe.concurrent("silence", () => {
  it("MUST lead to another delivery after ackTimeoutMs, and the attempt counts", async () => {
    const { client, events } = await holding(1, { ackTimeoutMs: 150 })
    const again = await delivery(client, idOf(events[0]), 2)
    expect(contextOf(again)).toMatchObject({ attempt: 2, redelivered: true })
    expect(Date.now()).toBeGreaterThanOrEqual(contextOf(events[0]).deadline)
  })

  it("MUST free the credit of what lapsed", async () => {
    const { client, events, group, topic } = await holding(2, { ackTimeoutMs: 150, credit: 2 })
    for (const event of events) await delivery(client, idOf(event), 2)
    await ok(client, { op: "ACK", topic, group, ids: events.map(idOf) })
    const before = eventsOf(client).length
    client.send([3, 4].map((payload) => ({ op: "PUBLISH", topic, payload })))
    expect(payloadsOf(await client.events(before + 2)).slice(before)).toEqual([3, 4])
  })

  it("MUST end in the dead letters when the attempts are used up", async () => {
    const { client, events, group, topic } = await holding(1, { ackTimeoutMs: 100, maxAttempts: 2 })
    await ok(client, { op: "SUBSCRIBE", topic: `$dead.${group}.${topic}`, opts: { from: "start" } })
    const [letter] = await client.events(1, ({ sub }) => String(sub).startsWith("$dead."))
    expect(eventOf(letter).headers).toMatchObject({ "dead-id": idOf(events[0]), "dead-attempts": "2" })
    expect(payloadsOf(eventsOf(client, (message) => message["group"] === group))).toEqual([1, 1])
  })

  it("MUST NOT hold up what others do", async () => {
    const { group, topic } = await holding(1, { credit: 1 })
    const other = await hub.client()
    await join(other, topic, group)
    await publish(other, topic, 5)
    expect(payloadsOf(await other.events(5))).toEqual([1, 2, 3, 4, 5])
  })
})
