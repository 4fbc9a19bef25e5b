/**
 * `defineTopics` finds the schema of a topic as the hub matches patterns, in the order of definition, and refuses
 * what is no pattern or would never apply.
 */
import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import { defineTopics, type StandardSchema, type TopicSchemas } from "../../src/client/topics.ts"
import * as Topic from "../../src/domain/Topic.ts"
import { matchesSegments } from "../../src/protocol/Segments.ts"
import { casesOf } from "../domain/cases.ts"

const schema = (): StandardSchema => ({
  "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) }
})

const schemasOf = (patterns: ReadonlyArray<string>): TopicSchemas =>
  Object.fromEntries(patterns.map((pattern) => [pattern, schema()]))

const matches = (pattern: string, topic: string): boolean =>
  defineTopics(schemasOf([pattern])).schemaOf(topic) !== undefined

const isPattern = (name: string): boolean => {
  try {
    return matches(name, "a") || true
  } catch (error) {
    expect(error).toBeInstanceOf(TypeError)
    return false
  }
}

const literal = fc.constantFrom("a", "b", "c")
const nameOf = (first: fc.Arbitrary<string>, segment: fc.Arbitrary<string>, maxLength: number) =>
  fc.tuple(first, fc.array(segment, { maxLength })).map(([head, tail]) => [head, ...tail].join("."))
const segment = fc.oneof(literal, fc.constantFrom("*", "**"))
const topics = nameOf(
  fc.oneof({ weight: 4, arbitrary: literal }, { weight: 1, arbitrary: fc.constant("$a") }),
  literal,
  4
)
const patterns = nameOf(
  fc.oneof({ weight: 6, arbitrary: segment }, { weight: 1, arbitrary: fc.constant("$a") }),
  segment,
  4
)

describe("defineTopics", () => {
  it("matches as the given cases say", () => {
    const cases = casesOf(
      "topic-matches",
      Schema.Struct({ pattern: Schema.String, topic: Schema.String, match: Schema.Boolean })
    )
    expect(cases.length).toBeGreaterThan(200)
    expect(cases.filter(({ match, pattern, topic }) => matches(pattern, topic) !== match)).toEqual([])
  })

  it("takes as patterns what the given cases say", () => {
    const cases = casesOf(
      "validity",
      Schema.Struct({ kind: Schema.String, value: Schema.String, valid: Schema.Boolean })
    ).filter(({ kind }) => kind === "pattern")
    expect(cases.length).toBeGreaterThan(10)
    expect(cases.filter(({ valid, value }) => isPattern(value) !== valid)).toEqual([])
  })

  it("matches as the hub does", () => {
    fc.assert(
      fc.property(patterns, topics, (pattern, topic) => {
        expect(matches(pattern, topic)).toBe(Topic.matches(pattern, topic))
      }),
      { numRuns: 2_000 }
    )
  })

  it("takes as patterns what the hub takes", () => {
    const word = fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom("a", "b7", "*", "**") },
      {
        weight: 1,
        arbitrary: fc.constantFrom("***", "a*", "", " ", "é", "$", "a".repeat(64), "a".repeat(65))
      },
      { weight: 1, arbitrary: fc.string({ maxLength: 3 }) }
    )
    const name = fc
      .tuple(fc.constantFrom("", "", "$"), fc.array(word, { maxLength: 36 }))
      .map(([start, words]) => start + words.join("."))
    fc.assert(
      fc.property(name, (name) => {
        expect(isPattern(name)).toBe(Result.isSuccess(Topic.parsePattern(name)))
      }),
      { numRuns: 2_000 }
    )
    const long = (start: string, length: number) =>
      `${start}${"a.".repeat(length)}`.slice(0, length - 1) + "a"
    const wide = (start: string, length: number) =>
      (start + Array<string>(40).fill("a".repeat(60)).join(".")).slice(0, length)
    for (const start of ["", "$"]) {
      for (const length of [62, 63, 64, 66, 67, 68]) {
        const name = long(start, length)
        expect([name, isPattern(name)]).toEqual([name, Result.isSuccess(Topic.parsePattern(name))])
      }
      for (const length of [511, 512, 513, 583, 584]) {
        const name = wide(start, length)
        expect([name, isPattern(name)]).toEqual([name, Result.isSuccess(Topic.parsePattern(name))])
      }
    }
  })

  it("gives the schema of the first pattern that matches", () => {
    fc.assert(
      fc.property(fc.uniqueArray(patterns, { minLength: 1, maxLength: 6 }), topics, (names, topic) => {
        const usable = names.filter(
          (name, i) => !names.slice(0, i).some((above) => matchesSegments(above.split("."), name.split(".")))
        )
        const schemas = schemasOf(usable)
        const expected = usable.find((name) => Topic.matches(name, topic))
        const found = defineTopics(schemas).schemaOf(topic)
        expect(found).toBe(expected === undefined ? undefined : schemas[expected])
      }),
      { numRuns: 2_000 }
    )
  })

  it("refuses a pattern whose topics one above it takes, and no other", () => {
    fc.assert(
      fc.property(patterns, patterns, (above, below) => {
        fc.pre(above !== below)
        const define = () => defineTopics(schemasOf([above, below]))
        if (!matchesSegments(above.split("."), below.split("."))) return void define()
        expect(define).toThrow(TypeError)
        expect(Topic.covers(above, below)).toBe(true)
      }),
      { numRuns: 2_000 }
    )
    const refused = [
      ["**", "orders.created"],
      ["orders.*.created", "orders.eu.created"],
      ["orders.**", "orders.*.created"],
      ["orders.**", "orders.**.created"],
      ["*.**", "*.created"],
      ["**.**", "**"],
      ["$dead.**", "$dead.mailer.**"]
    ]
    for (const names of refused) expect(() => defineTopics(schemasOf(names))).toThrow(TypeError)
    const fine = [
      ["orders.created", "orders.*"],
      ["orders.*", "orders.**"],
      ["**", "$dead.**"],
      ["*", "$sys"],
      ["a.*.c", "*.b.*"]
    ]
    for (const names of fine) expect(Object.keys(defineTopics(schemasOf(names)).schemas)).toEqual(names)
  })

  it("says which pattern it does not take, and why", () => {
    expect(() => defineTopics(schemasOf(["orders..created"]))).toThrow(
      "'orders..created' is no topic and no pattern of topics"
    )
    expect(() => defineTopics(schemasOf(["orders.**", "orders.eu"]))).toThrow(
      "'orders.eu' never applies: 'orders.**' above it takes its topics"
    )
  })

  it("answers the same for every topic, however many there are", () => {
    const schemas = schemasOf(["a.*", "b.*"])
    const { schemaOf } = defineTopics(schemas)
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 2_500; i++) {
        expect(schemaOf(`a.${i}`)).toBe(schemas["a.*"])
        expect(schemaOf(`b.${i}`)).toBe(schemas["b.*"])
        expect(schemaOf(`c.${i}`)).toBeUndefined()
      }
    }
  })

  it("finds nothing for what is no topic of a definition", () => {
    const { schemaOf } = defineTopics(schemasOf(["a.*", "constructor"]))
    for (const name of ["", ".", "a", "a.b.c", "toString", "__proto__"])
      expect(schemaOf(name)).toBeUndefined()
    expect(schemaOf("constructor")).toBeDefined()
  })
})
