/** For what a loop does again and again: a bug in one turn is logged, and does not end the loop for good. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** `what` failed, in the log. To be interrupted is no failure. */
export const goOn =
  (what: string) =>
  <A, E, R>(turn: Effect.Effect<A, E, R>): Effect.Effect<A | void, never, R> =>
    Effect.catchCause(turn, (cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.logError(`${what} failed; it goes on`, cause)
    )
