/** NATS: JetStream with a durable consumer, synced on every write; and core NATS over WebSocket for fan-out. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream"
import { type NatsConnection, wsconnect } from "@nats-io/nats-core"
import { connect } from "@nats-io/transport-node"
import {
  body,
  type DurableSession,
  type FanoutSession,
  freePort,
  has,
  listening,
  type Peer,
  sleep,
  startBroker
} from "../Peer.ts"

const server = process.env["NATS_SERVER"] ?? "nats-server"
const missing = () => (has(server) ? undefined : "nats-server is not installed (or set NATS_SERVER)")

const startServer = async (config: (directory: string) => string, ports: ReadonlyArray<number>) => {
  const broker = await startBroker(server, (directory) => {
    const file = join(directory, "nats.conf")
    writeFileSync(file, config(directory))
    return ["-c", file, "-l", join(directory, "nats.log")]
  })
  broker.process.stdout?.resume()
  for (const port of ports) await listening(port)
  return broker
}

export const jetStream: Peer<DurableSession> = {
  name: "NATS JetStream (sync always)",
  missing,
  start: async () => {
    const port = await freePort()
    const broker = await startServer(
      (directory) =>
        `listen: "127.0.0.1:${port}"\njetstream { store_dir: "${directory}/js", sync_interval: "always" }\n`,
      [port]
    )
    const publisher = await connect({ servers: `127.0.0.1:${port}` })
    const consumer = await connect({ servers: `127.0.0.1:${port}` })
    const manager = await jetstreamManager(publisher)
    await manager.streams.add({ name: "S", subjects: ["t.>"] })
    await manager.consumers.add("S", {
      durable_name: "g",
      ack_policy: AckPolicy.Explicit,
      max_ack_pending: 2_000
    })
    const stream = jetstream(publisher)
    const messages = await (await jetstream(consumer).consumers.get("S", "g")).consume({ max_messages: 500 })
    return {
      publish: () => stream.publish("t.a", body),
      consume: async (onAcked) => {
        void (async () => {
          for await (const message of messages) {
            message.json()
            void message.ackAck().then(onAcked)
          }
        })()
      },
      close: async () => {
        await messages.close()
        await Promise.all([publisher.close(), consumer.close()])
        await broker.stop()
      }
    }
  }
}

export const natsFanout: Peer<FanoutSession> = {
  name: "NATS over WebSocket (not durable)",
  missing,
  start: async () => {
    const [port, wsPort] = [await freePort(), await freePort()]
    const broker = await startServer(
      () => `listen: "127.0.0.1:${port}"\nwebsocket { listen: "127.0.0.1:${wsPort}", no_tls: true }\n`,
      [port, wsPort]
    )
    const clients: Array<NatsConnection> = []
    const open = async () => {
      const client = await wsconnect({ servers: `ws://127.0.0.1:${wsPort}` })
      clients.push(client)
      return client
    }
    const publisher = await open()
    return {
      publish: (count) => {
        for (let i = 0; i < count; i++) publisher.publish("t.a", body)
      },
      subscribe: async (onEvents) => {
        const client = await open()
        client.subscribe("t.a", {
          callback: (_error, message) => {
            message.json()
            onEvents(1)
          }
        })
        await client.flush()
        await sleep(0)
      },
      close: async () => {
        await Promise.all(clients.map((client) => client.close()))
        await broker.stop()
      }
    }
  }
}
