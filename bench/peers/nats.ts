/** NATS: JetStream with a durable consumer, synced on every write; and core NATS over WebSocket for fan-out. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream"
import { type NatsConnection, wsconnect } from "@nats-io/nats-core"
import { connect } from "@nats-io/transport-node"
import { count, natsWire } from "./counters.ts"
import {
  body,
  bodyOf,
  type Broker,
  type ConnectionsSession,
  type DurableSession,
  type FanoutSession,
  freePort,
  has,
  listening,
  type Payload,
  type Peer,
  startBroker
} from "../Peer.ts"

const server = process.env["NATS_SERVER"] ?? "nats-server"
export const missing = (): string | undefined =>
  has(server) ? undefined : "nats-server is not installed (or set NATS_SERVER)"

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

export const startJetStream = async (): Promise<{ readonly broker: Broker; readonly port: number }> => {
  const port = await freePort()
  const broker = await startServer(
    (directory) =>
      `listen: "127.0.0.1:${port}"\njetstream { store_dir: "${directory}/js", sync_interval: "always" }\n`,
    [port]
  )
  return { broker, port }
}

export const jetStream: Peer<DurableSession> = {
  name: "NATS JetStream (sync always)",
  missing,
  start: async () => {
    const { broker, port } = await startJetStream()
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
    let close = () => Promise.resolve<unknown>(undefined)
    return {
      publish: () => stream.publish("t.a", body),
      consume: async (onAcked) => {
        const consumers = jetstream(consumer).consumers
        const messages = await (await consumers.get("S", "g")).consume({ max_messages: 500 })
        close = () => messages.close()
        void (async () => {
          for await (const message of messages) {
            message.json()
            void message.ackAck().then(onAcked)
          }
        })()
      },
      close: async () => {
        await close()
        await Promise.all([publisher.close(), consumer.close()])
        await broker.stop()
      }
    }
  }
}

/** A server that keeps nothing, and clients that speak to it over WebSocket. */
const clientsOverWebSocket = async () => {
  const [port, wsPort] = [await freePort(), await freePort()]
  const broker = await startServer(
    () => `listen: "127.0.0.1:${port}"\nwebsocket { listen: "127.0.0.1:${wsPort}", no_tls: true }\n`,
    [port, wsPort]
  )
  const clients: Array<{ readonly close: () => Promise<void> | void }> = []
  const url = `ws://127.0.0.1:${wsPort}`
  return {
    pid: broker.process.pid,
    count: async (subject: string, onEvents: (count: number) => void): Promise<void> => {
      const socket = await count(url, subject, natsWire, onEvents)
      clients.push({ close: () => socket.terminate() })
    },
    open: async (): Promise<NatsConnection> => {
      const client = await wsconnect({ servers: url })
      clients.push(client)
      return client
    },
    close: async () => {
      await Promise.all(clients.map((client) => client.close()))
      await broker.stop()
    }
  }
}

const subscribe = async (
  client: NatsConnection,
  subject: string,
  onEvent: (n: number) => void
): Promise<void> => {
  client.subscribe(subject, { callback: (_error, message) => onEvent(message.json<Payload>().payload.n) })
  await client.flush()
}

export const natsFanout: Peer<FanoutSession> = {
  name: "NATS over WebSocket (not durable)",
  missing,
  start: async () => {
    const { close, count, open } = await clientsOverWebSocket()
    const publisher = await open()
    return {
      count: (onEvents) => count("t.a", onEvents),
      publish: (from, count) => {
        for (let n = from; n < from + count; n++) publisher.publish("t.a", bodyOf(n))
      },
      subscribe: async (onEvent) => subscribe(await open(), "t.a", onEvent),
      close
    }
  }
}

export const natsConnections: Peer<ConnectionsSession> = {
  name: natsFanout.name,
  missing,
  start: async () => {
    const { close, open, pid } = await clientsOverWebSocket()
    return {
      pid,
      connect: async (subject, onEvent) => {
        const client = await open()
        await subscribe(client, subject, onEvent)
        return { publish: (n) => client.publish(subject, bodyOf(n)) }
      },
      close
    }
  }
}
