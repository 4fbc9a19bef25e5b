/**
 * The outbox in a MongoDB collection, for any number of drainers and of programs that add to it.
 *
 * In a program, `add` takes part in the surrounding `MongoTransaction`. Applications without Effect add with
 * `createOutbox`, in transactions of their own.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { accept, type EventLimits } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import { Ids } from "../../services/Ids.ts"
import { type OutboxClaim, OutboxStore, type Settled } from "../../services/OutboxStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { addToOutbox, outboxIn, prepareOutbox } from "./addToOutbox.ts"
import { MongoDatabase, MongoSession, tryUse } from "./MongoDatabase.ts"
import { outboxChanges, outboxChangesDefaults, type OutboxChangesOptions } from "./outboxChanges.ts"
import { outboxClaims } from "./outboxClaims.ts"
import { type ClaimRef, eventOf, outboxCommands } from "./outboxCommands.ts"
import { expireSent } from "./expireSent.ts"
import { TransactionRun } from "./transactionRun.ts"

export interface Options {
  /** The collection, if it is another one than `outbox`. */
  readonly collection?: string
  /**
   * Lets the server itself delete what was sent longer ago than this. Not needed where a drainer runs, which purges;
   * nothing else ever expires.
   */
  readonly keepSentMs?: number
  readonly changes?: Partial<OutboxChangesOptions>
}

/** Measured: two are faster than one by a third, and more than three gain nothing. */
const batchesAtOnce = 3

/** A drainer that claimed something asks for more within this time, if it is still there. */
const drainingMs = 1_000

/** A claim is the token of its batch, and the record. Nobody but this file looks into it. */
const tokenOf = (batch: string, record: string): string => `${batch} ${record}`

const refOf = ({ event: { id, key, topic }, token }: OutboxClaim): ClaimRef => {
  const end = token.lastIndexOf(" ")
  return { _id: token.slice(end + 1), topic, id, key, token: token.slice(0, Math.max(0, end)) }
}

const make = Effect.fnUntraced(function* (limits: EventLimits = Settings.limits, options: Options = {}) {
  const database = yield* MongoDatabase
  const ids = yield* Ids
  const outbox = outboxIn(database.db, options.collection ?? "outbox")
  const { keepSentMs } = options
  yield* tryUse("OutboxStore.open", async () => {
    await prepareOutbox(outbox)
    if (keepSentMs !== undefined) await expireSent(outbox, keepSentMs)
  })
  const claims = outboxClaims(outbox, database.now)
  const commands = outboxCommands(outbox, database.now, ids.next)
  const oneAtATime = yield* Semaphore.make(1)
  const added = yield* PubSub.sliding<void>(1)
  /** When a claim found something last, unless one has found nothing since. */
  let claimedAt = -Infinity

  const use = <A>(method: string, f: () => Promise<A>): Effect.Effect<A, StoreUnavailable> =>
    tryUse(`OutboxStore.${method}`, f)

  const told = Effect.sync(() => void PubSub.publishUnsafe(added, undefined))

  const settled = <A>(
    method: string,
    items: ReadonlyArray<A>,
    claimOf: (item: A) => OutboxClaim,
    settle: (refs: ReadonlyArray<ClaimRef>) => Promise<ReadonlySet<ClaimRef>>
  ): Effect.Effect<Settled, StoreUnavailable> =>
    Effect.suspend(() => {
      const refs = items.map((item) => refOf(claimOf(item)))
      return Effect.map(
        use(method, () => settle(refs)),
        (lost): Settled => {
          claims.letGo(refs)
          return {
            marked: items.length - lost.size,
            lost: items.flatMap((item, i) => (lost.has(refs[i]!) ? [claimOf(item)] : []))
          }
        }
      )
    })

  /** After its answer, so that a look at that time finds it due. */
  const expectDue = (retryInMs: number): void => {
    if (retryInMs > 0) claims.expectDue(database.now() + retryInMs)
  }

  return OutboxStore.of({
    batchesAtOnce,

    add: (event, { notBefore } = {}) =>
      Effect.gen(function* () {
        const session = Option.getOrUndefined(yield* Effect.serviceOption(MongoSession))
        const run = Option.getOrUndefined(yield* Effect.serviceOption(TransactionRun))
        const draw = () => ({ id: ids.next(), ts: database.now() })
        const drawn = run === undefined ? draw() : run.draw(draw)
        const id = event.id ?? drawn.id
        const ts = event.ts ?? drawn.ts
        const record = yield* accept({ ...event, id, ts }, limits)
        const { isNew, isThere } = yield* use("add", () =>
          addToOutbox(outbox, record, { notBefore, session })
        )
        if (isNew && run !== undefined) run.added({ topic: record.topic, id, isThere })
        if (notBefore !== undefined) claims.expectDue(notBefore)
        yield* told
        return id
      }),

    claimBatch: (claim) =>
      Effect.suspend(() => {
        const token = ids.next()
        let isWanted = true
        /** Not waited for: the lease ends anyway. */
        const giveBack = (): void => {
          claims.letGoAll(token)
          void commands.releaseAll(token).catch(() => {})
        }
        return use("claimBatch", async () => {
          try {
            const found = await claims.claim({ ...claim, token })
            claimedAt = found.length > 0 ? database.now() : -Infinity
            if (!isWanted && found.length > 0) giveBack()
            return found
          } catch (error) {
            giveBack()
            throw error
          }
        })
          .pipe(Effect.onInterrupt(() => Effect.sync(() => void (isWanted = false))))
          .pipe(
            Effect.map((found) =>
              found.map((record): OutboxClaim => ({
                token: tokenOf(token, record._id),
                event: eventOf(record),
                attempts: record.attempts,
                addedAt: record.addedAt.getTime()
              }))
            )
          )
      }).pipe(oneAtATime.withPermits(1)),

    markSent: (claims) => settled("markSent", claims, (claim) => claim, commands.markSent),

    fail: (failures) =>
      settled(
        "fail",
        failures,
        ({ claim }) => claim,
        (refs) =>
          commands.fail(
            refs.map((claim, i) => ({ claim, error: failures[i]!.error, retryInMs: failures[i]!.retryInMs }))
          )
      ).pipe(
        Effect.tap(() => Effect.sync(() => failures.forEach(({ retryInMs }) => expectDue(retryInMs ?? 0))))
      ),

    release: (claims, options) =>
      settled(
        "release",
        claims,
        (claim) => claim,
        (refs) => commands.release(refs, options?.retryInMs)
      ).pipe(Effect.tap(() => Effect.sync(() => expectDue(options?.retryInMs ?? 0)))),

    requeueExpired: ({ maxAttempts }) => use("requeueExpired", () => commands.requeueExpired(maxAttempts)),

    stats: use("stats", commands.stats),

    list: ({ after, limit, state }) => use("list", () => commands.list({ state, after, limit })),

    redrive: (which, { dryRun = false } = {}) =>
      dryRun
        ? use("redrive", () => commands.countDead(which))
        : Effect.tap(
            use("redrive", () => commands.redrive(which)),
            () => told
          ),

    purge: ({ dryRun = false, olderThanMs }) =>
      Effect.gen(function* () {
        if (dryRun) return yield* use("purge", () => commands.countSent(database.now() - olderThanMs))
        let purged = 0
        for (;;) {
          const some = yield* use("purge", () => commands.purge(database.now() - olderThanMs))
          if (some === 0) return purged
          purged += some
        }
      }),

    setPaused: (paused) =>
      Effect.tap(
        use("setPaused", () => commands.setPaused(paused)),
        () => told
      ),

    changes: Stream.merge(
      Stream.fromPubSub(added),
      outboxChanges(
        outbox,
        { ...outboxChangesDefaults, ...options.changes },
        {
          hasChangeStreams: database.features.changeStreams,
          now: database.now,
          hasReady: Effect.orElseSucceed(use("changes", commands.hasReady), () => false),
          isDraining: () => database.now() < claimedAt + drainingMs
        }
      )
    )
  })
})

export const layer = (
  limits?: EventLimits,
  options?: Options
): Layer.Layer<OutboxStore, StoreUnavailable, MongoDatabase | Ids> =>
  Layer.effect(OutboxStore, make(limits, options))
