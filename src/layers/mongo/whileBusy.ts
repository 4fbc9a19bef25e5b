/**
 * Once more for what a server refuses because somebody else is at it: any number of hubs and services start at the same
 * moment and make the same indexes, and their writes meet on the same documents.
 */
import { setTimeout } from "node:timers/promises"

/** Codes of https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml for what was asked too early. */
const busy = new Set<unknown>([
  1, // InternalError, which servers over PostgreSQL say for deadlocks and lost races
  112, // WriteConflict
  117, // ConflictingOperationInProgress
  12_587, // BackgroundOperationInProgressForNamespace
  16_908_292 // how a server over PostgreSQL says that two updates waited for each other
])

const maxTries = 10
const longestPauseMs = 100

/** By its code alone: the collections of other libraries come with a copy of the driver of their own. */
export const hasCode = (error: unknown, of: (code: unknown) => boolean): boolean =>
  error instanceof Error && "code" in error && of(error.code)

/** For what may be done again, and outside of transactions: these are over with such an error. */
export const whileBusy = async <A>(f: () => Promise<A>): Promise<A> => {
  for (let tries = 1; ; tries++) {
    try {
      return await f()
    } catch (error) {
      if (tries === maxTries || !hasCode(error, (code) => busy.has(code))) throw error
      await setTimeout(Math.random() * longestPauseMs)
    }
  }
}
