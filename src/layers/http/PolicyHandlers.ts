/** The endpoints of PolicyApi, over domain/PolicyExplanation. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { HttpApiBuilder } from "effect/http-api"
import * as Policy from "../../domain/Policy.ts"
import { explainAccess, type Request } from "../../domain/PolicyExplanation.ts"
import * as Topic from "../../domain/Topic.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { OpsApi } from "./OpsApi.ts"
import { BadRequest, CurrentClaims } from "./OpsContract.ts"
import { makeRights } from "./rights.ts"

const explained = (policy: Policy.Policy, { action, group, topic }: Request) => {
  const { rule = null, ...explanation } = explainAccess(policy, { action, topic, group })
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

export const policies = HttpApiBuilder.group(
  OpsApi,
  "policies",
  Effect.fn(function* (handlers) {
    const rights = makeRights(yield* AccessControl)

    return handlers.handleAll({
      explain: ({ query }) =>
        Effect.gen(function* () {
          yield* check(query, "query parameter")
          const { policy } = yield* CurrentClaims
          return explained(policy, query)
        }),

      explainText: ({ payload }) =>
        Effect.gen(function* () {
          yield* check(payload, "body field")
          yield* rights.permitEverything
          const policy = yield* Effect.mapError(
            Effect.fromResult(Policy.parsePolicy(payload.policy)),
            ({ message }) => new BadRequest({ detail: `body field 'policy': ${message}` })
          )
          return explained(policy, payload)
        })
    })
  })
)
