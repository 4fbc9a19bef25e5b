/** The servers of plain.ts: `node plainServer.ts ws|socket.io <port>`. */
import { Server } from "socket.io"
import { WebSocketServer } from "ws"

const [, , kind, port] = process.argv

interface Message {
  readonly op: "SUBSCRIBE" | "PUBLISH"
  readonly topic: string
  readonly event?: unknown
}

if (kind === "ws") {
  const topics = new Map<string, Set<{ send: (data: string) => void }>>()
  const server = new WebSocketServer({ port: Number(port), host: "127.0.0.1", perMessageDeflate: false })
  server.on("connection", (socket) => {
    socket.on("message", (data: Buffer) => {
      const { event, op, topic } = JSON.parse(data.toString()) as Message
      const subscribers = topics.get(topic) ?? new Set()
      if (op === "SUBSCRIBE") topics.set(topic, subscribers.add(socket))
      else {
        const frame = JSON.stringify({ op: "EVENT", topic, event })
        for (const subscriber of subscribers) subscriber.send(frame)
      }
    })
    socket.on("close", () => topics.forEach((subscribers) => subscribers.delete(socket)))
  })
} else {
  const server = new Server(Number(port), { transports: ["websocket"], perMessageDeflate: false })
  server.on("connection", (socket) => {
    socket.on("subscribe", async (topic: string, done: () => void) => {
      await socket.join(topic)
      done()
    })
    socket.on("publish", (topic: string, event: unknown) => server.to(topic).emit("event", event))
  })
}
