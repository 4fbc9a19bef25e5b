/**
 * Where a group on a topic gets its events from: the log, and its own dead letters when they come back.
 *
 * Everything here is bounded: what one look does not find, the next one goes on to look for.
 */
import * as Effect from "effect/Effect"
import * as DeadLetter from "../../domain/DeadLetter.ts"
import type { StoredRecord } from "../../domain/Event.ts"
import * as Group from "../../domain/Group.ts"
import { isWaiting, type Letter } from "../../domain/GroupRedrive.ts"
import type { EventStore } from "../../services/EventStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"

type Store = EventStore["Service"]

/** How much one look reads. */
const lookAt = { limit: 2_000, maxBytes: 1024 * 1024 }

/** Letters that one look reads. */
const lettersAtOnce = 256

export interface FoundUnlisted {
  readonly listings: ReadonlyArray<Group.Listing>
  /** What was read for it. */
  readonly records: ReadonlyArray<StoredRecord>
}

/** Looks up events that were passed over and are not listed, of all keys that have none listed. */
export const findUnlisted = (
  store: Store,
  topic: string,
  state: Group.GroupState
): Effect.Effect<FoundUnlisted, StoreUnavailable> => {
  const keys = Group.unlistedKeys(state)
  if (keys.size === 0) return Effect.succeed({ listings: [], records: [] })
  const after = Math.min(...keys.values()) - 1
  const limit = Math.min(lookAt.limit, state.next - 1 - after)
  return Effect.map(store.read({ ...lookAt, topic, after, limit }), (records) => {
    const to = Math.min(state.next - 1, records.at(-1)?.seq ?? state.next - 1)
    const found = new Map(Array.from(keys, ([key, from]) => [key, { from, seqs: [] as Array<number> }]))
    for (const { key, seq } of records) {
      const one = key === undefined || seq >= state.next ? undefined : found.get(key)
      if (one !== undefined && seq >= one.from) one.seqs.push(seq)
    }
    const listings = Array.from(found, ([key, { from, seqs }]) => ({ key, from, to, seqs }))
    return { listings: listings.filter(({ from }) => from <= to), records }
  })
}

export interface FoundLetters {
  /** For which they were looked up. */
  readonly plan: Group.RedrivePlan
  readonly letters: ReadonlyArray<Letter>
  /** Everything up to here was looked at. */
  readonly to: number
}

/** The next letters that a redrive asked for; nothing when there is none, or it has to wait for room. */
export const findLetters = (
  store: Store,
  at: { readonly group: string; readonly topic: string },
  state: Group.GroupState
): Effect.Effect<FoundLetters | undefined, StoreUnavailable> => {
  const [plan] = state.redrive.plans
  if (plan === undefined || !isWaiting(state)) return Effect.succeed(undefined)
  const topic = DeadLetter.deadLetterTopic(at.group, at.topic)
  const limit = Math.min(lettersAtOnce, plan.upTo - plan.next + 1)
  return Effect.map(
    store.read({ topic, after: plan.next - 1, limit, maxBytes: lookAt.maxBytes }),
    (records) => {
      const here = records.filter(({ seq }) => seq <= plan.upTo)
      const letters = here.flatMap((record): ReadonlyArray<Letter> => {
        const death = DeadLetter.deathOf(record)
        return death !== undefined && DeadLetter.isAskedFor(plan.filter, record, death)
          ? [{ letter: record.seq, seq: death.seq, key: record.key }]
          : []
      })
      return { plan, letters, to: here.at(-1)?.seq ?? plan.upTo }
    }
  )
}

/** An event that is to be delivered, or put into the dead letters. */
export interface Wanted {
  readonly seq: number
  readonly letter: number | undefined
}

export interface Found {
  readonly record: StoredRecord
  /** How often it came back from the dead letters. */
  readonly redrives: number
}

export interface Fetched {
  /** By the seq of the event. */
  readonly events: ReadonlyMap<number, Found>
  /** Up to here the log, and the dead letters, were found to be trimmed. */
  readonly trimmedTo: number
  readonly lettersTrimmedTo: number
}

/** The longest part of a topic that one look reads for the sake of some events in it. */
const longestRun = 512

/** Reading so many events costs less than another read. */
const longestGap = 12

/** Positions that stand close together are read together. */
const runFrom = (positions: ReadonlyArray<number>): number => {
  const first = positions[0]!
  let n = 1
  while (
    n < positions.length &&
    positions[n]! - positions[n - 1]! <= longestGap &&
    positions[n]! - first < longestRun
  )
    n++
  return n
}

const readAll = (store: Store, topic: string, positions: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const records = new Map<number, StoredRecord>()
    let trimmedTo = 0
    let left = positions.toSorted((a, b) => a - b)
    while (left.length > 0) {
      const first = left[0]!
      const last = left[runFrom(left) - 1]!
      const found = yield* store.read({
        topic,
        after: first - 1,
        limit: last - first + 1,
        maxBytes: lookAt.maxBytes
      })
      for (const record of found) records.set(record.seq, record)
      if (found[0] !== undefined && found[0].seq > first) trimmedTo = found[0].seq - 1
      const reached = found.at(-1)?.seq ?? last
      left = left.filter((position) => position > reached)
    }
    return { records, trimmedTo }
  })

/** Reads events where they stand. What is not there any more is missing. */
export const fetch = (
  store: Store,
  at: { readonly group: string; readonly topic: string },
  wanted: ReadonlyArray<Wanted>
): Effect.Effect<Fetched, StoreUnavailable> =>
  Effect.gen(function* () {
    const events = new Map<number, Found>()
    const fromLog = wanted.filter(({ letter }) => letter === undefined)
    const log = yield* readAll(
      store,
      at.topic,
      fromLog.map(({ seq }) => seq)
    )
    for (const { seq } of fromLog) {
      const record = log.records.get(seq)
      if (record !== undefined) events.set(seq, { record, redrives: 0 })
    }
    const fromLetters = wanted.flatMap(({ letter, seq }) => (letter === undefined ? [] : [{ letter, seq }]))
    const letters = yield* readAll(
      store,
      DeadLetter.deadLetterTopic(at.group, at.topic),
      fromLetters.map(({ letter }) => letter)
    )
    for (const { letter, seq } of fromLetters) {
      const record = letters.records.get(letter)
      const death = record === undefined ? undefined : DeadLetter.deathOf(record)
      if (record === undefined || death === undefined) continue
      events.set(seq, { record: DeadLetter.revived(record, death), redrives: death.redrives + 1 })
    }
    return { events, trimmedTo: log.trimmedTo, lettersTrimmedTo: letters.trimmedTo }
  })
