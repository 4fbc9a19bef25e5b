/** The SQLite writer in a thread of its own, or in the hub's: what it gives, and what it does to the event loop. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { Effect, Layer } from "effect"
import * as GroupCommitAppender from "../src/layers/core/GroupCommitAppender.ts"
import * as RandomIds from "../src/layers/core/RandomIds.ts"
import * as SqliteDatabase from "../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteEventStore from "../src/layers/sqlite/SqliteEventStore.ts"
import { Appender } from "../src/services/Appender.ts"
import type { Row, Scenario } from "./Scenario.ts"
import { body } from "./Peer.ts"

const measure = async (
  writer: "thread" | "inline",
  events: number,
  inFlight: number
): Promise<Row["figures"]> => {
  const directory = mkdtempSync(join(tmpdir(), "event-hub-bench-"))
  const program = Effect.gen(function* () {
    const appender = yield* Appender
    const delay = monitorEventLoopDelay({ resolution: 1 })
    const latencies: Array<number> = []
    yield* Effect.sleep("200 millis")
    delay.enable()
    const begin = performance.now()
    yield* Effect.callback<void>((resume) => {
      let sent = 0
      const append = () => {
        if (sent === events) return
        const id = String(++sent)
        const at = performance.now()
        const record = {
          topic: "t.a",
          id,
          key: undefined,
          tombstone: false,
          body: `{"id":"${id}","payload":${body}}`
        }
        appender.offer(record, (outcome) => {
          if (outcome._tag !== "Appended") throw new Error(outcome._tag)
          latencies.push(performance.now() - at)
          if (latencies.length === events) resume(Effect.void)
          // Publishers are sockets: the next event comes with a turn of the event loop.
          else setImmediate(append)
        })
      }
      for (let i = 0; i < inFlight; i++) append()
    })
    const seconds = (performance.now() - begin) / 1000
    delay.disable()
    latencies.sort((a, b) => a - b)
    return {
      "events/s": events / seconds,
      "append p99 ms": latencies[Math.floor(events * 0.99)]!,
      "loop delay p50 ms": delay.percentile(50) / 1e6,
      "loop delay p99 ms": delay.percentile(99) / 1e6,
      "loop delay max ms": delay.max / 1e6
    }
  })
  const database = SqliteDatabase.layer({ path: join(directory, "hub.db"), writer })
  const store = SqliteEventStore.layer().pipe(Layer.provide(database), Layer.provide(RandomIds.layer))
  try {
    return await Effect.runPromise(
      program.pipe(Effect.provide(GroupCommitAppender.layer().pipe(Layer.provide(store))))
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
}

export const writer: Scenario = {
  name: "writer",
  title: ({ events, inFlight }) => `${events} events of 200 bytes appended to SQLite, ${inFlight} in flight`,
  defaults: { events: 100_000, inFlight: 256, subscribers: 0 },
  runs: ({ events, inFlight }) =>
    (["thread", "inline"] as const).map((kind) => ({
      name: kind === "thread" ? "a thread of its own" : "in the hub's thread",
      missing: () => undefined,
      run: () => measure(kind, events, inFlight)
    }))
}
