/**
 * One client's connection: carries out what its Session says, and tells it what came of that.
 *
 * All rules are in domain/Session. Here are the socket, the subscriptions as they run, and nothing that decides
 * anything but whether an event may still go to this client.
 */
import type { Duplex } from "node:stream"
import { Effect, Exit, Fiber, Scope } from "effect"
import type { WebSocket } from "ws"
import type { Claims } from "../../domain/Claims.ts"
import * as Session from "../../domain/Session.ts"
import { CloseCode, type ErrorCode } from "../../protocol/Codes.ts"
import { decodeFrame } from "../../protocol/Decode.ts"
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
import type { ConnectionInfo } from "../../services/Gateway.ts"
import type { Answer, GroupDelivery, Member } from "../../services/GroupDelivery.ts"
import type { LiveBatch, LiveFeed, LiveSubscription } from "../../services/LiveFeed.ts"
import type { TokenVerifier } from "../../services/TokenVerifier.ts"
import * as metrics from "../core/metrics.ts"
import { groupMessage, liveFrames } from "./frames.ts"
import { Outbound } from "./Outbound.ts"

/** What all connections of a gateway share. */
export interface GatewayContext extends Session.SessionContext {
  readonly verifier: TokenVerifier["Service"]
  readonly access: AccessControl["Service"]
  readonly appender: Appender["Service"]
  readonly feed: LiveFeed["Service"]
  readonly groups: GroupDelivery["Service"]
  readonly defaultCredit: number
  readonly recorder: metrics.Recorder
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly onClosed: (connection: Connection) => void
}

/** A subscription as it runs. */
interface Running {
  readonly key: Session.SubscriptionKey
  readonly subscription: Session.Subscription
  readonly scope: Scope.Closeable
  /** Ends when the subscription stands, or came to nothing. */
  starting: Fiber.Fiber<void> | undefined
  live: LiveSubscription | undefined
  member: Member | undefined
  isClosed: boolean
}

/** A publisher that meets a full queue comes back after this many milliseconds. */
const retryWhenOverloaded = 250

/** At most this many topics are named in the answer to a live subscription. */
const maxHeads = 1_000

/** The codes that are ours, or the standard's; whatever else a client closes with is one label. */
const knownCodes = new Set<number>([...Object.values(CloseCode), 1005, 1006])

const closeLabel = (code: number): string => (knownCodes.has(code) ? String(code) : "other")

/** RFC 6455, section 5.5: a control frame carries 125 bytes, and the code takes two of them. */
const closeReason = (reason: string): string => reason.slice(0, 120)

export class Connection {
  readonly id: string
  readonly #context: GatewayContext
  readonly #ws: WebSocket
  readonly #out: Outbound
  readonly #running = new Map<Session.SubscriptionKey, Running>()
  /** Subscriptions that were ended by the client and still say goodbye. */
  readonly #leaving = new Set<Running>()
  #session: Session.Session
  #isReading = true

  constructor(id: string, context: GatewayContext, ws: WebSocket, socket: Duplex) {
    this.id = id
    this.#context = context
    this.#ws = ws
    const framing = ws.protocol === "" ? "single" : "array"
    this.#out = new Outbound(socket, framing, context.limits.maxOutboundBytes)
    this.#session = Session.open(this.id, context.now(), context.settings)
    ws.on("message", (data, isBinary) => this.#received(data as Buffer, isBinary))
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
      behind
    }
  }

  get claims(): Claims | undefined {
    return this.#session.claims
  }

  // --- what happens to it ------------------------------------------------------------------------------------

  tick(now: number): void {
    this.#step({ _tag: "Tick", now })
  }

  revoked(): void {
    this.#step({ _tag: "Revoked" })
  }

  /** The hub will close soon; the client comes back after this long. */
  announceDrain(retryAfterMs: number): void {
    this.#send({ op: "DRAIN", retryAfterMs })
  }

  close(code: CloseCode, reason: string): void {
    this.#out.close()
    this.#ws.close(code, closeReason(reason))
  }

  terminate(): void {
    this.#ws.terminate()
  }

  #received(data: Buffer, isBinary: boolean): void {
    const messages = isBinary
      ? [{ op: "MALFORMED", msg: "frames are text" } as const]
      : decodeFrame(data.toString("utf8"), {
          maxMessages: this.#context.limits.maxMessagesPerFrame,
          maxAckIds: this.#context.limits.maxAckIds
        })
    this.#step({ _tag: "Received", messages, now: this.#context.now() })
    this.#regulate()
  }

  #closed(code: number): void {
    this.#context.recorder.add(metrics.connectionsClosed, 1, { code: closeLabel(code) })
    this.#session = { ...this.#session, phase: "closed" }
    for (const running of [...this.#running.values(), ...this.#leaving]) this.#end(running)
    this.#running.clear()
    this.#context.onClosed(this)
  }

  /** A client that does not read what it asked for is not asked for more. */
  #regulate(): void {
    const mayRead = !this.#out.isFull && this.#session.verifying === undefined
    if (mayRead === this.#isReading) return
    this.#isReading = mayRead
    if (mayRead) this.#ws.resume()
    else this.#ws.pause()
  }

  #drained(): void {
    if (this.#out.isFull) return
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
    for (const action of actions) this.#perform(action)
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
      }).pipe(
        Effect.map((input) => {
          this.#step(input)
          this.#regulate()
        })
      )
    )
  }

  #append({ record, ref }: Extract<Session.Action, { readonly _tag: "Append" }>): void {
    const done = (outcome: AppendOutcome): void => {
      if (outcome._tag === "Appended") {
        const { duplicate, id, seq, storedAt } = outcome
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
    if (!this.#context.appender.offer(record, done)) {
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
      starting: undefined,
      live: undefined,
      member: undefined,
      isClosed: false
    }
    this.#running.set(key, running)
    const start = subscription.group === undefined ? this.#follow : this.#join
    running.starting = this.#context.fork(
      start.call(this, running, message).pipe(
        Scope.provide(running.scope),
        Effect.catchCause((cause) =>
          Effect.andThen(
            Effect.logError("a subscription failed", cause),
            Effect.sync(() => this.#startFailed(running, message.ref, "internal", "the subscription failed"))
          )
        )
      )
    )
  }

  #startFailed(running: Running, ref: Ref | undefined, code: ErrorCode, msg: string): void {
    this.#err(ref, code, msg)
    if (this.#running.get(running.key) === running) {
      this.#running.delete(running.key)
      this.#step({ _tag: "Ended", key: running.key, reason: undefined })
    }
    this.#end(running)
  }

  #end(running: Running): void {
    if (running.isClosed) return
    running.isClosed = true
    this.#leaving.delete(running)
    this.#context.fork(Scope.close(running.scope, Exit.void))
  }

  /** The hub ends a subscription, and says why. */
  #endedByHub(running: Running, reason: EndReason): void {
    if (this.#running.get(running.key) !== running) return
    this.#running.delete(running.key)
    this.#step({ _tag: "Ended", key: running.key, reason })
    this.#end(running)
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
    if (running.isClosed || !this.#mayHave(gap.topic, group)) return
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
            this.#ok(ref, { topic, heads, ...(visible.length > maxHeads ? { more: true } : {}) })
            live.start()
          }
        })
      )
  }

  #deliverLive(running: Running, batch: LiveBatch, closeWhenSlow: boolean): boolean {
    if (running.isClosed) return true
    if (this.#out.isFull) {
      if (closeWhenSlow) this.close(CloseCode.slowConsumer, "the client reads too slowly")
      return false
    }
    const denied = this.#deniedTopics(batch)
    this.#context.recorder.add(metrics.liveDeliveries, batch.records.length)
    if (denied === undefined) {
      this.#out.sendFrames(liveFrames(batch, this.#out.framing))
    } else {
      const records = batch.records.filter((record) => !denied.has(record.topic))
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
            if (running.isClosed) return
            if (events.some(({ record }) => !this.#mayHave(record.topic, group))) {
              return this.#endedByHub(running, "revoked")
            }
            for (const event of events) this.#out.send(groupMessage(pattern.name, group, event))
            if (this.#out.isFull) running.member?.setPaused(true)
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
            this.#ok(ref, { topic, group })
            member.start()
          }
        })
      )
  }

  /** Nothing of the subscription is sent from here on; the answer comes when its goodbye is durable. */
  #unsubscribe(key: Session.SubscriptionKey, message: Unsubscribe | undefined): void {
    const running = this.#running.get(key)
    if (running === undefined) return this.#ok(message?.ref)
    this.#running.delete(key)
    this.#leaving.add(running)
    this.#context.fork(
      Effect.gen({ self: this }, function* () {
        if (running.starting !== undefined) yield* Fiber.await(running.starting)
        const left = yield* Effect.exit(running.member?.leave ?? Effect.void)
        this.#end(running)
        if (Exit.isSuccess(left)) this.#ok(message?.ref)
        else this.#err(message?.ref, "unavailable", "the store is not available")
      })
    )
  }

  /** Hands an answer to the memberships that have the deliveries; a group may be subscribed by several patterns. */
  #settle(message: Ack | Nack | Extend): void {
    const { group, ref, topic } = message
    const ids = message.op === "ACK" ? message.ids : [message.id]
    const members: Array<Member> = []
    for (const { member, subscription } of this.#running.values()) {
      if (subscription.group === group && member !== undefined) members.push(member)
    }
    const [first] = members
    if (first === undefined) {
      return this.#err(ref, "not_subscribed", `group '${group}' is not subscribed yet`)
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
    for (const [member, share] of shares) {
      member.answer(answerOf(message, share), (outcomes) => {
        open--
        if ("_tag" in outcomes) failed = true
        else share.forEach((id, i) => outcomes[i] === "stale" && stale.push(id))
        if (open > 0) return
        if (failed) this.#err(ref, "unavailable", "the answer was not stored; send it again")
        else this.#ok(ref, stale.length > 0 ? { stale } : undefined)
      })
    }
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
