/**
 * Many connections that say nothing, beside some that do: what an idle one takes of the server's memory, and how long
 * an event of an active one takes to come back to it.
 *
 * Every connection is let in and has a subscription to a topic of its own. The active ones are there before the memory
 * is looked at, so that what a server takes for working at all does not count for the idle ones.
 */
import { percentiles, rssBytes } from "./figures.ts"
import { connections as eventHub } from "./peers/eventHub.ts"
import { natsConnections } from "./peers/nats.ts"
import { plainWsConnections, socketIoConnections } from "./peers/plain.ts"
import { type ConnectionsSession, cpuMs, type Peer, sleep } from "./Peer.ts"
import type { Row, Scenario } from "./Scenario.ts"

const perSecond = 1_000
const openedAtOnce = 50

/** Time for what comes with opening so many to be over. */
const settledMs = (connections: number): number => Math.min(2_000, connections)

const openAll = async <A>(count: number, open: (i: number) => Promise<A>): Promise<ReadonlyArray<A>> => {
  const opened: Array<A> = []
  while (opened.length < count) {
    const next = Math.min(openedAtOnce, count - opened.length)
    opened.push(...(await Promise.all(Array.from({ length: next }, (_, i) => open(opened.length + i)))))
  }
  return opened
}

/** Events at their times, whether or not those before came back; the answer is how long each took. */
const talk = async (
  clients: ReadonlyArray<{ readonly publish: (n: number) => void }>,
  events: number,
  startedAt: Array<number>,
  cameBack: () => number
): Promise<void> => {
  const begin = performance.now()
  while (startedAt.length < events) {
    const due = Math.min(events, Math.floor(((performance.now() - begin) / 1000) * perSecond))
    while (startedAt.length < due) {
      const n = startedAt.push(performance.now()) - 1
      clients[n % clients.length]!.publish(n)
    }
    await sleep(1)
  }
  for (let i = 0; cameBack() < events; i++) {
    if (i === 3_000) throw new Error(`${cameBack()} of ${events} events came back`)
    await sleep(10)
  }
}

const measure = async (
  peer: Peer<ConnectionsSession>,
  events: number,
  active: number,
  idle: number
): Promise<Row["figures"]> => {
  const session = await peer.start()
  try {
    const startedAt: Array<number> = []
    let times: Array<number> = []
    const onEvent = (n: number) => void times.push(performance.now() - startedAt[n]!)
    const clients = await openAll(active, (i) => session.connect(`t.active-${i}`, onEvent))
    // Code that is compiled, and a heap that has its size.
    await talk(clients, Math.ceil(events / 5), startedAt, () => times.length)
    startedAt.length = 0
    times = []
    await sleep(settledMs(idle))
    const before = rssBytes(session.pid)
    await openAll(idle, (i) => session.connect(`t.idle-${i}`, () => {}))
    await sleep(settledMs(idle))
    const bytes = (rssBytes(session.pid) - before) / idle
    const cpu = cpuMs(session.pid)
    const begin = performance.now()
    await talk(clients, events, startedAt, () => times.length)
    const cpuShare = (cpuMs(session.pid) - cpu) / (performance.now() - begin)
    return { "RSS kB each": bytes / 1_000, ...percentiles(times), "CPU %": cpuShare * 100 }
  } finally {
    await session.close()
  }
}

export const connections: Scenario = {
  name: "connections",
  title: ({ events, inFlight, subscribers }) =>
    `${subscribers} idle WebSocket connections, and ${inFlight} on which ${events} events of 200 bytes, ${perSecond} a second, are published and come back`,
  defaults: { events: 10_000, inFlight: 500, subscribers: 5_000 },
  runs: ({ events, inFlight, subscribers }) =>
    [eventHub, natsConnections, plainWsConnections, socketIoConnections].map((peer) => ({
      name: peer.name,
      missing: peer.missing,
      run: () => measure(peer, events, inFlight, subscribers)
    })),
  wanted: () => [{ run: eventHub.name, figure: "RSS kB each", atMost: 20 }]
}
