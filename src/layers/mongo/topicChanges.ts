/**
 * Tells what grew, so that a hub hears of what others append.
 *
 * A change stream where the server has one. Where it has none, and for a while after any error of the stream, the
 * topics are asked for what grew since the last look: often while something does, seldom while nothing happens. Both
 * are hints; whoever listens reads the log.
 */
import type { ChangeStream, Document } from "mongodb"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { Growth } from "../../services/EventStore.ts"
import { pause } from "./knownTopics.ts"
import type { MongoDatabase } from "./MongoDatabase.ts"
import { collection } from "./schema.ts"

export interface ChangesOptions {
  /** The time between two looks at the topics while something grows, in milliseconds. */
  readonly busyPollMs: number
  /** What that rises to while nothing does. */
  readonly idlePollMs: number
  /** How long the topics are asked after the change stream failed, before it is tried again. */
  readonly retryStreamMs: number
}

/** A trouble of the server or the way to it; what is missed meanwhile is found by asking. */
export const streamFailures = Metric.counter("event_hub_change_stream_failures_total", {
  description: "Change streams that failed; polling took their place for a while.",
  incremental: true
})

/** Writes become visible a little out of the order of their stamps: each look goes back so far, in milliseconds. */
const overlapMs = 1_000

/** A look is at most this part of the time, however many topics grow and however slow the server is. */
const share = 0.5

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)

/** What the stream's pipeline leaves of a change. */
const growthOf = (change: Document): ReadonlyArray<Growth> => {
  const topic = text(change["topic"])
  const head: unknown = change["head"]
  return topic !== undefined && typeof head === "number" ? [{ topic, head }] : []
}

/** The heads as they changed, and nothing else of the topics. `_id` is where the stream resumes, and must stay. */
const projection = [
  { $match: { operationType: { $in: ["insert", "update", "replace"] } } },
  {
    $project: {
      topic: "$documentKey._id",
      head: { $ifNull: ["$updateDescription.updatedFields.head", "$fullDocument.head"] }
    }
  },
  { $match: { head: { $type: "number" } } }
]

export const topicChanges = (
  database: MongoDatabase["Service"],
  options: ChangesOptions,
  /** How far a topic is known here: growth up to there is nobody else's. */
  known: (topic: string) => number
): Stream.Stream<ReadonlyArray<Growth>> =>
  Stream.callback<ReadonlyArray<Growth>>(
    (queue) =>
      Effect.gen(function* () {
        const tell = (grown: ReadonlyArray<Growth>): void => {
          const news = grown.filter(({ head, topic }) => head > known(topic))
          if (news.length > 0) Queue.offerUnsafe(queue, news)
        }

        /** What was told of those topics that the next look will find again. */
        let told = new Map<string, number>()

        /** Tells what grew since a time; answers when something grew last, and whether there was any news. */
        const look = (since: number): Effect.Effect<{ readonly since: number; readonly news: boolean }> =>
          database
            .use("EventStore.changes", (db) =>
              collection(db, "topics")
                .find(
                  { grownAt: { $gte: new Date(since - overlapMs) } },
                  { projection: { head: 1, grownAt: 1 }, batchSize: 10_000 }
                )
                .toArray()
            )
            .pipe(
              Effect.map((grown) => {
                const news = grown.filter(({ _id, head }) => head > (told.get(_id) ?? 0))
                told = new Map(grown.map(({ _id, head }) => [_id, head]))
                tell(news.map(({ _id, head }) => ({ topic: _id, head })))
                const last = grown.reduce((last, { grownAt }) => Math.max(last, grownAt.getTime()), since)
                return { since: last, news: news.length > 0 }
              }),
              // The next look goes back as far as this one did.
              Effect.catch(() => Effect.succeed({ since, news: false }))
            )

        /** Looks from a time on, until another. */
        const poll = (from: number, until: number): Effect.Effect<number> =>
          Effect.gen(function* () {
            let since = from
            let wait = options.busyPollMs
            while (database.now() < until) {
              const began = database.now()
              const looked = yield* look(since)
              since = looked.since
              wait = looked.news ? options.busyPollMs : Math.min(options.idlePollMs, wait * 1.25)
              yield* pause(Math.max(wait, (database.now() - began) * (1 / share - 1)))
            }
            return since
          })

        /** Follows the stream until it fails; answers when it was alive last. */
        const follow = (since: number): Effect.Effect<number> =>
          Effect.gen(function* () {
            let alive = since
            const failed = yield* Effect.scoped(
              Effect.gen(function* () {
                const stream = yield* Effect.acquireRelease(
                  Effect.try({
                    try: (): ChangeStream<Document, Document> =>
                      collection(database.db, "topics").watch<Document, Document>(projection, {
                        maxAwaitTimeMS: 1_000,
                        // What leaves the hub has to last: nothing is sent that no majority has.
                        readConcern: { level: "majority" }
                      }),
                    catch: (error) => error
                  }),
                  (stream) => Effect.promise(() => stream.close().catch(() => {}))
                )
                let isOpen = false
                for (;;) {
                  // The driver resumes by itself after what it knows to be passing; what it throws is the end.
                  const change = yield* Effect.tryPromise({
                    try: () => stream.tryNext(),
                    catch: (error) => error
                  })
                  if (change !== null) tell(growthOf(change))
                  // The stream begins at its first answer: what grew before that is asked for once.
                  if (!isOpen) yield* look(since)
                  isOpen = true
                  alive = database.now()
                }
              })
            ).pipe(Effect.flip)
            yield* Metric.update(streamFailures, 1)
            yield* Effect.logDebug("the change stream failed; the topics are polled", failed)
            return alive
          })

        let since = database.now()
        for (;;) {
          if (database.features.changeStreams) since = yield* follow(since)
          since = yield* poll(
            since,
            database.features.changeStreams ? database.now() + options.retryStreamMs : Infinity
          )
        }
      }),
    // Whoever listens too slowly misses hints, and memory stays flat.
    { bufferSize: 1_000, strategy: "sliding" }
  )
