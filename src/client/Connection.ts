/**
 * A connection that comes back: one socket at a time, with requests that are answered, and back-off between.
 *
 * It knows nothing of topics. Whoever uses it says what to send first on each new connection, and gets every
 * message that is no answer.
 */
import { afterClose, CloseCode, SUBPROTOCOL } from "../protocol/Codes.ts"
import type { Drain, Err, HubMessage, Ok } from "../protocol/Messages.ts"
import { HubError } from "./HubError.ts"

/** What is needed of a WebSocket: browsers and Node 22 have one, `ws` makes one. */
export interface WebSocketLike {
  readonly readyState: number
  onopen: ((event: never) => void) | null
  onmessage: ((event: { readonly data: unknown }) => void) | null
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null
  onerror: ((event: never) => void) | null
  send: (data: string) => void
  close: (code?: number, reason?: string) => void
}

export type WebSocketConstructor = new (url: string, protocols?: string | Array<string>) => WebSocketLike

/** A token, or where to get one: asked on every connection, and again when the hub wants a new one. */
export type TokenSource = string | (() => string | Promise<string>)

export interface ConnectionOptions {
  /** The constructor to use where there is no global `WebSocket`. */
  readonly WebSocket?: WebSocketConstructor
  /** Longest wait before the first reconnect; each further one doubles it. */
  readonly reconnectBaseMs?: number
  /** Longest wait between two reconnects. */
  readonly reconnectMaxMs?: number
  /** How long an answer may take. */
  readonly requestTimeoutMs?: number
}

/** What the hub says of a connection when it is authenticated. */
export interface Welcome {
  readonly connection: string
  readonly history: string
  readonly serverTime: number
  readonly heartbeatMs: number
  /** Messages that are sent in one frame, and bytes of one. */
  readonly limits: { readonly maxMessagesPerFrame: number; readonly maxFrameBytes: number }
}

export type ConnectionState =
  | { readonly _tag: "idle" }
  | { readonly _tag: "connecting" }
  | { readonly _tag: "ready"; readonly welcome: Welcome }
  /** Between two connections. */
  | { readonly _tag: "waiting"; readonly retryInMs: number }
  /** For good: by `close`, or because the hub will not have this client back. */
  | { readonly _tag: "closed"; readonly error: HubError | undefined }

export interface ConnectionEvents {
  /** A new connection is authenticated; it begins anew, with nothing subscribed. */
  readonly onReady: (welcome: Welcome) => void
  readonly onMessage: (message: HubMessage) => void
  readonly onState: (state: ConnectionState) => void
  /** The connection is gone; answers that were not given will not come. */
  readonly onLost: () => void
}

interface Waiting {
  readonly resolve: (ok: Ok) => void
  readonly reject: (error: HubError) => void
  readonly timer: ReturnType<typeof setTimeout>
}

/** A connection that lasted this long was a good one: the next back-off begins at the bottom. */
const stableAfterMs = 10_000

const open = 1

const errorOf = (err: Err): HubError => new HubError(err.code, err.msg, err.retryable, err.retryAfterMs)

export class Connection {
  readonly #url: string
  readonly #token: TokenSource
  readonly #events: ConnectionEvents
  readonly #options: ConnectionOptions
  #state: ConnectionState = { _tag: "idle" }
  #socket: WebSocketLike | undefined
  #waiting = new Map<number, Waiting>()
  #nextRef = 1
  #outgoing: Array<string> = []
  #attempts = 0
  #readyAt = 0
  #drainMs: number | undefined
  #lastToken: string | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #heartbeat: ReturnType<typeof setInterval> | undefined

  constructor(url: string, token: TokenSource, events: ConnectionEvents, options: ConnectionOptions) {
    this.#url = url
    this.#token = token
    this.#events = events
    this.#options = options
  }

  get state(): ConnectionState {
    return this.#state
  }

  start(): void {
    if (this.#state._tag === "idle") void this.#connect(false)
  }

  /** Ends it. What waits for an answer is told. */
  close(error?: HubError): void {
    if (this.#state._tag === "closed") return
    this.#enter({ _tag: "closed", error })
    this.#drop(CloseCode.normal)
  }

  /** Sends a message that is not answered. False: there is no connection. */
  send(message: object): boolean {
    if (this.#state._tag !== "ready") return false
    this.#push(message)
    return true
  }

  /** Sends a message and waits for its answer; fails at once when there is no connection. */
  request(message: object): Promise<Ok> {
    return this.#state._tag === "ready"
      ? this.#ask(message)
      : Promise.reject(new HubError("closed", "there is no connection", true))
  }

  // --- messages ----------------------------------------------------------------------------------------------

  #ask(message: object): Promise<Ok> {
    const ref = this.#nextRef++
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(ref)
        reject(new HubError("timeout", "the hub did not answer in time", true))
      }, this.#options.requestTimeoutMs ?? 10_000)
      this.#waiting.set(ref, { resolve, reject, timer })
      this.#push({ ...message, ref })
    })
  }

  /** What is sent in the same turn goes in one frame. */
  #push(message: object): void {
    this.#outgoing.push(JSON.stringify(message))
    if (this.#outgoing.length === 1) queueMicrotask(() => this.#flush())
  }

  #flush(): void {
    const messages = this.#outgoing
    this.#outgoing = []
    const socket = this.#socket
    if (socket === undefined || socket.readyState !== open) return
    const limits = this.#state._tag === "ready" ? this.#state.welcome.limits : undefined
    // A character is at most three bytes of UTF-8.
    const maxLength = (limits?.maxFrameBytes ?? 65_536) / 3
    const maxMessages = limits?.maxMessagesPerFrame ?? 1
    let frame: Array<string> = []
    let length = 0
    const emit = () => {
      if (frame.length === 1) socket.send(frame[0]!)
      else if (frame.length > 1) socket.send(`[${frame.join(",")}]`)
      frame = []
      length = 0
    }
    for (const message of messages) {
      if (frame.length === maxMessages || length + message.length > maxLength) emit()
      frame.push(message)
      length += message.length + 1
    }
    emit()
  }

  #received(data: unknown): void {
    let value: unknown
    try {
      value = JSON.parse(String(data))
    } catch {
      return
    }
    for (const message of Array.isArray(value) ? value : [value]) this.#dispatch(message as HubMessage)
  }

  #dispatch(message: HubMessage): void {
    if ((message.op === "OK" || message.op === "ERR") && typeof message.ref === "number") {
      const waiting = this.#waiting.get(message.ref)
      if (waiting === undefined) return
      this.#waiting.delete(message.ref)
      clearTimeout(waiting.timer)
      if (message.op === "OK") waiting.resolve(message)
      else waiting.reject(errorOf(message))
    } else {
      if (message.op === "DRAIN") this.#drainMs = (message as Drain).retryAfterMs
      this.#events.onMessage(message)
    }
  }

  // --- the socket --------------------------------------------------------------------------------------------

  #enter(state: ConnectionState): void {
    this.#state = state
    this.#events.onState(state)
  }

  async #connect(renew: boolean): Promise<void> {
    this.#enter({ _tag: "connecting" })
    let token: string
    try {
      token = typeof this.#token === "string" ? this.#token : await this.#token()
    } catch {
      return this.#retry(this.#backoff())
    }
    if (this.#state._tag !== "connecting") return
    if (renew && token === this.#lastToken) {
      return this.close(new HubError("token_expired", "the hub wants a new token, and there is none"))
    }
    this.#lastToken = token
    const make = this.#options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket
    if (make === undefined) return this.close(new HubError("closed", "there is no WebSocket here; pass one"))
    const socket = new make(this.#url, [SUBPROTOCOL])
    this.#socket = socket
    socket.onopen = () => {
      if (socket === this.#socket) this.#authenticate(token)
    }
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#received(data)
    }
    socket.onerror = () => {}
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#lost(code, reason)
    }
  }

  #authenticate(token: string): void {
    this.#ask({ op: "AUTH", token }).then(
      (ok) => {
        const welcome = ok as unknown as Welcome
        this.#readyAt = Date.now()
        this.#drainMs = undefined
        this.#enter({ _tag: "ready", welcome })
        // Browsers cannot see the hub's pings: an answer to our own says that the way is open.
        this.#heartbeat = setInterval(() => {
          this.#ask({ op: "PING" }).catch(() => this.#drop(CloseCode.heartbeatLost, true))
        }, welcome.heartbeatMs)
        this.#events.onReady(welcome)
      },
      // The hub closes the connection after a refusal, and its code says what to do.
      (error: HubError) => {
        if (error.code === "timeout") this.#drop(CloseCode.heartbeatLost, true)
      }
    )
  }

  /** Gives the socket up; no two are ever open at a time. */
  #drop(code: number, again = false): void {
    const socket = this.#socket
    this.#socket = undefined
    this.#forget()
    if (socket !== undefined) {
      socket.onopen = socket.onmessage = socket.onclose = null
      // Closing a socket that is not open yet may report an error, which is no news.
      socket.onerror = () => {}
      socket.close(code === CloseCode.normal ? code : 4000)
    }
    if (again) this.#retry(this.#backoff())
  }

  #forget(): void {
    clearTimeout(this.#timer)
    clearInterval(this.#heartbeat)
    this.#outgoing = []
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const { reject, timer } of waiting) {
      clearTimeout(timer)
      reject(new HubError("closed", "the connection was lost", true))
    }
    this.#events.onLost()
  }

  #lost(code: number, reason: string): void {
    const wasStable = this.#readyAt > 0 && Date.now() - this.#readyAt >= stableAfterMs
    if (wasStable) this.#attempts = 0
    this.#readyAt = 0
    this.#socket = undefined
    this.#forget()
    if (this.#state._tag === "closed") return
    switch (afterClose(code)) {
      case "stop":
        return this.close(new HubError("closed", `the hub closed the connection: ${code} ${reason}`.trim()))
      case "renew":
        return void this.#connect(true)
      case "wait":
      case "reconnect":
        return this.#retry(this.#drainMs ?? this.#backoff())
    }
  }

  /** Full jitter: see domain/Retry of the hub. */
  #backoff(): number {
    const { reconnectBaseMs = 500, reconnectMaxMs = 30_000 } = this.#options
    const cap = Math.min(reconnectMaxMs, reconnectBaseMs * 2 ** this.#attempts++)
    return Math.round(Math.random() * cap)
  }

  #retry(retryInMs: number): void {
    if (this.#state._tag === "closed") return
    this.#enter({ _tag: "waiting", retryInMs })
    this.#timer = setTimeout(() => void this.#connect(false), retryInMs)
  }
}
