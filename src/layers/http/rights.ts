/**
 * What a caller of the ops HTTP API may look at and change. Decided before anything is looked up: whoever has no right
 * to a name does not learn whether there is something behind it.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Claims } from "../../domain/Claims.ts"
import { deadLetterTopic } from "../../domain/DeadLetter.ts"
import * as Policy from "../../domain/Policy.ts"
import * as Topic from "../../domain/Topic.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import type { GroupInfo } from "../../services/GroupAdmin.ts"
import { HttpDenials } from "./HttpDenials.ts"
import { BadRequest, CurrentClaims, Forbidden } from "./OpsContract.ts"

/** Every topic but the hub's own. */
const everything = "**"

const isAllowed = (decision: Policy.Decision): boolean => decision._tag === "Allowed"

/** Where all of it has to be allowed: the first that is not. */
const firstDenied = ([first, ...more]: readonly [Policy.Decision, ...Array<Policy.Decision>]) =>
  isAllowed(first) ? (more.find((decision) => !isAllowed(decision)) ?? first) : first

const rightsOf = (access: AccessControl["Service"], denials: HttpDenials["Service"]) => {
  const read = (claims: Claims, topic: string, group?: string): Policy.Decision =>
    access.decide(claims, { action: "subscribe", topic, group })

  const mayRead = (claims: Claims, topic: string, group?: string): boolean =>
    isAllowed(read(claims, topic, group))

  const maySubscribe = (claims: Claims, pattern: string, group?: string): boolean =>
    isAllowed(access.decideSubscription(claims, { pattern, group }))

  const administrate = (claims: Claims, pattern: string): Policy.Decision =>
    access.decideAdministration(claims, pattern)

  const mayAdministrate = (claims: Claims, pattern: string): boolean =>
    isAllowed(administrate(claims, pattern))

  /** A pattern of a group shows to whoever may subscribe it, in the group or not, and to whoever administrates it. */
  const maySee = (claims: Claims, pattern: string, group: string): boolean =>
    maySubscribe(claims, pattern) || maySubscribe(claims, pattern, group) || mayAdministrate(claims, pattern)

  /** The group with the patterns that show; nothing when none does. */
  const visibleGroup = (claims: Claims, info: GroupInfo): GroupInfo | undefined => {
    const patterns = info.patterns.filter((pattern) => maySee(claims, pattern, info.group))
    return patterns.length === 0 ? undefined : { ...info, patterns }
  }

  const concrete = (topic: string, slot: string): Effect.Effect<void, BadRequest> =>
    Result.match(Topic.parseTopic(topic), {
      onFailure: ({ message }) => Effect.fail(new BadRequest({ detail: `${slot} 'topic': ${message}` })),
      onSuccess: () => Effect.void
    })

  /** The answer says no more than what was asked for; the log says which rule denies it. */
  const forbid = (
    { sub }: Claims,
    detail: string,
    decision?: Policy.Decision
  ): Effect.Effect<never, Forbidden> =>
    Effect.suspend(() => {
      const rule = decision?.rule === undefined ? "none allows it" : Policy.formatRule(decision.rule)
      const denied = { what: "forbidden over HTTP", who: sub, kind: detail, fields: { sub, detail, rule } }
      return Effect.andThen(denials.tell(denied), new Forbidden({ detail }))
    })

  const permit = (
    decide: (claims: Claims) => Policy.Decision,
    detail: string
  ): Effect.Effect<Claims, Forbidden, CurrentClaims> =>
    Effect.flatMap(CurrentClaims, (claims) => {
      const decision = decide(claims)
      return isAllowed(decision) ? Effect.succeed(claims) : forbid(claims, detail, decision)
    })

  return {
    mayRead,
    mayAdministrate,
    maySee,
    visibleGroup,
    forbid,

    /** Whether the caller may know of every group. */
    maySeeAll: (claims: Claims): boolean =>
      maySubscribe(claims, everything) || mayAdministrate(claims, everything),

    /** To look at a topic, or at what a group does there. */
    permitRead: (topic: string, group?: string) =>
      Effect.andThen(
        concrete(topic, "query parameter"),
        permit(
          (claims) =>
            group === undefined || mayRead(claims, topic) ? read(claims, topic) : read(claims, topic, group),
          `no right to subscribe '${topic}'`
        )
      ),

    /** To look at dead letters takes the right to their originals, too, whose payloads they hold. */
    permitDeadLetters: (topic: string, group: string) => {
      const letters = deadLetterTopic(group, topic)
      return Effect.andThen(
        concrete(topic, "query parameter"),
        permit(
          (claims) => firstDenied([read(claims, letters), read(claims, topic)]),
          `no right to subscribe '${letters}' and '${topic}'`
        )
      )
    },

    /** To look at what may be about any topic, such as outboxes, and to change it. */
    permitEverything: permit(
      (claims) => administrate(claims, everything),
      `no right to administrate '${everything}'`
    ),

    /** To change what a group does on one topic. */
    permitChange: (topic: string) =>
      Effect.andThen(
        concrete(topic, "body field"),
        permit((claims) => administrate(claims, topic), `no right to administrate '${topic}'`)
      ),

    /** To change what a group does on the topics of a pattern. */
    permitChanges: (pattern: string) =>
      permit((claims) => administrate(claims, pattern), `no right to administrate '${pattern}'`),

    /** To change a group as a whole: all its patterns, or, when there is no such group, those of any. */
    permitGroupChange: (group: string, patterns: ReadonlyArray<string> | undefined) =>
      permit((claims) => {
        const [first = everything, ...more] = patterns ?? [everything]
        return firstDenied([
          administrate(claims, first),
          ...more.map((pattern) => administrate(claims, pattern))
        ])
      }, `no right to administrate every topic of group '${group}'`)
  }
}

export const makeRights = Effect.gen(function* () {
  return rightsOf(yield* AccessControl, yield* HttpDenials)
})
