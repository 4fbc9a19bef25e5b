/**
 * The ways of an outbox record between its states, as update pipelines: domain/Outbox in the server's words.
 *
 * The server evaluates what stands in a pipeline, so what came from users is only ever inside `$literal`. Times are
 * `$$NOW`, the server's own: clocks of hubs and applications decide nothing.
 */
import type { Document } from "mongodb"
import type { EventRecord } from "../../domain/Event.ts"

type Pipeline = Array<Document>

const literal = (value: unknown): Document => ({ $literal: value })

const inMillis = (millis: unknown): Document => ({ $add: ["$$NOW", millis] })

const gone = "$$REMOVE"

/** No longer anybody's. */
const free = { token: gone, worker: gone, leaseUntil: gone }

/** No longer behind another one, nor before its time. */
const ready = { state: literal("pending"), dueAt: gone, blockedOn: gone, recheckMs: gone }

const notCounted = { attempts: { $subtract: ["$attempts", 1] } }

/** Sorts as text like the time it stands for. */
const timeAsText: Document = { $dateToString: { date: "$$NOW", format: "%Y%m%dT%H%M%S.%LZ" } }

/**
 * For an upsert by (topic, id). A record that is there stays as it is; that is no error, which would end a transaction.
 * The stamp tells apart and orders what one process adds in one millisecond of the server.
 */
export const added = (record: EventRecord, stamp: string, notBefore: number | undefined): Pipeline => {
  const place = { $concat: [timeAsText, literal(`-${stamp}`)] }
  const at = notBefore === undefined ? undefined : literal(new Date(notBefore))
  const waits = at === undefined ? false : { $gt: [at, "$$NOW"] }
  const fields = {
    _id: place,
    topic: literal(record.topic),
    id: literal(record.id),
    ...(record.key === undefined ? {} : { key: literal(record.key), inLine: literal(true) }),
    ...(record.tombstone ? { tombstone: literal(true) } : {}),
    body: literal(record.body),
    addedAt: "$$NOW",
    order: place,
    state: { $cond: [waits, "waiting", "pending"] },
    ...(at === undefined ? {} : { dueAt: { $cond: [waits, at, gone] } }),
    attempts: literal(0)
  }
  return [{ $replaceWith: { $cond: [{ $eq: [{ $type: "$state" }, "missing"] }, fields, "$$ROOT"] } }]
}

export const claimed = (claim: {
  readonly token: string
  readonly worker: string
  readonly leaseMs: number
}): Pipeline => [
  {
    $set: {
      state: literal("claimed"),
      token: literal(claim.token),
      worker: literal(claim.worker),
      leaseUntil: inMillis(claim.leaseMs),
      attempts: { $add: ["$attempts", 1] }
    }
  }
]

export const sent = (call: string): Pipeline => [
  {
    $set: { ...free, state: literal("sent"), sentAt: "$$NOW", inLine: gone, settledBy: literal(call) }
  }
]

export const failed = (call: string, error: string, retryInMs: number | undefined): Pipeline => [
  {
    $set: {
      ...free,
      ...(retryInMs === undefined
        ? { state: literal("dead"), deadAt: "$$NOW", inLine: gone }
        : waiting(retryInMs)),
      lastError: literal(error),
      settledBy: literal(call)
    }
  }
]

export const released = (call: string, retryInMs: number | undefined): Pipeline => [
  { $set: { ...free, ...notCounted, ...waiting(retryInMs ?? 0), settledBy: literal(call) } }
]

const waiting = (millis: number): Document =>
  millis <= 0 ? ready : { state: literal("waiting"), dueAt: inMillis(millis) }

export interface Block {
  /** The id of the record of the same topic that it is behind. */
  readonly on: string
  /** When to look again, should nobody say that it may go on: longer each time in between. */
  readonly recheck: { readonly firstMs: number; readonly longestMs: number }
}

const blocked = ({ on, recheck: { firstMs, longestMs } }: Block): Pipeline => [
  {
    $set: {
      state: literal("blocked"),
      blockedOn: literal(on),
      recheckMs: {
        $min: [longestMs, { $max: [firstMs, { $multiply: [2, { $ifNull: ["$recheckMs", 0] }] }] }]
      }
    }
  },
  { $set: { dueAt: inMillis("$recheckMs") } }
]

/** One that is ready leaves the line before anybody claims it. */
export const readyBlocked = blocked

/** A claim is given back, since an earlier record of the key is not done. */
export const claimBlocked = (block: Block): Pipeline => [
  { $set: { ...free, ...notCounted } },
  ...blocked(block)
]

export const unblocked: Pipeline = [{ $set: ready }]

/** Asked of those that are due by a hub's notion of the server's time; the server's own decides. */
export const woken: Pipeline = [
  {
    $set: Object.fromEntries(
      Object.entries({ state: literal("pending"), dueAt: gone, blockedOn: gone }).map(([name, value]) => [
        name,
        { $cond: [{ $lte: ["$dueAt", "$$NOW"] }, value, `$${name}`] }
      ])
    )
  }
]

/** Likewise, of claims whose lease has ended. */
export const expired = (call: string, error: string, maxAttempts: number): Pipeline => {
  const isDead = { $gte: ["$attempts", maxAttempts] }
  const changes = {
    ...free,
    state: { $cond: [isDead, "dead", "pending"] },
    deadAt: { $cond: [isDead, "$$NOW", gone] },
    inLine: { $cond: [isDead, gone, "$inLine"] },
    lastError: literal(error),
    settledBy: literal(call)
  }
  return [
    {
      $set: Object.fromEntries(
        Object.entries(changes).map(([name, value]) => [
          name,
          { $cond: [{ $lte: ["$leaseUntil", "$$NOW"] }, value, `$${name}`] }
        ])
      )
    }
  ]
}

/** The last of its line by now, with all its attempts again. */
export const redriven: Pipeline = [
  {
    $set: {
      ...ready,
      attempts: literal(0),
      deadAt: gone,
      inLine: { $cond: [{ $eq: [{ $type: "$key" }, "missing"] }, gone, true] },
      order: { $concat: [timeAsText, "-", "$_id"] }
    }
  }
]
