/** The endpoints of PolicyApi, over domain/PolicyExplanation. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { HttpApiBuilder } from "effect/http-api"
import type { Claims } from "../../domain/Claims.ts"
import * as Policy from "../../domain/Policy.ts"
import { explainAccess, type Request } from "../../domain/PolicyExplanation.ts"
import * as PolicyFile from "../../domain/PolicyFile.ts"
import * as Topic from "../../domain/Topic.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { OpsApi } from "./OpsApi.ts"
import { BadRequest, CurrentClaims } from "./OpsContract.ts"
import { makeRights } from "./rights.ts"

const explained = (policy: Policy.Policy, { action, group, topic }: Request, hidden = 0) => {
  const { rule = null, ...explanation } = explainAccess(policy, { action, topic, group }, hidden)
  return { ...explanation, rule }
}

const check = ({ group, topic }: Request, slot: string): Effect.Effect<void, BadRequest> => {
  const pattern = Topic.parsePattern(topic)
  if (Result.isFailure(pattern)) {
    return Effect.fail(new BadRequest({ detail: `${slot} 'topic': ${pattern.failure.message}` }))
  }
  return group === undefined || Topic.isSegment(group)
    ? Effect.void
    : Effect.fail(new BadRequest({ detail: `${slot} 'group': a group's name is one topic segment` }))
}

interface Text {
  readonly policy: string
  readonly roles?: ReadonlyArray<string>
  readonly sub?: string
  readonly claims?: Readonly<Record<string, unknown>>
}

/** The policy that a token would have by a text; or which field cannot be used, and why. */
const policyOf = (text: Text): Result.Result<Policy.Policy, string> => {
  const { claims = {}, policy, roles = [], sub = "" } = text
  if (!PolicyFile.hasRoles(policy)) {
    const unused = (["roles", "sub", "claims"] as const).find((field) => text[field] !== undefined)
    if (unused !== undefined) return Result.fail(`'${unused}': the policy has no roles`)
    return Result.mapError(Policy.parsePolicy(policy), ({ message }) => `'policy': ${message}`)
  }
  const file = PolicyFile.parsePolicyFile(policy)
  if (Result.isFailure(file)) return Result.fail(`'policy': ${file.failure.message}`)
  if (roles.length === 0) return Result.fail("'roles' is missing: the policy has roles")
  const bearer = { roles, sub, values: PolicyFile.valuesOf(claims) }
  return Result.mapError(PolicyFile.resolve(file.success, bearer), ({ message }) => `'roles': ${message}`)
}

export const policies = HttpApiBuilder.group(
  OpsApi,
  "policies",
  Effect.fn(function* (handlers) {
    const access = yield* AccessControl
    const rights = yield* makeRights

    /** Rules of roles are the hub's, and name what there is to hide; what a token carries its bearer can read anyway. */
    const hiddenOf = (claims: Claims, policy: Policy.Policy, topic: string): number =>
      rights.mayAdministrate(claims, "**") || (!Topic.isOwn(topic) && rights.mayAdministrate(claims, topic))
        ? 0
        : Math.max(0, policy.rules.length - claims.policy.rules.length)

    return handlers.handleAll({
      explain: ({ query }) =>
        Effect.gen(function* () {
          yield* check(query, "query parameter")
          const claims = yield* CurrentClaims
          const policy = access.policyOf(claims)
          return explained(policy, query, hiddenOf(claims, policy, query.topic))
        }),

      explainText: ({ payload }) =>
        Effect.gen(function* () {
          yield* check(payload, "body field")
          yield* rights.permitEverything
          const policy = Result.match(policyOf(payload), {
            onFailure: (detail) => Effect.fail(new BadRequest({ detail: `body field ${detail}` })),
            onSuccess: Effect.succeed
          })
          return explained(yield* policy, payload)
        })
    })
  })
)
