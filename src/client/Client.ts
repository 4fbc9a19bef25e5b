/**
 * The client: publish, subscribe and take part in groups; it reconnects and goes on.
 *
 * - A publish has an id from the start. One that was not answered before the connection went is repeated with
 *   the same id on the next, and stays one event.
 * - A live subscription goes on behind the last event that was handled, in each topic.
 * - A group's event is acknowledged when its handler ends, and refused when it throws; a `Nack` says how.
 */
import {
  Connection,
  type ConnectionOptions,
  type ConnectionState,
  type TokenSource,
  type Welcome
} from "./Connection.ts"
import { type ConsumeOptions, Group, type GroupHandler, type GroupSubscription } from "./GroupSubscription.ts"
import { HubError } from "./HubError.ts"
import { ignore, onAbort } from "./later.ts"
import {
  Live,
  type LiveHandler,
  type LiveSubscription,
  type LiveSubscriptionOptions
} from "./LiveSubscription.ts"
import { type Published, Publisher, type PublisherOptions, type PublishRequest } from "./Publisher.ts"
import type { AnySubscription, Host } from "./Subscription.ts"
import type { AnyTopics, PatternOf, PublishPayload, ReceivedPayload, TopicOf } from "./topics.ts"

/** What every client may be told; each has a default. */
export interface CommonOptions extends ConnectionOptions, PublisherOptions {
  /** How long `close` waits for handlers that run and publishes under way. */
  readonly closeTimeoutMs?: number
}

export type ClientOptions<T extends AnyTopics = AnyTopics> = CommonOptions & {
  readonly url: string
  /** What `defineTopics` made: gives payloads their types, and refuses those that come and do not fit. */
  readonly topics?: T
  /** Payloads are looked at before they are published, too. */
  readonly validatePublish?: boolean
} & (
    | { readonly token: string; readonly getToken?: undefined }
    /** Asked on every connection, before a token ends, and when the hub wants a new one. */
    | { readonly getToken: () => string | Promise<string>; readonly token?: undefined }
  )

export interface ClientEvents {
  readonly state: ConnectionState
  /**
   * What belongs to no call: a handler or `getToken` that failed, an `InvalidPayload` or a gap that nobody took, a
   * subscription that ended and nobody looked. Without a listener it goes to the console.
   */
  readonly error: unknown
}

export interface CloseOptions {
  /** How long to wait for handlers that run and publishes under way. */
  readonly timeoutMs?: number
  /** Waits no longer. */
  readonly signal?: AbortSignal
}

export interface Client<T extends AnyTopics = AnyTopics> {
  readonly state: ConnectionState
  /** Gives what stops it. */
  readonly on: <Name extends keyof ClientEvents>(
    name: Name,
    listener: (about: ClientEvents[Name]) => void
  ) => () => void
  /** Ends when the client is connected; fails when the hub will not have it. */
  readonly connect: (options?: { readonly signal?: AbortSignal }) => Promise<Welcome>
  /** Ends when the event is durable. Without a connection it waits for one. */
  readonly publish: <const N extends string>(
    topic: N & TopicOf<T, N>,
    payload: PublishPayload<T, N>,
    options?: PublishRequest
  ) => Promise<Published>
  /** Every event of a pattern, handed to the handler one after the other, or to who iterates. */
  readonly subscribe: {
    <const P extends string>(
      pattern: P & PatternOf<T, P>,
      options?: LiveSubscriptionOptions
    ): LiveSubscription<ReceivedPayload<T, P>>
    <const P extends string>(
      pattern: P & PatternOf<T, P>,
      handler: LiveHandler<ReceivedPayload<T, P>>,
      options?: LiveSubscriptionOptions
    ): LiveSubscription<ReceivedPayload<T, P>>
  }
  /** A share of the events of a pattern, each until a member of the group has acknowledged it. */
  readonly consume: {
    <const P extends string>(
      pattern: P & PatternOf<T, P>,
      group: string,
      options?: ConsumeOptions
    ): GroupSubscription<ReceivedPayload<T, P>>
    <const P extends string>(
      pattern: P & PatternOf<T, P>,
      group: string,
      handler: GroupHandler<ReceivedPayload<T, P>>,
      options?: ConsumeOptions
    ): GroupSubscription<ReceivedPayload<T, P>>
  }
  /** Takes no more events, waits a bounded time for handlers that run and publishes under way, and disconnects. */
  readonly close: (options?: CloseOptions) => Promise<void>
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

type Listeners = { readonly [Name in keyof ClientEvents]: Set<(about: ClientEvents[Name]) => void> }

type Untyped = CommonOptions & Pick<ClientOptions, "topics" | "validatePublish">

const keyOf = (topic: string, group: string | null | undefined): string => `${topic} ${group ?? ""}`

/** What a callback of the program throws is an uncaught error of the program, and stops nothing here. */
const tell = (callback: () => void): void => {
  try {
    callback()
  } catch (error) {
    setTimeout(() => {
      throw error
    })
  }
}

/** The client without the types of its topics. */
export class HubClient {
  readonly #options: Untyped
  readonly #connection: Connection
  readonly #publisher: Publisher
  readonly #host: Host
  readonly #subscriptions = new Map<string, AnySubscription>()
  readonly #listeners: Listeners = { state: new Set(), error: new Set() }
  #closing: Promise<void> | undefined
  /** Whoever waits for handlers and publishes to end. */
  #onProgress = ignore

  constructor(url: string, token: TokenSource, options: Untyped) {
    const subscriptions = this.#subscriptions
    const progress = () => this.#onProgress()
    const report = (error: unknown) => {
      if (this.#listeners.error.size > 0) this.#emit("error", error)
      else console.error(error)
    }
    const connection = new Connection(
      url,
      token,
      {
        onReady: () => {
          for (const subscription of subscriptions.values()) subscription.establish()
          this.#publisher.send()
        },
        onMessage: (message) => {
          if ("sub" in message)
            subscriptions
              .get(keyOf(message.sub as string, message.group as string | undefined))
              ?.receive(message)
        },
        onState: (state) => this.#entered(state),
        onLost: () => {
          for (const subscription of subscriptions.values()) subscription.lost()
        },
        onError: report
      },
      options
    )
    this.#options = options
    this.#connection = connection
    this.#publisher = new Publisher(connection, options, progress)
    this.#host = {
      connection,
      schemaOf: (topic) => options.topics?.schemaOf(topic),
      report,
      tell,
      remove: (subscription) => {
        const { group, topic } = subscription
        if (this.find(topic, group) === subscription) subscriptions.delete(keyOf(topic, group))
      },
      progress
    }
  }

  get state(): ConnectionState {
    return this.#connection.state
  }

  // Programs take them out of their client.
  readonly on = <Name extends keyof ClientEvents>(
    name: Name,
    listener: (about: ClientEvents[Name]) => void
  ): (() => void) => {
    this.#listeners[name].add(listener)
    return () => void this.#listeners[name].delete(listener)
  }

  readonly connect = async ({ signal }: { readonly signal?: AbortSignal } = {}): Promise<Welcome> => {
    const { promise, reject, resolve } = Promise.withResolvers<Welcome>()
    const look = (state: ConnectionState) => {
      if (this.#isClosed) reject(this.#whyClosed)
      else if (state._tag === "ready") resolve(state.welcome)
    }
    const stop = this.on("state", look)
    const forget = onAbort(signal, reject)
    look(this.state)
    if (!this.#isClosed && !signal?.aborted) this.#connection.start()
    return promise.finally(() => {
      stop()
      forget()
    })
  }

  readonly publish = (topic: string, payload: unknown, options: PublishRequest = {}): Promise<Published> => {
    if (this.state._tag === "closed") return Promise.reject(this.#whyClosed)
    const schema = this.#options.validatePublish ? this.#host.schemaOf(topic) : undefined
    const published = this.#publisher.publish(topic, payload, options, schema)
    this.#connection.start()
    return published
  }

  readonly subscribe = (
    pattern: string,
    handler?: LiveHandler | LiveSubscriptionOptions,
    options?: LiveSubscriptionOptions
  ): LiveSubscription => this.#begin(new Live(this.#host, pattern, undefined, handler, options))

  readonly consume = (
    pattern: string,
    group: string,
    handler?: GroupHandler | ConsumeOptions,
    options?: ConsumeOptions
  ): GroupSubscription => this.#begin(new Group(this.#host, pattern, group, handler, options))

  /** What has this place: it stands, or will, or is just leaving. */
  find(pattern: string, group: string | null | undefined): AnySubscription | undefined {
    return this.#subscriptions.get(keyOf(pattern, group))
  }

  readonly close = (options: CloseOptions = {}): Promise<void> => (this.#closing ??= this.#shutDown(options))

  readonly [Symbol.asyncDispose] = (): Promise<void> => this.close()

  async #shutDown({
    signal,
    timeoutMs = this.#options.closeTimeoutMs ?? 5_000
  }: CloseOptions): Promise<void> {
    const subscriptions = [...this.#subscriptions.values()].filter(({ isOver }) => !isOver)
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, timeoutMs)
    const forget = onAbort(signal, () => {
      this.#connection.close()
      resolve()
    })
    for (const subscription of subscriptions) subscription.stop(this.#whyClosed)
    this.#onProgress = () => {
      const isPublishing = this.state._tag === "ready" && this.#publisher.size > 0
      if (!isPublishing && !subscriptions.some(({ isBusy }) => isBusy)) resolve()
    }
    this.#onProgress()
    await promise
    clearTimeout(timer)
    // Said goodbye, the events that were not handled go to others at once and do not count as failed.
    await Promise.allSettled(subscriptions.map((subscription) => subscription.leave()))
    forget()
    this.#connection.close()
    signal?.throwIfAborted()
  }

  get #isClosed(): boolean {
    return this.#closing !== undefined || this.state._tag === "closed"
  }

  get #whyClosed(): HubError {
    const { state } = this
    return (state._tag === "closed" && state.error) || new HubError("closed", "the client is closed")
  }

  #emit<Name extends keyof ClientEvents>(name: Name, about: ClientEvents[Name]): void {
    for (const listener of this.#listeners[name]) tell(() => listener(about))
  }

  #begin<S extends AnySubscription>(subscription: S): S {
    const { group, topic } = subscription
    const refusal = this.#isClosed
      ? this.#whyClosed
      : this.find(topic, group) &&
        new HubError("already_subscribed", `'${topic}' is subscribed by this client`)
    if (!refusal) {
      this.#subscriptions.set(keyOf(topic, group), subscription)
      this.#connection.start()
    }
    subscription.begin(refusal)
    return subscription
  }

  #entered(state: ConnectionState): void {
    this.#emit("state", state)
    if (state._tag === "closed") {
      const error = this.#whyClosed
      this.#publisher.fail(error)
      for (const subscription of this.#subscriptions.values()) subscription.end(error)
    }
    this.#onProgress()
  }
}

/** A client of the hub at `url`. It connects with the first thing that is asked of it. */
export const createClient = <const T extends AnyTopics = AnyTopics>(options: ClientOptions<T>): Client<T> =>
  new HubClient(options.url, options.getToken ?? options.token, options) as Client<T>
