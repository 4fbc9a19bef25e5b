/** SQLite stores for one run: a file in a directory that goes away, and a log that is there before anything starts. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { accept, type NewEvent } from "../src/domain/Event.ts"
import * as Settings from "../src/domain/Settings.ts"
import * as RandomIds from "../src/layers/core/RandomIds.ts"
import * as SqliteDatabase from "../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteEventStore from "../src/layers/sqlite/SqliteEventStore.ts"
import { EventStore } from "../src/services/EventStore.ts"
import { payload } from "./Peer.ts"

export const topic = "t.a"

/** An event of 200 bytes. */
export interface Planned {
  readonly id: string
  readonly key: string
}

export const planned = (
  count: number,
  id: string,
  keyOf: (i: number) => string = (i) => `key-${i % 100}`
): ReadonlyArray<Planned> => Array.from({ length: count }, (_, i) => ({ id: `${id}-${i}`, key: keyOf(i) }))

export const eventOf = ({ id, key }: Planned) => ({ id, key, topic, payload, ts: 0 })

export const withDirectory = async <A>(use: (path: string) => Promise<A>): Promise<A> => {
  const directory = mkdtempSync(join(tmpdir(), "event-hub-bench-"))
  try {
    return await use(join(directory, "hub.db"))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const appendedAtOnce = 5_000

const fill = (path: string, batches: Iterable<ReadonlyArray<NewEvent>>): Promise<void> => {
  const program = Effect.gen(function* () {
    const store = yield* EventStore
    for (const events of batches) {
      yield* store.append(yield* Effect.forEach(events, (event) => accept(event, Settings.limits)))
    }
  })
  const database = SqliteDatabase.layer({ path, writer: "inline" }).pipe(Layer.provide(RandomIds.layer))
  const store = SqliteEventStore.layer().pipe(Layer.provide(database))
  return Effect.runPromise(program.pipe(Effect.provide(store)))
}

export const fillLog = (path: string, log: ReadonlyArray<Planned>): Promise<void> =>
  fill(
    path,
    (function* () {
      for (let i = 0; i < log.length; i += appendedAtOnce) {
        yield log.slice(i, i + appendedAtOnce).map(eventOf)
      }
    })()
  )

/** The same number of events in each of many topics. */
export const fillTopics = (
  path: string,
  plan: { readonly events: number; readonly topics: number; readonly topicOf: (i: number) => string }
): Promise<void> =>
  fill(
    path,
    (function* () {
      const perTopic = Math.ceil(plan.events / plan.topics)
      const topicsAtOnce = Math.max(1, Math.floor(appendedAtOnce / perTopic))
      for (let t = 0; t < plan.topics; t += topicsAtOnce) {
        yield Array.from({ length: Math.min(topicsAtOnce, plan.topics - t) * perTopic }, (_, i) => ({
          ...eventOf({ id: `event-${i}`, key: `key-${i % 10}` }),
          topic: plan.topicOf(t + Math.floor(i / perTopic))
        }))
      }
    })()
  )
