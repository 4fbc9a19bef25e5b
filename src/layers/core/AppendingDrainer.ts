/**
 * The OutboxDrainer: claims a batch, appends it, and says what became of each record.
 *
 * A store that does not answer is nobody's fault: those claims are given back, and the attempt does not count.
 * What the log refuses although it takes others counts, waits with back-off, and is dead after the last attempt;
 * the rest of its key stays behind it.
 */
import { Clock, Effect, Layer, Queue, Random, Schedule, Stream } from "effect"
import * as Retry from "../../domain/Retry.ts"
import * as Settings from "../../domain/Settings.ts"
import { Appender, type Overloaded } from "../../services/Appender.ts"
import type { NotAppended } from "../../services/EventStore.ts"
import { Ids } from "../../services/Ids.ts"
import { type DrainerStatus, OutboxDrainer } from "../../services/OutboxDrainer.ts"
import { type OutboxClaim, type OutboxFailure, OutboxStore } from "../../services/OutboxStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as metrics from "./metrics.ts"

/** How long the drainer waits after a store failed, before it looks again. */
const pauseAfterFailure = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/** A batch that was claimed is finished also when the drainer is told to stop, but not for longer than this. */
const finishTimeout = "3 seconds"

const purgeInterval = "1 minute"

const make = Effect.fnUntraced(function* (settings: Settings.DrainerSettings = Settings.drainer) {
  const outbox = yield* OutboxStore
  const appender = yield* Appender
  const recorder = yield* metrics.recorder
  const ids = yield* Ids
  const random = yield* Random.Random
  const clock = yield* Clock.Clock
  const wakeUp = yield* Queue.sliding<void>(1)
  const worker = ids.next()
  let status: DrainerStatus = { worker, sent: 0, failed: 0, lost: 0, problem: undefined }

  /** A refusal that no later attempt will change is final at once. */
  const failureOf = (claim: OutboxClaim, reason: NotAppended["reason"]): OutboxFailure => {
    const next =
      reason === "too_large"
        ? ({ _tag: "Stop" } as const)
        : Retry.afterFailure(settings.retry, claim.attempts, random.nextDoubleUnsafe())
    return { claim, error: reason, retryInMs: next._tag === "Retry" ? next.delayMs : undefined }
  }

  const note = (error: StoreUnavailable | Overloaded) =>
    Effect.suspend(() => {
      const isNew = status.problem !== error.message
      status = { ...status, problem: error.message }
      return isNew ? Effect.logWarning("the outbox cannot be drained", error) : Effect.void
    })

  /** What was claimed is settled as long as it takes: until then nobody else may touch the records. */
  const settled = <A>(effect: Effect.Effect<A, StoreUnavailable>) =>
    effect.pipe(Effect.tapError(note), Effect.retry(pauseAfterFailure))

  const deliver = (claims: ReadonlyArray<OutboxClaim>) =>
    Effect.gen(function* () {
      const results = yield* appender
        .append(claims.map((claim) => claim.event))
        .pipe(Effect.tapError(() => settled(outbox.release(claims))))
      const isAtWork = results.some((result) => result._tag === "Appended")
      const sent: Array<OutboxClaim> = []
      const failed: Array<OutboxFailure> = []
      const untried: Array<OutboxClaim> = []
      results.forEach((result, i) => {
        const claim = claims[i]!
        if (result._tag === "Appended") sent.push(claim)
        else if (result.reason === "too_large" || (result.reason === "unavailable" && isAtWork)) {
          failed.push(failureOf(claim, result.reason))
        } else untried.push(claim)
      })
      const marked = sent.length > 0 ? yield* settled(outbox.markSent(sent)) : { marked: 0, lost: [] }
      if (failed.length > 0) yield* settled(outbox.fail(failed))
      if (untried.length > 0) yield* settled(outbox.release(untried))
      recorder.add(metrics.outboxSent, marked.marked)
      recorder.add(metrics.outboxFailed, failed.length)
      status = {
        ...status,
        sent: status.sent + marked.marked,
        lost: status.lost + marked.lost.length,
        failed: status.failed + failed.length
      }
      return untried.length
    })

  const claim = outbox.claimBatch({ limit: settings.batchSize, leaseMs: settings.leaseMs, worker })

  /** Set while a batch is claimed and not settled; called when it is. */
  let stopping = false
  let busy = false
  let whenIdle: (() => void) | undefined

  /** One batch. True: there may be more. */
  const batch = Effect.suspend(() => {
    busy = true
    return Effect.flatMap(claim, (claims) =>
      claims.length === 0
        ? Effect.succeed(false)
        : Effect.map(deliver(claims), (untried) => untried < claims.length)
    )
  }).pipe(
    Effect.ensuring(
      Effect.sync(() => {
        busy = false
        whenIdle?.()
      })
    )
  )

  /** Also between batches: an outbox that never runs empty must not keep what a lost worker had claimed. */
  let requeuedAt = -Infinity
  const requeue = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    if (now - requeuedAt < settings.intervalMs) return Effect.void
    requeuedAt = now
    return outbox.requeueExpired({ maxAttempts: settings.retry.maxAttempts })
  })

  /** Until nothing is due. */
  const drain = Effect.gen(function* () {
    do yield* requeue
    while (!stopping && (yield* batch))
  })

  const round = drain.pipe(
    Effect.tap(() => Effect.sync(() => (status = { ...status, problem: undefined }))),
    Effect.tapError(note),
    Effect.retry(pauseAfterFailure),
    Effect.orDie
  )

  yield* outbox.changes.pipe(
    Stream.runForEach(() => Queue.offer(wakeUp, undefined)),
    Effect.forkScoped
  )
  yield* Effect.andThen(round, Queue.take(wakeUp).pipe(Effect.timeoutOption(settings.intervalMs))).pipe(
    Effect.forever,
    Effect.forkScoped
  )
  yield* outbox.purge({ olderThanMs: settings.keepSentMs }).pipe(
    Effect.catch((error) => Effect.logWarning("sent outbox records could not be purged", error)),
    Effect.andThen(Effect.sleep(purgeInterval)),
    Effect.forever,
    Effect.forkScoped
  )

  // Added last, so it runs before the fibers above are interrupted.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      stopping = true
      if (!busy) return Effect.void
      return Effect.callback<void>((resume) => {
        whenIdle = () => resume(Effect.void)
      })
    }).pipe(Effect.timeoutOption(finishTimeout), Effect.asVoid)
  )

  return OutboxDrainer.of({
    status: Effect.sync(() => status),
    wake: Effect.asVoid(Queue.offer(wakeUp, undefined))
  })
})

export const layer = (
  settings?: Settings.DrainerSettings
): Layer.Layer<OutboxDrainer, never, OutboxStore | Appender | Ids> =>
  Layer.effect(OutboxDrainer, make(settings))
