/**
 * What goes out on one connection: in order, several messages to a frame, and never more waiting than allowed.
 *
 * Messages of the same turn share a frame on connections that take arrays. Whoever produces for the connection
 * asks `isFull` first; nothing is dropped here.
 */
import type { Duplex } from "node:stream"
import { WebSocket } from "ws"
import { type Framing, maxMessages, textFrame } from "./frames.ts"

/** Characters after which a frame is full. */
const maxLength = 256 * 1024

export class Outbound {
  readonly framing: Framing
  readonly #ws: WebSocket
  readonly #socket: Duplex
  readonly #maxBytes: number
  #messages: Array<string> = []
  #length = 0
  #isScheduled = false

  constructor(ws: WebSocket, socket: Duplex, framing: Framing, maxBytes: number) {
    this.#ws = ws
    this.#socket = socket
    this.framing = framing
    this.#maxBytes = maxBytes
  }

  /** Bytes that the client has not read yet. */
  get bytes(): number {
    return this.#socket.writableLength + this.#length
  }

  get isFull(): boolean {
    return this.bytes >= this.#maxBytes
  }

  send(message: string): void {
    this.#messages.push(message)
    this.#length += message.length
    if (this.#messages.length === maxMessages || this.#length >= maxLength) return this.flush()
    if (this.#isScheduled) return
    this.#isScheduled = true
    queueMicrotask(() => this.flush())
  }

  /** Frames that others get, too. */
  sendFrames(frames: ReadonlyArray<Buffer>): void {
    this.flush()
    for (const frame of frames) this.#write(frame)
  }

  flush(): void {
    this.#isScheduled = false
    const messages = this.#messages
    if (messages.length === 0) return
    this.#messages = []
    this.#length = 0
    if (this.framing === "array" && messages.length > 1) this.#write(textFrame(`[${messages.join(",")}]`))
    else for (const message of messages) this.#write(textFrame(message))
  }

  #write(frame: Buffer): void {
    // Nothing may follow a close frame: RFC 6455, section 5.5.1.
    if (this.#ws.readyState === WebSocket.OPEN && this.#socket.writable) this.#socket.write(frame)
  }
}
