/** Which tokens a revocation concerns, and when it may be forgotten. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Claims } from "../../src/domain/Claims.ts"
import * as Policy from "../../src/domain/Policy.ts"
import { concerns, isEntry, makeIndex, type Revocation, untilOf } from "../../src/domain/Revocation.ts"

const subs = fc.constantFrom("alice", "bob", "__proto__", "")
const tokenIds = fc.constantFrom("t1", "t2", "constructor")
const times = fc.integer({ min: 0, max: 20 })

const claimsOf: fc.Arbitrary<Claims> = fc.record({
  sub: subs,
  expiresAt: fc.constant(Infinity),
  issuedAt: fc.option(times, { nil: undefined }),
  tokenId: fc.option(tokenIds, { nil: undefined }),
  policy: fc.constant(Policy.none)
})

const revocations: fc.Arbitrary<Revocation> = fc.oneof(
  fc.record({ _tag: fc.constant("Token" as const), tokenId: tokenIds }),
  fc.record({ _tag: fc.constant("Subject" as const), sub: subs, issuedBefore: times }),
  fc.record({ _tag: fc.constant("IssuedBefore" as const), issuedBefore: times })
)

describe("Revocation", () => {
  it("an index refuses what any of its revocations concerns, in whatever order they came", () => {
    fc.assert(
      fc.property(fc.array(revocations, { maxLength: 8 }), claimsOf, fc.nat(8), (all, claims, at) => {
        const index = makeIndex(all.slice(0, at))
        for (const what of all.slice(at)) index.add(what)
        expect(index.isRevoked(claims)).toBe(all.some((what) => concerns(what, claims)))
        expect(makeIndex(all.toReversed()).isRevoked(claims)).toBe(index.isRevoked(claims))
      })
    )
  })

  it("a token without an id cannot be meant by one; without a time it was issued before any", () => {
    const claims = {
      sub: "alice",
      expiresAt: Infinity,
      issuedAt: undefined,
      tokenId: undefined,
      policy: Policy.none
    }
    expect(concerns({ _tag: "Token", tokenId: "undefined" }, claims)).toBe(false)
    expect(concerns({ _tag: "Subject", sub: "alice", issuedBefore: 0 }, claims)).toBe(true)
    expect(concerns({ _tag: "IssuedBefore", issuedBefore: 0 }, claims)).toBe(true)
    expect(concerns({ _tag: "Subject", sub: "bob", issuedBefore: 0 }, claims)).toBe(false)
  })

  it("a time is that before which: what was issued then is good", () => {
    const claims = { sub: "a", expiresAt: 9, issuedAt: 5, tokenId: undefined, policy: Policy.none }
    expect(concerns({ _tag: "IssuedBefore", issuedBefore: 5 }, claims)).toBe(false)
    expect(concerns({ _tag: "IssuedBefore", issuedBefore: 6 }, claims)).toBe(true)
  })

  it("is never forgotten while a token that it concerns could be taken", () => {
    fc.assert(
      fc.property(
        revocations,
        fc.record({
          revokedAt: times,
          maxTokenAgeMs: fc.nat(50),
          clockToleranceMs: fc.nat(10),
          issuedAt: times,
          skew: fc.integer({ min: -10, max: 10 }),
          now: fc.nat(200)
        }),
        (what, { clockToleranceMs, issuedAt, maxTokenAgeMs, now, revokedAt, skew }) => {
          const until = untilOf(what, { revokedAt }, { maxTokenAgeMs, clockToleranceMs })!
          const claims = {
            sub: "alice",
            tokenId: "t1",
            expiresAt: Infinity,
            issuedAt: what._tag === "Token" ? Math.min(issuedAt, revokedAt + clockToleranceMs) : issuedAt,
            policy: Policy.none
          }
          const isTooOld =
            now + Math.max(-clockToleranceMs, Math.min(clockToleranceMs, skew)) >
            claims.issuedAt + maxTokenAgeMs + clockToleranceMs
          if (concerns(what, claims) && now > until + clockToleranceMs) expect(isTooOld).toBe(true)
        }
      )
    )
  })

  it("is never forgotten where it may be about a token without an age", () => {
    const life = { maxTokenAgeMs: 50, clockToleranceMs: 5, hasAgeless: true }
    for (const what of [
      { _tag: "Subject", sub: "a", issuedBefore: 1 },
      { _tag: "IssuedBefore", issuedBefore: 1 }
    ] as const) {
      expect(untilOf(what, { revokedAt: 1 }, life)).toBeUndefined()
    }
    expect(untilOf({ _tag: "Token", tokenId: "t" }, { revokedAt: 1 }, life)).toBe(61)
  })

  it("is never forgotten where nothing says when tokens end", () => {
    const life = { maxTokenAgeMs: undefined, clockToleranceMs: 5 }
    expect(untilOf({ _tag: "Token", tokenId: "t" }, { revokedAt: 1 }, life)).toBeUndefined()
    expect(untilOf({ _tag: "Token", tokenId: "t" }, { revokedAt: 1, expiresAt: 10 }, life)).toBe(15)
    expect(
      untilOf({ _tag: "Subject", sub: "a", issuedBefore: 1 }, { revokedAt: 1, expiresAt: 10 }, life)
    ).toBeUndefined()
  })
})

describe("an entry", () => {
  const entry = { id: "1", what: { _tag: "Token", tokenId: "t" }, revokedAt: 1, by: "olga" }

  it.each([
    entry,
    { ...entry, reason: "why", until: 5, more: true },
    { ...entry, what: { _tag: "Subject", sub: "a", issuedBefore: 1 } },
    { ...entry, what: { _tag: "IssuedBefore", issuedBefore: 1 } }
  ])("is %j", (value) => expect(isEntry(value)).toBe(true))

  it.each([
    null,
    "1",
    {},
    { ...entry, id: 1 },
    { ...entry, by: undefined },
    { ...entry, what: null },
    { ...entry, what: { _tag: "Token" } },
    { ...entry, what: { _tag: "Subject", sub: "a" } },
    { ...entry, what: { _tag: "IssuedBefore", issuedBefore: "1" } },
    { ...entry, what: { _tag: "constructor" } },
    { ...entry, revokedAt: "now" },
    { ...entry, until: null },
    { ...entry, reason: 1 }
  ])("is not %j", (value) => expect(isEntry(value)).toBe(false))
})
