/** PROTOCOL.md, "PUBLISH": what is stored, in which order, and what is refused. */
import { setTimeout as sleep } from "node:timers/promises"
import { describe, expect, it } from "vitest"
import {
  eventOf,
  eventsOf,
  fresh,
  legacy,
  ok,
  payloadsOf,
  publish,
  refused,
  seqsOf,
  upTo,
  useHub
} from "./support.ts"

const hub = useHub()

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/

describe("an event", () => {
  it("MUST be answered by its id, seq and time once it is stored", async () => {
    const client = await hub.client()
    const before = Date.now()
    const answer = await ok(client, { op: "PUBLISH", topic: fresh(), payload: 1, opts: { id: "mine" } })
    expect(answer).toEqual({
      op: "OK",
      ref: "r2",
      id: "mine",
      seq: 1,
      storedAt: expect.any(Number),
      duplicate: false
    })
    expect(answer["storedAt"]).toBeGreaterThanOrEqual(before)
  })

  it("MUST get an id when it came without one", async () => {
    const client = await hub.client()
    const [first, second] = await publish(client, fresh(), 2)
    expect(first!["id"]).toMatch(uuid)
    expect(second!["id"]).toMatch(uuid)
    expect(second!["id"]).not.toBe(first!["id"])
  })

  it("MUST have the next seq of its topic, and no earlier time", async () => {
    const client = await hub.client()
    const [a, b] = [fresh(), fresh()]
    const answers = [
      ...(await publish(client, a, 3)),
      ...(await publish(client, b, 2)),
      ...(await publish(client, a))
    ]
    expect(answers.map(({ seq }) => seq)).toEqual([1, 2, 3, 1, 2, 4])
    const times = answers.map(({ storedAt }) => Number(storedAt))
    expect(times).toEqual(times.toSorted((x, y) => x - y))
  })

  it("MUST come to its readers with every field that it was given", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    const opts = {
      id: "mine",
      type: "order.created",
      key: "order-1",
      headers: { a: "1", "content-type": "text/plain" },
      tags: ["red", "blue"],
      caused_by: "another",
      sid: "session-1",
      ts: 1_234_567_890_123
    }
    const { storedAt } = await ok(client, { op: "PUBLISH", topic, payload: { n: 1 }, opts })
    const [event] = await client.events(1)
    expect(event).toEqual({
      op: "EVENT",
      sub: topic,
      topic,
      event: { ...opts, topic, seq: 1, storedAt, payload: { n: 1 } }
    })
  })

  it("MUST come with the hub's time as ts, and without the other fields, when they were not given", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    const before = Date.now()
    const { id, storedAt } = await ok(client, { op: "PUBLISH", topic, payload: 1 })
    const [event] = await client.events(1)
    expect(event!["event"]).toEqual({ id, topic, seq: 1, ts: expect.any(Number), storedAt, payload: 1 })
    expect(eventOf(event).ts).toBeGreaterThanOrEqual(before)
  })

  it("MUST keep its payload, whatever JSON it is", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    const payloads = [
      ...[null, true, false, 0, -0.5, 1e21, "", "ö€😀\u0000\u2028", [], {}, [[[1]], null]],
      ...["$x", { $set: { a: "$b" }, "a.b": 1, "": 2 }, { op: "PING", ref: 1 }, { seq: 9, id: "other" }]
    ]
    for (const payload of payloads) await ok(client, { op: "PUBLISH", topic, payload })
    client.send(`{"op":"PUBLISH","topic":"${topic}","payload":{"__proto__":{"a":1},"constructor":2}}`)
    client.send(`{"op":"PUBLISH","topic":"${topic}","payload":[-0,9007199254740993,"\\ud800"]}`)
    const events = await client.events(payloads.length + 2)
    const [keys, numbers] = payloadsOf(events.slice(-2))
    expect(payloadsOf(events.slice(0, -2))).toEqual(payloads)
    expect(JSON.stringify(keys)).toBe('{"__proto__":{"a":1},"constructor":2}')
    expect(numbers).toEqual([0, 9_007_199_254_740_992, "\ud800"])
  })

  const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`

  it("MUST be accepted with 128 objects and arrays within each other, as it is", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    client.send(`{"op":"PUBLISH","topic":"${topic}","payload":${nested(128)}}`)
    expect(JSON.stringify(payloadsOf(await client.events(1))[0])).toBe(nested(128))
  })

  it.each([
    ["129 objects and arrays within each other", nested(129)],
    ["100,000 of them", nested(100_000)],
    ["a number beyond the range of a double", "1e400"],
    ["such a number in it", '{"a":[null,-1e999]}']
  ])(
    "MUST be refused with bad_request when its payload has %s, and the connection stays",
    async (_, payload) => {
      const client = await hub.client()
      client.send(`{"op":"PUBLISH","ref":1,"topic":"${fresh()}","payload":${payload}}`)
      expect(await client.waitFor("the answer", ({ ref }) => ref === 1)).toMatchObject({
        code: "bad_request"
      })
      await ok(client, { op: "PING" })
    }
  )

  it("MUST NOT take a field from what `__proto__` says", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    const opts =
      '{"__proto__":{"id":"x","key":"k"},"headers":{"__proto__":"h","constructor":"c","toString":"t"}}'
    client.send(`{"op":"PUBLISH","ref":1,"topic":"${topic}","payload":1,"opts":${opts}}`)
    const answer = await client.waitFor("the answer", ({ ref }) => ref === 1)
    expect(answer).toMatchObject({ op: "OK", id: expect.stringMatching(/^[0-9a-f-]{36}$/) })
    const [event] = await client.events(1)
    expect(JSON.stringify(eventOf(event).headers)).toBe('{"__proto__":"h","constructor":"c","toString":"t"}')
    expect(event!["event"]).not.toHaveProperty("key")
    client.send('{"__proto__":{"op":"PING"},"ref":2}')
    expect(await client.waitFor("the answer", ({ ref }) => ref === 2)).toMatchObject({ code: "bad_request" })
  })

  it("MUST be taken by the last of fields with one name", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send(
      `{"op":"PING","op":"PUBLISH","ref":1,"topic":"no topic","payload":1,"topic":"${topic}","payload":2}`
    )
    expect(await client.waitFor("the answer", ({ ref }) => ref === 1)).toMatchObject({ op: "OK", seq: 1 })
  })

  it("MUST be accepted at the limits of its fields", async () => {
    const client = await hub.client()
    const name = "x".repeat(256)
    const headers = Object.fromEntries(upTo(64).map((i) => [`h${i}`, "v"]))
    const opts = {
      id: name,
      type: name,
      key: name,
      caused_by: name,
      sid: name,
      headers,
      tags: Array(64).fill(name)
    }
    await ok(client, { op: "PUBLISH", topic: fresh(), payload: 1, opts })
    await ok(client, {
      op: "PUBLISH",
      topic: fresh(),
      payload: 1,
      opts: { headers: { h: "v".repeat(16_383) } }
    })
  })

  it.each<readonly [string, Readonly<Record<string, unknown>>]>([
    ["an empty id", { id: "" }],
    ["an id that is too long", { id: "x".repeat(257) }],
    ["a type that is too long", { type: "x".repeat(257) }],
    ["a key that is too long", { key: "x".repeat(257) }],
    ["a sid that is too long", { sid: "x".repeat(257) }],
    ["a caused_by that is too long", { caused_by: "x".repeat(257) }],
    ["half of a surrogate pair in its id", { id: "\ud800" }],
    ["too many headers", { headers: Object.fromEntries(upTo(65).map((i) => [`h${i}`, "v"])) }],
    ["too long headers", { headers: { h: "v".repeat(16_384) } }],
    ["a header whose name is too long", { headers: { ["x".repeat(257)]: "v" } }],
    ["too many tags", { tags: Array(65).fill("t") }],
    ["a tag that is too long", { tags: ["x".repeat(257)] }]
  ])("MUST be refused with bad_request when it has %s", async (_what, opts) => {
    const client = await hub.client()
    await refused(client, { op: "PUBLISH", topic: fresh(), payload: 1, opts }, "bad_request")
  })
})

describe("the same id again", () => {
  it("MUST be answered by the first seq and time, as a duplicate, and is no second event", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    const request = { op: "PUBLISH", topic, payload: "first", opts: { id: "mine" } }
    const { seq, storedAt } = await ok(client, request)
    await publish(client, topic)
    for (const payload of ["first", "second"]) {
      expect(await ok(client, { ...request, payload })).toMatchObject({
        id: "mine",
        seq,
        storedAt,
        duplicate: true
      })
    }
    await publish(client, topic)
    expect(payloadsOf(await client.events(3))).toEqual(["first", 1, 1])
    await client.settled()
    expect(seqsOf(eventsOf(client))).toEqual([1, 2, 3])
  })

  it("MUST be another event in another topic", async () => {
    const client = await hub.client()
    for (const topic of [fresh(), fresh()]) {
      const answer = await ok(client, { op: "PUBLISH", topic, payload: 1, opts: { id: "mine" } })
      expect(answer).toMatchObject({ seq: 1, duplicate: false })
    }
  })

  it("MUST be one event when many send it at the same time", async () => {
    const clients = await Promise.all(upTo(5).map(() => hub.client()))
    const topic = fresh()
    const request = { op: "PUBLISH", topic, payload: 1, opts: { id: "mine" } }
    const answers = await Promise.all(clients.flatMap((client) => upTo(4).map(() => ok(client, request))))
    expect(new Set(answers.map(({ seq }) => seq))).toEqual(new Set([1]))
    expect(answers.filter(({ duplicate }) => duplicate === false)).toHaveLength(1)
  })

  it("MUST be found within one frame, too", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send([1, 2, 3].map((ref) => ({ op: "PUBLISH", ref, topic, payload: ref, opts: { id: "mine" } })))
    const answers = await client.waitForAll("answers", ({ seq }) => seq !== undefined, 3)
    expect(answers.map(({ duplicate, seq }) => [seq, duplicate])).toEqual([
      [1, false],
      [1, true],
      [1, true]
    ])
  })
})

describe("the order", () => {
  it("MUST be kept for the publishes of a connection to a topic", async () => {
    const client = await hub.client()
    const reader = await hub.client()
    const topics = [fresh(), fresh(), fresh()]
    for (const topic of topics) await ok(reader, { op: "SUBSCRIBE", topic })
    for (let i = 1; i <= 700; i++) {
      const requests = topics.map((topic) => ({ op: "PUBLISH", topic, payload: i }))
      if (i % 2 === 0) client.send(requests)
      else for (const request of requests) client.send(request)
    }
    await reader.events(2_100)
    for (const topic of topics) {
      const events = eventsOf(reader, (message) => message["topic"] === topic)
      expect(payloadsOf(events)).toEqual(upTo(700))
      expect(seqsOf(events)).toEqual(upTo(700))
    }
  })

  it("MUST be the same for all readers when many publish at once", async () => {
    const publishers = await Promise.all(upTo(4).map(() => hub.client()))
    const readers = await Promise.all(upTo(3).map(() => hub.client()))
    const topic = fresh()
    for (const reader of readers) await ok(reader, { op: "SUBSCRIBE", topic })
    publishers.forEach((client, p) => {
      for (let i = 1; i <= 250; i++) client.send({ op: "PUBLISH", topic, payload: [p, i] })
    })
    const seen = await Promise.all(readers.map((reader) => reader.events(1_000)))
    for (const events of seen) {
      expect(seqsOf(events)).toEqual(upTo(1_000))
      expect(payloadsOf(events)).toEqual(payloadsOf(seen[0]!))
      for (const p of [0, 1, 2, 3]) {
        const own = payloadsOf(events).filter((payload) => (payload as ReadonlyArray<number>)[0] === p)
        expect(own).toEqual(upTo(250).map((i) => [p, i]))
      }
    }
  })
})

const invalidTopics: ReadonlyArray<readonly [what: string, topic: string]> = [
  ["empty", ""],
  ["with an empty segment", "a..b"],
  ["that begins with a dot", ".a"],
  ["that ends with a dot", "a."],
  ["with a wildcard", "a.*"],
  ["with a wildcard of any length", "**"],
  ["with an asterisk in a segment", "a*b"],
  ["with a space", "a b"],
  ["with a control character", "a\u0000"],
  ["with a letter that is not ASCII", "ä"],
  ["with a segment that is too long", "x".repeat(65)],
  ["with too many segments", Array(33).fill("a").join(".")],
  ["that is too long", Array(9).fill("x".repeat(64)).join(".")]
]

describe("a topic", () => {
  it.each(invalidTopics)(
    "MUST be refused with invalid_topic for everyone when it is none: %s",
    async (_what, topic) => {
      for (const token of [{}, { scopes: [] }]) {
        const client = await hub.client(token)
        const answer = await refused(client, { op: "PUBLISH", topic, payload: 1 }, "invalid_topic")
        expect(answer["retryable"]).toBe(false)
        await client.close()
      }
    }
  )

  it.each([
    ["x".repeat(64)],
    [Array(32).fill("a").join(".")],
    ["!\"#%&'()+,-/09:;<=>?@AZ[\\]^_`az{|}~"],
    ["__proto__.constructor"],
    ["a.$b"]
  ])("MUST be accepted when it is one: %s", async (topic) => {
    const client = await hub.client()
    await ok(client, { op: "PUBLISH", topic, payload: 1 })
  })

  it("MUST be forbidden when it begins with $, for everyone", async () => {
    for (const token of [
      {},
      { scopes: ["publish:$dead.**", "publish:$sys", "publish:**"] },
      { scopes: [] }
    ]) {
      const client = await hub.client(token)
      await refused(client, { op: "PUBLISH", topic: "$sys", payload: 1 }, "forbidden")
      await refused(client, { op: "PUBLISH", topic: "$dead.g.a", payload: 1 }, "forbidden")
    }
  })

  it("MUST be forbidden when no scope allows it", async () => {
    const client = await hub.client({ scopes: ["publish:a.*", "subscribe:**"] })
    await ok(client, { op: "PUBLISH", topic: "a.b", payload: 1 })
    for (const topic of ["a", "a.b.c", "b"]) {
      const answer = await refused(client, { op: "PUBLISH", topic, payload: 1 }, "forbidden")
      expect(answer).not.toHaveProperty("rule")
    }
  })

  it("MUST be forbidden when a rule of the token's policy denies it first", async () => {
    const rules = [
      { effect: "deny", action: "publish", topics: ["a.secret"] },
      { effect: "allow", action: "*", topics: ["a.**"] }
    ]
    const client = await hub.client({ claims: { policy: { rules } } })
    await ok(client, { op: "PUBLISH", topic: "a.b", payload: 1 })
    const answer = await refused(client, { op: "PUBLISH", topic: "a.secret", payload: 1 }, "forbidden")
    expect(answer).not.toHaveProperty("rule")
  })

  it("SHOULD be forbidden with the rule that denied, for those who administrate it", async () => {
    const rules = [
      { effect: "deny", action: "*", topics: ["a.secret"] },
      { effect: "allow", action: "*", topics: ["a.**"] },
      { effect: "allow", action: "admin", topics: ["a.**"] }
    ]
    const client = await hub.client({ claims: { policy: { rules } } })
    const rule = "deny * a.secret"
    expect(
      await refused(client, { op: "PUBLISH", topic: "a.secret", payload: 1 }, "forbidden")
    ).toMatchObject({ rule })
    expect(await refused(client, { op: "SUBSCRIBE", topic: "a.secret" }, "forbidden")).toMatchObject({ rule })
  })
})

describe("a payload", () => {
  const bytes = (n: number) => "x".repeat(n - 2)

  it("MUST be stored up to maxPayloadBytes, and is payload_too_large beyond", async () => {
    const client = await hub.client()
    const { maxPayloadBytes } = client.messages[0]!["limits"] as { readonly maxPayloadBytes: number }
    const topic = fresh()
    await ok(client, { op: "PUBLISH", topic, payload: bytes(maxPayloadBytes) })
    await refused(client, { op: "PUBLISH", topic, payload: bytes(maxPayloadBytes + 1) }, "payload_too_large")
    expect(await ok(client, { op: "PUBLISH", topic, payload: 1 })).toMatchObject({ seq: 2 })
  })

  it("MUST be measured in bytes of UTF-8", async () => {
    const client = await hub.client()
    const topic = fresh()
    const euros = (262_144 - 2) / 3
    await ok(client, { op: "PUBLISH", topic, payload: "€".repeat(Math.floor(euros)) })
    await refused(
      client,
      { op: "PUBLISH", topic, payload: "€".repeat(Math.ceil(euros)) },
      "payload_too_large"
    )
  })

  it("MUST be checked before rights", async () => {
    const client = await hub.client({ scopes: [] })
    await refused(client, { op: "PUBLISH", topic: "a", payload: bytes(262_145) }, "payload_too_large")
    await refused(client, { op: "PUBLISH", topic: "a", payload: 1, opts: { id: "" } }, "bad_request")
    await refused(client, { op: "PUBLISH", topic: "a", payload: 1 }, "forbidden")
  })
})

describe("a refused PUBLISH", () => {
  it("MUST be answered by ERR without a ref, too, and the connection stays", async () => {
    const client = await hub.client({ scopes: ["publish:a"] })
    client.send([
      { op: "PUBLISH", topic: "a b", payload: 1 },
      { op: "PUBLISH", topic: "b", payload: 1 }
    ])
    const errors = await client.waitForAll("ERRs", ({ op }) => op === "ERR", 2)
    expect(errors.map(({ code }) => code)).toEqual(["invalid_topic", "forbidden"])
    await ok(client, { op: "PUBLISH", topic: "a", payload: 1 })
  })

  it("MUST leave those of the same frame and topic alone", async () => {
    const client = await hub.client({}, legacy)
    const topic = fresh()
    client.send([
      { op: "PUBLISH", ref: 1, topic, payload: 1 },
      { op: "PUBLISH", ref: 2, topic, payload: "x".repeat(300_000) },
      { op: "PUBLISH", ref: 3, topic, payload: 3 }
    ])
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 3)
    expect(new Map(answers.map(({ code, ref, seq }) => [ref, code ?? seq]))).toEqual(
      new Map<number, unknown>([
        [1, 1],
        [2, "payload_too_large"],
        [3, 2]
      ])
    )
  })
})

describe("a connection over its rate", () => {
  const limited = useHub({
    LIMIT_MESSAGES_PER_SECOND: "5",
    LIMIT_MESSAGES_BURST: "10",
    LIMIT_BYTES_PER_SECOND: "10000"
  })

  it("MUST get rate_limited with the time to wait, after which it may go on", async () => {
    const client = await limited.client()
    const topic = fresh()
    client.send(upTo(30).map((ref) => ({ op: "PUBLISH", ref, topic, payload: ref })))
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 30)
    const errors = answers.filter(({ op }) => op === "ERR")
    expect(answers.filter(({ op }) => op === "OK").length).toBeGreaterThanOrEqual(10)
    expect(errors.length).toBeGreaterThan(0)
    for (const error of errors) {
      expect(error).toMatchObject({ code: "rate_limited", retryable: true, retryAfterMs: expect.any(Number) })
      expect(error["retryAfterMs"]).toBeGreaterThan(0)
    }
    // The protocol says how long to wait; there is nothing else to wait for.
    await sleep(Number(errors.at(-1)!["retryAfterMs"]) + 5)
    await ok(client, { op: "PUBLISH", topic, payload: 1 })
  })

  it("MUST be limited in its subscriptions, too, but not in what frees it or keeps it alive", async () => {
    const client = await limited.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    client.send(upTo(30).map((ref) => ({ op: "SUBSCRIBE", ref, topic: `${topic}.${ref}` })))
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 30)
    expect(answers.some(({ code }) => code === "rate_limited")).toBe(true)
    for (let i = 0; i < 20; i++) await ok(client, { op: "PING" })
    await ok(client, { op: "UNSUBSCRIBE", topic })
  })

  it("MUST NOT slow another one down", async () => {
    const [greedy, modest] = [await limited.client(), await limited.client()]
    const topic = fresh()
    greedy.send(upTo(100).map((payload) => ({ op: "PUBLISH", topic, payload })))
    await greedy.waitFor("rate_limited", ({ code }) => code === "rate_limited")
    await publish(modest, topic)
  })

  it("MUST get rate_limited, also by few large events", async () => {
    const client = await limited.client()
    client.send(upTo(5).map((ref) => ({ op: "PUBLISH", ref, topic: "a", payload: "x".repeat(6_000) })))
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 5)
    expect(answers.filter(({ op }) => op === "OK").length).toBeGreaterThanOrEqual(1)
    expect(answers.filter(({ code }) => code === "rate_limited").length).toBeGreaterThanOrEqual(1)
  })
})
