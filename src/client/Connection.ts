/**
 * A connection that comes back: one socket at a time, with requests that are answered, and back-off between.
 *
 * It knows nothing of topics. Whoever uses it says what to send first on each new connection, and gets every
 * message that is no answer.
 */
import { afterClose, type CloseCode, SUBPROTOCOL } from "../protocol/Codes.ts"
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

/** A token, or where to get one: asked on every connection, before the token ends, and when the hub wants a new one. */
export type TokenSource = string | (() => string | Promise<string>)

export interface ConnectionOptions {
  /** The constructor to use where there is no global `WebSocket`. */
  readonly WebSocket?: WebSocketConstructor
  /** Longest wait before the first reconnect; each further one doubles it. */
  readonly reconnectBaseMs?: number
  /** Longest wait between two reconnects. */
  readonly reconnectMaxMs?: number
  /** A connection that lasted this long was a good one: the next back-off begins at the bottom. */
  readonly stableAfterMs?: number
  /** How long an answer, and opening a socket, may take. */
  readonly requestTimeoutMs?: number
  /**
   * How long before its end a token is replaced, on the same connection: a tenth of its life by default, at most a
   * minute. 0 for never: the hub closes the connection then, and the next one has another token.
   */
  readonly refreshBeforeMs?: number
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
  /**
   * There is no token, or the hub does not take it in the place of the one before: it is asked for again. Or the hub
   * refused what was sent without waiting for an answer.
   */
  readonly onError: (error: unknown) => void
}

/** A message, or the JSON of one. */
export type Outgoing = object | string

interface Waiting {
  readonly resolve: (ok: Ok) => void
  readonly reject: (error: HubError) => void
  readonly timer: ReturnType<typeof setTimeout>
}

const open = 1

/** What a timer can wait, 25 days; asked for more, it does not wait at all. */
const maxTimerMs = 2 ** 31 - 1

/** A token is not replaced more often. */
const minRefreshMs = 1_000

type Listening = (type: string, listener: (event: { readonly type: string }) => void) => void

/** What a page knows of its network and of being looked at. Workers have less, and Node nothing. */
interface Page {
  readonly addEventListener?: Listening
  readonly removeEventListener?: Listening
  readonly document?: {
    readonly visibilityState: string
    readonly addEventListener: Listening
    readonly removeEventListener: Listening
  }
}

const page = (): Page => globalThis as Page

const errorOf = (err: Err): HubError => new HubError(err.code, err.msg, err.retryable, err.retryAfterMs)

const lostError = (): HubError => new HubError("closed", "there is no connection", true)

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
  /** Counts connections that ended: what came by one of them is not answered on the next. */
  epoch = 0
  #state: ConnectionState = { _tag: "idle" }
  #socket: WebSocketLike | undefined
  #waiting = new Map<number, Waiting>()
  #nextRef = 1
  #outgoing: Array<string> = []
  /** Connections that were tried since the last good one. */
  #attempts = 0
  /** Of the connection there is, when it is ready. */
  #welcome: Welcome | undefined
  #readyAt = 0
  /** The hub said when to come back: after its goodbye, and after a refusal. */
  #drainMs: number | undefined
  #retryAfterMs: number | undefined
  /** Why the hub did not take the token; the number of its close says only what to do. */
  #refusal: HubError | undefined
  #lastToken: string | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #refreshTimer: ReturnType<typeof setTimeout> | undefined
  /** Ends a wait that the hub did not ask for. */
  #hurry: (() => void) | undefined
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
    return this.#welcome ? Math.floor(this.#welcome.serverTime + performance.now() - this.#readyAt) : 0
  }

  start(): void {
    if (this.#state._tag !== "idle") return
    this.#listen("addEventListener")
    void this.#connect(false)
  }

  /** Ends it. What was sent goes out; what waits for an answer is told. */
  close(error?: HubError): void {
    if (this.#state._tag === "closed") return
    this.#flush()
    this.#listen("removeEventListener")
    this.#enter({ _tag: "closed", error })
    this.#release()
  }

  /** Sends a message that is not answered; without a connection it does nothing. */
  send(message: Outgoing): void {
    if (this.#welcome) this.#push(jsonOf(message))
  }

  /** Sends a message and waits for its answer; fails at once when there is no connection. */
  request(message: Outgoing): Promise<Ok> {
    return new Promise((resolve, reject) => {
      if (this.#welcome) this.ask(message, resolve, reject)
      else reject(lostError())
    })
  }

  /** The same without a promise, and only for who knows that it is ready. */
  ask(message: Outgoing, resolve: Waiting["resolve"], reject: Waiting["reject"]): void {
    const ref = this.#nextRef++
    const json = `${jsonOf(message).slice(0, -1)},"ref":${ref}}`
    // The hub would answer by closing the connection.
    if (this.#welcome && isLonger(json, this.#welcome.limits.maxFrameBytes)) {
      return reject(new HubError("payload_too_large", "larger than a frame of the hub"))
    }
    const timer = setTimeout(() => {
      this.#waiting.delete(ref)
      reject(new HubError("timeout", "the hub did not answer in time", true))
    }, this.#requestTimeoutMs)
    this.#waiting.set(ref, { resolve, reject, timer })
    this.#push(json)
  }

  // --- messages ----------------------------------------------------------------------------------------------

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
    if (socket?.readyState !== open) return
    const { maxFrameBytes = 0, maxMessagesPerFrame = 1 } = this.#welcome?.limits ?? {}
    let frame = ""
    let count = 0
    // An empty one ends it.
    for (const json of [...messages, ""]) {
      const isFull = count === maxMessagesPerFrame || frame.length + json.length + 2 > maxFrameBytes / 3
      if (count > 0 && (isFull || !json)) {
        socket.send(count > 1 ? `[${frame}]` : frame)
        frame = ""
        count = 0
      }
      frame += count++ > 0 ? `,${json}` : json
    }
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
    if (message.op === "EVENT") return this.#events.onMessage(message)
    if (message.op === "ERR") this.#retryAfterMs = message.retryAfterMs
    if ((message.op === "OK" || message.op === "ERR") && typeof message.ref === "number") {
      const waiting = this.#waiting.get(message.ref)
      if (!waiting) return
      this.#waiting.delete(message.ref)
      clearTimeout(waiting.timer)
      if (message.op === "OK") waiting.resolve(message)
      else waiting.reject(errorOf(message))
    } else if (message.op === "ERR") this.#events.onError(errorOf(message))
    else if (message.op === "DRAIN") this.#drainMs = message.retryAfterMs
    else this.#events.onMessage(message)
  }

  // --- the socket --------------------------------------------------------------------------------------------

  #enter(state: ConnectionState): void {
    this.#state = state
    this.#events.onState(state)
  }

  async #nextToken(): Promise<string> {
    return typeof this.#token === "string" ? this.#token : this.#token()
  }

  async #connect(renew: boolean): Promise<void> {
    this.#enter({ _tag: "connecting" })
    let token: string
    try {
      token = await this.#nextToken()
    } catch (error) {
      if (this.#state._tag !== "connecting") return
      this.#events.onError(error)
      return this.#retry(this.#backoff(), renew)
    }
    if (this.#state._tag !== "connecting") return
    if (renew && token === this.#lastToken) {
      return this.close(new HubError("token_expired", "there is no new token"))
    }
    this.#lastToken = token
    const make = this.#options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket
    let socket: WebSocketLike
    try {
      if (!make) throw new Error("no WebSocket here; pass one")
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

  /** Asks what keeps the connection: when no answer comes, nothing does. */
  #probe(message: Outgoing, answered: Waiting["resolve"], refused: Waiting["reject"] = () => {}): void {
    this.ask(message, answered, (error) => {
      if (error.code === "timeout") this.#silent()
      else if (error.code !== "closed") refused(error)
    })
  }

  #authenticate(token: string): void {
    const welcomed = (ok: Ok) => {
      const welcome = ok as unknown as Welcome
      this.#readyAt = performance.now()
      this.#heartbeat = setInterval(this.#ping, welcome.heartbeatMs)
      this.#welcome = welcome
      this.#enter({ _tag: "ready", welcome })
      if (!this.#welcome) return
      this.#refreshBefore(welcome.expiresAt)
      this.#events.onReady()
    }
    this.#probe({ op: "AUTH", token }, welcomed, (error) => (this.#refusal = error))
  }

  /** Browsers cannot see the hub's pings: an answer to our own says that the way is open. */
  readonly #ping = (): void => this.#probe({ op: "PING" }, () => {})

  // --- the token ---------------------------------------------------------------------------------------------

  #refreshBefore(expiresAt: number | null): void {
    if (typeof this.#token === "string" || expiresAt === null) return
    const lifeMs = expiresAt - this.hubTime
    const { refreshBeforeMs = Math.min(60_000, lifeMs / 10) } = this.#options
    if (refreshBeforeMs > 0) this.#refreshIn(lifeMs - refreshBeforeMs, 0)
  }

  #refreshIn(ms: number, failures: number): void {
    const waitMs = Math.min(maxTimerMs, Math.max(minRefreshMs, ms))
    this.#refreshTimer = setTimeout(() => void this.#refresh(failures), waitMs)
  }

  /** Subscriptions stay, and the state: whoever has the right to something goes on. */
  async #refresh(failures: number): Promise<void> {
    const socket = this.#socket
    const again = () => this.#refreshIn(this.#jitter(failures), failures + 1)
    const failed = (error: unknown) => {
      if (socket !== this.#socket) return
      again()
      this.#events.onError(error)
    }
    let token: string
    try {
      token = await this.#nextToken()
    } catch (error) {
      return failed(error)
    }
    if (socket !== this.#socket) return
    // The one there is: the next one is not made yet.
    if (token === this.#lastToken) return again()
    this.#probe(
      { op: "AUTH", token },
      (ok) => {
        const { expiresAt } = ok as unknown as Welcome
        this.#lastToken = token
        this.#welcome = { ...this.#welcome!, expiresAt }
        this.#state = { _tag: "ready", welcome: this.#welcome }
        this.#refreshBefore(expiresAt)
      },
      (error) => {
        // The others are followed by a close.
        if (error.code === "forbidden" || error.retryable) failed(error)
        else this.#refusal = error
      }
    )
  }

  // --- the page ----------------------------------------------------------------------------------------------

  #listen(how: "addEventListener" | "removeEventListener"): void {
    page()[how]?.("online", this.#wake)
    page().document?.[how]("visibilitychange", this.#wake)
  }

  /** The network is back, or somebody looks: the time to see how the connection is. */
  readonly #wake = ({ type }: { readonly type: string }): void => {
    if (type !== "online" && page().document?.visibilityState !== "visible") return
    if (this.#welcome) this.#ping()
    else this.#hurry?.()
  }

  // --- the end of a connection -------------------------------------------------------------------------------

  /** Nothing comes any more, and the socket does not know it. */
  #silent(): void {
    this.#lost(4001 satisfies CloseCode, "")
  }

  /** Gives the socket up, before another is opened. */
  #release(): void {
    const socket = this.#socket
    const waiting = [...this.#waiting.values()]
    this.epoch++
    const { stableAfterMs = 10_000 } = this.#options
    if (this.#welcome && performance.now() - this.#readyAt >= stableAfterMs) this.#attempts = 0
    clearTimeout(this.#timer)
    clearTimeout(this.#refreshTimer)
    clearInterval(this.#heartbeat)
    this.#socket = this.#welcome = this.#hurry = undefined
    this.#refusal = this.#drainMs = this.#retryAfterMs = undefined
    this.#outgoing = []
    this.#waiting.clear()
    if (socket) {
      // Not `onerror`: closing a socket that is not open yet may report an error, which is no news.
      socket.onopen = socket.onmessage = socket.onclose = null
      socket.close(1000 satisfies CloseCode)
    }
    for (const { reject, timer } of waiting) {
      clearTimeout(timer)
      reject(lostError())
    }
    this.#events.onLost()
  }

  #lost(code: number, reason: string): void {
    const drainMs = this.#drainMs
    const refusal = this.#refusal
    const retryAfterMs = this.#retryAfterMs ?? 0
    this.#release()
    // A token that ended on its way is replaced, as one that ends later.
    switch (refusal?.code === "token_expired" ? "renew" : afterClose(code)) {
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
        return this.#retry(Math.max(retryAfterMs, this.#backoff()), false, true)
      case "reconnect":
        if (drainMs === undefined) return this.#retry(this.#backoff())
        // All clients of the hub are on their way: those whose slot is before it is back spread out, too.
        this.#attempts = 2
        return this.#retry(drainMs, false, true)
    }
  }

  #backoff(): number {
    return this.#jitter(this.#attempts++)
  }

  /** Full jitter: see domain/Retry of the hub. */
  #jitter(attempts: number): number {
    const { reconnectBaseMs = 500, reconnectMaxMs = 30_000 } = this.#options
    return Math.round(Math.random() * Math.min(reconnectMaxMs, reconnectBaseMs * 2 ** attempts))
  }

  #retry(retryInMs: number, renew = false, isAsked = false): void {
    const connect = () => {
      clearTimeout(this.#timer)
      this.#hurry = undefined
      void this.#connect(renew)
    }
    this.#timer = setTimeout(connect, retryInMs)
    // A slot that the hub gave is kept, whoever looks.
    if (!isAsked) this.#hurry = connect
    this.#enter({ _tag: "waiting", retryInMs })
  }
}
