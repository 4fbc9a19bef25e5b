/**
 * A member of a consumer group: each event goes to one member at a time, until one has acknowledged it.
 *
 * With a handler the answer follows from how it ends; who iterates answers by hand. What takes long is extended.
 */
import type { EventMessage, Gap, GroupOptions, NackMode, Ok, WireEvent } from "../protocol/Messages.ts"
import { HubError, type InvalidPayload } from "./HubError.ts"
import { quiet } from "./later.ts"
import { type Refusal, refusalOf } from "./Nack.ts"
import { type Standing, Subscription, type SubscriptionOptions } from "./Subscription.ts"

export interface ConsumeOptions extends SubscriptionOptions, GroupOptions {
  /** Handlers that run at the same time. */
  readonly concurrency?: number | undefined
  /** How long a delivery is extended in all, when it is not answered. 0 for never. */
  readonly extendForMs?: number | undefined
}

export interface NackOptions {
  readonly mode?: NackMode | undefined
  /** Not delivered again before, in milliseconds; takes the place of the back-off. */
  readonly delayMs?: number | undefined
  /** Stands in the dead letter. */
  readonly reason?: string | undefined
}

/** Ids in one ACK. */
const maxAckIds = 1_000

export type GroupHandler<P = unknown> = (event: WireEvent<P>, delivery: Delivery<P>) => unknown

/** One delivery of an event, to be answered once. An answer that comes too late fails with `stale`. */
export interface Delivery<P = unknown> {
  readonly event: WireEvent<P>
  /** 1 for the first delivery. */
  readonly attempt: number
  readonly redelivered: boolean
  /** Milliseconds since 1970, the hub's clock. It moves when the delivery is extended. */
  readonly deadline: number
  /** Aborted when the delivery is no more this client's: the connection is lost, or the time is over. */
  readonly signal: AbortSignal
  /** It is done. Ends when that is durable, and need not be awaited: what was not answered comes again. */
  readonly ack: () => Promise<void>
  /** It failed (which is counted), was not tried, or is hopeless. */
  readonly nack: (options?: NackOptions) => Promise<void>
  /** It takes so much longer, from now on. */
  readonly extend: (ms: number) => Promise<void>
}

/** Deliveries for who iterates. With a handler there is nothing to iterate over. */
export interface GroupSubscription<P = unknown> extends Standing, AsyncIterable<Delivery<P>, undefined> {}

const staleError = (): HubError => new HubError("stale", "answered before, or no longer this client's")

/** Acknowledgements of one turn, and of one topic. */
interface Acks {
  readonly ids: Array<string>
  /** Where somebody waits for it. */
  answer?: PromiseWithResolvers<Ok>
}

class Held implements Delivery {
  readonly event: WireEvent
  readonly attempt: number
  readonly redelivered: boolean
  deadline: number
  /** When it is looked at next, by the hub's clock, too. */
  due = 0
  /** It was answered, or is not this client's any more. */
  isOver = false
  readonly #group: Group
  /** How long the hub gave it, and from when on it is not extended any more. */
  readonly #byMs: number
  readonly #until: number
  #hasLapsed = false
  #abort: AbortController | undefined

  constructor(group: Group, { ctx, event }: EventMessage, now: number, extendForMs: number) {
    this.#group = group
    this.event = event
    this.attempt = ctx?.attempt ?? 1
    this.redelivered = ctx?.redelivered ?? false
    this.deadline = ctx?.deadline ?? Infinity
    this.#byMs = this.deadline - now
    this.#until = now + extendForMs
    this.#plan(now)
  }

  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController()
      if (this.#hasLapsed) this.lapse()
    }
    return this.#abort.signal
  }

  // Handlers take them out of what they get.
  readonly ack = (): Promise<void> => quiet(this.#ack())

  readonly nack = ({ delayMs, mode, reason }: NackOptions = {}): Promise<void> =>
    quiet(this.#group.settle(this) ? this.#ask({ op: "NACK", mode, delayMs, reason }) : this.#ack())

  readonly extend = (ms: number): Promise<void> => quiet(this.isOver ? this.#ack() : this.#extend(ms))

  /** Of this delivery: a handler that outlived it must not answer the next one, which may be this client's, too. */
  about(fields: object): object {
    const { id, topic } = this.event
    return { ...fields, topic, group: this.#group.group, id, attempt: this.attempt }
  }

  lapse(): void {
    this.isOver = this.#hasLapsed = true
    this.#abort?.abort(staleError())
  }

  /** Extends it, if it is time. */
  look(now: number): void {
    if (this.due > now) return
    this.#plan(now)
    void this.extend(this.#byMs)
  }

  /** At half of what is left. */
  #plan(now: number): void {
    this.due = now < this.#until ? now + Math.ceil((this.deadline - now) / 2) : this.deadline
  }

  async #ack(): Promise<void> {
    const acks = this.#group.ack(this)
    if (!acks) throw staleError()
    acks.answer ??= Promise.withResolvers()
    check(await acks.answer.promise, this.event.id)
  }

  async #extend(byMs: number): Promise<void> {
    const deadline = this.#group.now + byMs
    try {
      await this.#ask({ op: "EXTEND", byMs })
    } catch (error) {
      if (error instanceof HubError && error.code === "stale") this.#group.lapse(this)
      throw error
    }
    this.deadline = Math.max(this.deadline, deadline)
    this.#plan(this.#group.now)
  }

  async #ask(fields: object): Promise<void> {
    check(await this.#group.request(this.about(fields)), this.event.id)
  }
}

const check = ({ stale }: Ok, id: string): void => {
  if ((stale as ReadonlyArray<string> | undefined)?.includes(id)) throw staleError()
}

export class Group extends Subscription<Delivery, Held, Delivery> implements GroupSubscription {
  declare protected readonly options: ConsumeOptions
  /** What came and is not answered, in the order in which it came. */
  readonly #held = new Set<Held>()
  /** By topic. */
  readonly #acks = new Map<string, Acks>()
  #timer: ReturnType<typeof setTimeout> | undefined

  // --- for the client ----------------------------------------------------------------------------------------

  override get isBusy(): boolean {
    return this.#held.size > 0 || super.isBusy
  }

  override stop(reason: unknown): void {
    // What was not begun goes back to the group.
    for (let held = this.queue.shift(); held; held = this.queue.shift()) this.settle(held)
    super.stop(reason)
  }

  override lost(): void {
    super.lost()
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const held of this.#held) this.lapse(held)
  }

  override leave(): Promise<Ok> {
    this.#flush()
    return super.leave()
  }

  // --- for deliveries ----------------------------------------------------------------------------------------

  get now(): number {
    return this.host.connection.hubTime
  }

  request(message: object): Promise<Ok> {
    return this.host.connection.request(message)
  }

  /** It is over; false when it was before. */
  settle(held: Held): boolean {
    if (held.isOver) return false
    held.isOver = true
    this.#held.delete(held)
    this.host.progress()
    return true
  }

  lapse(held: Held): void {
    if (this.settle(held)) held.lapse()
  }

  /** Acknowledgements of the same turn go together. Nothing for what is over. */
  ack(held: Held): Acks | undefined {
    if (!this.settle(held)) return undefined
    const { id, topic } = held.event
    if (this.#acks.get(topic)?.ids.length === maxAckIds) this.#flush()
    const acks: Acks = this.#acks.get(topic) ?? { ids: [] }
    if (this.#acks.size === 0) queueMicrotask(() => this.#flush())
    this.#acks.set(topic, acks)
    acks.ids.push(id)
    return acks
  }

  #flush(): void {
    for (const [topic, { answer, ids }] of this.#acks) {
      const ack = { op: "ACK", topic, group: this.group, ids }
      if (answer) this.request(ack).then(answer.resolve, answer.reject)
      else this.host.connection.send(ack)
    }
    this.#acks.clear()
  }

  // --- deliveries --------------------------------------------------------------------------------------------

  protected override get limit(): number {
    return this.handler ? (this.options.concurrency ?? 16) : 1
  }

  protected opts(): object {
    const { ackTimeoutMs, credit, from, history, keyOrdered, maxAttempts } = this.options
    return { from, history, credit, ackTimeoutMs, maxAttempts, keyOrdered }
  }

  protected stood(): void {}

  protected arrived(message: EventMessage | Gap): void {
    if (message.op === "GAP") return this.gap(message)
    const { now } = this
    const held = new Held(this, message, now, this.options.extendForMs ?? 600_000)
    this.#held.add(held)
    if (!this.#timer) this.#lookAt(held.due, now)
    this.queue.push(held)
    this.work()
  }

  #lookAt(due: number, now: number): void {
    if (due < Infinity) this.#timer = setTimeout(() => this.#look(), due - now)
  }

  /** Extends what takes long, also what waits for its handler; and lets go of what has lapsed. */
  #look(): void {
    const { now } = this
    let next = Infinity
    this.#timer = undefined
    for (const held of this.#held) {
      if (held.deadline <= now) this.lapse(held)
      else {
        held.look(now)
        next = Math.min(next, held.due)
      }
    }
    this.#lookAt(next, now)
  }

  protected isPast(held: Held): boolean {
    return held.isOver
  }

  protected take(held: Held): unknown {
    return this.parse(held, held.event, held)
  }

  protected item(_event: WireEvent, held: Held): Delivery {
    return held
  }

  /** Who iterates answers by hand. */
  protected handled(held: Held): void {
    if (this.handler) this.ack(held)
  }

  protected failed(held: Held, error: unknown, refusal: Refusal | undefined = refusalOf(error)): void {
    const reason = ((error instanceof Error && error.message) || String(error)).slice(0, 1_000)
    if (this.settle(held)) this.host.connection.send(held.about({ op: "NACK", reason, ...refusal }))
    this.host.report(error)
  }

  protected refused(held: Held, _event: WireEvent, error: InvalidPayload): void {
    this.failed(held, error, { mode: "poison" })
  }
}
