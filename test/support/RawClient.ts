/** A WebSocket client that knows nothing of the protocol but JSON: what it sends and gets is what is on the wire. */
import { once } from "node:events"
import { type ClientOptions, WebSocket } from "ws"
import { tokenFor, type TokenOptions } from "./tokens.ts"

/** A message of the hub, as it came. */
export type Message = Readonly<Record<string, unknown>> & { readonly op: string }

export interface Closed {
  readonly code: number
  readonly reason: string
}

export interface ConnectOptions {
  /** `[]`: none is offered, as old clients do. */
  readonly protocols?: ReadonlyArray<string>
  readonly ws?: ClientOptions
}

const timeoutMs = 30_000

const messagesOf = (frame: unknown): ReadonlyArray<Message> =>
  (Array.isArray(frame) ? frame : [frame]) as Message[]

export class RawClient {
  /** Every message since the connection was made, and every frame, parsed. */
  readonly messages: Array<Message> = []
  readonly frames: Array<unknown> = []
  readonly socket: WebSocket
  readonly closed: Promise<Closed>
  /** Called with the messages of each frame, for clients that react at once. */
  onFrame: (messages: ReadonlyArray<Message>) => void = () => {}
  #next = 0
  readonly #waiting = new Set<() => void>()

  private constructor(socket: WebSocket) {
    this.socket = socket
    socket.on("message", (data: Buffer) => {
      const frame: unknown = JSON.parse(data.toString())
      this.frames.push(frame)
      const messages = messagesOf(frame)
      this.messages.push(...messages)
      if (socket.readyState === WebSocket.OPEN) this.onFrame(messages)
      this.#wake()
    })
    this.closed = new Promise((resolve) => {
      socket.on("close", (code, reason) => {
        resolve({ code, reason: reason.toString() })
        this.#wake()
      })
    })
  }

  /** Rejects with the HTTP status when the hub refuses the upgrade. */
  static async connect(url: string, options: ConnectOptions = {}): Promise<RawClient> {
    const socket = new WebSocket(url, [...(options.protocols ?? ["event-hub.v1"])], options.ws)
    const client = new RawClient(socket)
    const refused = new Promise<never>((_resolve, reject) => {
      socket.on("unexpected-response", (_request, response) => {
        response.resume()
        reject(new Error(`HTTP ${response.statusCode}`))
      })
      socket.on("error", reject)
    })
    await Promise.race([once(socket, "open"), refused])
    return client
  }

  /** Connected, with AUTH answered by OK. */
  static async authenticated(
    url: string,
    token: TokenOptions = {},
    options?: ConnectOptions
  ): Promise<RawClient> {
    const client = await RawClient.connect(url, options)
    const answer = await client.request({ op: "AUTH", token: await tokenFor(token) })
    if (answer.op !== "OK") throw new Error(`AUTH was refused: ${JSON.stringify(answer)}`)
    return client
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === "string" ? frame : JSON.stringify(frame))
  }

  /** The first message, from the first one on, for which `is` holds; waits for it. */
  async waitFor(what: string, is: (message: Message) => boolean): Promise<Message> {
    return (await this.waitForAll(what, is, 1))[0]!
  }

  /** The first `n` messages for which `is` holds, in their order; waits until they are there. */
  async waitForAll(
    what: string,
    is: (message: Message) => boolean,
    n: number
  ): Promise<ReadonlyArray<Message>> {
    const until = Date.now() + timeoutMs
    for (;;) {
      const found = this.messages.filter(is)
      if (found.length >= n) return found.slice(0, n)
      const left = until - Date.now()
      if (left <= 0 || this.socket.readyState >= WebSocket.CLOSING) {
        throw new Error(`${what} did not come; there is ${JSON.stringify(this.messages.slice(-20))}`)
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#waiting.add(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  /** Sends with a fresh `ref` and waits for its answer. */
  request(message: Readonly<Record<string, unknown>>): Promise<Message> {
    const ref = `r${++this.#next}`
    this.send({ ...message, ref })
    return this.waitFor(`the answer to ${String(message["op"])}`, (answer) => answer["ref"] === ref)
  }

  events(n: number, is: (message: Message) => boolean = () => true): Promise<ReadonlyArray<Message>> {
    return this.waitForAll(`${n} events`, (message) => message.op === "EVENT" && is(message), n)
  }

  /**
   * Waits for a round trip: what the hub had to say about earlier messages of this connection is here then,
   * so a test may look for what must not have come.
   */
  async settled(): Promise<void> {
    await this.request({ op: "PING" })
    await this.request({ op: "PING" })
  }

  async close(): Promise<void> {
    this.socket.close()
    await this.closed
  }
}
