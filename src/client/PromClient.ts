/** The client of the first design: the names and habits of that, around the one of `createClient`. */
import type { DeliveryContext, GroupOptions, WireEvent } from "../protocol/Messages.ts"
import { type CommonOptions, HubClient } from "./Client.ts"
import type { ConnectionState, TokenSource } from "./Connection.ts"
import { HubError } from "./HubError.ts"
import type { Published, PublishRequest } from "./Publisher.ts"
import type { SubscriptionOptions } from "./Subscription.ts"

export interface PromClientOptions extends CommonOptions {
  readonly onState?: (state: ConnectionState) => void
  /** What belongs to no request: a subscription that the hub ended, a handler or a token source that failed. */
  readonly onError?: (error: unknown) => void
}

/** What the protocol knows, and what is the client's own. The options of groups mean nothing without one. */
export interface SubscribeOptions extends GroupOptions, SubscriptionOptions {
  /** Groups: handlers that run at the same time. Live handlers run one after the other. */
  readonly concurrency?: number
  /** Groups: how long a delivery is extended in all while its handler runs. Not at all by default. */
  readonly extendForMs?: number
}

export type Handler<T> = (event: WireEvent<T>, context: DeliveryContext | undefined) => unknown

export class PromClient {
  readonly #client: HubClient
  readonly #report: (error: unknown) => void

  constructor(url: string, token: TokenSource, options: PromClientOptions = {}) {
    this.#client = new HubClient(url, token, options)
    this.#report = options.onError ?? (() => {})
    this.#client.on("error", this.#report)
    if (options.onState) this.#client.on("state", options.onState)
  }

  get state(): ConnectionState {
    return this.#client.state
  }

  /** Ends when the client is connected; fails when the hub will not have it. */
  async connect(): Promise<void> {
    await this.#client.connect()
  }

  /** Ends when the event is durable. Without a connection it waits for one. */
  publish<T>(topic: string, payload: T, opts?: PublishRequest): Promise<Published> {
    return this.#client.publish(topic, payload, opts)
  }

  /** Ends when the subscription stands. Without a group it is live: every event, and nothing to acknowledge. */
  subscribe<T>(
    topic: string,
    group: string | undefined | null,
    handler: Handler<T>,
    options: SubscribeOptions = {}
  ): Promise<void> {
    const all = { onEnd: this.#report, extendForMs: 0, ...options }
    return (
      typeof group === "string"
        ? this.#client.consume(
            topic,
            group,
            (event, { attempt, deadline, redelivered }) =>
              handler(event as WireEvent<T>, { attempt, redelivered, deadline }),
            all
          )
        : this.#client.subscribe(topic, (event) => handler(event as WireEvent<T>, undefined), all)
    ).ready
  }

  /**
   * Ends when no event of it will come any more. It does not wait for handlers that run: their events go back
   * to the group.
   */
  async unsubscribe(topic: string, group?: string | null): Promise<void> {
    const subscription = this.#client.find(topic, group)
    if (!subscription || subscription.isOver) {
      throw new HubError("not_subscribed", `'${topic}' is not subscribed by this client`)
    }
    return subscription.unsubscribe()
  }

  /** Takes no more events, waits a bounded time for handlers that run and publishes under way, and disconnects. */
  close(): Promise<void> {
    return this.#client.close()
  }
}
