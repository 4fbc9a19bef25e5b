/**
 * A TokenVerifier that also refuses tokens with roles that nobody knows.
 *
 * Such a token was meant to have rights, and restrictions, that the hub does not have: with what is left of it somebody
 * would work, wonder, or see too much. Whoever made it has a word misspelt, or the file of another day.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Claims } from "../../domain/Claims.ts"
import { UnknownRole } from "../../domain/PolicyFile.ts"
import { Policies } from "../../services/Policies.ts"
import { TokenInvalid, TokenVerifier } from "../../services/TokenVerifier.ts"

const problemOf = (policies: Policies, { hasBadRoles, roles }: Claims): string | undefined => {
  const file = policies.current()
  if (file === undefined) return undefined
  if (hasBadRoles) return "its claim 'roles' is no array of strings"
  const role = roles?.find((name) => !file.roles.has(name))
  return role === undefined ? undefined : new UnknownRole({ role }).message
}

/** Without `Policies`, roles mean nothing and refuse nothing. */
export const layer = <E, R>(verifier: Layer.Layer<TokenVerifier, E, R>): Layer.Layer<TokenVerifier, E, R> =>
  Layer.effect(
    TokenVerifier,
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      const policies = yield* Policies
      return TokenVerifier.of({
        verify: (token) =>
          Effect.flatMap(verify(token), (claims) => {
            const problem = problemOf(policies, claims)
            if (problem === undefined) return Effect.succeed(claims)
            // Its signature is good, so it is the issuer who has to know, and nobody else can fill the log.
            return Effect.logWarning("a token was refused", { sub: claims.sub, why: problem }).pipe(
              Effect.andThen(Effect.fail(new TokenInvalid({ reason: problem })))
            )
          })
      })
    })
  ).pipe(Layer.provide(verifier))
