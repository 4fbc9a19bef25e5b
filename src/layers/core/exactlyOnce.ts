/**
 * A handler that runs once for an event, however often the event is delivered, over any DedupeStore.
 *
 * What it promises is **one run per lease**, and not one effect. A process that dies after the handler's effect
 * and before the event is marked as handled leaves a run that nobody finishes: when its lease ends, the handler
 * runs again. So make the effect idempotent, or hand `event.id` to whoever has the effect. Where the handler
 * writes to an SQLite database of yours, `createDedupe(db).exactlyOnce` (layers/sqlite) puts the mark into the
 * same transaction, and that is exactly once.
 *
 * Events are known by consumer, topic and id. Going back in the log with a group (`seek`) does not make its
 * consumer handle again what it has handled; a consumer of another name does.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import {
  checkKeep,
  checkTimes,
  type DedupeTooShort,
  type InvalidTime,
  type Redelivery
} from "../../domain/Horizon.ts"
import * as Settings from "../../domain/Settings.ts"
import { DedupeStore, type EventRef, type RunLost, type RunToken } from "../../services/DedupeStore.ts"
import { type Handled, Release } from "../../services/EventBus.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"

type Store = DedupeStore["Service"]

export interface OnceOptions extends Redelivery {
  /** Whose handling it is; usually the name of the group. Another name handles every event for itself. */
  readonly consumer: string
  /**
   * How long a run holds when its process says nothing any more, in milliseconds. It is renewed at each third
   * of it for as long as the handler runs, so it need not be longer than the handler; it is what the next run
   * waits after a crash.
   */
  readonly leaseMs?: number
  /** The longest wait until an event comes again whose run is in progress elsewhere, in milliseconds. */
  readonly delayMs?: number
}

interface Checked {
  readonly consumer: string
  readonly leaseMs: number
  readonly delayMs: number
}

/** Marking what was done is worth some patience: without the mark it is done again. */
const patience = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("500 millis")])

/** How long an answer of the store may take, in milliseconds: nothing ends before it is there. */
const answerTimeoutMs = 5_000

const bounded = <A, E>(
  operation: string,
  answer: Effect.Effect<A, E>,
  timeoutMs: number
): Effect.Effect<A, E | StoreUnavailable> =>
  Effect.timeoutOrElse(answer, {
    duration: timeoutMs,
    orElse: () =>
      Effect.fail(
        new StoreUnavailable({ operation, cause: new Error(`there was no answer for ${timeoutMs} ms`) })
      )
  })

const check = (store: Store, options: OnceOptions): Result.Result<Checked, DedupeTooShort | InvalidTime> => {
  const { consumer, delayMs = Settings.dedupe.maxDelayMs, leaseMs = Settings.dedupe.leaseMs } = options
  const times = checkTimes({ leaseMs, delayMs })
  if (Result.isFailure(times)) return Result.fail(times.failure)
  return Result.map(checkKeep(store.keepMs, options), () => ({ consumer, leaseMs, delayMs }))
}

/** Ends only when the run is lost. A store that is away is asked again while there is some of the lease left. */
const renew = (store: Store, token: RunToken, leaseMs: number): Effect.Effect<never, RunLost> =>
  bounded("DedupeStore.extend", store.extend(token, leaseMs), leaseMs / 3).pipe(
    Effect.catchTag("StoreUnavailable", () => Effect.void),
    Effect.delay(leaseMs / 3),
    Effect.forever
  )

/**
 * Runs what is left of an event to do. It answers nothing when the event was handled before; it fails with
 * `Release` when it was not tried, and with `RunLost` when another run took over, which ends this one.
 */
const once = <A, E, R>(
  store: Store,
  { consumer, delayMs, leaseMs }: Checked,
  event: EventRef,
  handle: Effect.Effect<A, E, R>
): Effect.Effect<A | undefined, E | Release | RunLost | StoreUnavailable, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const timeoutMs = Math.min(leaseMs, answerTimeoutMs)
      const run = { consumer, topic: event.topic, eventId: event.id, leaseMs }
      const begun = yield* bounded("DedupeStore.begin", store.begin(run), timeoutMs).pipe(
        Effect.mapError((cause) => new Release({ delayMs, cause }))
      )
      if (begun._tag === "Done") return undefined
      if (begun._tag === "InProgress") {
        return yield* new Release({ delayMs: Math.min(begun.leftMs, delayMs) })
      }
      const { token } = begun
      const exit = yield* Effect.exit(restore(Effect.raceFirst(handle, renew(store, token, leaseMs))))
      if (Exit.isFailure(exit)) {
        // When it cannot be given back it is free after its lease.
        yield* Effect.ignore(bounded("DedupeStore.release", store.release(token), timeoutMs))
        return yield* exit
      }
      const complete = bounded("DedupeStore.complete", store.complete(token), timeoutMs)
      yield* complete.pipe(
        Effect.catchTag("StoreUnavailable", () =>
          restore(
            Effect.retry(complete, {
              schedule: Schedule.max([patience, Schedule.during(leaseMs)]),
              while: ({ _tag }) => _tag === "StoreUnavailable"
            })
          )
        )
      )
      return exit.value
    })
  )

/**
 * Makes a handler for `EventBus.consume` that has one run per lease for each event, however often that comes.
 *
 * - An event that was handled before succeeds without a run, and so is acknowledged.
 * - One whose run is in progress elsewhere is given back by `Release`: it counts no attempt, and comes again
 *   when that run's lease is over, or after `delayMs`. So does one whose run cannot begin because the store is
 *   away.
 * - When the handler fails or is interrupted, its run is given back at once, and the failure is the event's.
 * - A run that was lost fails with `RunLost` and is not marked; its handler is interrupted.
 *
 * Fails with `DedupeTooShort` when the store forgets events that the group may still deliver.
 *
 * @example
 * ```ts
 * const handler = yield* exactlyOnce({ consumer: "mailer", handler: (event) => sendMail(event.id) })
 * yield* bus.consume({ pattern: "orders.**", group: "mailer" }, handler)
 * ```
 */
export const exactlyOnce = <E, R>(
  options: OnceOptions & { readonly handler: (event: Handled) => Effect.Effect<unknown, E, R> }
): Effect.Effect<
  (event: Handled) => Effect.Effect<void, E | Release | RunLost | StoreUnavailable, R>,
  DedupeTooShort | InvalidTime,
  DedupeStore
> =>
  Effect.gen(function* () {
    const store = yield* DedupeStore
    const checked = yield* Effect.fromResult(check(store, options))
    return (event) =>
      Effect.asVoid(
        once(
          store,
          checked,
          event,
          Effect.suspend(() => options.handler(event))
        )
      )
  })

/**
 * `exactlyOnce` for handlers that are promises, like those of `PromClient.subscribe`; `createDedupe(db).store`
 * is a store for it. The same promise: one run per lease.
 *
 * The answer is the handler's, or `undefined` for an event that was handled before. What `exactlyOnce` fails
 * with is what the promise is rejected with; the client gives an event back for `Release`. A promise cannot be
 * interrupted: when its run is lost `signal` is aborted, and what the handler does after that is done beside
 * another run.
 *
 * Throws `DedupeTooShort` at once when the store forgets events that the group may still deliver.
 *
 * @example
 * ```ts
 * const { store } = createDedupe(db)
 * const handler = exactlyOncePromise({ store, consumer: "mailer", handler: (event) => sendMail(event.id) })
 * await client.subscribe("orders.**", "mailer", handler)
 * ```
 */
export const exactlyOncePromise = <A, Event extends EventRef, Context>(
  options: OnceOptions & {
    readonly store: Store
    readonly handler: (event: Event, context: Context | undefined, signal: AbortSignal) => PromiseLike<A> | A
  }
): ((event: Event, context?: Context) => Promise<A | undefined>) => {
  const { handler, store } = options
  const checked = Result.getOrThrow(check(store, options))
  return (event, context) =>
    Effect.runPromise(
      once(
        store,
        checked,
        event,
        Effect.tryPromise({
          try: async (signal) => handler(event, context, signal),
          catch: (error) => error
        })
      )
    )
}
