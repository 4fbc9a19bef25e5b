/** Makes HS256 tokens, for development and for services that have the secret. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type JWTPayload, SignJWT } from "jose"

export interface Mint {
  readonly secret: Uint8Array
  readonly sub: string
  readonly scopes: ReadonlyArray<string>
  /** How long it is valid, in milliseconds. */
  readonly ttlMs: number
  readonly audience?: string | undefined
  readonly issuer?: string | undefined
}

export const mintToken = (mint: Mint): Effect.Effect<string> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const issuedAt = Math.floor(now / 1000)
    const payload: JWTPayload = {
      sub: mint.sub,
      scopes: [...mint.scopes],
      iat: issuedAt,
      exp: issuedAt + Math.ceil(mint.ttlMs / 1000),
      ...(mint.audience === undefined ? {} : { aud: mint.audience }),
      ...(mint.issuer === undefined ? {} : { iss: mint.issuer })
    }
    return Effect.promise(() =>
      new SignJWT(payload).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(mint.secret)
    )
  })
