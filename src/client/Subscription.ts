/**
 * What live subscriptions and groups have in common: standing on each new connection, ending, and handing over one
 * thing after the other, to a handler or to who iterates.
 */
import type { EndReason, EventMessage, Gap, HubMessage, Ok, WireEvent } from "../protocol/Messages.ts"
import type { Connection } from "./Connection.ts"
import { type ClientErrorCode, HubError, type InvalidPayload } from "./HubError.ts"
import { ignore, isPending, onAbort, parse, quiet } from "./later.ts"
import { Queue } from "./Queue.ts"
import type { StandardSchema } from "./topics.ts"

/** What a subscription needs of its client. */
export interface Host {
  readonly connection: Connection
  readonly schemaOf: (topic: string) => StandardSchema | undefined
  /** What belongs to no call of the program. */
  readonly report: (error: unknown) => void
  /** Calls a callback of the program, which may throw. */
  readonly tell: (callback: () => void) => void
  /** It is over; another one may have its place. */
  readonly remove: (subscription: AnySubscription) => void
  /** Something that was begun has ended. */
  readonly progress: () => void
}

/** What live subscriptions and groups both take. */
export interface SubscriptionOptions {
  /** Unsubscribes. */
  readonly signal?: AbortSignal | undefined
  /** These positions will not come: they were trimmed before they could be read. Else `error` is told. */
  readonly onGap?: ((gap: Gap) => void) | undefined
  /**
   * It stood, and the hub ended it, or it could not be taken up again. Else `done` and the iterator are told, and
   * `error` where nobody looks at those.
   */
  readonly onEnd?: ((error: HubError) => void) | undefined
}

/** What live subscriptions and groups both are to a program. */
export interface Standing {
  /** Stands for the first time; fails when it does not come to that. */
  readonly ready: Promise<void>
  /** Ends when it was unsubscribed, aborted or closed; fails when the hub ended it. */
  readonly done: Promise<void>
  /** Ends when nothing of it will come any more. It does not wait for handlers that run. */
  readonly unsubscribe: () => Promise<void>
}

/** What a client needs of any of its subscriptions. */
export interface AnySubscription extends Standing {
  readonly topic: string
  readonly group: string | undefined
  /** It ends, or has ended. */
  readonly isOver: boolean
  /** Something was begun and is not done. */
  readonly isBusy: boolean
  /** It has its place, or never will. */
  readonly begin: (refusal: HubError | undefined) => void
  /** Subscribes on the connection there is. When that goes on the way, the next one begins again. */
  readonly establish: () => void
  readonly receive: (message: HubMessage) => void
  /** The connection is gone, and what came by it, too. */
  readonly lost: () => void
  /** Nothing is begun from here on; what runs may end. */
  readonly stop: (reason: unknown) => void
  /** It is over; with an error, whoever cares is told. */
  readonly end: (error?: HubError) => void
  /** Says goodbye to the hub: what was not handled goes to others at once, and does not count as failed. */
  readonly leave: () => Promise<Ok>
}

/** A subscription that could not be taken up again for now is tried again after this time. */
const retryMs = 1_000

const codeOf: Readonly<Record<EndReason, ClientErrorCode>> = {
  revoked: "forbidden",
  removed: "not_subscribed",
  history_changed: "unrecoverable_position",
  unavailable: "unavailable"
}

type Waiter<Item> = PromiseWithResolvers<IteratorResult<Item, undefined>>

/** `Item` is what an iterator gets, `Taken` what waits to be handed over, `About` what a handler gets beside the event. */
export abstract class Subscription<Item, Taken, About> implements AnySubscription, AsyncIterable<Item> {
  readonly topic: string
  readonly group: string | undefined
  isOver = false
  protected readonly host: Host
  protected readonly handler: ((event: WireEvent, about: About) => unknown) | undefined
  protected readonly options: SubscriptionOptions
  protected readonly queue = new Queue<Taken>()
  /** The life of the store in which it stood last; none before the first time. */
  protected history: string | undefined
  #running = 0
  readonly #ready = Promise.withResolvers<void>()
  readonly #done = Promise.withResolvers<void>()
  /** Somebody hears of its end; or only if it never stands. */
  #isWatched = false
  #isAwaited = false
  #leaving: Promise<void> | undefined
  #waiter: Waiter<Item> | undefined
  /** What an iterator was given last, and is not done with. */
  #inHand: Taken | undefined
  #failure: HubError | undefined
  #forget = ignore

  constructor(
    host: Host,
    topic: string,
    group: string | undefined,
    handler: Subscription<Item, Taken, About>["handler"] | SubscriptionOptions,
    options?: SubscriptionOptions
  ) {
    const hasHandler = typeof handler === "function"
    this.host = host
    this.topic = topic
    this.group = group
    this.handler = hasHandler ? handler : undefined
    this.options = (hasHandler ? options : handler) ?? {}
    // Whoever asks for them hears of it.
    quiet(this.#ready.promise)
    quiet(this.#done.promise)
  }

  get ready(): Promise<void> {
    this.#isAwaited = true
    return this.#ready.promise
  }

  get done(): Promise<void> {
    this.#isWatched = true
    return this.#done.promise
  }

  /** There is one: asked for twice, both share what comes. */
  [Symbol.asyncIterator](): AsyncIterator<Item, undefined> {
    this.#isWatched = true
    return {
      next: () => this.#next(),
      return: async () => {
        await this.unsubscribe().catch(ignore)
        return { done: true, value: undefined }
      }
    }
  }

  readonly unsubscribe = (): Promise<void> =>
    this.#unsubscribe(new HubError("not_subscribed", "unsubscribed before it stood"))

  // --- for the client ----------------------------------------------------------------------------------------

  get isBusy(): boolean {
    return this.#running > 0
  }

  begin(refusal: HubError | undefined): void {
    const { signal } = this.options
    // When its caller can hear it.
    if (refusal) queueMicrotask(() => this.end(refusal))
    else {
      this.#forget = onAbort(signal, (reason) => quiet(this.#unsubscribe(reason)))
      this.establish()
    }
  }

  establish(): void {
    const { connection } = this.host
    const { hubTime, state } = connection
    if (this.isOver || this.isAway || state._tag !== "ready") return
    const stands = (ok?: Ok) => {
      if (ok && !this.history) this.stood(ok, hubTime)
      this.history = state.welcome.history
      this.#ready.resolve()
    }
    const opts = this.opts()
    connection.ask({ op: "SUBSCRIBE", topic: this.topic, group: this.group, opts }, stands, (error) => {
      if (this.isOver || error.code === "closed") return
      // An answer that came too late.
      if (this.history && error.code === "already_subscribed") stands()
      else if (this.history && error.retryable) this.again(() => this.establish(), error)
      else {
        this.end(error)
        // It may stand for all that, and would take events that nobody handles.
        if (error.code === "timeout") quiet(this.leave())
      }
    })
  }

  receive(message: HubMessage): void {
    if (this.isOver) return
    if (message.op === "EVENT" || message.op === "GAP") this.arrived(message)
    else if (message.op === "END") {
      const code = codeOf[message.reason] ?? "closed"
      const why = `the hub ended it: ${message.reason}`
      this.end(new HubError(code, why, code === "unavailable"))
    }
  }

  lost(): void {
    this.queue.clear()
  }

  stop(reason: unknown): void {
    this.isOver = true
    this.queue.clear()
    this.#forget()
    this.#ready.reject(reason)
    this.#finish(this.#waiter)
  }

  end(error?: HubError): void {
    const { onEnd } = this.options
    this.host.remove(this)
    if (this.isOver) error = undefined
    else {
      this.#failure = error
      this.stop(error)
    }
    this.lost()
    if (!error) return this.#done.resolve()
    this.#done.reject(error)
    if (this.history && onEnd) this.host.tell(() => onEnd(error!))
    else if (!this.#isWatched && (this.history || !this.#isAwaited)) this.host.report(error)
  }

  leave(): Promise<Ok> {
    return this.host.connection.request({ op: "UNSUBSCRIBE", topic: this.topic, group: this.group })
  }

  async #unsubscribe(reason: unknown): Promise<void> {
    if (!this.isOver) {
      this.stop(reason)
      this.#leaving = this.leave()
        .then(ignore, (error) => {
          if (!isGone(error)) throw error
        })
        .finally(() => this.end())
      this.lost()
    }
    return this.#leaving
  }

  // --- for live subscriptions and groups ---------------------------------------------------------------------

  /** It is not subscribed for a while, by its own choice. */
  protected get isAway(): boolean {
    return false
  }

  /** Handlers that may run at the same time. */
  protected get limit(): number {
    return 1
  }

  protected abstract opts(): object
  /** For the first time. */
  protected abstract stood(ok: Ok, now: number): void
  protected abstract arrived(message: EventMessage | Gap): void
  /** It was handled before, or is not this client's any more. */
  protected abstract isPast(taken: Taken): boolean
  /** Begins one, unless it is past; what is returned may be waited for, and does not fail. */
  protected abstract take(taken: Taken): unknown
  protected abstract item(event: WireEvent, taken: Taken): Item
  /** Its handler has ended, or who iterates asks for the next one. */
  protected abstract handled(taken: Taken): void
  protected abstract failed(taken: Taken, error: unknown): void
  /** The schema refuses its payload. */
  protected abstract refused(taken: Taken, event: WireEvent, error: InvalidPayload): void
  /** Nothing waits and nothing runs. */
  protected drained(): void {}

  /** Tries again on this connection after a while. */
  protected again(run: () => void, error: HubError): void {
    const { connection } = this.host
    const { epoch } = connection
    setTimeout(() => epoch === connection.epoch && run(), error.retryAfterMs ?? retryMs)
  }

  protected gap(gap: Gap): void {
    const { onGap } = this.options
    if (onGap) this.host.tell(() => onGap(gap))
    else {
      const why = `events ${gap.from} to ${gap.to} of '${gap.topic}' are gone`
      this.host.report(new HubError("gap", why))
    }
  }

  /** Hands over what waits, as long as somebody takes it. */
  protected work(): void {
    while (this.#running < this.limit && (this.handler || this.#waiter)) {
      const taken = this.queue.shift()
      if (taken === undefined) break
      if (this.isPast(taken)) continue
      this.#running++
      const end = this.take(taken)
      if (isPending(end)) void end.then(this.#ended)
      else this.#running--
    }
    if (this.#running + this.queue.size === 0) this.drained()
  }

  readonly #ended = (): void => {
    this.#running--
    this.work()
    this.host.progress()
  }

  /** An event whose payload is looked at, where there is a schema. Without one, nothing is made on the way. */
  protected parse(taken: Taken, event: WireEvent, about: About): unknown {
    const schema = this.host.schemaOf(event.topic)
    if (!schema) return this.#run(taken, event, about)
    return parse(schema, event.topic, event.payload).then(
      (payload) => this.isPast(taken) || this.#run(taken, Object.assign(event, { payload }), about),
      (error: InvalidPayload) => this.refused(taken, event, error)
    )
  }

  #run(taken: Taken, event: WireEvent, about: About): unknown {
    if (!this.handler) return this.hand(this.item(event, taken), taken)
    try {
      const end = this.handler(event, about)
      if (!isPending(end)) return this.handled(taken)
      return Promise.resolve(end).then(
        () => this.handled(taken),
        (error) => this.failed(taken, error)
      )
    } catch (error) {
      this.failed(taken, error)
    }
  }

  /** Gives an item to who iterates. */
  protected hand(value: Item, taken: Taken): void {
    this.#inHand = taken
    this.#waiter?.resolve({ done: false, value })
    this.#waiter = undefined
  }

  #next(): Promise<IteratorResult<Item, undefined>> {
    // Asked before the last one was answered: one after the other.
    if (this.#waiter) return this.#waiter.promise.then(() => this.#next())
    const taken = this.#inHand
    this.#inHand = undefined
    if (taken !== undefined) this.handled(taken)
    const waiter: Waiter<Item> = Promise.withResolvers()
    if (this.isOver) this.#finish(waiter)
    else {
      this.#waiter = waiter
      this.work()
    }
    return waiter.promise
  }

  #finish(waiter: Waiter<Item> | undefined): void {
    if (this.#failure) waiter?.reject(this.#failure)
    else waiter?.resolve({ done: true, value: undefined })
  }
}

/** The hub does not have it: it is not connected, or not subscribed. */
export const isGone = (error: unknown): boolean =>
  error instanceof HubError && (error.code === "closed" || error.code === "not_subscribed")
