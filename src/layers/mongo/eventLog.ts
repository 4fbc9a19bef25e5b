/**
 * Looks into the log: where a topic ends, what a range holds, which ids there are.
 *
 * Three rules make the answers true. Seqs are dense, so one that is absent has nothing behind it. What stands at or
 * below the floor is not there, whether it is deleted yet or was inserted by somebody who had not heard of the floor;
 * so the floor is read after the events. And a topic that is being restored is not there at all.
 */
import type { Db } from "mongodb"
import type { StoredRecord } from "../../domain/Event.ts"
import { collection, type EventDocument, type TopicDocument } from "./schema.ts"

/** What leaves the hub is read `majority`; a guess that an insert will check may be `local`. */
type Level = "local" | "majority"

export interface Head {
  readonly seq: number
  readonly storedAt: number
}

export const recordOf = (event: EventDocument): StoredRecord => ({
  topic: event.topic,
  id: event.id,
  key: event.key,
  tombstone: event.tombstone === true,
  body: event.body,
  seq: event._id.seq,
  storedAt: event.storedAt
})

/** The events with these seqs. Both ends are given, because a range that is open is not always one for the server. */
export const seqsOf = (topic: string, from: number, to: number) => ({
  topic,
  _id: { $gte: { topic, seq: from }, $lte: { topic, seq: to } }
})

export const topicOf = async (db: Db, topic: string): Promise<TopicDocument | undefined> =>
  (await collection(db, "topics").findOne({ _id: topic })) ?? undefined

/** The topic as its readers see it. */
export const readableTopic = async (db: Db, topic: string): Promise<TopicDocument | undefined> => {
  const found = await topicOf(db, topic)
  return found?.restoring === undefined ? found : undefined
}

/** When these were stored, as far as they are there. */
const stampsOf = async (
  db: Db,
  topic: string,
  seqs: ReadonlyArray<number>,
  level: Level
): Promise<ReadonlyMap<number, number>> => {
  const found = await collection(db, "events")
    .find(
      { topic, _id: { $in: seqs.map((seq) => ({ topic, seq })) } },
      { projection: { storedAt: 1 }, readConcern: { level } }
    )
    .toArray()
  return new Map(found.map((event) => [event._id.seq, event.storedAt]))
}

/** Seqs that one look asks for. */
const probes = 16

/** Some seqs strictly between two, about evenly. */
const between = (low: number, high: number): ReadonlyArray<number> => {
  const stride = Math.max(1, Math.ceil((high - low) / probes))
  const seqs: Array<number> = []
  for (let seq = low + stride; seq < high; seq += stride) seqs.push(seq)
  return seqs
}

/** The end of the log, looked for from a seq that is there; nothing when that is not there. */
export const headBehind = async (
  db: Db,
  topic: string,
  known: number,
  level: Level
): Promise<Head | undefined> => {
  const ahead = (seq: number) => [seq, ...Array.from({ length: probes - 1 }, (_, i) => seq + 2 ** i)]
  let seqs: ReadonlyArray<number> = ahead(known)
  for (;;) {
    const stamps = await stampsOf(db, topic, seqs, level)
    const last = Math.max(...stamps.keys())
    const storedAt = stamps.get(last)
    if (storedAt === undefined) return undefined
    const absent = seqs.find((seq) => seq > last)
    if (absent === last + 1) return { seq: last, storedAt }
    seqs = absent === undefined ? ahead(last) : [last, ...between(last, absent)]
  }
}

export interface Found {
  readonly topic: TopicDocument
  readonly head: Head
}

/** A topic and its true end; nothing before its first event. */
export const headOf = async (db: Db, name: string, level: Level): Promise<Found | undefined> => {
  let before: number | undefined
  for (;;) {
    const topic = await readableTopic(db, name)
    if (topic === undefined) return undefined
    const head = await headBehind(db, name, topic.head, level)
    if (head !== undefined) return { topic, head }
    // Trimmed between the two looks: then the topic knows a later one by now.
    if (topic.head === before) {
      // It never grew; or somebody deleted its end by hand, and the head does not fall for that.
      return before === 0 ? undefined : { topic, head: { seq: before, storedAt: topic.storedAt } }
    }
    before = topic.head
  }
}

/**
 * The first seq of a range whose event was stored at a time or later, or what follows the range. Times never
 * decrease within a topic; what is not there was trimmed, and is older than anything else.
 */
export const firstStoredFrom = async (
  db: Db,
  topic: string,
  range: { readonly from: number; readonly to: number },
  time: number
): Promise<number> => {
  let low = range.from - 1
  let high = range.to + 1
  while (high - low > 1) {
    const seqs = between(low, high)
    const stamps = await stampsOf(db, topic, seqs, "majority")
    for (const seq of seqs) {
      if ((stamps.get(seq) ?? -Infinity) < time) low = seq
      else {
        high = seq
        break
      }
    }
  }
  return high
}

/** How many events a reader who counts bytes gets at first; their size says how many more it may ask for. */
const firstStep = 128
const longestStep = 2_000

const readRange = async (
  db: Db,
  topic: string,
  range: { readonly from: number; readonly to: number },
  maxBytes: number
): Promise<ReadonlyArray<StoredRecord>> => {
  const found: Array<StoredRecord> = []
  let bytes = 0
  let from = range.from
  let step = maxBytes === Infinity ? longestStep : firstStep
  while (from <= range.to) {
    const to = Math.min(range.to, from + step - 1)
    const cursor = collection(db, "events").find(seqsOf(topic, from, to), {
      sort: { _id: 1 },
      batchSize: to - from + 2
    })
    for await (const event of cursor) {
      bytes += event.body.length
      if (found.length > 0 && bytes > maxBytes) return found
      found.push(recordOf(event))
    }
    if (found.at(-1)?.seq !== to) return found
    from = to + 1
    step = Math.max(1, Math.min(longestStep, Math.floor(((maxBytes - bytes) * found.length) / bytes)))
  }
  return found
}

export const readAfter = async (
  db: Db,
  range: {
    readonly topic: string
    readonly after: number
    readonly limit: number
    readonly maxBytes?: number
  }
): Promise<ReadonlyArray<StoredRecord>> => {
  if (range.limit <= 0) return []
  let { after } = range
  for (;;) {
    const limits = { from: after + 1, to: after + range.limit }
    const events = await readRange(db, range.topic, limits, range.maxBytes ?? Infinity)
    const topic = await readableTopic(db, range.topic)
    if (topic === undefined) return []
    let next = Math.max(after, topic.floor) + 1
    const found = events
      .filter((event) => event.seq > topic.floor)
      .filter((event) => event.seq === next && next++)
    if (found.length > 0 || topic.floor <= after) return found
    after = topic.floor
  }
}

export const readTime = async (db: Db, name: string, time: number): Promise<number> => {
  const found = await headOf(db, name, "majority")
  if (found === undefined) return 0
  return (await firstStoredFrom(db, name, { from: found.topic.floor + 1, to: found.head.seq }, time)) - 1
}

/** Ids that one query asks for. */
const idsChunk = 5_000

export interface Place {
  readonly id: string
  readonly seq: number
  readonly storedAt: number
}

/** Where ids stand, also at or below the floor. */
export const placesOf = async (
  db: Db,
  topic: string,
  ids: ReadonlyArray<string>
): Promise<ReadonlyArray<Place>> => {
  const places: Array<Place> = []
  for (let from = 0; from < ids.length; from += idsChunk) {
    const events = collection(db, "events").find(
      { topic, id: { $in: ids.slice(from, from + idsChunk) } },
      { projection: { id: 1, storedAt: 1 }, batchSize: idsChunk + 1 }
    )
    for await (const { _id, id, storedAt } of events) places.push({ id, seq: _id.seq, storedAt })
  }
  return places
}

/** The seqs of those ids that the topic holds. */
export const seqsOfIds = async (
  db: Db,
  name: string,
  ids: ReadonlyArray<string>
): Promise<ReadonlyMap<string, number>> => {
  const places = await placesOf(db, name, ids)
  if (places.length === 0) return new Map()
  const topic = await readableTopic(db, name)
  if (topic === undefined) return new Map()
  const seqs = new Map(places.filter(({ seq }) => seq > topic.floor).map(({ id, seq }) => [id, seq]))
  // In the order of the question.
  return new Map(ids.flatMap((id) => (seqs.has(id) ? [[id, seqs.get(id)!]] : [])))
}
