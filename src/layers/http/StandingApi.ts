/**
 * The contract of who is worst off: groups that are behind, topics that grow, connections that read slowly.
 *
 * Of groups and topics everybody sees those of topics that they may subscribe. Connections are of all who use the
 * hub, and looking at them takes the right to administrate everything.
 */
import * as Schema from "effect/Schema"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import {
  After,
  Authorization,
  BadRequest,
  Count,
  Forbidden,
  Limit,
  Next,
  strict,
  Unavailable
} from "./OpsContract.ts"

// --- shapes --------------------------------------------------------------------------------------------------

const Rate = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

export const ConnectionJson = Schema.Struct({
  id: Schema.String,
  sub: Schema.NullOr(Schema.String).annotate({ description: "Whose token it has; null before AUTH." }),
  openedAt: Schema.Finite,
  subscriptions: Count,
  outboundBytes: Count.annotate({ description: "Bytes that wait for the client to read them." }),
  behind: Count.annotate({ description: "Topics in which its live subscriptions are behind." }),
  delivered: Count.annotate({ description: "Events that it was given, live and in groups." }),
  slowSince: Schema.NullOr(Schema.Finite).annotate({
    description: "Since when events are held back, because it reads too slowly; null: none are."
  })
}).annotate({ identifier: "Connection" })

export const ConnectionList = Schema.Struct({
  connections: Schema.Array(ConnectionJson),
  next: Next
}).annotate({ identifier: "Connections" })

const PlaceJson = Schema.Struct({
  group: Schema.String,
  topic: Schema.String,
  pending: Count,
  inFlight: Count,
  seq: Count,
  head: Count,
  lagMs: Schema.Finite
}).annotate({ identifier: "Place" })

const TopicRate = Schema.Struct({
  topic: Schema.String,
  eventsPerSecond: Rate,
  bytesPerSecond: Rate,
  head: Count
}).annotate({ identifier: "TopicRate" })

const ranking = <By extends string, Item extends Schema.Top>(by: By, item: Item, identifier: string) =>
  Schema.Struct({ by: Schema.Literal(by), items: Schema.Array(item) }).annotate({ identifier })

export const Top = [
  ranking("lag", PlaceJson, "TopByLag"),
  ranking("rate", TopicRate, "TopByRate"),
  ranking("slow", ConnectionJson, "TopBySlowness")
] as const

// --- endpoints -----------------------------------------------------------------------------------------------

const By = Schema.Literals(["lag", "rate", "slow"]).annotate({
  description:
    "lag: groups on topics, by events that are not acknowledged; rate: topics, by events a second, as this hub saw them in the last 10 s; slow: connections to this hub, by bytes that wait to be read."
})

export const Standings = HttpApiGroup.make("standings")
  .add(
    HttpApiEndpoint.get("top", "/top", {
      query: { by: By, limit: Schema.optionalKey(Limit) },
      success: Top,
      error: [BadRequest, Forbidden, Unavailable]
    }).annotate(
      OpenApi.Description,
      "The worst first, at most `limit` of them (20 unless given): which groups are behind, which topics grow, which connections read slowly. Groups and topics are those of topics that the token may subscribe; connections take the right to administrate everything."
    ),
    HttpApiEndpoint.get("connections", "/connections", {
      query: { after: Schema.optionalKey(After), limit: Schema.optionalKey(Limit) },
      success: ConnectionList,
      error: [BadRequest, Forbidden]
    }).annotate(
      OpenApi.Description,
      "Connections to this hub, the slowest first: by bytes that wait to be read, then by topics that they are behind in. What changes while pages are read may come twice, or not at all."
    )
  )
  .middleware(Authorization)
  .annotate(HttpApi.QueryParseOptions, strict)
