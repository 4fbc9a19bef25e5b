/** PROTOCOL.md, "SUBSCRIBE, live": where it begins, what comes, and that nothing is missing or comes twice. */
import { describe, expect, it } from "vitest"
import type { Message, RawClient } from "../../support/RawClient.ts"
import { eventsOf, fresh, ok, payloadsOf, publish, refused, seqsOf, upTo, useHub } from "./support.ts"

const hub = useHub()
const tight = useHub({ LIMIT_OUTBOUND_BYTES: "65536", LIMIT_SUBSCRIPTIONS: "3" })

const historyOf = (client: RawClient): unknown => client.messages[0]!["history"]

const storedAts = (answers: ReadonlyArray<Message>) => answers.map(({ storedAt }) => Number(storedAt))

/** Publishes until the store's time has moved on. */
const untilLater = async (client: RawClient, topic: string): Promise<ReadonlyArray<number>> => {
  const times = storedAts(await publish(client, topic))
  while (times.at(-1) === times[0]) times.push(...storedAts(await publish(client, topic)))
  return times
}

describe("the answer", () => {
  it("MUST name the pattern and the last seq of each of its topics", async () => {
    const client = await hub.client()
    const root = fresh()
    await publish(client, `${root}.a`, 3)
    await publish(client, `${root}.b`, 1)
    const answer = await ok(client, { op: "SUBSCRIBE", topic: `${root}.*` })
    expect(answer).toEqual({
      op: "OK",
      ref: expect.any(String),
      topic: `${root}.*`,
      heads: { [`${root}.a`]: 3, [`${root}.b`]: 1 }
    })
  })

  it("MUST name no topic when there is none", async () => {
    const client = await hub.client()
    expect(await ok(client, { op: "SUBSCRIBE", topic: fresh() })).toMatchObject({ heads: {} })
  })

  it("MUST come before the first EVENT", async () => {
    const client = await hub.client()
    const topic = fresh()
    await publish(client, topic, 5)
    await ok(client, { op: "SUBSCRIBE", topic, opts: { from: "start" } })
    const { op } = client.messages.find(({ op, topic: name }) => name === topic && op !== undefined)!
    expect(op).toBe("OK")
    await client.events(5)
  })

  it("MUST name 1,000 topics at most, and say that there are more", async () => {
    const client = await hub.client()
    const root = fresh()
    client.send(upTo(1_000).map((i) => ({ op: "PUBLISH", topic: `${root}.${i}`, payload: 1 })))
    await ok(client, { op: "PUBLISH", topic: `${root}.0`, payload: 1 })
    const answer = await ok(client, { op: "SUBSCRIBE", topic: `${root}.*`, opts: { from: "start" } })
    expect(answer["more"]).toBe(true)
    expect(Object.keys(answer["heads"] as object)).toHaveLength(1_000)
    await client.events(1_001)
  })
})

describe("from", () => {
  const setUp = async (): Promise<readonly [client: RawClient, topic: string]> => {
    const client = await hub.client()
    const topic = fresh()
    await publish(client, topic, 4)
    return [client, topic]
  }

  /** The seqs that come when it is subscribed from there and one more event is published. */
  const seen = async (
    client: RawClient,
    topic: string,
    opts: Readonly<Record<string, unknown>>,
    n: number
  ) => {
    await ok(client, { op: "SUBSCRIBE", topic, opts })
    await publish(client, topic)
    await client.events(n)
    await client.settled()
    return seqsOf(eventsOf(client))
  }

  it("MUST be new when it is not given", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, {}, 1)).toEqual([5])
  })

  it("new MUST begin behind what is there", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, { from: "new" }, 1)).toEqual([5])
  })

  it("start MUST begin at the first event", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, { from: "start" }, 5)).toEqual([1, 2, 3, 4, 5])
  })

  it("after MUST begin at the next seq", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, { from: { after: 2 } }, 3)).toEqual([3, 4, 5])
  })

  it("after 0 MUST begin at the first event", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, { from: { after: 0 } }, 5)).toEqual([1, 2, 3, 4, 5])
  })

  it("after the last seq MUST begin with the next event", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, { from: { after: 4 } }, 1)).toEqual([5])
  })

  it("after 0 MUST be possible in a topic that does not exist yet", async () => {
    const client = await hub.client()
    expect(await seen(client, fresh(), { from: { after: 0 } }, 1)).toEqual([1])
  })

  it("after beyond the end MUST be unrecoverable_position", async () => {
    const [client, topic] = await setUp()
    await refused(client, { op: "SUBSCRIBE", topic, opts: { from: { after: 5 } } }, "unrecoverable_position")
    const absent = fresh()
    await refused(
      client,
      { op: "SUBSCRIBE", topic: absent, opts: { from: { after: 1 } } },
      "unrecoverable_position"
    )
    // What was refused does not stand, and may be tried in another way.
    await ok(client, { op: "SUBSCRIBE", topic, opts: { from: "start" } })
  })

  it("after MUST be bad_request for a pattern", async () => {
    const [client, topic] = await setUp()
    await refused(
      client,
      { op: "SUBSCRIBE", topic: `${topic}.*`, opts: { from: { after: 0 } } },
      "bad_request"
    )
  })

  it("time MUST begin at the first event that was stored then or later", async () => {
    const client = await hub.client()
    const root = fresh()
    const times = await untilLater(client, `${root}.a`)
    await publish(client, `${root}.b`)
    const topic = `${root}.*`
    await ok(client, { op: "SUBSCRIBE", topic, opts: { from: { time: times.at(-1) } } })
    await client.events(2)
    await client.settled()
    expect(
      eventsOf(client)
        .map(({ topic }) => topic)
        .toSorted()
    ).toEqual([`${root}.a`, `${root}.b`])
    expect(seqsOf(eventsOf(client, ({ topic }) => topic === `${root}.a`))).toEqual([times.length])
  })

  it("time before everything MUST begin at the start, and time to come behind the end", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, { from: { time: 0 } }, 5)).toEqual([1, 2, 3, 4, 5])
    const other = await hub.client()
    expect(await seen(other, topic, { from: { time: Date.now() + 3_600_000 } }, 1)).toEqual([6])
  })

  it("topics MUST begin behind what was seen of each, and the rest at the start", async () => {
    const client = await hub.client()
    const root = fresh()
    for (const name of ["a", "b", "c"]) await publish(client, `${root}.${name}`, 3)
    const topics = { [`${root}.a`]: 2, [`${root}.b`]: 3 }
    await ok(client, { op: "SUBSCRIBE", topic: `${root}.*`, opts: { from: { topics } } })
    await client.events(4)
    await client.settled()
    const of = (name: string) => seqsOf(eventsOf(client, ({ topic }) => topic === `${root}.${name}`))
    expect([of("a"), of("b"), of("c")]).toEqual([[3], [], [1, 2, 3]])
  })

  it("topics with rest new MUST begin at the end of those that are not listed", async () => {
    const client = await hub.client()
    const root = fresh()
    for (const name of ["a", "b"]) await publish(client, `${root}.${name}`, 3)
    const from = { topics: { [`${root}.a`]: 1 }, rest: "new" }
    await ok(client, { op: "SUBSCRIBE", topic: `${root}.*`, opts: { from } })
    await publish(client, `${root}.b`)
    await client.events(3)
    await client.settled()
    const of = (name: string) => seqsOf(eventsOf(client, ({ topic }) => topic === `${root}.${name}`))
    expect([of("a"), of("b")]).toEqual([[2, 3], [4]])
  })

  it("topics beyond the end MUST be unrecoverable_position", async () => {
    const [client, topic] = await setUp()
    for (const topics of [{ [topic]: 5 }, { [`${topic}.absent`]: 1 }, { [fresh("not-matched")]: 1 }]) {
      const opts = { from: { topics } }
      await refused(client, { op: "SUBSCRIBE", topic: `${topic}.**`, opts }, "unrecoverable_position")
    }
  })

  it("MUST NOT hold for topics that are born later: they are read from their first event", async () => {
    const client = await hub.client()
    const root = fresh()
    await ok(client, { op: "SUBSCRIBE", topic: `${root}.**` })
    await publish(client, `${root}.born.later`, 3)
    expect(seqsOf(await client.events(3))).toEqual([1, 2, 3])
  })

  it("MUST be unrecoverable_position with another history, whatever it is", async () => {
    const [client, topic] = await setUp()
    const history = "01a1feeb-0000-7000-8000-000000000000"
    for (const from of [{ after: 1 }, { topics: {} }, { time: 0 }, "start", "new"]) {
      await refused(client, { op: "SUBSCRIBE", topic, opts: { from, history } }, "unrecoverable_position")
    }
  })

  it("MUST be taken with the hub's own history", async () => {
    const [client, topic] = await setUp()
    expect(await seen(client, topic, { from: { after: 3 }, history: historyOf(client) }, 2)).toEqual([4, 5])
  })
})

describe("a subscription", () => {
  it("MUST be already_subscribed when it stands on the connection", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    await refused(client, { op: "SUBSCRIBE", topic, opts: { from: "start" } }, "already_subscribed")
    await ok(await hub.client(), { op: "SUBSCRIBE", topic })
  })

  it("MUST be already_subscribed in the same frame, too", async () => {
    const client = await hub.client()
    const topic = fresh()
    client.send([1, 2].map((ref) => ({ op: "SUBSCRIBE", ref, topic })))
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 2)
    expect(answers).toMatchObject([
      { op: "OK", ref: 1 },
      { op: "ERR", ref: 2, code: "already_subscribed" }
    ])
  })

  it("MUST be possible again when it was ended, from anywhere", async () => {
    const client = await hub.client()
    const topic = fresh()
    await ok(client, { op: "SUBSCRIBE", topic })
    await publish(client, topic, 2)
    await ok(client, { op: "UNSUBSCRIBE", topic })
    await ok(client, { op: "SUBSCRIBE", topic, opts: { from: "start" } })
    expect(seqsOf(await client.events(4))).toEqual([1, 2, 1, 2])
  })

  it("MUST be invalid_pattern for everyone when its pattern is none", async () => {
    for (const token of [{}, { scopes: [] }]) {
      const client = await hub.client(token)
      for (const topic of ["", ".", "a..b", "a.", "fo*o", "a.b**", "a.***", "a b"]) {
        await refused(client, { op: "SUBSCRIBE", topic }, "invalid_pattern")
        await refused(client, { op: "UNSUBSCRIBE", topic }, "invalid_pattern")
      }
    }
  })

  it("MUST get its own copy of an event, also when patterns overlap", async () => {
    const client = await hub.client()
    const root = fresh()
    const patterns = [`${root}.a`, `${root}.*`, `${root}.**`, `*.a`]
    for (const topic of patterns) await ok(client, { op: "SUBSCRIBE", topic })
    await publish(client, `${root}.a`, 3)
    await client.events(12)
    await client.settled()
    for (const sub of patterns) {
      expect(seqsOf(eventsOf(client, (message) => message["sub"] === sub))).toEqual([1, 2, 3])
    }
  })

  it("MUST match by segments", async () => {
    const client = await hub.client()
    const root = fresh()
    await ok(client, { op: "SUBSCRIBE", topic: `${root}.*.c` })
    for (const name of ["c", "b.c", "b.d", "b.b.c", "x.c"]) await publish(client, `${root}.${name}`)
    await client.events(2)
    await client.settled()
    expect(eventsOf(client).map(({ topic }) => topic)).toEqual([`${root}.b.c`, `${root}.x.c`])
  })

  it("MUST NOT see the hub's own topics by a wildcard in front", async () => {
    const client = await hub.client()
    const topic = fresh()
    const group = fresh("group")
    await ok(client, { op: "SUBSCRIBE", topic: "**" })
    await ok(client, { op: "SUBSCRIBE", topic: "*.*.*" })
    await ok(client, { op: "SUBSCRIBE", topic: `$dead.${group}.**` })
    await ok(client, { op: "SUBSCRIBE", topic, group })
    await publish(client, topic)
    const [event] = await client.events(1, (message) => message["group"] === group)
    await ok(client, { op: "NACK", topic, group, id: (event!["event"] as { id: string }).id, mode: "poison" })
    await client.events(1, ({ sub }) => sub === `$dead.${group}.**`)
    await client.settled()
    expect(
      eventsOf(client, ({ sub, topic: name }) => sub !== name && String(name).startsWith("$"))
    ).toMatchObject([{ sub: `$dead.${group}.**` }])
    expect(await ok(client, { op: "SUBSCRIBE", topic: "**.nothing" })).toMatchObject({ heads: {} })
  })
})

describe("rights", () => {
  it("MUST cover the whole pattern", async () => {
    const client = await hub.client({ scopes: ["subscribe:a.*", "subscribe:b.**"] })
    for (const topic of ["a.b", "a.*", "b", "b.**", "b.*.c", "b.**.c"])
      await ok(client, { op: "SUBSCRIBE", topic })
    for (const topic of ["a", "a.b.c", "a.**", "**", "*", "*.b", "c"]) {
      await refused(client, { op: "SUBSCRIBE", topic }, "forbidden")
    }
  })

  it("MUST NOT come from the right to publish", async () => {
    const client = await hub.client({ scopes: ["publish:**"] })
    await refused(client, { op: "SUBSCRIBE", topic: "a" }, "forbidden")
  })

  it("MUST be denied when a deny of the token's policy overlaps the pattern", async () => {
    const rules = [
      { effect: "deny", action: "subscribe", topics: ["a.secret.**"] },
      { effect: "allow", action: "subscribe", topics: ["a.**"] }
    ]
    const client = await hub.client({ claims: { policy: { rules } } })
    for (const topic of ["a.b", "a.b.**"]) await ok(client, { op: "SUBSCRIBE", topic })
    for (const topic of ["a.**", "a.*", "a.secret", "a.*.x"]) {
      await refused(client, { op: "SUBSCRIBE", topic }, "forbidden")
    }
  })

  it("MUST be those of the group where a rule is for groups", async () => {
    const rules = [{ effect: "allow", action: "subscribe", topics: ["a.**"], groups: ["dev"] }]
    const client = await hub.client({ claims: { policy: { rules } } })
    await ok(client, { op: "SUBSCRIBE", topic: "a.b", group: "dev" })
    await refused(client, { op: "SUBSCRIBE", topic: "a.b", group: "ops" }, "forbidden")
    await refused(client, { op: "SUBSCRIBE", topic: "a.b" }, "forbidden")
  })
})

describe("UNSUBSCRIBE", () => {
  it("MUST be followed by no EVENT of the subscription", async () => {
    const client = await hub.client()
    const publisher = await hub.client()
    const [ended, other] = [fresh(), fresh()]
    await ok(client, { op: "SUBSCRIBE", topic: ended })
    await ok(client, { op: "SUBSCRIBE", topic: other })
    for (let payload = 1; payload <= 500; payload++) publisher.send({ op: "PUBLISH", topic: ended, payload })
    await client.events(1)
    await ok(client, { op: "UNSUBSCRIBE", topic: ended })
    const before = eventsOf(client).length
    await publish(publisher, ended)
    await publish(publisher, other)
    await client.events(1, ({ topic }) => topic === other)
    expect(eventsOf(client, ({ topic }) => topic === ended)).toHaveLength(before)
    expect(seqsOf(eventsOf(client, ({ topic }) => topic === ended))).toEqual(upTo(before))
  })

  it("MUST be not_subscribed for what does not stand", async () => {
    const client = await hub.client()
    const topic = fresh()
    await refused(client, { op: "UNSUBSCRIBE", topic }, "not_subscribed")
    await ok(client, { op: "SUBSCRIBE", topic, group: "g" })
    await refused(client, { op: "UNSUBSCRIBE", topic }, "not_subscribed")
    await refused(client, { op: "UNSUBSCRIBE", topic: `${topic}.*`, group: "g" }, "not_subscribed")
    await ok(client, { op: "UNSUBSCRIBE", topic, group: "g" })
  })
})

describe("a live reader", () => {
  it("MUST get every event once and in order when it subscribes while others publish at full speed", async () => {
    const publisher = await hub.client()
    for (let round = 1; round <= 30; round++) {
      const root = fresh()
      const topics = [`${root}.a`, `${root}.b`]
      const readers = await Promise.all([hub.client(), hub.client(), hub.client()])
      const n = 150
      const publishing = (async () => {
        for (let i = 1; i <= n; i++) {
          publisher.send(topics.map((topic) => ({ op: "PUBLISH", topic, payload: i })))
          if (i % 10 === 0) await ok(publisher, { op: "PING" })
        }
      })()
      // Each somewhere else in the middle of it.
      const subscribing = readers.map(async (reader, i) => {
        for (let trips = 0; trips < (round + i * 4) % 12; trips++) await ok(reader, { op: "PING" })
        await ok(reader, {
          op: "SUBSCRIBE",
          topic: i === 0 ? topics[0]! : `${root}.*`,
          opts: { from: "start" }
        })
      })
      await Promise.all([publishing, ...subscribing])
      for (const [i, reader] of readers.entries()) {
        await reader.events(i === 0 ? n : 2 * n)
        await reader.settled()
        for (const topic of i === 0 ? topics.slice(0, 1) : topics) {
          const events = eventsOf(reader, (message) => message["topic"] === topic)
          expect(seqsOf(events)).toEqual(upTo(n))
          expect(payloadsOf(events)).toEqual(upTo(n))
        }
        await reader.close()
      }
    }
  })

  it("MUST get every event from its position on when it reconnects while others publish", async () => {
    const publisher = await hub.client()
    const topic = fresh()
    const n = 2_000
    const seen: Array<number> = []
    for (let payload = 1; payload <= n; payload++) publisher.send({ op: "PUBLISH", topic, payload })
    while (seen.length < n) {
      const reader = await hub.client()
      const opts = { from: { after: seen.length }, history: historyOf(reader) }
      await ok(reader, { op: "SUBSCRIBE", topic, opts })
      await reader.events(Math.min(150, n - seen.length))
      const events = seqsOf(eventsOf(reader))
      reader.socket.terminate()
      expect(events).toEqual(events.map((_, i) => seen.length + i + 1))
      seen.push(...events)
    }
    expect(seen).toEqual(upTo(n))
  })

  it("MUST get an event that is published behind its subscription on the same connection", async () => {
    for (let i = 0; i < 50; i++) {
      const client = await hub.client()
      const topic = fresh()
      client.send([
        { op: "SUBSCRIBE", topic: `${topic}.*` },
        { op: "PUBLISH", topic: `${topic}.a`, payload: i }
      ])
      expect(payloadsOf(await client.events(1))).toEqual([i])
      await client.close()
    }
  })
})

describe("a reader that is too slow", () => {
  const size = 200_000
  const count = 100

  const flood = async (topic: string): Promise<void> => {
    const publisher = await tight.client()
    const payload = "x".repeat(size)
    for (let i = 0; i < count; i++) await ok(publisher, { op: "PUBLISH", topic, payload })
    await publisher.close()
  }

  it("MUST get everything from the store when it reads again", async () => {
    const topic = fresh()
    const reader = await tight.client()
    await ok(reader, { op: "SUBSCRIBE", topic, opts: { overflow: "catchup" } })
    reader.socket.pause()
    await flood(topic)
    reader.socket.resume()
    expect(seqsOf(await reader.events(count))).toEqual(upTo(count))
    await publish(reader, topic)
    expect(seqsOf(await reader.events(count + 1))).toEqual(upTo(count + 1))
  })

  it("MUST be closed with 4002 instead when it wanted that", async () => {
    const topic = fresh()
    const reader = await tight.client()
    await ok(reader, { op: "SUBSCRIBE", topic, opts: { overflow: "close" } })
    reader.socket.pause()
    await flood(topic)
    reader.socket.resume()
    expect(await reader.closed).toMatchObject({ code: 4002 })
    const seqs = seqsOf(eventsOf(reader))
    expect(seqs).toEqual(upTo(seqs.length))
    expect(seqs.length).toBeLessThan(count)
  })

  it("MUST NOT hold up the others", async () => {
    const topic = fresh()
    const [stuck, quick] = [await tight.client(), await tight.client()]
    for (const reader of [stuck, quick]) await ok(reader, { op: "SUBSCRIBE", topic })
    stuck.socket.pause()
    await flood(topic)
    expect(seqsOf(await quick.events(count))).toEqual(upTo(count))
    stuck.socket.terminate()
  })
})

describe("more subscriptions than a connection may have", () => {
  it("MUST be too_many_subscriptions, until one is ended", async () => {
    const client = await tight.client()
    expect(client.messages[0]).toMatchObject({ limits: { maxSubscriptions: 3 } })
    await ok(client, { op: "SUBSCRIBE", topic: "a" })
    await ok(client, { op: "SUBSCRIBE", topic: "a", group: "g" })
    await ok(client, { op: "SUBSCRIBE", topic: "b" })
    await refused(client, { op: "SUBSCRIBE", topic: "c" }, "too_many_subscriptions")
    await ok(client, { op: "UNSUBSCRIBE", topic: "a", group: "g" })
    await ok(client, { op: "SUBSCRIBE", topic: "c" })
    await ok(await tight.client(), { op: "SUBSCRIBE", topic: "c" })
  })
})
