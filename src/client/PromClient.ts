/**
 * The client: publish, subscribe, and have handlers acknowledge by themselves; it reconnects and goes on.
 *
 * - A publish has an id from the start. One that was not answered before the connection went is repeated with
 *   the same id on the next, and stays one event.
 * - A live subscription goes on behind the last event whose handler has ended, in each topic.
 * - A group's event is acknowledged when its handler ends, and refused when it throws; a `Nack` says how.
 */
import type {
  DeliveryContext,
  EndReason,
  EventMessage,
  Gap,
  GroupOptions,
  HubMessage,
  Ok,
  PublishOptions,
  WireEvent
} from "../protocol/Messages.ts"
import { Connection, type ConnectionOptions, type ConnectionState, type TokenSource } from "./Connection.ts"
import { type ClientErrorCode, HubError } from "./HubError.ts"
import { refusalOf } from "./Nack.ts"
import { Queue } from "./Queue.ts"

export interface ClientOptions extends ConnectionOptions {
  /** Publishes that wait for a connection or an answer; more are refused. */
  readonly maxPending?: number
  /** How long `close` waits for handlers that run. */
  readonly closeTimeoutMs?: number
  readonly onState?: (state: ConnectionState) => void
  /** What belongs to no request: a subscription that the hub ended, a handler or a token source that failed. */
  readonly onError?: (error: unknown) => void
}

export interface Published {
  readonly id: string
  readonly seq: number
  readonly storedAt: number
  /** The hub held this id before. */
  readonly duplicate: boolean
}

/** What the protocol knows, and what is the client's own. The options of groups mean nothing without one. */
export interface SubscribeOptions extends GroupOptions {
  /** Groups: handlers that run at the same time. Live handlers run one after the other. */
  readonly concurrency?: number
  /** These positions will not come: they were trimmed before they could be read. */
  readonly onGap?: (gap: Gap) => void
  /** The hub ended the subscription, or it could not be taken up again. */
  readonly onEnd?: (error: HubError) => void
}

export type Handler<T> = (event: WireEvent<T>, context: DeliveryContext | undefined) => unknown

interface PendingPublish {
  /** As it was when it was published, whatever becomes of the payload while it waits. */
  readonly json: string
  readonly resolve: (published: Published) => void
  readonly reject: (error: HubError) => void
  sent: boolean
}

interface Subscription {
  readonly key: string
  readonly topic: string
  readonly group: string | undefined
  readonly handler: Handler<unknown>
  readonly options: SubscribeOptions
  /** The last seq per topic whose handler has ended. */
  readonly positions: Map<string, number>
  /** The life of the store that the positions belong to; none before the first time it stood. */
  history: string | undefined
  /** Nothing that was stored before this time (of the hub) was ever asked for. */
  since: number
  /** The positions do not name every topic there is, so it goes on from `since`. */
  byTime: boolean
  readonly queue: Queue<EventMessage | Gap>
  running: number
  /** It ends, or has ended: the hub takes no answers for it. */
  isOver: boolean
  /** Whoever waits for it to stand for the first time. */
  first: { readonly resolve: () => void; readonly reject: (error: HubError) => void } | undefined
}

/** Of more topics than these the positions would not fit into a frame. */
const maxPositions = 5_000

/** A subscription that could not be taken up again for now is tried again after this time. */
const retryMs = 1_000

const codeOf: Readonly<Record<EndReason, ClientErrorCode>> = {
  revoked: "forbidden",
  removed: "not_subscribed",
  history_changed: "unrecoverable_position",
  unavailable: "unavailable"
}

const closedError = (): HubError => new HubError("closed", "the client is closed")

/** A random UUID (RFC 9562, version 4); `crypto.randomUUID` is missing on pages without TLS. */
const makeId = (): string => {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

const keyOf = (topic: string, group: string | null | undefined): string => `${topic} ${group ?? ""}`

export class PromClient {
  readonly #connection: Connection
  readonly #options: ClientOptions
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #pending = new Set<PendingPublish>()
  readonly #acks = new Map<
    string,
    { readonly topic: string; readonly group: string; readonly ids: Array<string> }
  >()
  #connected: { readonly resolve: () => void; readonly reject: (error: HubError) => void } | undefined
  #connecting: Promise<void> | undefined
  #closing: Promise<void> | undefined
  /** Whoever waits for handlers and publishes to end. */
  #onProgress: () => void = () => {}
  /** Counts connections: the hub takes answers only on the one that an event came by. */
  #epoch = 0
  #running = 0

  constructor(url: string, token: TokenSource, options: ClientOptions = {}) {
    this.#options = options
    this.#connection = new Connection(
      url,
      token,
      {
        onReady: () => this.#ready(),
        onMessage: (message) => this.#received(message),
        onState: (state) => this.#entered(state),
        onLost: () => this.#lost(),
        onError: (error) => this.#tell(options.onError, error)
      },
      options
    )
  }

  get state(): ConnectionState {
    return this.#connection.state
  }

  /** Ends when the client is connected for the first time; fails when the hub will not have it. */
  connect(): Promise<void> {
    if (this.#isClosed) return Promise.reject(this.#whyClosed())
    this.#connecting ??= new Promise((resolve, reject) => {
      this.#connected = { resolve, reject }
      this.#connection.start()
    })
    return this.#connecting
  }

  /** Ends when the event is durable. Without a connection it waits for one. */
  async publish<T>(topic: string, payload: T, opts: PublishOptions = {}): Promise<Published> {
    const { maxPending = 10_000 } = this.#options
    if (this.state._tag === "closed") throw this.#whyClosed()
    if (this.#pending.size >= maxPending) {
      throw new HubError("queue_full", `${maxPending} publishes wait already`, true)
    }
    const json = JSON.stringify({ op: "PUBLISH", topic, payload, opts: { ...opts, id: opts.id ?? makeId() } })
    return new Promise((resolve, reject) => {
      const publish: PendingPublish = { json, resolve, reject, sent: false }
      this.#pending.add(publish)
      if (this.state._tag === "ready") this.#send(publish)
      else this.connect().catch(() => {})
    })
  }

  /** Ends when the subscription stands. Without a group it is live: every event, and nothing to acknowledge. */
  async subscribe<T>(
    topic: string,
    group: string | undefined | null,
    handler: Handler<T>,
    options: SubscribeOptions = {}
  ): Promise<void> {
    const key = keyOf(topic, group)
    if (this.#isClosed) throw this.#whyClosed()
    if (this.#subscriptions.has(key)) {
      throw new HubError("already_subscribed", `'${topic}' is subscribed by this client`)
    }
    return new Promise((resolve, reject) => {
      const subscription: Subscription = {
        key,
        topic,
        group: group ?? undefined,
        handler: handler as Handler<unknown>,
        options,
        positions: new Map(),
        history: undefined,
        since: 0,
        byTime: false,
        queue: new Queue(),
        running: 0,
        isOver: false,
        first: { resolve, reject }
      }
      this.#subscriptions.set(key, subscription)
      if (this.state._tag === "ready") this.#establish(subscription)
      else this.connect().catch(() => {})
    })
  }

  /**
   * Ends when no event of it will come any more. It does not wait for handlers that run: their events go back
   * to the group.
   */
  async unsubscribe(topic: string, group?: string | null): Promise<void> {
    const subscription = this.#subscriptions.get(keyOf(topic, group))
    if (subscription === undefined || subscription.isOver) {
      throw new HubError("not_subscribed", `'${topic}' is not subscribed by this client`)
    }
    this.#stop(subscription, new HubError("not_subscribed", "it was unsubscribed before it stood"))
    this.#flushAcks()
    try {
      await this.#leave(subscription)
    } catch (error) {
      // What is not connected is not subscribed.
      if (!(error instanceof HubError && (error.code === "closed" || error.code === "not_subscribed")))
        throw error
    } finally {
      this.#subscriptions.delete(subscription.key)
    }
  }

  /** Takes no more events, waits a bounded time for handlers that run and publishes under way, and disconnects. */
  close(): Promise<void> {
    return (this.#closing ??= this.#shutDown())
  }

  async #shutDown(): Promise<void> {
    const subscriptions = [...this.#subscriptions.values()].filter(({ isOver }) => !isOver)
    this.#subscriptions.clear()
    for (const { first, queue } of subscriptions) {
      queue.clear()
      first?.reject(closedError())
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#options.closeTimeoutMs ?? 5_000)
      this.#onProgress = () => {
        const isPublishing = this.state._tag === "ready" && this.#pending.size > 0
        if (this.#running > 0 || isPublishing) return
        clearTimeout(timer)
        resolve()
      }
      this.#onProgress()
    })
    // Said goodbye, the events that were not handled go to others at once and do not count as failed.
    await Promise.allSettled(subscriptions.map((subscription) => this.#leave(subscription)))
    this.#connection.close()
  }

  get #isClosed(): boolean {
    return this.#closing !== undefined || this.state._tag === "closed"
  }

  #whyClosed(): HubError {
    return (this.state._tag === "closed" ? this.state.error : undefined) ?? closedError()
  }

  /** What a callback of the program throws is an uncaught error of the program, and stops nothing here. */
  #tell<A>(callback: ((about: A) => void) | undefined, about: A): void {
    try {
      callback?.(about)
    } catch (error) {
      setTimeout(() => {
        throw error
      })
    }
  }

  // --- publishing --------------------------------------------------------------------------------------------

  #send(publish: PendingPublish): void {
    if (publish.sent) return
    publish.sent = true
    this.#connection.request(publish.json).then(
      (ok) => {
        const { duplicate, id, seq, storedAt } = ok as unknown as Published
        this.#pending.delete(publish)
        publish.resolve({ id, seq, storedAt, duplicate })
        this.#onProgress()
      },
      (error: HubError) => {
        publish.sent = false
        // Not answered: it is repeated with the same id on the next connection.
        if (error.code === "closed" && this.state._tag !== "closed") return
        this.#pending.delete(publish)
        publish.reject(error)
        this.#onProgress()
      }
    )
  }

  // --- the connection ----------------------------------------------------------------------------------------

  #ready(): void {
    this.#connected?.resolve()
    this.#connected = undefined
    for (const subscription of this.#subscriptions.values()) this.#establish(subscription)
    for (const publish of this.#pending) this.#send(publish)
  }

  #lost(): void {
    this.#epoch++
    for (const { queue } of this.#subscriptions.values()) queue.clear()
  }

  #entered(state: ConnectionState): void {
    this.#tell(this.#options.onState, state)
    if (state._tag === "closed") {
      const error = state.error ?? closedError()
      this.#connected?.reject(error)
      this.#connected = undefined
      for (const { reject } of this.#pending) reject(error)
      this.#pending.clear()
      for (const subscription of [...this.#subscriptions.values()]) this.#ended(subscription, error)
    }
    this.#onProgress()
  }

  // --- subscriptions -----------------------------------------------------------------------------------------

  /** Where to go on: where it stood, or where the caller wanted to begin. */
  #from({ byTime, group, history, options, positions, since }: Subscription): object {
    if (history === undefined || group !== undefined) return { from: options.from, history: options.history }
    if (byTime || positions.size > maxPositions) return { from: { time: since }, history }
    return { from: { topics: Object.fromEntries(positions), rest: "start" }, history }
  }

  /** Subscribes on the connection there is. When that goes on the way, the next one begins again. */
  #establish(subscription: Subscription): void {
    const { group, isOver, options, topic } = subscription
    const { state } = this
    if (isOver || state._tag !== "ready") return
    const { ackTimeoutMs, credit, keyOrdered, maxAttempts } = options
    const grouped = group === undefined ? {} : { credit, ackTimeoutMs, maxAttempts, keyOrdered }
    const epoch = this.#epoch
    const now = this.#connection.hubTime
    this.#connection
      .request({ op: "SUBSCRIBE", topic, group, opts: { ...this.#from(subscription), ...grouped } })
      .then(
        (ok) => {
          if (subscription.history === undefined && group === undefined) this.#begin(subscription, ok, now)
          this.#stands(subscription, state.welcome.history)
        },
        (error: HubError) => {
          if (subscription.isOver || epoch !== this.#epoch) return
          const stoodBefore = subscription.history !== undefined
          if (stoodBefore && error.code === "already_subscribed") {
            // An answer that came too late.
            this.#stands(subscription, state.welcome.history)
          } else if (stoodBefore && error.retryable) {
            const again = () => epoch === this.#epoch && this.#establish(subscription)
            setTimeout(again, error.retryAfterMs ?? retryMs)
          } else {
            this.#ended(subscription, error)
            // It may stand for all that, and would take events that nobody handles.
            if (error.code === "timeout") this.#leave(subscription).catch(() => {})
          }
        }
      )
  }

  #stands(subscription: Subscription, history: string): void {
    subscription.history = history
    subscription.first?.resolve()
    subscription.first = undefined
  }

  /** What a live subscription goes on from, when it has stood for the first time. */
  #begin(subscription: Subscription, ok: Ok, now: number): void {
    const { positions, topic } = subscription
    const { from = "new" } = subscription.options
    const begin = (known: Readonly<Record<string, number>>) => {
      for (const [name, seq] of Object.entries(known)) if (!positions.has(name)) positions.set(name, seq)
    }
    if (typeof from === "object") {
      if ("topics" in from) begin(from.topics)
      else if ("after" in from) begin({ [topic]: from.after })
      else {
        subscription.since = from.time
        subscription.byTime = true
      }
    }
    if (from === "new" || (typeof from === "object" && "topics" in from && from.rest === "new")) {
      begin(ok["heads"] as Readonly<Record<string, number>>)
      subscription.since = now
      subscription.byTime = ok["more"] === true
    }
  }

  #leave({ group, topic }: Subscription): Promise<Ok> {
    return this.#connection.request({ op: "UNSUBSCRIBE", topic, group })
  }

  /** Nothing of it is handled from here on. */
  #stop(subscription: Subscription, error: HubError): void {
    subscription.isOver = true
    subscription.queue.clear()
    subscription.first?.reject(error)
    subscription.first = undefined
  }

  /** It is over, and whoever cares is told: the caller of `subscribe`, if it never stood. */
  #ended(subscription: Subscription, error: HubError): void {
    if (subscription.isOver) return
    const { first, key, options } = subscription
    this.#subscriptions.delete(key)
    this.#stop(subscription, error)
    if (first === undefined) this.#tell(options.onEnd ?? this.#options.onError, error)
  }

  #received(message: HubMessage): void {
    if (message.op === "ERR") {
      const { code, msg, retryAfterMs, retryable } = message
      return this.#tell(this.#options.onError, new HubError(code, msg, retryable, retryAfterMs))
    }
    if (message.op !== "EVENT" && message.op !== "GAP" && message.op !== "END") return
    const subscription = this.#subscriptions.get(keyOf(message.sub, message.group))
    if (subscription === undefined || subscription.isOver) return
    if (message.op === "END") {
      const code = codeOf[message.reason] ?? "closed"
      const why = `the hub ended the subscription: ${message.reason}`
      return this.#ended(subscription, new HubError(code, why, code === "unavailable"))
    }
    subscription.queue.push(message)
    this.#work(subscription)
  }

  #work(subscription: Subscription): void {
    const { group, options, positions, queue } = subscription
    const limit = group === undefined ? 1 : (options.concurrency ?? 16)
    while (subscription.running < limit) {
      const message = queue.shift()
      if (message === undefined) return
      if (message.op === "GAP") {
        if (group === undefined) positions.set(message.topic, message.to)
        this.#tell(options.onGap, message)
      } else if (group !== undefined || message.event.seq > (positions.get(message.topic) ?? 0)) {
        subscription.running++
        this.#running++
        void this.#handle(subscription, message).finally(() => {
          subscription.running--
          this.#running--
          this.#work(subscription)
          this.#onProgress()
        })
      }
    }
  }

  async #handle(subscription: Subscription, { ctx, event, topic }: EventMessage): Promise<void> {
    const { group, handler, positions } = subscription
    const epoch = this.#epoch
    const isHeld = () => epoch === this.#epoch && !subscription.isOver
    try {
      await handler(event, ctx)
      if (group !== undefined && isHeld()) this.#ack(topic, group, event.id)
    } catch (error) {
      if (group !== undefined && isHeld()) {
        const reason = (error instanceof Error ? error.message : String(error)).slice(0, 1_000)
        // Of this delivery: a handler that outlived it must not refuse the next one, which may be this client's, too.
        const about = { topic, group, id: event.id, attempt: ctx?.attempt }
        this.#connection.send({ op: "NACK", ...about, reason, ...refusalOf(error) })
      }
      this.#tell(this.#options.onError, error)
    }
    if (group === undefined) positions.set(topic, event.seq)
  }

  /** Acknowledgements of the same turn go together. */
  #ack(topic: string, group: string, id: string): void {
    const key = keyOf(topic, group)
    const acks = this.#acks.get(key)
    if (acks !== undefined) return void acks.ids.push(id)
    this.#acks.set(key, { topic, group, ids: [id] })
    if (this.#acks.size === 1) queueMicrotask(() => this.#flushAcks())
  }

  #flushAcks(): void {
    for (const { group, ids, topic } of this.#acks.values()) {
      while (ids.length > 0) this.#connection.send({ op: "ACK", topic, group, ids: ids.splice(0, 1_000) })
    }
    this.#acks.clear()
  }
}
