/**
 * What goes out on one connection: in order, several messages to a frame, and never more waiting than allowed.
 *
 * Messages of the same turn share a frame on connections that take arrays. Whoever produces for the connection
 * asks `isFull` first; nothing is dropped here.
 */
import type { Duplex } from "node:stream"
import { type Framing, textFrame } from "./frames.ts"

/** A client takes at most this many messages in a frame. */
const maxMessages = 1_000

/** Characters after which a frame is full. */
const maxLength = 256 * 1024

export class Outbound {
  readonly framing: Framing
  readonly #socket: Duplex
  readonly #maxBytes: number
  #messages: Array<string> = []
  #length = 0
  #isScheduled = false
  #isClosed = false

  constructor(socket: Duplex, framing: Framing, maxBytes: number) {
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

  /** Nothing may follow a close frame. */
  close(): void {
    this.flush()
    this.#isClosed = true
  }

  #write(frame: Buffer): void {
    if (!this.#isClosed && this.#socket.writable) this.#socket.write(frame)
  }
}
