/**
 * The outbox in memory, built from the transitions of domain/Outbox: the model of the other backends.
 *
 * "In the surrounding transaction" is any step of the same process: whoever adds and then fails has added.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { accept, type EventLimits, type EventRecord } from "../../domain/Event.ts"
import * as Outbox from "../../domain/Outbox.ts"
import * as Settings from "../../domain/Settings.ts"
import { Ids } from "../../services/Ids.ts"
import { type OutboxClaim, type OutboxEntry, OutboxStore, type Settled } from "../../services/OutboxStore.ts"

interface Row {
  readonly event: EventRecord
  readonly addedAt: number
  /** The place in the order; a redriven record gets a new one. */
  position: number
  record: Outbox.OutboxRecord
}

const isDone = (row: Row): boolean => row.record.state._tag === "Sent" || row.record.state._tag === "Dead"

/** Records of one (topic, key) go one after the other. */
const lineOf = (row: Row): string | undefined =>
  row.event.key === undefined ? undefined : `${row.event.topic} ${row.event.key}`

const rowKey = (topic: string, id: string): string => `${topic} ${id}`

export const make = Effect.fnUntraced(function* (limits: EventLimits = Settings.limits) {
  const clock = yield* Clock.Clock
  const ids = yield* Ids
  const added = yield* PubSub.sliding<void>(1)
  /** In their order. */
  const rows = new Map<string, Row>()
  let position = 0
  let paused = false

  const entryOf = (row: Row): OutboxEntry => {
    const { state } = row.record
    return {
      id: row.event.id,
      topic: row.event.topic,
      key: row.event.key,
      state: state._tag,
      attempts: row.record.attempts,
      addedAt: row.addedAt,
      notBefore: state._tag === "Pending" ? state.notBefore : undefined,
      worker: state._tag === "Claimed" ? state.worker : undefined,
      leaseUntil: state._tag === "Claimed" ? state.leaseUntil : undefined,
      lastError: row.record.lastError,
      event: row.event
    }
  }

  /** Whoever waits for this record's line may be next: it is asked again at the next claim. */
  const unblock = (line: string | undefined): void => {
    if (line === undefined) return
    for (const row of rows.values()) {
      if (lineOf(row) === line && row.record.state._tag === "Blocked") {
        row.record = Result.getOrThrow(Outbox.unblockResult(row.record))
      }
    }
  }

  const settle = <A>(
    items: ReadonlyArray<A>,
    claimOf: (item: A) => OutboxClaim,
    transition: (record: Outbox.OutboxRecord, item: A) => ReturnType<typeof Outbox.markSentResult>
  ): Settled => {
    const lost: Array<OutboxClaim> = []
    for (const item of items) {
      const claim = claimOf(item)
      const row = rows.get(rowKey(claim.event.topic, claim.event.id))
      const next = row === undefined ? undefined : transition(row.record, item)
      if (row === undefined || next === undefined || Result.isFailure(next)) {
        lost.push(claim)
        continue
      }
      row.record = next.success
      if (isDone(row)) unblock(lineOf(row))
    }
    return { marked: items.length - lost.length, lost }
  }

  const claimBatch = (claim: {
    readonly limit: number
    readonly leaseMs: number
    readonly worker: string
  }): ReadonlyArray<OutboxClaim> => {
    if (paused) return []
    const now = clock.currentTimeMillisUnsafe()
    const token = ids.next()
    const claims: Array<OutboxClaim> = []
    /** Lines with a record before this one that is not done and not part of this batch. */
    const taken = new Set<string>()
    for (const row of rows.values()) {
      if (claims.length >= claim.limit) break
      if (isDone(row)) continue
      const line = lineOf(row)
      const isTaken = line !== undefined && taken.has(line)
      if (isTaken) {
        const blocked = Outbox.blockResult(row.record)
        if (Result.isSuccess(blocked)) row.record = blocked.success
        continue
      }
      const claimed = Outbox.claimResult(row.record, {
        token,
        now,
        worker: claim.worker,
        leaseMs: claim.leaseMs
      })
      if (Result.isFailure(claimed)) {
        if (line !== undefined) taken.add(line)
        continue
      }
      row.record = claimed.success
      claims.push({ token, event: row.event, attempts: row.record.attempts, addedAt: row.addedAt })
    }
    return claims
  }

  return OutboxStore.of({
    batchesAtOnce: 1,
    add: (event, options) =>
      Effect.gen(function* () {
        const now = clock.currentTimeMillisUnsafe()
        const id = event.id ?? ids.next()
        const encoded = yield* accept({ ...event, id, ts: event.ts ?? now }, limits)
        const key = rowKey(encoded.topic, id)
        if (!rows.has(key)) {
          const record = Outbox.initial({ ...encoded, notBefore: options?.notBefore })
          rows.set(key, { event: encoded, addedAt: now, position: ++position, record })
          PubSub.publishUnsafe(added, undefined)
        }
        return id
      }),
    claimBatch: (claim) => Effect.sync(() => claimBatch(claim)),
    markSent: (claims) =>
      Effect.sync(() => {
        const now = clock.currentTimeMillisUnsafe()
        return settle(
          claims,
          (claim) => claim,
          (record, { token }) => Outbox.markSentResult(record, { token, now })
        )
      }),
    fail: (failures) =>
      Effect.sync(() => {
        const now = clock.currentTimeMillisUnsafe()
        return settle(
          failures,
          (failure) => failure.claim,
          (record, { claim, error, retryInMs }) =>
            Outbox.failResult(record, { token: claim.token, error, retryInMs, now })
        )
      }),
    release: (claims, options) =>
      Effect.sync(() => {
        const notBefore =
          options === undefined ? undefined : clock.currentTimeMillisUnsafe() + options.retryInMs
        return settle(
          claims,
          (claim) => claim,
          (record, { token }) => Outbox.releaseResult(record, { token, notBefore })
        )
      }),
    requeueExpired: ({ maxAttempts }) =>
      Effect.sync(() => {
        const now = clock.currentTimeMillisUnsafe()
        let requeued = 0
        let dead = 0
        for (const row of rows.values()) {
          const expired = Outbox.expireResult(row.record, { now, maxAttempts })
          if (Result.isFailure(expired)) continue
          row.record = expired.success
          if (isDone(row)) {
            dead++
            unblock(lineOf(row))
          } else requeued++
        }
        return { requeued, dead }
      }),
    stats: Effect.sync(() => {
      const counts = { Pending: 0, Blocked: 0, Claimed: 0, Sent: 0, Dead: 0 }
      for (const row of rows.values()) counts[row.record.state._tag]++
      const waiting = [...rows.values()].filter((row) => !isDone(row)).map((row) => row.addedAt)
      return { counts, oldestAddedAt: waiting.length === 0 ? undefined : Math.min(...waiting), paused }
    }),
    list: ({ after, limit, state }) =>
      Effect.sync(() => {
        const found = [...rows.values()].filter(
          (row) =>
            (state === undefined || row.record.state._tag === state) &&
            (after === undefined || row.position > Number(after))
        )
        const page = found.slice(0, limit)
        return {
          items: page.map(entryOf),
          next: found.length > limit ? String(page.at(-1)!.position) : undefined
        }
      }),
    redrive: (which, { dryRun = false } = {}) =>
      Effect.sync(() => {
        const chosen =
          which === "all"
            ? [...rows.values()]
            : new Set(
                which.flatMap(({ id, topic }) => {
                  const row = rows.get(rowKey(topic, id))
                  return row === undefined ? [] : [row]
                })
              )
        let redriven = 0
        for (const row of chosen) {
          const next = Outbox.redriveResult(row.record)
          if (Result.isFailure(next)) continue
          if (dryRun) {
            redriven++
            continue
          }
          row.record = next.success
          row.position = ++position
          const key = rowKey(row.event.topic, row.event.id)
          rows.delete(key)
          rows.set(key, row)
          redriven++
        }
        if (redriven > 0 && !dryRun) PubSub.publishUnsafe(added, undefined)
        return redriven
      }),
    purge: ({ dryRun = false, olderThanMs }) =>
      Effect.sync(() => {
        const before = clock.currentTimeMillisUnsafe() - olderThanMs
        let purged = 0
        for (const [key, { record }] of rows) {
          if (record.state._tag !== "Sent" || record.state.at >= before) continue
          purged++
          if (!dryRun) rows.delete(key)
        }
        return purged
      }),
    setPaused: (value) =>
      Effect.sync(() => {
        paused = value
        if (!value) PubSub.publishUnsafe(added, undefined)
      }),
    changes: Stream.fromPubSub(added)
  })
})

export const layer = (limits?: EventLimits): Layer.Layer<OutboxStore, never, Ids> =>
  Layer.effect(OutboxStore, make(limits))
