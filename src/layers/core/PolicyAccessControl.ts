/** AccessControl by the policy that the claims carry. */
import { Layer } from "effect"
import type { Claims } from "../../domain/Claims.ts"
import * as Policy from "../../domain/Policy.ts"
import { AccessControl } from "../../services/AccessControl.ts"

/** Decisions remembered per token. A client that asks about more topics than this is decided anew each time. */
const remembered = 1_000

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
      decision = Policy.decide(claims.policy, request)
      if (decisions.size < remembered) decisions.set(key, decision)
    }
    return decision
  }
}

export const layer: Layer.Layer<AccessControl> = Layer.sync(AccessControl, () =>
  AccessControl.of({
    decide: remember(),
    decideSubscription: (claims, request) => Policy.decideSubscription(claims.policy, request)
  })
)
