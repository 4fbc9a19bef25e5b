/**
 * Fan-out: one publisher, many subscribers, each on a WebSocket of its own. Each parses and counts what it gets, and the
 * first of them checks the order.
 */
import { fanout as eventHub } from "./peers/eventHub.ts"
import { natsFanout } from "./peers/nats.ts"
import { plainWs, socketIo } from "./peers/plain.ts"
import { type FanoutSession, type Peer, sleep } from "./Peer.ts"
import type { Row, Scenario } from "./Scenario.ts"

/** Deliveries that may be under way, so that brokers measure how fast they are and not how much they buffer. */
const maxUnderWay = 20_000
const chunk = 10

const measure = async (
  peer: Peer<FanoutSession>,
  events: number,
  subscribers: number
): Promise<Row["figures"]> => {
  const session = await peer.start()
  try {
    const wanted = events * subscribers
    let delivered = 0
    let wake = () => {}
    let last = 0
    let problem: Error | undefined
    const checkOrder = (n: number): void => {
      if (n !== last + 1) problem ??= new Error(`event ${n} came after event ${last}`)
      last = n
    }
    for (let i = 0; i < subscribers; i++) {
      const onEvent = i === 0 ? checkOrder : () => {}
      await session.subscribe((n) => {
        onEvent(n)
        delivered++
        wake()
      })
    }
    await sleep(300)
    const until = async (isDone: () => boolean) => {
      const deadline = performance.now() + 60_000
      while (!isDone()) {
        if (performance.now() > deadline) throw new Error(`${delivered} of ${wanted} deliveries came`)
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, 1_000)
          wake = () => {
            if (!isDone()) return
            clearTimeout(timer)
            wake = () => {}
            resolve()
          }
        })
      }
    }
    const begin = performance.now()
    for (let sent = 0; sent < events;) {
      const count = Math.min(chunk, events - sent)
      session.publish(sent + 1, count)
      sent += count
      if (sent * subscribers - delivered > maxUnderWay) {
        await until(() => sent * subscribers - delivered <= maxUnderWay)
      }
    }
    await until(() => delivered >= wanted)
    if (problem !== undefined) throw problem
    return { "deliveries/s": wanted / ((performance.now() - begin) / 1000) }
  } finally {
    await session.close()
  }
}

export const fanout: Scenario = {
  name: "fanout",
  title: ({ events, subscribers }) =>
    `${events} events of 200 bytes to ${subscribers} WebSocket subscribers, parsed`,
  defaults: { events: 3_000, inFlight: 0, subscribers: 200 },
  runs: ({ events, subscribers }) =>
    [eventHub, natsFanout, plainWs, socketIo].map((peer) => ({
      name: peer.name,
      missing: peer.missing,
      run: () => measure(peer, events, subscribers)
    })),
  wanted: () => [
    { run: eventHub.name, figure: "deliveries/s", of: natsFanout.name, atLeast: 1.3 },
    { run: eventHub.name, figure: "deliveries/s", of: socketIo.name, atLeast: 5 }
  ]
}
