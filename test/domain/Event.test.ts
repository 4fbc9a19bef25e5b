/**
 * Events: what is accepted comes back as it was given, whatever is in it, and what breaks a limit is refused
 * with the limit it breaks.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import * as Event from "../../src/domain/Event.ts"
import * as Settings from "../../src/domain/Settings.ts"

const { limits } = Settings
const minimal: Event.NewEvent = { id: "e1", topic: "orders.eu", ts: 1, payload: null }

const accepted = (event: Event.NewEvent): Event.EventRecord =>
  Result.getOrThrow(Event.acceptEvent(event, limits))
const refused = (event: Event.NewEvent): Event.EventError =>
  Result.getOrThrow(Result.flip(Event.acceptEvent(event, limits)))

const stored = (record: Event.EventRecord, seq = 7, storedAt = 1_700_000_000_000): Event.StoredRecord => ({
  ...record,
  seq,
  storedAt
})

const anyText = fc.string({ unit: "binary", maxLength: 20 })
const name = fc.oneof(
  anyText,
  fc.constantFrom("$set", "a.b", "__proto__", 'quote"', "\\", "\u0000", "\u2028")
)
const textWithHalves = fc
  .array(fc.nat({ max: 0xffff }), { maxLength: 8 })
  .map((units) => String.fromCharCode(...units))
/** Without backslashes: V8 13.6 can take the escaped key U+0000 for a backslash that it saw as a key before. */
const fieldName = name.filter((name) => !name.includes("\\"))
const { json } = fc.letrec((tie) => ({
  json: fc.oneof(
    { maxDepth: 3 },
    fc.constantFrom(null, true, false),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    textWithHalves,
    fc.array(tie("json"), { maxLength: 3 }),
    fc.dictionary(fieldName, tie("json"), { maxKeys: 3 })
  )
}))

const event: fc.Arbitrary<Event.NewEvent> = fc.record(
  {
    id: name.filter((id) => id !== ""),
    topic: fc.constantFrom("a", "orders.eu.created", "a.$b"),
    ts: fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true })),
    payload: json,
    type: name,
    key: name,
    headers: fc.dictionary(fieldName, textWithHalves, { maxKeys: 5 }),
    tags: fc.array(textWithHalves, { maxLength: 4 }),
    caused_by: name,
    sid: name
  },
  { requiredKeys: ["id", "topic", "ts", "payload"] }
)

/** What JSON makes of a value, -0 and the like included. */
const asJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

describe("Event", () => {
  it("that is accepted, stored and decoded is the event that was given", () => {
    fc.assert(
      fc.property(event, fc.nat(), fc.nat(), (event, seq, storedAt) => {
        const record = stored(accepted(event), seq, storedAt)
        expect(Event.decode(record)).toEqual({
          ...event,
          ts: asJson(event.ts),
          payload: asJson(event.payload),
          seq,
          storedAt
        })
        expect([record.id, record.topic, record.key]).toEqual([event.id, event.topic, event.key])
      }),
      { numRuns: 1_000 }
    )
  })

  it("is one line of well-formed text, so that it survives UTF-8 and newline-delimited files", () => {
    fc.assert(
      fc.property(event, (event) => {
        const text = Event.toJson(stored(accepted(event)))
        expect(Buffer.from(text, "utf8").toString("utf8")).toBe(text)
        expect(text).not.toMatch(/[\r\n]/)
      })
    )
  })

  it("goes over the wire with seq and storedAt before what the publisher gave", () => {
    const record = accepted({ ...minimal, payload: { n: 1 }, key: "k", tags: ["t"] })
    expect(Event.toJson(stored(record, 3, 5))).toBe(
      '{"seq":3,"storedAt":5,"id":"e1","topic":"orders.eu","ts":1,"key":"k","tags":["t"],"payload":{"n":1}}'
    )
  })

  it("has no other fields in its text than those of an event, and none that it was not given", () => {
    const more = { ...minimal, extra: 1, seq: 9 }
    const record = accepted(more)
    expect(record.body).toBe('{"id":"e1","topic":"orders.eu","ts":1,"payload":null}')
    expect(record.key).toBeUndefined()
  })

  describe("removes its key from latest-by-key", () => {
    it.each([null, { toJSON: () => null }])("when its payload is written as null: %j", (payload) => {
      const record = accepted({ ...minimal, payload })
      expect([record.tombstone, Event.decode(stored(record)).payload]).toEqual([true, null])
    })

    it.each([0, "", false, "null", [], {}, [null]])("and not when it is %j", (payload) => {
      expect(accepted({ ...minimal, payload }).tombstone).toBe(false)
    })
  })

  describe("is refused", () => {
    const cycle: Array<unknown> = []
    cycle.push(cycle)
    let deep: Array<unknown> = []
    for (let depth = 0; depth < 200_000; depth++) deep = [deep]

    const noJson: ReadonlyArray<readonly [what: string, payload: unknown]> = [
      ["undefined", undefined],
      ["a function", () => 1],
      ["a symbol", Symbol("s")],
      ["a big integer", 1n],
      ["a cycle", cycle]
    ]
    it.each(noJson)("when its payload is %s", (_, payload) => {
      expect(refused({ ...minimal, payload }).message).toBe("not an event: its payload is not JSON")
    })

    it.each([NaN, Infinity, [1, -Infinity], { a: [null, { b: JSON.parse("1e999") as unknown }] }])(
      "when its payload holds a number that JSON would make null of: %j",
      (payload) => {
        expect(refused({ ...minimal, payload }).message).toBe(
          "not an event: its payload holds a number beyond the range of a double"
        )
      }
    )

    const nested = (depth: number): unknown =>
      JSON.parse(`${'[{"a":'.repeat(depth / 2)}1${"}]".repeat(depth / 2)}`)

    it.each([nested(limits.maxJsonDepth + 2), nested(20_000), deep])(
      "when its payload is nested too deep",
      (payload) => {
        expect(refused({ ...minimal, payload }).message).toBe(
          `not an event: its payload has more than ${limits.maxJsonDepth} objects and arrays within each other`
        )
      }
    )

    it("and its payload is gone through once, however large it is", () => {
      let reads = 0
      const read = {
        get x() {
          reads++
          return 1
        }
      }
      const rows = Array.from({ length: 1_000 }, (): unknown => read)
      expect(Result.isSuccess(Event.acceptEvent({ ...minimal, payload: rows }, limits))).toBe(true)
      expect(reads).toBe(1_000)
      // A null may be a number that has none.
      expect(Result.isSuccess(Event.acceptEvent({ ...minimal, payload: [...rows, null] }, limits))).toBe(true)
      expect(reads).toBe(3_000)
    })

    it("and not when its payload is as deep as it may be", () => {
      const payload = nested(limits.maxJsonDepth)
      expect(Event.decode(stored(accepted({ ...minimal, payload }))).payload).toEqual(payload)
    })

    const { maxHeaders, maxHeadersLength, maxNameLength, maxTags } = limits
    const long = "a".repeat(maxNameLength)
    const headers = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`h${i}`, ""]))
    type Limit = readonly [
      what: string,
      fine: Partial<Event.NewEvent>,
      tooMuch: Partial<Event.NewEvent>,
      reason: RegExp
    ]
    const exceeded: ReadonlyArray<Limit> = [
      ...(["id", "type", "key", "caused_by", "sid"] as const).map((field): Limit => [
        field,
        { [field]: long },
        { [field]: `${long}a` },
        new RegExp(`its ${field} is longer than 256`)
      ]),
      ["tag", { tags: [long] }, { tags: ["a", `${long}a`] }, /a tag is longer than 256/],
      [
        "number of tags",
        { tags: Array(maxTags).fill("") },
        { tags: Array(maxTags + 1).fill("") },
        /more than 64 tags/
      ],
      [
        "number of headers",
        { headers: headers(maxHeaders) },
        { headers: headers(maxHeaders + 1) },
        /more than 64 headers/
      ],
      [
        "header's name",
        { headers: { [long]: "" } },
        { headers: { [`${long}a`]: "" } },
        /name of a header is longer/
      ],
      [
        "length of all headers",
        { headers: { a: "x".repeat(maxHeadersLength - 2), b: "" } },
        { headers: { a: "x".repeat(maxHeadersLength - 2), b: "y" } },
        /headers have more than 16384 characters/
      ]
    ]
    it.each(exceeded)("when its %s is over the limit, and not before", (_, fine, tooMuch, reason) => {
      expect(Result.isSuccess(Event.acceptEvent({ ...minimal, ...fine }, limits))).toBe(true)
      const error = refused({ ...minimal, ...tooMuch })
      expect(error._tag).toBe("InvalidEvent")
      expect(error.message).toMatch(reason)
    })

    it("when its id is empty or its ts is no finite number", () => {
      expect(refused({ ...minimal, id: "" }).message).toMatch(/its id is empty/)
      for (const ts of [NaN, Infinity, -Infinity]) {
        expect(refused({ ...minimal, ts }).message).toMatch(/its ts is no finite number/)
      }
    })

    it.each(["id", "type", "key", "caused_by", "sid"])(
      "when its %s holds half of a surrogate pair",
      (field) => {
        expect(refused({ ...minimal, [field]: "a\ud800" }).message).toMatch(`its ${field} holds half`)
        expect(Result.isSuccess(Event.acceptEvent({ ...minimal, [field]: "a\u{1f600}" }, limits))).toBe(true)
      }
    )

    it.each(["", "a..b", "a.*", "a b"])("when its topic is %j", (topic) => {
      expect(refused({ ...minimal, topic })._tag).toBe("InvalidTopic")
    })

    it("when its topic is the hub's own, unless the hub itself encodes it", () => {
      const own = { ...minimal, topic: "$dead.g.a" }
      expect(refused(own)).toMatchObject({ _tag: "InvalidTopic", reason: Event.ownTopic })
      expect(Result.isSuccess(Event.encodeEvent(own, limits))).toBe(true)
    })

    it("when its payload has more bytes than allowed, and not before", () => {
      // Characters of one to four bytes in UTF-8, and two that JSON writes as more.
      const run = fc.tuple(fc.constantFrom("a", "é", "€", "\u{1f600}", "\ud800", '"'), fc.nat({ max: 30 }))
      const text = fc
        .array(run, { maxLength: 3 })
        .map((runs) => runs.map(([char, count]) => char.repeat(count)).join(""))
      fc.assert(
        fc.property(text, fc.nat({ max: 120 }), (payload, maxPayloadBytes) => {
          const bytes = Buffer.byteLength(JSON.stringify(payload))
          const result = Event.acceptEvent({ ...minimal, payload }, { ...limits, maxPayloadBytes })
          if (bytes <= maxPayloadBytes) expect(Result.isSuccess(result)).toBe(true)
          else {
            expect(Result.getOrThrow(Result.flip(result))).toMatchObject({
              _tag: "PayloadTooLarge",
              bytes,
              maxBytes: maxPayloadBytes
            })
          }
        }),
        { numRuns: 500 }
      )
    })
  })

  it("counts the bytes of any string as UTF-8 does, half surrogate pairs included", () => {
    fc.assert(
      fc.property(fc.oneof(anyText, textWithHalves), (text) => {
        expect(Event.utf8Length(text)).toBe(Buffer.byteLength(text))
      }),
      { numRuns: 1_000 }
    )
  })

  it("is the same as an Effect", () => {
    for (const event of [minimal, { ...minimal, id: "" }]) {
      expect(Effect.runSync(Effect.result(Event.accept(event, limits)))).toEqual(
        Event.acceptEvent(event, limits)
      )
    }
  })
})

describe("a record that others may have written", () => {
  it("is sound when it was accepted", () => {
    fc.assert(
      fc.property(event, (event) => {
        expect(Event.unsound(accepted(event))).toBeUndefined()
      })
    )
  })

  const sound = accepted({ ...minimal, key: "k", headers: { a: "b" }, tags: ["t"], type: "T" })
  const withBody = (change: Readonly<Record<string, unknown>>): Event.EventRecord => ({
    ...sound,
    body: JSON.stringify({ ...JSON.parse(sound.body), ...change })
  })

  it.each([
    ["an invalid topic", { ...sound, topic: "a..b" }, /topic/],
    ["a topic of the hub's own", { ...sound, topic: "$dead.g.a" }, /hub's own/],
    ["no JSON", { ...sound, body: sound.body.slice(0, -1) }, /no JSON object/],
    ["no object", { ...sound, body: "[]" }, /JSON object/],
    ["a space before it", { ...sound, body: ` ${sound.body}` }, /without spaces/],
    ["several lines", { ...sound, body: sound.body.replace(',"topic"', ',\n"topic"') }, /several lines/],
    ["a seq of its own", withBody({ seq: 9 }), /field 'seq'/],
    ["a last line's field", withBody({ end: true }), /field 'end'/],
    ["a time beyond all", { ...sound, body: sound.body.replace(/"ts":\d+/, '"ts":1e400') }, /no ts/],
    ["two values", { ...sound, body: `${sound.body}{}` }, /no JSON object/],
    ["another id", { ...sound, id: "other" }, /another id/],
    ["no id", { ...withBody({ id: "" }), id: "" }, /another id, or none/],
    ["another topic", withBody({ topic: "orders.us" }), /another topic/],
    ["another key", withBody({ key: "other" }), /another key/],
    ["a key that it does not say", withBody({ key: undefined }), /another key/],
    ["no time", withBody({ ts: "1" }), /no ts/],
    ["no payload", withBody({ payload: undefined }), /no payload/],
    ["a payload that is not null", withBody({ payload: 1 }), /is null, or not/],
    ["a type that is no text", withBody({ type: 1 }), /type/],
    ["headers that are no object", withBody({ headers: ["a"] }), /headers/],
    ["headers that are no texts", withBody({ headers: { a: 1 } }), /headers/],
    ["tags that are no texts", withBody({ tags: [1] }), /tags/]
  ])("is not with %s", (_, record, why) => {
    expect(Event.unsound(record)).toMatch(why)
  })
})
