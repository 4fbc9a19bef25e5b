/** A TokenVerifier that also refuses what was revoked, and everything while nobody can tell what was. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Claims } from "../../domain/Claims.ts"
import { Revocations } from "../../services/Revocations.ts"
import { TokenInvalid, TokenVerifier, VerifierUnavailable } from "../../services/TokenVerifier.ts"

export const layer = <E, R>(
  verifier: Layer.Layer<TokenVerifier, E, R>
): Layer.Layer<TokenVerifier, E, R | Revocations> =>
  Layer.effect(
    TokenVerifier,
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      const revocations = yield* Revocations
      return TokenVerifier.of({
        verify: (token) =>
          Effect.flatMap(
            verify(token),
            (claims): Effect.Effect<Claims, TokenInvalid | VerifierUnavailable> => {
              if (revocations.isRevoked(claims)) {
                return Effect.fail(new TokenInvalid({ reason: "it was revoked" }))
              }
              return revocations.isCurrent()
                ? Effect.succeed(claims)
                : Effect.fail(
                    new VerifierUnavailable({ reason: "the store does not say which tokens were revoked" })
                  )
            }
          )
      })
    })
  ).pipe(Layer.provide(verifier))
