/**
 * The outbox of a relay of another library: the store that data layers in the manner of Mongoose expect, over a
 * collection of theirs. They add events with `save` or `saveInSession`, and their relay asks for what is pending,
 * publishes it and acknowledges it.
 *
 * It claims nothing, so one relay works on a collection at a time. A hub brings its own outbox into its log with leases
 * and in any number (`createOutbox`); the two never share a collection.
 */
import * as Schema from "effect/Schema"
import { isDuplicateKey, whileBusy } from "./attempts.ts"
import { claimOwnership, type OwnableCollection } from "./outboxOwner.ts"

/** An event as such relays know it. `meta.id` is what makes it the same event. */
export interface RelayEvent {
  readonly type: string
  readonly payload: unknown
  readonly meta: { readonly id: string; readonly [name: string]: unknown }
}

/** An event that no relay could publish, or acknowledge. Nothing was written. */
export class InvalidRelayEvent extends Schema.TaggedError<InvalidRelayEvent>()("InvalidRelayEvent", {
  reason: Schema.String
}) {
  override get message() {
    return `not an event for a relay: ${this.reason}`
  }
}

/** A session of the driver, of whichever copy of it the collection came from. */
export interface RelaySession {
  inTransaction(): boolean
}

interface RelayDocument {
  readonly eventId: string
  readonly type: string
  readonly payload?: unknown
  readonly meta: RelayEvent["meta"]
  readonly status: "pending" | "delivered"
  readonly createdAt: Date
  readonly deliveredAt?: Date
}

interface PendingCursor {
  sort(order: Readonly<Record<string, 1>>): PendingCursor
  limit(count: number): PendingCursor
  toArray(): Promise<ReadonlyArray<RelayDocument>>
}

/** What is needed of a collection. The driver's is one, and what Mongoose wraps around it. */
export interface RelayCollection extends OwnableCollection {
  updateOne(filter: object, update: ReadonlyArray<object>, options?: object): Promise<unknown>
  find(filter: object, options?: object): PendingCursor
  deleteMany(filter: object): Promise<{ readonly deletedCount: number }>
  dropIndex(name: string): Promise<unknown>
}

/** A collection, or where to get it: a `Db` of the driver, or a connection of a data layer. */
export type RelaySource =
  | RelayCollection
  | { readonly connection: { collection(name: string): RelayCollection }; readonly name: string }

export interface RelayStoreOptions {
  /**
   * How long delivered events are kept, in milliseconds: the server deletes them in the minutes after that. 7 days
   * unless told otherwise; `Infinity` leaves it to `purge`. What is pending is never deleted.
   */
  readonly keepDeliveredMs?: number
}

export interface RelayStore {
  /**
   * Makes the collection and its indexes. The first call of any other method does it otherwise, but a transaction
   * that began before may then have to be tried again, so call it at start. Throws `OwnedByOther` when the collection
   * is a hub's outbox, or something else. Calling it again is harmless.
   */
  readonly ready: () => Promise<void>
  /**
   * Adds an event; in a session, as part of its transaction. The same `meta.id` again changes nothing, is no error,
   * and does not abort a transaction.
   *
   * Throws `InvalidRelayEvent` before anything is written. Errors of the driver come as they are, so that a
   * transaction can be tried again by their labels.
   */
  readonly save: (event: RelayEvent, options?: { readonly session?: RelaySession | null }) => Promise<void>
  /** `save` in a session. Without one the event is written at once, whatever becomes of the business write. */
  readonly saveInSession: (event: RelayEvent, session: RelaySession | null | undefined) => Promise<void>
  /**
   * Events that are not acknowledged, in the order of their adding by the server's clock: what a failover could
   * still take back is not among them. One whose transaction commits late comes late, and is never skipped.
   */
  readonly getPending: (limit: number) => Promise<ReadonlyArray<RelayEvent>>
  /** This event was published. Calling it again, or for an event that is gone, changes nothing. */
  readonly acknowledge: (eventId: string) => Promise<void>
  /** Deletes events that were acknowledged at least so long ago, by the server's clock. Answers how many. */
  readonly purge: (olderThanMs: number) => Promise<number>
}

const day = 24 * 60 * 60 * 1_000
/** `expireAfterSeconds` is a signed integer of 32 bits. */
const longestKeepMs = (2 ** 31 - 1) * 1_000

const indexNames = { event: "relay_event_id", pending: "relay_pending", delivered: "relay_delivered" }

const readConfirmed = { readPreference: "primary", readConcern: { level: "majority" } }

const check = (event: RelayEvent): void => {
  const reasonOf = (value: unknown, name: string): string | undefined =>
    typeof value === "string" && value.length > 0 ? undefined : `its ${name} is no text, or empty`
  const meta: unknown = event.meta
  const reason =
    reasonOf(event.type, "type") ??
    (meta instanceof Object ? reasonOf(event.meta.id, "meta.id") : "it has no meta")
  if (reason !== undefined) throw new InvalidRelayEvent({ reason })
}

interface Index {
  readonly name?: unknown
  readonly key?: unknown
  readonly unique?: unknown
  readonly expireAfterSeconds?: unknown
}

const makeIndexes = async (collection: RelayCollection, keepDeliveredMs: number): Promise<void> => {
  const found: ReadonlyArray<Index> = await collection.indexes()
  const over = (key: object) => found.filter((index) => JSON.stringify(index.key) === JSON.stringify(key))
  const event = { eventId: 1 } as const
  if (!over(event).some((index) => index.unique === true)) {
    await whileBusy(() => collection.createIndex(event, { name: indexNames.event, unique: true }))
  }
  const pending = { createdAt: 1, _id: 1 } as const
  if (over(pending).length === 0) {
    const partialFilterExpression = { status: "pending" }
    await whileBusy(() =>
      collection.createIndex(pending, { name: indexNames.pending, partialFilterExpression })
    )
  }
  const key = { deliveredAt: 1 } as const
  const wanted =
    keepDeliveredMs === Infinity ? {} : { expireAfterSeconds: Math.ceil(keepDeliveredMs / 1_000) }
  const [delivered] = over(key)
  if (delivered !== undefined) {
    // One of another name was made by whoever owns the collection: their time holds.
    if (delivered.name !== indexNames.delivered) return
    if (delivered.expireAfterSeconds === wanted.expireAfterSeconds) return
    // Somebody else may be at it as well; whether it is gone shows when it is made.
    await collection.dropIndex(indexNames.delivered).catch(() => {})
  }
  await whileBusy(() => collection.createIndex(key, { name: indexNames.delivered, ...wanted }))
}

/**
 * A store over a collection, or over `{ connection, name }`. Nothing is asked of the server yet; see `ready`.
 *
 * A session belongs to the client that began it: take the collection from the connection whose sessions are handed in.
 */
export const createRelayStore = (source: RelaySource, options: RelayStoreOptions = {}): RelayStore => {
  const { keepDeliveredMs = 7 * day } = options
  if (!(keepDeliveredMs === Infinity || (keepDeliveredMs >= 0 && keepDeliveredMs <= longestKeepMs))) {
    throw new RangeError(`keepDeliveredMs is a number from 0 to ${longestKeepMs}, or Infinity for no end`)
  }
  const collection = "connection" in source ? source.connection.collection(source.name) : source

  let opening: Promise<void> | undefined
  const open = async (): Promise<void> => {
    await claimOwnership(collection, "relay")
    await makeIndexes(collection, keepDeliveredMs)
  }
  const ready = (): Promise<void> =>
    (opening ??= open().catch((error: unknown) => {
      // A server that was away may be back by the next call.
      opening = undefined
      throw error
    }))

  const saveInSession: RelayStore["saveInSession"] = async (event, session) => {
    check(event)
    await ready()
    const { meta, payload, type } = event
    const added = { $mergeObjects: ["$$ROOT", { $literal: { type, payload, meta, status: "pending" } }] }
    // An insert that meets its own id would abort the transaction, so what is there is written as it is.
    const isNew = { $eq: [{ $type: "$status" }, "missing"] }
    const stamped = { $mergeObjects: [added, { createdAt: "$$NOW" }] }
    const upsert = () =>
      collection.updateOne({ eventId: meta.id }, [{ $replaceWith: { $cond: [isNew, stamped, "$$ROOT"] } }], {
        upsert: true,
        ignoreUndefined: true,
        ...(session ? { session } : {})
      })
    if (session?.inTransaction() === true) {
      await upsert()
      return
    }
    try {
      await whileBusy(upsert)
    } catch (error) {
      // Two saved it at the same moment. Or the key is one of an index that is not ours, and it was not saved.
      const isThere = async () => (await collection.findOne({ eventId: meta.id }, readConfirmed)) !== null
      if (!isDuplicateKey(error) || !(await isThere())) throw error
    }
  }

  return {
    ready,
    save: (event, { session } = {}) => saveInSession(event, session),
    saveInSession,
    getPending: async (limit) => {
      // The server takes 0 for no limit at all.
      if (!Number.isSafeInteger(limit) || limit < 1) {
        throw new RangeError(`getPending takes a whole number from 1, not ${limit}`)
      }
      await ready()
      const found = await collection
        .find({ status: "pending" }, readConfirmed)
        .sort({ createdAt: 1, _id: 1 })
        .limit(limit)
        .toArray()
      return found.map(({ meta, payload, type }) => ({ type, payload, meta }))
    },
    acknowledge: async (eventId) => {
      await ready()
      await collection.updateOne({ eventId: { $eq: eventId }, status: "pending" }, [
        { $set: { status: "delivered", deliveredAt: "$$NOW" } }
      ])
    },
    purge: async (olderThanMs) => {
      if (!(olderThanMs >= 0)) throw new RangeError(`purge takes milliseconds from 0, not ${olderThanMs}`)
      await ready()
      const clock = await collection.findOne(
        { status: "delivered" },
        { projection: { _id: 0, now: "$$NOW" }, readPreference: "primary" }
      )
      if (clock === null || !("now" in clock) || !(clock.now instanceof Date)) return 0
      const until = clock.now.getTime() - olderThanMs
      // Before the first moment that a Date has nothing was delivered.
      if (!(until >= 0)) return 0
      const { deletedCount } = await collection.deleteMany({
        status: "delivered",
        deliveredAt: { $lte: new Date(until) }
      })
      return deletedCount
    }
  }
}
