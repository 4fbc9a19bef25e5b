/**
 * What a client sends, through the decoder and a connection's session: on a connection that has a token, and on one that has
 * none yet. What comes out is judged by rules that know nothing of how it was decided.
 */
import { Result } from "effect"
import type * as Claims from "../../src/domain/Claims.ts"
import * as Policy from "../../src/domain/Policy.ts"
import * as Session from "../../src/domain/Session.ts"
import * as Settings from "../../src/domain/Settings.ts"
import * as Topic from "../../src/domain/Topic.ts"
import { decodeFrame } from "../../src/protocol/Decode.ts"
import { Branches, must, type Target } from "./Target.ts"

const limits: Settings.Limits = {
  ...Settings.limits,
  maxPayloadBytes: 2_000,
  maxSubscriptionsPerConnection: 5
}

const context: Session.SessionContext = {
  limits,
  settings: Settings.gateway,
  clockToleranceMs: 0,
  expiryWarningMs: 60_000,
  history: "h",
  decide: (claims, request) => Policy.decide(claims.policy, request),
  decideSubscription: (claims, request) => Policy.decideSubscription(claims.policy, request),
  decideAdministration: (claims, pattern) => Policy.decideAdministration(claims.policy, pattern),
  spend: () => undefined,
  look: () => undefined,
  delayOf: () => 0,
  makeId: () => "made"
}

const ann: Claims.Claims = {
  sub: "ann",
  expiresAt: 1e12,
  issuedAt: undefined,
  tokenId: undefined,
  policy: Result.getOrThrow(Policy.parsePolicy("deny * secret.**\nallow * **"))
}

/** What ann may not have: the rule above, in other words. */
const isSecret = (name: string): boolean => name.split(".")[0] === "secret"

const depthOf = (value: unknown): number =>
  typeof value === "object" && value !== null
    ? 1 + Object.values(value).reduce((most: number, one) => Math.max(most, depthOf(one)), 0)
    : 0

/** Of an answer, without the `ref` that its client chose. */
const maxAnswer = 2_000

const checkEvent = (body: string, topic: string): void => {
  must(Result.isSuccess(Topic.parseTopic(topic)), "what is stored has a topic")
  must(!topic.startsWith("$") && !isSecret(topic), "what is stored may be")
  const event = JSON.parse(body) as Readonly<Record<string, unknown>>
  must(event["topic"] === topic, "an event is stored under its own topic")
  must(depthOf(event["payload"]) <= limits.maxJsonDepth, "what is stored is no deeper than it may be")
  must(Buffer.byteLength(JSON.stringify(event["payload"])) <= limits.maxPayloadBytes, "nor larger")
  for (const name of ["id", "type", "key", "caused_by", "sid"]) {
    must(String(event[name] ?? "").length <= limits.maxNameLength, `its ${name} is no longer than it may be`)
  }
  const headers = Object.entries(event["headers"] ?? {})
  must(headers.length <= limits.maxHeaders, "it has no more headers than it may have")
  must(headers.flat().join("").length <= limits.maxHeadersLength, "and they are no longer")
  must(Object.keys(event["tags"] ?? {}).length <= limits.maxTags, "it has no more tags than it may have")
}

const seeds = [
  '{"op":"PUBLISH","ref":1,"topic":"a.b","payload":{"x":1},"opts":{"id":"i","key":"k","type":"t","headers":{"h":"v"},"tags":["t"],"ts":1}}',
  '{"op":"PUBLISH","ref":2,"topic":"secret.x","payload":1}',
  `{"op":"PUBLISH","ref":3,"topic":"a.b","payload":"${"x".repeat(1_990)}"}`,
  '{"op":"SUBSCRIBE","ref":"r","topic":"a.b","opts":{"from":{"after":3},"history":"h"}}',
  '{"op":"SUBSCRIBE","topic":"a.**","opts":{"from":{"topics":{"a.b":1,"a.c":2}}}}',
  '{"op":"SUBSCRIBE","ref":2,"topic":"a.*","group":"g","opts":{"credit":10,"ackTimeoutMs":1000,"maxAttempts":3,"keyOrdered":true}}',
  '[{"op":"SUBSCRIBE","ref":1,"topic":"a.*","group":"g"},{"op":"ACK","ref":2,"topic":"a.b","group":"g","ids":["1","2"]},{"op":"NACK","ref":3,"topic":"a.b","group":"g","id":"1","mode":"poison","delayMs":5}]',
  '[{"op":"SUBSCRIBE","ref":1,"topic":"a.b"},{"op":"UNSUBSCRIBE","ref":2,"topic":"a.b"},{"op":"SUBSCRIBE","ref":3,"topic":"a.b"}]',
  `[${["a", "b", "c", "d", "e", "f"].map((topic, ref) => `{"op":"SUBSCRIBE","ref":${ref},"topic":"${topic}"}`).join()}]`,
  '{"op":"EXTEND","topic":"a.b","group":"g","id":"1","ms":1000}',
  '{"op":"UNSUBSCRIBE","topic":"a.**","ref":3}',
  '{"op":"AUTH","token":"x","ref":0}',
  '[{"op":"AUTH","token":"x","ref":0},{"op":"PUBLISH","ref":1,"topic":"a.b","payload":1},{"op":"AUTH","token":"y","ref":2},{"op":"SUBSCRIBE","ref":3,"topic":"**"}]',
  '{"op":"PING","ref":"p"}'
]

const errors = [
  "bad_request",
  "no_token",
  "forbidden",
  "invalid_topic",
  "invalid_pattern",
  "payload_too_large",
  "already_subscribed",
  "not_subscribed",
  "too_many_subscriptions"
]

export interface FramesOptions {
  /** In place of the session's own: one with a bug that is to be found. */
  readonly step?: typeof Session.step
}

export const framesTarget = ({ step = Session.step }: FramesOptions = {}): Target => {
  const branches = new Branches(
    [
      ...["Append", "Subscribe", "Unsubscribe", "Settle", "Verify", "Close", "OK"],
      ...errors.map((code) => `ERR ${code}`)
    ],
    "decoded"
  )

  const checkFrames = (input: string, isReady: boolean): void => {
    const messages = decodeFrame(input, { maxMessages: 1_000, maxAckIds: 100 })
    if (messages.some(({ op }) => op !== "MALFORMED")) branches.reach("decoded")
    let session = Session.open("c", 0, Settings.gateway)
    /** How often each `ref` may still be answered. */
    const open = new Map<string, number>()
    const answered = (ref: unknown): void => {
      if (ref === undefined) return
      const left = open.get(JSON.stringify(ref)) ?? 0
      must(left > 0, "a message is answered once")
      open.set(JSON.stringify(ref), left - 1)
    }

    const take = (action: Session.Action): void => {
      const { claims } = session
      const { _tag } = action
      branches.reach(_tag)
      if (_tag === "Append" || _tag === "Subscribe" || _tag === "Unsubscribe" || _tag === "Settle") {
        must(claims !== undefined, `there is no ${_tag} for who has no token`)
        answered(_tag === "Append" ? action.ref : action.message.ref)
      }
      if (_tag === "Append") checkEvent(action.record.body, action.record.topic)
      if (_tag === "Subscribe") {
        const { group, pattern } = action.subscription
        must(!isSecret(pattern.name), "what is subscribed may be")
        must(Result.isSuccess(Topic.parsePattern(pattern.name)), "what is subscribed is a pattern")
        must(group === undefined || Topic.isSegment(group), "a group's name is a segment")
      }
      if (_tag === "Send") {
        const { message } = action
        const { ref, ...rest } = { ref: undefined, ...message }
        branches.reach(message.op === "ERR" ? `ERR ${message.code}` : message.op)
        must(JSON.stringify(rest).length <= maxAnswer, "an answer is short")
        must(!JSON.stringify(message).includes("\n"), "an answer is one line")
        if (message.op === "OK" || message.op === "ERR") answered(ref)
      }
    }
    const go = (next: Session.Input): void => {
      const before = session.phase
      const { actions, session: after } = step(session, next, context)
      must(before !== "closed" || actions.length === 0, "nothing follows a close")
      session = after
      for (const action of actions) take(action)
      // A verifier answers each, and what waited behind it goes on.
      if (session.verifying !== undefined && session.refusal === undefined) {
        go({ _tag: "Verified", claims: ann, now: 1 })
      }
      must(session.subscriptions.size <= limits.maxSubscriptionsPerConnection, "subscriptions have a bound")
      for (const { pattern } of session.subscriptions.values())
        must(!isSecret(pattern.name), "what is held may be")
    }

    if (isReady) {
      go({ _tag: "Received", messages: [{ op: "AUTH", token: "x" }], frame: 0, now: 0 })
      must(session.phase === "ready" && session.claims === ann, "who has a token is let in")
    }
    for (const now of [1, 2]) {
      open.clear()
      for (const { ref } of messages) {
        if (ref !== undefined) open.set(JSON.stringify(ref), (open.get(JSON.stringify(ref)) ?? 0) + 1)
      }
      go({ _tag: "Received", messages, frame: now, now })
      go({ _tag: "Tick", now })
    }
    must(session.queued.length === 0, "nothing waits for ever")
  }

  return {
    name: "frames",
    isJson: true,
    seeds,
    words: [
      ...["op", "ref", "topic", "group", "opts", "from", "time", "start", "key"],
      ...["secret.x", "secret.**", "secret", "a", "*", "**", "a.b", "a.**", "**.a", "$dead", "$hub.stats"]
    ],
    branches,
    check: (input) => {
      branches.input()
      checkFrames(input, true)
      checkFrames(input, false)
    }
  }
}
