/**
 * AccessControl by the policy that the claims carry, and by those of the roles that they name. The hub's own topics
 * take the right to the topics that they name, too.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { LRUCache } from "lru-cache"
import type { Claims } from "../../domain/Claims.ts"
import { namedBy } from "../../domain/OwnTopics.ts"
import * as Policy from "../../domain/Policy.ts"
import * as PolicyFile from "../../domain/PolicyFile.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { Policies } from "../../services/Policies.ts"

/**
 * Decisions remembered of a policy: about topics of which something is delivered, and about those that somebody
 * publishes to. These have names that a client chose: they are few, and those that are denied are not among them.
 */
const maxDeliveries = 256
const maxPublishes = 32

/** Policies of roles that are found for the next token. Those of sessions are there for as long as these. */
const shared = 1_000

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

/** The policies of roles, each once for all tokens that have the same. */
const rolePolicies = (file: PolicyFile.PolicyFile) => {
  const known = new LRUCache<string, Policy.Policy>({ max: shared })
  return (bearer: PolicyFile.Bearer): Policy.Policy => {
    const identity = PolicyFile.identityOf(file, bearer)
    let policy = known.get(identity)
    if (policy === undefined) {
      // A role that is gone from the file took its denies with it: what is left may be more than was ever meant.
      policy = Result.getOrElse(PolicyFile.resolve(file, bearer), () => Policy.none)
      known.set(identity, policy)
    }
    return policy
  }
}

/** The policies of claims for as long as the roles are the same. */
const policiesBy = (file: PolicyFile.PolicyFile | undefined) => {
  if (file === undefined) return { file, policyOf: ({ policy }: Claims): Policy.Policy => policy }
  const ofRoles = rolePolicies(file)
  const known = new WeakMap<Claims, Policy.Policy>()

  const resolve = ({ policy, roles, sub, values }: Claims): Policy.Policy => {
    if (roles === undefined) return policy
    const theirs = ofRoles({ roles, sub, values })
    // Whoever has a role that is gone has no rights at all, not those of scopes either.
    if (theirs === Policy.none || policy.rules.length === 0) return theirs
    return { rules: [...theirs.rules, ...policy.rules] }
  }

  const policyOf = (claims: Claims): Policy.Policy => {
    let policy = known.get(claims)
    if (policy === undefined) known.set(claims, (policy = resolve(claims)))
    return policy
  }
  return { file, policyOf }
}

/** Of which request a decision is. The topic and the group may be anything: each such text is of one request only. */
const keyOf = ({ group, topic }: Policy.Request): string =>
  group === undefined ? `-${topic}` : `${topic.length} ${topic} ${group}`

/** What was decided by one policy, as long as there is room. */
class Decisions {
  readonly #deliveries = new Map<string, Policy.Decision>()
  readonly #publishes = new Map<string, Policy.Decision>()
  readonly #policy: Policy.Policy

  constructor(policy: Policy.Policy) {
    this.#policy = policy
  }

  about(request: Policy.Request): Policy.Decision {
    switch (request.action) {
      case "subscribe":
        return this.#remembered(this.#deliveries, maxDeliveries, request)
      case "publish":
        return this.#remembered(this.#publishes, maxPublishes, request)
      case "admin":
        return decide(this.#policy, request)
    }
  }

  #remembered(known: Map<string, Policy.Decision>, max: number, request: Policy.Request): Policy.Decision {
    const key = keyOf(request)
    let decision = known.get(key)
    if (decision === undefined) {
      decision = decide(this.#policy, request)
      if (decision._tag === "Denied" && request.action === "publish") return decision
      if (known.size >= max) known.delete(known.keys().next().value!)
      known.set(key, decision)
    }
    return decision
  }
}

/**
 * Decisions are remembered with the policy that they were made by: others, also those of the same
 * token under another policy file, are decided anew. What nobody holds any more is forgotten by itself.
 */
const make = Effect.gen(function* () {
  const policies = yield* Policies
  const decisions = new WeakMap<Policy.Policy, Decisions>()
  let current = policiesBy(policies.current())

  const policyOf = (claims: Claims): Policy.Policy => {
    const file = policies.current()
    if (current.file !== file) current = policiesBy(file)
    return current.policyOf(claims)
  }

  const decisionsOf = (policy: Policy.Policy): Decisions => {
    let known = decisions.get(policy)
    if (known === undefined) decisions.set(policy, (known = new Decisions(policy)))
    return known
  }

  return AccessControl.of({
    policyOf,
    changes: policies.changes,
    decide: (claims, request) => decisionsOf(policyOf(claims)).about(request),
    decideSubscription: (claims, request) => decideSubscription(policyOf(claims), request),
    decideAdministration: (claims, pattern) => Policy.decideAdministration(policyOf(claims), pattern)
  })
})

/** By the roles of `Policies`, where a hub has any. */
export const layer: Layer.Layer<AccessControl> = Layer.effect(AccessControl, make)
