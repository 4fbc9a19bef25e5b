/** A publisher alone with its server: one event at a time, over a real socket, until it hears that it is on disk. */
import { fsyncTimes, percentiles } from "./figures.ts"
import { bullMq } from "./peers/bullMq.ts"
import { frames, sdk } from "./peers/eventHub.ts"
import { jetStream } from "./peers/nats.ts"
import { pgBoss } from "./peers/pgBoss.ts"
import { redisStreams } from "./peers/redis.ts"
import { type DurableSession, type Peer, sleep } from "./Peer.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"

/** What comes before everything is compiled and every file has its size is not counted. */
const warmUp = 100

const measure = async (peer: Peer<DurableSession>, events: number): Promise<Row["figures"]> => {
  const session = await peer.start()
  try {
    await sleep(300)
    const times: Array<number> = []
    for (let i = -warmUp; i < events; i++) {
      const begin = performance.now()
      await session.publish()
      if (i >= 0) times.push(performance.now() - begin)
    }
    return percentiles(times)
  } finally {
    await session.close()
  }
}

const disk = "the disk: 4 KiB to the end of a file, and fsync"
const redis = redisStreams("always")
const peers = [redis, jetStream, bullMq, pgBoss]

export const publishLatency: Scenario = {
  name: "publish-latency",
  title: ({ events }) => `${events} events of 200 bytes, one at a time, until each is on disk`,
  defaults: { events: 2_000, inFlight: 1, subscribers: 0 },
  runs: ({ events }) => {
    const run = (peer: Peer<DurableSession>, against: ReadonlyArray<string>): Run => ({
      name: peer.name,
      against,
      missing: peer.missing,
      run: () => measure(peer, events)
    })
    return [
      {
        name: disk,
        against: [],
        missing: () => undefined,
        run: () => Promise.resolve(percentiles(fsyncTimes(events)))
      },
      run(frames, [disk, ...peers.map(({ name }) => name)]),
      run(sdk, [disk]),
      ...peers.map((peer) => run(peer, [disk]))
    ]
  },
  wanted: () => [{ run: frames.name, figure: "p50 ms", of: disk, atMost: 4 }]
}
