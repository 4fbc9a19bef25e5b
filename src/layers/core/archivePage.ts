/** Pages of the events of many topics. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Bound, Cursor, Selection } from "../../domain/Archive.ts"
import type { StoredRecord } from "../../domain/Event.ts"
import type { EventPage } from "../../services/Archive.ts"
import * as Topic from "../../domain/Topic.ts"
import type { EventStore, TopicInfo } from "../../services/EventStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"

/** What one page looks at, at most: topics, and characters of events. */
const most = { topics: 1_000, length: 4 * 1024 * 1024 }

/** Topics, and events against their order, that one look at the store reads. */
const step = { topics: 100, backwards: 32 }

type Store = EventStore["Service"]

/** The part of a topic that is selected: what lies behind `after`, up to `to`. */
export interface Part {
  readonly after: number
  readonly to: number
}

/** Up to which seq, and with it, a bound reaches; a time: what was stored before it. */
const positionOf = (store: Store, topic: string, bound: Bound): Effect.Effect<number, StoreUnavailable> =>
  "seq" in bound ? Effect.succeed(bound.seq) : store.readTime({ topic, time: bound.time })

/** Nothing: nothing of the topic is selected. */
export const partOf = (
  store: Store,
  { from, to }: Selection,
  info: TopicInfo
): Effect.Effect<Part | undefined, StoreUnavailable> =>
  Effect.gen(function* () {
    const { topic } = info
    // Times never decrease: most topics that are too old are known by their end.
    if (from !== undefined && "time" in from && from.time > info.storedAt) return undefined
    const first = from === undefined ? 0 : yield* positionOf(store, topic, from)
    const after = Math.max(0, from !== undefined && "seq" in from ? first - 1 : first)
    const last = to === undefined ? info.head : Math.min(info.head, yield* positionOf(store, topic, to))
    return after < last ? { after, to: last } : undefined
  })

/** Events of a part in the order of their seqs. */
const forwards = (store: Store, topic: string, { after, to }: Part, limit: number, maxBytes: number) =>
  Effect.map(store.read({ topic, after, limit: Math.min(limit, to - after), maxBytes }), (records) =>
    records.filter(({ seq }) => seq <= to)
  )

/** Events of a part against the order of their seqs; fewer than asked for when they are large, or were trimmed. */
const backwards = (store: Store, topic: string, { after, to }: Part, limit: number, maxBytes: number) =>
  Effect.gen(function* () {
    const found: Array<StoredRecord> = []
    let length = 0
    let end = to
    // The first one at least, however large the page is already: who asks sees by it that there is more.
    while (end > after && found.length < limit && (found.length === 0 || length < maxBytes)) {
      const count = Math.min(step.backwards, limit - found.length, end - after)
      const records = yield* store.read({ topic, after: end - count, limit: count })
      const own = records.filter(({ seq }) => seq <= end)
      // All that lies further back was trimmed.
      if (own.length === 0) break
      for (const record of own.toReversed()) {
        found.push(record)
        length += record.body.length
      }
      end -= count
    }
    return found
  })

export const readPage = (
  store: Store,
  page: {
    readonly selection: Selection
    readonly isVisible: (topic: string) => boolean
    readonly order: "asc" | "desc"
    readonly after?: Cursor | undefined
    readonly limit: number
  }
): Effect.Effect<EventPage, StoreUnavailable> =>
  Effect.gen(function* () {
    const { after: cursor, isVisible, limit, order, selection } = page
    const found: Array<StoredRecord> = []
    let length = 0
    let looked = 0

    const rest = (topic: string, part: Part): Part => {
      if (cursor?.topic !== topic) return part
      return order === "asc"
        ? { after: Math.max(part.after, cursor.seq), to: part.to }
        : { after: part.after, to: Math.min(part.to, cursor.seq - 1) }
    }

    /** Takes from a topic; answers where the page ends when it is full. One more than is shown says that there is more. */
    const takeFrom = (info: TopicInfo): Effect.Effect<Cursor | undefined, StoreUnavailable> =>
      Effect.gen(function* () {
        const { topic } = info
        const selected = yield* partOf(store, selection, info)
        let part = selected === undefined ? undefined : rest(topic, selected)
        while (part !== undefined && part.after < part.to) {
          const read = order === "asc" ? forwards : backwards
          const records = yield* read(store, topic, part, limit + 1 - found.length, most.length - length)
          const last = records.at(-1)
          if (last === undefined) return undefined
          for (const record of records) {
            const shown = found.at(-1)
            if (
              shown !== undefined &&
              (found.length === limit || length + record.body.length > most.length)
            ) {
              return { topic: shown.topic, seq: shown.seq }
            }
            found.push(record)
            length += record.body.length
          }
          part = order === "asc" ? { after: last.seq, to: part.to } : { after: part.after, to: last.seq - 1 }
          yield* Effect.yieldNow
        }
        return undefined
      })

    const isSelected = (name: string): boolean => {
      const topic = Topic.parseTopic(name)
      return Result.isSuccess(topic) && Topic.matches(selection.pattern, topic.success)
    }

    if (cursor !== undefined && isSelected(cursor.topic) && isVisible(cursor.topic)) {
      const info = yield* store.head(cursor.topic)
      const end = info === undefined ? undefined : yield* takeFrom(info)
      if (end !== undefined) return { records: found, next: end }
    }
    let after = cursor?.topic
    /** The last one that was looked into: no other name may be told. */
    let seen = ""
    do {
      const topics = yield* store.topics({
        pattern: selection.pattern,
        limit: step.topics,
        ...(after === undefined ? {} : { after })
      })
      for (const info of topics.items) {
        if (!isVisible(info.topic)) continue
        if (looked++ === most.topics) {
          // Behind everything of that topic.
          const seq = order === "asc" ? Number.MAX_SAFE_INTEGER : 0
          return { records: found, next: { topic: seen, seq } }
        }
        seen = info.topic
        const end = yield* takeFrom(info)
        if (end !== undefined) return { records: found, next: end }
      }
      if (topics.next === undefined) return { records: found, next: undefined }
      after = topics.next
      yield* Effect.yieldNow
    } while (after !== undefined)
    return { records: found, next: undefined }
  })
