/** What one would write first: `ws` or Socket.IO, and a loop over whoever is there. Nothing is kept. */
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { io } from "socket.io-client"
import { WebSocket } from "ws"
import { count, plainWire, socketIoWire } from "./counters.ts"
import {
  bodyOf,
  type Broker,
  type ConnectionsSession,
  type FanoutSession,
  freePort,
  listening,
  payload,
  type Payload,
  type Peer,
  startBroker
} from "../Peer.ts"

export const startPlain = async (
  kind: "ws" | "socket.io"
): Promise<{ readonly broker: Broker; readonly port: number }> => {
  const port = await freePort()
  const broker = await startBroker(process.execPath, () => [
    fileURLToPath(new URL("plainServer.ts", import.meta.url)),
    kind,
    `${port}`
  ])
  broker.process.stdout?.resume()
  await listening(port)
  return { broker, port }
}

const topic = "t.a"

interface Client {
  readonly publish: (topic: string, n: number) => void
  readonly subscribe: (topic: string, onEvent: (n: number) => void) => Promise<void>
  readonly close: () => void
}

const openWs = async (port: number): Promise<Client> => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false })
  await once(socket, "open")
  return {
    publish: (topic, n) => socket.send(`{"op":"PUBLISH","topic":"${topic}","event":${bodyOf(n)}}`),
    subscribe: (topic, onEvent) => {
      socket.on("message", (data: Buffer) => {
        const { event } = JSON.parse(data.toString()) as { readonly event: Payload }
        onEvent(event.payload.n)
      })
      socket.send(JSON.stringify({ op: "SUBSCRIBE", topic }))
      return Promise.resolve()
    },
    close: () => socket.terminate()
  }
}

const openSocketIo = async (port: number): Promise<Client> => {
  const socket = io(`http://127.0.0.1:${port}`, { transports: ["websocket"], forceNew: true })
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()))
  return {
    publish: (topic, n) =>
      void socket.emit("publish", topic, { ...payload, payload: { ...payload.payload, n } }),
    subscribe: async (topic, onEvent) => {
      socket.on("event", (event: Payload) => onEvent(event.payload.n))
      await socket.emitWithAck("subscribe", topic)
    },
    close: () => void socket.disconnect()
  }
}

const clientsOf = async (kind: "ws" | "socket.io") => {
  const { broker, port } = await startPlain(kind)
  const clients: Array<Pick<Client, "close">> = []
  return {
    pid: broker.process.pid,
    count: async (onEvents: (count: number) => void): Promise<void> => {
      const [path, wire] =
        kind === "ws" ? ["", plainWire] : ["/socket.io/?EIO=4&transport=websocket", socketIoWire]
      const socket = await count(`ws://127.0.0.1:${port}${path}`, topic, wire, onEvents)
      clients.push({ close: () => socket.terminate() })
    },
    open: async (): Promise<Client> => {
      const client = await (kind === "ws" ? openWs(port) : openSocketIo(port))
      clients.push(client)
      return client
    },
    close: async () => {
      for (const client of clients) client.close()
      await broker.stop()
    }
  }
}

const fanout = (kind: "ws" | "socket.io", name: string): Peer<FanoutSession> => ({
  name,
  missing: () => undefined,
  start: async () => {
    const { close, count, open } = await clientsOf(kind)
    const publisher = await open()
    return {
      publish: (from, count) => {
        for (let n = from; n < from + count; n++) publisher.publish(topic, n)
      },
      subscribe: async (onEvent) => (await open()).subscribe(topic, onEvent),
      count,
      close
    }
  }
})

const connections = (kind: "ws" | "socket.io", name: string): Peer<ConnectionsSession> => ({
  name,
  missing: () => undefined,
  start: async () => {
    const { close, open, pid } = await clientsOf(kind)
    return {
      pid,
      connect: async (topic, onEvent) => {
        const client = await open()
        await client.subscribe(topic, onEvent)
        return { publish: (n) => client.publish(topic, n) }
      },
      close
    }
  }
})

export const plainWs = fanout("ws", "plain ws loop (nothing kept)")
export const socketIo = fanout("socket.io", "Socket.IO (nothing kept)")
export const plainWsConnections = connections("ws", plainWs.name)
export const socketIoConnections = connections("socket.io", socketIo.name)
