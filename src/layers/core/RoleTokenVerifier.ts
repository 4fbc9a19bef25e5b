/**
 * A TokenVerifier that also refuses tokens with roles that nobody knows, and tells whoever runs the hub of good signatures
 * under claims that are not.
 *
 * Such a token was meant to have rights, and restrictions, that the hub does not have: with what is left of it somebody
 * would work, wonder, or see too much. Whoever made it has a word misspelt, or the file of another day.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Claims } from "../../domain/Claims.ts"
import { problemOf } from "../../domain/PolicyFile.ts"
import { Policies } from "../../services/Policies.ts"
import { TokenInvalid, TokenVerifier } from "../../services/TokenVerifier.ts"
import { DenialLog } from "./DenialLog.ts"

/**
 * Of tokens whose signature is good, and which are refused nevertheless: the issuer has to know. Whoever holds one can
 * send it as often as they like, and does not fill the log with it.
 */
const makeReporter = () => {
  const denials = new DenialLog()
  return Effect.fnUntraced(function* (sub: string, why: string) {
    const now = yield* Clock.currentTimeMillis
    for (const { count, who } of denials.due(now)) {
      yield* Effect.logWarning("more of its tokens were refused than is logged", { who, count })
    }
    if (denials.isWorthALine(sub, why, now)) {
      yield* Effect.logWarning("a token was refused", { sub, why })
    }
  })
}

/** Without `Policies`, roles mean nothing and refuse nothing. The outermost of verifiers: it logs what the others refuse. */
export const layer = <E, R>(verifier: Layer.Layer<TokenVerifier, E, R>): Layer.Layer<TokenVerifier, E, R> =>
  Layer.effect(
    TokenVerifier,
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      const policies = yield* Policies
      const report = makeReporter()

      const checked = (claims: Claims): Effect.Effect<Claims, TokenInvalid> => {
        const file = policies.current()
        const reason = file && problemOf(file, claims)
        return reason === undefined
          ? Effect.succeed(claims)
          : Effect.fail(new TokenInvalid({ reason, sub: claims.sub }))
      }

      return TokenVerifier.of({
        verify: (token) =>
          Effect.flatMap(verify(token), checked).pipe(
            Effect.tapErrorTag("TokenInvalid", ({ reason, sub }) =>
              sub === undefined ? Effect.void : report(sub, reason)
            )
          )
      })
    })
  ).pipe(Layer.provide(verifier))
