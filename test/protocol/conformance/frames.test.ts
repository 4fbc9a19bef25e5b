/** PROTOCOL.md, "Frames" and "Requests and answers": arrays, malformed messages, refs, sizes. */
import { describe, expect, it } from "vitest"
import type { RawClient } from "../../support/RawClient.ts"
import { eventsOf, fresh, legacy, ok, payloadsOf, publish, refused, upTo, useHub } from "./support.ts"

const hub = useHub({ LIMIT_BATCH_EVENTS: "5000" })

const answersTo = (client: RawClient, refs: ReadonlyArray<unknown>) =>
  client.waitForAll("the answers", (message) => refs.includes(message["ref"]), refs.length)

/** Raw frames that are refused as a whole, or hold one message that is. */
const malformed: ReadonlyArray<readonly [what: string, frame: string]> = [
  ["no JSON", "hello"],
  ["half of JSON", '{"op":"PING"'],
  ["an empty frame", ""],
  ["a string", '"PING"'],
  ["a number", "1"],
  ["null", "null"],
  ["an object without op", '{"ref":1}'],
  ["an unknown op", '{"op":"HELLO"}'],
  ["an op in small letters", '{"op":"ping"}'],
  ["an op that is no string", '{"op":["PING"]}'],
  ["an op of the hub's", '{"op":"EVENT"}'],
  ["a nested array", '[[{"op":"PING","ref":1}]]'],
  ["a ref that is an object", '{"op":"PING","ref":{}}'],
  ["a ref that is a boolean", '{"op":"PING","ref":true}'],
  ["a ref that is no finite number", '{"op":"PING","ref":1e999}'],
  ["a ref that is too long", JSON.stringify({ op: "PING", ref: "x".repeat(257) })],
  ["an AUTH whose token is no string", '{"op":"AUTH","token":1}'],
  ["a PUBLISH without topic", '{"op":"PUBLISH","payload":1}'],
  ["a PUBLISH whose topic is no string", '{"op":"PUBLISH","topic":1,"payload":1}'],
  ["a PUBLISH without payload", '{"op":"PUBLISH","topic":"a"}'],
  ["a PUBLISH whose opts are no object", '{"op":"PUBLISH","topic":"a","payload":1,"opts":[]}'],
  ["a PUBLISH whose id is no string", '{"op":"PUBLISH","topic":"a","payload":1,"opts":{"id":1}}'],
  ["a PUBLISH whose ts is no number", '{"op":"PUBLISH","topic":"a","payload":1,"opts":{"ts":"now"}}'],
  ["a PUBLISH whose tags hold a number", '{"op":"PUBLISH","topic":"a","payload":1,"opts":{"tags":[1]}}'],
  [
    "a PUBLISH whose headers hold a number",
    '{"op":"PUBLISH","topic":"a","payload":1,"opts":{"headers":{"a":1}}}'
  ],
  ["a SUBSCRIBE without topic", '{"op":"SUBSCRIBE"}'],
  ["a SUBSCRIBE whose group is no string", '{"op":"SUBSCRIBE","topic":"a","group":1}'],
  ["a SUBSCRIBE from nowhere", '{"op":"SUBSCRIBE","topic":"a","opts":{"from":"end"}}'],
  ["a SUBSCRIBE from a negative position", '{"op":"SUBSCRIBE","topic":"a","opts":{"from":{"after":-1}}}'],
  ["a SUBSCRIBE from two beginnings", '{"op":"SUBSCRIBE","topic":"a","opts":{"from":{"after":1,"time":1}}}'],
  ["a SUBSCRIBE with no credit", '{"op":"SUBSCRIBE","topic":"a","group":"g","opts":{"credit":0}}'],
  ["a SUBSCRIBE with a fraction", '{"op":"SUBSCRIBE","topic":"a","group":"g","opts":{"maxAttempts":1.5}}'],
  ["a SUBSCRIBE with an unknown overflow", '{"op":"SUBSCRIBE","topic":"a","opts":{"overflow":"drop"}}'],
  ["an UNSUBSCRIBE without topic", '{"op":"UNSUBSCRIBE"}'],
  ["an ACK without group", '{"op":"ACK","topic":"a","id":"1"}'],
  ["an ACK without id", '{"op":"ACK","topic":"a","group":"g"}'],
  ["an ACK with id and ids", '{"op":"ACK","topic":"a","group":"g","id":"1","ids":["2"]}'],
  ["an ACK of attempt 0", '{"op":"ACK","topic":"a","group":"g","id":"1","attempt":0}'],
  ["a NACK without id", '{"op":"NACK","topic":"a","group":"g"}'],
  ["a NACK with an unknown mode", '{"op":"NACK","topic":"a","group":"g","id":"1","mode":"drop"}'],
  ["an EXTEND by nothing", '{"op":"EXTEND","topic":"a","group":"g","id":"1","byMs":0}']
]

describe("a malformed message", () => {
  it.each(malformed)(
    "MUST be answered by bad_request, and the connection stays: %s",
    async (_what, frame) => {
      const client = await hub.client()
      client.send(frame)
      await ok(client, { op: "PING" })
      expect(client.messages.slice(1, -1)).toMatchObject([
        { op: "ERR", code: "bad_request", msg: expect.any(String), retryable: false }
      ])
      await client.close()
    }
  )

  it("MUST be answered under its ref when that can be read", async () => {
    const client = await hub.client()
    expect(await refused(client, { op: "HELLO" }, "bad_request")).toMatchObject({ ref: "r2" })
    client.send({ op: "PUBLISH" })
    const [answer] = await client.waitForAll("ERR", ({ op, ref }) => op === "ERR" && ref === undefined, 1)
    expect(answer).not.toHaveProperty("ref")
  })

  it("MUST be seen in a binary frame, whatever is in it", async () => {
    const client = await hub.client()
    client.socket.send(Buffer.from('{"op":"PING","ref":1}'), { binary: true })
    await ok(client, { op: "PING" })
    expect(client.messages.slice(1, -1)).toMatchObject([{ op: "ERR", code: "bad_request" }])
  })

  it("MUST close the connection with 4400 when it is the tenth within a minute, and not before", async () => {
    const client = await hub.client()
    for (let i = 1; i <= 9; i++) client.send({ op: "HELLO", ref: i })
    await ok(client, { op: "PING" })
    client.send({ op: "HELLO", ref: 10 })
    expect(await client.closed).toMatchObject({ code: 4400 })
    expect(client.messages.filter(({ code }) => code === "bad_request").map(({ ref }) => ref)).toEqual(
      upTo(10)
    )
  })

  it("MUST count by messages, and nothing behind the tenth is looked at", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send([...upTo(12).map((ref) => ({ op: "HELLO", ref })), { op: "PUBLISH", topic, payload: 1 }])
    expect(await client.closed).toMatchObject({ code: 4400 })
    expect(client.messages.filter(({ op }) => op === "ERR")).toHaveLength(10)
    const other = await hub.client()
    expect(await ok(other, { op: "PUBLISH", topic, payload: 2 })).toMatchObject({ seq: 1 })
  })

  it("MUST NOT be an unknown field, wherever it stands", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic, unknown: 1, opts: { unknown: 1 } })
    await ok(client, { op: "PUBLISH", topic, payload: 1, unknown: 1, opts: { type: "t", unknown: 1 } })
    await ok(client, { op: "PING", unknown: {} })
    const [event] = await client.events(1)
    expect(event).toMatchObject({ event: { payload: 1, type: "t" } })
    expect(event!["event"]).not.toHaveProperty("unknown")
  })

  it("MUST NOT be null in a field that may be absent", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic, group: null, opts: { from: null, history: null } })
    await ok(client, { op: "PUBLISH", topic, payload: 1, opts: { id: null, key: null, headers: null } })
    await ok(client, { op: "PUBLISH", topic, payload: 2, opts: null })
    const [first] = await client.events(2)
    expect(first).not.toHaveProperty("group")
    expect(first!["event"]).not.toHaveProperty("key")
  })
})

describe("an array", () => {
  it("MUST apply in its order", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send([
      { op: "SUBSCRIBE", topic, ref: 1 },
      { op: "PUBLISH", topic, payload: "a", ref: 2 },
      { op: "UNSUBSCRIBE", topic, ref: 3 },
      { op: "PUBLISH", topic, payload: "b", ref: 4 },
      { op: "SUBSCRIBE", topic, opts: { from: "start" }, ref: 5 },
      { op: "UNSUBSCRIBE", topic, ref: 6 },
      { op: "UNSUBSCRIBE", topic, ref: 7 }
    ])
    const answers = await answersTo(client, [1, 2, 3, 4, 5, 6, 7])
    const by = new Map(answers.map((answer) => [answer["ref"], answer]))
    expect([1, 2, 3, 4, 5, 6, 7].map((ref) => by.get(ref)?.op)).toEqual([
      "OK",
      "OK",
      "OK",
      "OK",
      "OK",
      "OK",
      "ERR"
    ])
    expect(by.get(2)).toMatchObject({ seq: 1 })
    expect(by.get(4)).toMatchObject({ seq: 2 })
    expect(by.get(7)).toMatchObject({ code: "not_subscribed" })
  })

  it("MUST fail by its elements: a bad one fails alone", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send([
      { op: "PUBLISH", topic, payload: 1, ref: "a" },
      { op: "PUBLISH", topic, ref: "b" },
      17,
      [{ op: "PUBLISH", topic, payload: "nested", ref: "c" }],
      { op: "PUBLISH", topic, payload: 2, ref: "d" }
    ])
    const answers = await client.waitForAll("answers", ({ op }) => op === "OK" || op === "ERR", 6)
    expect(answers.filter(({ code }) => code === "bad_request")).toHaveLength(3)
    expect(answers.filter(({ seq }) => seq !== undefined)).toMatchObject([
      { ref: "a", seq: 1 },
      { ref: "d", seq: 2 }
    ])
    expect(answers.some(({ ref }) => ref === "c")).toBe(false)
  })

  it("MUST be taken with 1,000 messages", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send(upTo(1_000).map((ref) => ({ op: "PUBLISH", topic, payload: ref, ref })))
    const answers = await answersTo(client, upTo(1_000))
    expect(answers.map(({ ref, seq }) => [ref, seq])).toEqual(upTo(1_000).map((n) => [n, n]))
  })

  it("MUST be bad_request as a whole with more, and nothing of it applies", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send(upTo(1_001).map((ref) => ({ op: "PUBLISH", topic, payload: ref, ref })))
    await client.settled()
    expect(client.messages.filter(({ op }) => op === "ERR")).toMatchObject([{ code: "bad_request" }])
    expect(await ok(client, { op: "PUBLISH", topic, payload: 1 })).toMatchObject({ seq: 1 })
  })

  it("MUST NOT be answered when it is empty", async () => {
    const client = await hub.client()
    client.send([])
    await client.settled()
    expect(client.messages.map(({ op }) => op)).toEqual(["OK", "OK", "OK"])
  })

  it("MUST NOT be sent to a client that offered no subprotocol, which may send them", async () => {
    const client = await hub.client({}, legacy)
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    await ok(client, { op: "SUBSCRIBE", topic, group: fresh("group") })
    client.send(upTo(200).map((payload) => ({ op: "PUBLISH", topic, payload, ref: payload })))
    await client.events(200, ({ group }) => group === undefined)
    await client.events(100, ({ group }) => group !== undefined)
    expect(client.frames.every((frame) => !Array.isArray(frame))).toBe(true)
  })

  it("MUST NOT hold more than 1,000 messages when it comes from the hub", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    for (let at = 0; at < 4_000; at += 1_000) {
      client.send(upTo(1_000).map((i) => ({ op: "PUBLISH", topic, payload: at + i })))
    }
    expect(payloadsOf(await client.events(4_000))).toEqual(upTo(4_000))
    for (const frame of client.frames)
      if (Array.isArray(frame)) expect(frame.length).toBeLessThanOrEqual(1_000)
  })
})

describe("a ref", () => {
  it.each([0, 1, -1, 1.5, 2 ** 53, "", "a", "ö€😀", "x".repeat(256)])(
    "MUST come back as it was sent: %j",
    async (ref) => {
      const client = await hub.client()
      client.send({ op: "PING", ref })
      await ok(client, { op: "PING" })
      expect(client.messages[1]).toMatchObject({ op: "OK", ref })
      await client.close()
    }
  )

  it("MUST be answered by exactly one OK or ERR, for every request", async () => {
    const client = await hub.client()
    const topic = fresh()
    const group = fresh("group")
    const requests: ReadonlyArray<Readonly<Record<string, unknown>>> = [
      { op: "PUBLISH", topic, payload: 1 },
      { op: "PUBLISH", topic: "not a topic", payload: 1 },
      { op: "SUBSCRIBE", topic },
      { op: "SUBSCRIBE", topic },
      { op: "SUBSCRIBE", topic, group },
      { op: "SUBSCRIBE", topic: "a..b" },
      { op: "ACK", topic, group, id: "none" },
      { op: "ACK", topic, group, ids: [] },
      { op: "ACK", topic, group: "other", id: "none" },
      { op: "NACK", topic, group, id: "none" },
      { op: "EXTEND", topic, group, id: "none" },
      { op: "PING" },
      { op: "HELLO" },
      { op: "UNSUBSCRIBE", topic },
      { op: "UNSUBSCRIBE", topic, group },
      { op: "UNSUBSCRIBE", topic }
    ]
    const rounds = 20
    const refs = requests.flatMap((_, i) => Array.from({ length: rounds }, (_, round) => `${round}-${i}`))
    for (let round = 0; round < rounds; round++) {
      // As many malformed messages as come with this many rounds would close the connection.
      const sent =
        round < 5
          ? requests
          : requests.map((request) => (request["op"] === "HELLO" ? { op: "PING" } : request))
      client.send(sent.map((request, i) => ({ ...request, ref: `${round}-${i}` })))
    }
    await answersTo(client, refs)
    await client.settled()
    const counts = new Map<unknown, number>()
    for (const { op, ref } of client.messages) {
      if (op === "OK" || op === "ERR") counts.set(ref, (counts.get(ref) ?? 0) + 1)
    }
    expect(refs.map((ref) => counts.get(ref))).toEqual(refs.map(() => 1))
  })

  it("MUST NOT be needed: without one, only what fails is answered", async () => {
    const client = await hub.client()
    const topic = fresh()
    const group = fresh("group")
    client.send([
      { op: "SUBSCRIBE", topic, group },
      { op: "PUBLISH", topic, payload: 1, opts: { id: "one" } },
      { op: "PING" },
      { op: "ACK", topic, group, id: "none" },
      { op: "UNSUBSCRIBE", topic, group }
    ])
    await ok(client, { op: "PUBLISH", topic, payload: 2 })
    await client.settled()
    const withoutRef = client.messages.filter(({ op, ref }) => op !== "EVENT" && ref === undefined)
    expect(withoutRef).toEqual([])

    client.send([
      { op: "UNSUBSCRIBE", topic },
      { op: "PUBLISH", topic: "", payload: 1 }
    ])
    const errors = await client.waitForAll("ERRs", ({ op }) => op === "ERR", 2)
    expect(errors).toMatchObject([{ code: "not_subscribed" }, { code: "invalid_topic" }])
    for (const error of errors) expect(error).not.toHaveProperty("ref")
  })
})

describe("a frame", () => {
  it("MUST close the connection with 1009 when it is larger than maxFrameBytes, and not before", async () => {
    const client = await hub.client()
    const { maxFrameBytes } = client.messages[0]!["limits"] as { readonly maxFrameBytes: number }
    const frame = JSON.stringify({ op: "PING", ref: 1, padding: "" })
    client.send(frame.replace('""', `"${"x".repeat(maxFrameBytes - frame.length)}"`))
    await client.waitFor("the answer", ({ ref }) => ref === 1)
    client.send(frame.replace('""', `"${"x".repeat(maxFrameBytes - frame.length + 1)}"`))
    expect(await client.closed).toMatchObject({ code: 1009 })
  })

  it("MUST be taken when it comes in fragments", async () => {
    const client = await hub.client()
    client.socket.send('{"op":"PI', { fin: false })
    client.socket.send('NG","ref":1}', { fin: true })
    expect(await client.waitFor("the answer", ({ ref }) => ref === 1)).toMatchObject({ op: "OK" })
  })

  it("MUST close the connection with 1007 when it is text that is no UTF-8", async () => {
    const client = await hub.client()
    client.socket.send(Buffer.from([0x22, 0xc3, 0x28, 0x22]), { binary: false })
    expect(await client.closed).toMatchObject({ code: 1007 })
  })
})

describe("an answer", () => {
  it("MUST come in the order of the requests as far as they are of one kind", async () => {
    const client = await hub.client()
    const topic = fresh()
    for (let ref = 1; ref <= 300; ref++) client.send({ op: "PUBLISH", topic, payload: ref, ref })
    const answers = await answersTo(client, upTo(300))
    expect(answers.map(({ ref }) => ref)).toEqual(upTo(300))
  })

  it("MUST NOT be lost when the client sends faster than it reads", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.socket.pause()
    for (let ref = 1; ref <= 5_000; ref++) {
      client.socket.send(JSON.stringify({ op: "PUBLISH", topic, payload: ref, ref }))
    }
    client.socket.resume()
    const answers = await answersTo(client, upTo(5_000))
    expect(answers.map(({ seq }) => seq)).toEqual(upTo(5_000))
    expect(eventsOf(client)).toEqual([])
  })

  it("MUST come in a text frame", async () => {
    const client = await hub.client()
    const kinds: Array<boolean> = []
    client.socket.on("message", (_data: Buffer, isBinary: boolean) => kinds.push(isBinary))
    await publish(client, fresh(), 3)
    expect(kinds).toEqual([false, false, false])
  })
})
