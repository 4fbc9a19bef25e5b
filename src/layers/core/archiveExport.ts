/**
 * Writes the log to a file, line by line, in pieces that are read and encoded in a turn each.
 *
 * Of a topic that was trimmed, the last events of the keys that lost theirs go with it. They are looked for when the
 * first event behind the trimmed ones was read, and only after them it is asked how far the topic reaches: a key that is
 * written meanwhile is found in one of both places.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as Archive from "../../domain/Archive.ts"
import { RightLost } from "../../services/Archive.ts"
import type { Checksum } from "../../services/Checksum.ts"
import type { EventStore } from "../../services/EventStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { partOf } from "./archivePage.ts"

/** What one look at the store reads; and how many bytes make up a piece that is sent. */
const step = { events: 400, bytes: 128 * 1024, topics: 100, keys: 100, piece: 64 * 1024 }

/** What an export selects, and what it calls out. */
export interface Selected {
  readonly selection: Archive.Selection
  readonly isVisible: (topic: string) => boolean
  readonly endedBy?: (() => string | undefined) | undefined
}

const encoder = new TextEncoder()

const joined = (pieces: ReadonlyArray<Uint8Array>, length: number): Uint8Array => {
  const [only] = pieces
  if (only !== undefined && pieces.length === 1) return only
  const whole = new Uint8Array(length)
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}

export const makeExport = (store: EventStore["Service"], checksum: Checksum["Service"]) => {
  const writeAll = (
    { endedBy, isVisible, selection }: Selected,
    header: Archive.Header,
    emit: (bytes: Uint8Array) => Effect.Effect<void>
  ): Effect.Effect<void, StoreUnavailable | RightLost> =>
    Effect.gen(function* () {
      /** Before each look: a long export outlives tokens and policies. */
      const decideAgain = (topic?: string): Effect.Effect<void, RightLost> => {
        const reason =
          endedBy?.() ??
          (topic === undefined || isVisible(topic) ? undefined : `there is no right to '${topic}' any more`)
        return reason === undefined ? Effect.void : Effect.fail(new RightLost({ reason }))
      }
      const sum = checksum.sha256()
      const count = { events: 0, latest: 0, topics: 0 }
      let pieces: Array<Uint8Array> = []
      let length = 0

      const write = (bytes: Uint8Array): void => {
        pieces.push(bytes)
        length += bytes.length
        sum.add(bytes)
      }
      const flush = Effect.suspend(() => {
        const bytes = joined(pieces, length)
        pieces = []
        length = 0
        return emit(bytes)
      })
      /** A turn for others, too: what was read is in memory, and there is more. */
      const flushIfLong = Effect.suspend(() =>
        length < step.piece ? Effect.void : Effect.andThen(flush, Effect.yieldNow)
      )

      /** The last events of keys that were between two seqs. */
      const writeLatest = (topic: string, after: number, before: number) =>
        Effect.gen(function* () {
          let key: string | undefined
          do {
            yield* decideAgain(topic)
            const page = yield* store.latestByKey({
              topic,
              limit: step.keys,
              ...(key === undefined ? {} : { after: key })
            })
            let text = ""
            for (const record of page.items) {
              if (record.seq <= after || record.seq >= before) continue
              text += Archive.latestLine(record)
              count.latest++
            }
            if (text !== "") write(encoder.encode(text))
            key = page.next
            yield* flushIfLong
            yield* Effect.yieldNow
          } while (key !== undefined)
        })

      const writeTopic = (topic: string) =>
        Effect.gen(function* () {
          const info = yield* store.head(topic)
          const part = info === undefined ? undefined : yield* partOf(store, selection, info)
          if (part === undefined) return
          let { after, to } = part
          let isFirst = true
          while (after < to) {
            yield* decideAgain(topic)
            const range = { topic, after, limit: Math.min(step.events, to - after), maxBytes: step.bytes }
            let lines = yield* store.readLines(range)
            const isTrimmed = lines !== undefined && lines.first > after + 1
            // What was trimmed is made up for behind the first event that is there.
            if (isTrimmed) lines = yield* store.readLines({ ...range, limit: 1 })
            if (lines === undefined) {
              // Nothing is there, unless it was trimmed between the looks: then there is more behind the floor.
              const now = yield* store.head(topic)
              if (now === undefined || now.floor <= after) return
              yield* Effect.yieldNow
              continue
            }
            // A topic that is wanted to its end goes on behind what was trimmed, however far that reached.
            if (lines.first > to && (!isTrimmed || selection.to !== undefined)) return
            if (isFirst) count.topics++
            isFirst = false
            count.events += lines.count
            write(lines.bytes)
            if (isTrimmed) {
              yield* writeLatest(topic, after, lines.first)
              if (selection.to === undefined) to = (yield* store.head(topic))?.head ?? to
            }
            after = lines.last
            yield* flushIfLong
          }
        })

      yield* emit(encoder.encode(Archive.headerLine(header)))
      let after: string | undefined
      do {
        yield* decideAgain()
        const topics = yield* store.topics({
          pattern: selection.pattern,
          limit: step.topics,
          ...(after === undefined ? {} : { after })
        })
        for (const { topic } of topics.items) if (isVisible(topic)) yield* writeTopic(topic)
        after = topics.next
        yield* flushIfLong
        yield* Effect.yieldNow
      } while (after !== undefined)
      yield* decideAgain()
      if (length > 0) yield* flush
      yield* emit(encoder.encode(Archive.trailerLine({ ...count, sha256: sum.hex() })))
    })

  return (selected: Selected) =>
    Effect.gen(function* () {
      const header: Archive.Header = {
        history: yield* store.history,
        exportedAt: yield* Clock.currentTimeMillis,
        selection: selected.selection
      }
      return {
        fileName: Archive.fileName(header),
        // What has no room waits, and reads nothing.
        bytes: Stream.callback<Uint8Array, StoreUnavailable | RightLost>(
          (queue) =>
            Effect.andThen(
              writeAll(selected, header, (bytes) => Effect.asVoid(Queue.offer(queue, bytes))),
              Queue.end(queue)
            ),
          { bufferSize: 1, strategy: "suspend" }
        )
      }
    })
}
