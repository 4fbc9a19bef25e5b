/** From nothing to a server that answers, and what it takes of the memory when nobody asks it anything. */
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { median, rssBytes } from "./figures.ts"
import { startHub } from "./peers/eventHub.ts"
import { missing as missingNats, startJetStream } from "./peers/nats.ts"
import { startPlain } from "./peers/plain.ts"
import { startRedis } from "./peers/redis.ts"
import { type Broker, has, sleep } from "./Peer.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"

/** An idle server has put its start behind it. */
const settled = 2_000

const measure = async (
  times: number,
  start: () => Promise<{ readonly broker: Broker }>
): Promise<Row["figures"]> => {
  const ready: Array<number> = []
  const memory: Array<number> = []
  for (let i = 0; i < times; i++) {
    const begin = performance.now()
    const { broker } = await start()
    ready.push(performance.now() - begin)
    await sleep(settled)
    memory.push(rssBytes(broker.process.pid) / 1_000_000)
    await broker.stop()
  }
  return { "ready ms": median(ready), "idle RSS MB": median(memory) }
}

/** What users of the package run: nothing has to be made of TypeScript first. */
const dist = fileURLToPath(new URL("../dist/main.js", import.meta.url))
const missingDist = () => (existsSync(dist) ? undefined : "there is no dist; run: npm run build")

/** What `npm start` keeps of the last start. */
const compileCache = fileURLToPath(new URL("../node_modules/.cache/node", import.meta.url))

const compiled = "event-hub (sqlite), the package"
const source = "event-hub (sqlite), from its source"

export const start: Scenario = {
  name: "start",
  title: ({ events }) => `from the start of the process until it answers, ${events} times each`,
  defaults: { events: 3, inFlight: 0, subscribers: 0 },
  runs: ({ events }) => {
    const run = (
      name: string,
      start: () => Promise<{ readonly broker: Broker }>,
      missing: () => string | undefined = () => undefined
    ): Run => ({ name, missing, run: () => measure(events, start) })
    return [
      run(compiled, () => startHub(undefined, undefined, dist), missingDist),
      run(source, () => startHub(undefined, { NODE_COMPILE_CACHE: compileCache })),
      run(
        "Redis (appendonly)",
        () => startRedis("always"),
        () => (has("redis-server") ? undefined : "redis-server is not installed")
      ),
      run("NATS JetStream", startJetStream, missingNats),
      run("plain ws", () => startPlain("ws")),
      run("Socket.IO", () => startPlain("socket.io"))
    ]
  },
  wanted: () => [
    { run: compiled, figure: "ready ms", atMost: 1_000 },
    { run: compiled, figure: "idle RSS MB", atMost: 150 },
    { run: source, figure: "ready ms", atMost: 1_000 },
    { run: source, figure: "idle RSS MB", atMost: 150 }
  ]
}
