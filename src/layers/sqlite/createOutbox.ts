/**
 * The outbox for programs that use `node:sqlite` without Effect: they commit their own tables and the event in
 * one transaction, on their own connection to the hub's file.
 *
 * The hub in its own process finds the record at once and brings it into the log; whether the hub runs at that
 * moment does not matter.
 */
import type { DatabaseSync } from "node:sqlite"
import * as Result from "effect/Result"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import { acceptEvent, type EventLimits } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import type { OutboxEvent } from "../../services/OutboxStore.ts"
import { addRecord } from "./outboxCommands.ts"
import { check, connectionPragmas, migrate } from "./schema.ts"
import { prepare } from "./statements.ts"

export interface Options {
  /** What the hub accepts; give the same as in its configuration, if that differs from the defaults. */
  readonly limits?: EventLimits
  /** How long a transaction waits for others that write to the file, the hub among them, in milliseconds. */
  readonly busyTimeoutMs?: number
}

export interface Outbox {
  /**
   * Adds an event and answers its id, made when none is given. Inside a transaction it is part of that: rolled
   * back, it never happened. The same id again on the same topic adds nothing.
   *
   * Throws an `InvalidEvent`, `InvalidTopic` or `PayloadTooLarge` before anything is written.
   */
  readonly add: (
    event: OutboxEvent,
    options?: {
      /** Not into the log before this time, in milliseconds since 1970. */
      readonly notBefore?: number
    }
  ) => string
  /**
   * Runs `f` between BEGIN IMMEDIATE and COMMIT, and rolls back when it throws. IMMEDIATE waits for other
   * writers at its begin; a transaction that begins by reading could fail in its middle instead.
   */
  readonly transaction: <A>(f: () => A) => A
}

/**
 * Prepares a connection of the application: the hub's tables are made if the file has none yet, and commits
 * are durable (WAL, `synchronous = FULL`). Throws when the file was written by a newer version.
 */
export const createOutbox = (db: DatabaseSync, options: Options = {}): Outbox => {
  const { busyTimeoutMs = 5_000, limits = Settings.limits } = options
  if (db.isTransaction)
    throw new Error("createOutbox cannot be called inside a transaction; call it once, before")
  db.exec(`PRAGMA busy_timeout = ${Math.trunc(busyTimeoutMs)}`)
  check(db)
  db.exec(connectionPragmas)
  migrate(db, uuidV7Unsafe())
  const statements = prepare(db)

  return {
    add: (event, { notBefore } = {}) => {
      const now = Date.now()
      const id = event.id ?? uuidV7Unsafe()
      const record = Result.getOrThrow(acceptEvent({ ...event, id, ts: event.ts ?? now }, limits))
      addRecord(statements, record, { now, notBefore })
      return id
    },
    transaction: (f) => {
      db.exec("BEGIN IMMEDIATE")
      try {
        const result = f()
        db.exec("COMMIT")
        return result
      } catch (error) {
        if (db.isTransaction) db.exec("ROLLBACK")
        throw error
      }
    }
  }
}
