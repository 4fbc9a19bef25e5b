/** What is warned of in policy files, and that it is true. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Policy from "../../src/domain/Policy.ts"
import * as PolicyFile from "../../src/domain/PolicyFile.ts"
import { warningsOf } from "../../src/domain/PolicyWarnings.ts"
import { bad, good, request, ruleText, valuesFrom } from "./policyFileScene.ts"

const said = (rules: string): ReadonlyArray<string> =>
  warningsOf(`role a:\n${rules}`).map(({ column, line, reason }) => `${line}:${column}: ${reason}`)

const groups = "it denies only consumers in groups: live readers are not bound by a rule with groups"

describe("warnings", () => {
  it.each<[rules: string, ...Array<string>]>([
    ["allow publish a\nallow subscribe a\ndeny publish b.*"],
    ["allow admin **\nallow * **"],
    ["allow publish a.*\n  allow publish a.b", "3:3: it never decides: line 2 above is about all of it"],
    ["deny publish a.**\nallow publish a.b", "3:1: it never decides: line 2 above is about all of it"],
    ["allow * a.*\nallow publish a.b", "3:1: it never decides: line 2 above is about all of it"],
    [
      "allow publish a\nallow subscribe a\nallow * a",
      "4:1: it never decides: lines 2 and 3 above is about all of it"
    ],
    ["allow publish a\nallow * a"],
    ["allow publish a\nallow publish a b"],
    ["allow * **\nallow admin x"],
    ["allow publish **\nallow publish $dead.**"],
    [
      "allow subscribe **\ndeny subscribe secrets.**",
      "3:1: it denies no topic: line 2 above allows them. Write denies first"
    ],
    ["allow subscribe logs.public\ndeny subscribe logs.**"],
    ["deny subscribe a group g", `2:1: ${groups}`],
    [
      "allow subscribe a group g h\nallow subscribe a group g",
      "3:1: it never decides: line 2 above is about all of it"
    ],
    [
      "allow subscribe a group *\nallow subscribe a group g",
      "3:1: it never decides: line 2 above is about all of it"
    ],
    ["allow subscribe a group g\nallow subscribe a"],
    ["allow subscribe a group *\nallow subscribe a"],
    [
      "allow subscribe a.*\nallow subscribe a.${sub}",
      "3:1: it never decides: line 2 above is about all of it"
    ],
    ["allow subscribe a.${sub}\nallow subscribe a.${claim.sub}"],
    ["allow subscribe a.${sub}\nallow subscribe a.b"],
    // With a value that fills nothing the allow is none, and the deny denies.
    ["allow subscribe a.${sub}\ndeny subscribe a.${sub}"],
    ["", "1:1: role 'a' has no rules: it allows nothing"],
    ["allow publish a #b", "2:17: '#b' is a comment: a name that begins so is written \\#b"],
    ["allow publish a # b\n#b\nallow publish c #b c"],
    ["allow publis a"]
  ])("of '%s'", (rules, ...expected) => {
    expect(said(rules)).toEqual(
      expected.map((line) => line.replace("above is", /lines/.test(line) ? "above are" : "above is"))
    )
  })

  it("of patterns that nothing short enough fills are none", () => {
    const long = Array.from({ length: 20 }, () => `\${claim.${"x".repeat(60)}}`).join(".")
    expect(said(`allow publish ${long}\nallow publish ${long} b`)).toEqual([])
  })

  it("go by the lines, over all roles, and none is about another role", () => {
    const text = "role a:\nrole b:\n allow publish x\nrole c:\n allow publish x\n allow publish x"
    expect(warningsOf(text).map(({ line }) => line)).toEqual([1, 6])
  })

  it("what never decides can be left out: nothing is decided otherwise", () => {
    let warned = 0
    fc.assert(
      fc.property(
        fc.array(ruleText, { minLength: 2, maxLength: 4 }),
        valuesFrom(fc.oneof(good, bad)),
        fc.array(request, { minLength: 1, maxLength: 30 }),
        (rules, values, requests) => {
          const text = ["role a:", ...rules].join("\n")
          const policyOf = (text: string) =>
            Result.getOrThrow(
              PolicyFile.resolve(Result.getOrThrow(PolicyFile.parsePolicyFile(text)), {
                ...values,
                roles: ["a"]
              })
            )
          for (const { line, reason } of warningsOf(text)) {
            if (!/never decides|denies no topic/.test(reason)) continue
            warned++
            const without = text.split("\n").filter((_, i) => i !== line - 1)
            for (const request of requests) {
              expect(Policy.decide(policyOf(without.join("\n")), request)._tag).toBe(
                Policy.decide(policyOf(text), request)._tag
              )
            }
          }
        }
      ),
      { numRuns: 3_000 }
    )
    expect(warned).toBeGreaterThan(100)
  })
})
