/**
 * A live subscription: every event of a pattern, in order, and in each topic on from the last one that was handled,
 * however often the connection goes.
 *
 * What waits for a slow consumer is bounded: beyond that the client leaves, and comes back when it has caught up.
 */
import type { EventMessage, From, Gap, LiveOptions, Ok, WireEvent } from "../protocol/Messages.ts"
import type { InvalidPayload } from "./HubError.ts"
import { type Host, isGone, type Standing, Subscription, type SubscriptionOptions } from "./Subscription.ts"
import type { Issue } from "./topics.ts"

/** Where a subscription stands, as JSON. Given as options to another one, it goes on behind it. */
export interface Position {
  readonly from?: From | undefined
  readonly history?: string | undefined
  /** The last seq per topic that was handled; those come again where `from` is a time, and are passed over. */
  readonly seen?: Readonly<Record<string, number>> | undefined
}

export interface LiveSubscriptionOptions extends SubscriptionOptions, Position {
  readonly overflow?: LiveOptions["overflow"] | undefined
  /** Events and gaps that wait in the client for whoever handles them, at most; others come later from the hub. */
  readonly maxBuffered?: number | undefined
  /** A payload that its schema refuses. Else `error` is told. Only for handlers: who iterates gets it as an item. */
  readonly onInvalid?: ((event: WireEvent, issues: ReadonlyArray<Issue>) => void) | undefined
}

/** What a live subscription hands to who iterates. */
export type LiveItem<P = unknown> =
  | ({ readonly _tag: "event" } & WireEvent<P>)
  /** These positions, both included, will not come: they are not retained any more. */
  | ({ readonly _tag: "gap" } & Omit<Gap, "op" | "sub" | "group">)
  /** Its schema refuses the payload. */
  | {
      readonly _tag: "invalid"
      readonly event: WireEvent
      readonly issues: ReadonlyArray<Issue>
    }

export type LiveHandler<P = unknown> = (event: WireEvent<P>) => unknown

export interface LiveSubscription<P = unknown> extends Standing, AsyncIterable<LiveItem<P>, undefined> {
  /**
   * Where it stands: JSON, to go on from later, also in another process, by `subscribe(pattern, { ...position })`. What an
   * iterator gave last counts when it is asked for the next one.
   */
  readonly position: Position
}

/** Of more topics than these the positions would not fit into a frame. */
const maxPositions = 5_000

type Taken = EventMessage | Gap

const lastOf = (taken: Taken): number => (taken.op === "GAP" ? taken.to : taken.event.seq)

/** Each of what a `from` may say. */
interface Beginning {
  readonly after?: number
  readonly time?: number
  readonly topics?: Readonly<Record<string, number>>
  readonly rest?: "start" | "new"
}

export class Live extends Subscription<LiveItem, Taken, void> implements LiveSubscription {
  declare protected readonly options: LiveSubscriptionOptions
  /** The last seq per topic that was handled. */
  readonly #positions: Map<string, number>
  /** It begins behind the heads that the hub names. */
  readonly #isNew: boolean
  /** Nothing that was stored before this time (of the hub) was ever asked for. */
  #since: number | undefined
  /** The positions do not name every topic there is, so it goes on from `since`. */
  #byTime: boolean
  /** What comes is let go: it is asked for again, behind what waits. */
  #isAway = false
  /** The hub has let go of it, too. */
  #hasLeft = false

  constructor(
    host: Host,
    topic: string,
    group: undefined,
    handler: LiveHandler | LiveSubscriptionOptions | undefined,
    options: LiveSubscriptionOptions | undefined
  ) {
    super(host, topic, group, handler, options)
    const { from = "new", seen } = this.options
    const { after, rest, time, topics }: Beginning = typeof from === "object" ? from : { rest: from }
    this.#positions = new Map(Object.entries({ ...topics, ...seen }))
    if (after !== undefined) this.#positions.set(topic, after)
    this.#isNew = rest === "new"
    this.#since = time
    this.#byTime = time !== undefined
  }

  get position(): Position {
    const { history } = this
    if (!history) return { from: this.options.from, history: this.options.history, seen: this.options.seen }
    const seen = Object.fromEntries(this.#positions)
    return this.#byTime || this.#positions.size > maxPositions
      ? { from: { time: this.#since ?? 0 }, history, seen }
      : { from: { topics: seen, rest: "start" }, history }
  }

  override lost(): void {
    super.lost()
    this.#isAway = this.#hasLeft = false
  }

  protected override get isAway(): boolean {
    return this.#isAway
  }

  protected opts(): object {
    return { ...this.position, seen: undefined, overflow: this.options.overflow }
  }

  protected stood({ heads, more }: Ok, now: number): void {
    if (!this.#isNew) return
    for (const [topic, seq] of Object.entries(heads as Readonly<Record<string, number>>)) {
      if (!this.#positions.has(topic)) this.#positions.set(topic, seq)
    }
    this.#since = now
    this.#byTime = more === true
  }

  protected arrived(message: Taken): void {
    if (this.#isAway) return
    if (this.queue.size >= (this.options.maxBuffered ?? 10_000)) return this.#goAway()
    this.queue.push(message)
    this.work()
  }

  /** What comes until the hub knows is dropped, all of it, so that nothing is missing in between. */
  #goAway(): void {
    const left = () => {
      // Unless the connection is gone, and with it what there was to leave.
      this.#hasLeft = this.#isAway
      this.work()
    }
    this.#isAway = true
    this.leave().then(left, (error) => {
      if (isGone(error)) left()
      else this.again(() => this.#goAway(), error)
    })
  }

  protected override drained(): void {
    if (!this.#hasLeft) return
    this.#isAway = this.#hasLeft = false
    this.establish()
  }

  #positionOf(topic: string): number {
    return this.#positions.get(topic) ?? 0
  }

  /** It came before, and was asked for again: by a time, or since the connection went too early. */
  protected isPast(taken: Taken): boolean {
    return this.isOver || lastOf(taken) <= this.#positionOf(taken.topic)
  }

  protected take(taken: Taken): unknown {
    if (taken.op === "EVENT") return this.parse(taken, taken.event)
    const { reason, to, topic } = taken
    // What was trimmed after it was handled is no gap.
    const from = Math.max(taken.from, this.#positionOf(topic) + 1)
    if (!this.handler) return this.hand({ _tag: "gap", topic, from, to, reason }, taken)
    this.gap({ ...taken, from })
    this.handled(taken)
  }

  protected item(event: WireEvent): LiveItem {
    return { _tag: "event", ...event }
  }

  protected handled(taken: Taken): void {
    this.#positions.set(taken.topic, lastOf(taken))
  }

  protected failed(taken: Taken, error: unknown): void {
    this.host.report(error)
    this.handled(taken)
  }

  protected refused(taken: Taken, event: WireEvent, error: InvalidPayload): void {
    const { onInvalid } = this.options
    const { issues } = error
    if (!this.handler) return this.hand({ _tag: "invalid", event, issues }, taken)
    if (onInvalid) this.host.tell(() => onInvalid(event, issues))
    else this.host.report(error)
    this.handled(taken)
  }
}
