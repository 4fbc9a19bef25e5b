/**
 * One token for everything but administration, from the configuration: for machines in a closed network and
 * for trying things out. Any other token goes on to the verifier behind, if there is one.
 */
import { createHash, timingSafeEqual } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Claims } from "../../domain/Claims.ts"
import { TokenInvalid, TokenVerifier } from "../../services/TokenVerifier.ts"

const claims: Claims = {
  sub: "static",
  expiresAt: Infinity,
  issuedAt: undefined,
  tokenId: undefined,
  policy: { rules: [{ effect: "allow", action: "*", topics: ["**"] }] }
}

/** Of equal length whatever was sent, so that comparing them takes the same time. */
const digest = (token: string): Buffer => createHash("sha256").update(token).digest()

export const layer = <E = never, R = never>(
  token: string,
  behind: Layer.Layer<TokenVerifier, E, R> | undefined
): Layer.Layer<TokenVerifier, E, R> => {
  const own = digest(token)
  const isOwn = (given: string): boolean => timingSafeEqual(digest(given), own)
  if (behind === undefined) {
    return Layer.succeed(TokenVerifier, {
      verify: (given) =>
        isOwn(given)
          ? Effect.succeed(claims)
          : Effect.fail(new TokenInvalid({ reason: "it is not the configured one" }))
    })
  }
  return Layer.effect(
    TokenVerifier,
    Effect.map(TokenVerifier, ({ verify }) =>
      TokenVerifier.of({ verify: (given) => (isOwn(given) ? Effect.succeed(claims) : verify(given)) })
    )
  ).pipe(Layer.provide(behind))
}
