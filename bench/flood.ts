/**
 * Many connections that publish as fast as they can, beside some that behave: what the latter wait for their answers,
 * and what the hub takes of the memory meanwhile.
 */
import { once } from "node:events"
import { Worker } from "node:worker_threads"
import { percentiles, rssBytes } from "./figures.ts"
import type { Work } from "./flooder.ts"
import { open, startHub, token } from "./peers/eventHub.ts"
import { type Payload, payload, sleep } from "./Peer.ts"
import type { Row, Scenario } from "./Scenario.ts"

/** Those that behave, and how long each waits between two publishes. */
const modest = 10
const pauseMs = 50

/** Until code is compiled; and how long they are alone before the flood. */
const warmUpMs = 1_000
const calmMs = 2_000

const MB = 1_000_000

interface Modest {
  readonly times: ReadonlyArray<number>
  readonly stop: () => Promise<void>
}

/** Publishes one event at a time, and notes how long each answer takes. */
const behave = async (url: string, n: number): Promise<Modest> => {
  const times: Array<number> = []
  let answered = () => {}
  const socket = await open(url, ({ op }) => {
    if (op !== "OK") throw new Error(`a modest publisher was answered by ${op}`)
    answered()
  })
  let isOver = false
  const publish = async (message: Payload): Promise<void> => {
    for (let ref = 1; !isOver; ref++) {
      const answer = new Promise<void>((resolve) => (answered = resolve))
      const begin = performance.now()
      socket.send(JSON.stringify({ op: "PUBLISH", ref, topic: `modest.${n}`, payload: message }))
      await answer
      times.push(performance.now() - begin)
      await sleep(pauseMs)
    }
  }
  const done = publish(payload)
  return {
    times,
    stop: async () => {
      isOver = true
      await done
      socket.close()
    }
  }
}

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

const measure = async (
  events: number,
  connections: number,
  env: Readonly<Record<string, string>>
): Promise<Row["figures"]> => {
  const { broker, url } = await startHub(undefined, env)
  try {
    const publishers = await Promise.all(Array.from({ length: modest }, (_, n) => behave(url, n)))
    await sleep(warmUpMs)
    const warm = publishers.map(({ times }) => times.length)
    await sleep(calmMs)
    const before = publishers.map(({ times }) => times.length)
    const calm = publishers.flatMap(({ times }, i) => times.slice(warm[i]))
    const work: Work = { url, token, connections, publishes: Math.ceil(events / connections) }
    const flooder = new Worker(new URL("./flooder.ts", import.meta.url), { workerData: work })
    const memory: Array<number> = []
    const watch = setInterval(() => void memory.push(rssBytes(broker.process.pid)), 100)
    const begin = performance.now()
    await once(flooder, "message")
    const seconds = (performance.now() - begin) / 1000
    clearInterval(watch)
    const times = publishers.flatMap(({ times }, i) => times.slice(before[i]))
    await Promise.all(publishers.map(({ stop }) => stop()))
    // The first fifth is for code that is compiled, and a heap that finds its size.
    const fifth = Math.floor(memory.length / 5)
    return {
      ...percentiles(times),
      ...percentiles(calm, "calm "),
      "max ms": Math.max(...times),
      "publishes/s": events / seconds,
      "RSS MB": Math.max(...memory) / MB,
      "growth MB": (mean(memory.slice(-fifth)) - mean(memory.slice(fifth, 2 * fifth))) / MB
    }
  } finally {
    await broker.stop()
  }
}

const limited = "with limits"

export const flood: Scenario = {
  name: "flood",
  title: ({ events, subscribers }) =>
    `${events} publishes of 100 bytes from ${subscribers} connections as fast as they can; the answers of ${modest} others`,
  defaults: { events: 1_000_000, inFlight: 0, subscribers: 50 },
  runs: ({ events, subscribers }) => [
    {
      name: limited,
      missing: () => undefined,
      run: () => measure(events, subscribers, { LIMIT_MESSAGES_PER_SECOND: "200" })
    },
    {
      name: "without limits, held by the store",
      missing: () => undefined,
      run: () => measure(Math.ceil(events / 4), subscribers, {})
    }
  ],
  wanted: () => [{ run: limited, figure: "p99 ms", atMost: 50 }]
}
