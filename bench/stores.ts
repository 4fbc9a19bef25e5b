/** SQLite stores for one run: a file in a directory that goes away, and a log that is there before anything starts. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { accept } from "../src/domain/Event.ts"
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

export const fillLog = (path: string, log: ReadonlyArray<Planned>): Promise<void> => {
  const program = Effect.gen(function* () {
    const store = yield* EventStore
    for (let i = 0; i < log.length; i += appendedAtOnce) {
      const events = log.slice(i, i + appendedAtOnce)
      yield* store.append(yield* Effect.forEach(events, (event) => accept(eventOf(event), Settings.limits)))
    }
  })
  const database = SqliteDatabase.layer({ path, writer: "inline" }).pipe(Layer.provide(RandomIds.layer))
  const store = SqliteEventStore.layer().pipe(Layer.provide(database))
  return Effect.runPromise(program.pipe(Effect.provide(store)))
}
