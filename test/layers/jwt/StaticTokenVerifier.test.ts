/** The one configured token, and what stands behind it. */
import crypto from "node:crypto"
import { syncBuiltinESMExports } from "node:module"
import { describe, expect, it, vi } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Policy from "../../../src/domain/Policy.ts"
import * as StaticTokenVerifier from "../../../src/layers/jwt/StaticTokenVerifier.ts"
import { TokenExpired, TokenVerifier } from "../../../src/services/TokenVerifier.ts"

const verify = (token: string) => TokenVerifier.use((verifier) => verifier.verify(token))

describe("StaticTokenVerifier", () => {
  it.effect("lets its token publish and subscribe everywhere, for ever, and administer nothing", () =>
    Effect.gen(function* () {
      const { expiresAt, policy, sub } = yield* verify("the token")
      expect([sub, expiresAt]).toEqual(["static", Infinity])
      const may = (action: "publish" | "subscribe" | "admin", topic: string) =>
        Policy.decide(policy, { action, topic })._tag
      expect(may("publish", "any.topic")).toBe("Allowed")
      expect(may("subscribe", "any.topic")).toBe("Allowed")
      expect(may("admin", "any.topic")).toBe("Denied")
      expect(may("subscribe", "$dead.g.any.topic")).toBe("Denied")
    }).pipe(Effect.provide(StaticTokenVerifier.layer("the token", undefined)))
  )

  it.effect("refuses any other token, of any length", () =>
    Effect.gen(function* () {
      for (const token of ["", "the toke", "the token ", "THE TOKEN", "x".repeat(1_000_000)]) {
        expect((yield* Effect.flip(verify(token)))._tag).toBe("TokenInvalid")
      }
    }).pipe(Effect.provide(StaticTokenVerifier.layer("the token", undefined)))
  )

  it.effect("hands any other token on to the verifier behind, and its own to nobody", () => {
    const asked: Array<string> = []
    const behind = Layer.succeed(TokenVerifier, {
      verify: (token) => {
        asked.push(token)
        return Effect.fail(new TokenExpired({ reason: "it has expired" }))
      }
    })
    return Effect.gen(function* () {
      expect((yield* verify("the token")).sub).toBe("static")
      expect((yield* Effect.flip(verify("another")))._tag).toBe("TokenExpired")
      expect(asked).toEqual(["another"])
    }).pipe(Effect.provide(StaticTokenVerifier.layer("the token", behind)))
  })

  it.effect("compares digests of one length, whatever was sent, and never the tokens", () =>
    Effect.gen(function* () {
      const compared: Array<readonly [number, number]> = []
      const compare = vi.spyOn(crypto, "timingSafeEqual").mockImplementation((a, b) => {
        compared.push([a.byteLength, b.byteLength])
        return false
      })
      syncBuiltinESMExports()
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          compare.mockRestore()
          syncBuiltinESMExports()
        })
      )
      const sent = ["", "t", "the toke", "the token", "the tokens", "x".repeat(1_000_000)]
      for (const token of sent) expect((yield* Effect.flip(verify(token)))._tag).toBe("TokenInvalid")
      expect(compared).toEqual(sent.map(() => [32, 32]))
    }).pipe(Effect.provide(StaticTokenVerifier.layer("the token", undefined)))
  )
})
