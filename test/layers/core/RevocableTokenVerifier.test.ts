/** A verifier in front of which stands what was revoked. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Policy from "../../../src/domain/Policy.ts"
import * as RevocableTokenVerifier from "../../../src/layers/core/RevocableTokenVerifier.ts"
import * as MemoryRevocations from "../../../src/layers/memory/MemoryRevocations.ts"
import { Revocations } from "../../../src/services/Revocations.ts"
import { TokenExpired, TokenVerifier } from "../../../src/services/TokenVerifier.ts"

const claims = { sub: "alice", expiresAt: Infinity, issuedAt: 1_000, tokenId: "t", policy: Policy.none }

const layer = RevocableTokenVerifier.layer(
  Layer.succeed(TokenVerifier, {
    verify: (token) =>
      token === "good" ? Effect.succeed(claims) : Effect.fail(new TokenExpired({ reason: "it has expired" }))
  })
).pipe(Layer.provideMerge(MemoryRevocations.layer))

describe("RevocableTokenVerifier", () => {
  it.effect("takes what the verifier takes, until it is revoked", () =>
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      const { revoke } = yield* Revocations
      expect(yield* verify("good")).toBe(claims)
      yield* revoke({ _tag: "Subject", sub: "bob", issuedBefore: Infinity })
      expect(yield* verify("good")).toBe(claims)
      yield* revoke({ _tag: "Token", tokenId: "t" })
      expect(yield* Effect.flip(verify("good"))).toMatchObject({
        _tag: "TokenInvalid",
        reason: "it was revoked"
      })
    }).pipe(Effect.provide(layer))
  )

  it.effect("refuses what the verifier refuses, for its reason", () =>
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      expect((yield* Effect.flip(verify("old")))._tag).toBe("TokenExpired")
    }).pipe(Effect.provide(layer))
  )
})
