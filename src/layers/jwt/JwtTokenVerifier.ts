/**
 * TokenVerifier for JSON Web Tokens: an HS256 secret, or the keys of an issuer by JWKS URL.
 *
 * Following RFC 8725: the algorithms are written out, never taken from the token; subject and expiry are
 * required; audience and issuer are checked where they are configured. jose does the cryptography.
 */
import { Clock, Effect, Layer, Result } from "effect"
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify, type JWTVerifyOptions } from "jose"
import { type Claims, parseClaims } from "../../domain/Claims.ts"
import * as Settings from "../../domain/Settings.ts"
import {
  TokenExpired,
  TokenInvalid,
  TokenVerifier,
  VerifierUnavailable
} from "../../services/TokenVerifier.ts"

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

const refusalOf = (error: unknown): Refused => {
  if (error instanceof errors.JWTExpired) return new TokenExpired({ reason: "it has expired" })
  if (
    error instanceof errors.JWTClaimValidationFailed &&
    error.claim === "nbf" &&
    error.reason === "check_failed"
  ) {
    return new TokenExpired({ reason: "it is not valid yet" })
  }
  if (error instanceof errors.JWKSTimeout)
    return new VerifierUnavailable({ reason: "the JWKS endpoint is too slow" })
  if (error instanceof errors.JWKSNoMatchingKey)
    return new TokenInvalid({ reason: "no key of the issuer fits it" })
  if (error instanceof errors.JWKSInvalid) {
    return new VerifierUnavailable({ reason: "the JWKS endpoint answers something else than keys" })
  }
  if (error instanceof errors.JWTClaimValidationFailed) {
    return new TokenInvalid({ reason: `its claim '${error.claim}' does not pass` })
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return new TokenInvalid({ reason: "its signature is wrong" })
  }
  if (error instanceof errors.JOSEAlgNotAllowed)
    return new TokenInvalid({ reason: "its algorithm is not allowed" })
  // What jose says of a JWKS answer that is not 200 or no JSON, and what fetch says of a network that fails.
  if (error instanceof errors.JOSEError && error.code === "ERR_JOSE_GENERIC") {
    return new VerifierUnavailable({ reason: "the JWKS endpoint does not answer" })
  }
  if (error instanceof errors.JOSEError) return new TokenInvalid({ reason: "it is no signed token" })
  return error instanceof TypeError && error.message === "fetch failed"
    ? new VerifierUnavailable({ reason: "the JWKS endpoint does not answer" })
    : new TokenInvalid({ reason: "it is no signed token" })
}

const claimsOf = (payload: JWTPayload): Effect.Effect<Claims, TokenInvalid> =>
  Effect.fromResult(
    Result.mapError(parseClaims(payload), (error) => new TokenInvalid({ reason: error.message }))
  )

const verifierOf = (
  keys: Options["keys"]
): ((token: string, options: JWTVerifyOptions) => Promise<{ readonly payload: JWTPayload }>) => {
  if (keys._tag === "Secret") {
    return (token, options) => jwtVerify(token, keys.secret, { ...options, algorithms: ["HS256"] })
  }
  const jwks = createRemoteJWKSet(keys.url)
  return (token, options) => jwtVerify(token, jwks, { ...options, algorithms: asymmetric })
}

const make = Effect.fnUntraced(function* (options: Options) {
  const clock = yield* Clock.Clock
  const verifyWith = verifierOf(options.keys)
  const { audience, clockToleranceMs = Settings.auth.clockToleranceMs, issuer } = options

  return TokenVerifier.of({
    verify: (token) => {
      if (token.length > maxTokenLength) return Effect.fail(new TokenInvalid({ reason: "it is too long" }))
      return Effect.tryPromise({
        try: () =>
          verifyWith(token, {
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
