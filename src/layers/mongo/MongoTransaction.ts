/**
 * An application's own writes and its events in one transaction of MongoDB.
 *
 * `run(effect)` hands the session to the effect, in `MongoSession`: it gives it to the driver with its own writes, and
 * `OutboxStore.add` inside takes part by itself. What passes by itself is tried again from the beginning; what may
 * have been committed is not, but asked for. An event that has no id gets the same one in every attempt.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type { ClientSession, TransactionOptions } from "mongodb"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { hasCode } from "./attempts.ts"
import { pause } from "./knownTopics.ts"
import { MongoDatabase, MongoSession, tryUse } from "./MongoDatabase.ts"
import { type AddedRecord, TransactionRun } from "./transactionRun.ts"

/** Nobody can say whether the transaction was committed: its answer was lost, and its records cannot be found. */
export class CommitUnknown extends Schema.TaggedError<CommitUnknown>()("CommitUnknown", {
  /** The events that were added. Whoever repeats all of it, gives these ids: nothing is then in the log twice. */
  events: Schema.Array(Schema.Struct({ topic: Schema.String, id: Schema.String })),
  cause: Schema.Defect()
}) {
  override get message() {
    return "it is not known whether the transaction was committed; repeat it with the same ids of events, or look for what it wrote"
  }
}

export class TransactionsUnsupported extends Schema.TaggedError<TransactionsUnsupported>()(
  "TransactionsUnsupported",
  { version: Schema.String }
) {
  override get message() {
    return `the server (version ${this.version}) has no transactions; use a replica set (one member is enough) or a sharded cluster`
  }
}

export interface Options {
  /** How long attempts that fail of something passing are begun anew, in milliseconds. */
  readonly retryForMs?: number
  /** How long a commit without an answer is sent again before its records are looked for, in milliseconds. */
  readonly retryCommitForMs?: number
  readonly transaction?: TransactionOptions
}

export const defaults = { retryForMs: 30_000, retryCommitForMs: 10_000 }

const transactionDefaults: TransactionOptions = {
  readConcern: { level: "snapshot" },
  writeConcern: { w: "majority", journal: true },
  readPreference: "primary"
}

/** What a transaction needs of a session. */
export interface Transaction {
  readonly session: ClientSession
  readonly begin: () => void
  readonly commit: () => Promise<void>
  readonly abort: () => Promise<void>
  readonly end: () => Promise<void>
}

/** How deep an error may be wrapped in others. */
const maxDepth = 10

const transient = "TransientTransactionError"
const unknownCommit = "UnknownTransactionCommitResult"

/** MaxTimeMSExpired: of a commit it says what it says of others; sending it again takes as long again. */
const maxTimeExpired = 50

/** By what it carries, as everywhere: the database of an application comes with a copy of the driver of its own. */
const isLabelled = (error: Error, label: string): boolean =>
  "errorLabels" in error && Array.isArray(error.errorLabels) && error.errorLabels.includes(label)

const hasLabel = (error: unknown, label: string): boolean => {
  let inner = error
  for (let depth = 0; depth < maxDepth && inner instanceof Error; depth++) {
    if (isLabelled(inner, label)) return true
    inner = inner.cause
  }
  return false
}

/** However the program came across it: as a failure, or as a defect. */
const isTransient = <E>(cause: Cause.Cause<E>): boolean =>
  cause.reasons.some(
    (reason) =>
      (Cause.isFailReason(reason) && hasLabel(reason.error, transient)) ||
      (Cause.isDieReason(reason) && hasLabel(reason.defect, transient))
  )

type Committed =
  | { readonly _tag: "Committed" }
  | { readonly _tag: "Transient"; readonly error: unknown }
  | { readonly _tag: "Unknown"; readonly error: unknown }

/** Longer each time, and never the same for two. */
const backOff = (tries: number): Effect.Effect<void> =>
  Effect.flatMap(Random.next, (random) => pause(random * Math.min(500, 5 * 1.5 ** tries)))

const commit = (transaction: Transaction, forMs: number): Effect.Effect<Committed, StoreUnavailable> =>
  Effect.gen(function* () {
    const until = (yield* Clock.currentTimeMillis) + forMs
    for (let tries = 0; ; tries++) {
      const failed = yield* Effect.promise(() =>
        transaction.commit().then(
          () => undefined,
          (error: unknown) => ({ error })
        )
      )
      if (failed === undefined) return { _tag: "Committed" }
      const { error } = failed
      if (!hasLabel(error, unknownCommit)) {
        if (hasLabel(error, transient)) return { _tag: "Transient", error }
        return yield* tryUse("MongoTransaction.commit", () => Promise.reject(error))
      }
      const isOver = (yield* Clock.currentTimeMillis) >= until
      if (isOver || hasCode(error, (code) => code === maxTimeExpired)) {
        return { _tag: "Unknown", error }
      }
      yield* backOff(tries)
    }
  })

/** All of them, and at least one: a transaction is there as a whole. */
const areThere = (records: ReadonlyArray<AddedRecord>): Effect.Effect<boolean> =>
  records.length === 0
    ? Effect.succeed(false)
    : Effect.tryPromise(async () => {
        for (const record of records) if (!(await record.isThere())) return false
        return true
      }).pipe(Effect.orElseSucceed(() => false))

/** `run` over whatever begins and ends transactions. */
export const runWith =
  (start: Effect.Effect<Transaction, StoreUnavailable>, options: Options = {}) =>
  <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<
    A,
    E | StoreUnavailable | CommitUnknown,
    Exclude<Exclude<R, MongoSession>, TransactionRun>
  > =>
    Effect.gen(function* () {
      const { retryCommitForMs, retryForMs } = { ...defaults, ...options }
      const until = (yield* Clock.currentTimeMillis) + retryForMs
      const drawn: Array<{ readonly id: string; readonly ts: number }> = []

      const attempt = (transaction: Transaction) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            let next = 0
            const added: Array<AddedRecord> = []
            const run = TransactionRun.of({
              draw: (make) => (drawn[next++] ??= make()),
              added: (record) => void added.push(record)
            })
            yield* Effect.sync(transaction.begin)
            const exit = yield* restore(effect).pipe(
              Effect.provideService(MongoSession, transaction.session),
              Effect.provideService(TransactionRun, run),
              Effect.exit
            )
            if (Exit.isFailure(exit)) {
              yield* Effect.promise(() => transaction.abort().catch(() => {}))
              return { exit, isPassing: isTransient(exit.cause) && !Cause.hasInterrupts(exit.cause) }
            }
            const committed = yield* commit(transaction, retryCommitForMs)
            if (committed._tag === "Committed") return { exit, isPassing: false }
            const { error } = committed
            if (committed._tag === "Transient") {
              const failure = new StoreUnavailable({ operation: "MongoTransaction.commit", cause: error })
              return { exit: Exit.fail(failure), isPassing: true }
            }
            if (yield* areThere(added)) return { exit, isPassing: false }
            const events = added.map(({ id, topic }) => ({ topic, id }))
            return { exit: Exit.fail(new CommitUnknown({ events, cause: error })), isPassing: false }
          })
        )

      return yield* Effect.acquireUseRelease(
        start,
        (transaction) =>
          Effect.gen(function* () {
            for (let tries = 0; ; tries++) {
              const { exit, isPassing } = yield* attempt(transaction)
              if (!isPassing || (yield* Clock.currentTimeMillis) >= until) return yield* exit
              yield* backOff(tries)
            }
          }),
        (transaction) => Effect.promise(() => transaction.end().catch(() => {}))
      )
    })

/**
 * Runs an effect in a transaction and commits it. It may run several times, so what it does besides must bear that.
 * A failure of its own aborts the transaction and passes through; so does an interruption. Inside of another `run`
 * it is a part of that.
 */
export const run = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<
  A,
  E | StoreUnavailable | CommitUnknown | TransactionsUnsupported,
  MongoDatabase | Exclude<Exclude<R, MongoSession>, TransactionRun>
> =>
  Effect.gen(function* () {
    const { client, features } = yield* MongoDatabase
    if (!features.transactions) return yield* new TransactionsUnsupported({ version: features.version })
    const outer = Option.all([
      yield* Effect.serviceOption(MongoSession),
      yield* Effect.serviceOption(TransactionRun)
    ])
    if (Option.isSome(outer)) {
      const [session, run] = outer.value
      return yield* effect.pipe(
        Effect.provideService(MongoSession, session),
        Effect.provideService(TransactionRun, run)
      )
    }
    const start = tryUse("MongoTransaction.run", async (): Promise<Transaction> => {
      const session = client.startSession()
      return {
        session,
        begin: () => session.startTransaction({ ...transactionDefaults, ...options.transaction }),
        commit: () => session.commitTransaction(),
        abort: () => session.abortTransaction(),
        end: () => session.endSession()
      }
    })
    return yield* runWith(start, options)(effect)
  })
