/** Redis Streams: XADD, a consumer group, XACK for each message; the append-only file synced on every write. */
import { Redis } from "ioredis"
import {
  body,
  type Broker,
  type DurableSession,
  freePort,
  has,
  listening,
  type Peer,
  startBroker
} from "../Peer.ts"

type Fsync = "always" | "everysec"

/** A Redis with nothing in it, whose append-only file is synced so often. */
export const startRedis = async (
  fsync: Fsync
): Promise<{ readonly broker: Broker; readonly port: number }> => {
  const port = await freePort()
  const broker = await startBroker("redis-server", (directory) => {
    const place = ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", directory]
    return [...place, "--save", "", "--appendonly", "yes", "--appendfsync", fsync]
  })
  broker.process.stdout?.resume()
  await listening(port)
  return { broker, port }
}

export const redisStreams = (fsync: Fsync): Peer<DurableSession> => ({
  name: `Redis Streams (appendfsync ${fsync})`,
  missing: () => (has("redis-server") ? undefined : "redis-server is not installed"),
  start: async () => {
    const { broker, port } = await startRedis(fsync)
    const connect = () => new Redis(port, "127.0.0.1", { enableAutoPipelining: true })
    const publisher = connect()
    const reader = connect()
    const acker = connect()
    await publisher.xgroup("CREATE", "s", "g", "$", "MKSTREAM")
    let open = true
    let loop: Promise<void> = Promise.resolve()
    return {
      publish: () => publisher.xadd("s", "*", "b", body),
      consume: async (onAcked) => {
        loop = (async () => {
          while (open) {
            const read = await reader.xreadgroup(
              "GROUP",
              "g",
              "c",
              "COUNT",
              500,
              "BLOCK",
              200,
              "STREAMS",
              "s",
              ">"
            )
            const [stream] = (read ?? []) as ReadonlyArray<
              [string, ReadonlyArray<[string, ReadonlyArray<string>]>]
            >
            for (const [id, fields] of stream?.[1] ?? []) {
              JSON.parse(fields[1]!)
              void acker.xack("s", "g", id).then(onAcked)
            }
          }
        })()
      },
      close: async () => {
        open = false
        await loop
        for (const client of [publisher, reader, acker]) client.disconnect()
        await broker.stop()
      }
    }
  }
})
