/** What a server answers to one of several who insert the same document at the same moment. */
import { setTimeout } from "node:timers/promises"
import { hasCode } from "./whileBusy.ts"

export const isDuplicateKey = (error: unknown): boolean => hasCode(error, (code) => code === 11_000)

/**
 * A duplicate key; and how servers that are not MongoDB answer those who lose the race of two upserts, which say other
 * things with it, too: InternalError, and FailedToParse of a `$$NOW` that they took before and take again.
 */
const lost = new Set<unknown>([11_000, 1, 9])

const maxTries = 10
const longestPauseMs = 20

/**
 * An upsert that is lost to another finds the other's document when it is done again. Only for those that may be
 * repeated, and outside of transactions: these are over with such an error.
 */
export const upsert = async <A>(f: () => Promise<A>): Promise<A> => {
  for (let tries = 1; ; tries++) {
    try {
      return await f()
    } catch (error) {
      if (tries === maxTries || !hasCode(error, (code) => lost.has(code))) throw error
      await setTimeout(Math.random() * longestPauseMs)
    }
  }
}
