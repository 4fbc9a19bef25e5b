/**
 * The outbox for programs that use the `mongodb` driver without Effect: they write their own documents and the event
 * in one transaction, in their own database.
 *
 * A hub over the same database, or one that has this database among its OUTBOX_SOURCES, finds the record and brings it
 * into the log; whether one runs at that moment does not matter.
 */
import * as Result from "effect/Result"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import { acceptEvent, type EventLimits } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import type { OutboxEvent } from "../../services/OutboxStore.ts"
import { addToOutbox, outboxIn, prepareOutbox } from "./addToOutbox.ts"
import { type AnyDb, type AnySession, asDb, asSession } from "./anyDriver.ts"

export interface Options {
  /** What the hub accepts; give the same as in its configuration, if that differs from the defaults. */
  readonly limits?: EventLimits
  /** The collection, if it is another one than `outbox`. */
  readonly collection?: string
}

export interface AddOptions {
  /** The record is part of its transaction: aborted, it never happened. */
  readonly session?: AnySession
  /** Not into the log before this time, in milliseconds since 1970. */
  readonly notBefore?: number
}

export interface Outbox {
  /**
   * Adds an event and answers its id, made when none is given. The same id again on the same topic adds nothing, and
   * ends no transaction. What `withTransaction` calls may run several times: make the id outside of it.
   *
   * Rejects with an `InvalidEvent`, `InvalidTopic` or `PayloadTooLarge` before anything is written, and with the
   * driver's own errors as they are: `withTransaction` goes by their labels.
   */
  readonly add: (event: OutboxEvent, options?: AddOptions) => Promise<string>
  /** Makes the collection and its indexes, once. The first `add` does it, too; at start it costs no transaction its time. */
  readonly prepare: () => Promise<void>
}

/** Over a database of the application's own client. */
export const createOutbox = (db: AnyDb, options: Options = {}): Outbox => {
  const { collection = "outbox", limits = Settings.limits } = options
  const outbox = outboxIn(asDb(db), collection)
  let prepared: Promise<void> | undefined

  const prepare = (): Promise<void> => {
    prepared ??= prepareOutbox(outbox).catch((error: unknown) => {
      prepared = undefined
      throw error
    })
    return prepared
  }

  return {
    prepare,
    add: async (event, { notBefore, session } = {}) => {
      const id = event.id ?? uuidV7Unsafe()
      const record = Result.getOrThrow(acceptEvent({ ...event, id, ts: event.ts ?? Date.now() }, limits))
      await prepare()
      await addToOutbox(outbox, record, { notBefore, session: session && asSession(session) })
      return id
    }
  }
}
