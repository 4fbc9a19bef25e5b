/**
 * What operators ask and what publishers add, by how much the store holds: `/lag`, `/cursors` and `/latest-by-key` over
 * HTTP, and a publish over WebSocket, each one at a time.
 *
 * Half of what is asked by key was written once, among the first events, the other half again and again; a group has
 * acknowledged half of the topic and has its credit of events before it.
 */
import { copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { Agent, request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { percentiles } from "./figures.ts"
import { open, startHub, token } from "./peers/eventHub.ts"
import { bodyOf, sleep } from "./Peer.ts"
import type { Row, Run, Scenario, Wanted } from "./Scenario.ts"
import { fillLog, planned, topic } from "./stores.ts"

const group = "g"
const keys = 500
const keyOf = (i: number): string => (i < keys ? `once-${i}` : `often-${i % keys}`)

let directory: string | undefined
const filled = new Map<number, Promise<string>>()

/** A file with so many events, made once; each run has a copy of it. */
const fileOf = (events: number): Promise<string> => {
  if (directory === undefined) {
    const made = mkdtempSync(join(tmpdir(), "event-hub-bench-"))
    directory = made
    process.once("exit", () => rmSync(made, { recursive: true }))
  }
  const path = join(directory, `${events}.db`)
  const file =
    filled.get(events) ??
    fillLog(path, planned(events, "event", keyOf)).then(() => {
      // What is in the write-ahead log goes to the file, so that the file is all there is.
      const db = new DatabaseSync(path)
      db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
      db.close()
      return path
    })
  filled.set(events, file)
  return file
}

const agent = new Agent({ keepAlive: true, maxSockets: 1 })

const get = (url: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}` }
    request(url, { agent, headers }, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`${url} answered ${answer.statusCode}`))
      answer.resume().once("end", () => resolve())
    })
      .once("error", reject)
      .end()
  })

const timed = async (times: number, ask: (i: number) => Promise<void>): Promise<ReadonlyArray<number>> => {
  const took: Array<number> = []
  for (let i = -Math.ceil(times / 5); i < times; i++) {
    const begin = performance.now()
    await ask(Math.abs(i))
    if (i >= 0) took.push(performance.now() - begin)
  }
  return took
}

const measure = async (events: number, times: number): Promise<Row["figures"]> => {
  const file = await fileOf(events)
  const { broker, ops, url } = await startHub((path) => Promise.resolve(copyFileSync(file, path)))
  const half = events >> 1
  const member = await open(url, () => {})
  let onOk = () => {}
  const publisher = await open(url, ({ op }) => {
    if (op !== "OK") throw new Error(`a publish was answered by ${op}`)
    onOk()
  })
  try {
    const opts = { from: { after: half }, credit: 100 }
    member.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic, group, opts }))
    await sleep(500)
    const lag = await timed(times, () => get(`${ops}/lag?topic=${topic}&group=${group}`))
    const cursors = await timed(times, () => get(`${ops}/cursors?topic=${topic}`))
    const latest = await timed(times, (i) => {
      const key = `${i % 2 === 0 ? "once" : "often"}-${(i * 7) % keys}`
      return get(`${ops}/latest-by-key?topic=${topic}&key=${key}`)
    })
    const publish = await timed(times, (i) => {
      const answered = new Promise<void>((resolve) => (onOk = resolve))
      publisher.send(
        JSON.stringify({ op: "PUBLISH", ref: i + 1, topic, opts: { key: keyOf(i) } }).replace(
          /}$/,
          `,"payload":${bodyOf(i)}}`
        )
      )
      return answered
    })
    return {
      ...percentiles(lag, "lag "),
      ...percentiles(cursors, "cursors "),
      ...percentiles(latest, "latest "),
      ...percentiles(publish, "publish ")
    }
  } finally {
    agent.destroy()
    member.terminate()
    publisher.terminate()
    await broker.stop()
  }
}

const named = (events: number): string => `event-hub (sqlite), ${events.toLocaleString("en")} events`
const sizesOf = (most: number): ReadonlyArray<number> => [Math.ceil(most / 100), Math.ceil(most / 10), most]

export const queries: Scenario = {
  name: "queries",
  title: ({ events, inFlight }) =>
    `${inFlight} questions of each kind, one at a time, up to ${events} events`,
  defaults: { events: 1_000_000, inFlight: 2_000, subscribers: 0 },
  runs: ({ events, inFlight }) => [
    ...sizesOf(events).map((size, i): Run => ({
      name: named(size),
      against: i === 0 ? [] : [named(sizesOf(events)[0]!)],
      missing: () => undefined,
      run: () => measure(size, inFlight)
    })),
    {
      name: "Redis, NATS, BullMQ, pg-boss, Socket.IO",
      against: [],
      missing: () =>
        "none of them answers these questions about a log over HTTP; durable and publish-latency have what they share",
      run: () => Promise.resolve({})
    }
  ],
  wanted: ({ events }) => {
    const [least, , most] = sizesOf(events).map(named)
    return ["lag", "cursors", "latest"]
      .flatMap((kind): ReadonlyArray<Wanted> => [
        { run: most!, figure: `${kind} p99 ms`, atMost: 5 },
        { run: most!, figure: `${kind} p50 ms`, of: least!, atMost: 1.3 }
      ])
      .concat({ run: most!, figure: "publish p50 ms", of: least!, atMost: 1.3 })
  }
}
