/**
 * The collections of a hub in a MongoDB database, their indexes, and how a database gets to the version this code knows.
 *
 * Every collection that grows carries its topic in a field of its own, so that it can be sharded on it; no query and no
 * unique index crosses that (docs/operations.md).
 */
import type { Collection, Db, IndexDescription } from "mongodb"

/** Raise it with every step. */
const version = 1

export class SchemaProblem extends Error {}

/** An event of the log. `_id` decides races: whoever inserts a seq first has it. */
export interface EventDocument {
  readonly _id: { readonly topic: string; readonly seq: number }
  readonly topic: string
  readonly id: string
  readonly key?: string
  readonly tombstone?: true
  readonly body: string
  readonly storedAt: number
}

/** What is known of a topic. Made before its first event; the head is a hint, behind which the log is looked at. */
export interface TopicDocument {
  readonly _id: string
  readonly head: number
  readonly storedAt: number
  readonly floor: number
  /** Up to here the events are in `latest`. */
  readonly latestTo: number
  /** When it grew last, by the server's clock. */
  readonly grownAt: Date
}

/** The last event of a key, as far as `latestTo` says. */
export interface LatestDocument {
  readonly _id: { readonly topic: string; readonly key: string }
  readonly topic: string
  readonly seq: number
  readonly storedAt: number
  readonly id: string
  readonly tombstone: boolean
  readonly body: string
}

/** A group with all its patterns, and where it begins on topics that it has not met. */
export interface GroupDocument {
  readonly _id: string
  /** New with each registration of the name: states of another life are none. */
  readonly life: string
  readonly patterns: ReadonlyArray<{ readonly pattern: string; readonly registeredAt: number }>
  readonly options: {
    readonly ackTimeoutMs: number
    readonly maxAttempts: number
    readonly keyOrdered: boolean
  }
  readonly history: string
  readonly paused: boolean
  readonly lastUsedAt: Date
  readonly positions: ReadonlyArray<{
    readonly topic: string
    readonly floor: number
    readonly generation: string
  }>
}

/** The state of a group on a topic: all of it as it was once, and what changed since. */
export interface GroupStateDocument {
  readonly _id: { readonly topic: string; readonly group: string }
  readonly topic: string
  readonly group: string
  readonly life: string
  /** Random, and new with every change: compare-and-set. */
  readonly revision: string
  readonly whole: string
  readonly changes: ReadonlyArray<string>
}

/** What a consumer has handled, or is handling. */
export interface DedupeDocument {
  readonly _id: { readonly consumer: string; readonly topic: string; readonly id: string }
  readonly topic: string
  readonly run: string
  readonly leaseUntil: Date
  readonly doneAt?: Date
}

interface SchemaDocument {
  readonly _id: "schema"
  readonly version: number
  readonly history: string
}

export interface Collections {
  readonly events: EventDocument
  readonly topics: TopicDocument
  readonly latest: LatestDocument
  readonly groups: GroupDocument
  readonly group_states: GroupStateDocument
  readonly dedupe: DedupeDocument
}

export const collection = <Name extends keyof Collections>(
  db: Db,
  name: Name
): Collection<Collections[Name]> => db.collection<Collections[Name]>(name)

const indexes: Readonly<Record<keyof Collections, ReadonlyArray<IndexDescription>>> = {
  events: [{ key: { topic: 1, id: 1 }, name: "by_id", unique: true }],
  topics: [{ key: { grownAt: 1 }, name: "by_growth" }],
  latest: [],
  groups: [],
  group_states: [{ key: { group: 1, topic: 1 }, name: "by_group" }],
  dedupe: [{ key: { doneAt: 1 }, name: "by_end" }]
}

/** Makes what is missing, and answers the id of this life of the store. Any number of hubs may do it at once. */
export const migrate = async (db: Db, newHistory: string): Promise<string> => {
  const schema = db.collection<SchemaDocument>("schema")
  const found = await schema.findOneAndUpdate(
    { _id: "schema" },
    { $setOnInsert: { version, history: newHistory } },
    { upsert: true, returnDocument: "after" }
  )
  if (found === null) throw new SchemaProblem("its schema document cannot be written")
  if (found.version > version) {
    throw new SchemaProblem(
      `its schema has version ${found.version}, and this event-hub knows ${version}; use a newer event-hub`
    )
  }
  for (const [name, wanted] of Object.entries(indexes)) {
    if (wanted.length > 0) await db.collection(name).createIndexes([...wanted])
  }
  return found.history
}
