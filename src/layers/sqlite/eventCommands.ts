/**
 * Writes to the event log. They run in the writer's transaction, on the only connection that writes to these
 * tables: what is remembered of a topic between two commands is true, until a transaction is rolled back.
 */
import type { EventRecord, StoredRecord } from "../../domain/Event.ts"
import type { Restoration } from "../../services/EventStore.ts"
import { outcomes, type PackedRecords, type PackedResults, unpackRecords } from "./packedAppend.ts"
import type { Statements } from "./statements.ts"

interface TopicState {
  readonly id: number
  head: number
  storedAt: number
}

interface TopicRow {
  readonly id: number
  readonly head: number
  readonly floor: number
  readonly stored_at: number
}

/** Times never decrease within a topic, and never lie in the future. */
const timeOf = (state: TopicState, firstStoredAt: number, now: number): number =>
  Math.max(state.storedAt, Math.min(firstStoredAt, now))

/** How many events one trim forgets at most, so that it does not hold up the commits of others for long. */
const trimChunk = 500

export const eventCommands = (statements: Statements) => {
  const topics = new Map<string, TopicState>()

  const find = (topic: string): TopicState | undefined => {
    const known = topics.get(topic)
    if (known !== undefined) return known
    const row = statements.get<TopicRow>("topic", topic)
    if (row === undefined) return undefined
    const state = { id: row.id, head: row.head, storedAt: row.stored_at }
    topics.set(topic, state)
    return state
  }

  const create = (topic: string, head: number): TopicState => {
    const row = statements.get<{ readonly id: number }>("addTopic", topic, head, head)
    const state = { id: row!.id, head, storedAt: 0 }
    topics.set(topic, state)
    return state
  }

  /** True: it is new, and the topic has grown. */
  const insert = (state: TopicState, record: EventRecord, storedAt: number): boolean => {
    const { body, id, key, tombstone } = record
    const seq = state.head + 1
    if (statements.run("addEvent", state.id, seq, storedAt, id, key ?? null, tombstone ? 1 : 0, body) === 0) {
      return false
    }
    state.head = seq
    state.storedAt = storedAt
    if (key !== undefined) {
      if (tombstone) statements.run("dropLatest", state.id, key)
      else statements.run("setLatest", state.id, key, seq)
    }
    return true
  }

  const append = (args: {
    readonly records: PackedRecords
    readonly maxLength: number
    readonly now: number
  }): PackedResults => {
    const { now } = args
    const records = unpackRecords(args.records)
    const { firstStoredAts } = args.records
    const refused = new Set<string>()
    const grown = new Set<TopicState>()
    const results = {
      outcomes: new Uint8Array(records.length),
      seqs: new Float64Array(records.length),
      storedAts: new Float64Array(records.length)
    }
    records.forEach((record, i) => {
      const { id, topic } = record
      if (refused.has(topic)) {
        results.outcomes[i] = outcomes.indexOf("behind_refused")
        return
      }
      if (record.body.length > args.maxLength) {
        refused.add(topic)
        results.outcomes[i] = outcomes.indexOf("too_large")
        return
      }
      const state = find(topic) ?? create(topic, 0)
      const first = firstStoredAts?.[i] ?? now
      if (insert(state, record, timeOf(state, Number.isNaN(first) ? now : first, now))) {
        grown.add(state)
        results.seqs[i] = state.head
        results.storedAts[i] = state.storedAt
        return
      }
      const known = statements.get<{ readonly seq: number; readonly stored_at: number }>(
        "eventById",
        state.id,
        id
      )!
      results.outcomes[i] = outcomes.indexOf("duplicate")
      results.seqs[i] = known.seq
      results.storedAts[i] = known.stored_at
    })
    for (const state of grown) statements.run("growTopic", state.head, state.storedAt, state.id)
    return results
  }

  /** Forgets a part of what may go; `done` says whether it was the last. */
  const trim = (args: {
    readonly topic: string
    readonly upTo: number
    readonly storedBefore: number
  }): { readonly floor: number; readonly done: boolean } => {
    const row = statements.get<TopicRow>("topic", args.topic)
    if (row === undefined) return { floor: 0, done: true }
    // Times never decrease within a topic, so the last event that is old enough is found by halving.
    let low = row.floor
    let high = Math.min(args.upTo, row.head - 1, row.floor + trimChunk)
    const bound = high
    while (low < high) {
      const mid = Math.ceil((low + high) / 2)
      const event = statements.get<{ readonly stored_at: number }>("storedAt", row.id, mid)
      if (event !== undefined && event.stored_at > args.storedBefore) high = mid - 1
      else low = mid
    }
    if (low <= row.floor) return { floor: row.floor, done: true }
    statements.run("setFloor", low, row.id)
    statements.run("keepLatest", row.id, low)
    statements.run("forgetEvents", row.id, low)
    return { floor: low, done: low < bound || bound < row.floor + trimChunk }
  }

  const restore = (args: Restoration & { readonly now: number }): { readonly exists: boolean } => {
    if (find(args.topic) !== undefined) return { exists: true }
    if (args.events.length === 0) return { exists: false }
    const state = create(args.topic, args.firstSeq - 1)
    for (const event of args.events) insert(state, event, timeOf(state, event.storedAt, args.now))
    statements.run("growTopic", state.head, state.storedAt, state.id)
    return { exists: false }
  }

  const restoreLatest = (args: {
    readonly topic: string
    readonly records: ReadonlyArray<StoredRecord>
  }): void => {
    const row = statements.get<TopicRow>("topic", args.topic)
    if (row === undefined) return
    // A key that was deleted later has no last event; what was put later stands in `latest`.
    const deleted = new Set<string>()
    for (const { key } of statements.each<{ readonly key: string }>("deletedKeys", row.id, row.floor)) {
      deleted.add(key)
    }
    for (const { body, id, key, seq, storedAt } of args.records) {
      if (key === undefined || seq > row.floor || deleted.has(key)) continue
      statements.run("restoreLatest", row.id, key, seq, storedAt, id, body)
    }
  }

  return {
    commands: { append, trim, restore, restoreLatest },
    /** The transaction was rolled back: what was remembered may not be true. */
    forget: () => topics.clear()
  }
}
