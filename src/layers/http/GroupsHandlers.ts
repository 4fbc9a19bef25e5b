/** The endpoints of GroupsApi, over GroupAdmin. Who changed what, and why, is logged. */
import * as Effect from "effect/Effect"
import { HttpApiBuilder } from "effect/http-api"
import type { RedriveFilter } from "../../domain/Group.ts"
import type { RedriveRefused } from "../../domain/GroupRedrive.ts"
import type { InvalidFilter } from "../../domain/Letters.ts"
import * as Topic from "../../domain/Topic.ts"
import {
  type BlockedPlace,
  type DeadLetterInfo,
  type ForeignHistory,
  GroupAdmin,
  type GroupBusy,
  type GroupInfo,
  type InvalidSeek,
  type KeyNotBlocked
} from "../../services/GroupAdmin.ts"
import { GroupDelivery } from "../../services/GroupDelivery.ts"
import type { GroupNotFound } from "../../services/GroupStore.ts"
import type { GroupNotOnTopic, TopicNotFound } from "../../services/Inspector.ts"
import { Standing } from "../../services/Standing.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { audited } from "./audit.ts"
import { OpsApi } from "./OpsApi.ts"
import {
  BadRequest,
  Conflict,
  CurrentClaims,
  defaultLimit,
  NotFound,
  type Unavailable,
  unavailable
} from "./OpsContract.ts"
import { makeRights } from "./rights.ts"
import { visiblePage } from "./visiblePage.ts"

type Missing = GroupNotFound | GroupNotOnTopic | TopicNotFound
type Wrong = InvalidSeek | InvalidFilter
type InTheWay = ForeignHistory | GroupBusy | KeyNotBlocked | RedriveRefused

/** Looking at something meets fewer problems than changing it. */
const readProblem = (error: Missing | Wrong | StoreUnavailable): NotFound | BadRequest | Unavailable => {
  switch (error._tag) {
    case "StoreUnavailable":
      return unavailable()
    case "InvalidSeek":
    case "InvalidFilter":
      return new BadRequest({ detail: error.message })
    default:
      return new NotFound({ detail: error.message })
  }
}

const changeProblem = (
  error: Missing | Wrong | InTheWay | StoreUnavailable
): NotFound | BadRequest | Conflict | Unavailable => {
  switch (error._tag) {
    case "ForeignHistory":
    case "GroupBusy":
    case "KeyNotBlocked":
    case "RedriveRefused":
      return new Conflict({ detail: error.message })
    default:
      return readProblem(error)
  }
}

const checkGroup = (group: string, slot: string): Effect.Effect<void, BadRequest> =>
  Topic.isSegment(group)
    ? Effect.void
    : Effect.fail(new BadRequest({ detail: `${slot} 'group': a group's name is one topic segment` }))

const placeOf = (place: string): BlockedPlace => {
  const [since, seq] = place.split(":")
  return { since: Number(since), seq: Number(seq) }
}

const letterJson = ({ death, diedAt, event, letter, status }: DeadLetterInfo) => {
  const { attempts, id, reason, redrives, seq, storedAt } = death
  return { letter, status, diedAt, reason, attempts, redrives, id, seq, storedAt, event }
}

export const groups = HttpApiBuilder.group(
  OpsApi,
  "groups",
  Effect.fn(function* (handlers) {
    const rights = yield* makeRights
    const admin = yield* GroupAdmin
    const delivery = yield* GroupDelivery
    const standing = yield* Standing

    /** The group, or nothing. Without a right to it both are the same to the caller. */
    const find = (group: string): Effect.Effect<GroupInfo | undefined, Unavailable> =>
      admin
        .get(group)
        .pipe(
          Effect.catch((error) =>
            error._tag === "GroupNotFound" ? Effect.succeed(undefined) : Effect.fail(unavailable())
          )
        )

    const visible = (group: string) =>
      Effect.gen(function* () {
        yield* checkGroup(group, "path parameter")
        const claims = yield* CurrentClaims
        const found = yield* find(group)
        const info = found === undefined ? undefined : rights.visibleGroup(claims, found)
        if (info !== undefined) return { claims, info }
        if (found === undefined && rights.maySeeAll(claims)) {
          return yield* new NotFound({ detail: `there is no group '${group}'` })
        }
        return yield* rights.forbid(claims, `no right to see a group '${group}'`)
      })

    /** Whoever changes a group as a whole has the right to all of it. */
    const permitGroup = (group: string) =>
      Effect.gen(function* () {
        yield* checkGroup(group, "path parameter")
        const found = yield* find(group)
        yield* rights.permitGroupChange(group, found?.patterns)
      })

    return handlers.handleAll({
      list: ({ query: { after, limit = defaultLimit } }) =>
        Effect.gen(function* () {
          const claims = yield* CurrentClaims
          const { found, next } = yield* Effect.mapError(
            visiblePage({
              read: admin.list,
              nameOf: ({ group }) => group,
              show: (info) => {
                const shown = rights.visibleGroup(claims, info)
                return shown && { ...shown, isWhole: shown.patterns.length === info.patterns.length }
              },
              after,
              limit
            }),
            unavailable
          )
          // Figures of all groups cost a look at every state; a page without any needs none.
          const standings =
            found.length === 0 ? undefined : yield* Effect.mapError(standing.groups, unavailable)
          const withStanding = (info: GroupInfo & { readonly isWhole: boolean }) => {
            const { isWhole, ...rest } = info
            const {
              inFlight = null,
              pending = null,
              topicsBehind = null
            } = (isWhole ? standings?.get(info.group) : undefined) ?? {}
            return { ...rest, members: delivery.members(info.group), pending, inFlight, topicsBehind }
          }
          return { groups: found.map(withStanding), next }
        }),

      get: ({ params: { group }, query: { after, limit = defaultLimit } }) =>
        Effect.gen(function* () {
          const { claims, info } = yield* visible(group)
          const { found, next } = yield* Effect.mapError(
            visiblePage({
              read: (page) => admin.positions({ group, ...page }),
              nameOf: ({ topic }) => topic,
              show: (position) => (rights.maySee(claims, position.topic, group) ? position : undefined),
              after,
              limit
            }),
            readProblem
          )
          return { ...info, topics: found, next }
        }),

      seek: ({ params: { group }, payload: { dryRun = false, reason, to, topic: name } }) =>
        Effect.gen(function* () {
          const topic =
            name === undefined
              ? undefined
              : yield* Effect.mapError(
                  Topic.pattern(name),
                  (error) => new BadRequest({ detail: `body field 'topic': ${error.message}` })
                )
          if (topic === undefined) yield* permitGroup(group)
          else {
            yield* checkGroup(group, "path parameter")
            yield* rights.permitChanges(topic.name)
          }
          const change = admin.seek({ group, to, dryRun, ...(topic === undefined ? {} : { topic }) })
          const topics = yield* Effect.mapError(
            dryRun
              ? change
              : audited(change, {
                  what: "group seek",
                  reason,
                  fields: { group, topic: name, to },
                  outcome: (sought) => ({
                    topics: sought.length,
                    again: sought.reduce((sum, { again }) => sum + again, 0),
                    skipped: sought.reduce((sum, { skipped }) => sum + skipped, 0)
                  })
                }),
            changeProblem
          )
          return { group, dryRun, topics }
        }),

      pause: ({ params: { group }, payload }) =>
        Effect.gen(function* () {
          yield* permitGroup(group)
          const reason = payload?.reason
          const change = audited(admin.pause(group), { what: "group paused", reason, fields: { group } })
          yield* Effect.mapError(change, readProblem)
          return { group, paused: true as const }
        }),

      resume: ({ params: { group }, payload }) =>
        Effect.gen(function* () {
          yield* permitGroup(group)
          const reason = payload?.reason
          const change = audited(admin.resume(group), { what: "group resumed", reason, fields: { group } })
          yield* Effect.mapError(change, readProblem)
          return { group, paused: false as const }
        }),

      remove: ({ params: { group }, query: { dryRun: asked, reason } }) =>
        Effect.gen(function* () {
          yield* permitGroup(group)
          const dryRun = asked === "true"
          const change = admin.remove(group, { dryRun })
          const forgotten = yield* Effect.mapError(
            dryRun
              ? change
              : audited(change, {
                  what: "group removed",
                  reason,
                  fields: { group },
                  outcome: (forgotten) => ({ ...forgotten })
                }),
            readProblem
          )
          return { group, dryRun, removed: !dryRun, ...forgotten }
        }),

      blockedKeys: ({ params: { group }, query: { after, limit = defaultLimit, topic } }) =>
        Effect.gen(function* () {
          yield* checkGroup(group, "path parameter")
          yield* rights.permitRead(topic, group)
          const page = { group, topic, limit, ...(after === undefined ? {} : { after: placeOf(after) }) }
          const { keys, next, total } = yield* Effect.mapError(admin.blockedKeys(page), readProblem)
          return {
            group,
            topic,
            total,
            keys: keys.map((one) => ({ ...one, notBefore: one.notBefore ?? null })),
            next: next === undefined ? null : `${next.since}:${next.seq}`
          }
        }),

      releaseKey: ({ params: { group }, payload: { dryRun = false, key, mode, reason, topic } }) =>
        Effect.gen(function* () {
          yield* checkGroup(group, "path parameter")
          yield* rights.permitChange(topic)
          const change = admin.releaseKey({ group, topic, key, mode, dryRun })
          const seq = yield* Effect.mapError(
            dryRun
              ? change
              : audited(change, {
                  what: "group key released",
                  reason,
                  fields: { group, topic, key, mode },
                  outcome: (seq) => ({ seq })
                }),
            changeProblem
          )
          return { group, topic, key, mode, dryRun, seq }
        }),

      deadLetters: ({ query: { after, group, id, letter, limit = defaultLimit, topic, ...rest } }) =>
        Effect.gen(function* () {
          yield* checkGroup(group, "query parameter")
          yield* rights.permitDeadLetters(topic, group)
          const filter: RedriveFilter = {
            ...rest,
            ...(letter === undefined ? {} : { letters: letter }),
            ...(id === undefined ? {} : { ids: id })
          }
          const page = { group, topic, filter, limit, ...(after === undefined ? {} : { after }) }
          const { items, next } = yield* Effect.mapError(admin.deadLetters(page), readProblem)
          return { group, topic, letters: items.map(letterJson), next: next ?? null }
        }),

      redrive: ({ payload: { dryRun = false, filter = {}, group, reason, topic } }) =>
        Effect.gen(function* () {
          yield* checkGroup(group, "body field")
          yield* rights.permitChange(topic)
          const change = admin.redrive({ group, topic, filter, dryRun })
          const { matched } = yield* Effect.mapError(
            dryRun
              ? change
              : audited(change, {
                  what: "dead letters redriven",
                  reason,
                  fields: { group, topic, filter },
                  outcome: (answer) => ({ matched: answer.matched })
                }),
            changeProblem
          )
          return { group, topic, dryRun, matched }
        })
    })
  })
)
