/**
 * TokenVerifier for JSON Web Tokens: by secrets, by the keys of an issuer at the URL of its JWK Set, or in a file.
 *
 * Following RFC 8725: the algorithms are those of the keys, never the token's choice; a key that a token brings, or names
 * the address of, is not looked at; subject and expiry are required, audience and issuer where they are configured.
 * jose does the cryptography, and nothing of the payload is believed before.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { type Claims, parseClaims } from "../../domain/Claims.ts"
import type { JsonObject } from "../../domain/Json.ts"
import * as Settings from "../../domain/Settings.ts"
import type { CannotUseFile, ConfigFiles } from "../../services/ConfigFiles.ts"
import { TokenExpired, TokenInvalid, TokenVerifier } from "../../services/TokenVerifier.ts"
import * as Jwks from "./Jwks.ts"
import * as Keys from "./Keys.ts"
import { readToken } from "./readToken.ts"
import { claimProblems, headerProblems } from "./tokenProblems.ts"

export interface Expectations {
  readonly audience?: string | undefined
  readonly issuer?: string | undefined
  readonly settings?: Partial<Settings.AuthSettings> | undefined
}

export interface Options extends Expectations {
  readonly keys:
    | { readonly _tag: "Secrets"; readonly secrets: ReadonlyArray<Uint8Array> }
    | ({ readonly _tag: "Jwks" } & Jwks.Options)
}

export interface FileOptions extends Expectations {
  readonly path: string
  /** The setting that names the file, for people. */
  readonly what: string
}

const invalid = (reason: string) => Effect.fail(new TokenInvalid({ reason }))

const orInvalid = <A>(read: Result.Result<A, string>): Effect.Effect<A, TokenInvalid> =>
  Effect.fromResult(Result.mapError(read, (reason) => new TokenInvalid({ reason })))

/** The signature is good, so it is the issuer who has to know what is wrong. */
const claimsOf = (payload: JsonObject): Effect.Effect<Claims, TokenInvalid> =>
  Effect.fromResult(parseClaims(payload)).pipe(
    Effect.mapError(
      ({ message }) => new TokenInvalid({ reason: message, sub: String(payload["sub"]).slice(0, 256) })
    )
  )

/** What a token is refused for when it is old ends also what was begun with it when it was not. */
const endingWithAge = (claims: Claims, { maxTokenAgeMs }: Settings.AuthSettings): Claims =>
  claims.issuedAt === undefined || maxTokenAgeMs === undefined
    ? claims
    : { ...claims, expiresAt: Math.min(claims.expiresAt, claims.issuedAt + maxTokenAgeMs) }

const make = Effect.fnUntraced(function* (keys: Keys.Keys, expectations: Expectations) {
  const clock = yield* Clock.Clock
  const expected = { ...expectations, settings: { ...Settings.auth, ...expectations.settings } }
  const { settings } = expected

  const verify = Effect.fnUntraced(function* (token: string) {
    // Longer ones are a cheap way to keep a verifier busy. What is no ASCII is refused below.
    if (token.length > settings.maxTokenBytes) return yield* invalid("it is too long")
    const { header, payload } = yield* orInvalid(readToken(token))
    const [wrong] = headerProblems(header, keys.algorithms, settings)
    if (wrong !== undefined) return yield* invalid(wrong)

    const alg = String(header["alg"])
    const kid = typeof header["kid"] === "string" ? header["kid"] : undefined
    const found = yield* keys.find({ alg, kid })
    if (found.length === 0) return yield* invalid("no key of the issuer fits it")
    if (!(yield* Effect.promise(() => Keys.isSignedBy(found, token, alg))))
      return yield* invalid("its signature is wrong")

    const said = yield* orInvalid(payload())
    const [problem] = claimProblems(said, expected, clock.currentTimeMillisUnsafe())
    if (problem?.isTime === true) return yield* new TokenExpired({ reason: problem.reason })
    if (problem !== undefined) return yield* invalid(problem.reason)
    return endingWithAge(yield* claimsOf(said), settings)
  })

  return TokenVerifier.of({ verify })
})

export const layer = (options: Options): Layer.Layer<TokenVerifier> => {
  const { keys } = options
  return Layer.effect(
    TokenVerifier,
    Effect.flatMap(
      keys._tag === "Secrets" ? Effect.succeed(Keys.ofSecrets(keys.secrets)) : Jwks.make(keys),
      (keys) => make(keys, options)
    )
  )
}

/** By the keys of a file, as it is at the time; at the start it must have some. */
export const layerFile = (options: FileOptions): Layer.Layer<TokenVerifier, CannotUseFile, ConfigFiles> =>
  Layer.effect(
    TokenVerifier,
    Effect.flatMap(Keys.ofFile(options), (keys) => make(keys, options))
  )
