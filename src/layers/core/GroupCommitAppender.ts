/**
 * The Appender over any EventStore: one batch is with the store, the next one gathers meanwhile.
 *
 * When the store fails, everything that waits fails with it: what stands behind an event that was not stored
 * must not be stored before it is repeated.
 */
import { Effect, Exit, FiberSet, Layer } from "effect"
import type { EventRecord, StoredRecord } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import { Appender, type AppendOutcome, Overloaded } from "../../services/Appender.ts"
import { type AppendResult, EventStore } from "../../services/EventStore.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as metrics from "./metrics.ts"

interface Waiting {
  readonly record: EventRecord
  readonly done: (outcome: AppendOutcome) => void
}

/** How long a stopping hub waits for events that were handed over. */
const flushTimeout = "3 seconds"

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

const make = Effect.fnUntraced(function* (settings: Settings.AppenderSettings = Settings.appender) {
  const store = yield* EventStore
  const recorder = yield* metrics.recorder
  const listeners = new Set<(records: ReadonlyArray<StoredRecord>) => void>()
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

  const failAll = (batch: ReadonlyArray<Waiting>, error: StoreUnavailable): void => {
    const behind = queue
    queue = []
    for (const { done } of [...batch, ...behind]) done(error)
  }

  const commit = Effect.gen(function* () {
    while (queue.length > 0) {
      const batch = takeBatch()
      const exit = yield* Effect.exit(store.append(batch.map((waiting) => waiting.record)))
      if (Exit.isFailure(exit)) {
        const error = Exit.findErrorOption(exit)
        if (error._tag === "None") yield* Effect.logError("append failed", exit.cause)
        failAll(
          batch,
          error._tag === "Some"
            ? error.value
            : new StoreUnavailable({ operation: "EventStore.append", cause: exit.cause })
        )
        continue
      }
      const stored = storedRecords(batch, exit.value)
      count(exit.value, stored.length)
      if (stored.length > 0) for (const listener of listeners) listener(stored)
      batch.forEach(({ done }, i) => done(exit.value[i]!))
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

  const offer = (record: EventRecord, done: (outcome: AppendOutcome) => void): boolean => {
    if (closed || queue.length >= settings.maxQueuedEvents) return false
    queue.push({ record, done })
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
    queued: () => queue.length,
    onCommitted: (listener) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          listeners.add(listener)
        }),
        () => Effect.sync(() => listeners.delete(listener))
      )
  })
})

export const layer = (settings?: Settings.AppenderSettings): Layer.Layer<Appender, never, EventStore> =>
  Layer.effect(Appender, make(settings))
