/** PROTOCOL.md, "SUBSCRIBE, group": who gets what, how much at once, and what becomes of it when a member goes. */
import { describe, expect, it } from "vitest"
import type { RawClient } from "../../support/RawClient.ts"
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
  upTo,
  useHub
} from "./support.ts"

const hub = useHub()

const join = (
  client: RawClient,
  topic: string,
  group: string,
  opts: Readonly<Record<string, unknown>> = {}
) => ok(client, { op: "SUBSCRIBE", topic, group, opts })

const inGroup = (group: string) => (message: { readonly [field: string]: unknown }) =>
  message["group"] === group

describe("the answer", () => {
  it("MUST name the pattern and the group, and come before the first EVENT", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await publish(client, topic, 3)
    expect(await join(client, topic, group, { from: "start" })).toEqual({
      op: "OK",
      ref: expect.any(String),
      topic,
      group
    })
    await client.events(3)
    const first = client.messages.findIndex((message) => message["group"] === group)
    expect(client.messages[first]!.op).toBe("OK")
  })

  it.each(["", "a.b", "*", "a b", "x".repeat(65)])(
    "MUST be bad_request when the group's name is no segment: %j",
    async (group) => {
      const client = await hub.client()
      await refused(client, { op: "SUBSCRIBE", topic: fresh(), group }, "bad_request")
    }
  )

  it("MUST be invalid_pattern for everyone when the pattern is none", async () => {
    for (const token of [{}, { scopes: [] }]) {
      await refused(
        await hub.client(token),
        { op: "SUBSCRIBE", topic: "a..b", group: "g" },
        "invalid_pattern"
      )
    }
  })

  it("MUST be forbidden when no scope covers the pattern", async () => {
    const client = await hub.client({ scopes: ["subscribe:a.*"] })
    await refused(client, { op: "SUBSCRIBE", topic: "a.**", group: fresh("group") }, "forbidden")
  })

  it("MUST be already_subscribed for the same pattern and group", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await join(client, topic, group)
    await refused(client, { op: "SUBSCRIBE", topic, group }, "already_subscribed")
    await join(client, topic, fresh("group"))
    await ok(client, { op: "SUBSCRIBE", topic })
  })

  it("MUST be bad_request beyond the limits", async () => {
    const client = await hub.client()
    const request = { op: "SUBSCRIBE", topic: fresh(), group: fresh("group") }
    await refused(client, { ...request, opts: { credit: 10_001 } }, "bad_request")
    await refused(client, { ...request, opts: { ackTimeoutMs: 12 * 3_600_000 + 1 } }, "bad_request")
    await ok(client, { ...request, opts: { credit: 10_000, ackTimeoutMs: 12 * 3_600_000 } })
  })
})

describe("an EVENT of a group", () => {
  it("MUST say which delivery it is, and until when it has to be answered", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await join(client, `${topic}.*`, group, { ackTimeoutMs: 60_000 })
    const before = Date.now()
    const { id, storedAt } = await ok(client, { op: "PUBLISH", topic: `${topic}.a`, payload: { n: 1 } })
    const [event] = await client.events(1)
    expect(event).toEqual({
      op: "EVENT",
      sub: `${topic}.*`,
      topic: `${topic}.a`,
      group,
      event: { id, topic: `${topic}.a`, seq: 1, ts: expect.any(Number), storedAt, payload: { n: 1 } },
      ctx: { attempt: 1, redelivered: false, deadline: expect.any(Number) }
    })
    expect(contextOf(event).deadline).toBeGreaterThanOrEqual(before + 60_000)
  })

  it("MUST go to one member", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const publisher = await hub.client()
    const members = await Promise.all(upTo(3).map(() => hub.client()))
    for (const member of members) await join(member, topic, group)
    const n = 300
    for (let payload = 1; payload <= n; payload++) publisher.send({ op: "PUBLISH", topic, payload })
    const taken: Array<unknown> = []
    // Everybody acknowledges what comes, until all of it is.
    const acked = new Map<RawClient, number>(members.map((member) => [member, 0]))
    while (taken.length < n) {
      for (const member of members) {
        const events = eventsOf(member).slice(acked.get(member))
        acked.set(member, acked.get(member)! + events.length)
        if (events.length > 0) {
          taken.push(...payloadsOf(events))
          await ok(member, { op: "ACK", topic, group, ids: events.map(idOf) })
        } else await ok(member, { op: "PING" })
      }
    }
    expect(taken.toSorted((a, b) => Number(a) - Number(b))).toEqual(upTo(n))
    for (const member of members) expect(eventsOf(member).length).toBeGreaterThan(0)
  })

  it("MUST go to each group", async () => {
    const client = await hub.client()
    const topic = fresh()
    const groups = [fresh("group"), fresh("group")]
    for (const group of groups) await join(client, topic, group)
    await ok(client, { op: "SUBSCRIBE", topic })
    await publish(client, topic, 3)
    await client.events(9)
    await client.settled()
    for (const group of [...groups, undefined]) {
      expect(payloadsOf(eventsOf(client, (message) => message["group"] === group))).toEqual([1, 2, 3])
    }
  })

  it("MUST go to one subscription of the group, also when patterns overlap", async () => {
    const client = await hub.client()
    const [root, group] = [fresh(), fresh("group")]
    const patterns = [`${root}.a`, `${root}.*`, `${root}.**`]
    for (const pattern of patterns) await join(client, pattern, group)
    await publish(client, `${root}.a`, 30)
    const events = await client.events(30)
    await ok(client, { op: "ACK", topic: `${root}.a`, group, ids: events.map(idOf) })
    await client.settled()
    expect(payloadsOf(eventsOf(client)).toSorted((a, b) => Number(a) - Number(b))).toEqual(upTo(30))
    expect(new Set(events.map((event) => event["sub"])).size).toBeGreaterThan(1)
  })

  it("MUST NOT come after the answer of an UNSUBSCRIBE", async () => {
    const client = await hub.client()
    const publisher = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await join(client, topic, group, { credit: 10_000 })
    for (let payload = 1; payload <= 500; payload++) publisher.send({ op: "PUBLISH", topic, payload })
    await client.events(1)
    await ok(client, { op: "UNSUBSCRIBE", topic, group })
    const before = eventsOf(client).length
    await publish(publisher, topic)
    await client.settled()
    expect(eventsOf(client)).toHaveLength(before)
  })
})

describe("credit", () => {
  it("MUST bound what is unacknowledged, over all topics of the subscription", async () => {
    const client = await hub.client()
    const [root, group] = [fresh(), fresh("group")]
    for (const name of ["a", "b", "c"]) await publish(client, `${root}.${name}`, 4)
    await join(client, `${root}.*`, group, { from: "start", credit: 5 })
    const seen = new Set<string>()
    while (seen.size < 12) {
      const events = (await client.events(seen.size + 1)).slice(seen.size)
      await client.settled()
      expect(eventsOf(client).length - seen.size).toBeLessThanOrEqual(5)
      for (const event of events) {
        seen.add(`${String(event["topic"])} ${idOf(event)}`)
        await ok(client, { op: "ACK", ...about(event) })
      }
    }
    expect(eventsOf(client)).toHaveLength(12)
  })

  it("MUST be 100 when it is not given", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    client.send(upTo(150).map((payload) => ({ op: "PUBLISH", topic, payload })))
    await publish(client, topic)
    await join(client, topic, group, { from: "start" })
    const events = await client.events(100)
    await client.settled()
    expect(eventsOf(client)).toHaveLength(100)
    await ok(client, { op: "ACK", topic, group, ids: events.slice(0, 7).map(idOf) })
    await client.events(107)
    await client.settled()
    expect(eventsOf(client)).toHaveLength(107)
  })

  it("MUST be free again after an ACK, in the order of the topic", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await publish(client, topic, 5)
    await join(client, topic, group, { from: "start", credit: 1 })
    for (let n = 1; n <= 5; n++) {
      const event = (await client.events(n)).at(-1)
      expect(eventOf(event).seq).toBe(n)
      await client.settled()
      expect(eventsOf(client)).toHaveLength(n)
      await ok(client, { op: "ACK", ...about(event) })
    }
  })

  it("MUST be the member's own", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const [one, many] = [await hub.client(), await hub.client()]
    await join(one, topic, group, { credit: 1 })
    await join(many, topic, group, { credit: 50 })
    await publish(await hub.client(), topic, 40)
    await many.events(39)
    await one.events(1)
    await one.settled()
    expect(eventsOf(one)).toHaveLength(1)
  })
})

describe("a registration", () => {
  it("MUST begin at new when from is not given", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await publish(client, topic, 3)
    await join(client, topic, group)
    await ok(client, { op: "PUBLISH", topic, payload: "later" })
    await client.events(1)
    await client.settled()
    expect(payloadsOf(eventsOf(client))).toEqual(["later"])
  })

  it.each<readonly [string, (topic: string) => unknown, ReadonlyArray<number>]>([
    ["start", () => "start", [1, 2, 3]],
    ["after", () => ({ after: 1 }), [2, 3]],
    ["time", () => ({ time: 0 }), [1, 2, 3]],
    ["topics", (topic) => ({ topics: { [topic]: 2 } }), [3]]
  ])("MUST begin where from says: %s", async (_name, from, expected) => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await publish(client, topic, 3)
    await join(client, topic, group, { from: from(topic) })
    await client.events(expected.length)
    await client.settled()
    expect(payloadsOf(eventsOf(client))).toEqual(expected)
  })

  it("MUST be refused with unrecoverable_position beyond the end and for another history", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await publish(client, topic, 3)
    const history = "01a1feeb-0000-7000-8000-000000000000"
    for (const opts of [{ from: { after: 4 } }, { from: "start", history }]) {
      await refused(client, { op: "SUBSCRIBE", topic, group, opts }, "unrecoverable_position")
    }
    // Nothing was registered by that.
    await join(client, topic, group, { from: "start", ackTimeoutMs: 12_345 })
    await client.events(3)
  })

  it("MUST be bad_request from after for a pattern", async () => {
    const opts = { from: { after: 1 } }
    await refused(await hub.client(), { op: "SUBSCRIBE", topic: "a.*", group: "g", opts }, "bad_request")
  })

  it("MUST go on where the group stands when it is known, whatever from says", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const first = await hub.client()
    await publish(first, topic, 4)
    await join(first, topic, group, { from: "start", credit: 2 })
    const events = await first.events(2)
    await ok(first, { op: "ACK", topic, group, ids: events.map(idOf) })
    await ok(first, { op: "UNSUBSCRIBE", topic, group })

    for (const from of ["start", "new", { after: 999 }]) {
      const next = await hub.client()
      await join(next, topic, group, { from })
      expect(payloadsOf(await next.events(2))).toEqual([3, 4])
      await ok(next, { op: "UNSUBSCRIBE", topic, group })
    }
  })

  it("MUST read a topic from its start that was born later, whether or not a member was there", async () => {
    const [root, group] = [fresh(), fresh("group")]
    const first = await hub.client()
    await publish(first, `${root}.old`, 2)
    await join(first, `${root}.*`, group, { from: "new" })
    await first.close()

    const publisher = await hub.client()
    await publish(publisher, `${root}.born`, 3)
    const second = await hub.client()
    await join(second, `${root}.*`, group)
    await second.events(3)
    await publish(publisher, `${root}.old`)
    await second.events(4)
    await second.settled()
    const of = (name: string) =>
      payloadsOf(eventsOf(second, (message) => message["topic"] === `${root}.${name}`))
    expect([of("born"), of("old")]).toEqual([[1, 2, 3], [1]])
  })

  it("MUST be group_conflict with options that differ, and stands with those that do not", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const client = await hub.client()
    const opts = { ackTimeoutMs: 20_000, maxAttempts: 7, keyOrdered: true }
    await join(await hub.client(), topic, group, { ...opts, credit: 3 })
    for (const differing of [{ ackTimeoutMs: 20_001 }, { maxAttempts: 8 }, { keyOrdered: false }]) {
      await refused(client, { op: "SUBSCRIBE", topic, group, opts: differing }, "group_conflict")
      // The options are the group's, not the pattern's.
      await refused(
        client,
        { op: "SUBSCRIBE", topic: `${topic}.*`, group, opts: differing },
        "group_conflict"
      )
    }
    await join(client, topic, group, { ...opts, credit: 9 })
    await join(client, `${topic}.*`, group)
  })

  it("MUST be group_conflict against the defaults, too", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const client = await hub.client()
    await join(await hub.client(), topic, group)
    for (const opts of [{ ackTimeoutMs: 30_001 }, { maxAttempts: 11 }, { keyOrdered: true }]) {
      await refused(client, { op: "SUBSCRIBE", topic, group, opts }, "group_conflict")
    }
    await join(client, topic, group, { ackTimeoutMs: 30_000, maxAttempts: 10, keyOrdered: false })
  })
})

describe("a member that goes", () => {
  it("MUST free its events at once when it says UNSUBSCRIBE, and the attempt does not count", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const [leaver, heir] = [await hub.client(), await hub.client()]
    await join(leaver, topic, group)
    const publisher = await hub.client()
    await publish(publisher, topic, 3)
    const events = await leaver.events(3)
    await join(heir, topic, group)
    leaver.send([
      { op: "ACK", ...about(events[1]) },
      { op: "UNSUBSCRIBE", topic, group, ref: "bye" }
    ])
    expect(await leaver.waitFor("OK", ({ ref }) => ref === "bye")).toMatchObject({ op: "OK" })
    const inherited = await heir.events(2)
    await heir.settled()
    expect(payloadsOf(eventsOf(heir))).toEqual([1, 3])
    for (const event of inherited) expect(contextOf(event)).toMatchObject({ attempt: 1, redelivered: true })
  })

  it("MUST have its ACKs persisted that came before the UNSUBSCRIBE, beside others that are unknown", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const [leaver, heir] = [await hub.client(), await hub.client()]
    await join(leaver, topic, group)
    await publish(leaver, topic, 3)
    const ids = (await leaver.events(3)).map(idOf)
    leaver.send([
      { op: "ACK", topic, group, ids: ["unknown", ids[0], ids[2]], ref: "ack" },
      { op: "UNSUBSCRIBE", topic, group, ref: "bye" }
    ])
    expect(await leaver.waitFor("OK", ({ ref }) => ref === "bye")).toMatchObject({ op: "OK" })
    expect(await leaver.waitFor("OK", ({ ref }) => ref === "ack")).toMatchObject({
      op: "OK",
      stale: ["unknown"]
    })
    await join(heir, topic, group)
    await heir.events(1)
    await heir.settled()
    expect(payloadsOf(eventsOf(heir))).toEqual([2])
  })

  it("MUST free its events at once when its connection ends without that, and the attempt counts", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const [lost, closing, heir] = [await hub.client(), await hub.client(), await hub.client()]
    await join(lost, topic, group, { credit: 2 })
    await publish(heir, topic, 2)
    await lost.events(2)
    await join(closing, topic, group, { credit: 1 })
    await publish(heir, topic)
    await closing.events(1)
    await join(heir, topic, group)
    lost.socket.terminate()
    await closing.close()
    const inherited = await heir.events(3)
    expect(payloadsOf(inherited).toSorted()).toEqual([1, 1, 2])
    for (const event of inherited) expect(contextOf(event)).toMatchObject({ attempt: 2, redelivered: true })
  })

  it("MUST get its events again when it comes back", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const publisher = await hub.client()
    let client = await hub.client()
    await join(client, topic, group)
    await publish(publisher, topic, 3)
    // Beyond the second time each comes alone, so that one that kills its handler takes no other with it.
    for (const attempt of [1, 2]) {
      const events = await client.events(3)
      expect(payloadsOf(events)).toEqual([1, 2, 3])
      for (const event of events)
        expect(contextOf(event)).toMatchObject({ attempt, redelivered: attempt > 1 })
      client.socket.terminate()
      await client.closed
      client = await hub.client()
      await join(client, topic, group)
    }
    for (const n of [1, 2, 3]) {
      const event = (await client.events(n)).at(-1)
      expect([eventOf(event).payload, contextOf(event).attempt]).toEqual([n, 3])
      await client.settled()
      expect(eventsOf(client)).toHaveLength(n)
      await ok(client, { op: "ACK", ...about(event) })
    }
  })

  it("MUST NOT get again what it acknowledged, nor does anybody else", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const first = await hub.client()
    await join(first, topic, group)
    await publish(first, topic, 10)
    const ids = (await first.events(10)).map(idOf)
    await ok(first, { op: "ACK", topic, group, ids: [...ids.slice(0, 3), ids[6], ids[9]] })
    first.socket.terminate()
    const second = await hub.client()
    await join(second, topic, group)
    await second.events(5)
    await second.settled()
    expect(payloadsOf(eventsOf(second))).toEqual([4, 5, 6, 8, 9])
  })
})

describe("a group in key order", () => {
  const keyed: ReadonlyArray<readonly [key: string | null, payload: string]> = [
    ["a", "a1"],
    ["a", "a2"],
    ["b", "b1"],
    [null, "x"],
    ["a", "a3"],
    ["b", "b2"]
  ]

  it("MUST deliver the events of a key one after the other, and others past them", async () => {
    const client = await hub.client()
    const [topic, group] = [fresh(), fresh("group")]
    await join(client, topic, group, { keyOrdered: true })
    for (const [key, payload] of keyed) {
      await ok(client, { op: "PUBLISH", topic, payload, opts: { key } })
    }
    const expectOpen = async (...payloads: ReadonlyArray<string>) => {
      await client.events(payloads.length)
      await client.settled()
      expect(payloadsOf(eventsOf(client))).toEqual(payloads)
    }
    const ack = async (payload: string) => {
      const event = eventsOf(client).find((message) => eventOf(message).payload === payload)
      await ok(client, { op: "ACK", ...about(event) })
    }
    await expectOpen("a1", "b1", "x")
    await ack("a1")
    await expectOpen("a1", "b1", "x", "a2")
    await ack("b1")
    await expectOpen("a1", "b1", "x", "a2", "b2")
    await ack("a2")
    await expectOpen("a1", "b1", "x", "a2", "b2", "a3")
  })

  it("MUST hold a key back while its event is to be delivered again, to whichever member", async () => {
    const [topic, group] = [fresh(), fresh("group")]
    const [one, two] = [await hub.client(), await hub.client()]
    await join(one, topic, group, { keyOrdered: true })
    await join(two, topic, group)
    const done: Array<unknown> = []
    const n = 60
    for (let i = 0; i < n; i++) {
      one.send({ op: "PUBLISH", topic, payload: i, opts: { key: `k${i % 3}` } })
    }
    const handled = new Map<RawClient, number>([
      [one, 0],
      [two, 0]
    ])
    while (done.length < n) {
      for (const member of [one, two]) {
        const events = eventsOf(member, inGroup(group)).slice(handled.get(member))
        handled.set(member, handled.get(member)! + events.length)
        for (const event of events) {
          const { payload, seq } = eventOf(event)
          const isBad = seq % 7 === 0 && contextOf(event).attempt === 1
          if (!isBad) done.push(payload)
          await ok(member, { op: isBad ? "NACK" : "ACK", ...about(event), ...(isBad ? { delayMs: 5 } : {}) })
        }
        if (events.length === 0) await ok(member, { op: "PING" })
      }
    }
    for (const key of [0, 1, 2]) {
      const own = done.map(Number).filter((payload) => payload % 3 === key)
      expect(own).toEqual(own.toSorted((a, b) => a - b))
      expect(own).toHaveLength(n / 3)
    }
  })
})
