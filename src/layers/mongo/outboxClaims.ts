/**
 * How a claim is made of an outbox in MongoDB, in a number of round trips that no backlog changes.
 *
 * 1. Candidates: the oldest records that are ready, read far ahead when there are many, so that most claims take
 *    theirs from memory. The same look finds out whether the outbox is paused. 2. Those that are still ready get the
 *    token of this claim. 3. What has the token is read, and with it what else is open before it in the lines of its
 *    keys. 4. Only if there was something: what stands behind it is given back, and leaves the ready records until that
 *    is done. Of any two that hold records of a line, the one with the later record sees the earlier one: its look
 *    comes after its claim.
 *
 * Between that look and 4 the earlier record may be done, and whoever did it found nothing to let go on. So it is looked
 * at once more afterwards, which nobody waits for; and should this process end there, every blocked record has a time
 * at which it comes back by itself.
 */
import type { AnyBulkWriteOperation, Collection } from "mongodb"
import { whileBusy } from "./attempts.ts"
import type { OutboxDocument } from "./schema.ts"
import * as pipelines from "./outboxPipelines.ts"

/** While it is there, nobody claims. Its `_id` is before those of all records. */
export const pauseMark = { _id: "!paused", topic: "$outbox" }

/** What is read ahead: this many at first, and more while there are more. */
const readAhead = { least: 200, more: 1_000, most: 5_000 }

/** What was read ahead is used for so long: what became ready in between waits no longer than that. */
const readAheadMs = 1_000

/** How often a look is taken for records whose time has come, unless one of them is known to this hub. */
const wakeEveryMs = 250

/** How many records of a line come back at once, when the one that they are behind is done. */
const unblockChunk = 256

const recheckSoon = { firstMs: 2_000, longestMs: 60_000 }

/** Of those behind a record that is blocked itself: nobody can have been too early to let them go on. */
const recheckLate = { firstMs: 60_000, longestMs: 600_000 }

/** How many records one claim looks at beyond its limit, as long as all of them turn out to be blocked. */
const lookAhead = 4_000

/** Claims that find everything taken by other hubs, before one gives up. */
const maxTries = 4

type Candidate = Pick<OutboxDocument, "_id" | "topic" | "id" | "order"> & Partial<Pick<OutboxDocument, "key">>

type Place = Pick<OutboxDocument, "order" | "id">

/** What is open of a line and not part of the claim, up to the last record of the whole claim. */
interface Earlier {
  readonly _id: { readonly topic: string; readonly key: string }
  readonly first: Place
  readonly last: Place
}

/** A claim that was made here and is not settled: how many records of each line it has. */
interface Held {
  readonly worker: string
  readonly until: number
  readonly lines: Map<string, number>
}

/** A record that others are behind. */
type Head = Pick<OutboxDocument, "topic" | "id">

export interface Claim {
  readonly limit: number
  readonly leaseMs: number
  readonly worker: string
  readonly token: string
  /** The worker has other claims: what is in their lines stays where it is. */
  readonly whileHolding?: boolean | undefined
}

const nameOf = ({ id, topic }: Head): string => `${topic} ${id}`

/** A topic has no space in it. */
const lineOf = (record: { readonly topic: string; readonly key: string }): string =>
  `${record.topic} ${record.key}`

const isBefore = (a: { readonly order: string }, b: { readonly order: string }): boolean => a.order < b.order

const inOrder = <A extends { readonly order: string }>(records: ReadonlyArray<A>): ReadonlyArray<A> =>
  records.toSorted((a, b) => (isBefore(a, b) ? -1 : 1))

export const topicsOf = (records: ReadonlyArray<{ readonly topic: string }>) => ({
  $in: [...new Set(records.map(({ topic }) => topic))]
})

const idsOf = (records: ReadonlyArray<{ readonly _id: string }>) => ({ $in: records.map(({ _id }) => _id) })

/** Those with a key, by topic and key. */
const groupLines = <A extends { readonly topic: string; readonly key?: string }>(
  records: ReadonlyArray<A>
): ReadonlyMap<string, ReadonlyArray<A & { readonly key: string }>> =>
  Map.groupBy(
    records.flatMap((record) => (record.key === undefined ? [] : [{ ...record, key: record.key }])),
    lineOf
  )

/** Those that stand behind these records may be claimed again. */
export const unblock = async (
  collection: Collection<OutboxDocument>,
  done: ReadonlyArray<Head>
): Promise<void> => {
  const updates = [...Map.groupBy(done, ({ topic }) => topic)].map(([topic, heads]) => ({
    updateMany: {
      filter: { topic, state: "blocked" as const, blockedOn: { $in: heads.map(({ id }) => id) } },
      update: pipelines.unblocked
    }
  }))
  if (updates.length > 0) await whileBusy(() => collection.bulkWrite(updates))
}

export interface OutboxClaims {
  /** Only one at a time: what was read ahead is shared. */
  readonly claim: (claim: Claim) => Promise<ReadonlyArray<OutboxDocument>>
  /** These records are not held any more. */
  readonly letGo: (
    done: ReadonlyArray<{
      readonly token: string
      readonly topic: string
      readonly key: string | undefined
    }>
  ) => void
  /** A whole claim is not held any more. */
  readonly letGoAll: (token: string) => void
  /** A record waits until then, by `now`. */
  readonly expectDue: (at: number) => void
}

export const outboxClaims = (collection: Collection<OutboxDocument>, now: () => number): OutboxClaims => {
  let ahead: ReadonlyArray<Candidate> = []
  let aheadAt = -Infinity
  let aheadLimit = readAhead.least
  let wokeAt = -Infinity
  let nextDueAt = Infinity
  const held = new Map<string, Held>()

  const wake = async (): Promise<void> => {
    const at = now()
    if (at < wokeAt + wakeEveryMs && at < nextDueAt) return
    wokeAt = at
    nextDueAt = Infinity
    await whileBusy(() =>
      collection.updateMany(
        { state: { $in: ["waiting", "blocked"] }, dueAt: { $lte: new Date(at) } },
        pipelines.woken
      )
    )
  }

  const look = async (limit: number): Promise<boolean> => {
    await wake()
    const most = Math.max(aheadLimit, 2 * limit)
    const found = await collection
      .find({ state: { $in: ["paused", "pending"] } })
      .project<Candidate>({ topic: 1, id: 1, key: 1, order: 1 })
      .sort({ _id: 1 })
      .limit(most)
      .batchSize(most + 1)
      .toArray()
    if (found[0]?._id === pauseMark._id) return false
    const isFull = found.length === most
    ahead = found
    aheadAt = isFull ? now() : -Infinity
    aheadLimit = !isFull ? readAhead.least : aheadLimit < readAhead.more ? readAhead.more : readAhead.most
    return true
  }

  /** Sees to it that there are candidates. Not if the outbox is paused. */
  const prepare = async (limit: number): Promise<boolean> => {
    if (ahead.length === 0 || now() >= aheadAt + readAheadMs) return look(limit)
    return (await collection.findOne(pauseMark, { projection: { _id: 1 } })) === null
  }

  /** The next candidates; without those in lines that the worker holds, if it does: their turn is when it let go. */
  const next = ({ limit, whileHolding, worker }: Claim): ReadonlyArray<Candidate> => {
    const at = now()
    for (const [token, { until }] of held) if (until <= at) held.delete(token)
    const busy = whileHolding ? [...held.values()].filter((one) => one.worker === worker) : []
    const found: Array<Candidate> = []
    const rest: Array<Candidate> = []
    let seen = 0
    for (const candidate of ahead) {
      if (found.length === limit) break
      seen++
      const { key, topic } = candidate
      const isHeld = key !== undefined && busy.some(({ lines }) => lines.has(lineOf({ topic, key })))
      if (isHeld) rest.push(candidate)
      else found.push(candidate)
    }
    ahead = rest.concat(ahead.slice(seen))
    return found
  }

  /** Takes candidates until some are got: others may be faster, and are then left to their part of the backlog. */
  const take = async (claim: Claim): Promise<ReadonlyArray<Candidate>> => {
    for (let tries = 0; tries < maxTries && ahead.length > 0; tries++) {
      const tried = next(claim)
      if (tried.length === 0) return []
      const { matchedCount } = await whileBusy(() =>
        collection.updateMany(
          { _id: idsOf(tried), topic: topicsOf(tried), state: "pending" },
          pipelines.claimed(claim)
        )
      )
      if (matchedCount < tried.length / 2) ahead = ahead.slice(claim.limit * Math.floor(8 * Math.random()))
      if (matchedCount > 0) return tried
    }
    return []
  }

  const read = async (
    tried: ReadonlyArray<Candidate>,
    token: string
  ): Promise<{
    readonly mine: ReadonlyArray<OutboxDocument>
    readonly earlier: ReadonlyArray<Earlier>
  }> => {
    const withToken = { _id: idsOf(tried), topic: topicsOf(tried), token }
    const keyed = [...groupLines(tried).values()].flat()
    const last = inOrder(keyed).at(-1)
    if (last === undefined) return { mine: await collection.find(withToken).toArray(), earlier: [] }
    // One range for all lines: their own ends would be exact, and cost a range each.
    const before = {
      topic: topicsOf(keyed),
      key: { $in: [...new Set(keyed.map(({ key }) => key))] },
      inLine: true,
      order: { $lt: last.order }
    }
    const rows = await collection
      .aggregate<OutboxDocument | Earlier>([
        { $match: withToken },
        {
          $unionWith: {
            coll: collection.collectionName,
            pipeline: [
              { $match: { ...before, token: { $ne: token } } },
              {
                $group: {
                  _id: { topic: "$topic", key: "$key" },
                  first: { $min: { order: "$order", id: "$id" } },
                  last: { $max: { order: "$order", id: "$id" } }
                }
              }
            ]
          }
        }
      ])
      .toArray()
    const mine: Array<OutboxDocument> = []
    const earlier: Array<Earlier> = []
    for (const row of rows) {
      if ("first" in row) earlier.push(row)
      else mine.push(row)
    }
    return { mine, earlier }
  }

  /**
   * The updates by which this part of a line, and what was read ahead of the line, leaves the ready records; and the ids
   * of those that it is behind from then on.
   */
  const holdBack = (
    behind: ReadonlyArray<OutboxDocument>,
    on: string,
    token: string
  ): {
    readonly updates: ReadonlyArray<AnyBulkWriteOperation<OutboxDocument>>
    readonly fronts: ReadonlyArray<string>
  } => {
    const { key, topic } = behind[0]!
    const updates: Array<AnyBulkWriteOperation<OutboxDocument>> = [
      {
        updateMany: {
          filter: { _id: idsOf(behind), topic, token },
          update: pipelines.claimBlocked({ on, recheck: recheckSoon })
        }
      }
    ]
    // What was read ahead of this line would only be claimed to be given back. Each part of it is behind the one before.
    const end = behind.at(-1)!
    const more = inOrder(
      ahead.filter((one) => one.key === key && one.topic === topic && one.order > end.order)
    )
    if (more.length > 0) {
      const left = new Set(more)
      ahead = ahead.filter((candidate) => !left.has(candidate))
    }
    const fronts = [on]
    let before: Place = end
    for (let from = 0; from < more.length; from += unblockChunk) {
      const part = more.slice(from, from + unblockChunk)
      updates.push({
        updateMany: {
          filter: { _id: idsOf(part), topic, state: "pending" },
          update: pipelines.readyBlocked({ on: before.id, recheck: recheckLate })
        }
      })
      fronts.push(before.id)
      before = part.at(-1)!
    }
    return { updates, fronts }
  }

  /** Whoever is done with these has to let others go on. Written before anything is behind them. */
  const marks = (fronts: ReadonlyArray<Head>): ReadonlyArray<AnyBulkWriteOperation<OutboxDocument>> =>
    [...Map.groupBy(fronts, ({ topic }) => topic)].map(([topic, some]) => ({
      updateMany: {
        filter: { topic, id: { $in: some.map(({ id }) => id) }, inLine: true },
        update: { $set: { hasBehind: true } }
      }
    }))

  /** Lets those go on that were put behind records which are done by now. */
  const verify = async (heads: ReadonlyArray<Head>): Promise<void> => {
    const open = await collection
      .find({ $or: heads.map(({ id, topic }) => ({ topic, id })), topic: topicsOf(heads), inLine: true })
      .project<Head>({ _id: 0, topic: 1, id: 1 })
      .toArray()
    const names = new Set(open.map(nameOf))
    const done = heads.filter((head) => !names.has(nameOf(head)))
    if (done.length > 0) await unblock(collection, done)
  }

  /** What is got of the next candidates; none: there are none, or they are not to be had. */
  const claimNext = async (wanted: Claim): Promise<ReadonlyArray<OutboxDocument> | undefined> => {
    if (!(await prepare(wanted.limit))) return undefined
    const tried = await take(wanted)
    if (tried.length === 0) return undefined
    const { earlier, mine } = await read(tried, wanted.token)
    const others = new Map(earlier.map((one): [string, Earlier] => [lineOf(one._id), one]))
    const out = new Set<string>()
    const heads: Array<Head> = []
    const updates: Array<AnyBulkWriteOperation<OutboxDocument>> = []
    const fronts: Array<Head> = []
    for (const [name, line] of groupLines(inOrder(mine))) {
      const other = others.get(name)
      const behind = other === undefined ? [] : line.filter((record) => isBefore(other.first, record))
      if (other === undefined || behind.length === 0) continue
      for (const { _id } of behind) out.add(_id)
      // The nearest before all of them; in a line that is torn apart between two claims, the first of the other's.
      const { id } = isBefore(other.last, line[0]!) ? other.last : other.first
      const { topic } = line[0]!
      heads.push({ topic, id })
      const heldBack = holdBack(behind, id, wanted.token)
      updates.push(...heldBack.updates)
      fronts.push(...heldBack.fronts.map((front) => ({ topic, id: front })))
    }
    if (updates.length > 0) {
      // The last first: nothing is behind a record that came back before it was written.
      const lastFirst = [...marks(fronts), ...updates.toReversed()]
      await whileBusy(() => collection.bulkWrite(lastFirst))
      void verify(heads).catch(() => {})
    }
    return inOrder(mine).filter(({ _id }) => !out.has(_id))
  }

  const claim = async (wanted: Claim): Promise<ReadonlyArray<OutboxDocument>> => {
    if (wanted.limit <= 0) return []
    const until = now() + wanted.leaseMs
    for (let met = 0; met < wanted.limit + lookAhead; met += wanted.limit) {
      const found = await claimNext(wanted)
      if (found === undefined) return []
      if (found.length === 0) continue
      const lines = new Map(Array.from(groupLines(found), ([name, { length }]) => [name, length]))
      if (lines.size > 0) held.set(wanted.token, { worker: wanted.worker, until, lines })
      return found
    }
    return []
  }

  const letGo: OutboxClaims["letGo"] = (done) => {
    for (const { key, token, topic } of done) {
      const lines = held.get(token)?.lines
      if (key === undefined || lines === undefined) continue
      const name = lineOf({ topic, key })
      const left = (lines.get(name) ?? 0) - 1
      if (left > 0) lines.set(name, left)
      else lines.delete(name)
      if (lines.size === 0) held.delete(token)
    }
  }

  const expectDue = (at: number): void => {
    nextDueAt = Math.min(nextDueAt, at)
  }

  return { claim, letGo, letGoAll: (token) => void held.delete(token), expectDue }
}
