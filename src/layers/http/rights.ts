/**
 * What a caller of the ops HTTP API may look at and change. Decided before anything is looked up: whoever has no right
 * to a name does not learn whether there is something behind it.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Claims } from "../../domain/Claims.ts"
import { deadLetterTopic } from "../../domain/DeadLetter.ts"
import * as Topic from "../../domain/Topic.ts"
import type { AccessControl } from "../../services/AccessControl.ts"
import type { GroupInfo } from "../../services/GroupAdmin.ts"
import { BadRequest, CurrentClaims, Forbidden } from "./OpsContract.ts"

/** Every topic but the hub's own. */
const everything = "**"

export const makeRights = (access: AccessControl["Service"]) => {
  const mayRead = (claims: Claims, topic: string, group?: string): boolean =>
    access.decide(claims, { action: "subscribe", topic, group })._tag === "Allowed"

  const maySubscribe = (claims: Claims, pattern: string, group?: string): boolean =>
    access.decideSubscription(claims, { pattern, group })._tag === "Allowed"

  const mayAdministrate = (claims: Claims, pattern: string): boolean =>
    access.decideAdministration(claims, pattern)._tag === "Allowed"

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

  const permit = (
    isAllowed: (claims: Claims) => boolean,
    detail: string
  ): Effect.Effect<Claims, Forbidden, CurrentClaims> =>
    Effect.flatMap(CurrentClaims, (claims) =>
      isAllowed(claims) ? Effect.succeed(claims) : Effect.fail(new Forbidden({ detail }))
    )

  return {
    mayRead,
    mayAdministrate,
    maySee,
    visibleGroup,

    /** Whether the caller may know of every group. */
    maySeeAll: (claims: Claims): boolean =>
      maySubscribe(claims, everything) || mayAdministrate(claims, everything),

    /** To look at a topic, or at what a group does there. */
    permitRead: (topic: string, group?: string) =>
      Effect.andThen(
        concrete(topic, "query parameter"),
        permit(
          (claims) => mayRead(claims, topic) || (group !== undefined && mayRead(claims, topic, group)),
          `no right to subscribe '${topic}'`
        )
      ),

    /** To look at dead letters takes the right to their originals, too, whose payloads they hold. */
    permitDeadLetters: (topic: string, group: string) => {
      const letters = deadLetterTopic(group, topic)
      return Effect.andThen(
        concrete(topic, "query parameter"),
        permit(
          (claims) => mayRead(claims, letters) && mayRead(claims, topic),
          `no right to subscribe '${letters}' and '${topic}'`
        )
      )
    },

    /** To look at what may be about any topic, such as outboxes, and to change it. */
    permitEverything: permit(
      (claims) => mayAdministrate(claims, everything),
      `no right to administrate '${everything}'`
    ),

    /** To change what a group does on one topic. */
    permitChange: (topic: string) =>
      Effect.andThen(
        concrete(topic, "body field"),
        permit((claims) => mayAdministrate(claims, topic), `no right to administrate '${topic}'`)
      ),

    /** To change what a group does on the topics of a pattern. */
    permitChanges: (pattern: string) =>
      permit((claims) => mayAdministrate(claims, pattern), `no right to administrate '${pattern}'`),

    /** To change a group as a whole: all its patterns, or, when there is no such group, those of any. */
    permitGroupChange: (group: string, patterns: ReadonlyArray<string> | undefined) =>
      permit(
        (claims) => (patterns ?? [everything]).every((pattern) => mayAdministrate(claims, pattern)),
        `no right to administrate every topic of group '${group}'`
      )
  }
}
