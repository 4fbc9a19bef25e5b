/**
 * What can be done with the table of what was handled, on a connection of the application's: plain code without
 * Effect, since `createDedupe` runs it in the middle of the application's own transactions.
 *
 * The clock is read when the right to write is there, and not before the wait for it: leases are not cut short.
 */
import type { DatabaseSync } from "node:sqlite"
import type { Begun, RunToken } from "../../services/DedupeStore.ts"
import { plain } from "./dedupeSchema.ts"

/** One event, for one consumer. */
export type Handling = Omit<RunToken, "run">

const key = "consumer = ? AND topic = ? AND id = ?"

/** Whoever had it has it no more. */
const free = "done_at IS NULL AND lease_until <= ?"

/** Every statement, so that a test can ask the planner about each of them. */
export const dedupeSql = {
  begin: `INSERT INTO hub_dedupe (consumer, topic, id, run, lease_until) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (consumer, topic, id) DO UPDATE
    SET run = excluded.run, lease_until = excluded.lease_until WHERE ${free}`,
  mark: `INSERT INTO hub_dedupe (consumer, topic, id, run, lease_until, done_at) VALUES (?, ?, ?, '', 0, ?)
    ON CONFLICT (consumer, topic, id) DO UPDATE SET run = '', done_at = excluded.done_at WHERE ${free}`,
  find: `SELECT lease_until, done_at FROM hub_dedupe WHERE ${key}`,
  extend: `UPDATE hub_dedupe SET lease_until = max(lease_until, ?) WHERE ${key} AND run = ?`,
  complete: `UPDATE hub_dedupe SET done_at = coalesce(done_at, ?) WHERE ${key} AND run = ?`,
  release: `DELETE FROM hub_dedupe WHERE ${key} AND run = ? AND done_at IS NULL`,
  forget: `DELETE FROM hub_dedupe WHERE (consumer, topic, id) IN (
    SELECT consumer, topic, id FROM hub_dedupe WHERE done_at < ? ORDER BY done_at LIMIT ?)`
} as const

/** Each event that is new makes room for itself: with two for one, a table that was too large gets smaller. */
const forgetWithEach = 2

export interface DedupeCommands {
  readonly keepMs: number
  readonly begin: (run: Handling & { readonly leaseMs: number }) => Begun
  /** Notes an event as handled, in the transaction that is open; or what stands against it. */
  readonly mark: (event: Handling) => Exclude<Begun, { readonly _tag: "Run" }> | { readonly _tag: "Marked" }
  /** These answer whether the run still had it. */
  readonly extend: (token: RunToken, leaseMs: number) => boolean
  readonly complete: (token: RunToken) => boolean
  readonly release: (token: RunToken) => void
  /** Forgets at most `limit` events that were completed longer ago than this, and answers how many. */
  readonly forget: (olderThanMs: number, limit: number) => number
}

export const dedupeCommands = (
  db: DatabaseSync,
  {
    keepMs,
    newRun,
    now
  }: { readonly keepMs: number; readonly now: () => number; readonly newRun: () => string }
): DedupeCommands => {
  const begin = plain(db, dedupeSql.begin)
  const mark = plain(db, dedupeSql.mark)
  const find = plain(db, dedupeSql.find)
  const extend = plain(db, dedupeSql.extend)
  const complete = plain(db, dedupeSql.complete)
  const release = plain(db, dedupeSql.release)
  const forget = plain(db, dedupeSql.forget)

  /**
   * In the transaction that is open, or in one of its own. IMMEDIATE waits for others that write at its begin.
   */
  const inTransaction = <A>(f: () => A): A => {
    if (db.isTransaction) return f()
    db.exec("BEGIN IMMEDIATE")
    try {
      const answer = f()
      db.exec("COMMIT")
      return answer
    } catch (error) {
      if (db.isTransaction) db.exec("ROLLBACK")
      throw error
    }
  }

  /** The end of a lease; the column takes whole numbers. */
  const leaseEnd = (time: number, leaseMs: number): number =>
    Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(time + leaseMs))

  const forgetOld = (time: number): void => void forget.run(time - keepMs, forgetWithEach)

  /** Why an event could not be taken. In the transaction that could not, so its row is there. */
  const standing = ({ consumer, eventId, topic }: Handling, time: number) => {
    const row = find.get(consumer, topic, eventId)!
    if (row["done_at"] !== null) return { _tag: "Done" } as const
    const until = Number(row["lease_until"])
    return { _tag: "InProgress", until, leftMs: until - time } as const
  }

  return {
    keepMs,

    begin: ({ consumer, eventId, leaseMs, topic }) =>
      inTransaction(() => {
        const time = now()
        const run = newRun()
        const { changes } = begin.run(consumer, topic, eventId, run, leaseEnd(time, leaseMs), time)
        if (Number(changes) === 0) return standing({ consumer, topic, eventId }, time)
        forgetOld(time)
        return { _tag: "Run", token: { consumer, topic, eventId, run } }
      }),

    mark: (event) => {
      const time = now()
      const { changes } = mark.run(event.consumer, event.topic, event.eventId, time, time)
      if (Number(changes) === 0) return standing(event, time)
      forgetOld(time)
      return { _tag: "Marked" }
    },

    extend: ({ consumer, eventId, run, topic }, leaseMs) =>
      inTransaction(
        () => Number(extend.run(leaseEnd(now(), leaseMs), consumer, topic, eventId, run).changes) === 1
      ),

    complete: ({ consumer, eventId, run, topic }) =>
      inTransaction(() => Number(complete.run(now(), consumer, topic, eventId, run).changes) === 1),

    release: ({ consumer, eventId, run, topic }) =>
      inTransaction(() => void release.run(consumer, topic, eventId, run)),

    forget: (olderThanMs, limit) =>
      inTransaction(() => Number(forget.run(now() - olderThanMs, limit).changes))
  }
}
