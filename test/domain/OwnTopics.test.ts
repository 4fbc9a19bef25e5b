/** The hub's own topics: what they are called, and which topics a pattern of them speaks of. */
import fc from "fast-check"
import { describe, expect, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { deadLetterTopic } from "../../src/domain/DeadLetter.ts"
import * as Event from "../../src/domain/Event.ts"
import { groupTopic, isLive, namedBy, statsTopic, topicTopic } from "../../src/domain/OwnTopics.ts"
import * as Settings from "../../src/domain/Settings.ts"
import * as Topic from "../../src/domain/Topic.ts"

const name = fc.constantFrom("a", "b")
const topic = fc.array(name, { minLength: 1, maxLength: 4 }).map((segments) => segments.join("."))
const segment = fc.constantFrom("a", "b", "topic", "group", "*", "**", "**")
const pattern = fc.array(segment, { maxLength: 5 }).map((segments) => ["$hub", ...segments].join("."))

/** A topic of the hub's own, and the one that it names. */
const own = fc.oneof(
  topic.map((named) => [topicTopic(named), named] as const),
  fc.tuple(name, topic).map(([group, named]) => [groupTopic(group, named), named] as const)
)

describe("the hub's own live topics", () => {
  it("are topics, whatever they speak of and however long that is", () => {
    const long = "x".repeat(Topic.maxSegmentLength)
    const segments = (n: number) => Array.from({ length: n }, () => "x").join(".")
    const longest = Array.from({ length: 7 }, () => long).join(".") + `.${"x".repeat(56)}`
    expect(longest.length).toBe(Topic.maxBytes - 1)
    for (const named of [longest, segments(Topic.maxSegments)]) {
      for (const any of [named, deadLetterTopic(long, named)]) {
        for (const one of [topicTopic(any), groupTopic(long, any)]) {
          expect(Result.isSuccess(Topic.parseTopic(one))).toBe(true)
        }
      }
    }
    expect(Result.isSuccess(Topic.parseTopic(segments(Topic.maxSegments + 1)))).toBe(false)
    expect(Result.isSuccess(Topic.parseTopic(`$dead.${segments(Topic.maxSegments + 2)}`))).toBe(false)
  })

  it("are known by their first segment", () => {
    for (const live of [statsTopic, "$hub", "$hub.**", "$hub.*.a", topicTopic("a"), groupTopic("g", "a")]) {
      expect(isLive(live)).toBe(true)
    }
    for (const other of ["**", "hub.stats", "$hubs.a", "$dead.g.a", "*.stats"]) {
      expect(isLive(other)).toBe(false)
    }
  })

  it("are closed to publishers", () => {
    for (const one of [statsTopic, topicTopic("a"), groupTopic("g", "a")]) {
      const event = { id: "x", topic: one, ts: 0, payload: 1 }
      const error = Result.getOrThrow(Result.flip(Event.acceptEvent(event, Settings.limits)))
      expect(error._tag).toBe("InvalidTopic")
    }
  })
})

describe("the topics that a pattern names", () => {
  it.each([
    ["$hub.stats", []],
    ["$hub.*", []],
    ["$hub.topic", []],
    ["$hub.group.mailer", []],
    ["$hub.topic.orders.eu", ["orders.eu"]],
    ["$hub.topic.orders.**", ["orders.**"]],
    ["$hub.topic.$dead.mailer.orders", ["$dead.mailer.orders"]],
    ["$hub.group.mailer.orders.*", ["orders.*"]],
    ["$hub.group.*.orders", ["orders"]],
    ["$hub.**", ["**"]],
    ["$hub.**.**", ["**"]],
    // A topic's own, and a group's, where `*` stands for either.
    ["$hub.*.a.b", ["a.b", "b"]],
    ["$hub.group.**", ["**"]],
    ["$hub.group.**.a", ["**.a"]],
    ["$hub.**.orders", ["**.orders"]],
    ["$hub.topic.$hub.stats", []],
    ["$dead.billing.orders.eu", ["orders.eu"]],
    ["$dead.billing", []],
    ["orders.**", []]
  ])("by '%s' are %j", (name, named) => {
    expect(namedBy(name)).toEqual(named)
  })

  it("are all of them: of what a pattern matches, one of these matches the topic that it names", () => {
    fc.assert(
      fc.property(pattern, own, (name, [matched, named]) => {
        fc.pre(Topic.matches(name, matched))
        expect(namedBy(name).some((one) => Topic.matches(one, named))).toBe(true)
      }),
      { numRuns: 2_000 }
    )
  })

  it("are no others: for each topic that one of these matches, the pattern matches one that names it", () => {
    fc.assert(
      fc.property(pattern, topic, (name, named) => {
        fc.pre(namedBy(name).some((one) => Topic.matches(one, named)))
        const matched = [
          topicTopic(named),
          ...["a", "b", "x", "topic", "group"].map((group) => groupTopic(group, named))
        ]
        expect(matched.some((one) => Topic.matches(name, one))).toBe(true)
      }),
      { numRuns: 2_000 }
    )
  })

  it("are patterns, and few, whatever somebody asks for", () => {
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 30 }), (segments) => {
        const found = namedBy(["$hub", ...segments].join("."))
        expect(found.length).toBeLessThanOrEqual(8)
        for (const one of found) expect(Result.isSuccess(Topic.parsePattern(one))).toBe(true)
      })
    )
  })
})
