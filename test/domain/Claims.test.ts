/**
 * Claims: a payload that says anything else than it should is refused as a whole, and the policy of one that
 * does not is the embedded one, else that of its scopes, else none.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import * as Claims from "../../src/domain/Claims.ts"
import * as Policy from "../../src/domain/Policy.ts"

const valid = { sub: "alice", exp: 2_000_000_000, scopes: ["subscribe:orders.**"] }
const refusal = (payload: unknown): string =>
  Result.getOrThrow(Result.flip(Claims.parseClaims(payload))).message
const accepted = (payload: unknown): Claims.Claims => Result.getOrThrow(Claims.parseClaims(payload))

const without = (name: keyof typeof valid) =>
  Object.fromEntries(Object.entries(valid).filter(([field]) => field !== name))

describe("Claims", () => {
  it("are the subject, the times in milliseconds, the token's id and the policy", () => {
    expect(accepted({ ...valid, iat: 1_900_000_000.5, jti: "t-1", aud: "hub", iss: "https://idp" })).toEqual({
      sub: "alice",
      expiresAt: 2_000_000_000_000,
      issuedAt: 1_900_000_000_500,
      tokenId: "t-1",
      policy: { rules: [{ effect: "allow", action: "subscribe", topics: ["orders.**"] }] }
    })
    expect(accepted(valid)).toMatchObject({ issuedAt: undefined, tokenId: undefined })
  })

  it.each(["sub", "exp"] as const)("are refused without '%s'", (name) => {
    expect(refusal(without(name))).toMatch(name)
  })

  it("give no rights without scopes and policy", () => {
    expect(accepted(without("scopes")).policy).toEqual(Policy.none)
    expect(accepted({ ...valid, scopes: [] }).policy).toEqual(Policy.none)
  })

  const unusable: ReadonlyArray<readonly [what: string, field: string, value: unknown]> = [
    ["an empty subject", "sub", ""],
    ["a subject of more than 256 characters", "sub", "a".repeat(257)],
    ["a subject that is no string", "sub", 7],
    ["an expiry that is a string", "exp", "2000000000"],
    ["an expiry that is infinite", "exp", Infinity],
    ["an expiry that is null", "exp", null],
    ["a time of issue that is a string", "iat", "now"],
    ["a token id that is a number", "jti", 1],
    ["scopes in one string, as OAuth writes them", "scopes", "publish:a subscribe:b"],
    ["scopes that are no strings", "scopes", ["publish:a", 1]],
    ["scopes that are an object", "scopes", { "publish:a": true }],
    ["scopes that are null", "scopes", null],
    ["a malformed scope among good ones", "scopes", ["publish:a", "subscribe"]],
    ["a scope without a pattern", "scopes", ["publish:"]],
    ["a policy that is null", "policy", null],
    ["a policy in the text form", "policy", "allow publish a"],
    ["a policy without rules", "policy", {}],
    [
      "a policy with an unknown action",
      "policy",
      { rules: [{ effect: "allow", action: "read", topics: ["a"] }] }
    ],
    [
      "a policy with an invalid pattern",
      "policy",
      { rules: [{ effect: "deny", action: "*", topics: ["a*"] }] }
    ]
  ]
  it.each(unusable)("with %s are refused", (_, field, value) => {
    const message = refusal({ ...valid, [field]: value })
    expect(message).toMatch(/^the token's claims cannot be used: /)
    expect(message).toMatch(field === "scopes" ? /scope/ : field)
  })

  it("with a rule that holds an unknown field are refused: it may be one that was meant to restrict", () => {
    const rule = { effect: "allow", action: "subscribe", topics: ["a"] }
    expect(accepted({ ...valid, policy: { rules: [rule] } }).policy).toEqual({ rules: [rule] })
    expect(refusal({ ...valid, policy: { rules: [{ ...rule, group: "g" }] } })).toMatch(/group/)
    expect(refusal({ ...valid, policy: { rules: [rule], version: 2 } })).toMatch(/version/)
  })

  it("take an embedded policy before scopes, and do not fall back on scopes when it is wrong", () => {
    const policy = { rules: [{ effect: "deny", action: "*", topics: ["**"] }] }
    expect(accepted({ ...valid, policy }).policy).toEqual(policy)
    expect(refusal({ ...valid, policy: { rules: [{}] } })).toMatch(/policy/)
  })

  it("hold limits where the token has some, and are refused when these cannot be used", () => {
    expect(accepted(valid)).not.toHaveProperty("limits")
    expect(accepted({ ...valid, limits: { messages: { perSecond: 5 } } }).limits).toEqual({
      connection: { messages: { perSecond: 5, burst: 5 }, bytes: undefined },
      subject: { messages: undefined, bytes: undefined },
      topics: []
    })
    for (const limits of [null, 5, [], { messages: 5 }, { topics: "a" }]) {
      expect(refusal({ ...valid, limits })).toMatch(/^the token's claims cannot be used: limits: /)
    }
  })

  it("keep roles, with what can fill placeholders of their rules", () => {
    const roles = ["dev", "ops"]
    expect(accepted({ ...valid, roles, tenant: 7, team: "a.b", site: "eu" })).toMatchObject({
      roles,
      values: { sub: "alice", tenant: "7", site: "eu" },
      policy: { rules: [{ topics: ["orders.**"] }] }
    })
    for (const none of [{}, { roles: [] }, { roles, policy: { rules: [] } }]) {
      const claims = accepted({ ...valid, tenant: 7, ...none })
      expect(Object.keys(claims)).not.toEqual(expect.arrayContaining(["roles"]))
      expect(claims.values).toBeUndefined()
    }
  })

  it.each([null, "dev", 5, {}, [5], ["dev", null]])(
    "with roles that are %j say so, and have none",
    (roles) => {
      const claims = accepted({ ...valid, roles })
      expect(claims).toMatchObject({ hasBadRoles: true })
      expect(claims.roles).toBeUndefined()
    }
  )

  it("of a token that is no object are refused", () => {
    for (const payload of [undefined, null, "alice", 7, [], [valid]]) {
      expect(refusal(payload)).toMatch(/cannot be used/)
    }
  })

  it("never come from a payload with one field replaced by something of another kind", () => {
    const kinds = [null, true, 7, "text", [], [7], {}]
    const kindOf = (value: unknown) =>
      Array.isArray(value) ? "array" : value === null ? "null" : typeof value
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.entries(valid)),
        fc.constantFrom(...kinds),
        ([name, value], other) => {
          fc.pre(kindOf(other) !== kindOf(value))
          expect(Result.isFailure(Claims.parseClaims({ ...valid, [name]: other }))).toBe(true)
        }
      )
    )
  })

  it("are the same as an Effect", () => {
    for (const payload of [valid, without("sub")]) {
      expect(Effect.runSync(Effect.result(Claims.claims(payload)))).toEqual(Claims.parseClaims(payload))
    }
  })
})
