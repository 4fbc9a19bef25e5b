/**
 * Events handled exactly once, for programs that use `node:sqlite`: what the handler writes and the mark that
 * the event was handled are one transaction, on the application's own connection to its own database.
 *
 * The hub delivers an event at least once; a transaction that is there already makes the next delivery a
 * duplicate. So the effect of an event is in the database once, whatever crashes in between. It holds for what
 * is written through this connection, and for nothing else: a mail or a call to another service is sent again
 * when the transaction rolls back or the process dies after it.
 */
import type { DatabaseSync } from "node:sqlite"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import { checkKeep, checkTimes, type Redelivery } from "../../domain/Horizon.ts"
import * as Settings from "../../domain/Settings.ts"
import type { DedupeStore, EventRef } from "../../services/DedupeStore.ts"
import { Release } from "../../services/EventBus.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { dedupeCommands } from "./dedupeCommands.ts"
import { prepareDedupe } from "./dedupeSchema.ts"
import { isUnavailable } from "./SqliteDatabase.ts"
import { storeOver, type Options as StoreOptions } from "./SqliteDedupeStore.ts"

export interface Options extends StoreOptions, Redelivery {
  /** How long an event waits until it comes again that could not be tried, in milliseconds. */
  readonly delayMs?: number
}

/** A transaction of SQLite ends when the handler returns, and a promise ends later. Nothing was kept. */
export class AsyncHandler extends Schema.TaggedError<AsyncHandler>()("AsyncHandler", {
  consumer: Schema.String
}) {
  override get message() {
    return (
      `the handler of '${this.consumer}' is asynchronous, and its transaction would end before it; make it ` +
      "synchronous, or use exactlyOncePromise over 'store', which promises one run per lease"
    )
  }
}

export interface Dedupe {
  /**
   * Makes a handler that handles each event **exactly once**: BEGIN IMMEDIATE, the mark, the handler, COMMIT.
   * The handler writes through the connection that was given to `createDedupe`, and is synchronous. When it
   * throws, everything is rolled back, the mark as well, and the event comes again.
   *
   * Answers `"duplicate"` without running the handler when the event was handled before; acknowledge it like
   * any other. Throws `Release`, which counts no attempt, when a run over `store` has the event at the moment,
   * or the database is busy, full or read-only; and `AsyncHandler` for a handler that is none of this form.
   *
   * Works as a handler of `PromClient.subscribe` as it is. Call it outside of a transaction, and neither begin nor
   * end one in the handler.
   */
  readonly exactlyOnce: <Event extends EventRef, Context>(
    options: {
      /** Whose handling it is; usually the name of the group. Another name handles every event for itself. */
      readonly consumer: string
      readonly handler: (event: Event, context: Context | undefined) => void
    } & Redelivery
  ) => (event: Event, context?: Context) => "handled" | "duplicate"

  /**
   * The same marks for handlers that are asynchronous, for `exactlyOncePromise` (layers/core): one run per lease.
   * Leave no transaction of this connection open over an `await`: what the store does in between would be part of
   * it, and be rolled back with it.
   */
  readonly store: DedupeStore["Service"]

  /** `store.purge`, for programs without Effect. */
  readonly purge: (handled: { readonly olderThanMs: number }) => number
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === "object" && value !== null && "then" in value && typeof value.then === "function"

/** A handler that answered something to wait for, which nobody does. */
const refuseAsync = (consumer: string, answer: unknown): void => {
  if (!isThenable(answer)) return
  answer.then(undefined, () => {})
  throw new AsyncHandler({ consumer })
}

/** Known before it runs: what it would do after its first `await` could not be rolled back. */
const isAsync = (f: unknown): boolean => Object.prototype.toString.call(f) === "[object AsyncFunction]"

/**
 * Prepares a connection of the application: the table `hub_dedupe` is made if the database has none yet, and
 * commits are durable (`synchronous = FULL` at least; the journal's mode is left as it is). The database may be
 * the hub's file or any other.
 *
 * Throws `DedupeTooShort` when it would forget events that the group may still deliver, and `CannotRemember`
 * when the database was written by a newer version or cannot roll back.
 */
export const createDedupe = (db: DatabaseSync, options: Options = {}): Dedupe => {
  const {
    busyTimeoutMs = 5_000,
    delayMs = Settings.dedupe.maxDelayMs,
    keepMs = Settings.dedupe.keepMs
  } = options
  Result.getOrThrow(checkTimes({ delayMs }))
  Result.getOrThrow(checkKeep(keepMs, options))
  prepareDedupe(db, busyTimeoutMs)
  const commands = dedupeCommands(db, { keepMs, now: Date.now, newRun: uuidV7Unsafe })

  return {
    exactlyOnce: ({ backoff = options.backoff, consumer, group = options.group, handler }) => {
      Result.getOrThrow(checkKeep(keepMs, { backoff, group }))
      return (event, context) => {
        if (isAsync(handler)) throw new AsyncHandler({ consumer })
        if (db.isTransaction) {
          throw new Error(
            "a handler that is to run exactly once begins a transaction itself: call it outside of one"
          )
        }
        try {
          db.exec("BEGIN IMMEDIATE")
          const marked = commands.mark({ consumer, topic: event.topic, eventId: event.id })
          if (marked._tag === "InProgress") throw new Release({ delayMs: Math.min(marked.leftMs, delayMs) })
          if (marked._tag === "Marked") refuseAsync(consumer, handler(event, context))
          db.exec("COMMIT")
          return marked._tag === "Marked" ? "handled" : "duplicate"
        } catch (error) {
          if (db.isTransaction) db.exec("ROLLBACK")
          if (!isUnavailable(error)) throw error
          throw new Release({
            delayMs,
            cause: new StoreUnavailable({ operation: "Dedupe.exactlyOnce", cause: error })
          })
        }
      }
    },
    store: storeOver(commands),
    purge: ({ olderThanMs }) => commands.forget(olderThanMs, Number.MAX_SAFE_INTEGER)
  }
}
