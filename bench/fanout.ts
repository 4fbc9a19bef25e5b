/**
 * Fan-out: one publisher, many subscribers, each on a WebSocket of its own. Each counts what it gets; the first of them,
 * or all, parse it, too, and the first checks the order.
 *
 * Where one parses, the others do the same work for every system, and the servers are compared; where all do, each by the
 * library it comes with, most of the time is that of the clients.
 */
import { fanout as eventHub } from "./peers/eventHub.ts"
import { natsFanout } from "./peers/nats.ts"
import { plainWs, socketIo } from "./peers/plain.ts"
import { type FanoutSession, type Peer, sleep } from "./Peer.ts"
import type { Row, Scenario, Sizes } from "./Scenario.ts"

/** Deliveries that may be under way, so that brokers measure how fast they are and not how much they buffer. */
const maxUnderWay = 20_000
const chunk = 10

const measure = async (
  peer: Peer<FanoutSession>,
  { events, subscribers }: Sizes,
  all: boolean
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
    const onEvents = (count: number) => {
      delivered += count
      wake()
    }
    await session.subscribe((n) => {
      checkOrder(n)
      onEvents(1)
    })
    for (let i = 1; i < subscribers; i++) {
      await (all ? session.subscribe(() => onEvents(1)) : session.count(onEvents))
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

const scenario = (name: string, all: boolean): Omit<Scenario, "wanted"> => ({
  name,
  title: ({ events, subscribers }) =>
    `${events} events of 200 bytes to ${subscribers} WebSocket subscribers; ${all ? "all parse" : "all count, one parses"}`,
  defaults: { events: 12_000, inFlight: 0, subscribers: 200 },
  runs: (sizes) =>
    [eventHub, natsFanout, plainWs, socketIo].map((peer) => ({
      name: peer.name,
      missing: peer.missing,
      run: () => measure(peer, sizes, all)
    }))
})

export const fanout: Scenario = {
  ...scenario("fanout", false),
  wanted: () => [
    { run: eventHub.name, figure: "deliveries/s", of: natsFanout.name, atLeast: 1.3 },
    { run: eventHub.name, figure: "deliveries/s", of: socketIo.name, atLeast: 5 }
  ]
}

export const fanoutParsed: Scenario = scenario("fanout-parsed", true)
