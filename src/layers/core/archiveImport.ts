/**
 * Reads an export back, batch by batch: what a batch holds of each topic is brought into the log through the appender.
 *
 * The first events of an absent topic restore it; what follows is appended with the times it had. Which of both is due,
 * and whether a restore goes on that was interrupted, is seen from the log: from where it goes on, the last event of
 * the topic is the one that stands before in the file. Nothing else is remembered, so the same file may be sent again.
 * Only ids that were trimmed since are known no more: a file of this very store is told by its history, and what lies
 * before the floor was there.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Archive from "../../domain/Archive.ts"
import type { EventRecord, StoredRecord } from "../../domain/Event.ts"
import { makeLineSplitter } from "../../domain/Lines.ts"
import type { AppenderSettings, ArchiveSettings, Limits } from "../../domain/Settings.ts"
import type { Appender } from "../../services/Appender.ts"
import { type BadLine, type ImportReport, NotAnExport } from "../../services/Archive.ts"
import type { Checksum } from "../../services/Checksum.ts"
import type { Appended, AppendResult, EventStore, ReturningRecord } from "../../services/EventStore.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"

/** What is brought into the log at once; and how many topics of it are, beside each other. */
const batch = { events: 500, length: 1024 * 1024, topics: 16 }

/** Topics whose last event in the file is remembered. Of others it is looked for in the log. */
const maxPlaces = 1_000

/** A store that does not answer, or has too much to do, is asked again for so long. */
const patience = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.upTo({ duration: "30 seconds" })
)

/** The same for one topic, while others are appended. */
const maxAttempts = 60
const pause = "500 millis"

/**
 * Whoever sends a file hears the answer when it has sent all of it. Of one of which nothing more is taken so much is
 * read on, and no longer: nobody keeps the hub unpacking what it will not use.
 */
const afterwards = { bytes: 16 * 1024 * 1024, time: "5 seconds" } as const

interface Item {
  readonly line: number
  readonly isLatest: boolean
  readonly record: StoredRecord
}

/** Where the file is in a topic: what became of its last event there. */
interface Place {
  /** It has the seq here that it has in the file. */
  readonly isKept: boolean
  /** And nothing stands behind it: what follows in the file follows here. */
  readonly isHead: boolean
  readonly floor: number
  /** Up to here every event of the file has the seq that it has there. */
  readonly keptTo: number
  /** This import has restored the topic: what it adds keeps its time, also behind a hole in the file. */
  readonly isRestored: boolean
}

/** What the log is to an import; a dry run has one that changes nothing. */
interface Target {
  readonly head: EventStore["Service"]["head"]
  readonly find: EventStore["Service"]["find"]
  readonly latestOf: EventStore["Service"]["latestOf"]
  /** False: the topic exists. */
  readonly restore: (
    topic: string,
    events: ReadonlyArray<StoredRecord>
  ) => Effect.Effect<boolean, StoreUnavailable>
  readonly append: (
    records: ReadonlyArray<ReturningRecord>
  ) => Effect.Effect<ReadonlyArray<AppendResult>, StoreUnavailable>
  readonly restoreLatest: EventStore["Service"]["restoreLatest"]
}

const unavailable = (cause: unknown) => new StoreUnavailable({ operation: "Archive.import", cause })

const patiently = <A>(effect: Effect.Effect<A, StoreUnavailable>): Effect.Effect<A, StoreUnavailable> =>
  Effect.retry(effect, patience)

const targetOf = (store: EventStore["Service"], appender: Appender["Service"]): Target => ({
  head: (topic) => patiently(store.head(topic)),
  find: (ids) => patiently(store.find(ids)),
  latestOf: (keys) => patiently(store.latestOf(keys)),
  restore: (topic, events) =>
    patiently(
      appender.restore({ topic, firstSeq: events[0]!.seq, events }).pipe(
        Effect.as(true),
        Effect.catchTag("TopicExists", () => Effect.succeed(false))
      )
    ),
  append: (records) =>
    patiently(
      Effect.catchTag(appender.append(records), "Overloaded", (error) => Effect.fail(unavailable(error)))
    ),
  restoreLatest: (latest) => patiently(store.restoreLatest(latest))
})

/** Answers as the log would, as far as the log itself and the heads that were made up tell. */
const dryTargetOf = (store: EventStore["Service"]): Target => {
  const heads = new Map<string, number>()
  const raise = (topic: string, head: number): void => {
    heads.delete(topic)
    heads.set(topic, head)
    if (heads.size > maxPlaces) for (const oldest of heads.keys()) return void heads.delete(oldest)
  }
  return {
    head: store.head,
    find: store.find,
    latestOf: store.latestOf,
    restore: (topic, events) => Effect.sync(() => (raise(topic, events.at(-1)!.seq), true)),
    append: (records) =>
      Effect.gen(function* () {
        const topic = records[0]!.topic
        const info = yield* store.head(topic)
        const known =
          info === undefined
            ? new Map<string, number>()
            : yield* store.find({ topic, ids: records.map(({ id }) => id) })
        let head = heads.get(topic) ?? info?.head ?? 0
        const results = records.map(({ id }): Appended => {
          const seq = known.get(id)
          return {
            _tag: "Appended",
            topic,
            id,
            seq: seq ?? ++head,
            storedAt: 0,
            duplicate: seq !== undefined
          }
        })
        raise(topic, head)
        return results
      }),
    restoreLatest: () => Effect.void
  }
}

const plain = ({ body, id, key, tombstone, topic }: StoredRecord): EventRecord => ({
  topic,
  id,
  key,
  tombstone,
  body
})

/** The events that follow each other without a hole, each with an id of its own. */
const withoutHole = (items: ReadonlyArray<Item>): ReadonlyArray<Item> => {
  const ids = new Set<string>()
  const end = items.findIndex(({ record: { id, seq } }, i) => {
    if (seq !== items[0]!.record.seq + i || ids.has(id)) return true
    ids.add(id)
    return false
  })
  return end < 0 ? items : items.slice(0, end)
}

/** Runs of items of one kind, in their order. */
const runsOf = (items: ReadonlyArray<Item>): ReadonlyArray<ReadonlyArray<Item>> => {
  const runs: Array<Array<Item>> = []
  for (const item of items) {
    const run = runs.at(-1)
    if (run?.[0]?.isLatest === item.isLatest) run.push(item)
    else runs.push([item])
  }
  return runs
}

export interface ImportOptions<E> {
  readonly bytes: Stream.Stream<Uint8Array, E>
  readonly mayWrite: (topic: string) => boolean
  readonly endedBy?: (() => string | undefined) | undefined
  readonly dryRun: boolean
  readonly strict: boolean
  readonly onProgress?: (report: ImportReport) => void
}

export const makeImport = (
  services: {
    readonly store: EventStore["Service"]
    readonly appender: Appender["Service"]
    readonly checksum: Checksum["Service"]
  },
  limits: Limits,
  settings: ArchiveSettings,
  { maxQueuedEvents }: Pick<AppenderSettings, "maxQueuedEvents">
) => {
  const { appender, checksum, store } = services
  /** More at once would never find room. */
  const most = Math.min(batch.events, maxQueuedEvents)

  return <E>(options: ImportOptions<E>): Effect.Effect<ImportReport, NotAnExport | StoreUnavailable> =>
    Effect.gen(function* () {
      const { dryRun, endedBy, mayWrite, onProgress, strict } = options
      const target = dryRun ? dryTargetOf(store) : targetOf(store, appender)
      const count = { lines: 0, restored: 0, appended: 0, duplicates: 0, latest: 0, bad: 0 }
      const badLines: Array<BadLine> = []
      /** What the file holds, whatever becomes of it. */
      const held = { events: 0, latest: 0, topics: 0 }
      const sum = checksum.sha256()
      const decoder = new TextDecoder("utf-8", { fatal: true })
      const places = new Map<string, Place>()
      const ownHistory = yield* patiently(store.history)
      /** The file was made of this very store. */
      let isOwn = false
      /** Lines of which nobody knows what they were. */
      let unread = 0
      let said: Archive.Trailer | undefined
      let notAnExport: string | undefined
      let stopped: string | undefined
      /** Nothing more is brought in, not even what was read before. */
      let ended: string | undefined
      let waiting: Array<Item> = []
      let waitingLength = 0
      let lastTopic: string | undefined

      const isOver = (): boolean => (stopped ?? ended ?? notAnExport) !== undefined

      const bad = (line: number, reason: string): void => {
        count.bad++
        if (badLines.length < settings.maxBadLines) badLines.push({ line, reason })
        if (strict && stopped === undefined) stopped = `it was stopped at line ${line}: ${reason}`
      }

      const mayBring = (line: number, { topic }: StoredRecord): boolean => {
        const may = mayWrite(topic)
        if (!may) bad(line, `no right to administrate '${topic}'`)
        return may
      }

      const decideAgain = (): void => {
        const reason = ended === undefined ? endedBy?.() : undefined
        if (reason !== undefined) ended = `it was stopped behind line ${count.lines}: ${reason}`
      }

      const report = (missing: string | undefined): ImportReport => ({
        dryRun,
        complete: missing === undefined,
        missing: missing ?? null,
        ...count,
        topics: held.topics,
        badLines: badLines.toSorted((a, b) => a.line - b.line)
      })

      /** What there is of all that the last line counts. What a line was that nobody can read is known by that only. */
      const found = (last: Archive.Trailer | undefined): typeof held => {
        if (last === undefined || count.bad === 0) return held
        const unreadLatest = Math.max(0, Math.min(unread, last.latest - held.latest))
        const events = held.events + unread - unreadLatest
        return { events, latest: held.latest + unreadLatest, topics: last.topics }
      }

      // --- into the log --------------------------------------------------------------------------------------

      const setPlace = (topic: string, place: Place): void => {
        places.delete(topic)
        places.set(topic, place)
        if (places.size > maxPlaces) for (const oldest of places.keys()) return void places.delete(oldest)
      }

      /** Appends in order. What is too large is left out, and what stands behind it follows once more. */
      const append = (
        items: ReadonlyArray<Item>,
        isReturning: (item: Item) => boolean
      ): Effect.Effect<ReadonlyMap<Item, Appended>, StoreUnavailable> =>
        Effect.gen(function* () {
          const results = new Map<Item, Appended>()
          let open = items
          let attempts = 0
          while (open.length > 0) {
            const records = open.map((item): ReturningRecord =>
              isReturning(item)
                ? { ...plain(item.record), firstStoredAt: item.record.storedAt }
                : plain(item.record)
            )
            const answers = yield* target.append(records)
            const again: Array<Item> = []
            let isUnavailable = false
            answers.forEach((answer, i) => {
              const item = open[i]!
              if (answer._tag === "Appended") {
                results.set(item, answer)
                if (answer.duplicate) count.duplicates++
                else if (answer.seq === item.record.seq && isReturning(item)) count.restored++
                else count.appended++
              } else if (answer.reason === "too_large") bad(item.line, "it is too large for the store")
              else {
                again.push(item)
                if (answer.reason === "unavailable") isUnavailable = true
              }
            })
            if (isUnavailable) {
              if (++attempts === maxAttempts)
                return yield* unavailable(new Error(`topic '${items[0]!.record.topic}'`))
              yield* Effect.sleep(pause)
            }
            open = again
          }
          return results
        })

      const bringEvents = (
        topic: string,
        items: ReadonlyArray<Item>
      ): Effect.Effect<void, StoreUnavailable> =>
        Effect.gen(function* () {
          let open = items
          let place = places.get(topic)
          let info = place?.isHead === true ? undefined : yield* target.head(topic)
          if (isOwn && info !== undefined && place?.isRestored !== true) {
            // What was trimmed here since cannot be found by its id any more.
            const { floor } = info
            open = items.filter(({ record }) => record.seq > floor)
            count.duplicates += items.length - open.length
            if (open.length < items.length) {
              place = { isKept: true, isHead: false, floor, keptTo: floor, isRestored: false }
              setPlace(topic, place)
            }
            if (open.length === 0) return
          }
          if (place === undefined && info === undefined) {
            const first = withoutHole(open)
            const isRestored = yield* target.restore(
              topic,
              first.map(({ record }) => record)
            )
            if (isRestored) {
              count.restored += first.length
              const floor = first[0]!.record.seq - 1
              const keptTo = first.at(-1)!.record.seq
              place = { isKept: true, isHead: true, floor, keptTo, isRestored: true }
              setPlace(topic, place)
              open = open.slice(first.length)
              if (open.length === 0) return
            } else info = yield* target.head(topic)
          }
          // From the event on that is the last one here and the same in the file.
          let from = 0
          // Another import of the same file may have brought the log to where this one stands just now.
          const endsHere = place?.isKept === true && place.keptTo === info?.head
          if (place?.isHead !== true && place?.isRestored !== true && !endsHere) {
            from = Infinity
            const at = open.findIndex(({ record }) => record.seq === info?.head)
            const meeting = open[at]?.record
            if (meeting !== undefined) {
              const seqs = yield* target.find({ topic, ids: [meeting.id] })
              if (seqs.get(meeting.id) === meeting.seq) from = at + 1
            }
          }
          const returning = new Set(open.slice(from))
          const results = yield* append(open, (item) => returning.has(item))
          const last = open.findLast((item) => results.has(item))
          const result = last === undefined ? undefined : results.get(last)
          if (last === undefined || result === undefined) return
          const isKept = result.seq === last.record.seq
          const isHead = isKept && (!result.duplicate || result.seq === info?.head)
          let keptTo = place?.keptTo ?? 0
          if (place?.isKept !== false) {
            for (const item of open) {
              const seq = results.get(item)?.seq
              if (seq !== item.record.seq) break
              keptTo = seq
            }
          }
          const floor = place?.floor ?? info?.floor ?? 0
          setPlace(topic, { isKept, isHead, floor, keptTo, isRestored: place?.isRestored ?? false })
        })

      /** The last events of keys whose events were trimmed where the file comes from. */
      const bringLatest = (
        topic: string,
        items: ReadonlyArray<Item>
      ): Effect.Effect<void, StoreUnavailable> =>
        Effect.gen(function* () {
          const place = places.get(topic)
          if (place === undefined) {
            for (const { line } of items) bad(line, "it stands before the first event of its topic")
            return
          }
          if (place.isKept && !place.isHead) {
            // This topic went on behind them before.
            count.duplicates += items.length
            return
          }
          const keys = items.map(({ record }) => record.key ?? "")
          const known = place.isHead ? undefined : yield* target.latestOf({ topic, keys })
          /** A later event of the key is here already. One from before a hole in the file is not later. */
          const isKnown = ({ record: { key = "", seq } }: Item): boolean => {
            const here = known?.get(key)?.seq
            return here !== undefined && (here > place.keptTo || here >= seq)
          }
          const values = place.isHead ? items.filter(({ record }) => record.seq <= place.floor) : []
          if (values.length > 0) {
            yield* target.restoreLatest({ topic, records: values.map(({ record }) => record) })
            count.latest += values.length
          }
          const missing = items.filter((item) => !values.includes(item) && !isKnown(item))
          count.duplicates += items.length - values.length - missing.length
          if (missing.length === 0) return
          // Where the log does not end before them, they are events like others.
          yield* append(missing, () => place.isHead || place.isRestored)
          setPlace(topic, { ...place, isKept: false, isHead: false })
        })

      const bring = Effect.fnUntraced(function* (items: ReadonlyArray<Item>) {
        const topics = Map.groupBy(items, ({ record }) => record.topic)
        yield* Effect.forEach(
          topics,
          ([topic, own]) =>
            Effect.forEach(
              runsOf(own),
              (run) => (run[0]?.isLatest === true ? bringLatest(topic, run) : bringEvents(topic, run)),
              { discard: true }
            ),
          { concurrency: batch.topics, discard: true }
        )
      })

      const flush = Effect.gen(function* () {
        const items = waiting
        waiting = []
        waitingLength = 0
        for (let from = 0; from < items.length; from += most) {
          decideAgain()
          if (ended !== undefined) break
          // The right may have been lost since the line was read.
          const allowed = items.slice(from, from + most).filter(({ line, record }) => mayBring(line, record))
          yield* bring(allowed)
        }
        onProgress?.(report("it is being read"))
      })

      // --- out of the file -----------------------------------------------------------------------------------

      const takeItem = (line: number, isLatest: boolean, record: StoredRecord): void => {
        const { topic } = record
        if (topic !== lastTopic) {
          lastTopic = topic
          held.topics++
        }
        if (!mayBring(line, record)) return
        waiting.push({ line, isLatest, record })
        waitingLength += record.body.length
      }

      const textOf = (bytes: Uint8Array): string | undefined => {
        try {
          return decoder.decode(bytes)
        } catch {
          return undefined
        }
      }

      /** Whether the line counts for the checksum. */
      const takeLine = (text: string | undefined): boolean => {
        const line = ++count.lines
        if (line === 1) {
          notAnExport = text === undefined ? "the first line is not UTF-8" : Archive.headerProblem(text)
          isOwn = text !== undefined && Archive.historyOf(text) === ownHistory
          return false
        }
        if (said !== undefined) return (bad(line, "it stands behind the last line"), true)
        const parsed = text === undefined ? Result.fail("it is not UTF-8") : Archive.parseLine(text, limits)
        if (Result.isFailure(parsed)) {
          unread++
          bad(line, parsed.failure)
          return true
        }
        const found = parsed.success
        if (found._tag === "Trailer") {
          said = found.trailer
          return false
        }
        if (found._tag === "Event") held.events++
        else held.latest++
        takeItem(line, found._tag === "Latest", found.record)
        return true
      }

      const splitter = makeLineSplitter(settings.maxLineBytes, {
        line: (text, bytes) => {
          if (isOver()) return
          if (takeLine(textOf(text))) sum.add(bytes)
        },
        tooLong: (bytes, isLast) => {
          if (isOver()) return
          sum.add(bytes)
          if (!isLast) return
          count.lines++
          const reason = `it is longer than ${settings.maxLineBytes} bytes`
          if (count.lines === 1) notAnExport = `the first line: ${reason}`
          else {
            unread++
            bad(count.lines, reason)
          }
        }
      })

      /** Why the bytes ended before the file did. */
      let broken: string | undefined
      const over = yield* Deferred.make<void>()
      let unheard = 0
      const take = (bytes: Uint8Array): Effect.Effect<boolean, StoreUnavailable> =>
        Effect.gen(function* () {
          if (isOver()) unheard += bytes.length
          else {
            decideAgain()
            splitter.push(bytes)
            if (isOver() || waiting.length >= most || waitingLength >= batch.length) yield* flush
          }
          if (isOver()) yield* Deferred.succeed(over, undefined)
          return unheard <= afterwards.bytes
        })
      yield* options.bytes.pipe(
        Stream.runForEachWhile(take),
        // Not by a stream beside it, which would be read ahead of what is brought in.
        Effect.raceFirst(Effect.andThen(Deferred.await(over), Effect.sleep(afterwards.time))),
        Effect.catch((error) =>
          error instanceof StoreUnavailable
            ? Effect.fail(error)
            : Effect.sync(() => void (broken = `it cannot be read to its end: ${String(error)}`))
        )
      )
      if (broken === undefined && !isOver()) splitter.end()
      if (count.lines === 0 && ended === undefined) notAnExport ??= broken ?? "there is nothing in it"
      if (notAnExport !== undefined) return yield* new NotAnExport({ reason: notAnExport })
      yield* flush
      const early = ended ?? stopped
      if (early !== undefined) return report(early)
      const missing = Archive.missingOf(said, { ...found(said), sha256: sum.hex() })
      return report(said === undefined ? (broken ?? missing) : missing)
    })
}
