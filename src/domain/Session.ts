/**
 * One connection to the gateway, as a state machine without I/O.
 *
 * `step` takes what happened (messages, a verified token, the passing of time) and answers with the new state
 * and what is to be done about it, as data. The gateway carries that out and comes back with what it led to.
 * Every rule of PROTOCOL.md about a single connection is in this file: who may send what when, which answer
 * follows, and when a connection is closed.
 */
import * as Result from "effect/Result"
import { CloseCode, type ErrorCode, isRetryable } from "../protocol/Codes.ts"
import type { Decoded, Malformed } from "../protocol/Decode.ts"
import type {
  Ack,
  Auth,
  ConnectionLimits,
  End,
  EndReason,
  Err,
  Expiring,
  Extend,
  Nack,
  Ok,
  Publish,
  Ref,
  Subscribe,
  Unsubscribe
} from "../protocol/Messages.ts"
import type { Claims } from "./Claims.ts"
import * as Event from "./Event.ts"
import { isLive } from "./OwnTopics.ts"
import * as Policy from "./Policy.ts"
import * as Quota from "./Quota.ts"
import type { GatewaySettings, Limits } from "./Settings.ts"
import * as Topic from "./Topic.ts"

export interface Subscription {
  readonly pattern: Topic.Pattern
  readonly group: string | undefined
}

/** A subscription is known by its pattern and group; neither can hold a space. */
export type SubscriptionKey = string

export const subscriptionKey = (pattern: string, group: string | undefined): SubscriptionKey =>
  `${pattern} ${group ?? ""}`

/** A message, and the frame that it came in. */
interface Queued {
  readonly message: Decoded
  readonly frame: number
}

/** The topics of which a publish was over a rate, within one frame, and how long it was told to wait. */
interface OverRate {
  readonly frame: number
  readonly topics: ReadonlyMap<string, Quota.Limited>
}

export interface Session {
  readonly connection: string
  readonly openedAt: number
  readonly phase: "anonymous" | "ready" | "closed"
  readonly claims: Claims | undefined
  /** It offered no subprotocol: it gets no message that the first clients do not know. */
  readonly isOld: boolean
  /** When it is told that its token will expire; none: it was, or it need not be. */
  readonly warnAt: number | undefined
  /** A token is with the verifier; what came after it waits in `queued`. */
  readonly verifying: Auth | undefined
  /** The answer to it, which waits because too many were refused before. */
  readonly refusal: { readonly code: Refusal; readonly reason: string } | undefined
  readonly queued: ReadonlyArray<Queued>
  readonly subscriptions: ReadonlyMap<SubscriptionKey, Subscription>
  /** What follows on these topics in the same frame is over the rate, too, so that it overtakes nothing. */
  readonly overRate: OverRate
  /** When the last messages came that could not be understood. */
  readonly badMessages: ReadonlyArray<number>
  readonly pingAt: number
  readonly missedPongs: number
}

/** What the gateway knows and the session asks: nothing of it changes the session. */
export interface SessionContext {
  readonly limits: Limits
  readonly settings: GatewaySettings
  readonly clockToleranceMs: number
  readonly expiryWarningMs: number
  /** The life of the store, which positions belong to. */
  readonly history: string
  readonly decide: (claims: Claims, request: Policy.Request) => Policy.Decision
  readonly decideSubscription: (claims: Claims, request: Policy.SubscriptionRequest) => Policy.Decision
  readonly decideAdministration: (claims: Claims, pattern: string) => Policy.Decision
  /** Spends a message from all rates that it falls under. When it is too much for one of them, nothing is spent. */
  readonly spend: (claims: Claims, cost: Quota.Cost) => Quota.Limited | undefined
  /** What `spend` would answer, without spending: of a publish that is refused for the one before it. */
  readonly look: (claims: Claims, cost: Quota.Cost) => Quota.Limited | undefined
  /** Takes note of a token that was refused, and says how long the answer to it waits. */
  readonly delayOf: (code: Refusal, reason: string) => number
  /** A new id for an event that came without one. */
  readonly makeId: () => string
}

export type Refusal = Extract<ErrorCode, "no_token" | "jwt_invalid" | "token_expired" | "unavailable">

export type Input =
  /** Messages of one frame, all of it or a part; `frame` counts the frames of the connection. */
  | {
      readonly _tag: "Received"
      readonly messages: ReadonlyArray<Decoded>
      readonly frame: number
      readonly now: number
    }
  | { readonly _tag: "Verified"; readonly claims: Claims; readonly now: number }
  | { readonly _tag: "Refused"; readonly code: Refusal; readonly reason: string; readonly now: number }
  /** The answer to a refused AUTH has waited for as long as it had to. */
  | { readonly _tag: "Waited" }
  /** A subscription came to nothing, or the hub ended it. */
  | { readonly _tag: "Ended"; readonly key: SubscriptionKey; readonly reason: EndReason | undefined }
  | { readonly _tag: "Pong" }
  | { readonly _tag: "Tick"; readonly now: number }
  | { readonly _tag: "Revoked" }
  /** Decisions may be others than they were. */
  | { readonly _tag: "PolicyChanged" }

/** What was forbidden, and why: for the log, since a client is not told. */
export interface Denial {
  readonly action: Policy.Action | "auth"
  readonly topic: string | undefined
  readonly group: string | undefined
  readonly rule: string
}

export type Action =
  | { readonly _tag: "Send"; readonly message: Ok | Err | End | Expiring; readonly denial?: Denial }
  | { readonly _tag: "Close"; readonly code: CloseCode; readonly reason: string }
  | { readonly _tag: "Verify"; readonly token: string }
  /** Come back with `Waited` after this long. */
  | { readonly _tag: "Wait"; readonly ms: number }
  | { readonly _tag: "Append"; readonly record: Event.EventRecord; readonly ref: Ref | undefined }
  /** Begin a subscription; answer its `ref` when it stands. */
  | {
      readonly _tag: "Subscribe"
      readonly key: SubscriptionKey
      readonly subscription: Subscription
      readonly message: Subscribe
    }
  /** End a subscription: nothing of it is sent from here on. */
  | { readonly _tag: "Unsubscribe"; readonly key: SubscriptionKey; readonly message: Unsubscribe }
  /** End all subscriptions that the client has lost the right to, and say so: of those that stood by these. */
  | { readonly _tag: "Revoke"; readonly ends: ReadonlyMap<SubscriptionKey, End> }
  /** Hand a group's answer to the group it belongs to. */
  | { readonly _tag: "Settle"; readonly message: Ack | Nack | Extend }
  | { readonly _tag: "Ping" }

export interface Step {
  readonly session: Session
  readonly actions: ReadonlyArray<Action>
}

export const open = (
  connection: string,
  now: number,
  settings: GatewaySettings,
  isOld: boolean = false
): Session => ({
  connection,
  openedAt: now,
  phase: "anonymous",
  claims: undefined,
  isOld,
  warnAt: undefined,
  verifying: undefined,
  refusal: undefined,
  queued: [],
  subscriptions: new Map(),
  overRate: { frame: 0, topics: new Map() },
  badMessages: [],
  pingAt: now + settings.heartbeatMs,
  missedPongs: 0
})

// --- answers -------------------------------------------------------------------------------------------------

export const ok = (ref: Ref | undefined, fields?: Readonly<Record<string, unknown>>): Ok => ({
  op: "OK",
  ...(ref === undefined ? {} : { ref }),
  ...fields
})

export const err = (
  ref: Ref | undefined,
  code: ErrorCode,
  msg: string,
  more?: { readonly retryAfterMs?: number; readonly rule?: string }
): Err => ({
  op: "ERR",
  ...(ref === undefined ? {} : { ref }),
  code,
  msg,
  retryable: isRetryable(code),
  ...more
})

/** The error code of a refused event. */
export const eventErrorCode = (error: Event.EventError): ErrorCode => {
  switch (error._tag) {
    case "InvalidTopic":
      return "invalid_topic"
    case "PayloadTooLarge":
      return "payload_too_large"
    case "InvalidEvent":
      return "bad_request"
  }
}

export const connectionLimits = (limits: Limits): ConnectionLimits => ({
  maxFrameBytes: limits.maxFrameBytes,
  maxPayloadBytes: limits.maxPayloadBytes,
  maxMessagesPerFrame: limits.maxMessagesPerFrame,
  maxSubscriptions: limits.maxSubscriptionsPerConnection,
  maxCredit: limits.maxCredit,
  maxAckIds: limits.maxAckIds
})

// --- the machine ---------------------------------------------------------------------------------------------

/** Collects one step: the session as it becomes, and the actions in their order. */
interface Draft {
  session: Session
  readonly actions: Array<Action>
}

const send = (draft: Draft, message: Ok | Err | End | Expiring): void => {
  draft.actions.push({ _tag: "Send", message })
}

const forbid = (
  draft: Draft,
  ref: Ref | undefined,
  msg: string,
  denial: Denial,
  more?: { readonly rule?: string }
): void => {
  draft.actions.push({ _tag: "Send", message: err(ref, "forbidden", msg, more), denial })
}

const close = (draft: Draft, code: CloseCode, reason: string): void => {
  if (draft.session.phase === "closed") return
  draft.session = { ...draft.session, phase: "closed", verifying: undefined, refusal: undefined, queued: [] }
  draft.actions.push({ _tag: "Close", code, reason })
}

const malformed = (draft: Draft, message: Malformed, context: SessionContext, now: number): void => {
  send(draft, err(message.ref, "bad_request", message.msg))
  const { badMessageWindowMs, maxBadMessages } = context.settings
  const badMessages = [...draft.session.badMessages.filter((at) => at > now - badMessageWindowMs), now]
  draft.session = { ...draft.session, badMessages }
  if (badMessages.length >= maxBadMessages) {
    close(draft, CloseCode.badFrames, "too many messages that cannot be understood")
  }
}

const auth = (draft: Draft, message: Auth, context: SessionContext): void => {
  draft.session = { ...draft.session, verifying: message }
  if (message.token === "") return refuse(draft, "no_token", "AUTH came without a token", context)
  draft.actions.push({ _tag: "Verify", token: message.token })
}

/** A token is refused: now, or when the answer to it has waited. Until then it counts as being verified. */
const refuse = (draft: Draft, code: Refusal, reason: string, context: SessionContext): void => {
  const ms = code === "unavailable" ? 0 : context.delayOf(code, reason)
  if (ms === 0) return answerRefused(draft, code, reason)
  draft.session = { ...draft.session, refusal: { code, reason } }
  draft.actions.push({ _tag: "Wait", ms })
}

const answerRefused = (draft: Draft, code: Refusal, reason: string): void => {
  send(draft, err(draft.session.verifying?.ref, code, reason))
  if (code === "unavailable") close(draft, CloseCode.overloaded, reason)
  else close(draft, CloseCode.tokenRefused, code)
}

const noRule = "no rule allows it"

const denialOf = (
  action: Policy.Action,
  topic: string,
  group: string | undefined,
  { rule }: Policy.Denied
): Denial => ({ action, topic, group, rule: rule === undefined ? noRule : Policy.formatRule(rule) })

/** The rule that denied, for those who administrate all that was asked for: to others it would tell what there is to hide. */
const ruleOf = (
  denied: Policy.Denied,
  context: SessionContext,
  claims: Claims,
  pattern: string
): { readonly rule?: string } =>
  denied.rule !== undefined && context.decideAdministration(claims, pattern)._tag === "Allowed"
    ? { rule: Policy.formatRule(denied.rule) }
    : {}

const overRate = (draft: Draft, ref: Ref | undefined, { kind, retryAfterMs }: Quota.Limited): void =>
  send(draft, err(ref, "rate_limited", Quota.describe(kind), { retryAfterMs }))

/** Topics of a frame that are remembered as over the rate. */
const maxOverRate = 16

/** The longer of two waits: after it both are over. */
const longer = (a: Quota.Limited, b: Quota.Limited | undefined): Quota.Limited =>
  b === undefined || b.retryAfterMs <= a.retryAfterMs ? a : b

/** The wait of a publish behind one that was over the rate; of frames with many such, all that follow are. */
const aheadOf = ({ frame, topics }: OverRate, topic: string, of: number): Quota.Limited | undefined =>
  frame !== of
    ? undefined
    : (topics.get(topic) ?? (topics.size < maxOverRate ? undefined : topics.values().next().value))

const publish = (
  draft: Draft,
  message: Publish,
  context: SessionContext,
  claims: Claims,
  frame: number,
  now: number
): void => {
  const { opts, payload, ref, topic } = message
  const record = Event.encodeEvent(
    { ts: now, ...opts, id: opts?.id ?? context.makeId(), topic, payload },
    context.limits
  )
  if (Result.isFailure(record)) {
    return send(draft, err(ref, eventErrorCode(record.failure), record.failure.message))
  }
  if (Topic.isOwn(topic)) {
    const denial = { action: "publish", topic, group: undefined, rule: Event.ownTopic } as const
    return forbid(draft, ref, Event.ownTopic, denial)
  }
  const decision = context.decide(claims, { action: "publish", topic })
  if (decision._tag === "Denied") {
    const rule = ruleOf(decision, context, claims, topic)
    const denial = denialOf("publish", topic, undefined, decision)
    return forbid(draft, ref, `no right to publish '${topic}'`, denial, rule)
  }
  const cost = { topic, bytes: record.success.body.length }
  const before = draft.session.overRate
  const ahead = aheadOf(before, topic, frame)
  const limited =
    ahead === undefined ? context.spend(claims, cost) : longer(ahead, context.look(claims, cost))
  if (limited !== undefined) {
    if (ahead === undefined) {
      const topics = new Map(before.frame === frame ? before.topics : []).set(topic, limited)
      draft.session = { ...draft.session, overRate: { frame, topics } }
    }
    return overRate(draft, ref, limited)
  }
  draft.actions.push({ _tag: "Append", record: record.success, ref })
}

const groupProblem = (group: string | undefined): string | undefined =>
  group === undefined || Topic.isSegment(group) ? undefined : "a group's name is one topic segment"

/** Positions that a subscription may begin with, for each subscription that a connection may have. */
const positionsPerSubscription = 10

const subscribeProblem = (message: Subscribe, limits: Limits): string | undefined => {
  const { group, opts } = message
  const problem = groupProblem(group)
  if (problem !== undefined) return problem
  if (group !== undefined && isLive(message.topic)) {
    return "what the hub tells of itself is not stored, and no group can take it: subscribe it without one"
  }
  if (opts?.credit !== undefined && opts.credit > limits.maxCredit) {
    return `'credit' is at most ${limits.maxCredit}`
  }
  if (opts?.ackTimeoutMs !== undefined && opts.ackTimeoutMs > limits.maxAckTimeoutMs) {
    return `'ackTimeoutMs' is at most ${limits.maxAckTimeoutMs}`
  }
  if (typeof opts?.from === "object" && "topics" in opts.from) {
    const maxPositions = positionsPerSubscription * limits.maxSubscriptionsPerConnection
    if (Object.keys(opts.from.topics).length > maxPositions) {
      return `'from: { topics }' names at most ${maxPositions} topics; begin by '{ time }' instead`
    }
  }
  if (typeof opts?.from === "object" && "after" in opts.from && message.topic.includes("*")) {
    return "'from: { after }' needs a concrete topic; give 'topics' for a pattern"
  }
  return undefined
}

const subscribe = (draft: Draft, message: Subscribe, context: SessionContext, claims: Claims): void => {
  const { group, ref, topic } = message
  const pattern = Topic.parsePattern(topic)
  if (Result.isFailure(pattern)) {
    return send(draft, err(ref, "invalid_pattern", pattern.failure.message))
  }
  const problem = subscribeProblem(message, context.limits)
  if (problem !== undefined) return send(draft, err(ref, "bad_request", problem))
  const key = subscriptionKey(topic, group)
  const { subscriptions } = draft.session
  if (subscriptions.has(key)) {
    return send(draft, err(ref, "already_subscribed", `'${topic}' is subscribed on this connection`))
  }
  const decision = context.decideSubscription(claims, { pattern: topic, group })
  if (decision._tag === "Denied") {
    const inGroup = group === undefined ? "" : ` in group '${group}'`
    const rule = ruleOf(decision, context, claims, topic)
    const denial = denialOf("subscribe", topic, group, decision)
    return forbid(draft, ref, `no right to subscribe '${topic}'${inGroup}`, denial, rule)
  }
  const { maxSubscriptionsPerConnection } = context.limits
  if (subscriptions.size >= maxSubscriptionsPerConnection) {
    const msg = `a connection has at most ${maxSubscriptionsPerConnection} subscriptions`
    return send(draft, err(ref, "too_many_subscriptions", msg))
  }
  const limited = context.spend(claims, { topic: undefined, bytes: 0 })
  if (limited !== undefined) return overRate(draft, ref, limited)
  const subscription = { pattern: pattern.success, group }
  draft.session = { ...draft.session, subscriptions: new Map(subscriptions).set(key, subscription) }
  draft.actions.push({ _tag: "Subscribe", key, subscription, message })
}

const drop = (draft: Draft, key: SubscriptionKey): void => {
  const subscriptions = new Map(draft.session.subscriptions)
  subscriptions.delete(key)
  draft.session = { ...draft.session, subscriptions }
}

const unsubscribe = (draft: Draft, message: Unsubscribe): void => {
  const { group, ref, topic } = message
  const pattern = Topic.parsePattern(topic)
  if (Result.isFailure(pattern)) {
    return send(draft, err(ref, "invalid_pattern", pattern.failure.message))
  }
  const problem = groupProblem(group)
  if (problem !== undefined) return send(draft, err(ref, "bad_request", problem))
  const key = subscriptionKey(topic, group)
  if (!draft.session.subscriptions.has(key)) {
    return send(draft, err(ref, "not_subscribed", `'${topic}' is not subscribed on this connection`))
  }
  drop(draft, key)
  draft.actions.push({ _tag: "Unsubscribe", key, message })
}

const settle = (draft: Draft, message: Ack | Nack | Extend, context: SessionContext): void => {
  const { group, ref, topic } = message
  const parsed = Topic.parseTopic(topic)
  if (Result.isFailure(parsed)) {
    return send(draft, err(ref, "invalid_topic", parsed.failure.message))
  }
  const { maxAckTimeoutMs } = context.limits
  const wait = message.op === "NACK" ? message.delayMs : message.op === "EXTEND" ? message.byMs : undefined
  if (wait !== undefined && wait > maxAckTimeoutMs) {
    const field = message.op === "NACK" ? "delayMs" : "byMs"
    return send(draft, err(ref, "bad_request", `'${field}' is at most ${maxAckTimeoutMs}`))
  }
  for (const subscription of draft.session.subscriptions.values()) {
    if (subscription.group === group && Topic.matches(subscription.pattern, parsed.success)) {
      if (message.op !== "ACK" || message.ids.length > 0) draft.actions.push({ _tag: "Settle", message })
      // An ACK of nothing reaches no group that could answer it.
      else if (ref !== undefined) send(draft, ok(ref))
      return
    }
  }
  send(
    draft,
    err(ref, "not_subscribed", `group '${group}' of '${topic}' is not subscribed on this connection`)
  )
}

const receive = (
  draft: Draft,
  message: Decoded,
  frame: number,
  context: SessionContext,
  now: number
): void => {
  const { claims, phase, verifying } = draft.session
  if (phase === "closed") return
  if (verifying !== undefined) {
    draft.session = { ...draft.session, queued: [...draft.session.queued, { message, frame }] }
    return
  }
  if (message.op === "MALFORMED") return malformed(draft, message, context, now)
  if (message.op === "AUTH") return auth(draft, message, context)
  if (claims === undefined) {
    send(draft, err(message.ref, "no_token", "the first message is AUTH"))
    return close(draft, CloseCode.tokenRefused, "no_token")
  }
  switch (message.op) {
    case "PUBLISH":
      return publish(draft, message, context, claims, frame, now)
    case "SUBSCRIBE":
      return subscribe(draft, message, context, claims)
    case "UNSUBSCRIBE":
      return unsubscribe(draft, message)
    case "ACK":
    case "NACK":
    case "EXTEND":
      return settle(draft, message, context)
    case "PING":
      return message.ref === undefined ? undefined : send(draft, ok(message.ref, { serverTime: now }))
  }
}

/** What waited behind AUTH is looked at in its order; a further AUTH among it makes the rest wait again. */
const release = (draft: Draft, context: SessionContext, now: number): void => {
  const { queued } = draft.session
  draft.session = { ...draft.session, verifying: undefined, queued: [] }
  for (const { frame, message } of queued) receive(draft, message, frame, context, now)
}

/** Ends the subscriptions that are not allowed any more, and names them. */
const decideAgain = (
  draft: Draft,
  claims: Claims,
  context: SessionContext
): ReadonlyArray<{ readonly topic: string; readonly group?: string }> => {
  const revoked: Array<{ readonly topic: string; readonly group?: string }> = []
  const kept = new Map<SubscriptionKey, Subscription>()
  const ends = new Map<SubscriptionKey, End>()
  for (const [key, subscription] of draft.session.subscriptions) {
    const { group, pattern } = subscription
    const decision = context.decideSubscription(claims, { pattern: pattern.name, group })
    if (decision._tag === "Allowed") {
      kept.set(key, subscription)
      continue
    }
    const sub = group === undefined ? {} : { group }
    revoked.push({ topic: pattern.name, ...sub })
    ends.set(key, { op: "END", sub: pattern.name, ...sub, reason: "revoked" })
  }
  if (ends.size > 0) {
    draft.session = { ...draft.session, subscriptions: kept }
    draft.actions.push({ _tag: "Revoke", ends })
  }
  return revoked
}

/** A token that lives for less than twice the time of the warning is warned of when half of its life is left. */
const warnAtOf = (
  { expiresAt }: Claims,
  now: number,
  { expiryWarningMs }: SessionContext
): number | undefined =>
  Number.isFinite(expiresAt)
    ? expiresAt - Math.min(expiryWarningMs, Math.max(0, expiresAt - now) / 2)
    : undefined

const verified = (draft: Draft, claims: Claims, context: SessionContext, now: number): void => {
  const { claims: before, connection, isOld, verifying, warnAt: warnBefore } = draft.session
  if (before !== undefined && before.sub !== claims.sub) {
    const msg = "the token is somebody else's; open another connection"
    const rule = `the token is that of '${claims.sub}'`
    forbid(draft, verifying?.ref, msg, { action: "auth", topic: undefined, group: undefined, rule })
    return release(draft, context, now)
  }
  // A token that comes again, or one that ends when the one before does, is told of no more often.
  const isSameEnd = before !== undefined && before.expiresAt === claims.expiresAt
  const warnAt = isOld ? undefined : isSameEnd ? warnBefore : warnAtOf(claims, now, context)
  draft.session = { ...draft.session, phase: "ready", claims, warnAt }
  const revoked = decideAgain(draft, claims, context)
  send(
    draft,
    ok(verifying?.ref, {
      connection,
      history: context.history,
      expiresAt: Number.isFinite(claims.expiresAt) ? claims.expiresAt : null,
      serverTime: now,
      heartbeatMs: context.settings.heartbeatMs,
      limits: connectionLimits(context.limits),
      ...(before === undefined ? {} : { revoked })
    })
  )
  release(draft, context, now)
}

/** Of a later token nobody can tell at the moment: the one before is as good as it was, and the client may ask again. */
const notVerified = (
  draft: Draft,
  code: Refusal,
  reason: string,
  context: SessionContext,
  now: number
): void => {
  const { claims, verifying } = draft.session
  if (claims === undefined || code !== "unavailable") return refuse(draft, code, reason, context)
  send(draft, err(verifying?.ref, code, reason))
  release(draft, context, now)
}

const tick = (draft: Draft, context: SessionContext, now: number): void => {
  const { claims, openedAt, refusal, verifying, warnAt } = draft.session
  const { authTimeoutMs, heartbeatMs, maxMissedPongs } = context.settings
  if (claims === undefined) {
    if (now - openedAt < authTimeoutMs) return
    if (refusal !== undefined) return answerRefused(draft, refusal.code, refusal.reason)
    // Whoever sent its token in time is not to blame for a slow verifier, and comes back with the same one.
    return verifying === undefined
      ? close(draft, CloseCode.authTimeout, "no AUTH in time")
      : answerRefused(draft, "unavailable", "the token could not be verified in time")
  }
  const closesAt = claims.expiresAt + context.clockToleranceMs
  if (now >= closesAt) return close(draft, CloseCode.tokenExpired, "the token has expired")
  if (warnAt !== undefined && now >= warnAt) {
    draft.session = { ...draft.session, warnAt: undefined }
    send(draft, { op: "EXPIRING", expiresAt: claims.expiresAt, closesInMs: closesAt - now })
  }
  const { missedPongs, pingAt } = draft.session
  if (now < pingAt) return
  if (missedPongs >= maxMissedPongs) return close(draft, CloseCode.heartbeatLost, "heartbeat lost")
  draft.session = { ...draft.session, pingAt: now + heartbeatMs, missedPongs: missedPongs + 1 }
  draft.actions.push({ _tag: "Ping" })
}

const ended = (draft: Draft, key: SubscriptionKey, reason: EndReason | undefined): void => {
  const subscription = draft.session.subscriptions.get(key)
  if (subscription === undefined) return
  drop(draft, key)
  if (reason === undefined) return
  const { group, pattern } = subscription
  send(draft, { op: "END", sub: pattern.name, ...(group === undefined ? {} : { group }), reason })
}

const isVerifying = ({ refusal, verifying }: Session): boolean =>
  verifying !== undefined && refusal === undefined

export const step = (session: Session, input: Input, context: SessionContext): Step => {
  const draft: Draft = { session, actions: [] }
  if (session.phase === "closed") return draft
  switch (input._tag) {
    case "Received":
      if (session.missedPongs > 0) draft.session = { ...session, missedPongs: 0 }
      for (const message of input.messages) receive(draft, message, input.frame, context, input.now)
      break
    case "Verified":
      if (isVerifying(session)) verified(draft, input.claims, context, input.now)
      break
    case "Refused":
      if (isVerifying(session)) notVerified(draft, input.code, input.reason, context, input.now)
      break
    case "Waited":
      if (session.refusal !== undefined) answerRefused(draft, session.refusal.code, session.refusal.reason)
      break
    case "Ended":
      ended(draft, input.key, input.reason)
      break
    case "Pong":
      if (session.missedPongs > 0) draft.session = { ...session, missedPongs: 0 }
      break
    case "Tick":
      tick(draft, context, input.now)
      break
    case "Revoked":
      close(draft, CloseCode.revoked, "the token was revoked")
      break
    case "PolicyChanged":
      if (session.claims !== undefined) decideAgain(draft, session.claims, context)
      break
  }
  return draft
}
