/** The endpoints of ReadsApi, over the log and the Inspector. */
import * as Effect from "effect/Effect"
import { HttpApiBuilder } from "effect/http-api"
import * as Topic from "../../domain/Topic.ts"
import { EventStore } from "../../services/EventStore.ts"
import type { GroupNotOnTopic, TopicNotFound } from "../../services/Inspector.ts"
import { Inspector } from "../../services/Inspector.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { OpsApi } from "./OpsApi.ts"
import {
  BadRequest,
  CurrentClaims,
  defaultLimit,
  NotFound,
  type Unavailable,
  unavailable
} from "./OpsContract.ts"
import { makeRights } from "./rights.ts"
import { visiblePage } from "./visiblePage.ts"

/** Keys that one request may ask for. */
const maxKeys = 1_000

const problemOf = (error: TopicNotFound | GroupNotOnTopic | StoreUnavailable): NotFound | Unavailable =>
  error._tag === "StoreUnavailable" ? unavailable() : new NotFound({ detail: error.message })

export const reads = HttpApiBuilder.group(
  OpsApi,
  "reads",
  Effect.fn(function* (handlers) {
    const rights = yield* makeRights
    const store = yield* EventStore
    const inspector = yield* Inspector

    return handlers.handleAll({
      topics: ({ query }) =>
        Effect.gen(function* () {
          const { after, limit = defaultLimit, pattern: name = "**" } = query
          const claims = yield* CurrentClaims
          const pattern = yield* Effect.mapError(
            Topic.pattern(name),
            (error) => new BadRequest({ detail: `query parameter 'pattern': ${error.message}` })
          )
          const { found, next } = yield* Effect.mapError(
            visiblePage({
              read: (page) => store.topics({ pattern, ...page }),
              nameOf: ({ topic }) => topic,
              show: (info) => (rights.mayRead(claims, info.topic) ? info : undefined),
              after,
              limit
            }),
            unavailable
          )
          return { topics: found, next }
        }),

      cursors: ({ query: { after, limit = defaultLimit, topic } }) =>
        Effect.gen(function* () {
          yield* rights.permitRead(topic)
          const page = { topic, limit, ...(after === undefined ? {} : { after }) }
          const { items, next } = yield* Effect.mapError(inspector.cursors(page), problemOf)
          return { topic, cursors: items, next: next ?? null }
        }),

      lag: ({ query: { group, topic } }) =>
        Effect.gen(function* () {
          if (!Topic.isSegment(group)) {
            return yield* new BadRequest({
              detail: "query parameter 'group': a group's name is one topic segment"
            })
          }
          yield* rights.permitRead(topic, group)
          return yield* Effect.mapError(inspector.lag({ topic, group }), problemOf)
        }),

      latestByKey: ({ query: { after, key: keys, limit = defaultLimit, topic } }) =>
        Effect.gen(function* () {
          yield* rights.permitRead(topic)
          if (keys === undefined) {
            const page = { topic, limit, ...(after === undefined ? {} : { after }) }
            const { next, ...latest } = yield* Effect.mapError(inspector.latestByKey(page), problemOf)
            return { topic, ...latest, next: next ?? null }
          }
          if (keys.length > maxKeys) {
            return yield* new BadRequest({ detail: `query parameter 'key': at most ${maxKeys} of them` })
          }
          const latest = yield* Effect.mapError(inspector.latestOf({ topic, keys }), problemOf)
          if (keys.length === 1) return latest.get(keys[0]!) ?? null
          return Object.fromEntries(latest)
        })
    })
  })
)
