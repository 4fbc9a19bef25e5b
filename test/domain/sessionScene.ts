/** The surroundings of a session in tests: small limits, tokens by their policy, and steps in a row. */
import { Result } from "effect"
import type { Claims } from "../../src/domain/Claims.ts"
import * as Policy from "../../src/domain/Policy.ts"
import * as Session from "../../src/domain/Session.ts"
import * as Settings from "../../src/domain/Settings.ts"
import type { Decoded } from "../../src/protocol/Decode.ts"

export const settings = Settings.gateway

export const context: Session.SessionContext = {
  limits: {
    ...Settings.limits,
    maxPayloadBytes: 50,
    maxSubscriptionsPerConnection: 3,
    maxCredit: 50,
    maxAckTimeoutMs: 5_000
  },
  settings,
  clockToleranceMs: 5_000,
  expiryWarningMs: 60_000,
  history: "h1",
  decide: (claims, request) => Policy.decide(claims.policy, request),
  decideSubscription: (claims, request) => Policy.decideSubscription(claims.policy, request),
  decideAdministration: (claims, pattern) => Policy.decideAdministration(claims.policy, pattern),
  spend: () => undefined,
  look: () => undefined,
  delayOf: () => 0,
  makeId: () => "made"
}

/** What a token says, with its rights in the text form of policies. */
export const claims = (policy: string, more: Partial<Claims> = {}): Claims => ({
  sub: "ann",
  expiresAt: 1_000_000,
  issuedAt: undefined,
  tokenId: undefined,
  policy: Result.getOrThrow(Policy.parsePolicy(policy)),
  ...more
})

export const everything = "allow * **"

/** Messages of one frame, the first unless told otherwise. */
export const received = (messages: ReadonlyArray<Decoded>, now = 0, frame = 1): Session.Input => ({
  _tag: "Received",
  messages,
  frame,
  now
})

export const verified = (claims: Claims, now = 0): Session.Input => ({ _tag: "Verified", claims, now })

export const refused = (code: Session.Refusal, now = 0): Session.Input => ({
  _tag: "Refused",
  code,
  reason: `because of ${code}`,
  now
})

export const tick = (now: number): Session.Input => ({ _tag: "Tick", now })

/** All these, one after the other; the actions are those of all of them. */
export const run = (
  session: Session.Session,
  inputs: ReadonlyArray<Session.Input>,
  surroundings = context
): Session.Step => {
  const actions: Array<Session.Action> = []
  for (const input of inputs) {
    const step = Session.step(session, input, surroundings)
    session = step.session
    actions.push(...step.actions)
  }
  return { session, actions }
}

export const opened = Session.open("c1", 0, settings)

/** A session whose token gave it these rights. */
export const ready = (policy: string, more: Partial<Claims> = {}): Session.Session =>
  run(opened, [received([{ op: "AUTH", token: "jwt" }]), verified(claims(policy, more))]).session

/** Actions in short: what was sent by op and code, what was closed by its number, and the rest by name. */
export const brief = (actions: ReadonlyArray<Session.Action>): ReadonlyArray<string> =>
  actions.flatMap((action) => {
    if (action._tag === "Close") return `close ${action.code}`
    if (action._tag === "Revoke") return Array.from(action.ends.values(), ({ op }) => op)
    if (action._tag !== "Send") return action._tag
    const { message } = action
    const ref = "ref" in message ? ` ${message.ref}` : ""
    return message.op === "ERR" ? `ERR${ref} ${String(message.code)}` : `${message.op}${ref}`
  })

/** What is sent, without the rest. */
export const sent = (actions: ReadonlyArray<Session.Action>) =>
  actions.flatMap((action) =>
    action._tag === "Send" ? [action.message] : action._tag === "Revoke" ? [...action.ends.values()] : []
  )
