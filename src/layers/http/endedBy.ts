/** Whether a token that was good when a request began has come to its end: bodies may be late, and long. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Claims } from "../../domain/Claims.ts"
import { Revocations } from "../../services/Revocations.ts"

/** Why the token is not good any more; nothing as long as it is. */
export type EndedBy = (claims: Claims) => () => string | undefined

/** `clockToleranceMs`: how far the clocks of the hub and of the issuer of tokens may be apart. */
export const makeEndedBy = (clockToleranceMs: number): Effect.Effect<EndedBy, never, Revocations> =>
  Effect.gen(function* () {
    const revocations = yield* Revocations
    const clock = yield* Clock.Clock
    return (claims) => () => {
      if (revocations.isRevoked(claims)) return "the token was revoked"
      const isExpired = clock.currentTimeMillisUnsafe() >= claims.expiresAt + clockToleranceMs
      return isExpired ? "the token has expired" : undefined
    }
  })
