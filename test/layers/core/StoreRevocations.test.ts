/** What is refused after a revocation, and who hears of it. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import type { Claims } from "../../../src/domain/Claims.ts"
import * as Policy from "../../../src/domain/Policy.ts"
import * as MemoryRevocations from "../../../src/layers/memory/MemoryRevocations.ts"
import { Revocations } from "../../../src/services/Revocations.ts"

const claims = (more: Partial<Claims> = {}): Claims => ({
  sub: "alice",
  expiresAt: Infinity,
  issuedAt: 1_000,
  tokenId: "t1",
  policy: Policy.none,
  ...more
})

const test = <E>(title: string, run: (revocations: Revocations["Service"]) => Effect.Effect<void, E>) =>
  it.effect(title, () => Effect.flatMap(Revocations, run).pipe(Effect.provide(MemoryRevocations.layer)))

describe("MemoryRevocations", () => {
  test("refuse nothing before something is revoked", ({ isRevoked }) =>
    Effect.sync(() => {
      expect(isRevoked(claims())).toBe(false)
      expect(isRevoked(claims({ issuedAt: undefined, tokenId: undefined }))).toBe(false)
    }))

  test("refuse one token by its id", ({ isRevoked, revoke }) =>
    Effect.gen(function* () {
      yield* revoke({ _tag: "Token", tokenId: "t1" })
      expect(isRevoked(claims())).toBe(true)
      expect(isRevoked(claims({ tokenId: "t2" }))).toBe(false)
      expect(isRevoked(claims({ tokenId: undefined }))).toBe(false)
    }))

  test("refuse what a subject got before a time, and what it got at no time", ({ isRevoked, revoke }) =>
    Effect.gen(function* () {
      yield* revoke({ _tag: "Subject", sub: "alice", issuedBefore: 1_000 })
      expect(isRevoked(claims({ issuedAt: 999 }))).toBe(true)
      expect(isRevoked(claims({ issuedAt: 1_000 }))).toBe(false)
      expect(isRevoked(claims({ issuedAt: undefined }))).toBe(true)
      expect(isRevoked(claims({ issuedAt: 999, sub: "bob" }))).toBe(false)
      expect(isRevoked(claims({ issuedAt: undefined, sub: "bob" }))).toBe(false)
    }))

  test("refuse what anybody got before a time", ({ isRevoked, revoke }) =>
    Effect.gen(function* () {
      yield* revoke({ _tag: "IssuedBefore", issuedBefore: 1_000 })
      expect(isRevoked(claims({ issuedAt: 999, sub: "bob" }))).toBe(true)
      expect(isRevoked(claims({ issuedAt: undefined }))).toBe(true)
      expect(isRevoked(claims({ issuedAt: 1_000 }))).toBe(false)
    }))

  test("never take back what was revoked", ({ isRevoked, revoke }) =>
    Effect.gen(function* () {
      yield* revoke({ _tag: "Subject", sub: "alice", issuedBefore: 2_000 })
      yield* revoke({ _tag: "Subject", sub: "alice", issuedBefore: 500 })
      expect(isRevoked(claims())).toBe(true)
      yield* revoke({ _tag: "IssuedBefore", issuedBefore: 3_000 })
      yield* revoke({ _tag: "IssuedBefore", issuedBefore: 100 })
      expect(isRevoked(claims({ issuedAt: 2_500, sub: "bob" }))).toBe(true)
    }))

  test("tell whoever has a session, each of them, after they are in force", ({
    changes,
    isRevoked,
    revoke
  }) =>
    Effect.gen(function* () {
      const seen: Array<boolean> = []
      const listen = Effect.forkChild(
        changes.pipe(
          Stream.take(1),
          Stream.runForEach(() => Effect.sync(() => seen.push(isRevoked(claims()))))
        ),
        { startImmediately: true }
      )
      const sessions = [yield* listen, yield* listen]
      yield* Effect.yieldNow
      yield* revoke({ _tag: "Token", tokenId: "t1" })
      yield* Fiber.joinAll(sessions)
      expect(seen).toEqual([true, true])
    }))
})
