/**
 * Tells that somebody may have added to an outbox: a change stream where the server has one. Where it has none, and for
 * a while after any error of the stream, the outbox is asked whether something is ready: often while there is, seldom
 * while there is not. Whoever is at work on it anyway does not have to be told.
 */
import type { Collection } from "mongodb"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { pause } from "./knownTopics.ts"
import type { OutboxDocument } from "./schema.ts"
import { streamFailures } from "./topicChanges.ts"

export interface OutboxChangesOptions {
  /** The time between two looks while something is added, in milliseconds. */
  readonly busyPollMs: number
  /** What that rises to while nothing is. */
  readonly idlePollMs: number
  /** How long the outbox is asked after the change stream failed, before it is tried again. */
  readonly retryStreamMs: number
}

export const outboxChangesDefaults: OutboxChangesOptions = {
  busyPollMs: 20,
  idlePollMs: 250,
  retryStreamMs: 5_000
}

/** New records, and nothing of them. `_id` is where the stream resumes, and must stay. */
const projection = [{ $match: { operationType: "insert" } }, { $project: { _id: 1 } }]

export const outboxChanges = (
  outbox: Collection<OutboxDocument>,
  options: OutboxChangesOptions,
  from: {
    readonly hasChangeStreams: boolean
    readonly now: () => number
    readonly hasReady: Effect.Effect<boolean>
    /** Somebody here goes on claiming until there is nothing. */
    readonly isDraining: () => boolean
  }
): Stream.Stream<void> =>
  Stream.callback<void>(
    (queue) =>
      Effect.gen(function* () {
        const tell = (): void => void Queue.offerUnsafe(queue, undefined)

        const poll = (until: number): Effect.Effect<void> =>
          Effect.gen(function* () {
            let wait = options.busyPollMs
            while (from.now() < until) {
              const isBusy = from.isDraining()
              const isReady = !isBusy && (yield* from.hasReady)
              if (isReady) tell()
              wait = isBusy || isReady ? options.busyPollMs : Math.min(options.idlePollMs, wait * 1.25)
              yield* pause(wait)
            }
          })

        const follow = Effect.gen(function* () {
          const failed = yield* Effect.scoped(
            Effect.gen(function* () {
              const stream = yield* Effect.acquireRelease(
                Effect.sync(() =>
                  outbox.watch(projection, {
                    maxAwaitTimeMS: 1_000,
                    readConcern: { level: "majority" }
                  })
                ),
                (stream) => Effect.promise(() => stream.close().catch(() => {}))
              )
              for (;;) if ((yield* Effect.tryPromise(() => stream.tryNext())) !== null) tell()
            })
          ).pipe(Effect.flip)
          yield* Metric.update(streamFailures, 1)
          yield* Effect.logDebug("the change stream failed; the outbox is polled", failed)
        })

        for (;;) {
          if (from.hasChangeStreams) yield* follow
          yield* poll(from.hasChangeStreams ? from.now() + options.retryStreamMs : Infinity)
        }
      }),
    { bufferSize: 1, strategy: "sliding" }
  )
