/**
 * What the client's types allow and refuse. Nothing here runs: the type check reads it, and every
 * `@ts-expect-error` is a line that has to fail.
 */
import { Schema } from "effect"
import * as v from "valibot"
import { z } from "zod"
import {
  type ConnectionState,
  createClient,
  defineTopics,
  type LiveItem,
  type PublishPayload,
  type ReceivedPayload,
  type StandardSchema,
  type TopicOf,
  type Topics,
  type TopicSchemas
} from "../../src/client/index.ts"

type Is<A, B> = (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false

/** Has to be called with `true`: `is<A, B>(true)` compiles only where A and B are the same. */
declare const is: <A, B>(same: Is<A, B>) => void

const topics = defineTopics({
  // Three libraries.
  "orders.eu.created": z.object({ id: z.string(), vat: z.number() }),
  "orders.*.created": z.object({ id: z.string() }),
  "orders.*.paid": v.object({ amount: v.number() }),
  "clock.**": Schema.toStandardSchemaV1(Schema.Struct({ at: Schema.DateFromString })),
  // What is published is not what is received.
  "log.lines": z.string().transform((line) => line.length),
  settings: z.object({ theme: z.string().default("light"), size: z.number().optional() }),
  "process.state": v.nullable(v.object({ pid: v.number() }))
})

const client = createClient({ url: "ws://127.0.0.1:8090", token: "token", topics })

interface Created {
  id: string
}
interface EuCreated {
  id: string
  vat: number
}
interface Paid {
  amount: number
}
interface Tick {
  readonly at: Date
}
type State = { pid: number } | null
type Settings = { theme: string; size?: number | undefined }

// --- publish: the schema's input --------------------------------------------------------------------------------

export const published = async (region: string, id: number, area: "eu" | "us"): Promise<void> => {
  await client.publish("orders.us.created", { id: "1" })
  await client.publish("orders.eu.created", { id: "1", vat: 0.2 })
  await client.publish("orders.eu.paid", { amount: 3 }, { key: "1", id: "7" })
  await client.publish("clock.tokyo", { at: "2026-01-01T00:00:00Z" })
  await client.publish("clock", { at: "2026-01-01T00:00:00Z" })
  await client.publish("clock.a.b.c", { at: "2026-01-01T00:00:00Z" })
  await client.publish("log.lines", "a line")
  await client.publish("settings", {})
  await client.publish("process.state", null)
  // Templates have segments, too; `region` may be "eu", so both definitions have to be content.
  await client.publish(`orders.${region}.paid`, { amount: 3 })
  await client.publish(`orders.${id}.created`, { id: "1" })
  await client.publish(`orders.${region}.created`, { id: "1", vat: 0.2 })
  await client.publish(`orders.${area}.created`, { id: "1", vat: 0.2 })
  await client.publish(`clock.${region}`, { at: "2026-01-01T00:00:00Z" })

  // @ts-expect-error: a wrong payload
  await client.publish("orders.us.created", { id: 1 })
  // @ts-expect-error: a payload of another topic
  await client.publish("orders.us.created", { amount: 3 })
  // @ts-expect-error: a field is missing
  await client.publish("orders.us.created", {})
  // @ts-expect-error: a field of the first definition that matches is missing
  await client.publish("orders.eu.created", { id: "1" })
  // @ts-expect-error: there is no payload
  await client.publish("orders.us.created")
  // @ts-expect-error: a payload that valibot refuses
  await client.publish("orders.us.paid", { amount: "3" })
  // @ts-expect-error: what Effect's schema gives, not what it takes
  await client.publish("clock.tokyo", { at: new Date() })
  // @ts-expect-error: what the transformation gives, not what it takes
  await client.publish("log.lines", 6)
  // @ts-expect-error: not what every region's definition takes
  await client.publish(`orders.${region}.created`, { id: "1" })
  // @ts-expect-error: not what the topics of the union take
  await client.publish(`orders.${area}.created`, { id: "1" })

  // @ts-expect-error: a wrong topic
  await client.publish("orders.us.creatd", { id: "1" })
  // @ts-expect-error: '*' is one segment
  await client.publish("orders.us.west.created", { id: "1" })
  // @ts-expect-error: '*' is not none
  await client.publish("orders.created", { id: "1" })
  // @ts-expect-error: a pattern
  await client.publish("orders.*.created", { id: "1" })
  // @ts-expect-error: a pattern
  await client.publish("clock.**", { at: "2026-01-01T00:00:00Z" })
  // @ts-expect-error: the hub's own
  await client.publish("$dead.mailer.clock", { at: "2026-01-01T00:00:00Z" })
  // @ts-expect-error: a string that may be anything
  await client.publish(region, { id: "1" })
  // @ts-expect-error: a template of which only some topics are defined
  await client.publish(`settings.${region}`, {})
  // @ts-expect-error: one of them is not defined
  await client.publish(area === "eu" ? "orders.eu.created" : "orders.eu.gone", { id: "1", vat: 0.2 })
}

// --- subscribe: the schemas' outputs ----------------------------------------------------------------------------

export const received = async (region: string): Promise<void> => {
  client.subscribe("orders.us.created", ({ payload }) => is<typeof payload, Created>(true))
  client.subscribe("orders.eu.created", ({ payload }) => is<typeof payload, EuCreated>(true))
  client.subscribe("orders.*.created", ({ payload }) => is<typeof payload, Created | EuCreated>(true))
  client.subscribe("orders.*.paid", ({ payload }) => is<typeof payload, Paid>(true))
  client.subscribe("orders.eu.*", ({ payload }) => is<typeof payload, EuCreated | Paid>(false))
  client.subscribe("orders.**", ({ payload }) => is<typeof payload, Created | EuCreated | Paid>(true))
  client.subscribe("**.paid", ({ payload }) => is<typeof payload, Paid | Tick>(true))
  client.subscribe("clock.*", ({ payload }) => is<typeof payload, Tick>(true))
  client.subscribe("log.lines", ({ payload }) => is<typeof payload, number>(true))
  client.subscribe("*", ({ payload }) => is<typeof payload, Settings | Tick>(true))
  client.subscribe("process.state", ({ payload }) => is<typeof payload, State>(true))
  client.subscribe(`orders.${region}.paid`, ({ payload }) => is<typeof payload, Paid>(true))
  client.subscribe("**", ({ payload }) =>
    is<typeof payload, Created | EuCreated | Paid | Tick | number | Settings | State>(true)
  )
  client.consume("orders.*.paid", "billing", ({ payload }, { attempt }) => {
    is<typeof payload, Paid>(true)
    is<typeof attempt, number>(true)
  })
  for await (const item of client.subscribe("orders.*.paid")) is<typeof item, LiveItem<Paid>>(true)

  // @ts-expect-error: it has no topic in common with any definition
  client.subscribe("orders.*", () => {})
  // @ts-expect-error: it has no topic in common with any definition
  client.subscribe("payments.**", () => {})
  // @ts-expect-error: wildcards do not begin the hub's own
  client.subscribe("$dead.**", () => {})
  // @ts-expect-error: it has no topic in common with any definition
  client.consume("orders.eu", "billing", () => {})
  // @ts-expect-error: the payload has no such field
  client.subscribe("orders.*.paid", ({ payload }) => payload.id)
  // @ts-expect-error: of the union only some have it
  client.subscribe("orders.**", ({ payload }) => payload.amount)
}

// --- unions have to be handled ------------------------------------------------------------------------------------

export const allStates = (state: ConnectionState): string => {
  switch (state._tag) {
    case "idle":
    case "connecting":
      return state._tag
    case "ready":
      return state.welcome.connection
    case "waiting":
      return `${state.retryInMs} ms`
    case "closed":
      return state.error?.code ?? "closed"
  }
}

// @ts-expect-error: 'waiting' is not handled, so nothing is returned
export const notAllStates = (state: ConnectionState): string => {
  switch (state._tag) {
    case "idle":
    case "connecting":
    case "ready":
    case "closed":
      return state._tag
  }
}

export const allItems = (item: LiveItem<Paid>): number => {
  switch (item._tag) {
    case "event":
      return item.payload.amount
    case "gap":
      return item.to - item.from
    case "invalid":
      return item.issues.length
  }
}

// @ts-expect-error: 'gap' is not handled, so nothing is returned
export const notAllItems = (item: LiveItem<Paid>): number => {
  switch (item._tag) {
    case "event":
      return item.payload.amount
    case "invalid":
      return item.issues.length
  }
}

// --- without topics -------------------------------------------------------------------------------------------------

const untyped = createClient({ url: "ws://127.0.0.1:8090", getToken: () => "token" })

export const anything = async (topic: string): Promise<void> => {
  await untyped.publish("any.topic", { any: "payload" })
  await untyped.publish(topic, 1)
  untyped.subscribe("any.**", ({ payload }) => is<typeof payload, unknown>(true))
  untyped.subscribe(topic, ({ payload }) => is<typeof payload, unknown>(true))
  // @ts-expect-error: it is not known what it is
  untyped.subscribe("any.**", ({ payload }) => payload.id)
}

/** Definitions that the compiler does not see are as good as none. */
export const dynamic = async (
  schemas: Record<string, StandardSchema<string>>,
  topic: string
): Promise<void> => {
  const client = createClient({ url: "ws://127.0.0.1:8090", token: "token", topics: defineTopics(schemas) })
  await client.publish(topic, 1)
  client.subscribe("**", ({ payload }) => is<typeof payload, unknown>(true))
}

// --- definitions ----------------------------------------------------------------------------------------------------

is<ReceivedPayload<typeof topics, "log.lines">, number>(true)

type Machines = Topics<{
  readonly "eu-1.*": StandardSchema<1>
  readonly "eu-2.up": StandardSchema<2>
  readonly "us-1.up": StandardSchema<3>
  readonly "*.up": StandardSchema<4>
}>
// A segment that begins with something known may be any that begins so.
is<ReceivedPayload<Machines, `eu-${string}.up`>, 1 | 2 | 4>(true)
is<TopicOf<Machines, `eu-${string}.up`>, `eu-${string}.up`>(true)
is<ReceivedPayload<Machines, `eu-1.${string}`>, 1 | 4>(true)
is<ReceivedPayload<Machines, `${string}-1.up`>, 1 | 3 | 4>(true)
is<ReceivedPayload<Machines, string>, 1 | 2 | 3 | 4>(true)
is<
  PublishPayload<
    Topics<{ readonly "a.*": StandardSchema<string>; readonly "*.b": StandardSchema<"x"> }>,
    "a.b"
  >,
  "x"
>(true)

// @ts-expect-error: no Standard Schema
defineTopics({ a: { parse: (value: unknown) => value } })

export const schemas: TopicSchemas = topics.schemas
