/**
 * The compiler matches topics and patterns as the hub does: the given cases, and generated ones, are written as
 * types, and checked.
 */
import { execFileSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import * as Topic from "../../src/domain/Topic.ts"
import { matchesSegments } from "../../src/protocol/Segments.ts"
import { casesOf } from "../domain/cases.ts"
import { temporaryDirectory } from "../support/temporary.ts"

const root = fileURLToPath(new URL("../../", import.meta.url))

const preamble = `
import type {
  PatternOf, PublishPayload, ReceivedPayload, StandardSchema, TopicOf, Topics
} from ${JSON.stringify(join(root, "src/client/topics.ts"))}

type Is<A, B> = (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false
/** Definitions whose payloads are their own patterns. */
type Named<P extends string> = Topics<{ readonly [K in P]: StandardSchema<{ readonly in: K }, { readonly out: K }> }>
type Expect<T extends true> = T
`

/** What the compiler says of lines that each have to be `true`: the numbers of those that are not. */
const notTrue = (types: ReadonlyArray<string>): ReadonlyArray<number> => {
  const directory = temporaryDirectory()
  const begin = preamble.split("\n").length
  const lines = types.map((type, i) => `export type Case${i} = Expect<${type}>`)
  writeFileSync(join(directory, "cases.ts"), [preamble, ...lines].join("\n"))
  writeFileSync(
    join(directory, "tsconfig.json"),
    JSON.stringify({
      extends: join(root, "tsconfig.json"),
      compilerOptions: { types: [], noUnusedLocals: false, rewriteRelativeImportExtensions: false },
      include: [],
      files: ["cases.ts"]
    })
  )
  try {
    execFileSync(
      process.execPath,
      [join(root, "node_modules/typescript/bin/tsc"), "--pretty", "false", "-p", directory],
      {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"]
      }
    )
    return []
  } catch (error) {
    const output = error instanceof Error && "stdout" in error ? String(error.stdout) : ""
    const lines = Array.from(output.matchAll(/cases\.ts\((\d+),\d+\): error TS2344/g), ([, line]) =>
      Number(line)
    )
    if (lines.length === 0) throw new Error(`the compiler failed: ${output}`, { cause: error })
    return lines.map((line) => line - begin - 1)
  }
}

const text = (name: string): string => JSON.stringify(name)

const union = (names: ReadonlyArray<string>, field: "in" | "out"): string =>
  names.length === 0 ? "never" : names.map((name) => `{ readonly ${field}: ${text(name)} }`).join(" | ")

const covers = (wide: string, narrow: string): boolean => matchesSegments(wide.split("."), narrow.split("."))

/** Those of the definitions that apply somewhere in the pattern, as said in words: none that a narrower one precedes. */
const applying = (defined: ReadonlyArray<string>, pattern: string): ReadonlyArray<string> => {
  const certain = defined.filter((one) => covers(one, pattern))
  return defined.filter(
    (one) => Topic.overlaps(one, pattern) && !certain.some((other) => other !== one && covers(one, other))
  )
}

const isFalse = (type: string, value: boolean): string => `Is<Is<${type}>, ${value}>`

const topicType = (pattern: string, topic: string, match: boolean): string =>
  // Nobody publishes to the hub's own topics.
  isFalse(`TopicOf<Named<${text(pattern)}>, ${text(topic)}>, ${text(topic)}`, match && !topic.startsWith("$"))

const patternType = (defined: string, pattern: string, overlap: boolean): string =>
  isFalse(`PatternOf<Named<${text(defined)}>, ${text(pattern)}>, ${text(pattern)}`, overlap)

it("the compiler finds what is wrong", () => {
  const wrong = [
    topicType("a.*", "a.b", true),
    topicType("a.*", "a.b", false),
    patternType("a.*", "*.b", false)
  ]
  expect(notTrue(wrong)).toEqual([1, 2])
})

it("the given cases hold for the compiler", () => {
  const matching = casesOf(
    "topic-matches",
    Schema.Struct({ pattern: Schema.String, topic: Schema.String, match: Schema.Boolean })
  )
  const related = casesOf(
    "pattern-relations",
    Schema.Struct({ relation: Schema.String, a: Schema.String, b: Schema.String, expected: Schema.Boolean })
  ).filter(({ relation }) => relation === "overlaps")
  expect(matching.length).toBeGreaterThan(200)
  expect(related.length).toBeGreaterThan(15)
  const types = [
    ...matching.flatMap(({ match, pattern, topic }) => [
      topicType(pattern, topic, match),
      patternType(pattern, topic, match)
    ]),
    ...related.flatMap(({ a, b, expected }) => [patternType(a, b, expected), patternType(b, a, expected)])
  ]
  expect(notTrue(types).map((line) => types[line])).toEqual([])
})

it("what the compiler says of generated topics and patterns is what happens", () => {
  const literal = fc.constantFrom("a", "b", "$c")
  const segment = fc.oneof(fc.constantFrom("a", "b"), fc.constantFrom("*", "**"))
  const nameOf = (first: fc.Arbitrary<string>, segment: fc.Arbitrary<string>) =>
    fc.tuple(first, fc.array(segment, { maxLength: 3 })).map(([head, tail]) => [head, ...tail].join("."))
  const topic = nameOf(literal, fc.constantFrom("a", "b"))
  const pattern = nameOf(
    fc.oneof({ weight: 1, arbitrary: literal }, { weight: 2, arbitrary: segment }),
    segment
  )
  const cases = fc.sample(
    fc.tuple(fc.uniqueArray(pattern, { minLength: 1, maxLength: 5 }), topic, pattern),
    300
  )
  const types = cases.flatMap(([patterns, topic, pattern]) => {
    // As `defineTopics` takes them.
    const defined = patterns.filter((name, i) => !patterns.slice(0, i).some((above) => covers(above, name)))
    const type = `Named<${defined.map(text).join(" | ")}>`
    const found = applying(defined, topic)
    // The first that matches is among them, and the only one where patterns do not cross.
    const first = defined.find((one) => Topic.matches(one, topic))
    expect(found).toEqual(first === undefined ? [] : expect.arrayContaining([first]))
    const inputs = found.length === 0 ? "unknown" : union(found, "in").replaceAll(" | ", " & ")
    return [
      isFalse(
        `TopicOf<${type}, ${text(topic)}>, ${text(topic)}`,
        first !== undefined && !topic.startsWith("$")
      ),
      isFalse(
        `PatternOf<${type}, ${text(pattern)}>, ${text(pattern)}`,
        defined.some((one) => Topic.overlaps(one, pattern))
      ),
      `Is<ReceivedPayload<${type}, ${text(topic)}>, ${union(found, "out")}>`,
      `Is<ReceivedPayload<${type}, ${text(pattern)}>, ${union(applying(defined, pattern), "out")}>`,
      `Is<PublishPayload<${type}, ${text(topic)}>, ${inputs}>`
    ]
  })
  expect(notTrue(types).map((line) => types[line])).toEqual([])
})
