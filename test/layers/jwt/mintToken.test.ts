/** Tokens that we make are tokens that we take. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { decodeJwt, decodeProtectedHeader } from "jose"
import * as JwtTokenVerifier from "../../../src/layers/jwt/JwtTokenVerifier.ts"
import { mintToken } from "../../../src/layers/jwt/mintToken.ts"
import { TokenVerifier } from "../../../src/services/TokenVerifier.ts"

const secret = new Uint8Array(32).fill(9)
const mint = { secret, sub: "alice", scopes: ["publish:a", "subscribe:b.*"], ttlMs: 1_500 }

const verifying = (options: Partial<JwtTokenVerifier.Options> = {}) => {
  const layer = JwtTokenVerifier.layer({
    keys: { _tag: "Secrets", secrets: [secret] },
    settings: { clockToleranceMs: 0 },
    ...options
  })
  return (token: string) => TokenVerifier.use(({ verify }) => verify(token)).pipe(Effect.provide(layer))
}

describe("mintToken", () => {
  it.effect("makes what the verifier takes, for at least the time that is asked for", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(10_999)
      const token = yield* mintToken(mint)
      expect(decodeProtectedHeader(token)).toEqual({ alg: "HS256", typ: "JWT" })
      expect(decodeJwt(token)).toEqual({ sub: "alice", scopes: mint.scopes, iat: 10, exp: 12 })
      expect(yield* verifying()(token)).toMatchObject({
        sub: "alice",
        issuedAt: 10_000,
        policy: {
          rules: [
            { effect: "allow", action: "publish", topics: ["a"] },
            { effect: "allow", action: "subscribe", topics: ["b.*"] }
          ]
        }
      })
      yield* TestClock.setTime(12_000)
      expect((yield* Effect.flip(verifying()(token)))._tag).toBe("TokenExpired")
    })
  )

  it.effect("names the audience and the issuer", () =>
    Effect.gen(function* () {
      const named = { audience: "hub", issuer: "us" }
      const token = yield* mintToken({ ...mint, ...named })
      expect((yield* verifying(named)(token)).sub).toBe("alice")
      expect((yield* Effect.flip(verifying({ audience: "other" })(token)))._tag).toBe("TokenInvalid")
    })
  )
})
