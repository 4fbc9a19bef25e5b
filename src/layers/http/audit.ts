/**
 * Every change that somebody makes over the ops HTTP API is told in the log: who (`sub`), what, and the reason given.
 *
 * What was refused is no change, and neither is a dry run.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { CurrentClaims } from "./OpsContract.ts"

type Fields = Readonly<Record<string, unknown>>

export interface Audited<A> {
  /** The line: what was done, in a few words that never change. */
  readonly what: string
  readonly reason: string | undefined
  /** What it was done to; what is undefined is left out. */
  readonly fields: Fields
  /** What came of it. */
  readonly outcome?: (answer: A) => Fields
}

/** After these nobody knows, or it was done in part. */
const uncertain = new Set(["StoreUnavailable", "GroupBusy"])

const given = (fields: Fields): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

export const audited = <A, E extends { readonly _tag: string }, R>(
  change: Effect.Effect<A, E, R>,
  { fields, outcome = () => ({}), reason, what }: Audited<A>
): Effect.Effect<A, E, R | CurrentClaims> =>
  Effect.flatMap(CurrentClaims, ({ sub }) =>
    Effect.onExit(change, (exit) => {
      const line = { sub, ...given({ ...fields, reason }) }
      if (Exit.isSuccess(exit)) return Effect.logInfo(what, { ...line, ...outcome(exit.value) })
      const refused = exit.cause.reasons.every(
        (reason) => reason._tag === "Fail" && !uncertain.has(reason.error._tag)
      )
      return refused ? Effect.void : Effect.logWarning(`${what}: not known to have been done`, line)
    })
  )
