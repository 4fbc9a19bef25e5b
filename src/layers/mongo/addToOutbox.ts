/**
 * Puts a record into an outbox collection: the one step that applications take, in their own transactions.
 */
import { randomBytes } from "node:crypto"
import type { ClientSession, Collection, Db } from "mongodb"
import type { EventRecord } from "../../domain/Event.ts"
import { upsert, whileBusy } from "./attempts.ts"
import { added } from "./outboxPipelines.ts"
import { type OutboxDocument, outboxIndexes } from "./schema.ts"
import { claimOwnership } from "./outboxOwner.ts"

/** Makes the collection and its indexes. Not in a transaction; any number may do it at once. */
export const prepareOutbox = async (outbox: Collection<OutboxDocument>): Promise<void> => {
  await claimOwnership(outbox, "hub")
  await whileBusy(() => outbox.createIndexes([...outboxIndexes]))
}

export const outboxIn = (db: Db, name: string): Collection<OutboxDocument> =>
  db.collection<OutboxDocument>(name)

const processName = randomBytes(6).toString("hex")

let made = 0

/** Orders what this process adds within a millisecond, and nobody else makes the same. */
const nextStamp = (): string => `${(++made).toString(36).padStart(10, "0")}-${processName}`

/** In a transaction it is the transaction's to say. */
const outside = { writeConcern: { w: "majority", journal: true } } as const

export interface Addition {
  /** It was not there before. In a transaction: unless that is aborted. */
  readonly isNew: boolean
  /** Whether the record is there for good, and is this one. */
  readonly isThere: () => Promise<boolean>
}

export const addToOutbox = async (
  outbox: Collection<OutboxDocument>,
  record: EventRecord,
  options: { readonly notBefore?: number | undefined; readonly session?: ClientSession | undefined }
): Promise<Addition> => {
  const { id, topic } = record
  const { notBefore, session } = options
  const stamp = nextStamp()
  const isInTransaction = session?.inTransaction() === true
  const isThere = async (): Promise<boolean> => {
    const found = await outbox.findOne(
      { topic, id },
      { projection: { _id: 1 }, readConcern: { level: "majority" }, readPreference: "primary" }
    )
    return found !== null && found._id.endsWith(stamp)
  }
  const add = async (): Promise<Addition> => {
    const { upsertedCount } = await outbox.updateOne({ topic, id }, added(record, stamp, notBefore), {
      upsert: true,
      ...(session === undefined ? {} : { session }),
      ...(isInTransaction ? {} : outside)
    })
    return { isNew: upsertedCount > 0, isThere }
  }
  // Others may add the same at this moment. A transaction is over then, and the driver says so.
  return isInTransaction ? add() : whileBusy(() => upsert(add))
}
