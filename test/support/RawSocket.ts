/** A TCP connection to a gateway, for what no WebSocket library would send; and the frames for it. */
import { randomBytes } from "node:crypto"
import { connect, type Socket } from "node:net"

export interface FrameOptions {
  readonly opcode?: number
  readonly fin?: boolean
  /** The three reserved bits, as a number of 0 to 7. */
  readonly rsv?: number
  readonly masked?: boolean
  /** What the header says of the length, in place of what it is. */
  readonly length?: bigint
}

const mask = Buffer.from([0x12, 0x34, 0x56, 0x78])

/** A frame of RFC 6455, section 5.2, or what somebody might take for one. */
export const frame = (payload: string | Buffer, options: FrameOptions = {}): Buffer => {
  const { fin = true, length, masked = true, opcode = 1, rsv = 0 } = options
  const data = typeof payload === "string" ? Buffer.from(payload) : payload
  const said = length ?? BigInt(data.length)
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode
  const maskBit = masked ? 0x80 : 0
  let header: Buffer
  if (said < 126n) header = Buffer.from([first, maskBit | Number(said)])
  else if (said < 65_536n) {
    header = Buffer.from([first, maskBit | 126, 0, 0])
    header.writeUInt16BE(Number(said), 2)
  } else {
    header = Buffer.from([first, maskBit | 127, 0, 0, 0, 0, 0, 0, 0, 0])
    header.writeBigUInt64BE(said, 2)
  }
  if (!masked) return Buffer.concat([header, data])
  const hidden = Buffer.from(data)
  for (let i = 0; i < hidden.length; i++) hidden[i]! ^= mask[i % 4]!
  return Buffer.concat([header, mask, hidden])
}

export const closeFrame = (code: number, reason: string | Buffer = ""): Buffer => {
  const number = Buffer.alloc(2)
  number.writeUInt16BE(code)
  return frame(Buffer.concat([number, Buffer.from(reason)]), { opcode: 8 })
}

/** The request of a handshake; headers by name, `undefined` leaves one out. */
export const handshake = (
  headers: Readonly<Record<string, string | undefined>> = {},
  requestLine = "GET / HTTP/1.1"
): string => {
  const all: Readonly<Record<string, string | undefined>> = {
    Host: "127.0.0.1",
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
    "Sec-WebSocket-Protocol": "event-hub.v1",
    ...headers
  }
  const lines = Object.entries(all).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}: ${value}`]
  )
  return `${[requestLine, ...lines].join("\r\n")}\r\n\r\n`
}

/** Frames of a hub: not masked, and whole. */
const framesOf = (bytes: Buffer): ReadonlyArray<{ readonly opcode: number; readonly payload: Buffer }> => {
  const frames: Array<{ readonly opcode: number; readonly payload: Buffer }> = []
  for (let at = 0; at + 2 <= bytes.length;) {
    let length = bytes[at + 1]! & 0x7f
    let begin = at + 2
    if (length === 126) {
      if (begin + 2 > bytes.length) break
      length = bytes.readUInt16BE(begin)
      begin += 2
    } else if (length === 127) {
      if (begin + 8 > bytes.length) break
      length = Number(bytes.readBigUInt64BE(begin))
      begin += 8
    }
    if (begin + length > bytes.length) break
    frames.push({ opcode: bytes[at]! & 0x0f, payload: bytes.subarray(begin, begin + length) })
    at = begin + length
  }
  return frames
}

export class RawSocket {
  readonly socket: Socket
  /** When it is set, what comes is looked through for it, and not kept. */
  #marker: Buffer | undefined
  #chunks: Array<Buffer> = []
  #isClosed = false
  readonly #waiting = new Set<() => void>()
  /** That the connection is over, however. */
  readonly closed: Promise<void>

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on("error", () => {})
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk)
      if (this.#marker !== undefined) this.#look(this.#marker)
      else this.#wake()
    })
    this.closed = new Promise((resolve) => {
      socket.on("close", () => {
        this.#isClosed = true
        this.#wake()
        resolve()
      })
    })
  }

  static async open(url: string): Promise<RawSocket> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port), noDelay: true })
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve)
      socket.once("error", reject)
    })
    return new RawSocket(socket)
  }

  /** Through its handshake. */
  static async connected(url: string, headers?: Readonly<Record<string, string>>): Promise<RawSocket> {
    const raw = await RawSocket.open(url)
    raw.write(handshake(headers))
    await raw.until("101", () => raw.text.includes("\r\n\r\n"))
    if (!raw.text.startsWith("HTTP/1.1 101")) throw new Error(raw.text)
    return raw
  }

  write(...parts: ReadonlyArray<string | Buffer>): void {
    for (const part of parts) if (this.socket.writable) this.socket.write(part)
  }

  #look(marker: Buffer): void {
    const { bytes } = this
    if (bytes.includes(marker)) {
      this.#marker = undefined
      this.#wake()
    }
    this.#chunks = [Buffer.from(bytes.subarray(-marker.length))]
  }

  /** Waits until this text came (true) or the connection is over; what came before it is forgotten. */
  async untilText(text: string): Promise<boolean> {
    const marker = Buffer.from(text)
    this.#marker = marker
    this.#look(marker)
    await this.until(text, () => this.#marker === undefined)
    return this.#marker === undefined
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  get bytes(): Buffer {
    const all = Buffer.concat(this.#chunks)
    this.#chunks = [all]
    return all
  }

  get text(): string {
    return this.bytes.toString("latin1")
  }

  /** The answer to the handshake, up to its empty line. */
  get head(): string {
    return this.text.slice(0, this.text.indexOf("\r\n\r\n"))
  }

  get frames() {
    const { bytes } = this
    return framesOf(bytes.subarray(bytes.indexOf("\r\n\r\n") + 4))
  }

  /** The code of the hub's close frame; nothing when there is none. */
  get closeCode(): number | undefined {
    const close = this.frames.find(({ opcode }) => opcode === 8)
    return close === undefined ? undefined : close.payload.length < 2 ? 1005 : close.payload.readUInt16BE(0)
  }

  /** Waits until it holds, or until the connection is over. */
  async until(what: string, holds: () => boolean, timeoutMs = 60_000): Promise<void> {
    const end = Date.now() + timeoutMs
    while (!holds() && !this.#isClosed) {
      const left = end - Date.now()
      if (left <= 0) throw new Error(`${what} did not come in time`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#waiting.add(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }
}
