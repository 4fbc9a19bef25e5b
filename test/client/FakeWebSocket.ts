/** A WebSocket without a network: a test plays the hub, and sees what the client does in its order. */
import type { WebSocketConstructor, WebSocketLike } from "../../src/client/index.ts"

export const welcome = {
  connection: "c",
  history: "h",
  expiresAt: null,
  serverTime: 1_000,
  heartbeatMs: 25_000,
  limits: {
    maxFrameBytes: 3_000,
    maxPayloadBytes: 2_000,
    maxMessagesPerFrame: 4,
    maxSubscriptions: 10,
    maxCredit: 10,
    maxAckIds: 10
  }
}

export interface FakeSocket extends WebSocketLike {
  readonly protocols: ReadonlyArray<string> | undefined
  /** Frames that the client sent, parsed. */
  readonly sent: Array<unknown>
  /** The connection is open, and the token, which comes then, is taken. */
  readonly accept: (more?: object) => void
  readonly open: () => void
  /** The hub sends a frame. */
  readonly receive: (frame: unknown) => void
  /** The hub, or the network, ends it. */
  readonly end: (code: number, reason?: string) => void
}

export class FakeNetwork {
  readonly sockets: Array<FakeSocket> = []
  /** `open 1`, `close 1`, `open 2`, …: sockets made, and given up by the client. */
  readonly log: Array<string> = []
  readonly WebSocket: WebSocketConstructor

  constructor() {
    const { log, sockets } = this
    const lastSent = (sent: ReadonlyArray<unknown>): object => [sent.at(-1)].flat().at(-1) as object
    this.WebSocket = class implements FakeSocket {
      readonly #n = sockets.length + 1
      readonly protocols: ReadonlyArray<string> | undefined
      readonly sent: Array<unknown> = []
      readyState = 0
      onopen: FakeSocket["onopen"] = null
      onmessage: FakeSocket["onmessage"] = null
      onclose: FakeSocket["onclose"] = null
      onerror: FakeSocket["onerror"] = null

      constructor(url: string, protocols?: Array<string>) {
        if (!URL.canParse(url)) throw new SyntaxError("the URL is invalid")
        this.protocols = protocols
        log.push(`open ${this.#n}`)
        sockets.push(this)
      }

      send(data: string): void {
        this.sent.push(JSON.parse(data))
      }

      close(): void {
        if (this.readyState < 2) log.push(`close ${this.#n}`)
        this.readyState = 3
      }

      open(): void {
        this.readyState = 1
        this.onopen?.({})
      }

      accept(more: object = {}): void {
        this.open()
        // What the client sends in a turn goes out at its end.
        queueMicrotask(() => {
          const { ref } = lastSent(this.sent) as { readonly ref: number }
          this.receive({ op: "OK", ref, ...welcome, ...more })
        })
      }

      receive(frame: unknown): void {
        this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) })
      }

      end(code: number, reason = ""): void {
        this.readyState = 3
        this.onclose?.({ code, reason })
      }
    }
  }

  get last(): FakeSocket {
    const socket = this.sockets.at(-1)
    if (socket === undefined) throw new Error("there is no socket yet")
    return socket
  }
}
