/** A verifier in front of which stands what was revoked. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import * as Policy from "../../../src/domain/Policy.ts"
import * as RevocableTokenVerifier from "../../../src/layers/core/RevocableTokenVerifier.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as StoreRevocations from "../../../src/layers/core/StoreRevocations.ts"
import * as MemoryRevocationStore from "../../../src/layers/memory/MemoryRevocationStore.ts"
import { Revocations } from "../../../src/services/Revocations.ts"
import { TokenExpired, TokenVerifier } from "../../../src/services/TokenVerifier.ts"

const claims = { sub: "alice", expiresAt: Infinity, issuedAt: 1_000, tokenId: "t", policy: Policy.none }

const layer = RevocableTokenVerifier.layer(
  Layer.succeed(TokenVerifier, {
    verify: (token) =>
      token === "good" ? Effect.succeed(claims) : Effect.fail(new TokenExpired({ reason: "it has expired" }))
  })
).pipe(
  Layer.provideMerge(
    StoreRevocations.layer().pipe(Layer.provide([MemoryRevocationStore.layer, RandomIds.layer]))
  )
)

describe("RevocableTokenVerifier", () => {
  it.effect("takes what the verifier takes, until it is revoked", () =>
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      const { revoke } = yield* Revocations
      expect(yield* verify("good")).toBe(claims)
      yield* revoke({ _tag: "Subject", sub: "bob", issuedBefore: 2_000 })
      expect(yield* verify("good")).toBe(claims)
      yield* revoke({ _tag: "Token", tokenId: "t" })
      expect(yield* Effect.flip(verify("good"))).toMatchObject({
        _tag: "TokenInvalid",
        reason: "it was revoked"
      })
    }).pipe(Effect.provide(layer))
  )

  it.effect("takes none while nobody can tell what was revoked", () => {
    const known = { isCurrent: true }
    const unsure = Layer.succeed(Revocations, {
      revoke: () => Effect.never,
      remove: () => Effect.never,
      list: () => Effect.never,
      isRevoked: ({ sub }) => sub === "mallory",
      isCurrent: () => known.isCurrent,
      changes: Stream.never
    })
    const verifier = Layer.succeed(TokenVerifier, { verify: (sub) => Effect.succeed({ ...claims, sub }) })
    return Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      expect(yield* verify("alice")).toMatchObject({ sub: "alice" })
      known.isCurrent = false
      expect((yield* Effect.flip(verify("alice")))._tag).toBe("VerifierUnavailable")
      // What is known holds on.
      expect((yield* Effect.flip(verify("mallory")))._tag).toBe("TokenInvalid")
      known.isCurrent = true
      expect(yield* verify("alice")).toMatchObject({ sub: "alice" })
    }).pipe(Effect.provide(RevocableTokenVerifier.layer(verifier).pipe(Layer.provide(unsure))))
  })

  it.effect("refuses what the verifier refuses, for its reason", () =>
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      expect((yield* Effect.flip(verify("old")))._tag).toBe("TokenExpired")
    }).pipe(Effect.provide(layer))
  )
})
