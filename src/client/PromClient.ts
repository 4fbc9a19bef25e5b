/**
 * The client: publish, subscribe, and have handlers acknowledge by themselves; it reconnects and goes on.
 *
 * - A publish has an id from the start. One that was not answered before the connection went is repeated with
 *   the same id on the next, and stays one event.
 * - A live subscription goes on behind the last event whose handler has ended, in each topic.
 * - A group's event is acknowledged when its handler ends, and refused when it throws.
 */
import type {
  DeliveryContext,
  EventMessage,
  From,
  Gap,
  HubMessage,
  Ok,
  PublishOptions,
  WireEvent
} from "../protocol/Messages.ts"
import {
  Connection,
  type ConnectionOptions,
  type ConnectionState,
  type TokenSource,
  type Welcome
} from "./Connection.ts"
import { HubError } from "./HubError.ts"

export interface ClientOptions extends ConnectionOptions {
  /** Publishes that wait for a connection or an answer; more are refused. */
  readonly maxPending?: number
  /** How long `close` waits for handlers that run. */
  readonly closeTimeoutMs?: number
  readonly onState?: (state: ConnectionState) => void
  /** What belongs to no request: a subscription that the hub ended, a handler that failed. */
  readonly onError?: (error: unknown) => void
}

export interface Published {
  readonly id: string
  readonly seq: number
  readonly storedAt: number
  /** The hub held this id before. */
  readonly duplicate: boolean
}

export interface SubscribeOptions {
  readonly from?: From
  /** Groups: unacknowledged events at once. */
  readonly credit?: number
  readonly ackTimeoutMs?: number
  readonly maxAttempts?: number
  readonly keyOrdered?: boolean
  /** Groups: handlers that run at the same time. Live handlers run one after the other. */
  readonly concurrency?: number
  /** These positions will not come: they were trimmed before they could be read. */
  readonly onGap?: (gap: Gap) => void
  /** The hub ended the subscription, or it could not be taken up again. */
  readonly onEnd?: (error: HubError) => void
}

export type Handler<T> = (event: WireEvent<T>, context: DeliveryContext | undefined) => unknown

interface PendingPublish {
  readonly message: object
  readonly resolve: (published: Published) => void
  readonly reject: (error: HubError) => void
  sent: boolean
}

interface Subscription {
  readonly topic: string
  readonly group: string | undefined
  readonly handler: Handler<unknown>
  readonly options: SubscribeOptions
  /** The last seq per topic whose handler has ended. */
  readonly positions: Map<string, number>
  /** The life of the store that the positions belong to; none before the first time it stood. */
  history: string | undefined
  /** More topics exist than the hub has named: the rest is found by time. */
  since: number | undefined
  queue: Array<EventMessage>
  running: number
  /** Whoever waits for it to stand for the first time. */
  first: { readonly resolve: () => void; readonly reject: (error: HubError) => void } | undefined
}

/** A random UUID (RFC 9562, version 4); `crypto.randomUUID` is missing on pages without TLS. */
const makeId = (): string => {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

const keyOf = (topic: string, group: string | undefined): string => `${topic} ${group ?? ""}`

export class PromClient {
  readonly #connection: Connection
  readonly #options: ClientOptions
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #pending = new Set<PendingPublish>()
  readonly #acks = new Map<string, { readonly topic: string; readonly group: string; readonly ids: Array<string> }>()
  #connected: { readonly resolve: () => void; readonly reject: (error: HubError) => void } | undefined
  #connecting: Promise<void> | undefined
  #epoch = 0
  #running = 0

  constructor(url: string, token: TokenSource, options: ClientOptions = {}) {
    this.#options = options
    this.#connection = new Connection(
      url,
      token,
      {
        onReady: (welcome) => this.#ready(welcome),
        onMessage: (message) => this.#received(message),
        onState: (state) => this.#entered(state),
        onLost: () => this.#lost()
      },
      options
    )
  }

  get state(): ConnectionState {
    return this.#connection.state
  }

  /** Ends when the client is connected for the first time; fails when the hub will not have it. */
  connect(): Promise<void> {
    this.#connecting ??= new Promise((resolve, reject) => {
      this.#connected = { resolve, reject }
      this.#connection.start()
    })
    return this.#connecting
  }

  /** Ends when the event is durable. Without a connection it waits for one. */
  publish<T>(topic: string, payload: T, opts: PublishOptions = {}): Promise<Published> {
    const { maxPending = 10_000 } = this.#options
    if (this.#pending.size >= maxPending) {
      return Promise.reject(new HubError("queue_full", `${maxPending} publishes wait already`, true))
    }
    if (this.state._tag === "closed") return Promise.reject(new HubError("closed", "the client is closed"))
    const message = { op: "PUBLISH", topic, payload, opts: { ...opts, id: opts.id ?? makeId() } }
    return new Promise((resolve, reject) => {
      const publish: PendingPublish = { message, resolve, reject, sent: false }
      this.#pending.add(publish)
      this.#send(publish)
    })
  }

  /** Ends when the subscription stands. Without a group it is live: every event, and nothing to acknowledge. */
  subscribe<T>(
    topic: string,
    group: string | undefined | null,
    handler: Handler<T>,
    options: SubscribeOptions = {}
  ): Promise<void> {
    const key = keyOf(topic, group ?? undefined)
    if (this.#subscriptions.has(key)) {
      return Promise.reject(new HubError("already_subscribed", `'${topic}' is subscribed by this client`))
    }
    if (this.state._tag === "closed") return Promise.reject(new HubError("closed", "the client is closed"))
    return new Promise((resolve, reject) => {
      const subscription: Subscription = {
        topic,
        group: group ?? undefined,
        handler: handler as Handler<unknown>,
        options,
        positions: new Map(),
        history: undefined,
        since: undefined,
        queue: [],
        running: 0,
        first: { resolve, reject }
      }
      this.#subscriptions.set(key, subscription)
      if (this.state._tag === "ready") this.#establish(subscription)
      else this.connect().catch(() => {})
    })
  }

  /** Ends when no event of it will come any more. */
  async unsubscribe(topic: string, group?: string | null): Promise<void> {
    const key = keyOf(topic, group ?? undefined)
    if (!this.#subscriptions.delete(key)) {
      throw new HubError("not_subscribed", `'${topic}' is not subscribed by this client`)
    }
    this.#flushAcks()
    const target = group === undefined || group === null ? { topic } : { topic, group }
    try {
      await this.#connection.request({ op: "UNSUBSCRIBE", ...target })
    } catch (error) {
      // What is not connected is not subscribed.
      if (!(error instanceof HubError && (error.code === "closed" || error.code === "not_subscribed"))) throw error
    }
  }

  /** Takes nothing new, waits a bounded time for handlers that run and publishes under way, and disconnects. */
  async close(): Promise<void> {
    const until = Date.now() + (this.#options.closeTimeoutMs ?? 5_000)
    for (const subscription of this.#subscriptions.values()) subscription.queue = []
    const subscriptions = [...this.#subscriptions.values()]
    this.#subscriptions.clear()
    while (this.state._tag === "ready" && (this.#running > 0 || this.#pending.size > 0) && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    this.#flushAcks()
    if (this.state._tag === "ready") {
      // Said goodbye, the events that were not handled go to others at once and do not count as failed.
      await Promise.allSettled(
        subscriptions.map(({ group, topic }) =>
          this.#connection.request({ op: "UNSUBSCRIBE", topic, ...(group === undefined ? {} : { group }) })
        )
      )
    }
    this.#connection.close()
  }

  // --- publishing --------------------------------------------------------------------------------------------

  #send(publish: PendingPublish): void {
    if (this.state._tag !== "ready" || publish.sent) return
    publish.sent = true
    this.#connection.request(publish.message).then(
      (ok) => {
        this.#pending.delete(publish)
        publish.resolve(ok as unknown as Published)
      },
      (error: HubError) => {
        publish.sent = false
        // Not answered: it is repeated with the same id on the next connection.
        if (error.code === "closed" && this.state._tag !== "closed") return
        this.#pending.delete(publish)
        publish.reject(error)
      }
    )
  }

  // --- the connection ----------------------------------------------------------------------------------------

  #ready(_welcome: Welcome): void {
    this.#epoch++
    this.#connected?.resolve()
    this.#connected = undefined
    for (const publish of this.#pending) this.#send(publish)
    for (const subscription of this.#subscriptions.values()) this.#establish(subscription)
  }

  #lost(): void {
    this.#acks.clear()
    for (const subscription of this.#subscriptions.values()) subscription.queue = []
  }

  #entered(state: ConnectionState): void {
    this.#options.onState?.(state)
    if (state._tag !== "closed") return
    const error = state.error ?? new HubError("closed", "the client is closed")
    this.#connected?.reject(error)
    this.#connected = undefined
    for (const { reject } of this.#pending) reject(error)
    this.#pending.clear()
    for (const subscription of [...this.#subscriptions.values()]) this.#ended(subscription, error)
  }

  // --- subscriptions -----------------------------------------------------------------------------------------

  /** Where to go on: where it stood, or where the caller wanted to begin. */
  #from({ group, history, options, positions, since }: Subscription): object {
    if (history === undefined || group !== undefined) {
      return options.from === undefined ? {} : { from: options.from }
    }
    if (since !== undefined) return { from: { time: since }, history }
    return { from: { topics: Object.fromEntries(positions), rest: "start" }, history }
  }

  /** Subscribes on the connection there is. When that goes on the way, the next one begins again. */
  #establish(subscription: Subscription): void {
    const { group, options, topic } = subscription
    const { ackTimeoutMs, credit, keyOrdered, maxAttempts } = options
    const grouped = group === undefined ? {} : { credit, ackTimeoutMs, maxAttempts, keyOrdered }
    const state = this.state
    if (state._tag !== "ready") return
    const request = {
      op: "SUBSCRIBE",
      topic,
      ...(group === undefined ? {} : { group }),
      opts: { ...this.#from(subscription), ...grouped }
    }
    this.#connection.request(request).then(
      (ok) => {
        if (subscription.history === undefined && group === undefined) this.#begin(subscription, ok, state.welcome)
        subscription.history = state.welcome.history
        subscription.first?.resolve()
        subscription.first = undefined
      },
      (error: HubError) => {
        if (error.code !== "closed" || this.state._tag === "closed") this.#ended(subscription, error)
      }
    )
  }

  /** The positions from which a live subscription stands. */
  #begin(subscription: Subscription, ok: Ok, welcome: Welcome): void {
    const { from = "new" } = subscription.options
    if (from === "new") {
      for (const [topic, seq] of Object.entries(ok["heads"] as Record<string, number>)) {
        if (!subscription.positions.has(topic)) subscription.positions.set(topic, seq)
      }
    } else if (typeof from === "object" && "after" in from) {
      if (!subscription.positions.has(subscription.topic)) subscription.positions.set(subscription.topic, from.after)
    } else if (typeof from === "object" && "topics" in from) {
      for (const [topic, seq] of Object.entries(from.topics)) {
        if (!subscription.positions.has(topic)) subscription.positions.set(topic, seq)
      }
    }
    if (ok["more"] === true && from !== "start") {
      subscription.since = typeof from === "object" && "time" in from ? from.time : welcome.serverTime
    } else if (typeof from === "object" && "time" in from) subscription.since = from.time
    else if (typeof from === "object" && "topics" in from && from.rest === "new") {
      subscription.since = welcome.serverTime
    }
  }

  /** It is over, and whoever cares is told: the caller of `subscribe`, if it never stood. */
  #ended(subscription: Subscription, error: HubError): void {
    this.#subscriptions.delete(keyOf(subscription.topic, subscription.group))
    if (subscription.first !== undefined) {
      subscription.first.reject(error)
      subscription.first = undefined
    } else if (subscription.options.onEnd !== undefined) subscription.options.onEnd(error)
    else this.#options.onError?.(error)
  }

  #received(message: HubMessage): void {
    switch (message.op) {
      case "EVENT": {
        const subscription = this.#subscriptions.get(keyOf(message.sub, message.group))
        if (subscription === undefined) return
        subscription.queue.push(message)
        return this.#work(subscription)
      }
      case "GAP":
        return this.#subscriptions.get(keyOf(message.sub, message.group))?.options.onGap?.(message)
      case "END": {
        const subscription = this.#subscriptions.get(keyOf(message.sub, message.group))
        if (subscription === undefined) return
        const code = message.reason === "revoked" ? "forbidden" : "closed"
        return this.#ended(subscription, new HubError(code, `the hub ended the subscription: ${message.reason}`))
      }
      case "ERR":
        return this.#options.onError?.(new HubError(message.code, message.msg, message.retryable))
      default:
    }
  }

  #work(subscription: Subscription): void {
    const limit = subscription.group === undefined ? 1 : (subscription.options.concurrency ?? 16)
    while (subscription.running < limit) {
      const message = subscription.queue.shift()
      if (message === undefined) return
      const { event, topic } = message
      if (subscription.group === undefined && event.seq <= (subscription.positions.get(topic) ?? 0)) continue
      subscription.running++
      this.#running++
      void this.#handle(subscription, message).finally(() => {
        subscription.running--
        this.#running--
        this.#work(subscription)
      })
    }
  }

  async #handle(subscription: Subscription, { ctx, event, topic }: EventMessage): Promise<void> {
    const { group } = subscription
    const epoch = this.#epoch
    try {
      await subscription.handler(event, ctx)
      if (group !== undefined && epoch === this.#epoch) this.#ack(topic, group, event.id)
    } catch (error) {
      this.#options.onError?.(error)
      if (group !== undefined && epoch === this.#epoch) {
        const reason = (error instanceof Error ? error.message : String(error)).slice(0, 1_000)
        this.#connection.send({ op: "NACK", topic, group, id: event.id, reason })
      }
    }
    if (group === undefined) subscription.positions.set(topic, event.seq)
  }

  /** Acknowledgements of the same turn go together. */
  #ack(topic: string, group: string, id: string): void {
    const key = `${topic} ${group}`
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
