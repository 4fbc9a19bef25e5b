/** Formatting a policy file changes how it looks, and nothing else. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { formatRule, readLine } from "../../src/domain/Policy.ts"
import { parsePolicyFile } from "../../src/domain/PolicyFile.ts"
import { formatPolicyFile } from "../../src/domain/PolicyFileFormat.ts"
import { ruleText } from "./policyFileScene.ts"

const meaning = (text: string) =>
  [...Result.getOrThrow(parsePolicyFile(text)).roles.values()].map(({ name, rules }) => [
    name,
    rules.map(({ rule }) => formatRule(rule))
  ])

const comments = (text: string) =>
  text.split(/\r\n|\r|\n/).flatMap((line) => readLine(line).comment?.text ?? [])

const space = fc.constantFrom(" ", "  ", "\t", " \t ")
const comment = fc.constantFrom("", "", "# why", "#why not", "## x  y ", "#")
const indent = fc.constantFrom("", " ", "    ", "\t")

const spaced = (text: string, by: string) => text.replaceAll(" ", by)

const lineOf = fc.oneof(
  { weight: 1, arbitrary: fc.constantFrom("", "", "  ") },
  { weight: 2, arbitrary: fc.tuple(indent, comment).map(([indent, comment]) => indent + comment) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(indent, ruleText, space, comment)
      .map(([indent, rule, space, comment]) => `${indent}${spaced(rule, space)}${space}${comment}`)
  }
)

const header = fc.tuple(indent, space, fc.option(ruleText, { nil: "" }), comment).map(
  ([indent, space, rule, comment]) =>
    (name: string): string =>
      `${indent}role${space}${name}:${space}${rule}${space}${comment}`
)

const text = fc
  .tuple(
    fc.array(fc.constantFrom("", "# first", "  # indented"), { maxLength: 3 }),
    fc.array(fc.tuple(header, fc.array(lineOf, { maxLength: 5 })), { minLength: 1, maxLength: 3 }),
    fc.constantFrom("\n", "\r\n", "\r")
  )
  .map(([before, roles, end]) =>
    [...before, ...roles.flatMap(([header, lines], i) => [header(`r${i}`), ...lines])].join(end)
  )

describe("formatting", () => {
  it("puts roles at the left, rules under them, and comments where they belong", () => {
    const written = `


#about  all
role   dev:allowed
role a:   allow  publish   a.*   # one
# of the next rule
   deny subscribe\tb


      allow publish c
# about b
role b: # empty
  # the last word`.replace("role   dev:allowed\n", "")
    expect(formatPolicyFile(written)).toBe(`#about  all
role a:
  allow publish a.*  # one
  # of the next rule
  deny subscribe b

  allow publish c

# about b
role b:  # empty
  # the last word
`)
  })

  it("keeps the meaning and every comment, and is done after once", () => {
    fc.assert(
      fc.property(text, (text) => {
        const formatted = formatPolicyFile(text)
        expect(meaning(formatted)).toEqual(meaning(text))
        expect(comments(formatted)).toEqual(comments(text))
        expect(formatPolicyFile(formatted)).toBe(formatted)
        expect(formatted).not.toMatch(/[ \t]\n|\n\n\n|\r|^\n|\n\n$/)
      }),
      { numRuns: 2_000 }
    )
  })
})
