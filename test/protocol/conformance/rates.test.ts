/** Rates: per connection, per subject, per topic, from the configuration and from tokens. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type EmbeddedHub, startEmbeddedHub } from "../../support/EmbeddedHub.ts"
import { type Message, RawClient } from "../../support/RawClient.ts"
import { tokenFor } from "../../support/tokens.ts"
import { fresh, ok, refused, upTo, useHub } from "./support.ts"

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Publishes all of it in one frame; the answers by their refs, which count from 1. */
const publishAll = async (
  client: RawClient,
  publishes: ReadonlyArray<{ readonly topic: string; readonly payload?: unknown }>
): Promise<ReadonlyArray<Message>> => {
  const name = fresh("ref")
  client.send(publishes.map((publish, i) => ({ op: "PUBLISH", ref: `${name}.${i}`, payload: 1, ...publish })))
  const answers = await client.waitForAll(
    "answers",
    ({ ref }) => typeof ref === "string" && ref.startsWith(`${name}.`),
    publishes.length
  )
  return publishes.map((_, i) => answers.find(({ ref }) => ref === `${name}.${i}`)!)
}

const codes = (answers: ReadonlyArray<Message>) => answers.map(({ code, op }) => code ?? op)

const waitOf = (answer: Message | undefined): number => Number(answer?.["retryAfterMs"])

/** About 1,000 bytes as an event. At a byte a second nothing of it flows back while a test runs. */
const large = "x".repeat(900)

const publishTo = (topic: string) => ({ op: "PUBLISH", topic, payload: large })

describe("a subject", () => {
  const hub = useHub({ LIMIT_SUBJECT_BYTES_PER_SECOND: "1", LIMIT_SUBJECT_BYTES_BURST: "3500" })

  it("MUST have its rate on all of its connections together, and no other subject with it", async () => {
    const sub = fresh("sub")
    const [one, two, other] = await Promise.all([
      hub.client({ sub }),
      hub.client({ sub }),
      hub.client({ sub: fresh("sub") })
    ])
    const topic = fresh()
    for (const client of [one, two, one]) await ok(client, publishTo(topic))
    expect(waitOf(await refused(two, publishTo(topic), "rate_limited"))).toBeGreaterThan(0)
    await ok(other, publishTo(topic))
    const again = await hub.client({ sub })
    await refused(again, publishTo(topic), "rate_limited")
  })
})

describe("a topic", () => {
  const hub = useHub({
    LIMIT_TOPICS: "free.*: none; each.*: 1B/s burst=2500B; all.*: 1B/s burst=2500B shared; *.a: 1B/s burst=1B"
  })

  it("MUST have a bucket of its own, whoever publishes there", async () => {
    const [one, two] = await Promise.all([hub.client(), hub.client({ sub: "other" })])
    await ok(one, publishTo("each.a"))
    await ok(two, publishTo("each.a"))
    await refused(one, publishTo("each.a"), "rate_limited")
    await refused(two, publishTo("each.a"), "rate_limited")
    await ok(one, publishTo("each.b"))
  })

  it("MUST share the bucket of its rule where that says so", async () => {
    const client = await hub.client()
    await ok(client, publishTo("all.a"))
    await ok(client, publishTo("all.b"))
    await refused(client, publishTo("all.c"), "rate_limited")
  })

  it("MUST be limited by the first rule that matches, and by no other", async () => {
    const client = await hub.client()
    for (let i = 0; i < 5; i++) await ok(client, publishTo("free.a"))
  })

  it("MUST NOT be limited for those who subscribe it", async () => {
    const client = await hub.client()
    for (let i = 0; i < 5; i++) await ok(client, { op: "SUBSCRIBE", topic: "x.a", group: `g${i}` })
  })
})

describe("a publish over a rate", () => {
  const hub = useHub({ LIMIT_BYTES_PER_SECOND: "2000", LIMIT_BYTES_BURST: "2000" })

  it("MUST pass after retryAfterMs when nothing else was sent", async () => {
    const client = await hub.client()
    const topic = fresh()
    const publish = { op: "PUBLISH", topic, payload: "x".repeat(900) }
    await ok(client, publish)
    const answers = await publishAll(client, [publish, publish, publish])
    const error = answers.findLast(({ code }) => code === "rate_limited")
    expect(waitOf(error)).toBeGreaterThan(0)
    await sleep(waitOf(error) + 5)
    await ok(client, publish)
  })

  it("MUST take those behind it to the same topic in the same array with it, and no others", async () => {
    const client = await hub.client()
    const [a, b] = [fresh(), fresh()]
    const answers = await publishAll(client, [
      { topic: a, payload: "x".repeat(1_500) },
      { topic: a, payload: "x".repeat(1_500) },
      { topic: a },
      { topic: b },
      { topic: a }
    ])
    expect(codes(answers)).toEqual(["OK", "rate_limited", "rate_limited", "OK", "rate_limited"])
    for (const later of [answers[2], answers[4]]) {
      expect(waitOf(later)).toBeGreaterThanOrEqual(waitOf(answers[1]))
    }
    await ok(client, { op: "PUBLISH", topic: a, payload: 1 })
  })
})

describe("a message that is over one of several rates", () => {
  const hub = useHub({
    LIMIT_BYTES_PER_SECOND: "1",
    LIMIT_BYTES_BURST: "3500",
    LIMIT_TOPICS: "narrow: 1B/s burst=1000B"
  })

  it("MUST NOT spend from the others", async () => {
    const client = await hub.client()
    await ok(client, publishTo("narrow"))
    for (let i = 0; i < 10; i++) await refused(client, publishTo("narrow"), "rate_limited")
    for (let i = 0; i < 2; i++) await ok(client, publishTo(fresh()))
    await refused(client, publishTo(fresh()), "rate_limited")
  })
})

describe("a token with limits", () => {
  const hub = useHub({ LIMIT_MESSAGES_PER_SECOND: "1", LIMIT_MESSAGES_BURST: "5" })

  /** How many of one frame pass: what is behind the first that does not is refused with it, however long that takes. */
  const passing = async (limits: unknown): Promise<number> => {
    const client = await hub.client({ sub: fresh("sub"), claims: { limits } })
    const topic = fresh()
    const answers = await publishAll(
      client,
      upTo(20).map(() => ({ topic }))
    )
    return answers.filter(({ op }) => op === "OK").length
  }

  it("MUST be held to them", async () => {
    expect(await passing({ messages: { perSecond: 1, burst: 2 } })).toBe(2)
    expect(await passing({ subject: { messages: { perSecond: 1, burst: 3 } } })).toBe(3)
    expect(await passing({ topics: "**: 1/s burst=4" })).toBe(4)
  })

  it("MUST NOT get more than the configuration allows", async () => {
    expect(await passing({ messages: { perSecond: 1_000, burst: 1_000 } })).toBe(5)
  })

  it("MUST be refused when they cannot be understood, and the log says why", async () => {
    const client = await hub.connect()
    const claims = { limits: { message: { perSecond: 5 } } }
    const token = await tokenFor({ sub: "misspelt", claims })
    const answer = await client.request({ op: "AUTH", token })
    expect(answer).toMatchObject({ op: "ERR", code: "jwt_invalid" })
    expect(await client.closed).toMatchObject({ code: 4401 })
    const line = await hub.process.lineWhere(({ msg }) => msg === "a token was refused")
    expect(line).toMatchObject({ sub: "misspelt", why: expect.stringContaining("limits: ") })
    expect(line["why"]).toContain("message")
  })
})

describe("a hub whose store is behind", () => {
  let hub: EmbeddedHub | undefined
  beforeAll(async () => {
    hub = await startEmbeddedHub({ HUB_HEARTBEAT_MS: "100", LIMIT_PAUSE_EVENTS: "1" })
  })
  afterAll(() => hub?.stop())

  it("MUST NOT close those whom it does not read, and answers everything in the end", async () => {
    const { faults, ws } = hub!
    const client = await RawClient.authenticated(ws)
    faults.appendMs = 1_000
    client.send(upTo(3).map((ref) => ({ op: "PUBLISH", ref, topic: "t", payload: ref })))
    const other = await RawClient.authenticated(ws)
    await ok(other, { op: "SUBSCRIBE", topic: "t" })
    await ok(other, { op: "PING" })
    const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 3)
    expect(answers.map(({ op, seq }) => [op, seq])).toEqual([
      ["OK", 1],
      ["OK", 2],
      ["OK", 3]
    ])
    faults.appendMs = 0
    await ok(client, { op: "PING" })
  })
})
