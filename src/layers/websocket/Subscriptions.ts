/**
 * The subscriptions of one connection as they run: how each begins, what it is given, and how it ends.
 *
 * What a client may subscribe is decided in domain/Session; here it is decided again for each event that goes out.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Claims } from "../../domain/Claims.ts"
import type * as Session from "../../domain/Session.ts"
import { matches } from "../../domain/Topic.ts"
import type { ErrorCode } from "../../protocol/Codes.ts"
import type { Decoded } from "../../protocol/Decode.ts"
import type {
  Ack,
  End,
  EndReason,
  Extend,
  Gap,
  Nack,
  Ref,
  Subscribe,
  Unsubscribe
} from "../../protocol/Messages.ts"
import type { Answer, Member } from "../../services/GroupDelivery.ts"
import type { LiveBatch, LiveSubscription } from "../../services/LiveFeed.ts"
import * as metrics from "../core/metrics.ts"
import { groupMessage, liveFrames } from "./frames.ts"
import type { GatewayContext } from "./GatewayContext.ts"
import type { Outbound } from "./Outbound.ts"

/** At most this many topics are named in the answer to a live subscription. */
const maxHeads = 1_000

/** The connection that they belong to. */
export interface Host {
  readonly context: GatewayContext
  readonly out: Outbound
  readonly claims: () => Claims | undefined
  readonly send: (message: object) => void
  readonly ok: (ref: Ref | undefined, fields?: Readonly<Record<string, unknown>>) => void
  readonly err: (ref: Ref | undefined, code: ErrorCode, msg: string) => void
  /** A subscription came to nothing, or the hub ended it. */
  readonly ended: (key: Session.SubscriptionKey, reason: EndReason | undefined) => void
  /** Goes on with what waited for a subscription to stand. */
  readonly work: () => void
  /** The client reads more slowly than it said that it would. */
  readonly tooSlow: () => void
}

/** A subscription as it runs. */
interface Running {
  readonly key: Session.SubscriptionKey
  readonly subscription: Session.Subscription
  readonly scope: Scope.Closeable
  /** Of the request that began it. */
  readonly ref: Ref | undefined
  live: LiveSubscription | undefined
  member: Member | undefined
  /** Nothing of it is sent any more; its scope may be open until its goodbye is said. */
  isOver: boolean
  /** The hub ended it before its request was answered. */
  ended: EndReason | undefined
}

/** The subscriptions of one connection, by their keys. */
export class Subscriptions {
  readonly #host: Host
  readonly #running = new Map<Session.SubscriptionKey, Running>()
  /** Those of them that do not stand yet: what depends on one waits. */
  readonly #starting = new Set<Running>()
  #delivered = 0
  /** When the client was found to read too slowly, and something was held back for that. */
  #slowSince: number | undefined
  /** Requests that are with a store. */
  #pending = 0

  constructor(host: Host) {
    this.#host = host
  }

  /** Events that the client was given. */
  get delivered(): number {
    return this.#delivered
  }

  /** Since when something is held back; nothing: nothing is. */
  get slowSince(): number | undefined {
    return this.#slowSince
  }

  /** Requests that are not answered. */
  get pending(): number {
    return this.#pending
  }

  /** Topics in which live subscriptions are behind. */
  get behind(): number {
    let behind = 0
    for (const { live } of this.#running.values()) behind += live?.behind() ?? 0
    return behind
  }

  /** The client reads again. */
  resume(): void {
    this.#slowSince = undefined
    for (const { live, member } of this.#running.values()) {
      live?.resume()
      member?.setPaused(false)
    }
  }

  /** The connection is over: what its groups gave it is free at once. */
  over(): void {
    for (const running of this.#running.values()) this.#end(running)
    this.#running.clear()
  }

  /**
   * Messages apply in their order, but a subscription takes a while to begin: so that an event published
   * behind it is among its events, what depends on it waits, and so does all that follows.
   */
  holds(message: Decoded): boolean {
    for (const { subscription } of this.#starting) if (dependsOn(message, subscription)) return true
    return false
  }

  subscribe(key: Session.SubscriptionKey, subscription: Session.Subscription, message: Subscribe): void {
    const running: Running = {
      key,
      subscription,
      scope: Scope.makeUnsafe(),
      ref: message.ref,
      live: undefined,
      member: undefined,
      isOver: false,
      ended: undefined
    }
    this.#running.set(key, running)
    this.#starting.add(running)
    const start = subscription.group === undefined ? this.#follow : this.#join
    this.#host.context.fork(
      start.call(this, running, message).pipe(
        Scope.provide(running.scope),
        Effect.catchCause((cause) => {
          const id = this.#host.context.makeId()
          return Effect.logError("a subscription failed", cause).pipe(
            Effect.annotateLogs({ id }),
            Effect.andThen(
              Effect.sync(() => this.#startFailed(running, message.ref, "internal", `it is logged as ${id}`))
            )
          )
        })
      )
    )
  }

  /**
   * The subscription stands: its request is answered, and nothing of it comes before that. What the client
   * sent behind it goes first: an ACK of what lapsed has to be there before that is delivered again.
   */
  #started(
    running: Running,
    subscription: { readonly start: () => void },
    ref: Ref | undefined,
    fields: Readonly<Record<string, unknown>>
  ): void {
    if (running.isOver) return
    this.#starting.delete(running)
    this.#host.ok(ref, fields)
    if (running.ended !== undefined) this.#endedByHub(running, running.ended)
    this.#host.work()
    queueMicrotask(() => subscription.start())
  }

  #startFailed(running: Running, ref: Ref | undefined, code: ErrorCode, msg: string): void {
    if (running.isOver) return
    this.#host.err(ref, code, msg)
    this.#starting.delete(running)
    this.#running.delete(running.key)
    this.#end(running)
    this.#host.ended(running.key, undefined)
  }

  /** Without a goodbye: what a member has is free at once, and the attempts count. */
  #end(running: Running): void {
    running.isOver = true
    this.#host.context.fork(Scope.close(running.scope, Exit.void))
  }

  /** The hub ends a subscription, and says why; not before its request is answered. */
  #endedByHub(running: Running, reason: EndReason): void {
    if (running.isOver) return
    if (this.#starting.has(running)) return void (running.ended = reason)
    this.#running.delete(running.key)
    this.#host.context.recorder.add(metrics.subscriptionsEnded, 1, { reason })
    this.#host.ended(running.key, reason)
    this.#host.context.fork(this.#leave(running))
  }

  /** The right to an event is decided again, whenever one goes out. */
  #mayHave(topic: string, group: string | undefined): boolean {
    const claims = this.#host.claims()
    if (claims === undefined) return false
    return this.#host.context.access.decide(claims, { action: "subscribe", topic, group })._tag === "Allowed"
  }

  #sendGap(
    running: Running,
    gap: { readonly topic: string; readonly from: number; readonly to: number }
  ): void {
    const { group, pattern } = running.subscription
    if (running.isOver || !this.#mayHave(gap.topic, group)) return
    const path: metrics.Path = group === undefined ? "live" : "group"
    this.#host.context.recorder.add(metrics.gaps, 1, { path })
    const message: Gap = {
      op: "GAP",
      sub: pattern.name,
      ...gap,
      ...(group === undefined ? {} : { group }),
      reason: "trimmed"
    }
    this.#host.send(message)
  }

  #follow(running: Running, { opts, ref, topic }: Subscribe): Effect.Effect<void, never, Scope.Scope> {
    const { pattern } = running.subscription
    const closeWhenSlow = opts?.overflow === "close"
    return this.#host.context.feed
      .subscribe({
        pattern,
        from: opts?.from ?? "new",
        history: opts?.history,
        sink: {
          deliver: (batch) => this.#deliverLive(running, batch, closeWhenSlow),
          gap: (gap) => this.#sendGap(running, gap)
        }
      })
      .pipe(
        Effect.match({
          onFailure: (error) =>
            error._tag === "StoreUnavailable"
              ? this.#startFailed(running, ref, "unavailable", error.message)
              : this.#startFailed(running, ref, "unrecoverable_position", error.message),
          onSuccess: (live) => {
            running.live = live
            const visible = [...live.heads].filter(([name]) => this.#mayHave(name, undefined))
            const heads = Object.fromEntries(visible.slice(0, maxHeads))
            const more = visible.length > maxHeads ? { more: true } : {}
            this.#started(running, live, ref, { topic, heads, ...more })
          }
        })
      )
  }

  #deliverLive(running: Running, batch: LiveBatch, closeWhenSlow: boolean): boolean {
    if (running.isOver) return true
    if (this.#host.out.isFull) {
      if (closeWhenSlow) this.#host.tooSlow()
      this.#slowSince ??= this.#host.context.now()
      return false
    }
    const denied = this.#deniedTopics(batch)
    this.#host.context.liveDeliveries.count += batch.records.length
    if (denied === undefined) {
      this.#delivered += batch.records.length
      this.#host.out.sendFrames(liveFrames(batch, this.#host.out.framing))
    } else {
      const records = batch.records.filter((record) => !denied.has(record.topic))
      this.#delivered += records.length
      if (records.length > 0) {
        this.#host.out.sendFrames(
          liveFrames({ ...batch, records, shared: new Map() }, this.#host.out.framing)
        )
      }
    }
    return true
  }

  /** The topics of a batch that this client may not have; nothing when it may have all of them. */
  #deniedTopics(batch: LiveBatch): ReadonlySet<string> | undefined {
    let denied: Set<string> | undefined
    let last: string | undefined
    for (const { topic } of batch.records) {
      if (topic === last) continue
      last = topic
      if (!this.#mayHave(topic, undefined)) denied = (denied ?? new Set()).add(topic)
    }
    return denied
  }

  #join(
    running: Running,
    { group = "", opts, ref, topic }: Subscribe
  ): Effect.Effect<void, never, Scope.Scope> {
    const { pattern } = running.subscription
    return this.#host.context.groups
      .join({
        pattern,
        group,
        wanted: {
          ...(opts?.ackTimeoutMs === undefined ? {} : { ackTimeoutMs: opts.ackTimeoutMs }),
          ...(opts?.maxAttempts === undefined ? {} : { maxAttempts: opts.maxAttempts }),
          ...(opts?.keyOrdered === undefined ? {} : { keyOrdered: opts.keyOrdered })
        },
        from: opts?.from ?? "new",
        history: opts?.history,
        credit: opts?.credit ?? this.#host.context.defaultCredit,
        sink: {
          deliver: (events) => {
            if (running.isOver) return
            if (events.some(({ record }) => !this.#mayHave(record.topic, group))) {
              return this.#endedByHub(running, "revoked")
            }
            for (const event of events) this.#host.out.send(groupMessage(pattern.name, group, event))
            this.#delivered += events.length
            if (!this.#host.out.isFull) return
            this.#slowSince ??= this.#host.context.now()
            running.member?.setPaused(true)
          },
          gap: (gap) => this.#sendGap(running, gap),
          end: (reason) => this.#endedByHub(running, reason)
        }
      })
      .pipe(
        Effect.match({
          onFailure: (error) => {
            switch (error._tag) {
              case "GroupConflict":
                return this.#startFailed(running, ref, "group_conflict", error.message)
              case "UnrecoverablePosition":
                return this.#startFailed(running, ref, "unrecoverable_position", error.message)
              case "StoreUnavailable":
                return this.#startFailed(running, ref, "unavailable", error.message)
            }
          },
          onSuccess: (member) => {
            running.member = member
            this.#started(running, member, ref, { topic, group })
          }
        })
      )
  }

  /** Nothing of the subscription is sent from here on; the answer comes when its goodbye is durable. */
  unsubscribe(key: Session.SubscriptionKey, { ref }: Unsubscribe): void {
    const running = this.#running.get(key)
    if (running === undefined) return this.#host.ok(ref)
    this.#running.delete(key)
    this.#pending++
    this.#host.context.fork(
      Effect.map(this.#leave(running), (left) => {
        this.#pending--
        if (left) this.#host.ok(ref)
        else this.#host.err(ref, "unavailable", "the store is not available")
      })
    )
  }

  /**
   * The right to them is lost. What never stood has no end: its request is refused, and that is all. All of them are over
   * before the first says goodbye: what that one's group gets back must not go to another of them.
   */
  revoke(ends: ReadonlyMap<Session.SubscriptionKey, End>): void {
    const over: Array<Running> = []
    for (const [key, end] of ends) {
      const running = this.#running.get(key)
      this.#running.delete(key)
      if (running !== undefined) {
        running.isOver = true
        over.push(running)
      }
      if (running !== undefined && this.#starting.delete(running)) {
        this.#host.err(running.ref, "forbidden", "the right to it was lost before it stood")
      } else {
        this.#host.context.recorder.add(metrics.subscriptionsEnded, 1, { reason: end.reason })
        this.#host.send(end)
      }
    }
    for (const running of over) {
      this.#pending++
      this.#host.context.fork(
        Effect.map(this.#leave(running), () => {
          this.#pending--
        })
      )
    }
  }

  /** Says goodbye: what a member has is free, and the attempts do not count. False: it could not be stored. */
  #leave(running: Running): Effect.Effect<boolean> {
    running.isOver = true
    return Effect.exit(running.member?.leave ?? Effect.void).pipe(
      Effect.tap(() => Scope.close(running.scope, Exit.void)),
      Effect.map(Exit.isSuccess)
    )
  }

  /** Hands an answer to the memberships that have the deliveries; a group may be subscribed by several patterns. */
  settle(message: Ack | Nack | Extend): void {
    const { group, ref, topic } = message
    const ids = message.op === "ACK" ? message.ids : [message.id]
    const members: Array<Member> = []
    for (const { member, subscription } of this.#running.values()) {
      if (member !== undefined && subscription.group === group && matches(subscription.pattern, topic)) {
        members.push(member)
      }
    }
    const [first] = members
    if (first === undefined) {
      return this.#host.err(
        ref,
        "not_subscribed",
        `group '${group}' of '${topic}' is not subscribed any more`
      )
    }
    const shares = new Map<Member, Array<string>>()
    for (const id of ids) {
      const owner =
        members.length === 1 ? first : (members.find((member) => member.holds(topic, id)) ?? first)
      const share = shares.get(owner)
      if (share === undefined) shares.set(owner, [id])
      else share.push(id)
    }
    const stale: Array<string> = []
    let open = shares.size
    let failed = false
    this.#pending++
    for (const [member, share] of shares) {
      member.answer(answerOf(message, share), (outcomes) => {
        open--
        if ("_tag" in outcomes) failed = true
        else share.forEach((id, i) => outcomes[i] === "stale" && stale.push(id))
        if (open > 0) return
        this.#pending--
        if (failed) this.#host.err(ref, "unavailable", "the answer was not stored; send it again")
        else this.#host.ok(ref, stale.length > 0 ? { stale } : undefined)
      })
    }
  }
}

/** Whether a message means something else before the subscription stands than after. */
const dependsOn = (message: Decoded, { group, pattern }: Session.Subscription): boolean => {
  switch (message.op) {
    case "AUTH":
      return true
    case "PUBLISH":
      return matches(pattern, message.topic)
    case "SUBSCRIBE":
    case "UNSUBSCRIBE":
      return message.group === group && message.topic === pattern.name
    case "ACK":
    case "NACK":
    case "EXTEND":
      return message.group === group && matches(pattern, message.topic)
    default:
      return false
  }
}

const answerOf = (message: Ack | Nack | Extend, ids: ReadonlyArray<string>): Answer => {
  const about = { topic: message.topic, ids, attempt: message.attempt }
  switch (message.op) {
    case "ACK":
      return { _tag: "Ack", ...about }
    case "NACK": {
      const { delayMs, mode = "fail", reason = "refused by its handler" } = message
      return { _tag: "Nack", ...about, mode, reason, delayMs }
    }
    case "EXTEND":
      return { _tag: "Extend", ...about, byMs: message.byMs }
  }
}
