/** Makes tokens by a secret, for development and for services that have it. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type JWTPayload, SignJWT } from "jose"

export interface Mint {
  /** As many bytes as the algorithm's hash has, or more (RFC 7518, section 3.2). */
  readonly secret: Uint8Array
  readonly alg?: "HS256" | "HS384" | "HS512" | undefined
  readonly sub: string
  readonly scopes: ReadonlyArray<string>
  /** How long it is valid, in milliseconds. */
  readonly ttlMs: number
  readonly audience?: string | undefined
  readonly issuer?: string | undefined
  /** What it can be revoked by. */
  readonly tokenId?: string | undefined
  /** Claims besides; none of them replaces one of those above. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}

export const mintToken = (mint: Mint): Effect.Effect<string> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const issuedAt = Math.floor(now / 1000)
    const payload: JWTPayload = {
      ...mint.claims,
      sub: mint.sub,
      scopes: [...mint.scopes],
      iat: issuedAt,
      exp: issuedAt + Math.ceil(mint.ttlMs / 1000),
      ...(mint.audience === undefined ? {} : { aud: mint.audience }),
      ...(mint.issuer === undefined ? {} : { iss: mint.issuer }),
      ...(mint.tokenId === undefined ? {} : { jti: mint.tokenId })
    }
    return Effect.promise(() =>
      new SignJWT(payload).setProtectedHeader({ alg: mint.alg ?? "HS256", typ: "JWT" }).sign(mint.secret)
    )
  })
