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

/** Events that come before those that count, as a share of them: every system has compiled and grown what it needs. */
const warmUp = 0.25

const measure = async (
  peer: Peer<DurableSession>,
  events: number,
  inFlight: number
): Promise<Row["figures"]> => {
  const session = await peer.start()
  try {
    let onAcked = () => {}
    await session.consume(() => onAcked())
    await sleep(300)
    const run = async (events: number) => {
      const startedAt = new Array<number>(events)
      const latencies: Array<number> = []
      const allAcked = new Promise<void>((resolve) => {
        onAcked = () => {
          // Those that keep the order answer the nth event with the nth acknowledgement; queues of jobs nearly do.
          latencies.push(performance.now() - startedAt[latencies.length]!)
          if (latencies.length === events) resolve()
        }
      })
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
      const acked = performance.now() - begin
      latencies.sort((a, b) => a - b)
      return {
        "events/s": (events / acked) * 1_000,
        "published/s": (events / published) * 1_000,
        "p50 ms": quantile(latencies, 0.5),
        "p99 ms": quantile(latencies, 0.99)
      }
    }
    await run(Math.ceil(events * warmUp))
    return await run(events)
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
  defaults: { events: 100_000, inFlight: 256, subscribers: 0 },
  runs: ({ events, inFlight }) =>
    [frames, sdk, redisStreams("always"), jetStream, bullMq, pgBoss].map((peer) => ({
      name: peer.name,
      missing: peer.missing,
      // Peers that sync each event alone get less to do, so that a run ends in its time.
      run: () => measure(peer, slow.has(peer) ? Math.ceil(events / 10) : events, inFlight)
    })),
  wanted: () => {
    const redis = redisStreams("always").name
    return [
      { run: frames.name, figure: "events/s", of: redis, atLeast: 1.5 },
      { run: frames.name, figure: "p99 ms", of: redis, atMost: 2 }
    ]
  }
}
