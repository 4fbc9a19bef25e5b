/**
 * Subscribers that count what they get and do no more: a bare WebSocket that knows just enough of each system's protocol.
 *
 * The client libraries differ more than the servers do, so with them a benchmark of servers is one of libraries.
 */
import { once } from "node:events"
import { WebSocket } from "ws"
import { body } from "../Peer.ts"

/** How many events are in what came; called with each frame in turn. */
type Counter = (frame: Buffer) => number

interface Wire {
  readonly protocols: ReadonlyArray<string>
  /** Subscribes a socket that opens. */
  readonly join: (socket: WebSocket, topic: string) => Promise<void>
  readonly counter: (topic: string) => Counter
}

/** Waits for a frame that begins with these characters. */
const until = async (socket: WebSocket, start: string): Promise<void> => {
  for (;;) {
    const [data] = (await once(socket, "message")) as [Buffer]
    if (data.toString().startsWith(start)) return
  }
}

/** Behind a marker is a payload, which need not be looked at: that of NATS is not either. */
const occurrencesOf = (marker: string): Counter => {
  const bytes = Buffer.from(marker)
  const skipped = bytes.length + body.length
  return (frame) => {
    let count = 0
    for (let at = frame.indexOf(bytes); at !== -1; at = frame.indexOf(bytes, at + skipped)) count++
    return count
  }
}

/** An array of messages, or one. */
export const eventHubWire = (token: string): Wire => ({
  protocols: ["event-hub.v1"],
  join: async (socket, topic) => {
    await once(socket, "open")
    socket.send(JSON.stringify({ op: "AUTH", token }))
    await until(socket, `{"op":"OK"`)
    socket.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic }))
    await until(socket, `{"op":"OK"`)
  },
  counter: () => occurrencesOf(`{"op":"EVENT"`)
})

/** The server of plainServer.ts: a frame is an event. */
export const plainWire: Wire = {
  protocols: [],
  join: async (socket, topic) => {
    await once(socket, "open")
    socket.send(JSON.stringify({ op: "SUBSCRIBE", topic }))
  },
  counter: () => () => 1
}

/** Engine.IO 4 below Socket.IO 5: `4` is a message, `2` an event in it, `2` alone a ping. */
export const socketIoWire: Wire = {
  protocols: [],
  join: async (socket, topic) => {
    await until(socket, "0")
    socket.send("40")
    await until(socket, "40")
    socket.send(`420${JSON.stringify(["subscribe", topic])}`)
    await until(socket, "430")
    socket.on("message", (data: Buffer) => {
      if (data.length === 1) socket.send("3")
    })
  },
  counter: () => occurrencesOf(`42["event"`)
}

/** Lines and payloads in a stream of bytes, which frames cut anywhere: `MSG <subject> <sid> <bytes>`. */
export const natsWire: Wire = {
  protocols: [],
  join: async (socket, topic) => {
    await until(socket, "INFO")
    socket.send(`CONNECT {"verbose":false,"pedantic":false}\r\nSUB ${topic} 1\r\nPING\r\n`)
    await until(socket, "PONG")
  },
  counter: (topic) => {
    const prefix = `MSG ${topic} 1 `
    let rest: Buffer = Buffer.alloc(0)
    return (frame) => {
      const bytes = rest.length === 0 ? frame : Buffer.concat([rest, frame])
      let count = 0
      let at = 0
      for (;;) {
        const end = bytes.indexOf(10, at)
        if (end === -1) break
        if (bytes[at] !== 77) {
          at = end + 1
          continue
        }
        const next = end + 1 + Number(bytes.toString("latin1", at + prefix.length, end - 1)) + 2
        if (next > bytes.length) break
        count++
        at = next
      }
      rest = bytes.subarray(at)
      return count
    }
  }
}

/** Opens a socket, subscribes it and counts. */
export const count = async (
  url: string,
  topic: string,
  wire: Wire,
  onEvents: (count: number) => void
): Promise<WebSocket> => {
  const socket = new WebSocket(url, [...wire.protocols], { perMessageDeflate: false })
  // Two of the servers speak first.
  await wire.join(socket, topic)
  const counter = wire.counter(topic)
  socket.on("message", (frame: Buffer) => onEvents(counter(frame)))
  return socket
}
