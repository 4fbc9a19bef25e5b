/**
 * The event log in MongoDB, for any number of hubs at once.
 *
 * Acknowledged means written by a majority, with its journal. No write here needs a transaction: the key of an event
 * is its topic and its seq, so that one of all who try has the seq, and what follows from the log, the heads and the
 * latest events, is brought up to it by whoever comes next.
 */
import type { Db } from "mongodb"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import { toLines } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { EventStore, TopicExists, type TopicInfo } from "../../services/EventStore.ts"
import { Ids } from "../../services/Ids.ts"
import type { Page } from "../../services/Page.ts"
import { type AppendOptions, makeAppend } from "./appendEvents.ts"
import { type Found, headOf, readAfter, readTime, seqsOfIds } from "./eventLog.ts"
import { makeHeads } from "./knownTopics.ts"
import { catchUp, latestByKey, latestOf, restoreLatest } from "./latestEvents.ts"
import { MongoDatabase } from "./MongoDatabase.ts"
import { restoreTopic } from "./restoreTopic.ts"
import { collection, type TopicDocument } from "./schema.ts"
import { type ChangesOptions, topicChanges } from "./topicChanges.ts"
import { trimStep } from "./trimEvents.ts"

export interface Options extends AppendOptions, ChangesOptions {
  readonly retention: Pick<Settings.RetentionSettings, "minAgeMs">
  /** By how many events the latest of the keys may be behind before they are brought up without being asked for. */
  readonly maxLatestLag: number
}

export const defaults: Options = {
  retention: Settings.retention,
  maxRecordLength: 15 * 1024 * 1024,
  topicsAtOnce: 16,
  patienceMs: 10_000,
  maxKnownTopics: 100_000,
  maxLatestLag: 10_000,
  restoreLeaseMs: 60_000,
  busyPollMs: 10,
  idlePollMs: 250,
  retryStreamMs: 30_000
}

const infoOf = ({ head, topic }: Found): TopicInfo => ({
  topic: topic._id,
  head: head.seq,
  floor: topic.floor,
  storedAt: head.storedAt
})

/** Greater than every topic, whose characters end at `~`. */
const behindAll = "\u007f"

/** Topics of a pattern lie between its literal beginning and the end of what begins like that. */
const namesOf = (pattern: Topic.Pattern): { readonly $gte: string; readonly $lt: string } => {
  const wildcard = pattern.segments.findIndex((segment) => segment === "*" || segment === "**")
  const prefix = pattern.segments.slice(0, wildcard < 0 ? undefined : wildcard).join(".")
  return { $gte: prefix, $lt: `${prefix}${behindAll}` }
}

/** How many names one look at the topics reads, while it searches for those that match. */
const namesChunk = 1_000

/** The ends of these topics: as they say themselves, and where the log goes on behind that, as the log says. */
const infosOf = async (db: Db, topics: ReadonlyArray<TopicDocument>): Promise<ReadonlyArray<TopicInfo>> => {
  const behind = await collection(db, "events")
    .find(
      {
        topic: { $in: topics.map(({ _id }) => _id) },
        _id: { $in: topics.map(({ _id, head }) => ({ topic: _id, seq: head + 1 })) }
      },
      { projection: { topic: 1 }, batchSize: topics.length + 1 }
    )
    .toArray()
  const grown = new Set(behind.map(({ topic }) => topic))
  const infos: Array<TopicInfo> = []
  for (const topic of topics) {
    const found = grown.has(topic._id) ? await headOf(db, topic._id, "majority") : undefined
    infos.push(infoOf(found ?? { topic, head: { seq: topic.head, storedAt: topic.storedAt } }))
  }
  return infos
}

const topicsOf = async (
  db: Db,
  page: { readonly pattern: Topic.Pattern; readonly after?: string; readonly limit: number }
): Promise<Page<TopicInfo>> => {
  const { after, limit, pattern } = page
  const range = namesOf(pattern)
  const found: Array<TopicDocument> = []
  let name = after
  for (;;) {
    const names = name === undefined ? range : { ...range, $gt: name }
    const topics = await collection(db, "topics")
      .find({ _id: names, head: { $gt: 0 }, restoring: { $exists: false } })
      .sort({ _id: 1 })
      .limit(namesChunk)
      .batchSize(namesChunk + 1)
      .toArray()
    for (const topic of topics) {
      if (!Topic.matches(pattern, { _tag: "Topic", name: topic._id, segments: topic._id.split(".") }))
        continue
      if (found.length === limit) return { items: await infosOf(db, found), next: found.at(-1)?._id }
      found.push(topic)
    }
    name = topics.at(-1)?._id
    if (topics.length < namesChunk) return { items: await infosOf(db, found), next: undefined }
  }
}

const make = Effect.fnUntraced(function* (given: Partial<Options> = {}) {
  const options = { ...defaults, ...given }
  const database = yield* MongoDatabase
  const ids = yield* Ids
  const run = yield* FiberSet.makeRuntime()

  /** How far topics grew by what was appended here. */
  const own = makeHeads(options.maxKnownTopics)
  const catchingUp = new Set<string>()

  const grew = (topic: TopicDocument, head: number): void => {
    const name = topic._id
    own.set(name, { seq: Math.max(head, own.get(name)?.seq ?? 0), storedAt: 0 })
    if (head - topic.latestTo <= options.maxLatestLag || catchingUp.has(name)) return
    catchingUp.add(name)
    run(
      database
        .use("EventStore.append", (db) => catchUp(db, name, head))
        .pipe(
          // The next append tries again.
          Effect.ignore,
          Effect.ensuring(Effect.sync(() => catchingUp.delete(name)))
        )
    )
  }

  const append = yield* makeAppend(database, options, { token: ids.next, grew })

  return EventStore.of({
    history: Effect.succeed(database.history),
    append,
    read: (range) => database.use("EventStore.read", (db) => readAfter(db, range)),
    readLines: (range) =>
      database.use("EventStore.readLines", async (db) => toLines(await readAfter(db, range))),
    readTime: ({ time, topic }) => database.use("EventStore.readTime", (db) => readTime(db, topic, time)),
    head: (topic) =>
      database.use("EventStore.head", async (db) => {
        const found = await headOf(db, topic, "majority")
        return found === undefined ? undefined : infoOf(found)
      }),
    topics: (page) => database.use("EventStore.topics", (db) => topicsOf(db, page)),
    find: ({ ids, topic }) => database.use("EventStore.find", (db) => seqsOfIds(db, topic, ids)),
    latestOf: ({ keys, topic }) => database.use("EventStore.latestOf", (db) => latestOf(db, topic, keys)),
    latestByKey: (page) => database.use("EventStore.latestByKey", (db) => latestByKey(db, page)),
    trim: ({ topic, upTo }) =>
      Effect.gen(function* () {
        for (;;) {
          const storedBefore = database.now() - options.retention.minAgeMs
          const trimmed = yield* database.use("EventStore.trim", (db) =>
            trimStep(db, { topic, upTo, storedBefore })
          )
          if (trimmed.done) return trimmed.floor
        }
      }),
    restore: (args) =>
      Effect.flatMap(
        database.use("EventStore.restore", (db) =>
          restoreTopic(db, args, {
            leaseMs: options.restoreLeaseMs,
            now: database.now(),
            token: ids.next()
          })
        ),
        (restored) => (restored ? Effect.void : Effect.fail(new TopicExists({ topic: args.topic })))
      ),
    restoreLatest: (args) => database.use("EventStore.restoreLatest", (db) => restoreLatest(db, args)),
    changes: topicChanges(database, options, (topic) => own.get(topic)?.seq ?? 0)
  })
})

export const layer = (options?: Partial<Options>): Layer.Layer<EventStore, never, MongoDatabase | Ids> =>
  Layer.effect(EventStore, make(options))
