/** What every write to the log is made of: documents, commands of a bounded size, and a topic's first document. */
import type { Db } from "mongodb"
import type { EventRecord } from "../../domain/Event.ts"
import type { ReturningRecord } from "../../services/EventStore.ts"
import { isDuplicateKey } from "./attempts.ts"
import { type Head, seqsOf } from "./eventLog.ts"
import { collection, type EventDocument, type TopicDocument } from "./schema.ts"

/** So many events go in one command, and so many bytes of them at most. */
const maxCommand = { events: 10_000, bytes: 12 * 1024 * 1024 }

/** The first of these documents that fit into one command. */
export const fitting = (documents: ReadonlyArray<EventDocument>): ReadonlyArray<EventDocument> => {
  let bytes = 0
  let count = 0
  for (const { body } of documents) {
    bytes += Buffer.byteLength(body) + 1_024
    if (count === maxCommand.events || (count > 0 && bytes > maxCommand.bytes)) break
    count++
  }
  return documents.slice(0, count)
}

const documentOf = (record: EventRecord, seq: number, storedAt: number): EventDocument => ({
  _id: { topic: record.topic, seq },
  topic: record.topic,
  id: record.id,
  ...(record.key === undefined ? {} : { key: record.key }),
  ...(record.tombstone ? { tombstone: true } : {}),
  body: record.body,
  storedAt
})

/** Events behind the end of their topic. Times never decrease within it, and never lie in the future. */
export const inOrder = (
  records: ReadonlyArray<ReturningRecord>,
  { seq, storedAt }: Head,
  now: number
): ReadonlyArray<EventDocument> => {
  let time = storedAt
  return records.map((record, i) => {
    time = Math.max(time, Math.min(record.firstStoredAt ?? now, now))
    return documentOf(record, seq + 1 + i, time)
  })
}

/** A topic before its first event. */
const newTopic = {
  head: 0,
  storedAt: 0,
  floor: 0,
  latestTo: 0,
  trimmedTo: 0,
  grownAt: new Date(0)
}

/** Makes the document of a topic, and answers what it is by then. */
export const arrive = async (db: Db, topic: string): Promise<TopicDocument> => {
  for (;;) {
    try {
      const found = await collection(db, "topics").findOneAndUpdate(
        { _id: topic },
        { $setOnInsert: newTopic },
        { upsert: true, returnDocument: "after" }
      )
      if (found !== null) return found
    } catch (error) {
      // Somebody else made it at the same moment.
      if (!isDuplicateKey(error)) throw error
    }
  }
}

/** Events that one deletion takes. */
const deleteChunk = 1_000

export const deleteSeqs = async (db: Db, topic: string, from: number, to: number): Promise<void> => {
  for (let low = from; low <= to; low += deleteChunk) {
    await collection(db, "events").deleteMany(seqsOf(topic, low, Math.min(to, low + deleteChunk - 1)))
  }
}
