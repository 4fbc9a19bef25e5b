/**
 * One client's connection: carries out what its Session says, and tells it what came of that.
 *
 * All rules are in domain/Session. Here is the socket, and nothing that decides anything; what goes out by itself
 * is in Subscriptions.
 */
import type { Duplex } from "node:stream"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { WebSocket } from "ws"
import type { Claims } from "../../domain/Claims.ts"
import * as Session from "../../domain/Session.ts"
import { CloseCode, type ErrorCode } from "../../protocol/Codes.ts"
import { type Decoded, decodeFrame } from "../../protocol/Decode.ts"
import type { Ref } from "../../protocol/Messages.ts"
import type { AppendOutcome } from "../../services/Appender.ts"
import type { Appended } from "../../services/EventStore.ts"
import type { ConnectionInfo } from "../../services/Gateway.ts"
import { TokenInvalid, VerifierUnavailable } from "../../services/TokenVerifier.ts"
import * as metrics from "../core/metrics.ts"
import type { GatewayContext } from "./GatewayContext.ts"
import { place, type Place } from "./Intake.ts"
import { Outbound } from "./Outbound.ts"
import type { Stranger } from "./Strangers.ts"
import { Subscriptions } from "./Subscriptions.ts"

/** A frame as it came. */
interface ReceivedFrame {
  readonly data: Buffer
  readonly isBinary: boolean
  /** When it came, by the clock that nobody sets. */
  readonly at: number
}

/** A publisher that meets a full queue comes back after this many milliseconds. */
const retryWhenOverloaded = 250

/** RFC 6455, section 5.5: a control frame carries 125 bytes, and the code takes two of them. */
const closeReason = (reason: string): string => reason.slice(0, 120)

export interface Options {
  readonly id: string
  /** Where it comes from. */
  readonly address: string
  readonly context: GatewayContext
  readonly ws: WebSocket
  readonly socket: Duplex
  readonly onClosed: (connection: Connection) => void
}

export class Connection {
  readonly id: string
  readonly address: string
  readonly #context: GatewayContext
  readonly #ws: WebSocket
  readonly #socket: Duplex
  readonly #out: Outbound
  readonly #subscriptions: Subscriptions
  /** What came and is not looked at yet: frames, and messages of the frame that is; what is to be done about these. */
  #frames: Array<ReceivedFrame> = []
  #received: Array<Decoded> = []
  #frame = 0
  /** When the frame came that is looked at. */
  #frameAt = 0
  readonly #place: Place
  readonly #actions: Array<Session.Action> = []
  #isWorking = false
  /** Publishes that are with the store. */
  #pending = 0
  #session: Session.Session
  #isReading = true
  /** What it has sent is counted until it is known; nothing: it is. */
  #stranger: Stranger | undefined

  readonly #onClosed: (connection: Connection) => void

  constructor({ address, context, id, onClosed, socket, ws }: Options) {
    this.id = id
    this.address = address
    this.#context = context
    this.#onClosed = onClosed
    this.#ws = ws
    this.#socket = socket
    const framing = ws.protocol === "" ? "single" : "array"
    this.#out = new Outbound(ws, socket, framing, context.limits.maxOutboundBytes)
    this.#session = Session.open(this.id, context.now(), context.settings, framing === "single")
    this.#subscriptions = new Subscriptions({
      context,
      out: this.#out,
      claims: () => this.#session.claims,
      send: (message) => this.#send(message),
      ok: (ref, fields) => this.#ok(ref, fields),
      err: (ref, code, msg) => this.#err(ref, code, msg),
      ended: (key, reason) => this.#step({ _tag: "Ended", key, reason }),
      work: () => this.#work(),
      tooSlow: () => this.close(CloseCode.slowConsumer, "the client reads too slowly")
    })
    this.#place = place(() => this.#work())
    this.#stranger = context.strangers.join()
    socket.on("data", this.#heard)
    ws.on("message", (data, isBinary) => this.#receive(data as Buffer, isBinary))
    ws.on("pong", () => this.#step({ _tag: "Pong" }))
    // What went wrong is in the close code; without a listener it would end the process.
    ws.on("error", () => {})
    ws.on("close", (code) => this.#closed(code))
    socket.on("drain", () => this.#drained())
  }

  get info(): ConnectionInfo {
    const { claims, openedAt, subscriptions } = this.#session
    const { behind, delivered, slowSince } = this.#subscriptions
    return {
      id: this.id,
      sub: claims?.sub,
      openedAt,
      subscriptions: subscriptions.size,
      outboundBytes: this.#out.bytes,
      behind,
      delivered,
      slowSince
    }
  }

  /** Bytes that the client has not read yet. */
  get outboundBytes(): number {
    return this.#out.bytes
  }

  get claims(): Claims | undefined {
    return this.#session.claims
  }

  /** How many it has. */
  get subscriptions(): number {
    return this.#session.subscriptions.size
  }

  /** Nothing that the client asked for is unanswered. */
  get isQuiet(): boolean {
    return this.#pending === 0 && this.#subscriptions.pending === 0 && !this.#hasMore
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

  policyChanged(): void {
    this.#step({ _tag: "PolicyChanged" })
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

  readonly #heard = (bytes: Buffer): void => {
    if (this.#stranger === undefined || this.#stranger.heard(bytes.length)) return
    // Whoever goes on behind the close is not read to its end.
    if (this.#session.phase === "closed") this.terminate()
    else this.close(CloseCode.overloaded, "too much came without an AUTH that is accepted")
  }

  /** It said who it is, or it is over: what it sent is no stranger's any more. */
  #noStranger(): void {
    this.#stranger?.leave()
    this.#stranger = undefined
    this.#socket.off("data", this.#heard)
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
    this.#noStranger()
    this.#onClosed(this)
  }

  #over(): void {
    this.#session = {
      ...this.#session,
      phase: "closed",
      verifying: undefined,
      refusal: undefined,
      queued: []
    }
    this.#received = []
    this.#frames = []
    this.#context.intake.leave(this.#place)
    this.#subscriptions.over()
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
    this.#subscriptions.resume()
    this.#regulate()
  }

  // --- carrying out ------------------------------------------------------------------------------------------

  #step(input: Session.Input): void {
    try {
      const { actions, session } = Session.step(this.#session, input, this.#context)
      this.#session = session
      if (this.#stranger !== undefined && session.phase === "ready") this.#noStranger()
      this.#actions.push(...actions)
    } catch (error) {
      return this.#broke(error)
    }
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

  /** For a token to be verified, for a subscription that is about to stand, or for a store that is behind. */
  #mustWait(message: Decoded): boolean {
    return (
      this.#session.verifying !== undefined ||
      this.#subscriptions.holds(message) ||
      (message.op === "PUBLISH" && this.#context.intake.holds(this.#place))
    )
  }

  #perform(action: Session.Action): void {
    switch (action._tag) {
      case "Send":
        if (action.denial !== undefined) this.#context.denied(action.denial, this.#session.claims?.sub ?? "")
        return this.#send(action.message)
      case "Close":
        return this.close(action.code, action.reason)
      case "Verify":
        return this.#verify(action.token)
      case "Wait":
        return this.#wait(action.ms)
      case "Append":
        return this.#append(action)
      case "Subscribe":
        return this.#subscriptions.subscribe(action.key, action.subscription, action.message)
      case "Unsubscribe":
        return this.#subscriptions.unsubscribe(action.key, action.message)
      case "Revoke":
        return this.#subscriptions.revoke(action.ends)
      case "Settle":
        return this.#subscriptions.settle(action.message)
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
      this.#context.verifier.verify(token).pipe(
        // Nothing else of the connection is looked at meanwhile: not for ever.
        Effect.timeoutOrElse({
          duration: this.#context.settings.authTimeoutMs,
          orElse: () => Effect.fail(new VerifierUnavailable({ reason: "it takes too long" }))
        }),
        // A bug in a verifier: nobody waits for an answer that will not come.
        Effect.catchDefect((defect) =>
          Effect.andThen(
            Effect.logError("a token could not be verified", Cause.die(defect)),
            Effect.fail(new VerifierUnavailable({ reason: "it failed" }))
          )
        ),
        Effect.match({
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
        }),
        Effect.map((input) => this.#step(this.#unlessRevoked(input)))
      )
    )
  }

  /** A token may be revoked between its verification and now: whoever was told of it did not find it here. */
  #unlessRevoked(input: Session.Input): Session.Input {
    if (input._tag !== "Verified" || !this.#context.isRevoked(input.claims)) return input
    const { message } = new TokenInvalid({ reason: "it was revoked" })
    return { _tag: "Refused", code: "jwt_invalid", reason: message, now: input.now }
  }

  #wait(ms: number): void {
    const waited = Effect.sync(() => this.#step({ _tag: "Waited" }))
    this.#context.fork(Effect.delay(waited, ms))
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
}

const problemOf = (outcome: Exclude<AppendOutcome, Appended>): string =>
  outcome._tag === "NotAppended" ? outcome.reason : outcome.message
