/**
 * The events of a topic as one group needs them: from memory where they are, else from the store.
 *
 * What the group has not looked at yet is mostly in the buffer of what was committed last; what it retries or passed
 * over, in the cache of the hub. What turns out to be trimmed is remembered, until the group has passed over it.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { StoredRecord } from "../../domain/Event.ts"
import type { GroupState } from "../../domain/Group.ts"
import type { EventStore } from "../../services/EventStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { roundLimit } from "./GroupCredit.ts"
import * as groupSource from "./groupSource.ts"
import { RecordBuffer } from "./RecordBuffer.ts"
import type { RecordCache } from "./RecordCache.ts"

/** How far a group in key order looks ahead for what it can deliver, at most. */
const maxLookahead = { factor: 32, records: 4_096 }

const maxBytes = 1024 * 1024

/** How often that is tried which a group cannot do without. */
export const patience = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

export interface RecordSource {
  readonly store: EventStore["Service"]
  readonly cache: RecordCache
  readonly at: { readonly group: string; readonly topic: string }
  readonly keyOrdered: boolean
  /** Events are not there any more: the next round has to pass over them. */
  readonly onTrimmed: () => void
  /** The store failed: members may not have been given what is theirs. */
  readonly onFailure: () => void
}

export class GroupRecords {
  readonly #source: RecordSource
  readonly #buffer = new RecordBuffer()
  /** What was trimmed before the group took it, in the log and in its dead letters. */
  #trimmedTo = 0
  #lettersTrimmedTo = 0
  /** By how much more than what is wanted is looked at, since much of it is passed over. */
  #lookahead = 2

  constructor(source: RecordSource) {
    this.#source = source
  }

  // --- how far the topic reaches -----------------------------------------------------------------------------

  /** The topic has grown by this one. */
  committed(record: StoredRecord): void {
    this.#buffer.push(record)
  }

  /** The topic is known to reach this far. True: that is news. */
  growTo(head: number): boolean {
    return this.#buffer.growTo(head)
  }

  get head(): number {
    return this.#buffer.head
  }

  get trimmedTo(): number {
    return this.#trimmedTo
  }

  get lettersTrimmedTo(): number {
    return this.#lettersTrimmedTo
  }

  /** Whether an event, or the dead letter that it comes back from, is known not to be there any more. */
  isTrimmed({ letter, seq }: groupSource.Wanted): boolean {
    return letter === undefined ? seq <= this.#trimmedTo : letter <= this.#lettersTrimmedTo
  }

  // --- reading it --------------------------------------------------------------------------------------------

  /** What the group has not looked at yet, where so many are wanted. */
  next(state: GroupState, wanted: number): Effect.Effect<ReadonlyArray<StoredRecord>, StoreUnavailable> {
    if (wanted === 0 || this.#buffer.head < state.next) return Effect.succeed([])
    const { at, keyOrdered, onTrimmed, store } = this.#source
    const limit = keyOrdered
      ? Math.min(maxLookahead.records, wanted * this.#lookahead)
      : Math.min(roundLimit, wanted)
    const held = this.#buffer.from(state.next, limit)
    if (held !== undefined) return Effect.succeed(held)
    return Effect.tap(store.read({ topic: at.topic, after: state.next - 1, limit, maxBytes }), ([found]) =>
      Effect.sync(() => {
        if (found !== undefined && found.seq > state.next) {
          this.#trimmedTo = found.seq - 1
          onTrimmed()
        }
      })
    )
  }

  /** The events of these seqs, as long as it takes. What was trimmed is missing, and the next round passes over it. */
  fetch(
    wanted: ReadonlyArray<groupSource.Wanted>,
    candidates: ReadonlyArray<StoredRecord>
  ): Effect.Effect<ReadonlyMap<number, groupSource.Found>> {
    return Effect.gen({ self: this }, function* () {
      const { at, cache, onFailure, onTrimmed, store } = this.#source
      const found = new Map<number, groupSource.Found>()
      const first = candidates[0]?.seq ?? Infinity
      const missing = wanted.filter(({ letter, seq }) => {
        const record =
          letter === undefined
            ? (candidates[seq - first] ?? cache.get(at.topic, seq) ?? this.#buffer.get(seq))
            : undefined
        if (record !== undefined) found.set(seq, { record, redrives: 0 })
        return record === undefined
      })
      if (missing.length === 0) return found
      const fetched = yield* groupSource.fetch(store, at, missing).pipe(
        Effect.tapError(() => Effect.sync(onFailure)),
        Effect.retry(patience),
        Effect.orDie
      )
      for (const [seq, event] of fetched.events) found.set(seq, event)
      if (fetched.trimmedTo > this.#trimmedTo || fetched.lettersTrimmedTo > this.#lettersTrimmedTo) {
        this.#trimmedTo = Math.max(this.#trimmedTo, fetched.trimmedTo)
        this.#lettersTrimmedTo = Math.max(this.#lettersTrimmedTo, fetched.lettersTrimmedTo)
        onTrimmed()
      }
      return found
    })
  }

  // --- after a round -----------------------------------------------------------------------------------------

  /** Keeps events that were passed over and come next of their keys. */
  keepListed(state: GroupState, ...read: ReadonlyArray<ReadonlyArray<StoredRecord>>): void {
    for (const records of read) {
      for (const record of records) {
        const passed = record.key === undefined ? undefined : state.deferred.get(record.key)
        const [first = Infinity] = passed?.seqs ?? []
        if (record.seq >= first && record.seq < (passed?.from ?? state.next)) this.#source.cache.keep(record)
      }
    }
  }

  /**
   * So many of those wanted could be delivered. A group in key order passes over events whose key is busy: where there
   * are many, it looks further.
   */
  looked(
    state: GroupState,
    candidates: ReadonlyArray<StoredRecord>,
    { delivered, wanted }: { readonly wanted: number; readonly delivered: number }
  ): void {
    const last = candidates.at(-1)
    const isShort = last !== undefined && state.next > last.seq && delivered < wanted
    this.#lookahead = isShort ? Math.min(maxLookahead.factor, this.#lookahead * 2) : 2
    this.#buffer.forgetBefore(state.next)
  }
}
