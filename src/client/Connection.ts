/**
 * A connection that comes back: one socket at a time, with requests that are answered, and back-off between.
 *
 * It knows nothing of topics. Whoever uses it says what to send first on each new connection, and gets every
 * message that is no answer.
 */
import { afterClose, CloseCode, SUBPROTOCOL } from "../protocol/Codes.ts"
import type { ConnectionLimits, Err, HubMessage, Ok } from "../protocol/Messages.ts"
import { HubError } from "./HubError.ts"

/** As a method, so that it takes what the browser, Node and `ws` each have as their event. */
type Listener<E> = { listen(event: E): void }["listen"] | null

/** What is needed of a WebSocket: browsers and Node 22 have one, `ws` makes one. */
export interface WebSocketLike {
  readonly readyState: number
  onopen: Listener<unknown>
  onmessage: Listener<{ readonly data: unknown }>
  onclose: Listener<{ readonly code: number; readonly reason: string }>
  onerror: Listener<unknown>
  send: (data: string) => void
  close: (code?: number, reason?: string) => void
}

export type WebSocketConstructor = new (url: string, protocols?: Array<string>) => WebSocketLike

/** A token, or where to get one: asked on every connection, and again when the hub wants a new one. */
export type TokenSource = string | (() => string | Promise<string>)

export interface ConnectionOptions {
  /** The constructor to use where there is no global `WebSocket`. */
  readonly WebSocket?: WebSocketConstructor
  /** Longest wait before the first reconnect; each further one doubles it. */
  readonly reconnectBaseMs?: number
  /** Longest wait between two reconnects. */
  readonly reconnectMaxMs?: number
  /** How long an answer, and opening a socket, may take. */
  readonly requestTimeoutMs?: number
}

/** What the hub says of a connection when it is authenticated. */
export interface Welcome {
  readonly connection: string
  /** The life of the store: positions of one mean nothing in another. */
  readonly history: string
  /** When the token ends, in milliseconds since 1970; `null` for one that does not. */
  readonly expiresAt: number | null
  readonly serverTime: number
  readonly heartbeatMs: number
  readonly limits: ConnectionLimits
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
  readonly onReady: () => void
  readonly onMessage: (message: HubMessage) => void
  readonly onState: (state: ConnectionState) => void
  /** The connection is gone; answers that were not given will not come. */
  readonly onLost: () => void
  /** There is no token; it is asked for again. */
  readonly onError: (error: unknown) => void
}

/** A message, or the JSON of one. */
export type Outgoing = object | string

interface Waiting {
  readonly resolve: (ok: Ok) => void
  readonly reject: (error: HubError) => void
  readonly timer: ReturnType<typeof setTimeout>
}

/** A connection that lasted this long was a good one: the next back-off begins at the bottom. */
const stableAfterMs = 10_000

const open = 1

const errorOf = (err: Err): HubError => new HubError(err.code, err.msg, err.retryable, err.retryAfterMs)

const jsonOf = (message: Outgoing): string =>
  typeof message === "string" ? message : JSON.stringify(message)

/** The hub is trusted to know its own messages. */
const isMessage = (value: unknown): value is HubMessage =>
  typeof value === "object" && value !== null && "op" in value

/** A character of a string is at most three bytes of UTF-8. */
const isLonger = (text: string, maxBytes: number): boolean =>
  text.length * 3 > maxBytes && new TextEncoder().encode(text).length > maxBytes

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
  /** Connections that were tried since the last good one. */
  #attempts = 0
  #readyAt: number | undefined
  /** The hub said when to come back: after its goodbye, and after a refusal. */
  #drainMs: number | undefined
  #retryAfterMs: number | undefined
  /** Why the hub did not take the token; the number of its close says only what to do. */
  #refusal: HubError | undefined
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

  /** The hub's clock, or a little less. */
  get hubTime(): number {
    if (this.#state._tag !== "ready" || this.#readyAt === undefined) return 0
    return Math.floor(this.#state.welcome.serverTime + performance.now() - this.#readyAt)
  }

  start(): void {
    if (this.#state._tag === "idle") void this.#connect(false)
  }

  /** Ends it. What was sent goes out; what waits for an answer is told. */
  close(error?: HubError): void {
    if (this.#state._tag === "closed") return
    this.#flush()
    this.#enter({ _tag: "closed", error })
    this.#release()
  }

  /** Sends a message that is not answered; without a connection it does nothing. */
  send(message: Outgoing): void {
    if (this.#state._tag === "ready") this.#push(jsonOf(message))
  }

  /** Sends a message and waits for its answer; fails at once when there is no connection. */
  request(message: Outgoing): Promise<Ok> {
    return new Promise((resolve, reject) => {
      if (this.#state._tag === "ready") this.#ask(message, resolve, reject)
      else reject(new HubError("closed", "there is no connection", true))
    })
  }

  // --- messages ----------------------------------------------------------------------------------------------

  #ask(message: Outgoing, resolve: Waiting["resolve"], reject: Waiting["reject"]): void {
    const ref = this.#nextRef++
    const json = `${jsonOf(message).slice(0, -1)},"ref":${ref}}`
    // The hub would answer by closing the connection.
    if (this.#state._tag === "ready" && isLonger(json, this.#state.welcome.limits.maxFrameBytes)) {
      return reject(new HubError("payload_too_large", "the message is larger than a frame of the hub"))
    }
    const timer = setTimeout(() => {
      this.#waiting.delete(ref)
      reject(new HubError("timeout", "the hub did not answer in time", true))
    }, this.#requestTimeoutMs)
    this.#waiting.set(ref, { resolve, reject, timer })
    this.#push(json)
  }

  get #requestTimeoutMs(): number {
    return this.#options.requestTimeoutMs ?? 10_000
  }

  /** What is sent in the same turn goes in one frame. */
  #push(json: string): void {
    this.#outgoing.push(json)
    if (this.#outgoing.length === 1) queueMicrotask(() => this.#flush())
  }

  #flush(): void {
    const messages = this.#outgoing
    this.#outgoing = []
    const socket = this.#socket
    if (socket === undefined || socket.readyState !== open) return
    const limits = this.#state._tag === "ready" ? this.#state.welcome.limits : undefined
    const maxLength = (limits?.maxFrameBytes ?? 0) / 3
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
      if (frame.length === maxMessages || length + message.length + 2 > maxLength) emit()
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
    for (const message of Array.isArray(value) ? value : [value]) {
      if (isMessage(message)) this.#dispatch(message)
    }
  }

  #dispatch(message: HubMessage): void {
    if (message.op === "ERR") this.#retryAfterMs = message.retryAfterMs
    if ((message.op === "OK" || message.op === "ERR") && typeof message.ref === "number") {
      const waiting = this.#waiting.get(message.ref)
      if (waiting === undefined) return
      this.#waiting.delete(message.ref)
      clearTimeout(waiting.timer)
      if (message.op === "OK") waiting.resolve(message)
      else waiting.reject(errorOf(message))
    } else {
      if (message.op === "DRAIN") this.#drainMs = message.retryAfterMs
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
      token = await (typeof this.#token === "string" ? this.#token : this.#token())
    } catch (error) {
      if (this.#state._tag !== "connecting") return
      this.#events.onError(error)
      return this.#retry(this.#backoff(), renew)
    }
    if (this.#state._tag !== "connecting") return
    if (renew && token === this.#lastToken) {
      return this.close(new HubError("token_expired", "the hub wants a new token, and there is none"))
    }
    this.#lastToken = token
    const make = this.#options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket
    if (make === undefined) return this.close(new HubError("closed", "there is no WebSocket here; pass one"))
    let socket: WebSocketLike
    try {
      socket = new make(this.#url, [SUBPROTOCOL])
    } catch (error) {
      return this.close(new HubError("closed", `cannot connect to '${this.#url}': ${String(error)}`))
    }
    this.#socket = socket
    this.#timer = setTimeout(() => this.#silent(), this.#requestTimeoutMs)
    socket.onopen = () => {
      clearTimeout(this.#timer)
      this.#authenticate(token)
    }
    socket.onmessage = ({ data }) => this.#received(data)
    socket.onerror = () => {}
    socket.onclose = ({ code, reason }) => this.#lost(code, reason)
  }

  #authenticate(token: string): void {
    this.#ask(
      { op: "AUTH", token },
      (ok) => this.#welcomed(ok as unknown as Welcome),
      (error) => {
        if (error.code === "timeout") this.#silent()
        else if (error.code !== "closed") this.#refusal = error
      }
    )
  }

  #welcomed(welcome: Welcome): void {
    this.#readyAt = performance.now()
    // Browsers cannot see the hub's pings: an answer to our own says that the way is open.
    const ping = () =>
      this.#ask(
        { op: "PING" },
        () => {},
        (error) => {
          if (error.code === "timeout") this.#silent()
        }
      )
    this.#heartbeat = setInterval(ping, welcome.heartbeatMs)
    this.#enter({ _tag: "ready", welcome })
    if (this.#state._tag === "ready") this.#events.onReady()
  }

  /** Nothing comes any more, and the socket does not know it. */
  #silent(): void {
    this.#lost(CloseCode.heartbeatLost, "")
  }

  /** Gives the socket up, before another is opened. */
  #release(): void {
    const socket = this.#socket
    const waiting = [...this.#waiting.values()]
    if (this.#readyAt !== undefined && performance.now() - this.#readyAt >= stableAfterMs) this.#attempts = 0
    clearTimeout(this.#timer)
    clearInterval(this.#heartbeat)
    this.#socket = this.#readyAt = this.#refusal = this.#drainMs = this.#retryAfterMs = undefined
    this.#outgoing = []
    this.#waiting.clear()
    if (socket !== undefined) {
      socket.onopen = socket.onmessage = socket.onclose = null
      // Closing a socket that is not open yet may report an error, which is no news.
      socket.onerror = () => {}
      socket.close(CloseCode.normal)
    }
    for (const { reject, timer } of waiting) {
      clearTimeout(timer)
      reject(new HubError("closed", "the connection was lost", true))
    }
    this.#events.onLost()
  }

  #lost(code: number, reason: string): void {
    const drainMs = this.#drainMs
    const refusal = this.#refusal
    const retryAfterMs = this.#retryAfterMs ?? 0
    this.#release()
    switch (afterClose(code)) {
      case "stop":
        return this.close(
          refusal ?? new HubError("closed", `the hub closed the connection: ${code} ${reason}`.trim())
        )
      case "renew":
        // At once; but a hub that never likes the new one is not asked again without a pause.
        if (this.#attempts > 0) return this.#retry(this.#backoff(), true)
        this.#attempts++
        return void this.#connect(true)
      case "wait":
        return this.#retry(Math.max(retryAfterMs, this.#backoff()))
      case "reconnect":
        return this.#retry(drainMs ?? this.#backoff())
    }
  }

  /** Full jitter: see domain/Retry of the hub. */
  #backoff(): number {
    const { reconnectBaseMs = 500, reconnectMaxMs = 30_000 } = this.#options
    const cap = Math.min(reconnectMaxMs, reconnectBaseMs * 2 ** this.#attempts++)
    return Math.round(Math.random() * cap)
  }

  #retry(retryInMs: number, renew = false): void {
    this.#timer = setTimeout(() => void this.#connect(renew), retryInMs)
    this.#enter({ _tag: "waiting", retryInMs })
  }
}
