/** Lets the server delete what was sent long ago: an index on the time at which a record was sent, which no other has. */
import type { Collection } from "mongodb"
import { hasCode } from "./attempts.ts"
import type { OutboxDocument } from "./schema.ts"

const indexName = "expire_sent"

/** IndexOptionsConflict and IndexKeySpecsConflict: it is there with another time. */
const otherOptions = new Set<unknown>([85, 86])

/** What an index takes, in seconds: 2^31 - 1. */
const longest = 2_147_483_647

export const expireSent = async (outbox: Collection<OutboxDocument>, keepSentMs: number): Promise<void> => {
  const expireAfterSeconds = Math.min(longest, Math.ceil(keepSentMs / 1_000))
  try {
    // Downwards, since the upward one is there for purges, and has no end.
    await outbox.createIndex({ sentAt: -1 }, { name: indexName, expireAfterSeconds })
  } catch (error) {
    if (!hasCode(error, (code) => otherOptions.has(code))) throw error
    await outbox.db.command({
      collMod: outbox.collectionName,
      index: { name: indexName, expireAfterSeconds }
    })
  }
}
