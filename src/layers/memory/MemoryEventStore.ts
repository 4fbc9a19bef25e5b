/**
 * The event log in memory: for tests, and for programs that need no durability.
 *
 * It is also the model that the other backends are compared with: the simplest thing that keeps the promises.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { type EventRecord, type StoredRecord, toLines } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import {
  type AppendResult,
  EventStore,
  type ReturningRecord,
  TopicExists,
  type TopicInfo
} from "../../services/EventStore.ts"
import { Ids } from "../../services/Ids.ts"

export interface Options {
  readonly retention: Pick<Settings.RetentionSettings, "minAgeMs">
  /** Characters of a record's body that are still held. */
  readonly maxRecordLength: number
}

export const defaults: Options = { retention: Settings.retention, maxRecordLength: 16 * 1024 * 1024 }

interface Log {
  readonly topic: Topic.Topic
  /** The event with seq n stands at n - floor - 1. */
  events: Array<StoredRecord>
  floor: number
  readonly seqs: Map<string, number>
  readonly latest: Map<string, StoredRecord>
}

const head = (log: Log): number => log.floor + log.events.length

const infoOf = (log: Log): TopicInfo => ({
  topic: log.topic.name,
  head: head(log),
  floor: log.floor,
  storedAt: log.events.at(-1)?.storedAt ?? 0
})

/** Times never decrease within a topic, and never lie in the future. */
const put = (log: Log, record: EventRecord, firstStoredAt: number | undefined, now: number): StoredRecord => {
  const { body, id, key, tombstone, topic } = record
  const storedAt = Math.max(log.events.at(-1)?.storedAt ?? 0, Math.min(firstStoredAt ?? now, now))
  const stored: StoredRecord = { topic, id, key, tombstone, body, seq: head(log) + 1, storedAt }
  log.events.push(stored)
  log.seqs.set(record.id, stored.seq)
  if (record.key !== undefined) {
    if (record.tombstone) log.latest.delete(record.key)
    else log.latest.set(record.key, stored)
  }
  return stored
}

const byName = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

export const make = Effect.fnUntraced(function* (options: Partial<Options> = {}) {
  const { maxRecordLength, retention } = { ...defaults, ...options }
  const clock = yield* Clock.Clock
  const history = (yield* Ids).next()
  const logs = new Map<string, Log>()

  const logOf = (topic: string): Log => {
    let log = logs.get(topic)
    if (log === undefined) {
      const parsed = Result.getOrThrow(Topic.parseTopic(topic))
      log = { topic: parsed, events: [], floor: 0, seqs: new Map(), latest: new Map() }
      logs.set(topic, log)
    }
    return log
  }

  const appendAll = (batch: ReadonlyArray<ReturningRecord>): ReadonlyArray<AppendResult> => {
    const now = clock.currentTimeMillisUnsafe()
    const refused = new Set<string>()
    return batch.map((record): AppendResult => {
      const { id, topic } = record
      if (refused.has(topic)) return { _tag: "NotAppended", topic, id, reason: "behind_refused" }
      if (record.body.length > maxRecordLength) {
        refused.add(topic)
        return { _tag: "NotAppended", topic, id, reason: "too_large" }
      }
      const log = logOf(topic)
      const known = log.seqs.get(id)
      const stored =
        known === undefined ? put(log, record, record.firstStoredAt, now) : log.events[known - log.floor - 1]!
      const { seq, storedAt } = stored
      return { _tag: "Appended", topic, id, seq, storedAt, duplicate: known !== undefined }
    })
  }

  const read = (range: {
    readonly topic: string
    readonly after: number
    readonly limit: number
    readonly maxBytes?: number
  }): ReadonlyArray<StoredRecord> => {
    const log = logs.get(range.topic)
    if (log === undefined) return []
    const from = Math.max(0, range.after - log.floor)
    const found: Array<StoredRecord> = []
    let bytes = 0
    for (let i = from; i < log.events.length && found.length < range.limit; i++) {
      const record = log.events[i]!
      bytes += record.body.length
      if (found.length > 0 && bytes > (range.maxBytes ?? Infinity)) break
      found.push(record)
    }
    return found
  }

  const trim = (log: Log, upTo: number): number => {
    const youngest = clock.currentTimeMillisUnsafe() - retention.minAgeMs
    const most = Math.min(upTo - log.floor, log.events.length - 1)
    let count = 0
    while (count < most && log.events[count]!.storedAt <= youngest) count++
    for (const gone of log.events.splice(0, count)) log.seqs.delete(gone.id)
    log.floor += count
    return log.floor
  }

  return EventStore.of({
    history: Effect.succeed(history),
    append: (batch) => Effect.sync(() => appendAll(batch)),
    read: (range) => Effect.sync(() => read(range)),
    readLines: (range) => Effect.sync(() => toLines(read(range))),
    readTime: ({ time, topic }) =>
      Effect.sync(() => {
        const log = logs.get(topic)
        if (log === undefined) return 0
        // Times never decrease within a topic: the first event that is young enough is found by halving.
        let low = 0
        let high = log.events.length
        while (low < high) {
          const mid = (low + high) >> 1
          if (log.events[mid]!.storedAt >= time) high = mid
          else low = mid + 1
        }
        return log.floor + low
      }),
    head: (topic) =>
      Effect.sync(() => {
        const log = logs.get(topic)
        return log === undefined ? undefined : infoOf(log)
      }),
    topics: ({ after, limit, pattern }) =>
      Effect.sync(() => {
        const found = [...logs.values()]
          .filter(
            (log) => Topic.matches(pattern, log.topic) && (after === undefined || log.topic.name > after)
          )
          .sort((a, b) => byName(a.topic.name, b.topic.name))
        const items = found.slice(0, limit).map(infoOf)
        return { items, next: found.length > limit ? items.at(-1)?.topic : undefined }
      }),
    find: ({ ids, topic }) =>
      Effect.sync(() => {
        const seqs = logs.get(topic)?.seqs
        return new Map(ids.flatMap((id) => (seqs?.has(id) === true ? [[id, seqs.get(id)!]] : [])))
      }),
    latestOf: ({ keys, topic }) =>
      Effect.sync(() => {
        const latest = logs.get(topic)?.latest
        return new Map(keys.flatMap((key) => (latest?.has(key) === true ? [[key, latest.get(key)!]] : [])))
      }),
    latestByKey: ({ after, limit, topic }) =>
      Effect.sync(() => {
        const found = [...(logs.get(topic)?.latest ?? [])]
          .filter(([key]) => after === undefined || key > after)
          .sort(([a], [b]) => byName(a, b))
        const page = found.slice(0, limit)
        return {
          items: page.map(([, record]) => record),
          next: found.length > limit ? page.at(-1)?.[0] : undefined
        }
      }),
    trim: ({ topic, upTo }) =>
      Effect.sync(() => {
        const log = logs.get(topic)
        return log === undefined ? 0 : trim(log, upTo)
      }),
    restore: ({ events, firstSeq, topic }) =>
      Effect.suspend(() => {
        if (logs.has(topic)) return Effect.fail(new TopicExists({ topic }))
        if (events.length === 0) return Effect.void
        const log = logOf(topic)
        log.floor = firstSeq - 1
        const now = clock.currentTimeMillisUnsafe()
        for (const event of events) {
          if (!log.seqs.has(event.id)) put(log, event, event.storedAt, now)
        }
        return Effect.void
      }),
    restoreLatest: ({ records, topic }) =>
      Effect.sync(() => {
        const log = logs.get(topic)
        if (log === undefined) return
        // A key that was deleted later has no last event; what was put later stands in `latest`.
        const deleted = new Set(log.events.flatMap(({ key, tombstone }) => (tombstone ? [key] : [])))
        for (const record of records) {
          const { key, seq } = record
          if (key === undefined || seq > log.floor || deleted.has(key)) continue
          if (seq <= (log.latest.get(key)?.seq ?? 0)) continue
          log.latest.set(key, record)
        }
      }),
    changes: Stream.empty
  })
})

export const layer = (options?: Partial<Options>): Layer.Layer<EventStore, never, Ids> =>
  Layer.effect(EventStore, make(options))
