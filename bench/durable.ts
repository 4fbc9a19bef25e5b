/** Durable work: publish, have it on disk, hand it to a consumer group, take its acknowledgement. */
import { closeSync, fsyncSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { bullMq } from "./peers/bullMq.ts"
import { frames, sdk } from "./peers/eventHub.ts"
import { jetStream } from "./peers/nats.ts"
import { pgBoss } from "./peers/pgBoss.ts"
import { redisStreams } from "./peers/redis.ts"
import { type DurableSession, type Peer, sleep } from "./Peer.ts"
import type { Row, Scenario } from "./Scenario.ts"

const quantile = (sorted: ReadonlyArray<number>, q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? NaN

const measure = async (
  peer: Peer<DurableSession>,
  events: number,
  inFlight: number
): Promise<Row["figures"]> => {
  const session = await peer.start()
  try {
    const startedAt = new Array<number>(events)
    const latencies: Array<number> = []
    let onAllAcked = () => {}
    const allAcked = new Promise<void>((resolve) => (onAllAcked = resolve))
    await session.consume(() => {
      // Those that keep the order answer the nth event with the nth acknowledgement; queues of jobs nearly do.
      latencies.push(performance.now() - startedAt[latencies.length]!)
      if (latencies.length === events) onAllAcked()
    })
    await sleep(300)
    const begin = performance.now()
    let next = 0
    const publisher = async () => {
      while (next < events) {
        startedAt[next++] = performance.now()
        await session.publish()
      }
    }
    await Promise.all(Array.from({ length: inFlight }, publisher))
    const published = performance.now() - begin
    await Promise.race([allAcked, sleep(60_000)])
    if (latencies.length < events)
      throw new Error(`${latencies.length} of ${events} events were acknowledged`)
    const seconds = (performance.now() - begin) / 1000
    latencies.sort((a, b) => a - b)
    return {
      "events/s": events / seconds,
      "published/s": (events / published) * 1000,
      "p50 ms": quantile(latencies, 0.5),
      "p99 ms": quantile(latencies, 0.99)
    }
  } finally {
    await session.close()
  }
}

/** What a write that is on disk costs here at best. */
const fsyncMs = (): number => {
  const path = join(tmpdir(), `event-hub-bench-fsync-${process.pid}`)
  const file = openSync(path, "w")
  const page = Buffer.alloc(4_096)
  const times: Array<number> = []
  for (let i = 0; i < 200; i++) {
    const begin = performance.now()
    writeSync(file, page)
    fsyncSync(file)
    times.push(performance.now() - begin)
  }
  closeSync(file)
  rmSync(path)
  return quantile(
    times.sort((a, b) => a - b),
    0.5
  )
}

const slow = new Set([jetStream, bullMq, pgBoss])

export const durable: Scenario = {
  name: "durable",
  title: ({ events, inFlight }) =>
    `publish + durable + group + ack: ${events} events of 200 bytes, ${inFlight} in flight, one connection each way; fsync p50 ${fsyncMs().toFixed(2)} ms`,
  defaults: { events: 40_000, inFlight: 256, subscribers: 0 },
  runs: ({ events, inFlight }) =>
    [frames, sdk, redisStreams("always"), jetStream, bullMq, pgBoss].map((peer) => ({
      name: peer.name,
      missing: peer.missing,
      // Peers that sync each event alone get less to do, so that a run ends in its time.
      run: () => measure(peer, slow.has(peer) ? Math.ceil(events / 4) : events, inFlight)
    }))
}
