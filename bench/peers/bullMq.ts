/** BullMQ: jobs in a Redis that syncs its append-only file on every write, handled by one worker. */
import { Queue, Worker } from "bullmq"
import { type DurableSession, has, payload, type Peer } from "../Peer.ts"
import { startRedis } from "./redis.ts"

const name = "q"

export const bullMq: Peer<DurableSession> = {
  name: "BullMQ (appendfsync always)",
  missing: () => (has("redis-server") ? undefined : "redis-server is not installed"),
  start: async () => {
    const { broker, port } = await startRedis("always")
    const connection = { host: "127.0.0.1", port }
    const queue = new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } })
    await queue.waitUntilReady()
    let worker: Worker | undefined
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
