/** A TokenVerifier that also refuses what was revoked. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Revocations } from "../../services/Revocations.ts"
import { TokenInvalid, TokenVerifier } from "../../services/TokenVerifier.ts"

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
          Effect.flatMap(verify(token), (claims) =>
            revocations.isRevoked(claims)
              ? Effect.fail(new TokenInvalid({ reason: "it was revoked" }))
              : Effect.succeed(claims)
          )
      })
    })
  ).pipe(Layer.provide(verifier))
