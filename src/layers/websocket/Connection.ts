/**
 * One client's connection: carries out what its Session says, and tells it what came of that.
 *
 * All rules are in domain/Session. Here are the socket, the subscriptions as they run, and nothing that decides
 * anything but whether an event may still go to this client.
 */
import type { Duplex } from "node:stream"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { WebSocket } from "ws"
import type { Claims } from "../../domain/Claims.ts"
import * as Session from "../../domain/Session.ts"
import { matches } from "../../domain/Topic.ts"
import { CloseCode, type ErrorCode } from "../../protocol/Codes.ts"
import { type Decoded, decodeFrame } from "../../protocol/Decode.ts"
import type {
  Ack,
  EndReason,
  Extend,
  Gap,
  Nack,
  Ref,
  Subscribe,
  Unsubscribe
} from "../../protocol/Messages.ts"
import type { AccessControl } from "../../services/AccessControl.ts"
import type { AppendOutcome, Appender } from "../../services/Appender.ts"
import type { Appended } from "../../services/EventStore.ts"
import type { EventTraces } from "../../services/EventTraces.ts"
import type { ConnectionInfo } from "../../services/Gateway.ts"
import type { Answer, GroupDelivery, Member } from "../../services/GroupDelivery.ts"
import type { LiveBatch, LiveFeed, LiveSubscription } from "../../services/LiveFeed.ts"
import type { TokenVerifier } from "../../services/TokenVerifier.ts"
import * as metrics from "../core/metrics.ts"
import { groupMessage, liveFrames } from "./frames.ts"
import { type Intake, place, type Place } from "./Intake.ts"
import { Outbound } from "./Outbound.ts"

/** What all connections of a gateway share. */
export interface GatewayContext extends Session.SessionContext {
  readonly verifier: TokenVerifier["Service"]
  readonly access: AccessControl["Service"]
  readonly appender: Appender["Service"]
  readonly feed: LiveFeed["Service"]
  readonly groups: GroupDelivery["Service"]
  readonly intake: Intake
  readonly defaultCredit: number
  readonly recorder: metrics.Recorder
  /** How long publishes take. */
  readonly published: metrics.Distribution
  readonly liveDeliveries: metrics.Count
  readonly traces: EventTraces | undefined
  /** Of a clock that nobody sets. */
  readonly seconds: () => number
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly onClosed: (connection: Connection) => void
}

/** A subscription as it runs. */
interface Running {
  readonly key: Session.SubscriptionKey
  readonly subscription: Session.Subscription
  readonly scope: Scope.Closeable
  live: LiveSubscription | undefined
  member: Member | undefined
  /** Nothing of it is sent any more; its scope may be open until its goodbye is said. */
  isOver: boolean
  /** The hub ended it before its request was answered. */
  ended: EndReason | undefined
}

/** A frame as it came. */
interface ReceivedFrame {
  readonly data: Buffer
  readonly isBinary: boolean
  /** When it came, by the clock that nobody sets. */
  readonly at: number
}

/** A publisher that meets a full queue comes back after this many milliseconds. */
const retryWhenOverloaded = 250

/** At most this many topics are named in the answer to a live subscription. */
const maxHeads = 1_000

/** RFC 6455, section 5.5: a control frame carries 125 bytes, and the code takes two of them. */
const closeReason = (reason: string): string => reason.slice(0, 120)

export class Connection {
  readonly id: string
  readonly #context: GatewayContext
  readonly #ws: WebSocket
  readonly #out: Outbound
  readonly #running = new Map<Session.SubscriptionKey, Running>()
  /** Those of them that do not stand yet: what depends on one waits. */
  readonly #starting = new Set<Running>()
  /** What came and is not looked at yet: frames, and messages of the frame that is; what is to be done about these. */
  #frames: Array<ReceivedFrame> = []
  #received: Array<Decoded> = []
  #frame = 0
  /** When the frame came that is looked at. */
  #frameAt = 0
  #delivered = 0
  /** When it was found to be full, and something was held back for that. */
  #slowSince: number | undefined
  readonly #place: Place
  readonly #actions: Array<Session.Action> = []
  #isWorking = false
  /** Requests that are with a store. */
  #pending = 0
  #session: Session.Session
  #isReading = true

  constructor(id: string, context: GatewayContext, ws: WebSocket, socket: Duplex) {
    this.id = id
    this.#context = context
    this.#ws = ws
    const framing = ws.protocol === "" ? "single" : "array"
    this.#out = new Outbound(ws, socket, framing, context.limits.maxOutboundBytes)
    this.#session = Session.open(this.id, context.now(), context.settings)
    this.#place = place(() => this.#work())
    ws.on("message", (data, isBinary) => this.#receive(data as Buffer, isBinary))
    ws.on("pong", () => this.#step({ _tag: "Pong" }))
    // What went wrong is in the close code; without a listener it would end the process.
    ws.on("error", () => {})
    ws.on("close", (code) => this.#closed(code))
    socket.on("drain", () => this.#drained())
  }

  get info(): ConnectionInfo {
    const { claims, openedAt, subscriptions } = this.#session
    let behind = 0
    for (const { live } of this.#running.values()) behind += live?.behind() ?? 0
    return {
      id: this.id,
      sub: claims?.sub,
      openedAt,
      subscriptions: subscriptions.size,
      outboundBytes: this.#out.bytes,
      behind,
      delivered: this.#delivered,
      slowSince: this.#slowSince
    }
  }

  /** Bytes that the client has not read yet. */
  get outboundBytes(): number {
    return this.#out.bytes
  }

  get claims(): Claims | undefined {
    return this.#session.claims
  }

  /** Nothing that the client asked for is unanswered. */
  get isQuiet(): boolean {
    return this.#pending === 0 && !this.#hasMore
  }

  get #hasMore(): boolean {
    return this.#received.length > 0 || this.#frames.length > 0
  }

  // --- what happens to it ------------------------------------------------------------------------------------

  tick(now: number): void {
    // While the hub itself does not read, it cannot know whether the client answers its pings.
    if (!this.#isReading && !this.#out.isFull) this.#step({ _tag: "Pong" })
    this.#step({ _tag: "Tick", now })
  }

  revoked(): void {
    this.#step({ _tag: "Revoked" })
  }

  /** The hub will close soon; the client comes back after this long. */
  announceDrain(retryAfterMs: number): void {
    this.#send({ op: "DRAIN", retryAfterMs })
  }

  /** There is no place for this client: it comes back later. */
  refuse(retryAfterMs: number): void {
    const why = "the hub has too many connections"
    this.#err(undefined, "unavailable", why, { retryAfterMs })
    this.close(CloseCode.tooManyConnections, why)
  }

  /** Whatever the client still sends is not looked at, and what its groups gave it is free at once. */
  close(code: CloseCode, reason: string): void {
    this.#over()
    this.#out.flush()
    this.#ws.close(code, closeReason(reason))
    // The client's answer to the close has to be read.
    this.#regulate()
  }

  terminate(): void {
    this.#ws.terminate()
  }

  #receive(data: Buffer, isBinary: boolean): void {
    if (this.#session.phase === "closed") return
    this.#frames.push({ data, isBinary, at: this.#context.seconds() })
    this.#work()
  }

  #decode({ data, isBinary }: ReceivedFrame): ReadonlyArray<Decoded> {
    if (isBinary) return [{ op: "MALFORMED", msg: "frames are text" }]
    return decodeFrame(data.toString("utf8"), {
      maxMessages: this.#context.limits.maxMessagesPerFrame,
      maxAckIds: this.#context.limits.maxAckIds
    })
  }

  #closed(code: number): void {
    this.#context.recorder.add(metrics.connectionsClosed, 1, metrics.closeLabels(code))
    this.#over()
    this.#context.onClosed(this)
  }

  #over(): void {
    this.#session = { ...this.#session, phase: "closed", verifying: undefined, queued: [] }
    this.#received = []
    this.#frames = []
    this.#context.intake.leave(this.#place)
    for (const running of this.#running.values()) this.#end(running)
    this.#running.clear()
  }

  /** A client that does not read what it asked for is not asked for more, nor one whose messages wait. */
  #regulate(): void {
    const { phase, verifying } = this.#session
    const isBusy = verifying !== undefined || this.#hasMore || this.#out.isFull
    const mayRead = phase === "closed" || !isBusy
    if (mayRead === this.#isReading) return
    this.#isReading = mayRead
    if (mayRead) this.#ws.resume()
    else this.#ws.pause()
  }

  #drained(): void {
    if (this.#out.isFull) return
    this.#slowSince = undefined
    for (const { live, member } of this.#running.values()) {
      live?.resume()
      member?.setPaused(false)
    }
    this.#regulate()
  }

  // --- carrying out ------------------------------------------------------------------------------------------

  #step(input: Session.Input): void {
    const { actions, session } = Session.step(this.#session, input, this.#context)
    this.#session = session
    this.#actions.push(...actions)
    this.#work()
  }

  /** One after the other: what comes of carrying out an action goes behind the actions that were before it. */
  #work(): void {
    if (this.#isWorking) return
    this.#isWorking = true
    try {
      this.#workAll()
    } catch (error) {
      this.#broke(error)
    }
    this.#isWorking = false
    this.#regulate()
  }

  #workAll(): void {
    const { intake } = this.#context
    for (;;) {
      const action = this.#actions.shift()
      if (action !== undefined) {
        this.#perform(action)
        continue
      }
      const [message] = this.#received
      if (message === undefined) {
        const [frame] = this.#frames
        if (frame === undefined || !intake.may(this.#place, frame.data.length)) return
        this.#frames.shift()
        this.#frame++
        this.#frameAt = frame.at
        this.#received = [...this.#decode(frame)]
        continue
      }
      if (this.#mustWait(message) || !intake.may(this.#place)) return
      this.#received.shift()
      this.#step({
        _tag: "Received",
        messages: [message],
        frame: this.#frame,
        now: this.#context.now()
      })
    }
  }

  /** A bug in the hub costs one connection, whose state nobody knows any more, and no other. */
  #broke(error: unknown): void {
    const id = this.#context.makeId()
    this.#context.fork(
      Effect.logError("a connection failed", Cause.die(error)).pipe(Effect.annotateLogs({ id }))
    )
    this.#actions.length = 0
    this.#err(undefined, "internal", `it is logged as ${id}`)
    this.close(CloseCode.restart, "the connection failed")
  }

  /**
   * Messages apply in their order, but a subscription takes a while to begin: so that an event published
   * behind it is among its events, what depends on it waits, and so does all that follows. Publishes wait, too,
   * while the store is behind.
   */
  #mustWait(message: Decoded): boolean {
    for (const { subscription } of this.#starting) if (dependsOn(message, subscription)) return true
    return message.op === "PUBLISH" && this.#context.intake.holds(this.#place)
  }

  #perform(action: Session.Action): void {
    switch (action._tag) {
      case "Send":
        return this.#send(action.message)
      case "Close":
        return this.close(action.code, action.reason)
      case "Verify":
        return this.#verify(action.token)
      case "Append":
        return this.#append(action)
      case "Subscribe":
        return this.#subscribe(action.key, action.subscription, action.message)
      case "Unsubscribe":
        return this.#unsubscribe(action.key, action.message)
      case "Settle":
        return this.#settle(action.message)
      case "Ping":
        return this.#ws.ping()
    }
  }

  #send(message: object): void {
    if ("op" in message && message.op === "ERR" && "code" in message) {
      this.#context.recorder.add(metrics.errorsSent, 1, { code: String(message.code) })
    }
    this.#out.send(JSON.stringify(message))
  }

  #ok(ref: Ref | undefined, fields?: Readonly<Record<string, unknown>>): void {
    if (ref !== undefined) this.#send(Session.ok(ref, fields))
  }

  #err(ref: Ref | undefined, code: ErrorCode, msg: string, more?: { readonly retryAfterMs?: number }): void {
    this.#send(Session.err(ref, code, msg, more))
  }

  #verify(token: string): void {
    const now = this.#context.now
    this.#context.fork(
      Effect.match(this.#context.verifier.verify(token), {
        onSuccess: (claims): Session.Input => ({ _tag: "Verified", claims, now: now() }),
        onFailure: (error): Session.Input => ({
          _tag: "Refused",
          code:
            error._tag === "TokenExpired"
              ? "token_expired"
              : error._tag === "TokenInvalid"
                ? "jwt_invalid"
                : "unavailable",
          reason: error.message,
          now: now()
        })
      }).pipe(Effect.map((input) => this.#step(input)))
    )
  }

  #append({ record: given, ref }: Extract<Session.Action, { readonly _tag: "Append" }>): void {
    const { intake, published, seconds, traces } = this.#context
    const since = this.#frameAt
    const traced = traces?.enter("publish", given, (seconds() - since) * 1000)
    const record = traced?.record ?? given
    const bytes = record.body.length
    const done = (outcome: AppendOutcome): void => {
      this.#pending--
      intake.answered(this.#place, bytes)
      traced?.end(outcome._tag === "Appended" ? undefined : problemOf(outcome))
      if (outcome._tag === "Appended") {
        const { duplicate, id, seq, storedAt } = outcome
        published.observe(seconds() - since)
        if (ref === undefined) return
        this.#out.send(
          `{"op":"OK","ref":${JSON.stringify(ref)},"id":${JSON.stringify(id)},"seq":${seq},` +
            `"storedAt":${storedAt},"duplicate":${duplicate}}`
        )
      } else if (outcome._tag === "NotAppended" && outcome.reason === "too_large") {
        this.#err(ref, "payload_too_large", "the event is too large for the store")
      } else {
        this.#err(ref, "unavailable", "the event was not stored; send it again with the same id")
      }
    }
    if (this.#context.appender.offer(record, done)) {
      this.#pending++
      intake.offered(this.#place, bytes)
    } else {
      traced?.end("overloaded")
      this.#err(ref, "unavailable", "too many events wait for the store", {
        retryAfterMs: retryWhenOverloaded
      })
    }
  }

  // --- subscriptions -----------------------------------------------------------------------------------------

  #subscribe(key: Session.SubscriptionKey, subscription: Session.Subscription, message: Subscribe): void {
    const running: Running = {
      key,
      subscription,
      scope: Scope.makeUnsafe(),
      live: undefined,
      member: undefined,
      isOver: false,
      ended: undefined
    }
    this.#running.set(key, running)
    this.#starting.add(running)
    const start = subscription.group === undefined ? this.#follow : this.#join
    this.#context.fork(
      start.call(this, running, message).pipe(
        Scope.provide(running.scope),
        Effect.catchCause((cause) => {
          const id = this.#context.makeId()
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
    this.#ok(ref, fields)
    if (running.ended !== undefined) this.#endedByHub(running, running.ended)
    this.#work()
    queueMicrotask(() => subscription.start())
  }

  #startFailed(running: Running, ref: Ref | undefined, code: ErrorCode, msg: string): void {
    if (running.isOver) return
    this.#err(ref, code, msg)
    this.#starting.delete(running)
    this.#running.delete(running.key)
    this.#end(running)
    this.#step({ _tag: "Ended", key: running.key, reason: undefined })
  }

  /** Without a goodbye: what a member has is free at once, and the attempts count. */
  #end(running: Running): void {
    running.isOver = true
    this.#context.fork(Scope.close(running.scope, Exit.void))
  }

  /** The hub ends a subscription, and says why; not before its request is answered. */
  #endedByHub(running: Running, reason: EndReason): void {
    if (running.isOver) return
    if (this.#starting.has(running)) return void (running.ended = reason)
    this.#running.delete(running.key)
    this.#context.recorder.add(metrics.subscriptionsEnded, 1, { reason })
    this.#step({ _tag: "Ended", key: running.key, reason })
    this.#context.fork(this.#leave(running))
  }

  /** The right to an event is decided again, whenever one goes out. */
  #mayHave(topic: string, group: string | undefined): boolean {
    const { claims } = this.#session
    if (claims === undefined) return false
    return this.#context.access.decide(claims, { action: "subscribe", topic, group })._tag === "Allowed"
  }

  #sendGap(
    running: Running,
    gap: { readonly topic: string; readonly from: number; readonly to: number }
  ): void {
    const { group, pattern } = running.subscription
    if (running.isOver || !this.#mayHave(gap.topic, group)) return
    const path: metrics.Path = group === undefined ? "live" : "group"
    this.#context.recorder.add(metrics.gaps, 1, { path })
    const message: Gap = {
      op: "GAP",
      sub: pattern.name,
      ...gap,
      ...(group === undefined ? {} : { group }),
      reason: "trimmed"
    }
    this.#send(message)
  }

  #follow(running: Running, { opts, ref, topic }: Subscribe): Effect.Effect<void, never, Scope.Scope> {
    const { pattern } = running.subscription
    const closeWhenSlow = opts?.overflow === "close"
    return this.#context.feed
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
    if (this.#out.isFull) {
      if (closeWhenSlow) this.close(CloseCode.slowConsumer, "the client reads too slowly")
      this.#slowSince ??= this.#context.now()
      return false
    }
    const denied = this.#deniedTopics(batch)
    this.#context.liveDeliveries.count += batch.records.length
    if (denied === undefined) {
      this.#delivered += batch.records.length
      this.#out.sendFrames(liveFrames(batch, this.#out.framing))
    } else {
      const records = batch.records.filter((record) => !denied.has(record.topic))
      this.#delivered += records.length
      if (records.length > 0) {
        this.#out.sendFrames(liveFrames({ ...batch, records, shared: new Map() }, this.#out.framing))
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
    return this.#context.groups
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
        credit: opts?.credit ?? this.#context.defaultCredit,
        sink: {
          deliver: (events) => {
            if (running.isOver) return
            if (events.some(({ record }) => !this.#mayHave(record.topic, group))) {
              return this.#endedByHub(running, "revoked")
            }
            for (const event of events) this.#out.send(groupMessage(pattern.name, group, event))
            this.#delivered += events.length
            if (!this.#out.isFull) return
            this.#slowSince ??= this.#context.now()
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
  #unsubscribe(key: Session.SubscriptionKey, message: Unsubscribe | undefined): void {
    const running = this.#running.get(key)
    if (running === undefined) return this.#ok(message?.ref)
    this.#running.delete(key)
    this.#pending++
    this.#context.fork(
      Effect.map(this.#leave(running), (left) => {
        this.#pending--
        if (left) this.#ok(message?.ref)
        else this.#err(message?.ref, "unavailable", "the store is not available")
      })
    )
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
  #settle(message: Ack | Nack | Extend): void {
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
      return this.#err(ref, "not_subscribed", `group '${group}' of '${topic}' is not subscribed any more`)
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
        if (failed) this.#err(ref, "unavailable", "the answer was not stored; send it again")
        else this.#ok(ref, stale.length > 0 ? { stale } : undefined)
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

const problemOf = (outcome: Exclude<AppendOutcome, Appended>): string =>
  outcome._tag === "NotAppended" ? outcome.reason : outcome.message

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
