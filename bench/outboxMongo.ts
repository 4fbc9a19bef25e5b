/**
 * The outbox in a MongoDB (MONGO_URL): how fast it is drained into the log, whether ten times as much takes more than ten
 * times as long, and what the driver alone takes for the same steps: look for a batch, claim it by a token, read it by
 * the token, append it, mark it as sent.
 */
import { randomUUID } from "node:crypto"
import { type Collection, type Document, MongoClient } from "mongodb"
import { Effect, Layer, References, Result } from "effect"
import { acceptEvent } from "../src/domain/Event.ts"
import * as Settings from "../src/domain/Settings.ts"
import * as AppendingDrainer from "../src/layers/core/AppendingDrainer.ts"
import * as GroupCommitAppender from "../src/layers/core/GroupCommitAppender.ts"
import * as RandomIds from "../src/layers/core/RandomIds.ts"
import * as MongoDatabase from "../src/layers/mongo/MongoDatabase.ts"
import * as MongoEventStore from "../src/layers/mongo/MongoEventStore.ts"
import * as MongoOutboxStore from "../src/layers/mongo/MongoOutboxStore.ts"
import { Appender } from "../src/services/Appender.ts"
import { OutboxStore } from "../src/services/OutboxStore.ts"
import { cpuMs } from "./Peer.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"
import { eventOf, planned } from "./stores.ts"

const url = process.env["MONGO_URL"] ?? ""

const batch = Settings.drainer.batchSize
const filledAtOnce = 5_000
const keys = 1_000

export const missing = (): string | undefined =>
  url === "" ? "set MONGO_URL to the URL of a MongoDB" : undefined

/** A database of its own, gone with what uses it. */
export const withDatabase = async <A>(use: (url: string, client: MongoClient) => Promise<A>): Promise<A> => {
  const own = new URL(url)
  own.pathname = `/bench_${randomUUID().slice(0, 8)}`
  const client = new MongoClient(own.href, { writeConcern: { w: "majority", journal: true } })
  try {
    return await use(own.href, client)
  } finally {
    await client.db().dropDatabase()
    await client.close()
  }
}

/** Records as `createOutbox` adds them, many at once: how fast they are added is not measured. */
const fill = async (outbox: Collection<Document>, events: number, keyed: boolean): Promise<void> => {
  const records = planned(events, "event", (i) => `key-${i % keys}`).map((event) => {
    const { key, ...rest } = eventOf(event)
    return Result.getOrThrow(acceptEvent({ ...rest, ...(keyed ? { key } : {}) }, Settings.limits))
  })
  const addedAt = new Date()
  for (let from = 0; from < records.length; from += filledAtOnce) {
    await outbox.insertMany(
      records.slice(from, from + filledAtOnce).map(({ body, id, key, topic }, i) => {
        const place = `00000000T000000.000Z-${String(from + i).padStart(10, "0")}`
        return {
          _id: place as never,
          topic,
          id,
          ...(keyed ? { key: key!, inLine: true } : {}),
          body,
          addedAt,
          order: place,
          state: "pending",
          attempts: 0
        }
      })
    )
  }
}

const figures = (events: number, seconds: number, cpu: number): Row["figures"] => ({
  "drained/s": events / seconds,
  "CPU µs each": (cpu * 1000) / events
})

const drain = (events: number, keyed: boolean): Promise<Row["figures"]> =>
  withDatabase((own, client) => {
    const stores = Layer.mergeAll(MongoEventStore.layer(), MongoOutboxStore.layer()).pipe(
      Layer.provideMerge(MongoDatabase.layer({ url: own })),
      Layer.provideMerge(RandomIds.layer)
    )
    const program = Effect.gen(function* () {
      // Its indexes are made with the store; then the records come.
      yield* OutboxStore
      yield* Effect.promise(() => fill(client.db().collection("outbox"), events, keyed))
      let onDone = () => {}
      let inLog = 0
      yield* Appender.use(({ onCommitted }) =>
        onCommitted((records) => {
          inLog += records.length
          if (inLog === events) onDone()
        })
      )
      const done = Effect.callback<void>((resume) => {
        onDone = () => resume(Effect.void)
      })
      const cpu = cpuMs(process.pid)
      const begin = performance.now()
      yield* Effect.raceFirst(done, Layer.launch(AppendingDrainer.layer()))
      return figures(events, (performance.now() - begin) / 1000, cpuMs(process.pid) - cpu)
    })
    const layer = Layer.provideMerge(GroupCommitAppender.layer(), stores).pipe(
      Layer.provide(Layer.succeed(References.MinimumLogLevel, "Warn"))
    )
    return Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer)))
  })

const bare = (events: number): Promise<Row["figures"]> =>
  withDatabase(async (_own, client) => {
    const db = client.db()
    const outbox = db.collection("outbox")
    const log = db.collection("events")
    await outbox.createIndexes([{ key: { topic: 1, id: 1 }, unique: true }, { key: { state: 1, _id: 1 } }])
    await log.createIndexes([{ key: { topic: 1, id: 1 }, unique: true }])
    await fill(outbox, events, false)
    const cpu = cpuMs(process.pid)
    const begin = performance.now()
    for (let seq = 0; ;) {
      const token = randomUUID()
      const found = await outbox
        .find({ state: "pending" }, { projection: { _id: 1 } })
        .sort({ _id: 1 })
        .limit(batch)
        .toArray()
      if (found.length === 0) break
      const ids = found.map(({ _id }) => _id)
      const leaseUntil = { $add: ["$$NOW", Settings.drainer.leaseMs] }
      await outbox.updateMany({ _id: { $in: ids }, state: "pending" }, [
        { $set: { state: "claimed", token, leaseUntil, attempts: { $add: ["$attempts", 1] } } }
      ])
      const claimed = await outbox
        .find({ _id: { $in: ids }, token })
        .sort({ _id: 1 })
        .toArray()
      const storedAt = Date.now()
      await log.insertMany(
        claimed.map(({ body, id, topic }) => ({
          _id: { topic, seq: ++seq } as never,
          topic,
          id,
          body,
          storedAt
        })),
        { ordered: true }
      )
      await outbox.updateMany({ _id: { $in: ids }, token }, [
        { $set: { state: "sent", sentAt: "$$NOW", token: "$$REMOVE", leaseUntil: "$$REMOVE" } }
      ])
    }
    return figures(events, (performance.now() - begin) / 1000, cpuMs(process.pid) - cpu)
  })

export const outboxMongo: Scenario = {
  name: "outbox-mongo",
  title: ({ events }) =>
    `${events} events of 200 bytes from the outbox of a MongoDB into its log, and ten times as many`,
  defaults: { events: 10_000, inFlight: batch, subscribers: 0 },
  runs: ({ events }) => {
    const run = (
      name: string,
      measure: () => Promise<Row["figures"]>,
      ...against: ReadonlyArray<string>
    ): Run => {
      return { name, against, missing, run: measure }
    }
    const alone = "the driver alone, the same steps"
    const once = `event-hub, ${events}`
    return [
      run(alone, () => bare(events)),
      run(once, () => drain(events, false), alone),
      run(`event-hub, ${events} of ${keys} keys`, () => drain(events, true), alone),
      run(`event-hub, ${events * 10}`, () => drain(events * 10, false), once)
    ]
  }
}
