/** One subscriber among many that never reads: what the others wait for their events, and what the hub keeps for it. */
import { percentiles, rssBytes } from "./figures.ts"
import { open, startHub } from "./peers/eventHub.ts"
import { sleep } from "./Peer.ts"
import type { Row, Scenario } from "./Scenario.ts"

const pauseMs = 20
const MB = 1_000_000

/** More than the hub and the sockets' buffers hold for one connection: 4 MiB of ours, and some of the system's. */
const bulk = { count: 2_000, bytes: 16_384 }

const measure = async (events: number, readers: number, isStuck: boolean): Promise<Row["figures"]> => {
  const { broker, url } = await startHub()
  const sockets: Array<Awaited<ReturnType<typeof open>>> = []
  try {
    const startedAt: Array<number> = []
    const times: Array<number> = []
    for (let i = 0; i < readers; i++) {
      const socket = await open(url, ({ event, op }) => {
        if (op === "EVENT") times.push(performance.now() - startedAt[event!.payload.payload.n]!)
      })
      socket.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic: "t.a" }))
      sockets.push(socket)
    }
    const last = await open(url, () => {})
    last.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic: "t.**" }))
    sockets.push(last)
    await sleep(500)
    if (isStuck) last.pause()
    const publisher = await open(url, ({ op }) => {
      if (op === "ERR") throw new Error("a publish was refused")
    })
    sockets.push(publisher)
    const before = rssBytes(broker.process.pid)
    const note = "x".repeat(bulk.bytes)
    const large = JSON.stringify({ op: "PUBLISH", topic: "t.bulk", payload: note })
    for (let n = 0; n < events; n++) {
      // The bulk goes out over the whole time, so that the others are looked at before, at and beyond the limit.
      const due = Math.ceil(((n + 1) * bulk.count) / events) - Math.ceil((n * bulk.count) / events)
      for (let i = 0; i < due; i++) publisher.send(large)
      startedAt.push(performance.now())
      const payload = { type: "order.created", payload: { n, note: "x".repeat(148) } }
      publisher.send(JSON.stringify({ op: "PUBLISH", topic: "t.a", payload }))
      await sleep(pauseMs)
    }
    const wanted = events * readers
    for (let i = 0; times.length < wanted; i++) {
      if (i === 3_000) throw new Error(`${times.length} of ${wanted} deliveries came`)
      await sleep(10)
    }
    return { ...percentiles(times), "RSS growth MB": (rssBytes(broker.process.pid) - before) / MB }
  } finally {
    for (const socket of sockets) socket.terminate()
    await broker.stop()
  }
}

const stuck = "one never reads"
const fine = "all read"

export const slowReader: Scenario = {
  name: "slow-reader",
  title: ({ events, subscribers }) =>
    `${events} events to ${subscribers} subscribers, and ${bulk.count} of ${bulk.bytes} bytes to one more`,
  defaults: { events: 500, inFlight: 0, subscribers: 1_000 },
  runs: ({ events, subscribers }) => [
    {
      name: stuck,
      against: [fine],
      missing: () => undefined,
      run: () => measure(events, subscribers, true)
    },
    { name: fine, missing: () => undefined, run: () => measure(events, subscribers, false) }
  ],
  wanted: () => [{ run: stuck, figure: "p99 ms", of: fine, atMost: 1.5 }]
}
