/**
 * TokenVerifier for JSON Web Tokens: an HS256 secret, or the keys of an issuer by JWKS URL.
 *
 * Following RFC 8725: the algorithms are written out, never taken from the token; subject and expiry are
 * required; audience and issuer are checked where they are configured. jose does the cryptography.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { errors, type JWTPayload, jwtVerify, type JWTVerifyGetKey, type JWTVerifyOptions } from "jose"
import { type Claims, parseClaims } from "../../domain/Claims.ts"
import * as Settings from "../../domain/Settings.ts"
import {
  TokenExpired,
  TokenInvalid,
  TokenVerifier,
  VerifierUnavailable
} from "../../services/TokenVerifier.ts"
import * as Jwks from "./Jwks.ts"

export interface Options {
  readonly keys:
    { readonly _tag: "Secret"; readonly secret: Uint8Array } | { readonly _tag: "Jwks"; readonly url: URL }
  readonly audience?: string | undefined
  readonly issuer?: string | undefined
  readonly clockToleranceMs?: number
}

/** A token of any length is a cheap way to keep a verifier busy. */
const maxTokenLength = 16 * 1024

/** Signatures by a private key: whoever only has the public one cannot make a token (RFC 8725, section 3.1). */
const asymmetric = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519"
]

type Refused = TokenInvalid | TokenExpired | VerifierUnavailable

const invalidReason = (error: unknown): string => {
  if (error instanceof errors.JWTClaimValidationFailed) return `its claim '${error.claim}' does not pass`
  if (error instanceof errors.JWSSignatureVerificationFailed) return "its signature is wrong"
  if (error instanceof errors.JOSEAlgNotAllowed) return "its algorithm is not allowed"
  if (error instanceof errors.JWKSNoMatchingKey) return "no key of the issuer fits it"
  if (error instanceof errors.JWKSMultipleMatchingKeys) return "several keys of the issuer fit it"
  return "it is no signed token"
}

const refusalOf = (error: unknown): Refused => {
  if (error instanceof VerifierUnavailable) return error
  if (error instanceof errors.JWTExpired) return new TokenExpired({ reason: "it has expired" })
  const isEarly =
    error instanceof errors.JWTClaimValidationFailed &&
    error.claim === "nbf" &&
    error.reason === "check_failed"
  return isEarly
    ? new TokenExpired({ reason: "it is not valid yet" })
    : new TokenInvalid({ reason: invalidReason(error) })
}

/** The signature is good, so it is the issuer who has to know what is wrong, and nobody else can fill the log. */
const claimsOf = (payload: JWTPayload): Effect.Effect<Claims, TokenInvalid> =>
  Effect.fromResult(parseClaims(payload)).pipe(
    Effect.tapError((error) =>
      Effect.logWarning("a token was refused").pipe(
        Effect.annotateLogs({ sub: String(payload.sub).slice(0, 256), why: error.message })
      )
    ),
    Effect.mapError((error) => new TokenInvalid({ reason: error.message }))
  )

type Verify = (token: string, options: JWTVerifyOptions) => Promise<{ readonly payload: JWTPayload }>

const bySecret =
  (secret: Uint8Array): Verify =>
  (token, options) =>
    jwtVerify(token, secret, { ...options, algorithms: ["HS256"] })

/** jose asks for a key when all else about the token's header is right, so that garbage costs the issuer nothing. */
const byJwks = (jwks: Jwks.Jwks): Verify => {
  const keyOf: JWTVerifyGetKey = async (header, input) => {
    const known = await Effect.runPromise(jwks.keys)
    try {
      return await known(header, input)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
      const shown = await Effect.runPromise(jwks.reload)
      return shown(header, input)
    }
  }
  return (token, options) => jwtVerify(token, keyOf, { ...options, algorithms: asymmetric })
}

const make = Effect.fnUntraced(function* (options: Options) {
  const clock = yield* Clock.Clock
  const { audience, clockToleranceMs = Settings.auth.clockToleranceMs, issuer, keys } = options
  const verify = keys._tag === "Secret" ? bySecret(keys.secret) : byJwks(yield* Jwks.make(keys.url))

  return TokenVerifier.of({
    verify: (token) => {
      if (token.length > maxTokenLength) return Effect.fail(new TokenInvalid({ reason: "it is too long" }))
      return Effect.tryPromise({
        try: () =>
          verify(token, {
            requiredClaims: ["sub", "exp"],
            clockTolerance: clockToleranceMs / 1000,
            currentDate: new Date(clock.currentTimeMillisUnsafe()),
            ...(audience === undefined ? {} : { audience }),
            ...(issuer === undefined ? {} : { issuer })
          }),
        catch: refusalOf
      }).pipe(Effect.flatMap(({ payload }) => claimsOf(payload)))
    }
  })
})

export const layer = (options: Options): Layer.Layer<TokenVerifier> =>
  Layer.effect(TokenVerifier, make(options))
