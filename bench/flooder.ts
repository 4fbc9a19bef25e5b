/** A thread that publishes as fast as its sockets take it, on many connections; it tells what was answered in the end. */
import { once } from "node:events"
import { parentPort, workerData } from "node:worker_threads"
import { WebSocket } from "ws"
import { sleep } from "./Peer.ts"

export interface Work {
  readonly url: string
  readonly token: string
  readonly connections: number
  /** On each of them. */
  readonly publishes: number
}

/** In a frame. */
const together = 20

/** What a socket may have waiting before its publisher waits. */
const mostWaiting = 256 * 1024

const { connections, publishes, token, url } = workerData as Work

const flood = async (n: number): Promise<void> => {
  const socket = new WebSocket(url, "event-hub.v1", { perMessageDeflate: false })
  await once(socket, "open")
  let end = () => {}
  const ended = new Promise<void>((resolve) => (end = resolve))
  // Answers are read and not parsed: this thread is not what is measured.
  socket.on("message", (data: Buffer) => {
    if (data.includes('"ref":"end"')) end()
  })
  socket.send(JSON.stringify({ op: "AUTH", token }))
  const message = JSON.stringify({ op: "PUBLISH", topic: `flood.${n}`, payload: "x".repeat(100) })
  for (let sent = 0; sent < publishes; sent += together) {
    const count = Math.min(together, publishes - sent)
    socket.send(`[${Array<string>(count).fill(message).join(",")}]`)
    while (socket.bufferedAmount > mostWaiting) await sleep(5)
  }
  socket.send(JSON.stringify({ op: "PING", ref: "end" }))
  await ended
  socket.close()
}

await Promise.all(Array.from({ length: connections }, (_, n) => flood(n)))
parentPort?.postMessage("done")
