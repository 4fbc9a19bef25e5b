/**
 * AccessControl by the policy that the claims carry, and by those of the roles that they name. The hub's own topics
 * take the right to the topics that they name, too.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type { Claims } from "../../domain/Claims.ts"
import { namedBy } from "../../domain/OwnTopics.ts"
import * as Policy from "../../domain/Policy.ts"
import * as PolicyFile from "../../domain/PolicyFile.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { Policies } from "../../services/Policies.ts"

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

/** What is known of claims for as long as the roles are the same. */
interface Known {
  readonly file: PolicyFile.PolicyFile | undefined
  readonly policy: Policy.Policy
  readonly decisions: Map<string, Policy.Decision>
}

const policyOf = (file: PolicyFile.PolicyFile | undefined, claims: Claims): Policy.Policy =>
  file === undefined
    ? claims.policy
    : // A role that is gone from the file took its denies with it: what is left may be more than was ever meant.
      Result.getOrElse(PolicyFile.policyOf(file, claims), () => Policy.none)

/**
 * Policies and decisions are remembered with the claims they were made for: another token, or the same one verified
 * again, is decided anew, and so is everything under another policy file. What nobody holds any more is forgotten by
 * itself.
 */
const make = Effect.gen(function* () {
  const policies = yield* Policies
  const byClaims = new WeakMap<Claims, Known>()

  const knownOf = (claims: Claims): Known => {
    const file = policies.current()
    let known = byClaims.get(claims)
    if (known === undefined || known.file !== file) {
      known = { file, policy: policyOf(file, claims), decisions: new Map() }
      byClaims.set(claims, known)
    }
    return known
  }

  return AccessControl.of({
    policyOf: (claims) => knownOf(claims).policy,
    changes: policies.changes,
    decide: (claims, request) => {
      const { decisions, policy } = knownOf(claims)
      const key = `${request.action} ${request.topic} ${request.group ?? ""}`
      let decision = decisions.get(key)
      if (decision === undefined) {
        decision = decide(policy, request)
        if (decisions.size < remembered) decisions.set(key, decision)
      }
      return decision
    },
    decideSubscription: (claims, request) => decideSubscription(knownOf(claims).policy, request),
    decideAdministration: (claims, pattern) => Policy.decideAdministration(knownOf(claims).policy, pattern)
  })
})

/** By the roles of `Policies`, where a hub has any. */
export const layer: Layer.Layer<AccessControl> = Layer.effect(AccessControl, make)
