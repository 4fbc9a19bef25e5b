/**
 * The outbox in an SQLite file: how fast it is drained into the log, beside the statements alone that one would write by
 * hand; and how long a record takes from its COMMIT in the application to a subscriber.
 */
import { DatabaseSync } from "node:sqlite"
import { Worker } from "node:worker_threads"
import * as Settings from "../src/domain/Settings.ts"
import type { OutboxEvent } from "../src/services/OutboxStore.ts"
import { percentiles, sharedNow } from "./figures.ts"
import { add, drain } from "./outbox.ts"
import { open, startHub } from "./peers/eventHub.ts"
import { body, cpuMs, sleep } from "./Peer.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"
import { eventOf, planned, withDirectory } from "./stores.ts"

const batch = Settings.drainer.batchSize
const perSecond = 1_000

/** Two durable transactions a batch: claim it, and mark it as sent; with `log`, put it there along with the mark. */
const bare = (path: string, events: number, log: boolean): Row["figures"] => {
  const db = new DatabaseSync(path)
  db.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE outbox (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL, state TEXT NOT NULL,
      token TEXT, lease_until INTEGER) STRICT;
    CREATE INDEX outbox_by_state ON outbox (state, position);
    CREATE TABLE log (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
    BEGIN`)
  const insert = db.prepare("INSERT INTO outbox (id, body, state) VALUES (?, ?, 'pending')")
  for (let i = 0; i < events; i++) insert.run(`event-${i}`, body)
  db.exec("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")

  const claim = db.prepare(`UPDATE outbox SET state = 'claimed', token = ?, lease_until = ?
    WHERE position IN (SELECT position FROM outbox WHERE state = 'pending' ORDER BY position LIMIT ${batch})
    RETURNING id, body`)
  const append = db.prepare("INSERT INTO log (id, body) VALUES (?, ?) ON CONFLICT (id) DO NOTHING")
  const mark = db.prepare(
    "UPDATE outbox SET state = 'sent', token = NULL, lease_until = NULL WHERE id = ? AND token = ?"
  )
  const cpu = cpuMs(process.pid)
  const begin = performance.now()
  for (let token = 0; ; token++) {
    const claimed = claim.all(`${token}`, Date.now() + Settings.drainer.leaseMs)
    if (claimed.length === 0) break
    db.exec("BEGIN IMMEDIATE")
    if (log) for (const record of claimed) append.run(record["id"]!, record["body"]!)
    for (const record of claimed) mark.run(record["id"]!, `${token}`)
    db.exec("COMMIT")
  }
  const seconds = (performance.now() - begin) / 1000
  db.close()
  return { "drained/s": events / seconds, "CPU µs each": ((cpuMs(process.pid) - cpu) * 1000) / events }
}

/** An application in a thread of its own commits one record after the other; a live subscriber is here. */
const toSubscriber = async (events: number): Promise<Row["figures"]> => {
  const { broker, url } = await startHub()
  const committedAt = new Float64Array(new SharedArrayBuffer(events * 8))
  const cameAt = new Float64Array(events)
  let came = 0
  let onDone = () => {}
  const done = new Promise<void>((resolve) => (onDone = resolve))
  const subscriber = await open(url, ({ event, op }) => {
    if (op !== "EVENT") return
    cameAt[event!.payload.payload.n] = sharedNow()
    if (++came === events) onDone()
  })
  try {
    subscriber.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic: "t.a" }))
    await sleep(500)
    const path = `${broker.directory}/hub.db`
    const writer = new Worker(new URL("outboxWriter.ts", import.meta.url), {
      workerData: { path, committedAt, perSecond }
    })
    await Promise.race([
      done,
      new Promise((_resolve, reject) => writer.once("error", reject)),
      sleep(60_000 + (events / perSecond) * 1_000)
    ])
    if (came < events) throw new Error(`${came} of ${events} events came`)
    const seconds = (committedAt.at(-1)! - committedAt[0]!) / 1000
    return {
      ...percentiles(cameAt.map((at, i) => at - committedAt[i]!)),
      "committed/s": (events - 1) / seconds
    }
  } finally {
    subscriber.terminate()
    await broker.stop()
  }
}

const statements = "node:sqlite alone, claim and mark"
const withLog = "node:sqlite alone, claim, append and mark"
const hub = "event-hub, claim, append and mark"
const live = `event-hub, COMMIT to subscriber at ${perSecond} a second`

export const outboxSqlite: Scenario = {
  name: "outbox-sqlite",
  title: ({ events }) => `${events} events of 200 bytes from an outbox, in batches of ${batch}; fsync on`,
  defaults: { events: 50_000, inFlight: batch, subscribers: 1 },
  runs: ({ events }) => {
    const here = () => undefined
    const keyed = planned(events, "healthy", (i) => `key-${i}`).map(eventOf)
    const alike = keyed.map(({ id, payload, topic, ts }) => ({ id, payload, topic, ts }))
    const draining = (name: string, records: ReadonlyArray<OutboxEvent>): Run => ({
      name,
      against: [statements, withLog],
      missing: here,
      run: () =>
        withDirectory((path) => {
          add(path, records, false)
          return drain(path, events)
        })
    })
    return [
      {
        name: statements,
        against: [],
        missing: here,
        run: () => withDirectory((path) => Promise.resolve(bare(path, events, false)))
      },
      {
        name: withLog,
        against: [statements],
        missing: here,
        run: () => withDirectory((path) => Promise.resolve(bare(path, events, true)))
      },
      draining(hub, alike),
      draining(`${hub}, a key each`, keyed),
      { name: live, against: [], missing: here, run: () => toSubscriber(Math.ceil(events / 5)) },
      {
        name: "Redis, NATS, BullMQ, pg-boss, Socket.IO",
        against: [],
        missing: () => "none of them takes an event in the transaction of an application's own SQLite file",
        run: () => Promise.resolve({})
      }
    ]
  },
  wanted: () => [
    { run: hub, figure: "drained/s", of: statements, atLeast: 0.4 },
    { run: live, figure: "p99 ms", atMost: 15 },
    { run: live, figure: "committed/s", atLeast: perSecond * 0.95 }
  ]
}
