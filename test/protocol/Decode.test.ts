/**
 * The decoder against a description of the messages as schemas: for frames that are right and for frames that
 * are wrong in one place or more, both accept and refuse the same, and read the same out of them.
 */
import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import { type Decoded, decodeFrame } from "../../src/protocol/Decode.ts"

const limits = { maxMessages: 1_000, maxAckIds: 5 }
const decode = (frame: string): ReadonlyArray<Decoded> => decodeFrame(frame, limits)
const decodeOne = (message: unknown): Decoded | undefined => decode(JSON.stringify(message))[0]

// --- the messages, as PROTOCOL.md has them ---------------------------------------------------------------------

const maybe = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const absent = Schema.optionalKey(Schema.Null)
const whole = (minimum: number) => Schema.Int.check(Schema.isGreaterThanOrEqualTo(minimum))
const Strings = Schema.Array(Schema.String)

const Ref = Schema.Union([Schema.String.check(Schema.isMaxLength(256)), Schema.Finite])
const message = <Op extends string, Fields extends Schema.Struct.Fields>(op: Op, fields: Fields) =>
  Schema.Struct({ op: Schema.Literal(op), ref: maybe(Ref), ...fields })

const From = Schema.Union([
  Schema.Literals(["new", "start"]),
  Schema.Struct({ after: whole(0), time: absent, topics: absent }),
  Schema.Struct({ time: Schema.Finite, after: absent, topics: absent }),
  Schema.Struct({
    topics: Schema.Record(Schema.String, whole(0)),
    rest: maybe(Schema.Literals(["start", "new"])),
    after: absent,
    time: absent
  })
])

const answer = { topic: Schema.String, group: Schema.String, attempt: maybe(whole(1)) }

const Message = Schema.Union([
  message("AUTH", { token: maybe(Schema.String) }),
  message("PUBLISH", {
    topic: Schema.String,
    payload: Schema.Unknown,
    opts: maybe(
      Schema.Struct({
        id: maybe(Schema.String),
        type: maybe(Schema.String),
        key: maybe(Schema.String),
        headers: maybe(Schema.Record(Schema.String, Schema.String)),
        tags: maybe(Strings),
        caused_by: maybe(Schema.String),
        sid: maybe(Schema.String),
        ts: maybe(Schema.Finite)
      })
    )
  }),
  message("SUBSCRIBE", {
    topic: Schema.String,
    group: maybe(Schema.String),
    opts: maybe(
      Schema.Struct({
        from: maybe(From),
        history: maybe(Schema.String),
        overflow: maybe(Schema.Literals(["catchup", "close"])),
        credit: maybe(whole(1)),
        ackTimeoutMs: maybe(whole(1)),
        maxAttempts: maybe(whole(1)),
        keyOrdered: maybe(Schema.Boolean)
      })
    )
  }),
  message("UNSUBSCRIBE", { topic: Schema.String, group: maybe(Schema.String) }),
  message("ACK", { ...answer, ids: Strings.check(Schema.isMaxLength(limits.maxAckIds)), id: absent }),
  message("ACK", { ...answer, id: Schema.String, ids: absent }),
  message("NACK", {
    ...answer,
    id: Schema.String,
    reason: maybe(Schema.String),
    mode: maybe(Schema.Literals(["fail", "release", "poison"])),
    delayMs: maybe(whole(0))
  }),
  message("EXTEND", { ...answer, id: Schema.String, byMs: maybe(whole(1)) }),
  message("PING", {})
])

const describes = Schema.decodeUnknownResult(Message)
const isRef = Schema.is(Ref)
const isObject = Schema.is(Schema.Record(Schema.String, Schema.Unknown))

/** Without the fields that are null, which is as good as not there; a payload may be null. */
const present = (fields: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).filter(([name, value]) => value !== null || name === "payload"))

/** What the decoder should make of a message that the schemas accept. */
const expected = (read: typeof Message.Type): Record<string, unknown> => {
  const { opts, ...fields } = present(read)
  if (isObject(opts)) {
    const given = present(opts)
    fields["opts"] = isObject(given["from"]) ? { ...given, from: present(given["from"]) } : given
  }
  if (read.op === "AUTH") return { ...fields, token: read.token ?? "" }
  if (read.op === "ACK") {
    const { id, ...rest } = fields
    return { ...rest, ids: read.ids ?? [id] }
  }
  return fields
}

const agree = (value: unknown): boolean => {
  const decoded = decodeOne(value)
  const read = describes(JSON.parse(JSON.stringify(value)))
  if (Result.isSuccess(read)) {
    expect(decoded).toEqual(expected(read.success))
  } else {
    const ref = isObject(value) && isRef(value["ref"]) ? { ref: value["ref"] } : {}
    expect(decoded).toEqual({ op: "MALFORMED", ...ref, msg: expect.any(String) })
  }
  return Result.isSuccess(read)
}

// --- messages, right and wrong ---------------------------------------------------------------------------------

const text = fc.oneof(fc.constantFrom("a", "orders.*", ""), fc.string({ maxLength: 5 }))
const texts = fc.array(text, { maxLength: 6 })
const count = fc.oneof(fc.nat({ max: 3 }), fc.nat())
const optional = <A>(value: fc.Arbitrary<A>) => fc.option(value, { freq: 8 })

const from = fc.oneof(
  fc.constantFrom("new", "start"),
  fc.record({ after: count }),
  fc.record({ time: fc.double({ noNaN: true, noDefaultInfinity: true }) }),
  fc.record(
    {
      topics: fc.dictionary(fc.constantFrom("a", "b.c", "__proto__"), count),
      rest: optional(fc.constantFrom("start", "new"))
    },
    { requiredKeys: ["topics"] }
  )
)
const opts = fc.record(
  {
    id: optional(text),
    type: optional(text),
    key: optional(text),
    headers: optional(fc.dictionary(fc.constantFrom("a", "b", "__proto__", "toString"), text)),
    tags: optional(texts),
    caused_by: optional(text),
    sid: optional(text),
    ts: optional(fc.oneof(fc.integer(), fc.constant(1.5))),
    from: optional(from),
    history: optional(text),
    overflow: optional(fc.constantFrom("catchup", "close")),
    credit: optional(count),
    ackTimeoutMs: optional(count),
    maxAttempts: optional(count),
    keyOrdered: optional(fc.boolean()),
    unknown: fc.constantFrom(1, null, [])
  },
  { requiredKeys: [] }
)
const payload = fc.constantFrom<unknown>(null, 0, "", "text", false, [], {}, [null], { payload: null })
/** Every message may hold any field: those of another `op` are unknown to it. */
const fields = {
  op: fc.constantFrom("AUTH", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "EXTEND", "PING"),
  ref: optional(fc.oneof(text, fc.integer(), fc.constant(0.5))),
  token: optional(text),
  topic: text,
  group: text,
  id: text,
  ids: optional(texts),
  payload,
  opts: optional(opts),
  attempt: optional(count),
  reason: optional(text),
  mode: optional(fc.constantFrom("fail", "release", "poison")),
  delayMs: optional(count),
  byMs: optional(count),
  unknown: payload
}
const messages = fc.record(fields, { requiredKeys: ["op", "topic", "group", "payload"] })

const wrong = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    0,
    -1,
    1.5,
    2 ** 53,
    "",
    "x",
    [],
    [7],
    ["a"],
    {},
    { a: 1 },
    { a: null }
  ),
  fc.constantFrom<unknown>("a".repeat(256), "a".repeat(257), Array(5).fill("a"), Array(6).fill("a")),
  fc.constantFrom<unknown>(
    { after: 1, time: 2 },
    { time: "1", topics: {} },
    { after: null, time: 2 },
    { rest: "new" }
  )
)

interface Change {
  readonly path: ReadonlyArray<string>
  /** `undefined` takes the field away. */
  readonly value: unknown
}
const change: fc.Arbitrary<Change> = fc.record({
  path: fc.oneof(
    fc.constantFrom(...Object.keys(fields)).map((name) => [name]),
    fc
      .constantFrom(
        "from",
        "headers",
        "tags",
        "ts",
        "history",
        "overflow",
        "credit",
        "keyOrdered",
        "id",
        "maxAttempts"
      )
      .map((name) => ["opts", name]),
    fc.constantFrom("after", "time", "topics", "rest").map((name) => ["opts", "from", name])
  ),
  value: fc.oneof(wrong, fc.constant(undefined))
})

const changed = (target: unknown, { path, value }: Change): unknown => {
  const [name, ...rest] = path
  if (name === undefined) return value
  const before = isObject(target) ? target : {}
  return { ...before, [name]: changed(before[name], { path: rest, value }) }
}

describe("decodeFrame", () => {
  it("accepts, refuses and reads messages as the schemas do", () => {
    let accepted = 0
    fc.assert(
      fc.property(messages, (message) => {
        if (agree(message)) accepted++
      }),
      { numRuns: 2_000 }
    )
    expect(accepted).toBeGreaterThan(500)
  })

  it("agrees with the schemas about messages that are wrong in up to three places", () => {
    let refused = 0
    fc.assert(
      fc.property(messages, fc.array(change, { minLength: 1, maxLength: 3 }), (message, changes) => {
        if (!agree(changes.reduce<unknown>(changed, message))) refused++
      }),
      { numRuns: 4_000 }
    )
    expect(refused).toBeGreaterThan(500)
  })

  it("agrees with the schemas about every single field replaced by every wrong value", () => {
    const valid = {
      AUTH: { token: "t" },
      PUBLISH: { topic: "a", payload: 1, opts: { id: "1", headers: { a: "b" }, tags: ["t"], ts: 1 } },
      SUBSCRIBE: {
        topic: "a",
        group: "g",
        opts: { from: { after: 1 }, history: "h", credit: 1, keyOrdered: true }
      },
      UNSUBSCRIBE: { topic: "a", group: "g" },
      ACK: { topic: "a", group: "g", id: "1", attempt: 1 },
      NACK: { topic: "a", group: "g", id: "1", attempt: 1, mode: "fail", delayMs: 0, reason: "r" },
      EXTEND: { topic: "a", group: "g", id: "1", byMs: 1 },
      PING: {}
    }
    fc.assert(
      fc.property(fc.constantFrom(...Object.entries(valid)), change, ([op, fields], change) => {
        expect(agree({ op, ref: 1, ...fields })).toBe(true)
        agree(changed({ op, ref: 1, ...fields }, change))
      }),
      { numRuns: 4_000 }
    )
  })

  it("refuses JSON that is no message, and never fails", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        for (const decoded of decode(JSON.stringify(value))) expect(decoded.op).toBe("MALFORMED")
      })
    )
  })

  it.each(["", "{", "PING", "{'op':'PING'}", '{"op":"PING"}{"op":"PING"}', "\ufeff{}", "\u0000"])(
    "refuses the frame %j as a whole: it is not JSON",
    (frame) => {
      expect(decode(frame)).toEqual([{ op: "MALFORMED", msg: "the frame is not JSON" }])
    }
  )

  describe("an array", () => {
    it("is its messages in their order, and a bad one fails alone", () => {
      fc.assert(
        fc.property(fc.array(fc.oneof(messages, wrong), { maxLength: 8 }), (items) => {
          expect(decode(JSON.stringify(items))).toEqual(items.map((item) => decodeOne([item])))
        })
      )
      expect(decode('[{"op":"PING","ref":1},{"op":"PONG","ref":2},{"op":"PING","ref":3}]')).toEqual([
        { op: "PING", ref: 1 },
        { op: "MALFORMED", ref: 2, msg: "unknown 'op'" },
        { op: "PING", ref: 3 }
      ])
    })

    it("holds up to 1,000 messages; a longer one is one bad message", () => {
      const pings = (count: number) => `[${Array(count).fill('{"op":"PING"}').join(",")}]`
      expect(decode(pings(1_000))).toHaveLength(1_000)
      expect(decode(pings(1_000)).every(({ op }) => op === "PING")).toBe(true)
      expect(decode(pings(1_001))).toEqual([{ op: "MALFORMED", msg: "a frame holds at most 1000 messages" }])
    })

    it("may be empty, and says nothing then", () => {
      expect(decode("[]")).toEqual([])
    })

    it("in an array is a bad message, and what is in it is not looked at", () => {
      const malformed = { op: "MALFORMED", msg: "a message is an object" }
      expect(decode('[[{"op":"PING"}],{"op":"PING"},[]]')).toEqual([malformed, { op: "PING" }, malformed])
    })

    it("that is nested without end neither fails nor is followed", () => {
      const depth = 100_000
      const nested = decode("[".repeat(depth) + "]".repeat(depth))
      expect(nested.map(({ op }) => op)).toEqual(["MALFORMED"])
    })
  })

  describe("a ref", () => {
    it.each([0, -1, 0.5, 2 ** 53, "", "r", "r".repeat(256)])(
      "of %j is given back, with good messages and bad",
      (ref) => {
        expect(decodeOne({ op: "PING", ref })).toEqual({ op: "PING", ref })
        expect(decodeOne({ op: "PUBLISH", ref })).toEqual({ op: "MALFORMED", ref, msg: "'topic' is missing" })
      }
    )

    it.each(["true", "[]", "{}", `"${"r".repeat(257)}"`, "1e999", "-1e999"])(
      "of %s is refused, since it could not be given back",
      (ref) => {
        const msg = "'ref' must be a number or a string of at most 256 characters"
        expect(decode(`{"op":"PING","ref":${ref}}`)).toEqual([{ op: "MALFORMED", msg }])
      }
    )
  })

  describe("a message", () => {
    it("may hold fields that nobody knows, and the decoded one has none of them", () => {
      expect(decodeOne({ op: "PING", topic: 7, opts: "?", seq: 1 })).toEqual({ op: "PING" })
      expect(decodeOne({ op: "UNSUBSCRIBE", topic: "a", opts: 7, id: [] })).toEqual({
        op: "UNSUBSCRIBE",
        topic: "a"
      })
      expect(
        decodeOne({ op: "SUBSCRIBE", topic: "a", opts: { from: { after: 3, rest: 7 }, ts: "?" } })
      ).toEqual({
        op: "SUBSCRIBE",
        topic: "a",
        opts: { from: { after: 3 } }
      })
    })

    it("that lacks an optional field, or has null in it, has no such field", () => {
      const decoded = decodeOne({
        op: "NACK",
        topic: "a",
        group: "g",
        id: "1",
        mode: null,
        reason: null,
        ref: null
      })
      expect(decoded).toStrictEqual({ op: "NACK", topic: "a", group: "g", id: "1" })
    })

    it("of AUTH without a token has an empty one: what follows from that is not the decoder's", () => {
      expect(decodeOne({ op: "AUTH" })).toEqual({ op: "AUTH", token: "" })
    })

    it("takes field names that JavaScript knows as plain names", () => {
      const frame =
        '{"op":"PUBLISH","topic":"a","payload":1,"__proto__":{"ref":1},"opts":{"headers":{"__proto__":"x","toString":"y"}}}'
      const [decoded] = decode(frame)
      expect(JSON.stringify(decoded)).toBe(
        '{"op":"PUBLISH","topic":"a","payload":1,"opts":{"headers":{"__proto__":"x","toString":"y"}}}'
      )
    })

    it("takes its payload as it is, null included, but wants one", () => {
      expect(decodeOne({ op: "PUBLISH", topic: "a", payload: null })).toEqual({
        op: "PUBLISH",
        topic: "a",
        payload: null
      })
      expect(decodeOne({ op: "PUBLISH", topic: "a", ref: 1 })).toMatchObject({ op: "MALFORMED", ref: 1 })
    })

    it("leaves the grammar of topics and patterns to those who have an error code for it", () => {
      expect(decodeOne({ op: "SUBSCRIBE", topic: "a..*b" })).toEqual({ op: "SUBSCRIBE", topic: "a..*b" })
    })

    const answer = { op: "ACK", topic: "a", group: "g" }
    const from = (from: unknown) => ({ op: "SUBSCRIBE", topic: "a", opts: { from } })
    const bad: ReadonlyArray<readonly [what: string, message: object, msg: RegExp]> = [
      ["with an unknown op", { op: "PUB" }, /unknown 'op'/],
      ["with an op in small letters", { op: "ping" }, /unknown 'op'/],
      ["without an op", {}, /unknown 'op'/],
      ["with an op of the prototype", { op: "toString" }, /unknown 'op'/],
      ["that acknowledges nothing", answer, /'id' is missing/],
      ["that acknowledges by id and by ids", { ...answer, id: "1", ids: ["2"] }, /not both/],
      ["that acknowledges too many", { ...answer, ids: Array(6).fill("1") }, /at most 5 ids/],
      [
        "with an attempt of 0",
        { ...answer, id: "1", attempt: 0 },
        /'attempt' must be a whole number of at least 1/
      ],
      [
        "with a mode nobody knows",
        { ...answer, op: "NACK", id: "1", mode: "drop" },
        /"fail", "release", "poison"/
      ],
      [
        "with a negative delay",
        { ...answer, op: "NACK", id: "1", delayMs: -1 },
        /'delayMs' must be a whole number/
      ],
      ["with options that are a list", { op: "SUBSCRIBE", topic: "a", opts: [] }, /'opts' must be an object/],
      ["that begins before the start", from({ after: -1 }), /'after' must be a whole number of at least 0/],
      ["that begins at two places", from({ after: 1, topics: {} }), /'from' must be/],
      ["that begins nowhere", from({}), /'from' must be/],
      ["that begins at an unknown word", from("end"), /'from' must be/],
      ["with a position that is null", from({ topics: { a: null } }), /'topics' must hold numbers/],
      [
        "with a header that is no string",
        { op: "PUBLISH", topic: "a", payload: 1, opts: { headers: { a: 1 } } },
        /'headers'/
      ]
    ]
    it.each(bad)("%s is refused, and told why", (_, message, msg) => {
      expect(decodeOne(message)).toEqual({ op: "MALFORMED", msg: expect.stringMatching(msg) })
    })

    it("with a time that is too large to be a number is refused", () => {
      const [decoded] = decode('{"op":"PUBLISH","topic":"a","payload":1,"opts":{"ts":1e999}}')
      expect(decoded).toEqual({ op: "MALFORMED", msg: "'ts' must be a number" })
    })
  })
})
