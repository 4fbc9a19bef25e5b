/** Decisions from claims: those of the policy, remembered, with the rights that dead letters take. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, PubSub, Result, Stream } from "effect"
import fc from "fast-check"
import type { Claims } from "../../../src/domain/Claims.ts"
import * as Policy from "../../../src/domain/Policy.ts"
import { parsePolicyFile, type PolicyFile } from "../../../src/domain/PolicyFile.ts"
import * as PolicyAccessControl from "../../../src/layers/core/PolicyAccessControl.ts"
import { AccessControl } from "../../../src/services/AccessControl.ts"
import { Policies } from "../../../src/services/Policies.ts"

const claims = (policy: Policy.Policy): Claims => ({
  sub: "alice",
  expiresAt: Infinity,
  issuedAt: undefined,
  tokenId: undefined,
  policy
})

const scopes = (...scopes: ReadonlyArray<string>) => claims(Result.getOrThrow(Policy.scopesToPolicy(scopes)))

const test = (title: string, run: (access: AccessControl["Service"]) => void) =>
  it.effect(title, () => Effect.map(AccessControl, run).pipe(Effect.provide(PolicyAccessControl.layer)))

const topic = fc.constantFrom("a", "a.x", "a.y", "b", "b.x")
const pattern = fc.constantFrom("a", "a.*", "a.**", "**", "b.x", "*")
const policy = fc.record({
  rules: fc.array(
    fc.record(
      {
        effect: fc.constantFrom("allow", "deny"),
        action: fc.constantFrom("publish", "subscribe", "admin", "*"),
        topics: fc.oneof(fc.tuple(pattern), fc.tuple(pattern, pattern)),
        groups: fc.oneof(fc.constant("*" as const), fc.tuple(fc.constantFrom("g", "h")))
      },
      { requiredKeys: ["effect", "action", "topics"] }
    ),
    { maxLength: 4 }
  )
})
const request = fc.record(
  {
    action: fc.constantFrom("publish", "subscribe", "admin"),
    topic,
    group: fc.constantFrom("g", "h")
  },
  { requiredKeys: ["action", "topic"] }
)

describe("PolicyAccessControl", () => {
  test("decides as the policy does, however often it is asked", ({ decide }) =>
    fc.assert(
      fc.property(policy, fc.array(request, { maxLength: 30 }), (policy, requests) => {
        const own = claims(policy)
        for (const one of [...requests, ...requests]) {
          expect(decide(own, one)).toEqual(Policy.decide(policy, one))
        }
      }),
      { numRuns: 300 }
    ))

  test("decides about subscriptions as the policy does", ({ decideSubscription }) =>
    fc.assert(
      fc.property(
        policy,
        pattern,
        fc.option(fc.constantFrom("g", "h"), { nil: undefined }),
        (policy, pattern, group) => {
          const wanted = { pattern, group }
          expect(decideSubscription(claims(policy), wanted)).toEqual(
            Policy.decideSubscription(policy, wanted)
          )
        }
      ),
      { numRuns: 300 }
    ))

  test("decides about changes to a pattern as the policy does", ({ decideAdministration }) =>
    fc.assert(
      fc.property(policy, pattern, (policy, pattern) => {
        expect(decideAdministration(claims(policy), pattern)).toEqual(
          Policy.decideAdministration(policy, pattern)
        )
      }),
      { numRuns: 300 }
    ))

  test("remembers nothing from one token to the next", ({ decide }) => {
    const about = { action: "subscribe", topic: "a" } as const
    expect(decide(scopes("subscribe:a"), about)._tag).toBe("Allowed")
    expect(decide(scopes("subscribe:b"), about)._tag).toBe("Denied")
    expect(decide(scopes("subscribe:a"), about)._tag).toBe("Allowed")
  })

  test("decides beyond what it remembers", ({ decide }) => {
    const own = scopes("subscribe:a.*")
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 1_500; i++) {
        expect(decide(own, { action: "subscribe", topic: `a.${i}` })._tag).toBe("Allowed")
        expect(decide(own, { action: "subscribe", topic: `b.${i}` })._tag).toBe("Denied")
      }
    }
  })

  test("never takes one request for another, whatever they are called", ({ decide }) => {
    const own = claims(Result.getOrThrow(Policy.parsePolicy("deny subscribe a group *\nallow subscribe **")))
    const ask = (topic: string, group?: string) => decide(own, { action: "subscribe", topic, group })._tag
    for (let round = 0; round < 2; round++) {
      expect(ask("a")).toBe("Allowed")
      expect(ask("a", "")).toBe("Denied")
      expect(ask("a", "g")).toBe("Denied")
      expect(ask("a g")).toBe("Denied")
      expect(ask("b", "g")).toBe("Allowed")
    }
  })

  test("remembers what was delivered lately, few names to publish to, and none that is denied", ({
    decide
  }) => {
    const own = scopes("*:a.*")
    const isRemembered = (action: "publish" | "subscribe", topic: string) => {
      const [first, second] = [decide(own, { action, topic }), decide(own, { action, topic })]
      return first === second
    }
    expect(isRemembered("subscribe", "a.x")).toBe(true)
    expect(isRemembered("publish", "a.x")).toBe(true)
    // A decision that nothing decided is the same for all.
    const denying = claims(Result.getOrThrow(Policy.parsePolicy("deny publish b.*\nallow publish **")))
    const denied = () => decide(denying, { action: "publish", topic: "b.x" })
    expect(denied()).not.toBe(denied())
    const first = decide(own, { action: "subscribe", topic: "a.x" })
    const published = decide(own, { action: "publish", topic: "a.x" })
    for (let i = 0; i < 32; i++) decide(own, { action: "publish", topic: `a.${i}` })
    expect(decide(own, { action: "publish", topic: "a.x" })).not.toBe(published)
    expect(decide(own, { action: "subscribe", topic: "a.x" })).toBe(first)
    for (let i = 0; i < 256; i++) decide(own, { action: "subscribe", topic: `a.${i}` })
    expect(decide(own, { action: "subscribe", topic: "a.x" })).not.toBe(first)
  })

  test("takes the right to a dead letter and to its original", ({ decide, decideSubscription }) => {
    const letter = { action: "subscribe", topic: "$dead.g.a.x" } as const
    expect(decide(scopes("subscribe:**"), letter)._tag).toBe("Denied")
    expect(decide(scopes("subscribe:$dead.**"), letter)._tag).toBe("Denied")
    expect(decide(scopes("subscribe:$dead.**", "subscribe:a.*"), letter)._tag).toBe("Allowed")
    const letters = { pattern: "$dead.g.a.*" }
    expect(decideSubscription(scopes("subscribe:$dead.**"), letters)._tag).toBe("Denied")
    expect(decideSubscription(scopes("subscribe:$dead.**", "subscribe:a.**"), letters)._tag).toBe("Allowed")
  })

  test("takes the right to what the hub tells of, too", ({ decide, decideSubscription }) => {
    const live = ["subscribe:$hub.**"]
    const isAllowed = (topic: string, ...more: ReadonlyArray<string>) =>
      decide(scopes(...live, ...more), { action: "subscribe", topic })._tag === "Allowed"
    expect(decide(scopes("subscribe:**"), { action: "subscribe", topic: "$hub.stats" })._tag).toBe("Denied")
    expect(isAllowed("$hub.stats")).toBe(true)
    for (const topic of ["$hub.topic.a.x", "$hub.group.g.a.x"]) {
      expect(isAllowed(topic)).toBe(false)
      expect(isAllowed(topic, "subscribe:b")).toBe(false)
      expect(isAllowed(topic, "subscribe:a.*")).toBe(true)
    }
    // What a dead letter takes, and its original.
    expect(isAllowed("$hub.topic.$dead.g.a", "subscribe:$dead.**")).toBe(false)
    expect(isAllowed("$hub.topic.$dead.g.a", "subscribe:a")).toBe(false)
    expect(isAllowed("$hub.topic.$dead.g.a", "subscribe:$dead.**", "subscribe:a")).toBe(true)

    const may = (pattern: string, ...more: ReadonlyArray<string>) =>
      decideSubscription(scopes(...live, ...more), { pattern })._tag === "Allowed"
    expect(may("$hub.*")).toBe(true)
    expect(may("$hub.**", "subscribe:a.**")).toBe(false)
    expect(may("$hub.**", "subscribe:**")).toBe(true)
    expect(may("$hub.*.a.b", "subscribe:a.b")).toBe(false)
    expect(may("$hub.*.a.b", "subscribe:a.b", "subscribe:b")).toBe(true)
    expect(may("$hub.topic.$dead.g.*", "subscribe:$dead.**")).toBe(false)
    expect(may("$hub.topic.$dead.g.*", "subscribe:$dead.**", "subscribe:*")).toBe(true)
  })
})

describe("roles", () => {
  const parse = (text: string) => Result.getOrThrow(parsePolicyFile(text))
  const withRoles = (roles: ReadonlyArray<string>, own: Claims = scopes()): Claims => ({ ...own, roles })

  const testRoles = (
    title: string,
    run: (access: AccessControl["Service"], use: (text: string) => void) => Effect.Effect<void>
  ) => {
    let file: PolicyFile | undefined
    const changes = Effect.runSync(PubSub.unbounded<void>())
    const policies = { current: () => file, changes: Stream.fromPubSub(changes) }
    const use = (text: string) => {
      file = parse(text)
      PubSub.publishUnsafe(changes, undefined)
    }
    return it.effect(title, () =>
      Effect.flatMap(AccessControl, (access) => run(access, use)).pipe(
        Effect.provide(Layer.provide(PolicyAccessControl.layer, Layer.succeed(Policies, policies)))
      )
    )
  }

  const reads = (access: AccessControl["Service"], claims: Claims, topic: string) => [
    access.decide(claims, { action: "subscribe", topic })._tag === "Allowed",
    access.decideSubscription(claims, { pattern: topic })._tag === "Allowed"
  ]

  testRoles("what holds is what the file says now, whatever was decided before", (access, use) =>
    Effect.sync(() => {
      use("role dev: allow subscribe a.**")
      const dev = withRoles(["dev"])
      expect(reads(access, dev, "a.b")).toEqual([true, true])
      const before = access.policyOf(dev)
      expect(access.policyOf(dev)).toBe(before)
      use("role dev:\n deny subscribe a.b\n allow subscribe **\n allow admin x")
      expect(reads(access, dev, "a.b")).toEqual([false, false])
      expect(reads(access, dev, "b")).toEqual([true, true])
      expect(access.decideAdministration(dev, "x")._tag).toBe("Allowed")
      expect(access.policyOf(dev).rules).toHaveLength(3)
    })
  )

  testRoles("a role that is gone leaves no rights at all, not those of scopes either", (access, use) =>
    Effect.sync(() => {
      use("role dev:\n deny subscribe secrets\nrole ops: allow admin **")
      const both = withRoles(["dev", "ops"], scopes("subscribe:**"))
      expect(reads(access, both, "a")).toEqual([true, true])
      expect(reads(access, both, "secrets")).toEqual([false, false])
      use("role ops: allow admin **")
      expect(reads(access, both, "a")).toEqual([false, false])
      expect(access.decideAdministration(both, "a")._tag).toBe("Denied")
      expect(access.policyOf(both)).toEqual(Policy.none)
      expect(reads(access, scopes("subscribe:**"), "secrets")).toEqual([true, true])
    })
  )

  testRoles("tokens with the same roles, and the same in their placeholders, share a policy", (access, use) =>
    Effect.sync(() => {
      use(
        "role tenant: allow subscribe ${claim.tenant}.**\n" +
          "role own:\n deny subscribe a.secret\n allow subscribe users.x group ${sub}"
      )
      const of = (roles: ReadonlyArray<string>, more: Partial<Claims> = {}) =>
        access.policyOf({ ...withRoles(roles), values: { tenant: "a", other: "b" }, ...more })
      const theirs = of(["tenant"])
      expect(of(["tenant"], { sub: "bob", values: { tenant: "a", other: "c" } })).toBe(theirs)
      expect(of(["tenant", "tenant"])).toBe(theirs)
      expect(of(["tenant"], { values: { tenant: "b" } })).not.toBe(theirs)
      expect(of(["tenant"], { values: {} }).rules).toEqual([])
      expect(of(["own"])).toBe(of(["own"], { values: {} }))
      expect(of(["own"])).not.toBe(of(["own"], { sub: "bob" }))
      expect(of(["own", "tenant"]).rules).toHaveLength(3)
      expect(of(["tenant"], { policy: scopes("publish:b").policy }).rules).toHaveLength(2)
      expect(of(["tenant"])).toBe(theirs)
      use("role tenant: allow subscribe ${claim.tenant}.**")
      expect(of(["tenant"])).not.toBe(theirs)
    })
  )

  testRoles("changes tell that decisions may be others", (access, use) =>
    Effect.gen(function* () {
      const told = yield* Effect.forkChild(Stream.runHead(access.changes), { startImmediately: true })
      yield* Effect.yieldNow
      use("role dev:")
      yield* Fiber.join(told)
    })
  )

  test("mean nothing where there is no policy file", (access) => {
    const dev = withRoles(["dev"], scopes("subscribe:a"))
    expect(reads(access, dev, "a")).toEqual([true, true])
    expect(access.policyOf(dev)).toBe(dev.policy)
  })
})
