/**
 * Policies: the first rule that fits decides, a subscription to a pattern never gives more than its topics do,
 * and the two written forms (scopes and text) mean what they say.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as fc from "fast-check"
import * as Policy from "../../src/domain/Policy.ts"
import * as Topic from "../../src/domain/Topic.ts"
import { casesOf } from "./cases.ts"

const policyOf = (text: string): Policy.Policy => Result.getOrThrow(Policy.parsePolicy(text))

const segment = fc.constantFrom("a", "b", "$s", "*", "**", "**")
const pattern = fc.array(segment, { minLength: 1, maxLength: 3 }).map((segments) => segments.join("."))
// `group` is a word of the text form, and a good name for a topic or a group all the same.
const groupName = fc.constantFrom("g", "h", "group", "#g")
const some = <A>(value: fc.Arbitrary<A>) =>
  fc.tuple(value, fc.array(value, { maxLength: 2 })).map(([one, more]): [A, ...Array<A>] => [one, ...more])
const base = {
  effect: fc.constantFrom("allow", "deny"),
  topics: some(fc.oneof({ weight: 9, arbitrary: pattern }, { weight: 1, arbitrary: fc.constant("group") }))
} as const

const rule: fc.Arbitrary<Policy.Rule> = fc.oneof(
  fc.record({ ...base, action: fc.constantFrom("publish", "subscribe", "admin", "*") }),
  fc.record({
    ...base,
    action: fc.constant("subscribe"),
    groups: fc.oneof(fc.constant("*"), some(groupName))
  })
)
const policy: fc.Arbitrary<Policy.Policy> = fc.record({ rules: fc.array(rule, { maxLength: 5 }) })

const words: ReadonlyArray<string> = ["a", "b", "$s", "group"]
const longer = (names: ReadonlyArray<string>) =>
  names.flatMap((name) => words.map((word) => `${name}.${word}`))
/** Every topic of up to three of these words. */
const topics = [...words, ...longer(words), ...longer(longer(words))]
const actions = ["publish", "subscribe", "admin"] as const
const groups: ReadonlyArray<string | undefined> = [undefined, "g", "h", "group", "#g", "other"]
const requests = topics.flatMap((topic) =>
  actions.flatMap((action) => groups.map((group): Policy.Request => ({ action, topic, group })))
)

/** From the last rule to the first: whatever fits takes the place of what comes after it. */
const decidedBy = (
  policy: Policy.Policy,
  action: string,
  group: string | undefined,
  fits: (rule: Policy.Rule, pattern: string) => boolean
): Policy.Rule | undefined =>
  policy.rules.reduceRight<Policy.Rule | undefined>((later, rule) => {
    const named = rule.action === "*" ? ["publish", "subscribe"] : [rule.action]
    const members: typeof groups = rule.groups === "*" ? groups.slice(1) : (rule.groups ?? groups)
    const isFit =
      named.includes(action) && members.includes(group) && rule.topics.some((name) => fits(rule, name))
    return isFit ? rule : later
  }, undefined)

const decisionOf = (rule: Policy.Rule | undefined): Policy.Decision => {
  if (rule === undefined) return { _tag: "Denied", rule, reason: "no_rule_matches" }
  return rule.effect === "allow"
    ? { _tag: "Allowed", rule }
    : { _tag: "Denied", rule, reason: "denied_by_rule" }
}

describe("Policy", () => {
  describe("deciding on a topic", () => {
    it("the first rule that fits decides, and where none does the answer is no", () => {
      fc.assert(
        fc.property(policy, fc.constantFrom(...requests), (policy, request) => {
          const rule = decidedBy(policy, request.action, request.group, (_, name) =>
            Topic.matches(name, request.topic)
          )
          expect(Policy.decide(policy, request)).toEqual(decisionOf(rule))
        }),
        { numRuns: 3_000 }
      )
    })

    it("the given cases of matching hold when the pattern is a rule's", () => {
      const Case = Schema.Struct({ pattern: Schema.String, topic: Schema.String, match: Schema.Boolean })
      const wrong = casesOf("topic-matches", Case).filter(({ match, pattern, topic }) => {
        const decision = Policy.decide(policyOf(`allow publish ${pattern}`), { action: "publish", topic })
        return (decision._tag === "Allowed") !== match
      })
      expect(wrong).toEqual([])
    })

    it("'*' is publish and subscribe, and never admin", () => {
      const policy = policyOf("allow * **")
      const allowed = actions.filter(
        (action) => Policy.decide(policy, { action, topic: "a" })._tag === "Allowed"
      )
      expect(allowed).toEqual(["publish", "subscribe"])
    })

    it("a rule with groups is skipped, not decisive, for other groups and for live readers", () => {
      const policy = policyOf(
        "deny subscribe a group g\nallow subscribe a group *\nallow subscribe b group g h"
      )
      const decide = (topic: string, group?: string) =>
        Policy.decide(policy, { action: "subscribe", topic, group })._tag
      expect([decide("a", "g"), decide("a", "h"), decide("a")]).toEqual(["Denied", "Allowed", "Denied"])
      expect([decide("b", "g"), decide("b", "other"), decide("b")]).toEqual(["Allowed", "Denied", "Denied"])
    })

    it("a deny with groups does not bind a live reader whom a later rule allows", () => {
      const policy = policyOf("deny subscribe a group *\nallow subscribe a")
      expect(Policy.decide(policy, { action: "subscribe", topic: "a" })._tag).toBe("Allowed")
      expect(Policy.decide(policy, { action: "subscribe", topic: "a", group: "g" })._tag).toBe("Denied")
    })

    it("rights to everything are no rights to the hub's own topics", () => {
      const request = { action: "subscribe", topic: "$dead.g.a" } as const
      expect(Policy.decide(policyOf("allow subscribe **"), request)._tag).toBe("Denied")
      expect(Policy.decide(policyOf("allow subscribe $dead.**"), request)._tag).toBe("Allowed")
    })

    it.each(["", "a..b", "a.*", "**", "a b"])("denies %j, which is no topic", (topic) => {
      expect(Policy.decide(policyOf("allow publish ** *"), { action: "publish", topic })).toEqual(
        decisionOf(undefined)
      )
    })
  })

  describe("deciding on a subscription", () => {
    const group = fc.constantFrom(...groups)

    it("an allow that covers allows, a deny that overlaps denies, a partial allow is skipped", () => {
      fc.assert(
        fc.property(policy, pattern, group, (policy, pattern, group) => {
          const rule = decidedBy(policy, "subscribe", group, ({ effect }, name) =>
            effect === "allow" ? Topic.covers(name, pattern) : Topic.overlaps(name, pattern)
          )
          expect(Policy.decideSubscription(policy, { pattern, group })).toEqual(decisionOf(rule))
        }),
        { numRuns: 3_000 }
      )
    })

    it("what is allowed as a pattern is allowed for every topic the pattern matches", () => {
      let allowed = 0
      fc.assert(
        fc.property(policy, pattern, group, (policy, pattern, group) => {
          if (Policy.decideSubscription(policy, { pattern, group })._tag === "Denied") return
          const matched = topics.filter((topic) => Topic.matches(pattern, topic))
          if (matched.length > 0) allowed++
          const denied = matched.filter(
            (topic) => Policy.decide(policy, { action: "subscribe", topic, group })._tag === "Denied"
          )
          expect(denied).toEqual([])
        }),
        { numRuns: 3_000 }
      )
      expect(allowed).toBeGreaterThan(100)
    })

    it("a topic is decided on as itself, whether it is asked for as a topic or as a pattern", () => {
      fc.assert(
        fc.property(policy, fc.constantFrom(...topics), group, (policy, topic, group) => {
          expect(Policy.decideSubscription(policy, { pattern: topic, group })).toEqual(
            Policy.decide(policy, { action: "subscribe", topic, group })
          )
        }),
        { numRuns: 1_000 }
      )
    })

    it("the given relations hold: an allow has to cover, a deny has to overlap", () => {
      const relation = Schema.Literals(["covers", "overlaps"])
      const Case = Schema.Struct({ relation, a: Schema.String, b: Schema.String, expected: Schema.Boolean })
      const wrong = casesOf("pattern-relations", Case).filter(({ a, b, expected, relation }) => {
        const text =
          relation === "covers" ? `allow subscribe ${a}` : `deny subscribe ${a}\nallow subscribe ${b}`
        const isAllowed = Policy.decideSubscription(policyOf(text), { pattern: b })._tag === "Allowed"
        return isAllowed !== (relation === "covers" ? expected : !expected)
      })
      expect(wrong).toEqual([])
    })

    it("a rule made by hand with a broken pattern allows nothing by it, and denies everything", () => {
      const broken = (effect: "allow" | "deny"): Policy.Policy => ({
        rules: [
          { effect, action: "*", topics: ["a.b*"] },
          { effect: "allow", action: "*", topics: ["z"] }
        ]
      })
      for (const [policy, expected] of [
        [broken("allow"), "Allowed"],
        [broken("deny"), "Denied"]
      ] as const) {
        expect(Policy.decide(policy, { action: "publish", topic: "z" })._tag).toBe(expected)
        expect(Policy.decide(policy, { action: "publish", topic: "a.b" })._tag).toBe("Denied")
        expect(Policy.decideSubscription(policy, { pattern: "z" })._tag).toBe(expected)
      }
    })

    it("a pattern that is not valid is denied", () => {
      const decision = Policy.decideSubscription(policyOf("allow subscribe ** *"), { pattern: "a.b*" })
      expect(decision).toEqual(decisionOf(undefined))
    })
  })

  describe("on changes to all topics of a pattern", () => {
    it("what is allowed for a pattern is allowed for every topic that it matches", () => {
      let allowed = 0
      fc.assert(
        fc.property(policy, pattern, (policy, pattern) => {
          if (Policy.decideAdministration(policy, pattern)._tag === "Denied") return
          const matched = topics.filter((topic) => Topic.matches(pattern, topic))
          if (matched.length > 0) allowed++
          const denied = matched.filter(
            (topic) => Policy.decide(policy, { action: "admin", topic })._tag === "Denied"
          )
          expect(denied).toEqual([])
        }),
        { numRuns: 3_000 }
      )
      expect(allowed).toBeGreaterThan(50)
    })

    it("a topic is decided on as itself", () => {
      fc.assert(
        fc.property(policy, fc.constantFrom(...topics), (policy, topic) => {
          expect(Policy.decideAdministration(policy, topic)).toEqual(
            Policy.decide(policy, { action: "admin", topic })
          )
        }),
        { numRuns: 1_000 }
      )
    })

    it("takes the right to administrate, all of it, and no deny within", () => {
      const tag = (text: string, pattern: string) => Policy.decideAdministration(policyOf(text), pattern)._tag
      expect(tag("allow admin a.**", "a.*")).toBe("Allowed")
      expect(tag("allow admin a.b", "a.*")).toBe("Denied")
      expect(tag("deny admin a.b\nallow admin a.**", "a.*")).toBe("Denied")
      expect(tag("allow * **", "a.*")).toBe("Denied")
      expect(tag("allow admin **", "$dead.g.a")).toBe("Denied")
      expect(tag("allow admin **", "a.*x")).toBe("Denied")
    })
  })

  describe("as Effects", () => {
    const policy = policyOf("deny subscribe secrets.** group g\nallow subscribe **")
    const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runSync(Effect.result(effect))

    it("succeed with the rule that allowed", () => {
      const allowed = Result.succeed({ _tag: "Allowed", rule: policy.rules[1] })
      expect(run(Policy.authorize(policy, { action: "subscribe", topic: "a" }))).toEqual(allowed)
      expect(run(Policy.authorizeSubscription(policy, { pattern: "a.*" }))).toEqual(allowed)
    })

    it("fail with who wanted what, and with the rule that denied, which the message does not tell", () => {
      const error = Result.getOrThrow(
        Result.flip(run(Policy.authorizeSubscription(policy, { pattern: "*.key", group: "g" })))
      )
      expect(error).toMatchObject({
        _tag: "Forbidden",
        action: "subscribe",
        topic: "*.key",
        group: "g",
        rule: "deny subscribe secrets.** group g",
        message: "no right to subscribe '*.key' in group 'g'"
      })
      const other = Result.getOrThrow(
        Result.flip(run(Policy.authorize(policy, { action: "admin", topic: "a" })))
      )
      expect(other).toMatchObject({ action: "admin", topic: "a", message: "no right to admin 'a'" })
      expect(other.rule).toBeUndefined()
      expect(other.group).toBeUndefined()
    })
  })

  describe("scopes", () => {
    it("are allow rules, in their order", () => {
      expect(
        Policy.scopesToPolicy(["publish:heartbeat.*", "subscribe:process.**", "admin:a", "*:b"])
      ).toEqual(
        Result.succeed({
          rules: [
            { effect: "allow", action: "publish", topics: ["heartbeat.*"] },
            { effect: "allow", action: "subscribe", topics: ["process.**"] },
            { effect: "allow", action: "admin", topics: ["a"] },
            { effect: "allow", action: "*", topics: ["b"] }
          ]
        })
      )
    })

    it("split at the first colon, since topics may hold more", () => {
      expect(Policy.scopesToPolicy(["publish:urn:a:b.c"])).toEqual(
        Result.succeed({ rules: [{ effect: "allow", action: "publish", topics: ["urn:a:b.c"] }] })
      )
    })

    it("that are not there give no rights", () => {
      const policy = Result.getOrThrow(Policy.scopesToPolicy([]))
      expect(policy).toEqual(Policy.none)
      expect(requests.filter((request) => Policy.decide(policy, request)._tag === "Allowed")).toEqual([])
    })

    it("without 'admin:' never give admin", () => {
      const scope = fc
        .tuple(fc.constantFrom("publish", "subscribe", "*"), pattern)
        .map(([action, name]) => `${action}:${name}`)
      fc.assert(
        fc.property(fc.array(scope), fc.constantFrom(...topics), (scopes, topic) => {
          const policy = Result.getOrThrow(Policy.scopesToPolicy(scopes))
          expect(Policy.decide(policy, { action: "admin", topic })).toEqual(decisionOf(undefined))
        })
      )
    })

    const malformed = [
      "",
      ":",
      ":a",
      "publish",
      "publish:",
      "publis:a",
      "Publish:a",
      " publish:a",
      "publish: a",
      "publish:a..b",
      "publish:a*",
      "publish.a",
      "**:a",
      "deny:a"
    ]
    it.each(malformed)("%j is an error, whatever stands beside it", (scope) => {
      const error = Result.getOrThrow(Result.flip(Policy.scopesToPolicy(["publish:a", scope, "subscribe:b"])))
      expect(error).toMatchObject({ _tag: "InvalidScope", scope })
      expect(error.message).toContain(`'${scope}'`)
    })
  })

  describe("text form", () => {
    it("reads one rule a line, with comments, empty lines, any blanks and any line ends", () => {
      const text = [
        "# heartbeats",
        "allow publish heartbeat.* heartbeat.received",
        "",
        "  deny   subscribe\tsecrets.**  \r",
        "  # the developers' groups\rallow subscribe process.state group dev ops",
        "allow subscribe logs.** group *",
        "allow admin **"
      ].join("\n")
      expect(policyOf(text)).toEqual({
        rules: [
          { effect: "allow", action: "publish", topics: ["heartbeat.*", "heartbeat.received"] },
          { effect: "deny", action: "subscribe", topics: ["secrets.**"] },
          { effect: "allow", action: "subscribe", topics: ["process.state"], groups: ["dev", "ops"] },
          { effect: "allow", action: "subscribe", topics: ["logs.**"], groups: "*" },
          { effect: "allow", action: "admin", topics: ["**"] }
        ]
      })
      expect(policyOf("")).toEqual(Policy.none)
    })

    it("is printed and read back with the same meaning", () => {
      fc.assert(
        fc.property(policy, (policy) => {
          const again = policyOf(Policy.formatPolicy(policy))
          const sets = ({ rules }: Policy.Policy) =>
            rules.map((rule) => ({ ...rule, topics: new Set(rule.topics) }))
          expect(sets(again)).toEqual(sets(policy))
          expect(Policy.formatPolicy(again)).toBe(Policy.formatPolicy(policy))
        }),
        { numRuns: 1_000 }
      )
    })

    it("keeps the order of patterns, but for one called 'group', which has to come first", () => {
      const text = "allow subscribe group a b group group\n"
      expect(policyOf(text).rules).toEqual([
        { effect: "allow", action: "subscribe", topics: ["group", "a", "b"], groups: ["group"] }
      ])
      expect(Policy.formatPolicy(policyOf(text))).toBe(text)
      expect(Policy.formatRule({ effect: "deny", action: "*", topics: ["a", "group", "b"] })).toBe(
        "deny * group a b"
      )
    })

    const mistakes: ReadonlyArray<readonly [text: string, column: number, reason: RegExp]> = [
      ["permit publish a", 1, /begins with 'allow' or 'deny', not 'permit'/],
      ["  Allow publish a", 3, /not 'Allow'/],
      ["allow", 6, /an action is missing/],
      ["allow  read a", 8, /'read' is no action/],
      ["allow publish", 14, /a topic pattern is missing/],
      ["allow publish a b..c", 17, /empty segment/],
      ["allow publish a b*", 17, /only as a whole segment/],
      ["\tdeny publish é", 15, /printable ASCII/],
      ["allow publish a group g", 17, /only a subscribe rule/],
      ["allow * a group g", 11, /only a subscribe rule/],
      ["allow subscribe a group", 24, /the name of a group is missing/],
      ["allow subscribe a group * g", 25, /'\*' is no name of a group/],
      ["allow subscribe a group g h.i", 27, /'h\.i' is no name of a group/]
    ]
    it.each(mistakes)("says where and why %j is wrong", (line, column, reason) => {
      const error = Result.getOrThrow(Result.flip(Policy.parsePolicy(`# one\nallow publish a\n${line}\n`)))
      expect([error.problems.length, error.line, error.column]).toEqual([1, 3, column])
      expect(error.problems[0].reason).toMatch(reason)
      expect(error.message).toBe(`3:${column}: ${error.problems[0].reason}`)
    })

    it("tells all that is wrong at once, and counts lines however they end", () => {
      const error = Result.getOrThrow(
        Result.flip(Policy.parsePolicy("no\r\nallow publish a\rallow x\n\nallow publish"))
      )
      expect(error.problems.map(({ column, line }) => [line, column])).toEqual([
        [1, 1],
        [3, 7],
        [5, 14]
      ])
      expect(error.message.split("\n")).toHaveLength(3)
    })
  })

  describe("schema", () => {
    const decode = Schema.decodeUnknownResult(Policy.Policy)

    it("takes every policy that can be written", () => {
      fc.assert(
        fc.property(policy, (policy) => {
          expect(decode(policy)).toEqual(Result.succeed(policy))
        })
      )
    })

    const allow = { effect: "allow", action: "subscribe", topics: ["a"] }
    const invalid: ReadonlyArray<readonly [what: string, rule: unknown]> = [
      ["without an effect", { action: "subscribe", topics: ["a"] }],
      ["with another effect", { ...allow, effect: "permit" }],
      ["with another action", { ...allow, action: "read" }],
      ["without topics", { ...allow, topics: [] }],
      ["with one topic that is no list", { ...allow, topics: "a" }],
      ["with an invalid pattern", { ...allow, topics: ["a", "b*"] }],
      ["with an empty list of groups", { ...allow, groups: [] }],
      ["with a group that is not one segment", { ...allow, groups: ["g", "h.i"] }],
      ["with '*' among other groups", { ...allow, groups: ["*", "g"] }],
      ["with groups to publish", { ...allow, action: "publish", groups: ["g"] }],
      ["with groups for '*'", { ...allow, action: "*", groups: "*" }]
    ]
    it.each(invalid)("refuses a rule %s", (_, rule) => {
      expect(Result.isFailure(decode({ rules: [allow, rule] }))).toBe(true)
      expect(Result.isSuccess(decode({ rules: [allow] }))).toBe(true)
    })
  })
})
