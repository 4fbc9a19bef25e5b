/**
 * The OutboxDrainer: claims a batch, appends it, and says what became of each record.
 *
 * A store that does not answer is nobody's fault: those claims are given back, and the attempt does not count.
 * What the log refuses although it takes others counts, waits with back-off, and is dead after the last attempt;
 * the rest of its key stays behind it. Nothing that is refused holds up others: it leaves the front of the outbox.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { type EventRecord, unsound } from "../../domain/Event.ts"
import * as Retry from "../../domain/Retry.ts"
import * as Settings from "../../domain/Settings.ts"
import { Appender, type Overloaded } from "../../services/Appender.ts"
import type { Appended } from "../../services/EventStore.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { Ids } from "../../services/Ids.ts"
import { type DrainerStatus, OutboxDrainer } from "../../services/OutboxDrainer.ts"
import { type OutboxClaim, type OutboxFailure, OutboxStore } from "../../services/OutboxStore.ts"
import { OutboxTarget, type TargetResult } from "../../services/OutboxTarget.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as metrics from "./metrics.ts"
import { appendTraced } from "./tracedEntries.ts"

/** How long the drainer waits after a store failed, before it looks again. */
const pauseAfterFailure = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/** A batch that was claimed is finished also when the drainer is told to stop, but not for longer than this. */
const finishTimeout = "3 seconds"

const purgeInterval = "1 minute"

/** How long the records of a topic that the log does not take are left alone: longer each time. */
const rest = { firstMs: 50, factor: 4, longestMs: 5_000 }

/** The most batches that go alone because there was little to claim beside others: twice as many each time. */
const mostAlone = 32

/** Batches in a row of which the log takes nothing, before the drainer waits for its interval. */
const maxFruitless = 100

/** No later attempt will change it. */
const isFinal = ({ reason }: Exclude<TargetResult, Appended>): boolean =>
  reason === "too_large" || reason === "invalid"

const make = Effect.fnUntraced(function* (settings: Settings.DrainerSettings = Settings.drainer) {
  const outbox = yield* OutboxStore
  const target = yield* OutboxTarget
  const recorder = yield* metrics.recorder
  const traces = yield* EventTraces
  const delay = recorder.histogram(metrics.outboxToStored)
  const sentCount = recorder.counter(metrics.outboxSent)
  const failedCount = recorder.counter(metrics.outboxFailed)
  const ids = yield* Ids
  const random = yield* Random.Random
  const clock = yield* Clock.Clock
  const wakeUp = yield* Queue.sliding<void>(1)
  const worker = ids.next()
  let status: DrainerStatus = { worker, sent: 0, failed: 0, lost: 0, problem: undefined }

  /** A refusal that no later attempt will change is final at once. */
  const failureOf = (claim: OutboxClaim, result: Exclude<TargetResult, Appended>): OutboxFailure => {
    const next = isFinal(result)
      ? ({ _tag: "Stop" } as const)
      : Retry.afterFailure(settings.retry, claim.attempts, random.nextDoubleUnsafe())
    const error = "message" in result ? result.message : result.reason
    return { claim, error, retryInMs: next._tag === "Retry" ? next.delayMs : undefined }
  }

  const note = (error: StoreUnavailable | Overloaded) => noteCause(Cause.fail(error))

  /** A defect is shown, and tried again, like what was expected to fail: a drainer that ends drains nothing. */
  const noteCause = (cause: Cause.Cause<StoreUnavailable | Overloaded>) =>
    Effect.suspend(() => {
      const error = Cause.squash(cause)
      const problem = error instanceof Error ? error.message : String(error)
      const isNew = status.problem !== problem
      status = { ...status, problem }
      if (!isNew) return Effect.void
      return Cause.hasDies(cause)
        ? Effect.logError("the outbox cannot be drained", cause)
        : Effect.logWarning("the outbox cannot be drained", error)
    })

  /** What was claimed is settled as long as it takes: until then nobody else may touch the records. */
  const settled = <A>(effect: Effect.Effect<A, StoreUnavailable>) =>
    effect.pipe(Effect.tapError(note), Effect.retry(pauseAfterFailure))

  /**
   * Appends events, those included that stood behind one which is too large for the log: nothing is wrong with them.
   * One is tried at first and twice as many each time, since what is too large seldom comes alone.
   */
  const append = (events: ReadonlyArray<EventRecord>) =>
    Effect.gen(function* () {
      const eventsOf = (some: ReadonlyArray<number>) => some.map((i) => events[i]!)
      const results: Array<TargetResult> = [...(yield* target.append(events))]
      const passed = new Set<string>()
      const isBehind = (i: number) => {
        const result = results[i]!
        return result._tag === "NotAppended" && result.reason === "behind_refused" && passed.has(result.topic)
      }
      let count = 1
      for (let tried: ReadonlyArray<number> = results.map((_, i) => i); ; count *= 2) {
        for (const i of tried) {
          const result = results[i]!
          if (result._tag === "Appended" || result.reason === "behind_refused") continue
          if (result.reason === "too_large") {
            passed.add(result.topic)
            count = 1
          } else passed.delete(result.topic)
        }
        tried = results.flatMap((_, i) => (isBehind(i) ? [i] : [])).slice(0, count)
        if (tried.length === 0) return results
        const more = yield* target.append(eventsOf(tried))
        tried.forEach((i, n) => (results[i] = more[n]!))
      }
    })

  /**
   * The table of an outbox is the application's, and anything may have written to it: what is no event is refused
   * here, and nothing stays behind it.
   */
  const appendSound = (events: ReadonlyArray<EventRecord>, ageOf: (i: number) => number) =>
    Effect.gen(function* () {
      const problems = events.map(unsound)
      if (problems.every((problem) => problem === undefined)) {
        return yield* appendTraced(traces, "outbox", events, append, ageOf)
      }
      const sound = problems.flatMap((problem, i) => (problem === undefined ? [i] : []))
      const some = sound.map((i) => events[i]!)
      const answers = yield* appendTraced(traces, "outbox", some, append, (n) => ageOf(sound[n]!))
      const results = problems.map((problem, i): TargetResult => {
        const { id, topic } = events[i]!
        const message = `this record holds no event: ${problem}`
        return { _tag: "NotAppended", topic, id, reason: "invalid", message }
      })
      sound.forEach((i, n) => (results[i] = answers[n]!))
      return results
    })

  /** Topics that the log does not take at the moment. */
  const resting = new Map<string, { readonly forMs: number; readonly until: number }>()

  /** How long from now on nobody has to ask for these again. */
  const restOf = (claims: ReadonlyArray<OutboxClaim>): number => {
    const now = clock.currentTimeMillisUnsafe()
    let longest = 0
    for (const topic of new Set(claims.map(({ event }) => event.topic))) {
      let known = resting.get(topic)
      if (known === undefined || known.until <= now) {
        const forMs = known === undefined ? rest.firstMs : Math.min(rest.longestMs, rest.factor * known.forMs)
        known = { forMs, until: now + forMs }
        resting.set(topic, known)
      }
      longest = Math.max(longest, known.until - now)
    }
    return longest
  }

  /** Answers how many it got done with, for now: sent or failed. */
  const deliver = (claims: ReadonlyArray<OutboxClaim>) =>
    Effect.gen(function* () {
      const now = clock.currentTimeMillisUnsafe()
      const events = claims.map(({ event }) => event)
      const ageOf = (i: number) => Math.max(0, now - claims[i]!.addedAt)
      const results = yield* appendSound(events, ageOf).pipe(
        Effect.tapError(() => settled(outbox.release(claims)))
      )
      results.forEach((result, i) => {
        if (result._tag === "Appended" && !result.duplicate) {
          delay.observe(Math.max(0, result.storedAt - claims[i]!.addedAt) / 1000)
        }
      })
      const isAtWork = results.some((result) => result._tag === "Appended")
      const sent: Array<OutboxClaim> = []
      const failed: Array<OutboxFailure> = []
      const untried: Array<OutboxClaim> = []
      /** Behind another one of their key that waits: they need no time of their own. */
      const behind: Array<OutboxClaim> = []
      const lines = new Set<string>()
      results.forEach((result, i) => {
        const claim = claims[i]!
        const { key, topic } = claim.event
        if (result._tag === "Appended") {
          sent.push(claim)
          resting.delete(topic)
        } else if (isFinal(result)) failed.push(failureOf(claim, result))
        else {
          const line = `${topic} ${key}`
          const counts = result.reason === "forbidden" || (result.reason === "unavailable" && isAtWork)
          if (counts) failed.push(failureOf(claim, result))
          else if (lines.has(line)) behind.push(claim)
          else untried.push(claim)
          if (key !== undefined) lines.add(line)
        }
      })
      const marked = sent.length > 0 ? yield* settled(outbox.markSent(sent)) : { marked: 0, lost: [] }
      if (failed.length > 0) yield* settled(outbox.fail(failed))
      if (untried.length > 0) yield* settled(outbox.release(untried, { retryInMs: restOf(untried) }))
      if (behind.length > 0) yield* settled(outbox.release(behind))
      sentCount.count += marked.marked
      failedCount.count += failed.length
      status = {
        ...status,
        sent: status.sent + marked.marked,
        lost: status.lost + marked.lost.length,
        failed: status.failed + failed.length
      }
      return sent.length + failed.length
    })

  const claim = (whileHolding: boolean) =>
    outbox.claimBatch({ limit: settings.batchSize, leaseMs: settings.leaseMs, worker, whileHolding })

  const deliveries = yield* FiberSet.make<void>()
  const drains = yield* Semaphore.make(1)
  let stopping = false

  /** Also between batches: an outbox that never runs empty must not keep what a lost worker had claimed. */
  let requeuedAt = -Infinity
  const requeue = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    if (now - requeuedAt < settings.intervalMs) return Effect.void
    requeuedAt = now
    return outbox.requeueExpired({ maxAttempts: settings.retry.maxAttempts })
  })

  /**
   * Until nothing is due, or the log takes nothing. While much is due, several batches are under way at once: up to a
   * half of them is claimed while the others are appended and marked. A claim that is not even half full says that
   * little is due; beside other batches, it may say that what is due waits for them, for being of the same keys. Then
   * some batches go alone: there would be no more beside them.
   */
  const drain = Effect.gen(function* () {
    let failure: Cause.Cause<StoreUnavailable | Overloaded> | undefined
    let fruitless = 0
    /** Claims that were asked for, and batches that were claimed. */
    let claiming = 0
    let underWay = 0
    let isMuch = false
    /** Batches that go alone from now on, and how many it will be the next time. */
    let alone = 0
    let aloneNext = 1
    const claimsAtOnce = Math.max(1, Math.floor(outbox.batchesAtOnce / 2))
    const oneIsDone = yield* Queue.sliding<void>(1)

    const settle = (claims: ReadonlyArray<OutboxClaim>) =>
      deliver(claims).pipe(
        Effect.matchCause({
          onSuccess: (done) => void (fruitless = done > 0 ? 0 : fruitless + 1),
          onFailure: (cause) => void (failure ??= cause)
        }),
        Effect.ensuring(
          Effect.sync(() => {
            underWay--
            Queue.offerUnsafe(oneIsDone, undefined)
          })
        )
      )

    /** Answers the batch, which is under way from now on. */
    const next = Effect.gen(function* () {
      yield* requeue
      const isBeside = underWay + claiming > 1
      const claims = yield* claim(isBeside)
      isMuch = claims.length >= settings.batchSize / 2
      if (isBeside) {
        alone = isMuch ? 0 : aloneNext
        aloneNext = isMuch ? 1 : Math.min(mostAlone, 2 * aloneNext)
      }
      if (claims.length > 0) underWay++
      return claims
    }).pipe(
      Effect.catchCause((cause) => {
        failure ??= cause
        return Effect.succeed([])
      }),
      Effect.ensuring(
        Effect.sync(() => {
          claiming--
          Queue.offerUnsafe(oneIsDone, undefined)
        })
      )
    )
    const nextSettled = Effect.flatMap(next, (claims) => (claims.length > 0 ? settle(claims) : Effect.void))

    while (!stopping && failure === undefined && fruitless < maxFruitless) {
      const isBusy = claiming + underWay > 0
      const isFull = claiming >= claimsAtOnce || claiming + underWay >= outbox.batchesAtOnce
      if (isBusy && (isFull || !isMuch || alone > 0)) yield* Queue.take(oneIsDone)
      else {
        claiming++
        if (isBusy) yield* FiberSet.run(deliveries, nextSettled)
        else {
          if (alone > 0) alone--
          const claims = yield* next
          if (claims.length === 0) break
          if (isMuch && outbox.batchesAtOnce > 1) yield* FiberSet.run(deliveries, settle(claims))
          else yield* settle(claims)
        }
      }
    }
    yield* FiberSet.awaitEmpty(deliveries)
    if (failure !== undefined) return yield* Effect.failCause(failure)
  }).pipe(drains.withPermits(1))

  const round = drain.pipe(
    Effect.tap(() => Effect.sync(() => (status = { ...status, problem: undefined }))),
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Effect.andThen(noteCause(cause), Effect.fail("again"))
    ),
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
      return drains.withPermits(1)(Effect.void)
    }).pipe(Effect.timeoutOption(finishTimeout), Effect.asVoid)
  )

  return OutboxDrainer.of({
    status: Effect.sync(() => status),
    wake: Effect.asVoid(Queue.offer(wakeUp, undefined))
  })
})

/** Into whatever log the target is. */
export const layerInto = (
  settings?: Settings.DrainerSettings
): Layer.Layer<OutboxDrainer, never, OutboxStore | OutboxTarget | Ids> =>
  Layer.effect(OutboxDrainer, make(settings))

const ownLog: Layer.Layer<OutboxTarget, never, Appender> = Layer.effect(
  OutboxTarget,
  Effect.map(Appender, ({ append }) => OutboxTarget.of({ append }))
)

/** Into the log of this hub. */
export const layer = (
  settings?: Settings.DrainerSettings
): Layer.Layer<OutboxDrainer, never, OutboxStore | Appender | Ids> =>
  Layer.provide(layerInto(settings), ownLog)
