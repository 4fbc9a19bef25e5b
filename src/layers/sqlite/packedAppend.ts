/**
 * Records as they cross to the writer's thread and back: a list for each field, and not an object for each event.
 *
 * What crosses is copied field by field, names of fields included, on both sides. As lists it costs a third.
 */
import type { EventRecord } from "../../domain/Event.ts"
import type { AppendResult, ReturningRecord } from "../../services/EventStore.ts"

export interface PackedRecords {
  readonly topics: ReadonlyArray<string>
  /** By event: which of the topics. None: all are of the first. */
  readonly topicOf: Uint32Array | undefined
  readonly ids: ReadonlyArray<string>
  /** None: no event has one. */
  readonly keys: ReadonlyArray<string | undefined> | undefined
  /** The events that are tombstones. */
  readonly tombstones: ReadonlyArray<number>
  readonly bodies: ReadonlyArray<string>
  /** When they were stored the first time; NaN: they never were. None: no event was. */
  readonly firstStoredAts: Float64Array | undefined
}

/** What became of an event, in this order. */
export const outcomes = ["appended", "duplicate", "too_large", "behind_refused"] as const

export interface PackedResults {
  readonly outcomes: Uint8Array
  /** Of those in the log. */
  readonly seqs: Float64Array
  readonly storedAts: Float64Array
}

export const packRecords = (records: ReadonlyArray<ReturningRecord>): PackedRecords => {
  const indexes = new Map<string, number>()
  const topicOf = new Uint32Array(records.length)
  const ids: Array<string> = []
  const bodies: Array<string> = []
  const keys: Array<string | undefined> = []
  const tombstones: Array<number> = []
  let hasKeys = false
  let firstStoredAts: Float64Array | undefined
  records.forEach(({ body, firstStoredAt, id, key, tombstone, topic }, i) => {
    let index = indexes.get(topic)
    if (index === undefined) indexes.set(topic, (index = indexes.size))
    topicOf[i] = index
    ids.push(id)
    bodies.push(body)
    keys.push(key)
    if (key !== undefined) hasKeys = true
    if (tombstone) tombstones.push(i)
    if (firstStoredAt !== undefined) {
      firstStoredAts ??= new Float64Array(records.length).fill(NaN)
      firstStoredAts[i] = firstStoredAt
    }
  })
  return {
    topics: [...indexes.keys()],
    topicOf: indexes.size > 1 ? topicOf : undefined,
    ids,
    keys: hasKeys ? keys : undefined,
    tombstones,
    bodies,
    firstStoredAts
  }
}

export const unpackRecords = (packed: PackedRecords): ReadonlyArray<EventRecord> => {
  const { bodies, ids, keys, topicOf, topics } = packed
  const tombstones = new Set(packed.tombstones)
  return ids.map((id, i) => ({
    topic: topics[topicOf?.[i] ?? 0]!,
    id,
    key: keys?.[i],
    tombstone: tombstones.has(i),
    body: bodies[i]!
  }))
}

export const unpackResults = (
  records: ReadonlyArray<EventRecord>,
  packed: PackedResults
): ReadonlyArray<AppendResult> =>
  records.map(({ id, topic }, i): AppendResult => {
    const outcome = outcomes[packed.outcomes[i]!]!
    return outcome === "too_large" || outcome === "behind_refused"
      ? { _tag: "NotAppended", topic, id, reason: outcome }
      : {
          _tag: "Appended",
          topic,
          id,
          seq: packed.seqs[i]!,
          storedAt: packed.storedAts[i]!,
          duplicate: outcome === "duplicate"
        }
  })
