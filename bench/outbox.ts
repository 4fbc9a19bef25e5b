/** The outbox beside what the log refuses: its records are there before the drainer is, all in this process. */
import { DatabaseSync } from "node:sqlite"
import { Effect, Layer } from "effect"
import * as AppendingDrainer from "../src/layers/core/AppendingDrainer.ts"
import * as GroupCommitAppender from "../src/layers/core/GroupCommitAppender.ts"
import * as RandomIds from "../src/layers/core/RandomIds.ts"
import { createOutbox } from "../src/layers/sqlite/createOutbox.ts"
import * as SqliteDatabase from "../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteEventStore from "../src/layers/sqlite/SqliteEventStore.ts"
import * as SqliteOutboxStore from "../src/layers/sqlite/SqliteOutboxStore.ts"
import { Appender } from "../src/services/Appender.ts"
import type { AppendResult } from "../src/services/EventStore.ts"
import type { OutboxEvent } from "../src/services/OutboxStore.ts"
import { cpuMs } from "./Peer.ts"
import type { Row, Run } from "./Scenario.ts"
import { eventOf, planned, withDirectory } from "./stores.ts"

/** The part of the log with this topic does not answer. */
const down = "t.down"

/** Longer than the log takes here. */
const maxRecordLength = 1_000
const large = "x".repeat(maxRecordLength)

/** Adds records; those of the topic that is down were sent long before, if so. */
export const add = (path: string, events: ReadonlyArray<OutboxEvent>, isSent: boolean): void => {
  const db = new DatabaseSync(path)
  const outbox = createOutbox(db)
  outbox.transaction(() => events.forEach((event) => outbox.add(event)))
  if (isSent) {
    db.prepare("UPDATE outbox SET state = 'sent', done_at = ? WHERE topic = ?").run(Date.now(), down)
  }
  db.close()
}

const withOneTopicDown = Layer.effect(
  Appender,
  Effect.map(Appender, (inner) =>
    Appender.of({
      ...inner,
      append: (records) =>
        Effect.map(inner.append(records.filter(({ topic }) => topic !== down)), (stored) => {
          let next = 0
          let reason: "unavailable" | "behind_refused" = "unavailable"
          return records.map(({ id, topic }): AppendResult => {
            if (topic !== down) return stored[next++]!
            const result = { _tag: "NotAppended", topic, id, reason } as const
            reason = "behind_refused"
            return result
          })
        })
    })
  )
)

/** Until all those that are called healthy are in the log. */
export const drain = (path: string, wanted: number): Promise<Row["figures"]> => {
  const database = SqliteDatabase.layer({ path }).pipe(Layer.provideMerge(RandomIds.layer))
  const stores = Layer.mergeAll(SqliteEventStore.layer({ maxRecordLength }), SqliteOutboxStore.layer()).pipe(
    Layer.provideMerge(database)
  )
  const appender = withOneTopicDown.pipe(Layer.provide(GroupCommitAppender.layer()))
  const program = Effect.gen(function* () {
    let healthy = 0
    let onDone = () => {}
    const inLog = yield* Appender.use(({ onCommitted }) =>
      Effect.as(
        onCommitted((records) => {
          for (const { id } of records) if (id.startsWith("healthy")) healthy++
          if (healthy === wanted) onDone()
        }),
        Effect.callback<void>((resume) => {
          onDone = () => resume(Effect.void)
        })
      )
    )
    const cpu = cpuMs(process.pid)
    const begin = performance.now()
    yield* Effect.raceFirst(inLog, Layer.launch(AppendingDrainer.layer())).pipe(
      Effect.timeoutOption("60 seconds")
    )
    return {
      "drained/s": healthy / ((performance.now() - begin) / 1000),
      "CPU µs each": ((cpuMs(process.pid) - cpu) * 1000) / healthy
    }
  })
  return Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Layer.provideMerge(appender, stores))))
}

export const outboxRuns = (events: number): ReadonlyArray<Run> => {
  const log = planned(events, "healthy").map(eventOf)
  const poison = planned(Math.ceil(events / 20), "refused", (i) => `bad-${i}`).map(eventOf)
  const one = planned(events, "one", () => "one").map((event) => ({ ...eventOf(event), topic: down }))
  const among = log.flatMap((event, i) => [one[i]!, event])
  const alone = "outbox"
  const poisoned = poison.length.toLocaleString("en")
  const ofOneKey = `${one.length.toLocaleString("en")} of one key among them`
  const before = `outbox, ${ofOneKey} that were sent before`
  const run = (
    name: string,
    records: ReadonlyArray<OutboxEvent>,
    against: ReadonlyArray<string> = [],
    isSent = false
  ): Run => ({
    name,
    against,
    missing: () => undefined,
    run: () =>
      withDirectory((path) => {
        add(path, records, isSent)
        return drain(path, events)
      })
  })
  return [
    run(alone, log),
    run(
      `outbox, behind ${poisoned} too large for the log`,
      [...poison.map((event) => ({ ...event, payload: large })), ...log],
      [alone]
    ),
    run(
      `outbox, behind ${poisoned} of a topic that is down`,
      [...poison.map((event) => ({ ...event, topic: down })), ...log],
      [alone]
    ),
    run(before, among, [], true),
    run(`outbox, ${ofOneKey} whose first fails`, among, [alone, before])
  ]
}
