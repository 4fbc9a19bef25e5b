/**
 * Appends to the log: dense, in order, each id once, whatever others do at the same moment.
 *
 * An event is inserted under the seq behind the head that is known here, and the key of the collection decides who
 * has it. Whoever comes too late looks where the log ends and which of the ids it holds, and goes on behind it. An
 * event counts only when the floor was read after its insert and lies below it: an insert that was held up for long
 * may have filled a seq that was trimmed meanwhile, where nobody would ever read it.
 */
import { type Db, MongoBulkWriteError } from "mongodb"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { type EventRecord, utf8Length } from "../../domain/Event.ts"
import type { AppendResult, ReturningRecord } from "../../services/EventStore.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { isDuplicateKey } from "./attempts.ts"
import { type Head, headBehind, headOf, placesOf, topicOf } from "./eventLog.ts"
import { arrive, fitting, inOrder } from "./eventWrites.ts"
import { makeHeads, makeLanes, pause } from "./knownTopics.ts"
import type { MongoDatabase } from "./MongoDatabase.ts"
import { rescue } from "./restoreTopic.ts"
import { collection, type EventDocument, type TopicDocument } from "./schema.ts"

export interface AppendOptions {
  /** Characters of a record's body that are still held. */
  readonly maxRecordLength: number
  /** Topics of a batch that are written at the same time. */
  readonly topicsAtOnce: number
  /** How long a topic may give no ground before its part of a batch is given back as unavailable. */
  readonly patienceMs: number
  /** Topics whose end is remembered. */
  readonly maxKnownTopics: number
  readonly restoreLeaseMs: number
}

const operation = "EventStore.append"

/** A document has 16 MiB; this is for what stands in it beside the body. */
const maxBodyBytes = 16 * 1024 * 1024 - 64 * 1024

/** The longest pause of a hub that others keep from appending, in milliseconds. */
const longestPause = 50

interface Place {
  readonly seq: number
  readonly storedAt: number
  readonly duplicate: boolean
  /** The floor was read after it was in the log, and lay below it. */
  readonly isSettled: boolean
}

/** What a batch holds of one topic. */
interface Part {
  readonly topic: string
  readonly records: ReadonlyArray<ReturningRecord>
  readonly placed: Map<string, Place>
  /** Own or others' events that stand where nobody reads; they go before their ids are used again. */
  sunk: Array<{ readonly id: string; readonly seq: number }>
  failure: StoreUnavailable | undefined
}

/** What became of an ordered insert. */
interface Inserted {
  readonly count: number
  readonly collided: boolean
}

/** Sorts out what is known to last and what has sunk, by a look at the topic that is younger than these events. */
const settle = (part: Part, topic: TopicDocument | undefined): boolean => {
  const floor = topic === undefined || topic.restoring !== undefined ? Infinity : topic.floor
  for (const [id, place] of part.placed) {
    if (place.isSettled) continue
    if (place.seq > floor) part.placed.set(id, { ...place, isSettled: true })
    else {
      part.placed.delete(id)
      part.sunk.push({ id, seq: place.seq })
    }
  }
  return part.sunk.length === 0
}

const lastOf = (placed: ReadonlyMap<string, Place>): Place =>
  [...placed.values()].reduce((a, b) => (a.seq > b.seq ? a : b))

export const makeAppend = Effect.fnUntraced(function* (
  database: MongoDatabase["Service"],
  options: AppendOptions,
  hooks: {
    readonly token: () => string
    /** A topic grew by what was appended here. */
    readonly grew: (topic: TopicDocument, head: number) => void
  }
) {
  const random = yield* Random.Random
  const heads = makeHeads(options.maxKnownTopics)
  const inLane = makeLanes()

  const insert = (documents: ReadonlyArray<EventDocument>): Effect.Effect<Inserted, StoreUnavailable> =>
    Effect.flatMap(
      database.use(operation, async (db): Promise<Inserted | MongoBulkWriteError> => {
        try {
          await collection(db, "events").insertMany([...documents], { ordered: true })
          return { count: documents.length, collided: false }
        } catch (error) {
          if (!(error instanceof MongoBulkWriteError) || !isDuplicateKey(error)) throw error
          // A collision, and no word whether what was inserted before it will last.
          if (error.result.getWriteConcernError() !== undefined) return error
          return { count: error.insertedCount, collided: true }
        }
      }),
      (inserted) =>
        inserted instanceof MongoBulkWriteError
          ? Effect.fail(new StoreUnavailable({ operation, cause: inserted }))
          : Effect.succeed(inserted)
    )

  /** The end of a topic that has been trimmed past the head that its document had. */
  const laterHead = async (db: Db, { _id, head }: TopicDocument): Promise<Head | undefined> =>
    head === 0 ? undefined : (await headOf(db, _id, "local"))?.head

  /** Where the log ends; nothing while somebody restores the topic. */
  const findHead = (topic: string): Effect.Effect<Head | undefined, StoreUnavailable> =>
    database.use(operation, async (db) => {
      const found = await arrive(db, topic)
      if (found.restoring !== undefined) {
        await rescue(db, topic, { leaseMs: options.restoreLeaseMs, token: hooks.token() })
        return undefined
      }
      const head = await headBehind(db, topic, found.head, "local")
      return head ?? (await laterHead(db, found)) ?? { seq: 0, storedAt: 0 }
    })

  /** Takes back what sank, so that its ids are free. */
  const raise = (part: Part): Effect.Effect<void, StoreUnavailable> =>
    Effect.suspend(() => {
      const { sunk, topic } = part
      if (sunk.length === 0) return Effect.void
      heads.delete(topic)
      return Effect.map(
        database.use(operation, (db) =>
          collection(db, "events").deleteMany({
            topic,
            _id: { $in: sunk.map(({ seq }) => ({ topic, seq })) },
            id: { $in: sunk.map(({ id }) => id) }
          })
        ),
        () => void (part.sunk = [])
      )
    })

  /** After a collision: which of the events the log holds by now. The floor is read after them. */
  const recognise = (
    part: Part,
    records: ReadonlyArray<ReturningRecord>
  ): Effect.Effect<boolean, StoreUnavailable> =>
    Effect.map(
      database.use(operation, async (db) => {
        const ids = records.map(({ id }) => id)
        const places = await placesOf(db, part.topic, ids)
        return { places, topic: await topicOf(db, part.topic) }
      }),
      ({ places, topic }) => {
        for (const { id, seq, storedAt } of places) {
          part.placed.set(id, { seq, storedAt, duplicate: true, isSettled: false })
        }
        settle(part, topic)
        return places.length > 0
      }
    )

  /** Where the log ends after a collision: what is known here was too little. */
  const lookBehind = (topic: string, known: Head): Effect.Effect<Head | undefined, StoreUnavailable> =>
    Effect.flatMap(
      database.use(operation, (db) =>
        known.seq === 0 ? Promise.resolve(undefined) : headBehind(db, topic, known.seq, "local")
      ),
      (head) => (head === undefined ? findHead(topic) : Effect.succeed(head))
    )

  /** Brings all events of a part into the log; what is not settled has to be looked at once more. */
  const place = (part: Part): Effect.Effect<void, StoreUnavailable> =>
    Effect.gen(function* () {
      const { topic } = part
      let head: Head | undefined
      let patientUntil = database.now() + options.patienceMs
      let collisions = 0
      for (;;) {
        yield* raise(part)
        const open = part.records.filter(({ id }) => !part.placed.has(id))
        if (open.length === 0) return
        const before = head ?? heads.get(topic)
        head = before ?? (yield* findHead(topic))
        let progress = before === undefined && head !== undefined
        if (head !== undefined) {
          const { seq, storedAt } = head
          const documents = fitting(inOrder(open, { seq, storedAt }, database.now()))
          const { collided, count } = yield* Effect.tapError(insert(documents), () =>
            Effect.sync(() => heads.delete(topic))
          )
          for (const { _id, id, storedAt } of documents.slice(0, count)) {
            head = { seq: _id.seq, storedAt }
            part.placed.set(id, { ...head, duplicate: false, isSettled: false })
          }
          if (!collided) {
            heads.set(topic, head)
            collisions = 0
            continue
          }
          const known = yield* recognise(part, open.slice(count, documents.length))
          const hasSunk = part.sunk.length > 0
          const reached: Head | undefined = yield* lookBehind(topic, hasSunk ? { seq: 0, storedAt: 0 } : head)
          progress = known || hasSunk || (reached !== undefined && reached.seq > seq)
          head = reached
          if (reached === undefined) heads.delete(topic)
          else heads.set(topic, reached)
        }
        if (progress) patientUntil = database.now() + options.patienceMs
        else if (database.now() > patientUntil) {
          const cause = new Error(`topic '${topic}' takes no events: others write to it or restore it`)
          return yield* new StoreUnavailable({ operation, cause })
        }
        collisions++
        if (collisions > 1 || !progress) {
          const most = Math.min(longestPause, 2 ** collisions)
          yield* pause(1 + Math.floor(random.nextDoubleUnsafe() * most))
        }
      }
    })

  /**
   * Says how far topics reach, and asks where their floors are, all in one round trip. A topic that is being
   * restored is not told, and the answer says so.
   */
  const confirm = (
    parts: ReadonlyArray<Part>
  ): Effect.Effect<ReadonlyMap<string, TopicDocument>, StoreUnavailable> =>
    Effect.map(
      database.use(operation, async (db) => {
        const topics = collection(db, "topics")
        const updates = parts.map(({ placed, topic }) => {
          const { seq, storedAt } = lastOf(placed)
          return {
            filter: { _id: topic, restoring: { $exists: false } },
            update: { $max: { head: seq, storedAt }, $currentDate: { grownAt: true as const } }
          }
        })
        const [only] = updates
        if (only !== undefined && updates.length === 1) {
          const found = await topics.findOneAndUpdate(only.filter, only.update, { returnDocument: "after" })
          return found === null ? [] : [found]
        }
        const names = parts.map(({ topic }) => topic)
        const [found] = await Promise.all([
          topics.find({ _id: { $in: names } }, { batchSize: names.length + 1 }).toArray(),
          topics.bulkWrite(
            updates.map((updateOne) => ({ updateOne })),
            { ordered: false }
          )
        ])
        return found
      }),
      (found) => new Map(found.map((topic) => [topic._id, topic]))
    )

  /** Places parts and has them confirmed, until each is in the log for good or has failed. */
  const settleAll = (parts: ReadonlyArray<Part>): Effect.Effect<void> =>
    Effect.gen(function* () {
      let open = parts
      while (open.length > 0) {
        yield* Effect.forEach(
          open,
          (part) =>
            inLane(part.topic, place(part)).pipe(
              Effect.catch((failure) => Effect.sync(() => void (part.failure = failure)))
            ),
          { concurrency: options.topicsAtOnce, discard: true }
        )
        const unsure = open.filter(
          (part) => part.failure === undefined && [...part.placed.values()].some((place) => !place.isSettled)
        )
        if (unsure.length === 0) return
        const topics = yield* confirm(unsure).pipe(
          Effect.catch((failure) =>
            Effect.sync(() => {
              for (const part of unsure) part.failure = failure
              return undefined
            })
          )
        )
        if (topics === undefined) return
        open = unsure.filter((part) => {
          const topic = topics.get(part.topic)
          if (!settle(part, topic)) return true
          if (topic !== undefined) hooks.grew(topic, lastOf(part.placed).seq)
          return false
        })
      }
    })

  const isTooLarge = ({ body }: EventRecord): boolean =>
    body.length > options.maxRecordLength ||
    // No string has more than three bytes a unit: most bodies need no count.
    (body.length * 3 > maxBodyBytes && utf8Length(body) > maxBodyBytes)

  return (
    batch: ReadonlyArray<ReturningRecord>
  ): Effect.Effect<ReadonlyArray<AppendResult>, StoreUnavailable> =>
    Effect.gen(function* () {
      const refused = new Set<string>()
      const unique = new Map<string, Map<string, ReturningRecord>>()
      const reasons = batch.map((record) => {
        if (refused.has(record.topic)) return "behind_refused" as const
        if (isTooLarge(record)) {
          refused.add(record.topic)
          return "too_large" as const
        }
        let records = unique.get(record.topic)
        if (records === undefined) unique.set(record.topic, (records = new Map()))
        if (!records.has(record.id)) records.set(record.id, record)
        return undefined
      })
      const parts = Array.from(unique, ([topic, records]): Part => {
        return { topic, records: [...records.values()], placed: new Map(), sunk: [], failure: undefined }
      })
      yield* settleAll(parts)
      const [first] = parts
      if (first?.failure !== undefined && parts.every(({ failure }) => failure !== undefined)) {
        return yield* first.failure
      }
      const byTopic = new Map(parts.map((part) => [part.topic, part]))
      const answered = new Set<ReturningRecord>()
      return batch.map((record, i): AppendResult => {
        const { id, topic } = record
        const reason = reasons[i]
        if (reason !== undefined) return { _tag: "NotAppended", topic, id, reason }
        const part = byTopic.get(topic)
        const place = part?.placed.get(id)
        if (part === undefined || part.failure !== undefined || place === undefined) {
          return { _tag: "NotAppended", topic, id, reason: "unavailable" }
        }
        const isFirst = unique.get(topic)?.get(id) === record && !answered.has(record)
        answered.add(record)
        const { seq, storedAt } = place
        return { _tag: "Appended", topic, id, seq, storedAt, duplicate: place.duplicate || !isFirst }
      })
    })
})
