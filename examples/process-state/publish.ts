/**
 * Publishes the processes of this machine to `process.state`, by pid: what changed, and `null` for what is gone.
 *
 *     HUB_TOKEN=… npm run example examples/process-state/publish.ts [milliseconds between two looks]
 *
 * HUB_URL is `ws://127.0.0.1:8090` and HUB_OPS_URL `http://127.0.0.1:8082` unless set; INTERVAL_MS stands for the
 * argument. Its token needs `publish:process.state` and `subscribe:process.state`.
 *
 * What the hub knows already is asked of the hub, so that a process that ended while nobody looked is taken back, too.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { createClient, HubError } from "event-hub/client"
import { readLatest, Refused } from "./latest.ts"
import { type Change, changesBetween, type States } from "./processes.ts"
import { processReader } from "./readProcesses.ts"
import { topic, topics, type ProcessState } from "./topics.ts"

const {
  HUB_OPS_URL = "http://127.0.0.1:8082",
  HUB_TOKEN: token,
  HUB_URL = "ws://127.0.0.1:8090",
  INTERVAL_MS = "2000"
} = process.env
if (!token) throw new Error("HUB_TOKEN is not set: take the token that the hub printed, or `npm run token`")

const intervalMs = Number(process.argv[2] ?? INTERVAL_MS)
if (!Number.isInteger(intervalMs) || intervalMs < 50)
  throw new Error("the interval is given in milliseconds, at least 50")

/** Publishes under way at the same time. */
const batchSize = 1_000

const stopping = new AbortController()
const { signal } = stopping
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => stopping.abort())

const client = createClient({ url: HUB_URL, token, topics })
client.on("state", (state) => console.log(`connection: ${state._tag}`))

/** What the hub holds, and in which life of its store. */
let known = new Map<string, ProcessState>()
let knownHistory: string | undefined

const learn = async (history: string): Promise<void> => {
  const { items } = await readLatest({ base: HUB_OPS_URL, token })
  known = new Map(items.map(({ key, state }) => [key, state]))
  knownHistory = history
}

/** One that failed is not known to the hub, and so is a change again the next time. */
const publish = async ({ key, state }: Change): Promise<void> => {
  await client.publish(topic, state, { key, signal })
  if (state) known.set(key, state)
  else known.delete(key)
}

const publishAll = async (changes: ReadonlyArray<Change>): Promise<void> => {
  for (let i = 0; i < changes.length; i += batchSize) {
    const results = await Promise.allSettled(changes.slice(i, i + batchSize).map(publish))
    const failed = results.find((result) => result.status === "rejected")
    if (failed) throw failed.reason
  }
}

const mayPass = (error: unknown): boolean => {
  if (error instanceof HubError || error instanceof Refused) {
    return error instanceof HubError ? error.retryable : error.isRetryable
  }
  // What `fetch` throws when there is nobody, or no answer in time.
  return error instanceof TypeError || (error instanceof DOMException && error.name === "TimeoutError")
}

const look = async (read: () => Promise<States>): Promise<void> => {
  const { history } = await client.connect({ signal })
  if (history !== knownHistory) await learn(history)
  const changes = changesBetween(known, await read())
  await publishAll(changes)
  if (changes.length > 0) console.log(`${changes.length} of ${known.size} processes changed`)
}

const read = await processReader()
while (!signal.aborted) {
  try {
    await look(read)
  } catch (error) {
    if (!signal.aborted) {
      console.error(error instanceof Error ? error.message : error)
      if (!mayPass(error)) {
        process.exitCode = 1
        break
      }
    }
  }
  await sleep(intervalMs, undefined, { signal }).catch(() => {})
}
await client.close()
