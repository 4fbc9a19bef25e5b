/**
 * Tells what other hubs changed of groups: a state on a topic, or the group itself.
 *
 * The documents say when they were changed and by whom; they are asked for what is new since the last look, often while
 * something is, seldom while nothing happens. A hint: whoever listens reads the state, and looks for itself at times.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { GroupChange } from "../../services/GroupStore.ts"
import { pause } from "./knownTopics.ts"
import type { MongoDatabase } from "./MongoDatabase.ts"
import { collection } from "./schema.ts"

export interface GroupChangesOptions {
  /** The time between two looks while something changes, in milliseconds. */
  readonly busyPollMs: number
  /** What that rises to while nothing does. */
  readonly idlePollMs: number
}

/** Writes become visible a little out of the order of their stamps: each look goes back so far, in milliseconds. */
const overlapMs = 1_000

/** A look is at most this part of the time, however much changes and however slow the server is. */
const share = 0.5

export const groupChanges = (
  database: MongoDatabase["Service"],
  options: GroupChangesOptions,
  /** What this hub changed is no news to it. */
  self: string
): Stream.Stream<ReadonlyArray<GroupChange>> =>
  Stream.callback<ReadonlyArray<GroupChange>>(
    (queue) =>
      Effect.gen(function* () {
        /** What was told and is found again, by when or how it was. */
        let told = new Map<string, string>()

        /** Answers when something was changed last, and whether there was any news. */
        const look = (since: number) =>
          database
            .use("GroupStore.changes", async (db) => {
              const changedAt = { $gte: new Date(since - overlapMs) }
              const [states, groups] = await Promise.all([
                collection(db, "group_states")
                  .find(
                    { changedAt, by: { $ne: self } },
                    { projection: { group: 1, topic: 1, revision: 1, changedAt: 1 } }
                  )
                  .toArray(),
                collection(db, "groups")
                  .find({ changedAt }, { projection: { changedAt: 1 } })
                  .toArray()
              ])
              return [
                ...states.map(({ changedAt, group, revision, topic }) => ({
                  name: `${group} ${topic}`,
                  mark: revision,
                  at: changedAt.getTime(),
                  change: { group, topic }
                })),
                ...groups.map(({ _id, changedAt }) => {
                  const at = changedAt?.getTime() ?? 0
                  return { name: _id, mark: String(at), at, change: { group: _id, topic: undefined } }
                })
              ]
            })
            .pipe(
              Effect.map((found) => {
                const news = found.filter(({ mark, name }) => told.get(name) !== mark)
                told = new Map(found.map(({ mark, name }) => [name, mark]))
                if (news.length > 0)
                  Queue.offerUnsafe(
                    queue,
                    news.map(({ change }) => change)
                  )
                const last = found.reduce((last, { at }) => Math.max(last, at), since)
                return { since: last, hasNews: news.length > 0 }
              }),
              // The next look goes back as far as this one did.
              Effect.catch(() => Effect.succeed({ since, hasNews: false }))
            )

        let since = database.now()
        let wait = options.busyPollMs
        for (;;) {
          const began = database.now()
          const looked = yield* look(since)
          since = looked.since
          wait = looked.hasNews ? options.busyPollMs : Math.min(options.idlePollMs, wait * 1.25)
          yield* pause(Math.max(wait, (database.now() - began) * (1 / share - 1)))
        }
      }),
    // Whoever listens too slowly misses hints, and memory stays flat.
    { bufferSize: 1_000, strategy: "sliding" }
  )
