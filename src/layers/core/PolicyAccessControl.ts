/**
 * AccessControl by the policy that the claims carry. The hub's own topics take the right to the topics that they
 * name, too.
 */
import * as Layer from "effect/Layer"
import type { Claims } from "../../domain/Claims.ts"
import { namedBy } from "../../domain/OwnTopics.ts"
import * as Policy from "../../domain/Policy.ts"
import { AccessControl } from "../../services/AccessControl.ts"

/** Decisions remembered per token. A client that asks about more topics than this is decided anew each time. */
const remembered = 1_000

const decide = (policy: Policy.Policy, request: Policy.Request): Policy.Decision => {
  const decision = Policy.decide(policy, request)
  if (decision._tag === "Denied" || request.action !== "subscribe") return decision
  for (const topic of namedBy(request.topic)) {
    const about = decide(policy, { ...request, topic })
    if (about._tag === "Denied") return about
  }
  return decision
}

const decideSubscription = (policy: Policy.Policy, request: Policy.SubscriptionRequest): Policy.Decision => {
  const decision = Policy.decideSubscription(policy, request)
  if (decision._tag === "Denied") return decision
  for (const pattern of namedBy(request.pattern)) {
    const about = decideSubscription(policy, { ...request, pattern })
    if (about._tag === "Denied") return about
  }
  return decision
}

/**
 * Decisions are remembered with the claims they were made for: another token, or the same one verified again,
 * is decided anew, and what nobody holds any more is forgotten by itself.
 */
const remember = () => {
  const byClaims = new WeakMap<Claims, Map<string, Policy.Decision>>()
  return (claims: Claims, request: Policy.Request): Policy.Decision => {
    let decisions = byClaims.get(claims)
    if (decisions === undefined) {
      decisions = new Map()
      byClaims.set(claims, decisions)
    }
    const key = `${request.action} ${request.topic} ${request.group ?? ""}`
    let decision = decisions.get(key)
    if (decision === undefined) {
      decision = decide(claims.policy, request)
      if (decisions.size < remembered) decisions.set(key, decision)
    }
    return decision
  }
}

export const layer: Layer.Layer<AccessControl> = Layer.sync(AccessControl, () =>
  AccessControl.of({
    decide: remember(),
    decideSubscription: (claims, request) => decideSubscription(claims.policy, request),
    decideAdministration: (claims, pattern) => Policy.decideAdministration(claims.policy, pattern)
  })
)
