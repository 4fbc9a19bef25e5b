/**
 * The collections of a hub in a MongoDB database, their indexes, and how a database gets to the version this code knows.
 *
 * Only the log, `events` and `latest`, is to be sharded, on `topic` (docs/operations.md). It is a field of its own there,
 * every query on them names its topics, and it is part of every unique index: nothing crosses shards.
 */
import type { Collection, Db, IndexDescription } from "mongodb"
import type { Entry } from "../../domain/Revocation.ts"
import { upsert, whileBusy } from "./attempts.ts"

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
  /** Up to here the events are deleted; between it and the floor some may be left. */
  readonly trimmedTo: number
  /** It is being filled, and nothing of it is there before it is whole. Whoever finds it abandoned clears it away. */
  readonly restoring?: {
    readonly token: string
    readonly until: Date
    /** What has to be cleared away: nothing before the first write. */
    readonly from: number
    readonly to: number
  }
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
  /** They are only ever added to. */
  readonly patterns: ReadonlyArray<{
    readonly pattern: string
    readonly registeredAt: Date
    /** The life of the event store that it was registered in. */
    readonly history: string
  }>
  readonly options: {
    readonly ackTimeoutMs: number
    readonly maxAttempts: number
    readonly keyOrdered: boolean
  }
  readonly paused: boolean
  /** When it was paused, resumed or removed last, by the server's clock. */
  readonly changedAt?: Date | undefined
  readonly lastUsedAt: Date
  /** It is none any more: its states are being removed, and then it is. */
  readonly removedAt?: Date
  /** Where it begins on topics, until states stand there. The first of a topic counts, and a state before it. */
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
  /** When it was written last, by the server's clock, and by which hub: so that others hear of it. */
  readonly changedAt: Date
  readonly by: string
}

/** What a consumer has handled, or is handling. */
export interface DedupeDocument {
  readonly _id: { readonly consumer: string; readonly topic: string; readonly id: string }
  readonly topic: string
  readonly run: string
  readonly leaseUntil: Date
  readonly doneAt?: Date
}

/**
 * An event that waits for the drainer. `_id` says when it was added, by the server's clock, so that a walk over it meets
 * the oldest first. One more document, the first of all, is there while the outbox is paused.
 */
export interface OutboxDocument {
  readonly _id: string
  readonly topic: string
  readonly id: string
  readonly key?: string
  readonly tombstone?: true
  readonly body: string
  readonly addedAt: Date
  /** The place in the line of its key: `_id`, and a later one once it was redriven. */
  readonly order: string
  /** While others of its key have to stay behind it. */
  readonly inLine?: true
  readonly state: "pending" | "waiting" | "blocked" | "claimed" | "sent" | "dead" | "paused"
  readonly attempts: number
  /** Waiting: not before. Blocked: when to look again, should nobody have said that it may go on. */
  readonly dueAt?: Date
  readonly recheckMs?: number
  /** Blocked: behind the record with this id of the same topic. */
  readonly blockedOn?: string
  /** Others were blocked behind it once, and may be still. */
  readonly hasBehind?: true
  readonly token?: string
  readonly worker?: string
  readonly leaseUntil?: Date
  /** The call that ended its last claim. */
  readonly settledBy?: string
  readonly sentAt?: Date
  readonly deadAt?: Date
  readonly lastError?: string
}

export interface RevocationDocument extends Omit<Entry, "id"> {
  readonly _id: string
}

/** One document: what is revoked has changed when its version has, and may change while there are marks. */
export interface RevocationChangesDocument {
  readonly _id: string
  readonly version: string
  /** Changes that are under way, and since when, by the server's clock. */
  readonly marks?: ReadonlyArray<{ readonly mark: string; readonly at: number }>
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
  readonly outbox: OutboxDocument
  readonly revocations: RevocationDocument
  readonly revocation_changes: RevocationChangesDocument
}

export const collection = <Name extends keyof Collections>(
  db: Db,
  name: Name
): Collection<Collections[Name]> => db.collection<Collections[Name]>(name)

/** Of an outbox, which an application may have in a database and a collection of its own. */
export const outboxIndexes: ReadonlyArray<IndexDescription> = [
  { key: { topic: 1, id: 1 }, name: "by_id", unique: true },
  { key: { state: 1, _id: 1, addedAt: 1 }, name: "by_state" },
  { key: { topic: 1, key: 1, order: 1 }, name: "lines", partialFilterExpression: { inLine: true } },
  { key: { dueAt: 1 }, name: "by_due_time", sparse: true },
  { key: { topic: 1, blockedOn: 1 }, name: "blocked", partialFilterExpression: { state: "blocked" } },
  { key: { sentAt: 1 }, name: "by_end", sparse: true }
]

const indexes: Readonly<Record<keyof Collections, ReadonlyArray<IndexDescription>>> = {
  events: [{ key: { topic: 1, id: 1 }, name: "by_id", unique: true }],
  topics: [{ key: { grownAt: 1 }, name: "by_growth" }],
  latest: [],
  groups: [{ key: { changedAt: 1 }, name: "by_change", sparse: true }],
  group_states: [
    { key: { group: 1, topic: 1 }, name: "by_group" },
    { key: { changedAt: 1 }, name: "by_change" }
  ],
  /** Made by whoever knows how long handled events are kept (dedupeCommands.ts). */
  dedupe: [],
  /** Made with each outbox (addToOutbox.ts). */
  outbox: [],
  revocations: [{ key: { until: 1 }, name: "by_end", sparse: true }],
  revocation_changes: []
}

/** Makes what is missing, and answers the id of this life of the store. Any number of hubs may do it at once. */
export const migrate = async (db: Db, newHistory: string): Promise<string> => {
  const schema = db.collection<SchemaDocument>("schema")
  const found = await upsert(() =>
    schema.findOneAndUpdate(
      { _id: "schema" },
      { $setOnInsert: { version, history: newHistory } },
      { upsert: true, returnDocument: "after" }
    )
  )
  if (found === null) throw new SchemaProblem("its schema document cannot be written")
  if (found.version > version) {
    throw new SchemaProblem(
      `its schema has version ${found.version}, and this event-hub knows ${version}; use a newer event-hub`
    )
  }
  for (const [name, wanted] of Object.entries(indexes)) {
    if (wanted.length > 0) await whileBusy(() => db.collection(name).createIndexes([...wanted]))
  }
  return found.history
}
