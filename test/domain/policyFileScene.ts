/** Policy files made at random, and everything that may be asked of them. */
import * as fc from "fast-check"
import type * as Policy from "../../src/domain/Policy.ts"
import type { Values } from "../../src/domain/PolicyFile.ts"

const segment = fc.constantFrom("a", "b", "$s", "*", "**", "${sub}", "${claim.t}", "${claim.https://x.y/z}")

export const template = fc
  .array(segment, { minLength: 1, maxLength: 3 })
  .map((segments) => segments.join("."))

const groupName = fc.constantFrom("g", "\\#g", "${sub}", "${claim.t}")

const some = <A>(value: fc.Arbitrary<A>, maxLength: number) => fc.array(value, { minLength: 1, maxLength })

export const ruleText: fc.Arbitrary<string> = fc.oneof(
  fc
    .tuple(
      fc.constantFrom("allow", "deny"),
      fc.constantFrom("publish", "subscribe", "admin", "*"),
      some(template, 2)
    )
    .map(([effect, action, topics]) => [effect, action, ...topics].join(" ")),
  fc
    .tuple(
      fc.constantFrom("allow", "deny"),
      some(template, 2),
      fc.oneof(fc.constant(["*"]), some(groupName, 2))
    )
    .map(([effect, topics, groups]) => [effect, "subscribe", ...topics, "group", ...groups].join(" "))
)

export const roleNames = ["dev", "ops", "x"]

/** One text for each of the roles. */
export const fileText: fc.Arbitrary<string> = fc
  .tuple(...roleNames.map(() => fc.array(ruleText, { maxLength: 4 })))
  .map((roles) =>
    roles
      .map((rules, i) => [`role ${roleNames[i]}:`, ...rules.map((rule) => `  ${rule}`)].join("\n"))
      .join("\n")
  )

export const good: fc.Arbitrary<string> = fc.constantFrom("a", "b", "g", "#g", "x")

/** What is no segment, or would begin a name of the hub's own. */
export const bad: fc.Arbitrary<string> = fc.constantFrom(
  "",
  "a.b",
  "*",
  "**",
  "a*",
  "$s",
  "$hub",
  "${sub}",
  "a b",
  "é",
  "a\nb",
  "x".repeat(65)
)

const words = ["a", "b", "$s", "x", "g"]
const longer = (names: ReadonlyArray<string>) =>
  names.flatMap((name) => words.map((word) => `${name}.${word}`))

/** Every topic of up to three of these words. */
export const topics: ReadonlyArray<string> = [...words, ...longer(words), ...longer(longer(words))]

export const request: fc.Arbitrary<Policy.Request> = fc.record({
  action: fc.constantFrom("publish", "subscribe", "admin"),
  topic: fc.constantFrom(...topics),
  group: fc.constantFrom(undefined, "g", "#g", "a", "x")
})

export const pattern = fc
  .array(fc.constantFrom("a", "b", "x", "*", "**"), { minLength: 1, maxLength: 3 })
  .map((segments) => segments.join("."))

export const valuesFrom = (value: fc.Arbitrary<string>): fc.Arbitrary<Values> =>
  fc
    .record({ sub: value, t: value, z: value })
    .map(({ sub, t, z }) => ({ sub, values: { t, "https://x.y/z": z } }))
