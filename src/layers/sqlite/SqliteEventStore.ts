/**
 * The event log in an SQLite file.
 *
 * Acknowledged means committed and fsynced. Reads see what is committed, and nothing can be committed out of
 * order: there is one writer.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { StoredRecord } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { EventStore, TopicExists, type TopicInfo } from "../../services/EventStore.ts"
import { linesAfter } from "./linesAfter.ts"
import { packRecords, unpackResults } from "./packedAppend.ts"
import { SqliteDatabase } from "./SqliteDatabase.ts"
import type { Statements } from "./statements.ts"

export interface Options {
  readonly retention: Pick<Settings.RetentionSettings, "minAgeMs">
  /** Characters of a record's body that are still held. */
  readonly maxRecordLength: number
}

export const defaults: Options = { retention: Settings.retention, maxRecordLength: 16 * 1024 * 1024 }

interface TopicRow {
  readonly id: number
  readonly name: string
  readonly head: number
  readonly floor: number
  readonly stored_at: number
}

interface EventRow {
  readonly seq: number
  readonly stored_at: number
  readonly id: string
  readonly key: string | null
  readonly tombstone: number
  readonly body: string
}

interface LatestRow {
  readonly seq: number
  readonly stored_at: number
  readonly id: string
  readonly key: string
  readonly body: string
}

const infoOf = (row: TopicRow): TopicInfo => ({
  topic: row.name,
  head: row.head,
  floor: row.floor,
  storedAt: row.stored_at
})

const recordOf = (topic: string, row: EventRow): StoredRecord => ({
  topic,
  id: row.id,
  key: row.key ?? undefined,
  tombstone: row.tombstone === 1,
  body: row.body,
  seq: row.seq,
  storedAt: row.stored_at
})

const latestRecordOf = (topic: string, row: LatestRow): StoredRecord => ({
  topic,
  id: row.id,
  key: row.key,
  tombstone: false,
  body: row.body,
  seq: row.seq,
  storedAt: row.stored_at
})

/** Greater than every topic, whose characters end at `~`. */
const behindAll = "\u007f"

/** Topics of a pattern lie between its literal beginning and the end of what begins like that. */
const namesOf = (pattern: Topic.Pattern): readonly [from: string, to: string] => {
  const wildcard = pattern.segments.findIndex((segment) => segment === "*" || segment === "**")
  if (wildcard < 0) return [pattern.name, `${pattern.name}${behindAll}`]
  if (wildcard === 0) return ["", behindAll]
  const prefix = pattern.segments.slice(0, wildcard).join(".")
  return [prefix, `${prefix}${behindAll}`]
}

/** How many names one look at the topics reads, while it searches for those that match. */
const namesChunk = 1_000

const readAfter = (
  statements: Statements,
  range: {
    readonly topic: string
    readonly after: number
    readonly limit: number
    readonly maxBytes?: number
  }
): ReadonlyArray<StoredRecord> => {
  const topic = statements.get<TopicRow>("topic", range.topic)
  if (topic === undefined) return []
  const { maxBytes = Infinity } = range
  const found: Array<StoredRecord> = []
  let bytes = 0
  for (const row of statements.each<EventRow>("eventsAfter", topic.id, range.after, range.limit)) {
    bytes += row.body.length
    if (found.length > 0 && bytes > maxBytes) break
    found.push(recordOf(range.topic, row))
  }
  return found
}

const readTime = (statements: Statements, name: string, time: number): number => {
  const topic = statements.get<TopicRow>("topic", name)
  if (topic === undefined) return 0
  // Times never decrease within a topic: the first event that is young enough is found by halving.
  let low = topic.floor + 1
  let high = topic.head + 1
  while (low < high) {
    const mid = Math.floor((low + high) / 2)
    const event = statements.get<{ readonly stored_at: number }>("storedAt", topic.id, mid)
    if (event !== undefined && event.stored_at >= time) high = mid
    else low = mid + 1
  }
  return low - 1
}

const make = Effect.fnUntraced(function* (options: Partial<Options> = {}) {
  const { maxRecordLength, retention } = { ...defaults, ...options }
  const db = yield* SqliteDatabase
  const clock = yield* Clock.Clock

  return EventStore.of({
    history: Effect.succeed(db.history),

    append: (records) =>
      records.length === 0
        ? Effect.succeed([])
        : Effect.suspend(() =>
            Effect.map(
              db.write("events", "append", {
                records: packRecords(records),
                maxLength: maxRecordLength,
                now: clock.currentTimeMillisUnsafe()
              }),
              (results) => unpackResults(records, results)
            )
          ),

    read: (range) => db.read("EventStore.read", (statements) => readAfter(statements, range)),

    readLines: (range) => db.read("EventStore.readLines", (statements) => linesAfter(statements, range)),

    readTime: ({ time, topic }) =>
      db.read("EventStore.readTime", (statements) => readTime(statements, topic, time)),

    head: (name) =>
      db.read("EventStore.head", (statements) => {
        const row = statements.get<TopicRow>("topic", name)
        return row === undefined ? undefined : infoOf(row)
      }),

    topics: ({ after, limit, pattern }) =>
      db.read("EventStore.topics", (statements) => {
        const [from, to] = namesOf(pattern)
        const items: Array<TopicInfo> = []
        // The name itself is in the range: what lies before it is found by a name that is a little smaller.
        let name = after ?? (from === "" ? "" : from.slice(0, -1))
        for (;;) {
          const rows = statements.all<TopicRow>("topicsAfter", name, to, namesChunk)
          for (const row of rows) {
            if (!Topic.matches(pattern, { _tag: "Topic", name: row.name, segments: row.name.split(".") }))
              continue
            if (items.length === limit) return { items, next: items.at(-1)?.topic }
            items.push(infoOf(row))
          }
          if (rows.length < namesChunk) return { items, next: undefined }
          name = rows.at(-1)!.name
        }
      }),

    find: ({ ids, topic: name }) =>
      db.read("EventStore.find", (statements) => {
        const found = new Map<string, number>()
        const topic = statements.get<TopicRow>("topic", name)
        if (topic === undefined) return found
        for (const id of ids) {
          const row = statements.get<{ readonly seq: number }>("eventById", topic.id, id)
          if (row !== undefined) found.set(id, row.seq)
        }
        return found
      }),

    latestOf: ({ keys, topic: name }) =>
      db.read("EventStore.latestOf", (statements) => {
        const found = new Map<string, StoredRecord>()
        const topic = statements.get<TopicRow>("topic", name)
        if (topic === undefined) return found
        for (const key of keys) {
          const row = statements.get<LatestRow>("latestOf", topic.id, key)
          if (row !== undefined) found.set(key, latestRecordOf(name, row))
        }
        return found
      }),

    latestByKey: ({ after, limit, topic: name }) =>
      db.read("EventStore.latestByKey", (statements) => {
        const topic = statements.get<TopicRow>("topic", name)
        if (topic === undefined) return { items: [], next: undefined }
        const rows = statements.all<LatestRow>("latestAfter", topic.id, after ?? "", limit + 1)
        const page = rows.slice(0, limit)
        return {
          items: page.map((row) => latestRecordOf(name, row)),
          next: rows.length > limit ? page.at(-1)?.key : undefined
        }
      }),

    trim: ({ topic, upTo }) =>
      Effect.gen(function* () {
        for (;;) {
          const storedBefore = clock.currentTimeMillisUnsafe() - retention.minAgeMs
          const trimmed = yield* db.write("events", "trim", { topic, upTo, storedBefore })
          if (trimmed.done) return trimmed.floor
        }
      }),

    restore: (args) =>
      Effect.suspend(() =>
        Effect.flatMap(
          db.write("events", "restore", { ...args, now: clock.currentTimeMillisUnsafe() }),
          ({ exists }) => (exists ? Effect.fail(new TopicExists({ topic: args.topic })) : Effect.void)
        )
      ),

    restoreLatest: (args) => db.write("events", "restoreLatest", args),

    // There is one hub on a file: nobody else appends.
    changes: Stream.empty
  })
})

export const layer = (options?: Partial<Options>): Layer.Layer<EventStore, never, SqliteDatabase> =>
  Layer.effect(EventStore, make(options))
