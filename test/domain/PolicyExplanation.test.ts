/** An explanation decides as the policy does, always; and says of each rule why it decides, or why not. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import type { Claims } from "../../src/domain/Claims.ts"
import * as Policy from "../../src/domain/Policy.ts"
import { type Explanation, explain, explainAccess } from "../../src/domain/PolicyExplanation.ts"
import * as PolicyAccessControl from "../../src/layers/core/PolicyAccessControl.ts"
import { AccessControl } from "../../src/services/AccessControl.ts"

const policyOf = (text: string): Policy.Policy => Result.getOrThrow(Policy.parsePolicy(text))

const segment = fc.constantFrom("a", "b", "g", "$dead", "$hub", "topic", "*", "**")
const name = fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join("."))
const some = <A>(value: fc.Arbitrary<A>) =>
  fc.tuple(value, fc.array(value, { maxLength: 2 })).map(([one, more]): [A, ...Array<A>] => [one, ...more])
const base = {
  effect: fc.constantFrom("allow", "deny"),
  // Now and then one that is none, as in a policy made by hand.
  topics: some(fc.oneof({ weight: 12, arbitrary: name }, { weight: 1, arbitrary: fc.constant("a..b") }))
} as const
const rule: fc.Arbitrary<Policy.Rule> = fc.oneof(
  fc.record({ ...base, action: fc.constantFrom("publish", "subscribe", "admin", "*") }),
  fc.record({
    ...base,
    action: fc.constant("subscribe"),
    groups: fc.oneof(fc.constant("*"), some(fc.constantFrom("g", "h")))
  })
)
const policy: fc.Arbitrary<Policy.Policy> = fc.record({ rules: fc.array(rule, { maxLength: 6 }) })
const action = fc.constantFrom("publish", "subscribe", "admin")
const group = fc.constantFrom(undefined, "g", "h", "other")
const request: fc.Arbitrary<Policy.Request> = fc.record({ action, topic: name, group })

const isConcrete = (topic: string): boolean => !topic.includes("*")

/** It says what was decided, by which rule, and names that rule and no other. */
const expectSame = (policy: Policy.Policy, explanation: Explanation, decision: Policy.Decision): void => {
  expect(explanation.allowed).toBe(decision._tag === "Allowed")
  const decides = explanation.rules.filter((one) => one.decides)
  expect(decides.map(({ n }) => n)).toEqual(explanation.rule === undefined ? [] : [explanation.rule])
  const found = explanation.rule === undefined ? undefined : policy.rules[explanation.rule - 1]
  expect(found).toBe(decision.rule)
}

describe("an explanation", () => {
  it("decides on a topic as the policy does", () => {
    fc.assert(
      fc.property(policy, request, (policy, request) => {
        fc.pre(isConcrete(request.topic))
        const explanation = explain(policy, request)
        expectSame(policy, explanation, Policy.decide(policy, request))
        if (request.action === "subscribe") {
          const { group, topic: pattern } = request
          expectSame(policy, explanation, Policy.decideSubscription(policy, { pattern, group }))
        }
      }),
      { numRuns: 2_000 }
    )
  })

  it("decides on a pattern as the policy does", () => {
    fc.assert(
      fc.property(policy, name, group, (policy, pattern, group) => {
        fc.pre(!isConcrete(pattern))
        const subscription = explain(policy, { action: "subscribe", topic: pattern, group })
        expectSame(policy, subscription, Policy.decideSubscription(policy, { pattern, group }))
        const change = explain(policy, { action: "admin", topic: pattern })
        expectSame(policy, change, Policy.decideAdministration(policy, pattern))
        const publish = explain(policy, { action: "publish", topic: pattern })
        expectSame(policy, publish, Policy.decidePattern(policy, "publish", { pattern }))
      }),
      { numRuns: 2_000 }
    )
  })

  it("lists every rule in its order, as text that means the same", () => {
    fc.assert(
      fc.property(policy, request, (policy, request) => {
        const { rules } = explain(policy, request)
        expect(rules.map(({ n, text }) => [n, text])).toEqual(
          policy.rules.map((rule, i) => [i + 1, Policy.formatRule(rule)])
        )
        for (const { why } of rules) expect(why).not.toBe("")
      })
    )
  })

  it("a rule that does not decide either does not fit alone, or fits behind the one that does", () => {
    fc.assert(
      fc.property(policy, request, (policy, request) => {
        const { rule: deciding = Infinity, rules } = explain(policy, request)
        for (const { decides, n, why } of rules) {
          const alone = explain({ rules: [policy.rules[n - 1]!] }, request)
          expect(alone.rule !== undefined).toBe(decides || why.startsWith("it fits, too"))
          if (alone.rule !== undefined) expect(n).toBeGreaterThanOrEqual(deciding)
        }
      }),
      { numRuns: 1_000 }
    )
  })

  it.effect("as the hub answers, it decides as AccessControl does", () =>
    Effect.gen(function* () {
      const access = yield* AccessControl
      fc.assert(
        fc.property(policy, request, (policy, request) => {
          const claims: Claims = {
            sub: "s",
            expiresAt: Infinity,
            issuedAt: undefined,
            tokenId: undefined,
            policy
          }
          const { action, group, topic } = request
          const { allowed } = explainAccess(policy, request)
          if (action === "subscribe") {
            const decision = access.decideSubscription(claims, { pattern: topic, group })
            expect(allowed).toBe(decision._tag === "Allowed")
          } else if (action === "admin") {
            // A group never matters for a change.
            expect(explainAccess(policy, { action, topic }).allowed).toBe(
              access.decideAdministration(claims, topic)._tag === "Allowed"
            )
          }
          if (isConcrete(topic) && !(action === "publish" && topic.startsWith("$"))) {
            expect(allowed).toBe(access.decide(claims, request)._tag === "Allowed")
          }
        }),
        { numRuns: 3_000 }
      )
    }).pipe(Effect.provide(PolicyAccessControl.layer))
  )
})

describe("why", () => {
  const whys = (text: string, request: Policy.Request) =>
    explain(policyOf(text), request).rules.map(({ why }) => why)

  it("says of each rule what does not fit, or that it comes later", () => {
    const text = `
      allow publish orders.**
      allow * orders.eu
      deny subscribe secrets.**
      allow subscribe orders.** group dev ops
      allow subscribe orders.*
      deny subscribe orders.eu
    `
    const request = { action: "subscribe", topic: "orders.us" } as const
    expect(whys(text, request)).toEqual([
      "it is about publish, not about subscribe",
      "it does not match 'orders.us'",
      "it does not match 'orders.us'",
      "it is about consumer groups, and none was asked for",
      "it is the first rule that fits",
      "it does not match 'orders.us'"
    ])
    expect(whys(text, { ...request, group: "qa" })[3]).toBe("it is about other groups than 'qa'")
    expect(whys(text, { ...request, group: "ops" }).slice(3)).toEqual([
      "it is the first rule that fits",
      "it fits, too, but rule 4 comes first",
      "it does not match 'orders.us'"
    ])
    expect(whys(text, { action: "admin", topic: "orders.eu" })[1]).toMatch(/'\*' is publish and subscribe/)
    expect(explain(policyOf(text), request)).toMatchObject({
      allowed: true,
      rule: 5,
      reason: "rule 5 allows it: allow subscribe orders.*"
    })
  })

  it("says of a pattern that an allow covers only a part, and that a deny touches it", () => {
    const request = { action: "subscribe", topic: "orders.**" } as const
    const text = `
      allow subscribe orders.eu.**
      allow subscribe logs.**
      deny subscribe orders.secret
      allow subscribe **
    `
    expect(whys(text, request)).toEqual([
      "it allows only a part of 'orders.**', and all of it is asked for: it is skipped",
      "it matches no topic of 'orders.**'",
      "it is the first rule that fits",
      "it fits, too, but rule 3 comes first"
    ])
    expect(explain(policyOf(text), request)).toMatchObject({
      allowed: false,
      rule: 3,
      reason: "rule 3 denies it: deny subscribe orders.secret"
    })
  })

  it("says that nothing fits, of a policy without rules, too", () => {
    const reason = "no rule fits, and what no rule allows is denied"
    expect(explain(Policy.none, { action: "publish", topic: "a" })).toEqual({
      allowed: false,
      reason,
      rule: undefined,
      rules: []
    })
    expect(explain(policyOf("allow publish b"), { action: "publish", topic: "a..b" })).toMatchObject({
      allowed: false,
      reason,
      rules: [{ why: "'a..b' is no topic and no pattern" }]
    })
  })

  it("says of a deny with a broken pattern that it denies all", () => {
    const broken: Policy.Policy = { rules: [{ effect: "deny", action: "*", topics: ["a..b"] }] }
    expect(explain(broken, { action: "publish", topic: "x" })).toMatchObject({
      allowed: false,
      rules: [{ decides: true, why: expect.stringContaining("it denies all") as string }]
    })
  })

  it("says nothing of rules that are hidden, but that they count", () => {
    const policy = policyOf(
      "deny subscribe secrets.*\nallow publish a\nallow subscribe secrets.** b\nallow admin c"
    )
    const ask = (action: Policy.Request["action"], topic: string) =>
      explainAccess(policy, { action, topic }, 2)
    for (const topic of ["secrets.a", "secrets.*", "b", "$hub.topic.secrets.a"]) {
      for (const action of ["publish", "subscribe", "admin"] as const) {
        const told = ask(action, topic)
        expect(told.allowed).toBe(explainAccess(policy, { action, topic }).allowed)
        expect(told.rules.map(({ n, text }) => `${n} ${text}`)).toEqual([
          "1 allow subscribe secrets.** b",
          "2 allow admin c"
        ])
        expect(JSON.stringify(told)).not.toMatch(/deny/)
      }
    }
    expect(ask("subscribe", "b")).toMatchObject({ rule: 1, rules: [{ decides: true }, {}] })
    expect(ask("subscribe", "secrets.a").rules[0]?.why).toBe(
      "it fits, too, but a rule of its roles comes first"
    )
    expect(ask("publish", "a")).toMatchObject({
      allowed: true,
      rule: undefined,
      reason: "its roles allow it"
    })
  })

  it("of dead letters names the right to their originals", () => {
    const request = { action: "subscribe", topic: "$dead.mailer.orders.eu" } as const
    const both = policyOf("allow subscribe $dead.**\nallow subscribe orders.**")
    expect(explainAccess(both, request)).toMatchObject({ allowed: true, rule: 1 })
    expect(explainAccess(policyOf("allow subscribe $dead.**"), request)).toMatchObject({
      allowed: false,
      rule: undefined,
      reason:
        "'$dead.mailer.orders.eu' takes the right to 'orders.eu', too; of 'orders.eu': no rule fits, and what no rule allows is denied"
    })
    expect(explainAccess(both, { ...request, action: "publish" })).toMatchObject({
      allowed: false,
      reason: "topics that begin with '$' are the hub's own"
    })
  })
})
