/**
 * The Appender over any EventStore: one batch is with the store, the next one gathers meanwhile.
 *
 * When the store fails, everything that waits fails with it: what stands behind an event that was not stored
 * must not be stored before it is repeated.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { StoredRecord } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import { Appender, type AppendOutcome, Overloaded } from "../../services/Appender.ts"
import {
  type AppendResult,
  EventStore,
  type Growth,
  type ReturningRecord
} from "../../services/EventStore.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as metrics from "./metrics.ts"

interface Waiting {
  readonly record: ReturningRecord
  readonly done: (outcome: AppendOutcome) => void
  /** When it was handed over, in seconds of a clock that nobody sets. */
  readonly since: number
}

/** A store that failed is asked how far its topics reach as long as it takes. */
const patience = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

/** How long a stopping hub waits for events that were handed over. */
const flushTimeout = "3 seconds"

const unavailable = (cause: unknown) => new StoreUnavailable({ operation: "EventStore.append", cause })

const isUnavailable = (result: AppendResult): boolean =>
  result._tag === "NotAppended" && result.reason === "unavailable"

const storedRecords = (
  batch: ReadonlyArray<Waiting>,
  results: ReadonlyArray<AppendResult>
): ReadonlyArray<StoredRecord> => {
  const stored: Array<StoredRecord> = []
  results.forEach((result, i) => {
    if (result._tag !== "Appended" || result.duplicate) return
    const { body, id, key, tombstone, topic } = batch[i]!.record
    stored.push({ topic, id, key, tombstone, body, seq: result.seq, storedAt: result.storedAt })
  })
  return stored
}

/** How far the topics of events reach that the log held already. */
const grownBy = (results: ReadonlyArray<AppendResult>): ReadonlyArray<Growth> => {
  const heads = new Map<string, number>()
  for (const result of results) {
    if (result._tag !== "Appended" || !result.duplicate) continue
    heads.set(result.topic, Math.max(result.seq, heads.get(result.topic) ?? 0))
  }
  return Array.from(heads, ([topic, head]) => ({ topic, head }))
}

/** Listeners that stay until their scopes close. */
const makeListeners = <A>() => {
  const listeners = new Set<(value: A) => void>()
  return {
    tell: (value: A): void => {
      for (const listener of listeners) listener(value)
    },
    add: (listener: (value: A) => void): Effect.Effect<void, never, Scope.Scope> =>
      Effect.acquireRelease(
        Effect.sync(() => void listeners.add(listener)),
        () => Effect.sync(() => listeners.delete(listener))
      )
  }
}

const make = Effect.fnUntraced(function* (settings: Settings.AppenderSettings = Settings.appender) {
  const store = yield* EventStore
  const recorder = yield* metrics.recorder
  const clock = yield* Clock.Clock
  const traces = yield* EventTraces
  const seconds = metrics.turnSeconds(clock)
  const waited = recorder.histogram(metrics.appendWait)
  const committing = recorder.histogram(metrics.commitDuration)
  const committed = makeListeners<ReadonlyArray<StoredRecord>>()
  const grown = makeListeners<ReadonlyArray<Growth>>()
  let queue: Array<Waiting> = []
  let running = false
  let closed = false
  const idle = new Set<() => void>()

  const takeBatch = (): ReadonlyArray<Waiting> => {
    let bytes = 0
    let count = 0
    for (const { record } of queue) {
      if (count === settings.maxBatchEvents) break
      bytes += record.body.length
      if (count > 0 && bytes > settings.maxBatchBytes) break
      count++
    }
    const batch = queue.slice(0, count)
    queue = queue.slice(count)
    return batch
  }

  const count = (results: ReadonlyArray<AppendResult>, fresh: number): void => {
    const refused = results.filter((result) => result._tag === "NotAppended").length
    recorder.observe(metrics.batchSize, results.length)
    recorder.add(metrics.appended, fresh)
    if (refused > 0) recorder.add(metrics.notAppended, refused)
    if (results.length > fresh + refused) recorder.add(metrics.duplicates, results.length - fresh - refused)
  }

  /** Each waited until its batch was taken, and all of a batch for the store. */
  const time = (batch: ReadonlyArray<Waiting>, taken: number): void => {
    for (const { since } of batch) waited.observe(Math.max(0, taken - since))
    const took = metrics.secondsOf(clock) - taken
    committing.observe(took)
    traces?.appended(
      batch.map(({ record }) => record),
      took * 1000
    )
  }

  const failAll = (batch: ReadonlyArray<Waiting>, error: StoreUnavailable): void => {
    const behind = queue
    queue = []
    for (const { done } of [...batch, ...behind]) done(error)
  }

  /** The same for single topics: what waits behind an event that has to be appended again. */
  const takeBehind = (topics: ReadonlySet<string>): ReadonlyArray<Waiting> => {
    if (topics.size === 0) return []
    const behind = queue.filter(({ record }) => topics.has(record.topic))
    queue = queue.filter(({ record }) => !topics.has(record.topic))
    return behind
  }

  /** Topics of appends that failed and may have been stored nevertheless. */
  const unsure = new Set<string>()
  let isAsking = false

  const ask = Effect.gen(function* () {
    for (const topic of unsure) {
      unsure.delete(topic)
      const info = yield* store.head(topic).pipe(Effect.retry(patience), Effect.orDie)
      if (info !== undefined) grown.tell([{ topic, head: info.head }])
    }
  }).pipe(
    Effect.ensuring(
      Effect.sync(() => {
        isAsking = false
        doubt([])
      })
    )
  )

  const doubt = (about: ReadonlyArray<{ readonly topic: string }>): void => {
    for (const { topic } of about) unsure.add(topic)
    if (isAsking || unsure.size === 0) return
    isAsking = true
    run(ask)
  }

  const commit = Effect.gen(function* () {
    while (queue.length > 0) {
      const batch = takeBatch()
      const taken = metrics.secondsOf(clock)
      const exit = yield* store.append(batch.map((waiting) => waiting.record)).pipe(
        // Only a hub that stops does this: nobody will look at the queue again.
        Effect.onInterrupt(() =>
          Effect.sync(() => failAll(batch, unavailable(new Error("the hub stopped"))))
        ),
        Effect.exit
      )
      if (Exit.isFailure(exit)) {
        const error = Exit.findErrorOption(exit)
        if (error._tag === "None") yield* Effect.logError("append failed", exit.cause)
        recorder.add(metrics.notAppended, batch.length)
        doubt(batch.map(({ record }) => record))
        failAll(batch, error._tag === "Some" ? error.value : unavailable(exit.cause))
        continue
      }
      time(batch, taken)
      const stored = storedRecords(batch, exit.value)
      count(exit.value, stored.length)
      if (stored.length > 0) committed.tell(stored)
      const repeated = grownBy(exit.value)
      if (repeated.length > 0) grown.tell(repeated)
      const refused = exit.value.filter(isUnavailable)
      if (refused.length > 0) doubt(refused)
      const behind = takeBehind(new Set(refused.map(({ topic }) => topic)))
      batch.forEach(({ done }, i) => done(exit.value[i]!))
      for (const { done, record } of behind) {
        done({ _tag: "NotAppended", topic: record.topic, id: record.id, reason: "behind_refused" })
      }
    }
  }).pipe(
    Effect.ensuring(
      Effect.sync(() => {
        running = false
        // An event may have come between the last look at the queue and here.
        if (queue.length > 0) start()
        else for (const wake of idle) wake()
      })
    )
  )

  const run = yield* FiberSet.makeRuntime()

  /** Events that come in the same turn go together. */
  const start = (): void => {
    if (running) return
    running = true
    // oxlint-disable-next-line no-restricted-globals -- the end of this turn, and not a fiber's next one
    queueMicrotask(() => run(commit))
  }

  yield* recorder.gauge(metrics.appendQueued, () => queue.length)

  // Added after the fibers, so it runs before they are interrupted.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closed = true
      if (!running && queue.length === 0) return Effect.void
      return Effect.callback<void>((resume) => {
        const wake = () => resume(Effect.void)
        idle.add(wake)
        return Effect.sync(() => idle.delete(wake))
      })
    }).pipe(Effect.timeoutOption(flushTimeout), Effect.asVoid)
  )

  const offer = (record: ReturningRecord, done: (outcome: AppendOutcome) => void): boolean => {
    if (closed || queue.length >= settings.maxQueuedEvents) return false
    queue.push({ record, done, since: seconds() })
    start()
    return true
  }

  return Appender.of({
    offer,
    append: (records) =>
      records.length === 0
        ? Effect.succeed([])
        : Effect.callback((resume) => {
            if (closed || queue.length + records.length > settings.maxQueuedEvents) {
              return resume(Effect.fail(new Overloaded({ queued: queue.length })))
            }
            const results = new Array<AppendResult>(records.length)
            let open = records.length
            records.forEach((record, i) =>
              offer(record, (outcome) => {
                if (outcome._tag === "StoreUnavailable") return resume(Effect.fail(outcome))
                results[i] = outcome
                if (--open === 0) resume(Effect.succeed(results))
              })
            )
          }),
    restore: (topic) =>
      // What was stored is told: who interrupts this waits for both.
      store.restore(topic).pipe(
        Effect.tap(() =>
          Effect.sync(() =>
            grown.tell([{ topic: topic.topic, head: topic.firstSeq + topic.events.length - 1 }])
          )
        ),
        Effect.tapErrorTag("StoreUnavailable", () => Effect.sync(() => doubt([topic]))),
        Effect.uninterruptible
      ),
    queued: () => queue.length,
    onCommitted: committed.add,
    onGrown: grown.add
  })
})

export const layer = (settings?: Settings.AppenderSettings): Layer.Layer<Appender, never, EventStore> =>
  Layer.effect(Appender, make(settings))
