/**
 * The outbox in the hub's SQLite file, for the drainer and for programs in the hub's process.
 *
 * An application in a process of its own adds with `createOutbox` on its own connection, inside its own
 * transaction; the hub hears of it by a watch on the file.
 */
import { watch } from "node:fs"
import { basename, dirname } from "node:path"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { accept, type EventLimits } from "../../domain/Event.ts"
import { leaseExpired } from "../../domain/Outbox.ts"
import * as Settings from "../../domain/Settings.ts"
import { Ids } from "../../services/Ids.ts"
import { type OutboxClaim, OutboxStore, type Settled } from "../../services/OutboxStore.ts"
import { type ClaimRef, outboxStats, type PackedClaims } from "./outboxCommands.ts"
import { unpackRecords } from "./packedAppend.ts"
import { SqliteDatabase } from "./SqliteDatabase.ts"

/** Which record, and the token of all that were claimed together. A token that is not from here names no record. */
const tokenOf = (position: number, batch: string): string => `${position}.${batch}`

const placeOf = ({ token }: OutboxClaim): { readonly position: number; readonly batch: string } => {
  const end = token.indexOf(".")
  return { position: Number(token.slice(0, Math.max(0, end))), batch: token.slice(end + 1) }
}

const refOf = (claim: OutboxClaim): ClaimRef => {
  const { batch, position } = placeOf(claim)
  return { position, topic: claim.event.topic, key: claim.event.key, token: batch }
}

const claimsOf = (
  batch: string,
  { addedAt, attempts, positions, records }: PackedClaims
): ReadonlyArray<OutboxClaim> =>
  unpackRecords(records).map((event, i) => ({
    token: tokenOf(positions[i]!, batch),
    event,
    attempts: attempts[i]!,
    addedAt: addedAt[i]!
  }))

const indexesOf = (
  lost: ReadonlyArray<{ readonly position: number; readonly token: string }>,
  places: ReadonlyArray<ReturnType<typeof placeOf>>
): ReadonlyArray<number> => {
  if (lost.length === 0) return []
  const tokens = new Set(lost.map(({ position, token }) => tokenOf(position, token)))
  return places.flatMap(({ batch, position }, i) => (tokens.has(tokenOf(position, batch)) ? [i] : []))
}

/** Measured: claims, appends and marks of so many share enough commits to keep the writer at work; more gain little. */
const batchesAtOnce = 8

/** How many records one statement of a purge deletes, so that it does not hold up commits for long. */
const purgeChunk = 1_000

/** The least time between two looks that a busy file leads to. */
const watchPause = "2 millis"

/**
 * Something was written to the file, by whomever. Where the file system cannot be watched, the drainer's
 * interval is all there is.
 */
const fileChanges = (path: string): Stream.Stream<void> =>
  Stream.callback<void>(
    (queue) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          try {
            const log = `${basename(path)}-wal`
            const watcher = watch(dirname(path), (_event, name) => {
              if (name === log) Queue.offerUnsafe(queue, undefined)
            })
            watcher.on("error", () => watcher.close())
            return watcher
          } catch {
            return undefined
          }
        }),
        (watcher) => Effect.sync(() => watcher?.close())
      ),
    { bufferSize: 1, strategy: "sliding" }
  )

const make = Effect.fnUntraced(function* (limits: EventLimits = Settings.limits) {
  const db = yield* SqliteDatabase
  const clock = yield* Clock.Clock
  const ids = yield* Ids
  const added = yield* PubSub.sliding<void>(1)
  const now = () => clock.currentTimeMillisUnsafe()

  const settled = (claims: ReadonlyArray<OutboxClaim>, lost: ReadonlyArray<number>): Settled => ({
    marked: claims.length - lost.length,
    lost: lost.map((i) => claims[i]!)
  })

  const hasPending = db
    .read("OutboxStore.changes", (statements) => statements.get("anyPending") !== undefined)
    .pipe(Effect.orElseSucceed(() => false))

  return OutboxStore.of({
    batchesAtOnce,
    add: (event, options) =>
      Effect.gen(function* () {
        const id = event.id ?? ids.next()
        const record = yield* accept({ ...event, id, ts: event.ts ?? now() }, limits)
        yield* db.write("outbox", "add", { record, now: now(), notBefore: options?.notBefore })
        PubSub.publishUnsafe(added, undefined)
        return id
      }),

    claimBatch: (claim) =>
      Effect.suspend(() => {
        const token = ids.next()
        return Effect.map(db.write("outbox", "claimBatch", { ...claim, token, now: now() }), (claimed) =>
          claimsOf(token, claimed)
        )
      }),

    markSent: (claims) =>
      Effect.suspend(() => {
        const places = claims.map(placeOf)
        const batches = Map.groupBy(places, ({ batch }) => batch)
        const sent = Array.from(batches, ([token, some]) => ({
          token,
          positions: some.map(({ position }) => position)
        }))
        return Effect.map(db.write("outbox", "markSent", { claims: sent, now: now() }), (lost) =>
          settled(claims, indexesOf(lost, places))
        )
      }),

    fail: (failures) =>
      Effect.suspend(() =>
        Effect.map(
          db.write("outbox", "fail", {
            claims: failures.map(({ claim, error, retryInMs }) => ({ ...refOf(claim), error, retryInMs })),
            now: now()
          }),
          (lost) =>
            settled(
              failures.map((failure) => failure.claim),
              lost
            )
        )
      ),

    release: (claims, options) =>
      Effect.suspend(() => {
        const notBefore = options === undefined ? undefined : now() + options.retryInMs
        return Effect.map(db.write("outbox", "release", { claims: claims.map(refOf), notBefore }), (lost) =>
          settled(claims, lost)
        )
      }),

    requeueExpired: ({ maxAttempts }) =>
      Effect.suspend(() =>
        db.write("outbox", "requeueExpired", { maxAttempts, error: leaseExpired, now: now() })
      ),

    stats: db.read("OutboxStore.stats", outboxStats),

    list: ({ after, limit, state }) =>
      db.write("outbox", "list", { state, after: after === undefined ? 0 : Number(after), limit }),

    redrive: (which, { dryRun = false } = {}) =>
      dryRun
        ? db.write("outbox", "countDead", { which })
        : Effect.suspend(() => db.write("outbox", "redrive", { which, now: now() })).pipe(
            Effect.tap(() => Effect.sync(() => PubSub.publishUnsafe(added, undefined)))
          ),

    purge: ({ dryRun = false, olderThanMs }) =>
      Effect.gen(function* () {
        if (dryRun) return yield* db.write("outbox", "countSent", { sentBefore: now() - olderThanMs })
        let purged = 0
        for (;;) {
          const some = yield* db.write("outbox", "purge", {
            sentBefore: now() - olderThanMs,
            limit: purgeChunk
          })
          purged += some
          if (some < purgeChunk) return purged
        }
      }),

    setPaused: (paused) =>
      Effect.tap(db.write("outbox", "setPaused", { paused }), () =>
        Effect.sync(() => PubSub.publishUnsafe(added, undefined))
      ),

    changes: Stream.merge(
      Stream.fromPubSub(added),
      fileChanges(db.path).pipe(
        Stream.filterEffect(() => hasPending),
        Stream.tap(() => Effect.sleep(watchPause))
      )
    )
  })
})

export const layer = (limits?: EventLimits): Layer.Layer<OutboxStore, never, SqliteDatabase | Ids> =>
  Layer.effect(OutboxStore, make(limits))
