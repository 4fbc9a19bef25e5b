/**
 * Topics and patterns: what is one, and that `matches`, `covers` and `overlaps` say what the definition says.
 * The oracle is a matcher that follows the definition word by word, and every topic up to some length.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as fc from "fast-check"
import * as DeadLetter from "../../src/domain/DeadLetter.ts"
import * as Topic from "../../src/domain/Topic.ts"
import { matchesSegments } from "../../src/protocol/Segments.ts"
import { casesOf } from "./cases.ts"

type Segments = ReadonlyArray<string>

/** By the definition, with a tail for every choice of `**`. Exponential, so for short patterns only. */
const fits = (pattern: Segments, topic: Segments): boolean => {
  const [first, ...rest] = pattern
  if (first === undefined) return topic.length === 0
  if (first === "**") return topic.some((_, i) => fits(rest, topic.slice(i))) || fits(rest, [])
  return topic.length > 0 && (first === "*" || first === topic[0]) && fits(rest, topic.slice(1))
}

const fitsTopic = (pattern: Segments, topic: Segments): boolean =>
  !(topic[0]!.startsWith("$") && pattern[0]!.startsWith("*")) && fits(pattern, topic)

/** Every sequence of 1 to `length` of the words. */
const sequences = (words: Segments, length: number): ReadonlyArray<Segments> => {
  const exact = (n: number): ReadonlyArray<Segments> =>
    n === 0 ? [[]] : exact(n - 1).flatMap((start) => words.map((word) => [...start, word]))
  return Array.from({ length }, (_, i) => exact(i + 1)).flat()
}

/** A subset as the bits of a number. */
const bits = <A>(values: ReadonlyArray<A>, isIn: (value: A) => boolean): bigint =>
  BigInt(`0b${values.map((value) => (isIn(value) ? "1" : "0")).join("")}`)

const topicsOf = (pattern: Segments, topics: ReadonlyArray<Segments>): bigint =>
  bits(topics, (topic) => fitsTopic(pattern, topic))

const parsedTopic = (segments: Segments) => Result.getOrThrow(Topic.parseTopic(segments.join(".")))
const parsedPattern = (segments: Segments) => Result.getOrThrow(Topic.parsePattern(segments.join(".")))

const repeat = (word: string, times: number): string => Array<string>(times).fill(word).join(".")

describe("Topic", () => {
  describe("the given cases", () => {
    const relations = { covers: Topic.covers, overlaps: Topic.overlaps }
    const Pair = { a: Schema.String, b: Schema.String, expected: Schema.Boolean }

    it("of matching hold", () => {
      const cases = casesOf(
        "topic-matches",
        Schema.Struct({ pattern: Schema.String, topic: Schema.String, match: Schema.Boolean })
      )
      expect(cases.length).toBeGreaterThan(200)
      expect(cases.filter(({ match, pattern, topic }) => Topic.matches(pattern, topic) !== match)).toEqual([])
    })

    it("of relations between patterns hold, and overlap holds both ways round", () => {
      const relation = Schema.Literals(["covers", "overlaps"])
      const cases = casesOf("pattern-relations", Schema.Struct({ relation, ...Pair }))
      expect(cases.length).toBeGreaterThan(30)
      expect(cases.filter(({ a, b, expected, relation }) => relations[relation](a, b) !== expected)).toEqual(
        []
      )
      expect(
        cases.filter(
          ({ a, b, expected, relation }) => relation === "overlaps" && Topic.overlaps(b, a) !== expected
        )
      ).toEqual([])
    })

    it("of validity hold", () => {
      const kind = Schema.Literals(["topic", "pattern"])
      const cases = casesOf("validity", Schema.Struct({ kind, value: Schema.String, valid: Schema.Boolean }))
      expect(cases.length).toBeGreaterThan(10)
      const isValid = {
        topic: (name: string) => Result.isSuccess(Topic.parseTopic(name)),
        pattern: (name: string) => Result.isSuccess(Topic.parsePattern(name))
      }
      expect(cases.filter(({ kind, valid, value }) => isValid[kind](value) !== valid)).toEqual([])
    })
  })

  describe("parsing", () => {
    const segment = String.raw`((?![.*])[\x21-\x7e]){1,64}`
    const topicForm = new RegExp(`^(?!\\$)${segment}(\\.${segment}){0,31}$`)
    const patternForm = new RegExp(`^(?!\\$)(${segment}|\\*\\*?)(\\.(${segment}|\\*\\*?)){0,31}$`)

    const word = fc.oneof(
      fc.constantFrom("a", "*", "**", "***", "a*", "", " ", "é", "a".repeat(64), "a".repeat(65)),
      fc.string({ maxLength: 4 }),
      fc.string({ unit: "binary", maxLength: 2 })
    )
    const name = fc
      .array(
        fc.oneof(
          { weight: 6, arbitrary: fc.constantFrom("a", "b7", "*", "**") },
          { weight: 1, arbitrary: word }
        ),
        {
          maxLength: 34
        }
      )
      .map((words) => words.join("."))

    it("accepts exactly what the grammar says", () => {
      fc.assert(
        fc.property(name, (name) => {
          fc.pre(!name.startsWith("$"))
          const fitsIn = name.length <= 512
          expect(Result.isSuccess(Topic.parseTopic(name))).toBe(fitsIn && topicForm.test(name))
          expect(Result.isSuccess(Topic.parsePattern(name))).toBe(fitsIn && patternForm.test(name))
        }),
        { numRuns: 1_000 }
      )
    })

    it("allows printable ASCII without space, '.' and '*' in a segment, and no other character", () => {
      const allowed = Array.from({ length: 0x300 }, (_, code) => String.fromCharCode(code)).filter((char) =>
        Topic.isSegment(`a${char}b`)
      )
      const printable = Array.from({ length: 0x7f - 0x21 }, (_, i) => String.fromCharCode(0x21 + i))
      expect(allowed).toEqual(printable.filter((char) => char !== "." && char !== "*"))
      expect(Topic.isSegment("a\u{1f600}b")).toBe(false)
    })

    it("splits at the dots, and keeps the name as it was written", () => {
      expect(Topic.parseTopic("orders.eu.created")).toEqual(
        Result.succeed({ _tag: "Topic", name: "orders.eu.created", segments: ["orders", "eu", "created"] })
      )
      expect(Topic.parsePattern("a.**.**.*.**.b")).toEqual(
        Result.succeed({
          _tag: "Pattern",
          name: "a.**.**.*.**.b",
          segments: ["a", "**", "*", "**", "b"],
          concrete: false
        })
      )
      expect(parsedPattern(["a", "b"]).concrete).toBe(true)
    })

    const limits: ReadonlyArray<readonly [what: string, fine: string, tooMuch: string, reason: RegExp]> = [
      ["32 segments", repeat("a", 32), repeat("a", 33), /more than 32 segments/],
      ["64 characters in a segment", "a".repeat(64), "a".repeat(65), /more than 64 characters/],
      [
        "512 bytes",
        repeat("a".repeat(63), 8) + "b",
        repeat("a".repeat(63), 8) + "b.c",
        /longer than 512 bytes/
      ]
    ]
    it.each(limits)("allows %s and no more", (_, fine, tooMuch, reason) => {
      for (const parse of [Topic.parseTopic, Topic.parsePattern]) {
        expect(Result.isSuccess<unknown, unknown>(parse(fine))).toBe(true)
        expect(Result.getOrThrow(Result.flip<unknown, Error>(parse(tooMuch))).message).toMatch(reason)
      }
    })

    const failures: ReadonlyArray<readonly [name: string, reason: RegExp]> = [
      ["", /it is empty/],
      [".", /empty segment/],
      ["a..b", /empty segment/],
      [".a", /empty segment/],
      ["a.", /empty segment/],
      ["a b", /printable ASCII/],
      ["a.é", /printable ASCII/],
      ["a.b\n", /printable ASCII/]
    ]
    it.each(failures)("says what is wrong with %j", (name, reason) => {
      expect(Result.getOrThrow(Result.flip(Topic.parseTopic(name))).message).toMatch(reason)
      expect(Result.getOrThrow(Result.flip(Topic.parsePattern(name))).message).toMatch(reason)
    })

    it.each(["a*", "*a", "***", "a.b**", "a.*b.c", "*.*x*"])(
      "refuses %j: '*' is a whole segment or none",
      (name) => {
        expect(Result.getOrThrow(Result.flip(Topic.parsePattern(name))).message).toMatch(
          /only as a whole segment/
        )
      }
    )

    it.each(["*", "**", "a.*", "a*"])("refuses %j as a topic", (name) => {
      expect(Result.getOrThrow(Result.flip(Topic.parseTopic(name))).message).toMatch(/holds no '\*'/)
    })

    it("cuts a long name in its error, which goes to logs and back to the sender", () => {
      const error = Result.getOrThrow(Result.flip(Topic.parseTopic("a".repeat(100_000))))
      expect(error.topic).toHaveLength(129)
      expect(error.message.length).toBeLessThan(200)
    })

    it("lets the hub's own topics be longer by what a dead letter adds, and no more", () => {
      const longest = repeat("a".repeat(63), 8) + "b"
      const group = "g".repeat(64)
      expect(Result.isSuccess(Topic.parseTopic(DeadLetter.deadLetterTopic(group, longest)))).toBe(true)
      expect(Result.isSuccess(Topic.parseTopic(DeadLetter.deadLetterTopic(group, repeat("a", 32))))).toBe(
        true
      )
      expect(Result.isSuccess(Topic.parseTopic(`$dead.${group}.${longest}c`))).toBe(false)
      expect(Result.isSuccess(Topic.parseTopic(`$dead.${group}.${repeat("a", 33)}`))).toBe(false)
      expect(Result.isSuccess(Topic.parseTopic(`$${"a".repeat(64)}`))).toBe(false)
    })

    it("calls a name the hub's own only when its first segment begins with '$'", () => {
      expect(["$a", "$", "$a.b", "a.$b", "a$", ""].filter(Topic.isOwn)).toEqual(["$a", "$", "$a.b"])
    })

    it("takes for one segment what is a topic without a dot", () => {
      fc.assert(
        fc.property(word, (name) => {
          expect(Topic.isSegment(name)).toBe(!name.includes(".") && Result.isSuccess(Topic.parseTopic(name)))
        })
      )
      expect(Topic.isSegment("a.b")).toBe(false)
    })

    it.each(["a.b", "a.*", "a.b*", ""])("answers the same for %j as an Effect", (name) => {
      expect(Effect.runSync(Effect.result(Topic.topic(name)))).toEqual(Topic.parseTopic(name))
      expect(Effect.runSync(Effect.result(Topic.pattern(name)))).toEqual(Topic.parsePattern(name))
    })
  })

  describe("relations", () => {
    // `z` stands in no pattern; `$` is tried in first position and elsewhere.
    const topics = sequences(["a", "b", "$s", "z"], 5)
    const patterns = sequences(["a", "b", "$s", "*", "**"], 3).map((segments) => ({
      name: segments.join("."),
      segments,
      pattern: parsedPattern(segments),
      topics: topicsOf(segments, topics)
    }))

    it("matches agrees with the definition for every pattern of up to 3 segments", () => {
      const parsed = topics.map(parsedTopic)
      const wrong = patterns.filter(
        ({ pattern, topics: expected }) => bits(parsed, (topic) => Topic.matches(pattern, topic)) !== expected
      )
      expect(wrong.map(({ name }) => name)).toEqual([])
    })

    it("covers and overlaps agree with the topics that two patterns of up to 3 segments match", () => {
      const wrong = patterns.flatMap((a) =>
        patterns.flatMap((b) => [
          ...(Topic.covers(a.pattern, b.pattern) === ((b.topics & ~a.topics) === 0n)
            ? []
            : [`${a.name} > ${b.name}`]),
          ...(Topic.overlaps(a.pattern, b.pattern) === ((a.topics & b.topics) !== 0n)
            ? []
            : [`${a.name} & ${b.name}`])
        ])
      )
      expect(wrong).toEqual([])
    })

    const segments = (...words: ReadonlyArray<string>) =>
      fc.array(fc.constantFrom(...words), { minLength: 1, maxLength: 7 })

    it("matches agrees with the definition for longer patterns and topics", () => {
      fc.assert(
        fc.property(segments("a", "b", "*", "**", "**"), segments("a", "a", "b", "$s"), (pattern, topic) => {
          expect(Topic.matches(pattern.join("."), topic.join("."))).toBe(fitsTopic(pattern, topic))
        }),
        { numRuns: 2_000 }
      )
    })

    it("covers and overlaps agree with enumeration for longer patterns", () => {
      const longer = sequences(["a", "z"], 8)
      const pattern = fc.array(fc.constantFrom("a", "*", "**"), { minLength: 3, maxLength: 5 })
      fc.assert(
        fc.property(pattern, pattern, (a, b) => {
          const [inA, inB] = [topicsOf(a, longer), topicsOf(b, longer)]
          expect(Topic.covers(a.join("."), b.join("."))).toBe((inB & ~inA) === 0n)
          expect(Topic.overlaps(a.join("."), b.join("."))).toBe((inA & inB) !== 0n)
        }),
        { numRuns: 150 }
      )
    })

    /** Whether some topic of `b` is none of `a`: every set of places in `a` that a topic of `b` may lead to is looked at. */
    const coversBySets = (a: Segments, b: Segments): boolean => {
      const closed = (places: ReadonlyArray<number>): ReadonlyArray<number> => {
        const all = new Set(places)
        for (const place of all) if (a[place] === "**") all.add(place + 1)
        return [...all].sort((x, y) => x - y)
      }
      const after = (places: ReadonlyArray<number>, word: string, first: boolean) => {
        // No wildcard takes what is the hub's own, and none is passed over before it.
        if (first && word.startsWith("$")) return a[0] === word ? closed([1]) : []
        return closed(
          places.flatMap((place) => {
            const there = a[place]
            return there === "**" ? [place] : there === word || there === "*" ? [place + 1] : []
          })
        )
      }
      const seen = new Set<string>()
      const isCovered = (at: number, places: ReadonlyArray<number>, empty: boolean): boolean => {
        const key = `${at} ${places.join()} ${empty}`
        if (seen.has(key)) return true
        seen.add(key)
        const segment = b[at]
        // No pattern has `z`, so it is the hardest that may stand for a wildcard.
        if (segment === undefined) return empty || places.includes(a.length)
        if (segment === "**") {
          return isCovered(at + 1, places, empty) && isCovered(at, after(places, "z", empty), false)
        }
        if (segment === "*") return isCovered(at + 1, after(places, "z", empty), false)
        // A topic that begins with it begins as written, or not at all.
        if (empty && at > 0 && segment.startsWith("$")) return true
        return isCovered(at + 1, after(places, segment, empty), false)
      }
      return isCovered(0, closed([0]), true)
    }

    it("covers agrees with following every set of places, for longer patterns", () => {
      const pattern = fc.array(fc.constantFrom("a", "b", "*", "**", "a", "**", "$s"), {
        minLength: 1,
        maxLength: 9
      })
      /** What is more general than a pattern covers it more often than any other does. */
      const pair = pattern.chain((b) =>
        fc.tuple(
          fc.oneof(
            pattern,
            fc
              .tuple(
                ...b.map((word) =>
                  fc.constantFrom([word], [word], ["*"], ["**"], ["*", "**"], ["**", "a", "**"])
                )
              )
              .map((words) => words.flat())
          ),
          fc.constant(b)
        )
      )
      let covered = 0
      fc.assert(
        fc.property(pair, ([a, b]) => {
          const expected = coversBySets(a, b)
          if (expected) covered++
          expect(Topic.covers(a.join("."), b.join("."))).toBe(expected)
        }),
        { numRuns: 3_000 }
      )
      expect(covered).toBeGreaterThan(300)
    })

    it("a wildcard in first position matches no topic of the hub's own, '**' for nothing included", () => {
      expect(Topic.matches("**", "$dead.g.a")).toBe(false)
      expect(Topic.matches("*.g", "$dead.g")).toBe(false)
      expect(Topic.matches("**.$dead", "$dead")).toBe(false)
      expect(Topic.matches("**.$dead", "a.$dead")).toBe(true)
      expect(Topic.matches("$dead.**", "$dead.g.a")).toBe(true)
      expect(Topic.covers("**", "$dead.*")).toBe(false)
      expect(Topic.covers("$dead.**", "$dead.*")).toBe(true)
      expect(Topic.covers("*.**", "**.$dead")).toBe(true)
      expect(Topic.overlaps("**", "$dead.*")).toBe(false)
      expect(Topic.overlaps("**", "a.$dead")).toBe(true)
    })

    it("a string that is not valid is in no relation with anything, itself included", () => {
      for (const invalid of ["", "a..b", "a*", repeat("a", 33)]) {
        expect(Topic.matches(invalid, invalid)).toBe(false)
        expect(Topic.matches("**", invalid)).toBe(false)
        for (const relation of [Topic.covers, Topic.overlaps]) {
          expect([relation(invalid, invalid), relation("**", invalid), relation(invalid, "**")]).toEqual([
            false,
            false,
            false
          ])
        }
      }
      expect(Topic.matches("a.*", "a.*")).toBe(false)
    })
  })

  describe("under attack", () => {
    const many = repeat("**.a", 16)

    it("matches ends where backtracking over every '**' would not", () => {
      expect(Topic.matches(`${repeat("**.a", 15)}.b`, repeat("a", 32))).toBe(false)
      expect(Topic.matches(many, repeat("a", 32))).toBe(true)
      expect(Topic.matches(repeat("*.**", 16), repeat("a", 15))).toBe(false)
      expect(Topic.matches(repeat("**", 32), repeat("a", 32))).toBe(true)
    })

    it("overlaps ends, too", () => {
      expect(Topic.overlaps(many, `${repeat("a.**", 15)}.b`)).toBe(false)
      expect(Topic.overlaps(many, repeat("*.**", 16))).toBe(true)
    })

    it("covers is exact where following every way the letters may lie would take too long", () => {
      const followed = (stars: number) => `**.a.${repeat("*", stars)}.**`
      const wide = `${repeat("a.**", 15)}.a`
      expect(Topic.covers(followed(12), wide)).toBe(true)
      expect(Topic.covers(followed(15), wide)).toBe(true)
      expect(Topic.covers(followed(16), wide)).toBe(false)
      expect(Topic.covers(many, many)).toBe(true)
      expect(Topic.covers(followed(28), many)).toBe(false)
    })

    /** What makes other arrays of the segments, whose reads nobody would count. */
    const copying = new Set<string | symbol>([
      Symbol.iterator,
      ...["slice", "filter", "map", "flatMap", "concat", "toSpliced", "toReversed", "toSorted", "with"]
    ])

    /** Counts what is read of the segments: no step of a relation goes without. */
    const counted = () => {
      let reads = 0
      const watch = (segments: Segments): Segments =>
        new Proxy(segments, {
          get: (target, property, receiver) => {
            if (copying.has(property)) throw new Error(`${String(property)} makes a copy that is not watched`)
            if (typeof property === "string" && /^\d+$/.test(property)) reads++
            return Reflect.get(target, property, receiver) as unknown
          }
        })
      return { watch, reads: () => reads }
    }

    const adversarial = [
      repeat("**", 32),
      many,
      `${repeat("**.a", 15)}.b`,
      `${repeat("a.**", 15)}.b`,
      repeat("*.**", 16),
      repeat("**.*", 16),
      `**.${repeat("a", 15)}.b`,
      `**.${repeat("a", 15)}.b.**.${repeat("a", 13)}.c`,
      `a.${repeat("**.a.a.*", 7)}.**.b`,
      `**.${repeat("a.*", 15)}.b`,
      repeat("a", 32),
      repeat("*", 32),
      `${repeat("a", 15)}.**.${repeat("a", 15)}`
    ]
    const attacks = adversarial.flatMap((pattern) => adversarial.map((other) => [pattern, other] as const))

    it("matches takes steps linear in the product of the lengths", () => {
      for (const [pattern, other] of attacks) {
        const { reads, watch } = counted()
        // As they are written: without what parsing makes shorter.
        const [p, t] = [pattern.split("."), other.replaceAll("*", "a").split(".")]
        matchesSegments(watch(p), watch(t))
        expect({ pattern, other, reads: reads() <= 4 * (p.length + 1) * (t.length + 1) }).toEqual({
          pattern,
          other,
          reads: true
        })
      }
    })

    it.each([
      ["covers", Topic.covers, 4],
      ["overlaps", Topic.overlaps, 6]
    ] as const)("so does %s", (_name, relation, most) => {
      for (const [one, other] of attacks) {
        const { reads, watch } = counted()
        const [a, b] = [one, other].map((name): Topic.Pattern => {
          const segments = name.split(".")
          return { _tag: "Pattern", name, segments: watch(segments), concrete: false }
        })
        relation(a!, b!)
        expect({
          one,
          other,
          reads: reads() <= most * (one.split(".").length + 1) * (other.split(".").length + 1)
        }).toEqual({ one, other, reads: true })
      }
    })
  })
})
