/** Tokens by the keys of a file: as it is at the time, and not at all without one to begin with. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, PubSub, Result, Stream } from "effect"
import type { JWTPayload } from "jose"
import * as JwtTokenVerifier from "../../../src/layers/jwt/JwtTokenVerifier.ts"
import { CannotUseFile, ConfigFiles, type FileOptions } from "../../../src/services/ConfigFiles.ts"
import { TokenVerifier } from "../../../src/services/TokenVerifier.ts"
import { type IssuerKey, makeKey, sign } from "./Issuer.ts"

const good: JWTPayload = { sub: "alice", exp: 10_000 }

/** One file in memory: what is written is taken, or not, as ConfigFiles promises. */
const memoryFile = (first: string) => {
  let write: (text: string) => string | undefined = () => undefined
  const layer = Layer.succeed(ConfigFiles, {
    reload: Effect.void,
    follow: <A>({ parse, what }: FileOptions<A>) =>
      Effect.gen(function* () {
        const changes = yield* PubSub.unbounded<A>()
        const parsed = parse([first])
        if (Result.isFailure(parsed)) return yield* new CannotUseFile({ what, reason: parsed.failure })
        let value = parsed.success
        write = (text) => {
          const next = parse([text])
          if (Result.isFailure(next)) return next.failure
          value = next.success
          PubSub.publishUnsafe(changes, value)
          return undefined
        }
        return { current: () => value, changes: Stream.fromPubSub(changes) }
      })
  })
  return { layer, write: (text: string) => write(text) }
}

const setOf = (...keys: ReadonlyArray<IssuerKey>): string =>
  JSON.stringify({ keys: keys.map(({ jwk }) => jwk) })

const options = { path: "keys.json", what: "JWT_JWKS_FILE" }

describe("JwtTokenVerifier with a JWKS file", () => {
  it.effect(
    "takes tokens by its keys, then by those of the next state; one that is bad changes nothing",
    () =>
      Effect.gen(function* () {
        const [a, b] = [yield* makeKey("a", "ES256"), yield* makeKey("b", "EdDSA")]
        const file = memoryFile(setOf(a))
        const context = yield* Layer.build(
          JwtTokenVerifier.layerFile(options).pipe(Layer.provide(file.layer))
        )
        const { verify } = Context.get(context, TokenVerifier)
        const [byA, byB] = [yield* sign(a, good), yield* sign(b, good)]
        expect((yield* verify(byA)).sub).toBe("alice")
        expect((yield* Effect.flip(verify(byB))).reason).toBe("no key of the issuer fits it")
        for (const bad of ["", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`]) {
          expect(file.write(bad)).toMatch(/^keys\.json (is no|has no usable key)/)
          expect((yield* verify(byA)).sub).toBe("alice")
        }
        expect(file.write(setOf(a, b))).toBe(undefined)
        expect((yield* verify(byA)).sub).toBe("alice")
        expect((yield* verify(byB)).sub).toBe("alice")
        expect(file.write(setOf(b))).toBe(undefined)
        expect((yield* Effect.flip(verify(byA)))._tag).toBe("TokenInvalid")
        expect((yield* verify(byB)).sub).toBe("alice")
      })
  )

  it.effect("does not begin without a usable key", () =>
    Effect.gen(function* () {
      for (const bad of ["", "[]", `{"keys":[]}`, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`]) {
        const built = yield* Effect.exit(
          Layer.build(JwtTokenVerifier.layerFile(options).pipe(Layer.provide(memoryFile(bad).layer)))
        )
        expect(Exit.isFailure(built)).toBe(true)
        expect(String(built)).toContain("CannotUseFile")
        expect(String(built)).not.toContain("c2VjcmV0")
      }
    })
  )
})
