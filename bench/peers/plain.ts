/** What one would write first: `ws` or Socket.IO, and a loop over whoever is there. Nothing is kept. */
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { io } from "socket.io-client"
import { WebSocket } from "ws"
import { body, type FanoutSession, freePort, listening, payload, type Peer, startBroker } from "../Peer.ts"

const server =
  (kind: "ws" | "socket.io") => async (): Promise<{ readonly port: number; stop: () => Promise<void> }> => {
    const port = await freePort()
    const broker = await startBroker(process.execPath, () => [
      fileURLToPath(new URL("plainServer.ts", import.meta.url)),
      kind,
      `${port}`
    ])
    broker.process.stdout?.resume()
    await listening(port)
    return { port, stop: broker.stop }
  }

export const plainWs: Peer<FanoutSession> = {
  name: "plain ws loop (nothing kept)",
  missing: () => undefined,
  start: async () => {
    const { port, stop } = await server("ws")()
    const sockets: Array<WebSocket> = []
    const open = async () => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false })
      await once(socket, "open")
      sockets.push(socket)
      return socket
    }
    const publisher = await open()
    return {
      publish: (count) => {
        for (let i = 0; i < count; i++) publisher.send(body)
      },
      subscribe: async (onEvents) => {
        const socket = await open()
        socket.send("subscribe")
        socket.on("message", (data: Buffer) => {
          JSON.parse(data.toString())
          onEvents(1)
        })
      },
      close: async () => {
        for (const socket of sockets) socket.terminate()
        await stop()
      }
    }
  }
}

export const socketIo: Peer<FanoutSession> = {
  name: "Socket.IO (nothing kept)",
  missing: () => undefined,
  start: async () => {
    const { port, stop } = await server("socket.io")()
    const sockets: Array<ReturnType<typeof io>> = []
    const open = async () => {
      const socket = io(`http://127.0.0.1:${port}`, { transports: ["websocket"], forceNew: true })
      await new Promise<void>((resolve) => socket.once("connect", () => resolve()))
      sockets.push(socket)
      return socket
    }
    const publisher = await open()
    return {
      publish: (count) => {
        for (let i = 0; i < count; i++) publisher.emit("publish", payload)
      },
      subscribe: async (onEvents) => {
        const socket = await open()
        socket.on("event", () => onEvents(1))
        await socket.emitWithAck("subscribe")
      },
      close: async () => {
        for (const socket of sockets) socket.disconnect()
        await stop()
      }
    }
  }
}
