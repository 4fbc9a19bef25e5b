/**
 * Dead letters: where they stand, what they say, that the same death is always the same letter, and how an event
 * comes back from one.
 */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import {
  deadLetter,
  deadLetterTopic,
  deathOf,
  isAskedFor,
  isDeadLetterTopic,
  originalsOf,
  revived
} from "../../src/domain/DeadLetter.ts"
import * as Event from "../../src/domain/Event.ts"
import * as Group from "../../src/domain/Group.ts"
import * as Settings from "../../src/domain/Settings.ts"
import * as Topic from "../../src/domain/Topic.ts"

const stored = (event: Partial<Event.NewEvent> = {}): Event.StoredRecord => ({
  ...Result.getOrThrow(
    Event.encodeEvent({ id: "e1", topic: "orders.eu", ts: 5, payload: { n: 1 }, ...event }, Settings.limits)
  ),
  seq: 7,
  storedAt: 99
})

const death = {
  record: stored(),
  group: "billing",
  generation: "g1",
  attempts: 3,
  reason: "it is broken",
  redrives: 0
}

/** The letter as whoever reads it sees it. */
const read = (letter: Event.EventRecord) => Event.decode({ ...letter, seq: 1, storedAt: 100 })

const group = fc.constantFrom("a", "b", "$a")
const topic = fc.constantFrom("a", "b", "a.a", "a.b", "b.a")
const id = fc.oneof(
  fc.constantFrom("a", "b", "a:b", "a:"),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 })
)
/** Generations are made by the hub: hex and dashes. */
const generation = fc.uuid()

const event = fc.record(
  {
    id,
    payload: fc.jsonValue(),
    type: fc.string(),
    key: fc.string(),
    headers: fc.dictionary(fc.string(), fc.string(), { maxKeys: 4 })
  },
  { requiredKeys: ["id", "payload"] }
)

describe("the topic of dead letters", () => {
  it("names the group and the topic", () => {
    expect(deadLetterTopic("billing", "orders.eu")).toBe("$dead.billing.orders.eu")
    expect(isDeadLetterTopic("$dead.billing.orders.eu")).toBe(true)
  })

  it.each(["orders.eu", "dead.billing.orders", "$deadly.x", "$other", "x.$dead.y"])(
    "is not '%s'",
    (topic) => {
      expect(isDeadLetterTopic(topic)).toBe(false)
    }
  )

  it("is a topic of the hub's own, whatever the group and however long the topic", () => {
    const longest = Array.from({ length: Topic.maxSegments }, () => "a".repeat(15)).join(".")
    expect(longest.length).toBe(511)
    const name = deadLetterTopic("g".repeat(Topic.maxSegmentLength), longest)
    expect(Result.isSuccess(Topic.parseTopic(name))).toBe(true)
    expect(Topic.isOwn(name)).toBe(true)
    const letter = deadLetter({ ...death, record: stored({ topic: longest }), group: "g".repeat(64) })
    expect(letter.topic).toBe(name)
  })

  it("tells deaths of different groups and topics apart", () => {
    fc.assert(
      fc.property(group, topic, group, topic, (group, topic, otherGroup, otherTopic) => {
        const same = group === otherGroup && topic === otherTopic
        expect(deadLetterTopic(group, topic) === deadLetterTopic(otherGroup, otherTopic)).toBe(same)
      })
    )
  })

  it("is closed to publishers", () => {
    const event = { id: "x", topic: "$dead.billing.orders", ts: 0, payload: 1 }
    const error = Result.getOrThrow(Result.flip(Event.acceptEvent(event, Settings.limits)))
    expect(error._tag).toBe("InvalidTopic")
  })
})

describe("the originals of dead letters", () => {
  const segment = fc.constantFrom("a", "b", "*", "**", "**")
  const pattern = fc.array(segment, { maxLength: 5 }).map((segments) => ["$dead", ...segments].join("."))

  it.each([
    ["$dead.billing.orders.eu", "orders.eu"],
    ["$dead.billing.**", "**"],
    ["$dead.*.orders.*", "orders.*"],
    ["$dead.**", "**"],
    ["$dead.**.orders", "**.orders"],
    ["$dead.**.**.orders", "**.orders"],
    // The group's name is what `**` stands for, or the segment behind it.
    ["$dead.**.billing.orders", "**.orders"],
    ["$dead.**.**.billing.orders", "**.orders"]
  ])("of '%s' are '%s'", (letters, originals) => {
    expect(originalsOf(letters)).toBe(originals)
  })

  it.each(["orders.eu", "**", "$deadly.a.b", "$dead", "$dead.billing"])("are none for '%s'", (name) => {
    expect(originalsOf(name)).toBeUndefined()
  })

  it("are all of them: what a pattern of letters matches has its original among the originals", () => {
    fc.assert(
      fc.property(pattern, fc.constantFrom("a", "b"), topic, (letters, group, original) => {
        fc.pre(Topic.matches(letters, deadLetterTopic(group, original)))
        expect(Topic.matches(originalsOf(letters) ?? "", original)).toBe(true)
      }),
      { numRuns: 500 }
    )
  })

  it("are no others, where the group's place is no '**'", () => {
    fc.assert(
      fc.property(pattern, fc.constantFrom("a", "b"), topic, (letters, group, original) => {
        const [, named, ...rest] = letters.split(".")
        fc.pre(named === group && rest.length > 0)
        const isMatched = Topic.matches(letters, deadLetterTopic(group, original))
        expect(Topic.matches(originalsOf(letters) ?? "", original)).toBe(isMatched)
      })
    )
  })
})

describe("a dead letter", () => {
  it("says where it comes from, and why", () => {
    expect(read(deadLetter(death))).toEqual({
      id: "e1:g1",
      topic: "$dead.billing.orders.eu",
      seq: 1,
      storedAt: 100,
      ts: 5,
      payload: { n: 1 },
      headers: {
        "dead-group": "billing",
        "dead-topic": "orders.eu",
        "dead-seq": "7",
        "dead-id": "e1",
        "dead-stored-at": "99",
        "dead-attempts": "3",
        "dead-reason": "it is broken",
        "dead-redrives": "0"
      }
    })
  })

  it("has everything else of the original", () => {
    fc.assert(
      fc.property(event, (original) => {
        const letter = read(deadLetter({ ...death, record: stored(original) }))
        const { headers = {}, id: _, ...rest } = JSON.parse(JSON.stringify(original)) as typeof original
        expect(letter).toMatchObject(rest)
        expect(letter.headers).toMatchObject(headers)
        expect(Object.keys(letter).includes("key")).toBe(original.key !== undefined)
      })
    )
  })

  it("is kept under the key of the original, and of a tombstone is one", () => {
    const letter = deadLetter({ ...death, record: stored({ key: "k", payload: null }) })
    expect(letter).toMatchObject({ key: "k", tombstone: true })
  })

  it("speaks of the last death when it is a letter of a letter's event", () => {
    const headers = { "dead-reason": "long ago", trace: "t" }
    const letter = read(deadLetter({ ...death, record: stored({ headers }) }))
    expect(letter.headers).toMatchObject({ "dead-reason": "it is broken", trace: "t" })
  })

  it("fits however much the original holds", () => {
    const { maxHeaders, maxNameLength, maxPayloadBytes } = Settings.limits
    const headers = Object.fromEntries(Array.from({ length: maxHeaders }, (_, i) => [`h${i}`, "x"]))
    const record = stored({
      id: "i".repeat(maxNameLength),
      payload: "p".repeat(maxPayloadBytes - 2),
      headers
    })
    const letter = read(deadLetter({ ...death, record, reason: "r".repeat(100_000) }))
    expect(Object.keys(letter.headers ?? {}).length).toBe(maxHeaders + 8)
  })
})

describe("the id of a dead letter", () => {
  it("is the same for the same death, whatever else is known of it", () => {
    fc.assert(
      fc.property(id, generation, fc.nat(), fc.string(), (eventId, life, attempts, reason) => {
        const record = stored({ id: eventId })
        const first = deadLetter({ ...death, record, generation: life })
        const again = deadLetter({ ...death, record, generation: life, attempts, reason })
        expect(again.id).toBe(first.id)
      })
    )
  })

  it("is another for each time that the event came back", () => {
    const idOf = (redrives: number) => deadLetter({ ...death, redrives }).id
    expect([idOf(0), idOf(1), idOf(2)]).toEqual(["e1:g1", "e1:g1:1", "e1:g1:2"])
  })

  it("is another for another event, and for another life of the group", () => {
    fc.assert(
      fc.property(id, id, generation, generation, (a, b, life, next) => {
        const idOf = (eventId: string, generation: string) =>
          deadLetter({ ...death, record: stored({ id: eventId }), generation }).id
        expect(idOf(a, life) === idOf(b, next)).toBe(a === b && life === next)
        expect(idOf(a, life) === idOf(a, next)).toBe(life === next)
      })
    )
  })
})

/** A letter as it stands in the dead letters, at 5. */
const letterOf = (more: Partial<Parameters<typeof deadLetter>[0]> = {}): Event.StoredRecord => ({
  ...deadLetter({ ...death, ...more }),
  seq: 5,
  storedAt: 1_000
})

/** The letter with other headers; one that is undefined is not there. */
const withHeaders = (headers: Readonly<Record<string, string | undefined>>): Event.StoredRecord => {
  const { seq: _, storedAt: __, ...event } = Event.decode(letterOf())
  const all = { ...event.headers, ...headers }
  const there = Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
  const record = Result.getOrThrow(
    Event.encodeEvent({ ...event, headers: Object.fromEntries(there) }, Settings.limits)
  )
  return { ...record, seq: 5, storedAt: 1_000 }
}

describe("what a dead letter says of itself", () => {
  it("is what was said of the death", () => {
    expect(deathOf(letterOf({ redrives: 2 }))).toEqual({
      group: "billing",
      topic: "orders.eu",
      seq: 7,
      id: "e1",
      storedAt: 99,
      attempts: 3,
      reason: "it is broken",
      redrives: 2
    })
  })

  it("is all of it, whatever the event and its death were", () => {
    fc.assert(
      fc.property(event, fc.nat(), fc.string(), fc.nat(99), (original, attempts, reason, redrives) => {
        const record = stored(original)
        expect(deathOf(letterOf({ record, attempts, reason, redrives }))).toEqual({
          group: "billing",
          topic: "orders.eu",
          seq: 7,
          id: record.id,
          storedAt: 99,
          attempts,
          reason,
          redrives
        })
      })
    )
  })

  it("is nothing where it is none", () => {
    expect(deathOf(stored())).toBeUndefined()
    expect(deathOf(stored({ headers: { trace: "t" } }))).toBeUndefined()
  })

  it.each(["dead-group", "dead-topic", "dead-seq", "dead-id"])("is nothing without %s", (name) => {
    expect(deathOf(withHeaders({ [name]: undefined }))).toBeUndefined()
  })

  it.each(["x", "1.5", "NaN", "Infinity", "9007199254740993"])("is nothing with the position '%s'", (seq) => {
    expect(deathOf(withHeaders({ "dead-seq": seq }))).toBeUndefined()
  })

  it("has what can be known where the rest is missing, or is no number", () => {
    const rest = ["dead-stored-at", "dead-attempts", "dead-reason", "dead-redrives"]
    const none = Object.fromEntries(rest.map((name) => [name, undefined]))
    const known = { seq: 7, id: "e1", storedAt: 1_000, attempts: 0, redrives: 0 }
    expect(deathOf(withHeaders(none))).toMatchObject({ ...known, reason: "" })
    const wrong = Object.fromEntries(rest.map((name) => [name, "x"]))
    expect(deathOf(withHeaders(wrong))).toMatchObject({ ...known, reason: "x" })
  })
})

describe("a filter of dead letters", () => {
  const letter = letterOf({ record: stored({ key: "k" }) })
  const asks = (filter: Group.RedriveFilter) => isAskedFor(filter, letter, deathOf(letter)!)

  it("that says nothing asks for all", () => {
    expect(asks({})).toBe(true)
  })

  it.each<[Group.RedriveFilter, Group.RedriveFilter]>([
    [{ letters: [4, 5] }, { letters: [4, 6] }],
    [{ ids: ["e0", "e1"] }, { ids: ["e1:g1"] }],
    [{ ids: ["e1"] }, { ids: [] }],
    [{ key: "k" }, { key: "K" }],
    [{ reason: "is bro" }, { reason: "Is bro" }],
    [{ reason: "" }, { reason: "it is broken!" }],
    [{ since: 1_000 }, { since: 1_001 }],
    [{ until: 1_001 }, { until: 1_000 }]
  ])("asks by %j and not by %j", (yes, no) => {
    expect(asks(yes)).toBe(true)
    expect(asks(no)).toBe(false)
    // All of a filter has to be true.
    expect(asks({ letters: [5], ids: ["e1"], key: "k", reason: "it", since: 0, until: 9_999, ...no })).toBe(
      false
    )
  })

  it("by a key asks for no letter without one", () => {
    const keyless = letterOf()
    expect(isAskedFor({ key: "" }, keyless, deathOf(keyless)!)).toBe(false)
    expect(isAskedFor({}, keyless, deathOf(keyless)!)).toBe(true)
  })
})

describe("an event that comes back from a letter", () => {
  it("is the original at its place, with where it has been in its headers", () => {
    const letter = letterOf({ record: stored({ headers: { trace: "t" } }) })
    const back = revived(letter, deathOf(letter)!)
    expect(Event.decode(back)).toEqual({
      id: "e1",
      topic: "orders.eu",
      seq: 7,
      storedAt: 99,
      ts: 5,
      payload: { n: 1 },
      headers: {
        trace: "t",
        "dead-group": "billing",
        "dead-topic": "orders.eu",
        "dead-seq": "7",
        "dead-id": "e1",
        "dead-stored-at": "99",
        "dead-attempts": "3",
        "dead-reason": "it is broken",
        "dead-redrives": "1",
        "dead-letter": "e1:g1"
      }
    })
  })

  it("is the original, whatever that was", () => {
    fc.assert(
      fc.property(event, (original) => {
        const record = stored(original)
        const letter = letterOf({ record })
        const { headers: said, ...back } = Event.decode(revived(letter, deathOf(letter)!))
        const { headers = {}, ...first } = Event.decode(record)
        expect(back).toEqual(first)
        expect(said).toMatchObject(headers)
      })
    )
  })

  it("counts how often, and dies as another letter each time", () => {
    let record = stored()
    const ids: Array<string> = []
    for (let redrives = 0; redrives < 3; redrives++) {
      const letter = letterOf({ record, redrives })
      const of = deathOf(letter)!
      expect(of).toMatchObject({ id: "e1", seq: 7, storedAt: 99, redrives })
      ids.push(letter.id)
      record = revived(letter, of)
      expect(Event.decode(record).headers).toMatchObject({
        "dead-letter": letter.id,
        "dead-redrives": String(redrives + 1)
      })
    }
    expect(ids).toEqual(["e1:g1", "e1:g1:1", "e1:g1:2"])
  })

  it("is kept under its key, and is a tombstone where it was one", () => {
    const letter = letterOf({ record: stored({ key: "k", payload: null }) })
    expect(revived(letter, deathOf(letter)!)).toMatchObject({ key: "k", tombstone: true, topic: "orders.eu" })
  })
})

describe("a group on dead letters", () => {
  const options = { ackTimeoutMs: 100, maxAttempts: 1, keyOrdered: false }
  const limits = { now: 1_000, maxAttempts: Infinity, backoff: Settings.groups.backoff }
  const held = Group.claim(Group.initial("g", 0), {
    now: 1_000,
    member: "ann",
    limit: 1,
    retriesFirst: 0,
    mode: "shared",
    candidates: [{ seq: 1, key: undefined }],
    options,
    window: 10
  }).state

  it.each(["fail", "poison"] as const)("never gives one up by a refusal: %s", (mode) => {
    const refusal = { seq: 1, member: "ann", mode, reason: "bad", random: 0 }
    const { outcomes, state } = Group.nack(held, [refusal], limits)
    expect(outcomes).toEqual(["done"])
    expect(state.dying.size).toBe(0)
    expect(state.waiting.get(1)?.attempt).toBe(1)
  })

  it("never gives one up by a time-out or a lost member", () => {
    expect(Group.expire(held, { ...limits, now: 9_999 }).waiting.has(1)).toBe(true)
    expect(Group.removeMembers(held, () => true, limits).waiting.has(1)).toBe(true)
  })
})
