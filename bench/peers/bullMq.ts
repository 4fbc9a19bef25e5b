/**
 * BullMQ: jobs in a Redis that syncs its append-only file on every write, handled by one worker.
 *
 * It is no dependency, since its lock file cannot be made on every platform: `npm install --no-save --prefix bench bullmq`.
 */
import { createRequire } from "node:module"
import { type DurableSession, has, payload, type Peer } from "../Peer.ts"
import { startRedis } from "./redis.ts"

interface Closable {
  readonly waitUntilReady: () => Promise<unknown>
  readonly close: () => Promise<void>
}

interface Connected {
  readonly connection: { readonly host: string; readonly port: number }
}

/** What is used of it. */
interface BullMq {
  readonly Queue: new (
    name: string,
    options: Connected & { readonly defaultJobOptions: { readonly removeOnComplete: boolean } }
  ) => Closable & { readonly add: (name: string, data: unknown) => Promise<unknown> }
  readonly Worker: new (
    name: string,
    handler: () => Promise<void>,
    options: Connected & { readonly concurrency: number }
  ) => Closable & { readonly on: (event: "completed", listener: () => void) => unknown }
}

const library: string = "bullmq"

const isInstalled = (): boolean => {
  try {
    createRequire(import.meta.url).resolve(library)
    return true
  } catch {
    return false
  }
}

const name = "q"

export const bullMq: Peer<DurableSession> = {
  name: "BullMQ (appendfsync always)",
  missing: () =>
    !has("redis-server")
      ? "redis-server is not installed"
      : isInstalled()
        ? undefined
        : "run npm install --no-save --prefix bench bullmq",
  start: async () => {
    // oxlint-disable-next-line import/no-dynamic-require -- types of what may not be installed cannot be looked up
    const { Queue, Worker } = (await import(library)) as BullMq
    const { broker, port } = await startRedis("always")
    const connection = { host: "127.0.0.1", port }
    const queue = new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } })
    await queue.waitUntilReady()
    let worker: InstanceType<BullMq["Worker"]> | undefined
    return {
      publish: () => queue.add("job", payload),
      consume: async (onAcked) => {
        worker = new Worker(name, () => Promise.resolve(), { connection, concurrency: 200 })
        worker.on("completed", onAcked)
        await worker.waitUntilReady()
      },
      close: async () => {
        await worker?.close()
        await queue.close()
        await broker.stop()
      }
    }
  }
}
