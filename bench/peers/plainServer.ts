/** The servers of plain.ts: `node plainServer.ts ws|socket.io <port>`. */
import { Server } from "socket.io"
import { WebSocketServer } from "ws"

const [, , kind, port] = process.argv

if (kind === "ws") {
  const subscribers = new Set<{ send: (data: string) => void }>()
  const server = new WebSocketServer({ port: Number(port), host: "127.0.0.1", perMessageDeflate: false })
  server.on("connection", (socket) => {
    socket.on("message", (data: Buffer) => {
      const text = data.toString()
      if (text === "subscribe") subscribers.add(socket)
      else {
        const frame = JSON.stringify({ op: "EVENT", topic: "t.a", event: JSON.parse(text) as unknown })
        for (const subscriber of subscribers) subscriber.send(frame)
      }
    })
    socket.on("close", () => subscribers.delete(socket))
  })
} else {
  const server = new Server(Number(port), { transports: ["websocket"], perMessageDeflate: false })
  server.on("connection", (socket) => {
    socket.on("subscribe", async (done: () => void) => {
      await socket.join("t.a")
      done()
    })
    socket.on("publish", (event: unknown) => server.to("t.a").emit("event", event))
  })
}
