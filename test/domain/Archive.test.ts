/** The lines of an export: what is written is read back as it was, and what is no such line says why. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as Archive from "../../src/domain/Archive.ts"
import * as Event from "../../src/domain/Event.ts"
import * as Settings from "../../src/domain/Settings.ts"

const name = fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" })
const segment = fc.stringMatching(/^[a-z0-9:$_-]{1,6}$/)
const topic = fc
  .array(segment, { minLength: 1, maxLength: 4 })
  .map((segments) => segments.join("."))
  .map((text) => (text.startsWith("$") ? `a${text}` : text))

const optional = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined })

const event = fc
  .record({
    id: name,
    topic,
    ts: fc.double({ noNaN: true, noDefaultInfinity: true }),
    payload: fc.jsonValue(),
    type: optional(name),
    key: optional(name),
    headers: optional(fc.dictionary(name, fc.string(), { maxKeys: 4, noNullPrototype: true })),
    tags: optional(fc.array(name, { maxLength: 4 })),
    caused_by: optional(name),
    sid: optional(name)
  })
  .map((fields) => {
    const given = Object.entries(fields).filter(([, value]) => value !== undefined)
    return Object.fromEntries(given) as unknown as Event.NewEvent
  })

const stored = fc
  .record({ event, seq: fc.integer({ min: 1 }), storedAt: fc.nat() })
  .map(({ event, seq, storedAt }): Event.StoredRecord => {
    const record = Result.getOrThrow(Event.encodeEvent(event, Settings.limits))
    return { ...record, seq, storedAt }
  })

const parse = (line: string) => Archive.parseLine(line.trimEnd(), Settings.limits)
const reasonOf = (line: string): string =>
  Result.match(parse(line), { onFailure: (reason) => reason, onSuccess: () => "fine" })

describe("a line", () => {
  it("of an event gives back the same record, to the last byte of its body", () => {
    fc.assert(
      fc.property(stored, (record) => {
        const line = Archive.eventLine(record)
        expect(line.indexOf("\n")).toBe(line.length - 1)
        expect(parse(line)).toEqual(Result.succeed({ _tag: "Event", record }))
      })
    )
  })

  it("of a key's last event does, too", () => {
    fc.assert(
      fc.property(
        stored.filter(({ key, tombstone }) => key !== undefined && !tombstone),
        (record) => {
          const line = Archive.latestLine(record)
          expect(line.indexOf("\n")).toBe(line.length - 1)
          expect(parse(line)).toEqual(Result.succeed({ _tag: "Latest", record }))
        }
      )
    )
  })

  it("at the end gives back what it says", () => {
    const trailer = { events: 3, latest: 1, topics: 2, sha256: "ab" }
    expect(parse(Archive.trailerLine(trailer))).toEqual(Result.succeed({ _tag: "Trailer", trailer }))
    expect(Archive.trailerOf(Archive.trailerLine(trailer))).toEqual(trailer)
  })

  it.each(["", "{", "null", "{}", '{"end":true}', '{"events":1,"latest":0,"topics":1,"sha256":""}'])(
    "%j is not the last one",
    (text) => {
      expect(Archive.trailerOf(text)).toBeUndefined()
    }
  )

  it("of anything else is refused with a reason, and never throws", () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
        const parsed = Archive.parseLine(text, Settings.limits)
        if (Result.isFailure(parsed)) expect(parsed.failure.length).toBeGreaterThan(0)
      })
    )
  })

  const good = { seq: 1, storedAt: 2, id: "i", topic: "a", ts: 3, payload: 4 }

  it("may leave out what an event may, or say null", () => {
    expect(reasonOf(JSON.stringify(good))).toBe("fine")
    const nulls = { type: null, key: null, headers: null, tags: null, caused_by: null, sid: null }
    expect(parse(JSON.stringify({ ...good, ...nulls }))).toEqual(parse(JSON.stringify(good)))
    expect(reasonOf(JSON.stringify({ ...good, topic: "$dead.g.a" }))).toBe("fine")
    const large = { ...good, topic: "$dead.g.a", headers: { reason: "x".repeat(20_000) } }
    expect(reasonOf(JSON.stringify(large))).toBe("fine")
  })

  it.each([
    ["[]", /no JSON object/],
    ["{", /no JSON object/],
    ["", /no JSON object/],
    ["{}", /'topic' must be a string/],
    [JSON.stringify({ ...good, id: 1 }), /'id' must be a string/],
    [JSON.stringify({ ...good, id: "" }), /its id is empty/],
    [JSON.stringify({ ...good, seq: 0 }), /'seq' must be/],
    [JSON.stringify({ ...good, seq: 1.5 }), /'seq' must be/],
    [JSON.stringify({ ...good, storedAt: -1 }), /'storedAt' must be/],
    [JSON.stringify({ ...good, ts: "now" }), /'ts' must be/],
    [JSON.stringify({ ...good, payload: undefined }), /'payload' is missing/],
    [JSON.stringify({ ...good, type: 1 }), /'type' must be a string/],
    [JSON.stringify({ ...good, headers: { a: 1 } }), /'headers' must be/],
    [JSON.stringify({ ...good, tags: ["a", 1] }), /'tags' must be/],
    [JSON.stringify({ ...good, topic: "a..b" }), /not a topic: it has an empty segment/],
    [JSON.stringify({ ...good, topic: "$hub.stats" }), /are the hub's own/],
    [JSON.stringify({ ...good, payload: "x".repeat(300_000) }), /the payload has 300002 bytes/],
    [JSON.stringify({ latest: 1 }), /'latest' must be an event/],
    [JSON.stringify({ latest: good }), /must have a 'key'/],
    [JSON.stringify({ latest: { ...good, key: "k", payload: null } }), /no last event/],
    [JSON.stringify({ end: true, events: 1 }), /the last line must hold/]
  ])("%s is refused", (line, reason) => {
    expect(reasonOf(line.slice(0, 400_000))).toMatch(reason)
  })
})

describe("the first line", () => {
  const selection = Result.getOrThrow(Archive.parseSelection({ topic: "a.**", from: "@5" }))
  const header = { history: "h", exportedAt: 1_700_000_000_000, selection }

  it("is understood", () => {
    expect(Archive.historyOf(Archive.headerLine(header))).toBe("h")
    expect(Archive.headerProblem(Archive.headerLine(header))).toBeUndefined()
    expect(JSON.parse(Archive.headerLine(header))).toEqual({
      format: "event-hub/export",
      version: 1,
      history: "h",
      exportedAt: 1_700_000_000_000,
      topic: "a.**",
      from: { time: 5 },
      to: null
    })
  })

  it.each([
    ["", /does not say "format"/],
    ["null", /does not say "format"/],
    ['{"format":"tar"}', /does not say "format"/],
    ['{"format":"event-hub/export"}', /has version none, and this hub reads version 1/],
    ['{"format":"event-hub/export","version":2}', /has version 2, and this hub reads version 1/],
    ['{"format":"event-hub/export","version":"1"}', /has version "1"/]
  ])("%s is not", (line, problem) => {
    expect(Archive.headerProblem(line)).toMatch(problem)
    expect(Archive.historyOf(line)).toBeUndefined()
  })

  it("names the file by the topic and the time", () => {
    expect(Archive.fileName(header)).toBe("events-20231114T221320Z.ndjson")
    const one = Result.getOrThrow(Archive.parseSelection({ topic: 'a.b"/<x' }))
    expect(Archive.fileName({ ...header, selection: one })).toBe("a.b_x-20231114T221320Z.ndjson")
  })
})

describe("a selection", () => {
  const select = (topic: string, from?: string, to?: string) => Archive.parseSelection({ topic, from, to })
  const problemOf = (topic: string, from?: string, to?: string): string =>
    Result.match(select(topic, from, to), { onFailure: ({ message }) => message, onSuccess: () => "fine" })

  it("reads seqs and times", () => {
    expect(Archive.parseBound("120")).toEqual({ seq: 120 })
    expect(Archive.parseBound("@120")).toEqual({ time: 120 })
    expect(Archive.parseBound("2026-01-31")).toEqual({ time: Date.UTC(2026, 0, 31) })
    expect(Archive.parseBound("2026-01-31T12:00:00.5+02:00")).toEqual({
      time: Date.UTC(2026, 0, 31, 10, 0, 0, 500)
    })
    for (const bad of [
      "",
      "-1",
      "1.5",
      "@",
      "@-1",
      "x",
      "2026-13-01",
      "2026-01-31T12:00",
      "1e3",
      "9".repeat(17)
    ]) {
      expect([bad, Archive.parseBound(bad)]).toEqual([bad, undefined])
    }
  })

  it("prints a bound as it is read", () => {
    const bound = fc.oneof(fc.record({ seq: fc.nat() }), fc.record({ time: fc.maxSafeNat() }))
    fc.assert(
      fc.property(bound, (one) => {
        expect(Archive.parseBound(Archive.formatBound(one))).toEqual({ ...one })
      })
    )
  })

  it("takes seqs of one topic only", () => {
    expect(problemOf("a.b", "1", "5")).toBe("fine")
    expect(problemOf("a.*", "@1", "2026-01-31")).toBe("fine")
    expect(problemOf("a.*", "1")).toMatch(/^'from': a seq counts the events of one topic/)
    expect(problemOf("**", undefined, "1")).toMatch(/^'to': a seq/)
    expect(problemOf("a..b")).toMatch(/^'topic': not a pattern/)
    expect(problemOf("a", "soon")).toMatch(/^'from': it is none of: a seq such as 120/)
  })
})

describe("a cursor", () => {
  it("is read as it was written", () => {
    fc.assert(
      fc.property(topic, fc.maxSafeNat(), (name, seq) => {
        const cursor = { topic: name, seq }
        expect(Archive.parseCursor(Archive.formatCursor(cursor))).toEqual(Result.succeed(cursor))
      })
    )
  })

  it.each(["", ":", "a", "1:", ":a", "x:a", "1:a..b", "-1:a"])("%j is none", (text) => {
    expect(Result.isFailure(Archive.parseCursor(text))).toBe(true)
  })

  it("belongs to a selection that has its topic", () => {
    const parse = (pattern: string, text: string) =>
      Archive.parseCursorOf(Result.getOrThrow(Archive.parseSelection({ topic: pattern })), text)
    expect(parse("a.*", "7:a.b")).toEqual(Result.succeed({ topic: "a.b", seq: 7 }))
    for (const text of ["7:b", "7:a.b.c", "7:$dead.g.a", "x"]) {
      expect(Result.getOrThrow(Result.flip(parse("a.*", text))).field).toBe("after")
    }
  })
})

describe("a file", () => {
  const found = { events: 3, latest: 1, topics: 2, sha256: "ab" }

  it("is whole when its last line is there, and right", () => {
    expect(Archive.missingOf(found, found)).toBeUndefined()
    expect(Archive.missingOf(undefined, found)).toMatch(/cut off/)
    expect(Archive.missingOf({ ...found, events: 4 }, found)).toMatch(/counts 4 events, and there are 3/)
    expect(Archive.missingOf({ ...found, latest: 0 }, found)).toMatch(/counts 0 last events of keys/)
    expect(Archive.missingOf({ ...found, topics: 0 }, found)).toMatch(/counts 0 topics/)
    expect(Archive.missingOf({ ...found, sha256: "cd" }, found)).toMatch(/checksum differs/)
  })
})
