/** The endpoints of StandingApi, over Standing and the Gateway. */
import * as Effect from "effect/Effect"
import { HttpApiBuilder } from "effect/http-api"
import { type ConnectionInfo, Gateway } from "../../services/Gateway.ts"
import { Standing } from "../../services/Standing.ts"
import { OpsApi } from "./OpsApi.ts"
import { BadRequest, CurrentClaims, defaultLimit, unavailable } from "./OpsContract.ts"
import { makeRights } from "./rights.ts"

/** A ranking is looked at from its top. */
const defaultTop = 20

const shown = ({ slowSince, sub, ...connection }: ConnectionInfo) => ({
  ...connection,
  sub: sub ?? null,
  slowSince: slowSince ?? null
})

/** Where a connection stands among the others: the slowest first, and none at the place of another. */
type Rank = Pick<ConnectionInfo, "outboundBytes" | "behind" | "id">

const bySlowness = (a: Rank, b: Rank): number =>
  b.outboundBytes - a.outboundBytes || b.behind - a.behind || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

const cursorOf = ({ behind, id, outboundBytes }: Rank): string => `${outboundBytes}:${behind}:${id}`

/** The cursor is a place and no connection: that may be gone by now. */
const rankOf = (cursor: string): Rank | undefined => {
  const [, outboundBytes, behind, id] = /^(\d{1,15}):(\d{1,15}):(.+)$/.exec(cursor) ?? []
  return id === undefined ? undefined : { outboundBytes: Number(outboundBytes), behind: Number(behind), id }
}

/**
 * A group's place shows to whoever may read the topic, in the group or not. Places come topic by topic, so each topic is
 * asked about once, and its groups only where it does not show by itself.
 */
export const placesShown = (mayRead: (topic: string, group?: string) => boolean) => {
  let last: string | undefined
  let isShown = false
  return (group: string, topic: string): boolean => {
    if (topic !== last) isShown = mayRead(topic)
    last = topic
    return isShown || mayRead(topic, group)
  }
}

export const standings = HttpApiBuilder.group(
  OpsApi,
  "standings",
  Effect.fn(function* (handlers) {
    const rights = yield* makeRights
    const standing = yield* Standing
    const gateway = yield* Gateway

    const slowest = () => [...gateway.connections()].sort(bySlowness)

    return handlers.handleAll({
      top: ({ query: { by, limit = defaultTop } }) =>
        Effect.gen(function* () {
          const claims = yield* CurrentClaims
          switch (by) {
            case "lag": {
              const show = placesShown((topic, group) => rights.mayRead(claims, topic, group))
              const ranking = standing.behind({ limit, show })
              return { by, items: yield* Effect.mapError(ranking, unavailable) }
            }
            case "rate": {
              const ranking = standing.growing({ limit, show: (topic) => rights.mayRead(claims, topic) })
              return { by, items: yield* Effect.mapError(ranking, unavailable) }
            }
            case "slow":
              yield* rights.permitEverything
              return { by, items: slowest().slice(0, limit).map(shown) }
          }
        }),

      connections: ({ query: { after, limit = defaultLimit } }) =>
        Effect.gen(function* () {
          yield* rights.permitEverything
          const from = after === undefined ? undefined : rankOf(after)
          if (after !== undefined && from === undefined) {
            return yield* new BadRequest({
              detail: "query parameter 'after': give what 'next' of the page before said"
            })
          }
          const all = slowest()
          const rest = from === undefined ? all : all.filter((one) => bySlowness(one, from) > 0)
          const page = rest.slice(0, limit)
          const last = page.at(-1)
          return {
            connections: page.map(shown),
            next: last === undefined || rest.length <= limit ? null : cursorOf(last)
          }
        })
    })
  })
)
