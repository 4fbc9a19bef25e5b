/** Quotas: which buckets a message spends from, what a token may change about that, and quotas as text. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as Quota from "../../src/domain/Quota.ts"
import type { Rate } from "../../src/domain/RateLimit.ts"
import * as Topic from "../../src/domain/Topic.ts"

const parse = (text: string) => Result.getOrThrow(Quota.parseQuotas(text))
const messageOf = (text: string): string =>
  Result.match(Quota.parseQuotas(text), { onFailure: (error) => error.message, onSuccess: () => "fine" })

const rate = (perSecond: number, burst = perSecond): Rate => ({ perSecond, burst })
const who = { connection: "c1", sub: "ann" }

const rates = (messages: Rate | undefined, bytes?: Rate): Quota.Rates => ({ messages, bytes })

/** In short: kind, the rate, and what it costs. */
const spent = (config: Quota.Quotas, cost: Quota.Cost, token?: Quota.Quotas, of = who) =>
  Quota.spendingsOf(Quota.accountOf(config, of, token), cost).map(
    ({ cost, kind, rate }) => `${kind} ${cost} of ${rate.burst} by ${rate.perSecond}`
  )

const keys = (config: Quota.Quotas, topic: string, token?: Quota.Quotas, of = who) =>
  Quota.spendingsOf(Quota.accountOf(config, of, token), { topic, bytes: 1 }).map(({ key }) => key)

describe("a message", () => {
  const config: Quota.Quotas = {
    connection: rates(rate(10, 20), rate(1_000)),
    subject: rates(rate(50), rate(5_000)),
    topics: parse("a.free: none; a.*: 5/s 99B/s burst=200B; b.**: 7/s shared")
  }

  it("spends from the connection, the subject and the topic", () => {
    expect(spent(config, { topic: "a.b", bytes: 30 })).toEqual([
      "connection_messages 1 of 20 by 10",
      "subject_messages 1 of 50 by 50",
      "connection_bytes 30 of 1000 by 1000",
      "subject_bytes 30 of 5000 by 5000",
      "topic_events 1 of 5 by 5",
      "topic_bytes 30 of 200 by 99"
    ])
    expect(spent(config, { topic: "a.free", bytes: 30 })).toHaveLength(4)
    expect(spent(config, { topic: "other", bytes: 30 })).toHaveLength(4)
  })

  it("without a topic is a message, and nothing else", () => {
    expect(spent(config, { topic: undefined, bytes: 0 })).toEqual([
      "connection_messages 1 of 20 by 10",
      "subject_messages 1 of 50 by 50"
    ])
  })

  it("spends from nothing where there are no limits", () => {
    expect(spent(Quota.unlimited, { topic: "a.b", bytes: 30 })).toEqual([])
  })

  it("shares its buckets with whom it should, and with nobody else", () => {
    const [own, sub, , , topic] = keys(config, "a.b")
    const other = keys(config, "a.b", undefined, { connection: "c2", sub: "ann" })
    expect(other[0]).not.toBe(own)
    expect(other[1]).toBe(sub)
    const stranger = keys(config, "a.b", undefined, { connection: "c3", sub: "bob" })
    expect(stranger[1]).not.toBe(sub)
    expect(stranger[4]).toBe(topic)
    expect(keys(config, "a.c")[4]).not.toBe(topic)
    expect(keys(config, "b.x")[4]).toBe(keys(config, "b.y.z")[4])
  })

  it("has a bucket of its own in each of its limits", () => {
    const token = { ...config, topics: parse("**: 1/s 1B/s shared") }
    const all = keys(config, "a.b", token)
    expect(new Set(all).size).toBe(all.length)
    expect(all).toHaveLength(8)
  })
})

describe("a token", () => {
  const config: Quota.Quotas = {
    connection: rates(rate(10, 20)),
    subject: rates(undefined),
    topics: parse("a.*: 5/s")
  }
  const claim = (limits: unknown) => Result.getOrThrow(Quota.parseClaim(limits))

  it("makes narrower what the configuration allows, and wider never", () => {
    const cost = { topic: undefined, bytes: 0 }
    const narrow = claim({ messages: { perSecond: 3 }, subject: { messages: { perSecond: 8, burst: 9 } } })
    expect(spent(config, cost, narrow)).toEqual([
      "connection_messages 1 of 3 by 3",
      "subject_messages 1 of 9 by 8"
    ])
    const wide = claim({ messages: { perSecond: 300, burst: 15 } })
    expect(spent(config, cost, wide)).toEqual(["connection_messages 1 of 15 by 10"])
  })

  it("adds its subject's share of topics to everybody's", () => {
    const token = claim({ topics: "a.b: 2/s" })
    expect(spent(config, { topic: "a.b", bytes: 1 }, token).slice(1)).toEqual([
      "topic_events 1 of 5 by 5",
      "topic_events 1 of 2 by 2"
    ])
    const [, all, mine] = keys(config, "a.b", token)
    const [, others, theirs] = keys(config, "a.b", token, { connection: "c2", sub: "bob" })
    expect(others).toBe(all)
    expect(theirs).not.toBe(mine)
  })

  const rateOrNone = fc.option(fc.record({ perSecond: fc.integer({ min: 1, max: 9 }), burst: fc.nat(9) }), {
    nil: undefined
  })

  it("never allows more than the configuration or the token alone", () => {
    fc.assert(
      fc.property(rateOrNone, rateOrNone, (a, b) => {
        const both = Quota.narrower(a, b)
        for (const one of [a, b]) {
          if (one === undefined) continue
          expect(both!.perSecond).toBeLessThanOrEqual(one.perSecond)
          expect(both!.burst).toBeLessThanOrEqual(one.burst)
        }
        expect(both === undefined).toBe(a === undefined && b === undefined)
      })
    )
  })

  it.each([
    ["no object", 5, /limits: /],
    ["a rate without perSecond", { messages: { burst: 5 } }, /perSecond/],
    ["a rate of 0", { bytes: { perSecond: 0 } }, /perSecond/],
    ["a rate of parts", { messages: { perSecond: 1.5 } }, /perSecond/],
    ["a field that nobody knows", { message: { perSecond: 5 } }, /message/],
    ["such a field in a rate", { messages: { perSecond: 5, bursts: 6 } }, /bursts/],
    ["a subject of another kind", { subject: { topics: "a: 1/s" } }, /topics/],
    [
      "topics that are wrong",
      { topics: "a.b" },
      /limits: topics: rule 1 \(character 1\): 'a\.b' ends in no ':'/
    ]
  ])("with %s says what is wrong", (_, limits, reason) => {
    expect(Result.getOrThrow(Result.flip(Quota.parseClaim(limits)))).toMatch(reason)
  })
})

describe("the text form", () => {
  it("has events, bytes, bursts, and one bucket or many", () => {
    expect(
      parse("orders.**: 500/s burst=1000; logs.*: 1MB/s\n a.b: 2/s 3KiB/s burst=4MiB shared; c: none;;")
    ).toEqual([
      {
        pattern: expect.objectContaining({ name: "orders.**" }),
        events: rate(500, 1_000),
        bytes: undefined,
        shared: false
      },
      {
        pattern: expect.objectContaining({ name: "logs.*" }),
        events: undefined,
        bytes: rate(1_000_000),
        shared: false
      },
      {
        pattern: expect.objectContaining({ name: "a.b" }),
        events: rate(2),
        bytes: rate(3 * 1024, 4 * 1024 ** 2),
        shared: true
      },
      { pattern: expect.objectContaining({ name: "c" }), events: undefined, bytes: undefined, shared: false }
    ])
    expect(parse(" ; \n")).toEqual([])
  })

  it.each([
    ["a.b 5/s", 1, "ends in no ':'"],
    ["a..b: 5/s", 1, "not a pattern"],
    ["a:", 1, "does not say how much"],
    ["a: shared", 1, "does not say how much"],
    ["a: 5", 4, "is no option"],
    ["a: 0/s", 4, "is no amount"],
    ["a: 1.5/s", 4, "is no amount"],
    ["a: 5mb/s", 4, "is no amount"],
    ["a: 9999GiB/s", 4, "is no amount"],
    ["a: 5/s 6/s", 8, "the rate of events stands twice"],
    ["a: 5/s burst=6 burst=7", 16, "the burst of events stands twice"],
    ["a: 5/s burst=6MB", 8, "has no effect without a rate of bytes, such as 1MB/s"],
    ["a: 5MB/s burst=6", 10, "has no effect without a rate of events, such as 500/s"],
    ["a: 5/s none", 8, "'none' stands alone"],
    ["a: 5/s shared shared", 15, "'shared' stands twice"]
  ])("of %j is refused with the place and what to write", (text, at, reason) => {
    expect(messageOf(text)).toContain(`rule 1 (character ${at}): `)
    expect(messageOf(text)).toContain(reason)
  })

  it("tells all that is wrong at once, and a rule that can never apply", () => {
    expect(messageOf("a: x; b.**: 1/s; b.c: 2/s")).toBe(
      "rule 1 (character 4): 'x' is no option; those are <amount>/s, burst=<amount>, shared and none; " +
        "rule 3 (character 18): it never applies, since rule 2 takes all its topics before; put it in front of that"
    )
  })

  const segment = fc.constantFrom("a", "b", "*", "**", "$x", "x:y")
  const amount = fc.oneof(fc.integer({ min: 1, max: 3_000 }), fc.constantFrom(1_000_000, 1_048_576, 10 ** 12))
  const anyRate = fc.option(fc.record({ perSecond: amount, burst: amount }), { nil: undefined })
  const quota = fc
    .record({
      name: fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join(".")),
      events: anyRate,
      bytes: anyRate,
      shared: fc.boolean()
    })
    .map(({ name, shared, ...rates }): Quota.TopicQuota => ({
      pattern: Result.getOrThrow(Topic.parsePattern(name)),
      ...rates,
      shared: shared && (rates.events ?? rates.bytes) !== undefined
    }))

  it("is read back as it was written", () => {
    fc.assert(
      fc.property(quota, (quota) => {
        expect(parse(Quota.formatQuota(quota))).toEqual([quota])
      })
    )
    const text = "a.free: none; a.*: 5/s 99B/s burst=200B; **: 7/s shared"
    expect(Quota.formatQuotas(parse(text))).toBe(text)
  })

  it("never throws, and says where it is wrong within the text", () => {
    const words = fc.constantFrom(
      "a:",
      "a.*:",
      "5/s",
      "5MB/s",
      "burst=5",
      "none",
      "shared",
      ";",
      "\n",
      "é",
      "=",
      "/s"
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(words).map((all) => all.join(" "))
        ),
        (text) => {
          const read = Quota.parseQuotas(text)
          if (Result.isSuccess(read)) return
          for (const { at } of read.failure.problems) expect(at).toBeLessThanOrEqual(text.length)
        }
      )
    )
  })

  it("is decided by the first rule that matches", () => {
    const rules = parse("a.free: none; a.*: 5/s; **: 7/s")
    const eventsOf = (topic: string) => Quota.quotaFor(rules, topic)?.events?.perSecond
    expect(["a.free", "a.b", "c.d.e", "$dead.g.a"].map(eventsOf)).toEqual([undefined, 5, 7, undefined])
  })
})
