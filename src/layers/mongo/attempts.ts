/**
 * Once more for what a server refuses because somebody else is at it: any number of hubs and services start at the same
 * moment and make the same indexes, and their writes meet on the same documents.
 *
 * Only for what may be repeated, and outside of transactions: these are over with such an error.
 */
import { setTimeout } from "node:timers/promises"

/** By its code alone: the databases of applications come with a copy of the driver of their own. */
export const hasCode = (error: unknown, of: (code: unknown) => boolean): boolean =>
  error instanceof Error && "code" in error && of(error.code)

const duplicateKey = 11_000

/** What a server answers to one of several who insert the same document at the same moment. */
export const isDuplicateKey = (error: unknown): boolean => hasCode(error, (code) => code === duplicateKey)

const maxTries = 10

const after =
  (codes: ReadonlySet<unknown>, longestPauseMs: number) =>
  async <A>(f: () => Promise<A>): Promise<A> => {
    for (let tries = 1; ; tries++) {
      try {
        return await f()
      } catch (error) {
        if (tries === maxTries || !hasCode(error, (code) => codes.has(code))) throw error
        await setTimeout(Math.random() * longestPauseMs)
      }
    }
  }

/** Codes of https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml for what was asked too early. */
const busy = new Set<unknown>([
  1, // InternalError, which servers over PostgreSQL say for deadlocks and lost races
  112, // WriteConflict
  117, // ConflictingOperationInProgress
  12_587, // BackgroundOperationInProgressForNamespace
  16_908_292 // how a server over PostgreSQL says that two updates waited for each other
])

/** What others are at takes them a while. */
export const whileBusy = after(busy, 100)

/**
 * A duplicate key; and how servers that are not MongoDB answer those who lose the race of two upserts, which say other
 * things with it, too: InternalError, and FailedToParse of a `$$NOW` that they took before and take again.
 */
const lost = new Set<unknown>([duplicateKey, 1, 9])

/** An upsert that is lost to another finds the other's document when it is done again. */
export const upsert = after(lost, 20)
