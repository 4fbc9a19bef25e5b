/**
 * The last event of each key, in a collection of its own, so that it survives trimming.
 *
 * It is brought up to the log when somebody needs it: each event is put down under its key unless a later one stands
 * there, and then the topic is told how far it is. Any number of hubs may do it at once, and again after a crash.
 */
import type { Db } from "mongodb"
import type { StoredRecord } from "../../domain/Event.ts"
import type { Page } from "../../services/Page.ts"
import { isDuplicateKey } from "./attempts.ts"
import { headOf, readableTopic, recordOf as eventOf, seqsOf } from "./eventLog.ts"
import { collection, type LatestDocument } from "./schema.ts"

/** What one step takes in at most. */
const step = { events: 2_000, bytes: 8 * 1024 * 1024 }

/** What is stored is a value and never an expression: `$literal` keeps the server from looking inside. */
const put = (event: StoredRecord, key: string) => {
  const { body, id, seq, storedAt, tombstone, topic } = event
  const latest: LatestDocument = {
    _id: { topic, key },
    topic,
    seq,
    storedAt,
    id,
    tombstone,
    body: tombstone ? "" : body
  }
  return {
    updateOne: {
      filter: { _id: { topic, key }, topic },
      update: [
        {
          $replaceWith: {
            $cond: [{ $gte: [{ $ifNull: ["$seq", 0] }, seq] }, "$$ROOT", { $literal: latest }]
          }
        }
      ],
      upsert: true
    }
  }
}

/** Two hubs that meet a new key at once: one of them inserts it, and the other has to look again. */
const putAll = async (db: Db, events: ReadonlyMap<string, StoredRecord>): Promise<void> => {
  if (events.size === 0) return
  const operations = Array.from(events, ([key, event]) => put(event, key))
  for (let attempt = 1; ; attempt++) {
    try {
      await collection(db, "latest").bulkWrite(operations, { ordered: false })
      return
    } catch (error) {
      if (!isDuplicateKey(error) || attempt === 5) throw error
    }
  }
}

/** One step towards a seq; answers how far it got. */
export const catchUpStep = async (db: Db, topic: string, from: number, to: number): Promise<number> => {
  const last = Math.min(to, from + step.events)
  const newest = new Map<string, StoredRecord>()
  let reached = last
  let bytes = 0
  const events = collection(db, "events").find(
    { ...seqsOf(topic, from + 1, last), key: { $exists: true } },
    { sort: { _id: 1 }, batchSize: step.events + 1 }
  )
  for await (const event of events) {
    if (event.key !== undefined) newest.set(event.key, eventOf(event))
    bytes += event.body.length
    if (bytes < step.bytes) continue
    reached = event._id.seq
    break
  }
  await putAll(db, newest)
  await collection(db, "topics").updateOne({ _id: topic }, { $max: { latestTo: reached } })
  return reached
}

/** Brings the collection up to a seq that is in the log. */
export const catchUp = async (db: Db, topic: string, to: number): Promise<void> => {
  let from = (await readableTopic(db, topic))?.latestTo ?? to
  while (from < to) from = await catchUpStep(db, topic, from, to)
}

const recordOf = (latest: LatestDocument): StoredRecord => ({
  topic: latest.topic,
  id: latest.id,
  key: latest._id.key,
  tombstone: false,
  body: latest.body,
  seq: latest.seq,
  storedAt: latest.storedAt
})

/** Brings the collection up to the head. False: there is no such topic. */
const catchUpAll = async (db: Db, topic: string): Promise<boolean> => {
  const found = await headOf(db, topic, "majority")
  if (found === undefined) return false
  if (found.topic.latestTo < found.head.seq) await catchUp(db, topic, found.head.seq)
  return true
}

/** Keys that one query asks for. */
const keysChunk = 5_000

export const latestOf = async (
  db: Db,
  topic: string,
  keys: ReadonlyArray<string>
): Promise<ReadonlyMap<string, StoredRecord>> => {
  if (keys.length === 0 || !(await catchUpAll(db, topic))) return new Map()
  const found = new Map<string, StoredRecord>()
  for (let from = 0; from < keys.length; from += keysChunk) {
    const _ids = keys.slice(from, from + keysChunk).map((key) => ({ topic, key }))
    const latest = collection(db, "latest").find(
      { topic, _id: { $in: _ids }, tombstone: false },
      { batchSize: _ids.length + 1 }
    )
    for await (const item of latest) found.set(item._id.key, recordOf(item))
  }
  // In the order of the question.
  return new Map(keys.flatMap((key) => (found.has(key) ? [[key, found.get(key)!]] : [])))
}

/** Behind every key of a topic, and before those of any other: no topic's name holds this character. */
const behindAll = (topic: string) => ({ topic: `${topic}\u0000`, key: "" })

export const latestByKey = async (
  db: Db,
  page: { readonly topic: string; readonly after?: string; readonly limit: number }
): Promise<Page<StoredRecord>> => {
  const { after = "", limit, topic } = page
  if (!(await catchUpAll(db, topic))) return { items: [], next: undefined }
  const found = await collection(db, "latest")
    .find({ topic, _id: { $gt: { topic, key: after }, $lt: behindAll(topic) }, tombstone: false })
    .sort({ _id: 1 })
    .limit(limit + 1)
    .batchSize(limit + 2)
    .toArray()
  const items = found.slice(0, limit).map(recordOf)
  return { items, next: found.length > limit ? items.at(-1)?.key : undefined }
}

/** The last events of keys that were trimmed. A key whose later event stands here keeps that. */
export const restoreLatest = async (
  db: Db,
  { records, topic }: { readonly topic: string; readonly records: ReadonlyArray<StoredRecord> }
): Promise<void> => {
  const found = await readableTopic(db, topic)
  if (found === undefined) return
  const newest = new Map<string, StoredRecord>()
  for (const record of records) {
    if (record.key !== undefined && record.seq <= found.floor) newest.set(record.key, record)
  }
  await putAll(db, newest)
}
