/**
 * The states of groups as documents: read with the group they belong to, and written by compare and set.
 *
 * A state is written as what changed, and as a whole when the changes have become longer than that: what a round
 * sends follows from what happened in it, however much waits.
 */
import { type Collection, type Db, MaxKey, MongoBulkWriteError } from "mongodb"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type GroupState, initial } from "../../domain/Group.ts"
import { decodeChanges, decodeState, encodeChange, encodeState } from "../../domain/GroupEncoding.ts"
import type { GroupCursor } from "../../services/GroupStore.ts"
import { isDuplicateKey } from "./attempts.ts"
import { collection, type GroupDocument, type GroupStateDocument } from "./schema.ts"

/** MongoDB takes documents of 16 MiB; what stands beside the state fits into the rest. */
const maxBytes = 15 * 1024 * 1024

/** What is to be written of a group does not fit into a document. Nothing was changed. */
export class DocumentTooLarge extends Schema.TaggedError<DocumentTooLarge>()("DocumentTooLarge", {
  what: Schema.String,
  bytes: Schema.Int,
  maxBytes: Schema.Int,
  hint: Schema.String
}) {
  override get message() {
    return `${this.what} takes ${this.bytes} bytes, and a document holds ${this.maxBytes}: ${this.hint}`
  }
}

export interface At {
  readonly group: string
  readonly topic: string
}

/** A state as it stands in its document. */
export interface Stored {
  readonly life: string
  readonly revision: string
  readonly state: GroupState
  /** Bytes of the whole as it was written last, and of the changes since. */
  readonly whole: number
  readonly changes: number
}

/** What is known of a group on a topic, when there is such a group. */
export interface Found {
  readonly life: string
  readonly state: GroupState | undefined
  /** The document it stands in; none: it is a position of the group's, or there is none. */
  readonly stored: Stored | undefined
  /** The revision of a document of another life, in whose place a state is to be written. */
  readonly orphan: string | undefined
}

type Position = GroupDocument["positions"][number]

/** Groups that are there. */
export const present = { removedAt: { $exists: false } }

/** So long may changes become, however short the whole is. */
const minChanges = 4_096

/** About what an element of an array takes beside its text. */
const perChange = 16

const idOf = ({ group, topic }: At) => ({ topic, group })

export const storedOf = ({ changes, life, revision, whole }: GroupStateDocument): Stored => ({
  life,
  revision,
  state: Result.getOrThrow(Result.flatMap(decodeState(whole), (before) => decodeChanges(before, changes))),
  whole: Buffer.byteLength(whole),
  changes: changes.reduce((sum, part) => sum + Buffer.byteLength(part) + perChange, 0)
})

const byTopic = (a: GroupCursor, b: GroupCursor): number => (a.topic < b.topic ? -1 : 1)

const initialOf = ({ floor, generation }: Position): GroupState => initial(generation, floor)

/** How a state is written after that. */
const partOf = (
  before: Stored | undefined,
  state: GroupState
): { readonly part: string; readonly whole: number; readonly changes: number } => {
  if (before !== undefined) {
    const part = encodeChange(before.state, state)
    const changes = before.changes + Buffer.byteLength(part) + perChange
    if (changes <= Math.max(minChanges, before.whole) && before.whole + changes <= maxBytes) {
      return { part, whole: before.whole, changes }
    }
  }
  const part = encodeState(state)
  return { part, whole: Buffer.byteLength(part), changes: 0 }
}

type StateInRange = Omit<GroupStateDocument, "_id"> & {
  readonly _id: { readonly topic: string; readonly group: string | MaxKey }
}

/** Every document of a topic, as one narrow range: an index on `_id` is all it takes. */
const ofTopic = (topic: string) => ({
  _id: { $gte: { topic, group: "" }, $lte: { topic, group: new MaxKey() } },
  topic
})

/** When, by the server's clock. */
const stamped = { $currentDate: { changedAt: true } } as const

export const groupStates = (
  db: Db,
  {
    newRevision,
    now,
    self
  }: { readonly newRevision: () => string; readonly now: () => number; readonly self: string }
) => {
  const groups = collection(db, "groups")
  const states = collection(db, "group_states")
  /** Its `_id`s are compared with a bound that is no `_id`. */
  const ranges: Collection<StateInRange> = db.collection("group_states")

  /** A life that is over takes no states: one that was written after its removal goes with this. */
  const isAlive = async (group: string, life: string): Promise<boolean> =>
    (await groups.findOne({ _id: group, life, ...present }, { projection: { _id: 1 } })) !== null

  return {
    isAlive,

    /**
     * The group and its state on a topic; nothing when there is no such group. A position becomes a state before
     * it goes, so what was missed while both were read is a state when it is looked for again.
     */
    find: async (at: At): Promise<Found | undefined> => {
      const findState = () => states.findOne({ _id: idOf(at), topic: at.topic })
      for (;;) {
        const [group, first] = await Promise.all([
          groups.findOne(
            { _id: at.group },
            { projection: { life: 1, removedAt: 1, positions: { $elemMatch: { topic: at.topic } } } }
          ),
          findState()
        ])
        if (group === null || group.removedAt !== undefined) return undefined
        const { life, positions: [position] = [] } = group
        const found = first?.life === life || position !== undefined ? first : await findState()
        if (found?.life === life) {
          const stored = storedOf(found)
          return { life, stored, state: stored.state, orphan: undefined }
        }
        // It may be of a life that began since the group was read, and then it is no orphan.
        if (found !== null && !(await isAlive(at.group, life))) continue
        const state = position === undefined ? undefined : initialOf(position)
        return { life, state, stored: undefined, orphan: found?.revision }
      }
    },

    /** Whether a state is still as it was read. */
    isStill: async (at: At, { life, revision }: Stored): Promise<boolean> =>
      (await states.findOne(
        { _id: idOf(at), topic: at.topic, revision, life },
        { projection: { _id: 1 } }
      )) !== null,

    /**
     * Compare and set; nothing when somebody else was faster, or the group is not what it was. A state that is new
     * counts only when its group is there after it was written: a removal may have passed it.
     */
    save: async (at: At, found: Found, state: GroupState): Promise<Stored | undefined> => {
      const { life, orphan, stored: before } = found
      const _id = idOf(at)
      const { topic } = at
      const { part, ...written } = partOf(before, state)
      if (written.whole > maxBytes) {
        throw new DocumentTooLarge({
          what: `the state of group '${at.group}' on '${topic}'`,
          bytes: written.whole,
          maxBytes,
          hint: "too many of its events are begun and not finished; lower GROUP_WINDOW, or let its members answer"
        })
      }
      const revision = newRevision()
      const stored: Stored = { life, revision, state, ...written }
      if (before !== undefined) {
        const change =
          written.changes > 0
            ? { $set: { revision, by: self }, $push: { changes: part }, ...stamped }
            : { $set: { revision, by: self, whole: part, changes: [] }, ...stamped }
        const { matchedCount } = await states.updateOne(
          { _id, topic, revision: before.revision, life },
          change
        )
        return matchedCount === 1 ? stored : undefined
      }
      if (orphan !== undefined) {
        const { matchedCount } = await states.updateOne(
          { _id, topic, revision: orphan },
          { $set: { life, revision, by: self, whole: part, changes: [] }, ...stamped }
        )
        if (matchedCount === 0) return undefined
      } else {
        try {
          await states.insertOne({
            _id,
            ...at,
            life,
            revision,
            whole: part,
            changes: [],
            changedAt: new Date(now()),
            by: self
          })
        } catch (error) {
          if (isDuplicateKey(error)) return undefined
          throw error
        }
      }
      if (await isAlive(at.group, life)) return stored
      await states.deleteOne({ _id, topic, revision })
      return undefined
    },

    /**
     * Makes states of a group's positions, so that its document stays small. They count as they are until then, so
     * whoever is interrupted here leaves nothing undone.
     */
    settle: async (group: string, life: string): Promise<void> => {
      const found = await groups.findOne({ _id: group, life }, { projection: { positions: 1 } })
      const firsts = new Map<string, Position>()
      for (const position of found?.positions ?? []) {
        if (!firsts.has(position.topic)) firsts.set(position.topic, position)
      }
      const all = [...firsts.values()]
      for (let from = 0; from < all.length; from += 1_000) {
        const some = all.slice(from, from + 1_000)
        const documents = some.map((position): GroupStateDocument => ({
          _id: idOf({ group, topic: position.topic }),
          topic: position.topic,
          group,
          life,
          revision: newRevision(),
          whole: encodeState(initialOf(position)),
          changes: [],
          changedAt: new Date(now()),
          by: self
        }))
        const topics = new Set(some.map(({ topic }) => topic))
        try {
          await states.insertMany(documents, { ordered: false })
        } catch (error) {
          if (!(error instanceof MongoBulkWriteError) || !isDuplicateKey(error)) throw error
          const met = [error.writeErrors].flat().map(({ index }) => documents[index]!)
          const others = await states
            .find(
              {
                _id: { $in: met.map(({ _id }) => _id) },
                topic: { $in: met.map(({ topic }) => topic) },
                life: { $ne: life }
              },
              { projection: { topic: 1 } }
            )
            .toArray()
          // Whoever writes a state there first takes the place of the other life's.
          for (const { topic } of others) topics.delete(topic)
        }
        const { matchedCount } = await groups.updateOne(
          { _id: group, life, ...present },
          { $pull: { positions: { topic: { $in: [...topics] } } } }
        )
        if (matchedCount === 0) return void (await states.deleteMany({ group, life }))
      }
    },

    /** Takes what is left of a group that was removed. Harmless at any time: another life is not touched. */
    forget: async (group: string, life: string): Promise<void> => {
      await states.deleteMany({ group, life })
      await groups.deleteOne({ _id: group, life, removedAt: { $exists: true } })
    },

    /** Positions are looked for before the states that they become. */
    ofTopic: async (topic: string): Promise<ReadonlyArray<GroupCursor>> => {
      const begun = await groups
        .find(
          { "positions.topic": topic, ...present },
          { projection: { positions: { $elemMatch: { topic } } } }
        )
        .toArray()
      const found = await ranges.find(ofTopic(topic)).toArray()
      const alive = await groups
        .find({ _id: { $in: found.map(({ group }) => group) }, ...present }, { projection: { life: 1 } })
        .toArray()
      const lives = new Map(alive.map(({ _id, life }) => [_id, life]))
      const cursors = new Map(
        begun.flatMap(({ _id: group, positions: [position] }) =>
          position === undefined ? [] : [[group, initialOf(position)] as const]
        )
      )
      for (const document of found) {
        if (lives.get(document.group) !== document.life) continue
        cursors.set(document.group, storedOf({ ...document, _id: idOf(document) }).state)
      }
      return Array.from(cursors, ([group, state]) => ({ group, topic, state }))
    },

    ofGroup: async (
      group: string,
      page: { readonly after?: string; readonly limit?: number } = {}
    ): Promise<ReadonlyArray<GroupCursor>> => {
      const { after, limit = 0 } = page
      const found = await groups.findOne(
        { _id: group, ...present },
        { projection: { life: 1, positions: 1 } }
      )
      if (found === null) return []
      const cursors = new Map<string, GroupState>()
      for (const position of found.positions) {
        if (after !== undefined && position.topic <= after) continue
        if (!cursors.has(position.topic)) cursors.set(position.topic, initialOf(position))
      }
      const behind = after === undefined ? {} : { topic: { $gt: after } }
      const stored = states.find({ group, ...behind, life: found.life }).sort({ group: 1, topic: 1 })
      for await (const document of stored.limit(limit)) {
        cursors.set(document.topic, storedOf(document).state)
      }
      const all = Array.from(cursors, ([topic, state]) => ({ group, topic, state })).sort(byTopic)
      return limit === 0 ? all : all.slice(0, limit)
    }
  }
}
