/**
 * What can be done with the collection of what was handled: plain code without Effect, since `createDedupe` runs it in
 * the middle of the application's own transactions.
 *
 * Each is one command, and every time in it is the server's: consumers with wrong clocks take over nothing early.
 */
import type { ClientSession, Collection, Document } from "mongodb"
import type { Begun, RunToken } from "../../services/DedupeStore.ts"
import { hasCode, upsert, whileBusy } from "./attempts.ts"
import type { DedupeDocument } from "./schema.ts"

/** One event, for one consumer. */
export type Handling = Omit<RunToken, "run">

/** How many events one command of a purge forgets. */
const purgeChunk = 1_000

/** Three thousand years: with it, a time is still a date. */
const longestLeaseMs = 1e14

/** The server takes it as a whole number of 32 bits. */
const longestKeepSeconds = 2 ** 31 - 1

/** There is an index, and it says something else. */
const otherOptions: ReadonlySet<unknown> = new Set([85, 86])

const indexName = "by_end"

/**
 * What was handled is forgotten by the server itself, where it does such things, `keepMs` later. All who share the
 * collection should say the same: whoever begins last decides.
 */
export const prepareDedupe = async (handled: Collection<DedupeDocument>, keepMs: number): Promise<void> => {
  const expireAfterSeconds = Math.min(longestKeepSeconds, Math.ceil(keepMs / 1_000))
  try {
    await whileBusy(() => handled.createIndex({ doneAt: 1 }, { name: indexName, expireAfterSeconds }))
  } catch (error) {
    if (!hasCode(error, (code) => otherOptions.has(code))) throw error
    await handled.db.command({
      collMod: handled.collectionName,
      index: { name: indexName, expireAfterSeconds }
    })
  }
}

export interface DedupeCommands {
  readonly begin: (run: Handling & { readonly leaseMs: number }, session?: ClientSession) => Promise<Begun>
  /** Notes an event as handled, in the session's transaction; or what stands against it. */
  readonly mark: (
    event: Handling,
    session: ClientSession
  ) => Promise<Exclude<Begun, { readonly _tag: "Run" }> | { readonly _tag: "Marked" }>
  /** These answer whether the run still had it. */
  readonly extend: (token: RunToken, leaseMs: number, session?: ClientSession) => Promise<boolean>
  readonly complete: (token: RunToken, session?: ClientSession) => Promise<boolean>
  readonly release: (token: RunToken, session?: ClientSession) => Promise<void>
  /** Forgets events that were completed longer ago than this, and answers how many. */
  readonly forget: (olderThanMs: number, session?: ClientSession) => Promise<number>
}

/** What stands there afterwards, and the server's time. */
interface Standing extends DedupeDocument {
  readonly now: Date
}

const isDone = { $eq: [{ $type: "$doneAt" }, "date"] }

/** Nobody has it: it is new, or whoever had it has it no more. */
const isFree = {
  $and: [{ $not: [isDone] }, { $lte: [{ $ifNull: ["$leaseUntil", new Date(0)] }, "$$NOW"] }]
}

/** From now on. Times are whole milliseconds. */
const leaseEnd = (leaseMs: number) => ({
  $add: ["$$NOW", { $literal: Math.min(longestLeaseMs, Math.ceil(leaseMs)) }]
})

const keyOf = ({ consumer, eventId, topic }: Handling) => ({ _id: { consumer, topic, id: eventId }, topic })

export const dedupeCommands = (handled: Collection<DedupeDocument>, newRun: () => string): DedupeCommands => {
  const standings = handled.db.collection<Standing>(handled.collectionName)

  /** Sets what is given if nobody has the event, and answers what stands there then. */
  const take = async (
    event: Handling,
    run: string,
    taken: Readonly<Record<string, unknown>>,
    session: ClientSession | undefined
  ): Promise<Standing> => {
    const set: Document = { topic: { $literal: event.topic } }
    for (const [name, value] of Object.entries({ run: { $literal: run }, ...taken })) {
      set[name] = { $cond: [isFree, value, `$${name}`] }
    }
    const once = () =>
      standings.findOneAndUpdate(keyOf(event), [{ $set: set }], {
        upsert: true,
        returnDocument: "after",
        projection: { topic: 1, run: 1, leaseUntil: 1, doneAt: 1, now: "$$NOW" },
        ...(session && { session })
      })
    const standing = await (session?.inTransaction() === true ? once() : upsert(once))
    if (standing === null) throw new Error("an upsert has answered no document")
    return standing
  }

  const against = ({ doneAt, leaseUntil, now }: Standing) => {
    if (doneAt !== undefined) return { _tag: "Done" } as const
    const until = leaseUntil.getTime()
    return { _tag: "InProgress", until, leftMs: Math.max(1, until - now.getTime()) } as const
  }

  return {
    begin: async ({ leaseMs, ...event }, session) => {
      const run = newRun()
      const standing = await take(event, run, { leaseUntil: leaseEnd(leaseMs) }, session)
      if (standing.run !== run) return against(standing)
      return {
        _tag: "Run",
        token: { consumer: event.consumer, topic: event.topic, eventId: event.eventId, run }
      }
    },

    mark: async (event, session) => {
      const run = newRun()
      const standing = await take(event, run, { leaseUntil: "$$NOW", doneAt: "$$NOW" }, session)
      return standing.run === run ? { _tag: "Marked" } : against(standing)
    },

    extend: async ({ run, ...event }, leaseMs, session) => {
      const later = { $max: ["$leaseUntil", leaseEnd(leaseMs)] }
      const { matchedCount } = await handled.updateOne(
        { ...keyOf(event), run },
        [{ $set: { leaseUntil: { $cond: [isDone, "$leaseUntil", later] } } }],
        { ...(session && { session }) }
      )
      return matchedCount === 1
    },

    complete: async ({ run, ...event }, session) => {
      const { matchedCount } = await handled.updateOne(
        { ...keyOf(event), run },
        [{ $set: { doneAt: { $ifNull: ["$doneAt", "$$NOW"] } } }],
        { ...(session && { session }) }
      )
      return matchedCount === 1
    },

    release: async ({ run, ...event }, session) => {
      await handled.deleteOne(
        { ...keyOf(event), run, doneAt: { $exists: false } },
        { ...(session && { session }) }
      )
    },

    forget: async (olderThanMs, session) => {
      const { localTime } = await handled.db.command({ hello: 1 })
      const now = localTime instanceof Date ? localTime.getTime() : Date.now()
      const old = { doneAt: { $lt: new Date(Math.max(-8.64e15, now - olderThanMs)) } }
      let forgotten = 0
      for (;;) {
        const some = await handled
          .find(old, { projection: { topic: 1 }, limit: purgeChunk, ...(session && { session }) })
          .toArray()
        if (some.length === 0) return forgotten
        const { deletedCount } = await handled.deleteMany(
          {
            _id: { $in: some.map(({ _id }) => _id) },
            topic: { $in: [...new Set(some.map(({ topic }) => topic))] },
            ...old
          },
          { ...(session && { session }) }
        )
        forgotten += deletedCount
        if (some.length < purgeChunk) return forgotten
      }
    }
  }
}
