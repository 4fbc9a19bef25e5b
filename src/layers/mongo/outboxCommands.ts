/**
 * What becomes of claims on an outbox in MongoDB, and what people do with its records. Each takes a number of round
 * trips that does not grow with the number of records.
 *
 * Every change names the token of the claim it ends. A claim that was lost has another one by now, or none.
 */
import type { AnyBulkWriteOperation, Collection, Document, Filter } from "mongodb"
import { leaseExpired, type StateName } from "../../domain/Outbox.ts"
import type { OutboxEntry, OutboxStats } from "../../services/OutboxStore.ts"
import { whileBusy } from "./attempts.ts"
import { pauseMark, topicsOf, unblock } from "./outboxClaims.ts"
import * as pipelines from "./outboxPipelines.ts"
import type { OutboxDocument } from "./schema.ts"

type State = OutboxDocument["state"]

/** Names a claim: enough to find its record, and to see whether it still holds. */
export interface ClaimRef {
  readonly _id: string
  readonly topic: string
  readonly id: string
  readonly key: string | undefined
  readonly token: string
}

const stateNames: Readonly<Record<Exclude<State, "paused">, StateName>> = {
  pending: "Pending",
  waiting: "Pending",
  blocked: "Blocked",
  claimed: "Claimed",
  sent: "Sent",
  dead: "Dead"
}

const statesOf: Readonly<Record<StateName, ReadonlyArray<State>>> = {
  Pending: ["pending", "waiting"],
  Blocked: ["blocked"],
  Claimed: ["claimed"],
  Sent: ["sent"],
  Dead: ["dead"]
}

/** How many leases that ended are taken back at once, and how many records a purge deletes at once. */
const chunk = 1_000

export const eventOf = (record: OutboxDocument) => ({
  topic: record.topic,
  id: record.id,
  key: record.key,
  tombstone: record.tombstone === true,
  body: record.body
})

const entryOf = (record: OutboxDocument): OutboxEntry => ({
  id: record.id,
  topic: record.topic,
  key: record.key,
  state: record.state === "paused" ? "Pending" : stateNames[record.state],
  attempts: record.attempts,
  addedAt: record.addedAt.getTime(),
  notBefore: record.state === "waiting" ? record.dueAt?.getTime() : undefined,
  worker: record.worker,
  leaseUntil: record.leaseUntil?.getTime(),
  lastError: record.lastError,
  event: eventOf(record)
})

const countedStates: ReadonlyArray<State> = [
  "pending",
  "waiting",
  "blocked",
  "claimed",
  "sent",
  "dead",
  "paused"
]

/** Records of each state that are counted, when somebody asks how many there are. */
const countedAtMost = 100_000

type Which = "all" | ReadonlyArray<{ readonly topic: string; readonly id: string }>

/** Dead records: these, a filter a topic, or all. */
const deadOnes = (which: Which): ReadonlyArray<Filter<OutboxDocument>> =>
  which === "all"
    ? [{ state: "dead" }]
    : [...Map.groupBy(which, ({ topic }) => topic)].map(([topic, some]) => ({
        topic,
        id: { $in: some.map(({ id }) => id) },
        state: "dead"
      }))

export const outboxCommands = (
  collection: Collection<OutboxDocument>,
  now: () => number,
  nextId: () => string
) => {
  /** Only what has a key has others behind it. */
  const letGoOn = (
    done: ReadonlyArray<{ readonly topic: string; readonly id: string; readonly key?: string | undefined }>
  ): Promise<void> =>
    unblock(
      collection,
      done.filter(({ key }) => key !== undefined)
    )

  /**
   * The updates of one call, of claims that end the same way together, as far as they are what `only` says. Answers
   * which claims were lost, or left out.
   */
  const settle = async (
    groups: ReadonlyArray<{ readonly claims: ReadonlyArray<ClaimRef>; readonly update: Array<Document> }>,
    call: string,
    only: Filter<OutboxDocument> = {}
  ): Promise<ReadonlySet<ClaimRef>> => {
    const claims = groups.flatMap((group) => group.claims)
    const updates = groups.flatMap((group) =>
      [...Map.groupBy(group.claims, ({ token }) => token)].map(
        ([token, some]): AnyBulkWriteOperation<OutboxDocument> => ({
          updateMany: {
            filter: { ...only, _id: { $in: some.map(({ _id }) => _id) }, topic: topicsOf(some), token },
            update: group.update
          }
        })
      )
    )
    const { matchedCount } = await whileBusy(() => collection.bulkWrite(updates, { ordered: false }))
    if (matchedCount === claims.length) return new Set()
    const held = await collection
      .find({ _id: { $in: claims.map(({ _id }) => _id) }, topic: topicsOf(claims), settledBy: call })
      .project<{ readonly _id: string }>({ _id: 1 })
      .toArray()
    const ids = new Set(held.map(({ _id }) => _id))
    return new Set(claims.filter(({ _id }) => !ids.has(_id)))
  }

  return {
    markSent: async (claims: ReadonlyArray<ClaimRef>): Promise<ReadonlySet<ClaimRef>> => {
      if (claims.length === 0) return new Set()
      const call = nextId()
      const update = pipelines.sent(call)
      // Those that nobody is behind at first: as a rule all of them, and then this was everything.
      const left = await settle([{ claims, update }], call, { hasBehind: { $exists: false } })
      if (left.size === 0) return left
      const lost = await settle([{ claims: [...left], update }], call)
      // Also of those that are lost: an earlier try of this call may have got so far and no farther.
      await letGoOn([...left])
      return lost
    },

    fail: async (
      failures: ReadonlyArray<{
        readonly claim: ClaimRef
        readonly error: string
        readonly retryInMs: number | undefined
      }>
    ): Promise<ReadonlySet<ClaimRef>> => {
      if (failures.length === 0) return new Set()
      const call = nextId()
      const alike = Map.groupBy(failures, ({ error, retryInMs }) => `${retryInMs} ${error}`)
      const lost = await settle(
        [...alike.values()].map((some) => ({
          claims: some.map(({ claim }) => claim),
          update: pipelines.failed(call, some[0]!.error, some[0]!.retryInMs)
        })),
        call
      )
      await letGoOn(failures.flatMap(({ claim, retryInMs }) => (retryInMs === undefined ? [claim] : [])))
      return lost
    },

    release: async (
      claims: ReadonlyArray<ClaimRef>,
      retryInMs: number | undefined
    ): Promise<ReadonlySet<ClaimRef>> => {
      if (claims.length === 0) return new Set()
      const call = nextId()
      return settle([{ claims, update: pipelines.released(call, retryInMs) }], call)
    },

    /** Gives back what a claim has got, when nobody is there to have it. */
    releaseAll: async (token: string): Promise<void> => {
      const update = pipelines.released(nextId(), undefined)
      await whileBusy(() => collection.updateMany({ token, state: "claimed" }, update))
    },

    requeueExpired: async (
      maxAttempts: number
    ): Promise<{ readonly requeued: number; readonly dead: number }> => {
      const over = await collection
        .find({ state: "claimed", leaseUntil: { $lte: new Date(now()) } })
        .project<Pick<OutboxDocument, "_id" | "topic">>({ topic: 1 })
        .limit(chunk)
        .toArray()
      if (over.length === 0) return { requeued: 0, dead: 0 }
      const call = nextId()
      const these = { _id: { $in: over.map(({ _id }) => _id) }, topic: topicsOf(over) }
      const update = pipelines.expired(call, leaseExpired, maxAttempts)
      await whileBusy(() => collection.updateMany({ ...these, state: "claimed" }, update))
      const changed = await collection
        .find({ ...these, settledBy: call })
        .project<Pick<OutboxDocument, "topic" | "id" | "key" | "deadAt">>({
          topic: 1,
          id: 1,
          key: 1,
          deadAt: 1
        })
        .toArray()
      const dead = changed.filter(({ deadAt }) => deadAt !== undefined)
      await letGoOn(dead)
      return { requeued: changed.length - dead.length, dead: dead.length }
    },

    /** A bounded walk over the index by state: what was sent in a day may be millions. */
    stats: async (): Promise<OutboxStats> => {
      const [first = [], ...others] = countedStates.map((state) => [
        { $match: { state } },
        { $sort: { state: 1, _id: 1 } },
        { $limit: countedAtMost },
        { $group: { _id: "$state", n: { $sum: 1 }, oldest: { $min: "$addedAt" } } }
      ])
      const rows = await collection
        .aggregate<{ readonly _id: State; readonly n: number; readonly oldest: Date | null }>([
          ...first,
          ...others.map((pipeline) => ({ $unionWith: { coll: collection.collectionName, pipeline } }))
        ])
        .toArray()
      const counts = { Pending: 0, Blocked: 0, Claimed: 0, Sent: 0, Dead: 0 }
      let oldestAddedAt: number | undefined
      let paused = false
      for (const { _id: state, n, oldest } of rows) {
        if (state === "paused") paused = true
        else {
          counts[stateNames[state]] += n
          if (state !== "sent" && state !== "dead" && oldest !== null) {
            oldestAddedAt = Math.min(oldestAddedAt ?? Infinity, oldest.getTime())
          }
        }
      }
      return { counts, oldestAddedAt, paused }
    },

    list: async (page: {
      readonly state: StateName | undefined
      readonly after: string | undefined
      readonly limit: number
    }): Promise<{ readonly items: ReadonlyArray<OutboxEntry>; readonly next: string | undefined }> => {
      const rows = await collection
        .find({
          ...(page.state === undefined ? {} : { state: { $in: statesOf[page.state] } }),
          // The mark of a pause is before all records.
          _id: { $gt: page.after ?? pauseMark._id }
        })
        .sort({ _id: 1 })
        .limit(page.limit + 1)
        .toArray()
      const items = rows.slice(0, page.limit)
      return {
        items: items.map(entryOf),
        next: rows.length > page.limit ? items.at(-1)?._id : undefined
      }
    },

    countDead: async (which: Which): Promise<number> => {
      const filters = deadOnes(which)
      return filters.length === 0 ? 0 : collection.countDocuments({ $or: [...filters] })
    },

    redrive: async (which: Which): Promise<number> => {
      const updates = deadOnes(which).map((filter): AnyBulkWriteOperation<OutboxDocument> => ({
        updateMany: { filter, update: pipelines.redriven }
      }))
      return updates.length === 0 ? 0 : (await collection.bulkWrite(updates)).matchedCount
    },

    countSent: (sentBefore: number): Promise<number> =>
      collection.countDocuments({ state: "sent", sentAt: { $lt: new Date(sentBefore) } }),

    /** Answers how many went; none: there is no more to do. */
    purge: async (sentBefore: number): Promise<number> => {
      const old = await collection
        .find({ state: "sent", sentAt: { $lt: new Date(sentBefore) } })
        .project<Pick<OutboxDocument, "_id" | "topic">>({ topic: 1 })
        .limit(chunk)
        .toArray()
      if (old.length === 0) return 0
      const { deletedCount } = await collection.deleteMany({
        _id: { $in: old.map(({ _id }) => _id) },
        topic: topicsOf(old),
        state: "sent"
      })
      return deletedCount
    },

    setPaused: async (paused: boolean): Promise<void> => {
      const { _id, topic } = pauseMark
      if (paused) {
        await collection.updateOne(
          { _id, topic },
          { $set: { id: "paused", state: "paused" } },
          { upsert: true }
        )
      } else await collection.deleteOne({ _id, topic })
    },

    hasReady: async (): Promise<boolean> =>
      (await collection.findOne({ state: "pending" }, { projection: { _id: 1 } })) !== null
  }
}
