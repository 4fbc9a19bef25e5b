/**
 * Events handled exactly once, for programs that use the `mongodb` driver: what the handler writes and the mark that
 * the event was handled are one transaction, in the application's own database.
 *
 * The hub delivers an event at least once; a mark that is there already makes the next delivery a duplicate. So the
 * effect of an event is in the database once, whatever crashes in between. It holds for what is written with the
 * session, and for nothing else: a mail or a call to another service is sent again when the transaction is tried
 * again, or aborts, or the process dies after it.
 */
import type { ClientSession, TransactionOptions } from "mongodb"
import * as Result from "effect/Result"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import { checkKeep, checkTimes, type Redelivery } from "../../domain/Horizon.ts"
import * as Settings from "../../domain/Settings.ts"
import type { DedupeStore, EventRef } from "../../services/DedupeStore.ts"
import { Release } from "../../services/EventBus.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { type AnyDbWithSessions, type AnySession, asDb, asSession } from "./anyDriver.ts"
import { dedupeCommands, prepareDedupe } from "./dedupeCommands.ts"
import { storeOver, type Options as StoreOptions } from "./MongoDedupeStore.ts"
import { featuresOf, isUnavailable } from "./MongoDatabase.ts"
import { TransactionsUnsupported } from "./MongoTransaction.ts"
import type { DedupeDocument } from "./schema.ts"

export interface Options extends StoreOptions, Redelivery {
  /** How long an event waits until it comes again that could not be tried, in milliseconds. */
  readonly delayMs?: number
  /** The collection, if it is another one than `dedupe`. */
  readonly collection?: string
}

/** `Session`: of the copy of the driver that the database came with. */
export interface Dedupe<Session extends AnySession = ClientSession> {
  /**
   * Makes a handler that handles each event **exactly once**: the mark and what the handler writes with its session
   * are committed together. When it throws, everything is aborted, the mark as well, and the event comes again. What
   * passes by itself (a conflict of writes, another primary) is tried again: the handler runs anew then.
   *
   * Answers `"duplicate"` without running the handler when the event was handled before; acknowledge it like any
   * other. Rejects with `Release`, which counts no attempt, when a run over `store` has the event at the moment, or
   * the database is not available; and with `TransactionsUnsupported` on a server that has none.
   *
   * Works as a handler of `PromClient.subscribe` as it is.
   */
  readonly exactlyOnce: <Event extends EventRef, Context>(
    options: {
      /** Whose handling it is; usually the name of the group. Another name handles every event for itself. */
      readonly consumer: string
      readonly handler: (event: Event, session: Session, context: Context | undefined) => Promise<void> | void
    } & Redelivery
  ) => (event: Event, context?: Context) => Promise<"handled" | "duplicate">

  /** The same marks for handlers that write elsewhere, for `exactlyOncePromise` (layers/core): one run per lease. */
  readonly store: DedupeStore["Service"]

  /** `store.purge`, for programs without Effect. Servers without indexes that expire need it. */
  readonly purge: (handled: { readonly olderThanMs: number }) => Promise<number>

  /** Makes the collection and its index, and finds out whether the server has transactions. The first event does it, too. */
  readonly prepare: () => Promise<void>
}

const transaction: TransactionOptions = {
  readConcern: { level: "snapshot" },
  writeConcern: { w: "majority", journal: true },
  readPreference: "primary"
}

/**
 * Over a database of the application's own client; it may be the hub's or any other.
 *
 * Throws `DedupeTooShort` when it would forget events that the group may still deliver.
 */
export const createDedupe = <Session extends AnySession>(
  application: AnyDbWithSessions<Session>,
  options: Options = {}
): Dedupe<Session> => {
  const {
    collection = "dedupe",
    delayMs = Settings.dedupe.maxDelayMs,
    keepMs = Settings.dedupe.keepMs
  } = options
  Result.getOrThrow(checkTimes({ delayMs }))
  Result.getOrThrow(checkKeep(keepMs, options))
  const db = asDb(application)
  const handled = db.collection<DedupeDocument>(collection)
  const commands = dedupeCommands(handled, uuidV7Unsafe)

  const makeReady = async (): Promise<void> => {
    const { transactions, version } = await featuresOf(db)
    if (!transactions) throw new TransactionsUnsupported({ version })
    await prepareDedupe(handled, keepMs)
  }

  let prepared: Promise<void> | undefined
  const prepare = (): Promise<void> => {
    prepared ??= makeReady().catch((error: unknown) => {
      prepared = undefined
      throw error
    })
    return prepared
  }

  const inTransaction = async <A>(f: (session: Session) => Promise<A>): Promise<A> => {
    const session = application.client.startSession()
    try {
      return await session.withTransaction(() => f(session), transaction)
    } finally {
      // What it did is done; the server ends a session by itself.
      await session.endSession().catch(() => {})
    }
  }

  return {
    prepare,
    exactlyOnce: ({ backoff = options.backoff, consumer, group = options.group, handler }) => {
      Result.getOrThrow(checkKeep(keepMs, { backoff, group }))
      return async (event, context) => {
        try {
          await prepare()
          return await inTransaction(async (session) => {
            const handling = { consumer, topic: event.topic, eventId: event.id }
            const marked = await commands.mark(handling, asSession(session))
            if (marked._tag === "InProgress") throw new Release({ delayMs: Math.min(marked.leftMs, delayMs) })
            if (marked._tag === "Done") return "duplicate"
            await handler(event, session, context)
            return "handled"
          })
        } catch (error) {
          if (!isUnavailable(error)) throw error
          throw new Release({
            delayMs,
            cause: new StoreUnavailable({ operation: "Dedupe.exactlyOnce", cause: error })
          })
        }
      }
    },
    store: storeOver(commands, keepMs),
    purge: ({ olderThanMs }) => commands.forget(olderThanMs)
  }
}
