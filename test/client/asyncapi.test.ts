/** Typed topics as an AsyncAPI document: AsyncAPI's own parser takes it, and what stands in it is so. */
import { Socket } from "node:net"
import { Parser } from "@asyncapi/parser"
import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
import * as v from "valibot"
import { vi } from "vitest"
import { z } from "zod"
import { NoJsonSchema, toAsyncApi } from "../../src/client/asyncapi.ts"
import { defineTopics, type StandardSchema } from "../../src/client/topics.ts"

const info = { title: "Orders", version: "1.2.0" }

/** The errors that AsyncAPI's parser finds. The document is whole: nothing is fetched. */
const check = async (document: unknown) => {
  const connect = vi.spyOn(Socket.prototype, "connect").mockImplementation(() => {
    throw new Error("the parser reached for the network")
  })
  const fetch = vi.spyOn(globalThis, "fetch")
  try {
    const { diagnostics, document: parsed } = await new Parser().parse(JSON.stringify(document))
    expect(connect).not.toHaveBeenCalled()
    expect(fetch).not.toHaveBeenCalled()
    return {
      parsed,
      errors: diagnostics.filter(({ severity }) => severity === 0).map(({ message }) => message)
    }
  } finally {
    connect.mockRestore()
    fetch.mockRestore()
  }
}

const Category = z.object({
  name: z.string(),
  get children() {
    return z.array(Category)
  }
})

class Folder extends Schema.Class<Folder>("Folder")({
  name: Schema.String,
  folders: Schema.Array(Schema.suspend((): Schema.Codec<Folder, unknown> => Folder))
}) {}

const effect = <S extends Schema.Codec<unknown, unknown>>(schema: S) =>
  Schema.toStandardJSONSchemaV1(Schema.toStandardSchemaV1(schema))

/** As much of @valibot/to-json-schema as is needed here. */
const ofValibot = (schema: StandardSchema): object | undefined =>
  schema["~standard"].vendor === "valibot"
    ? {
        $schema: "http://json-schema.org/draft-07/schema#",
        type: "object",
        properties: { amount: { type: "number" } },
        required: ["amount"]
      }
    : undefined

const topics = defineTopics({
  "orders.*.created": z.object({ id: z.string(), note: z.string().default("none") }),
  "orders.*.paid": v.object({ amount: v.number() }),
  "orders.**": z.union([z.object({ id: z.string() }), z.null()]),
  "shop.category": Category,
  "shop.length": z.string().transform((text) => text.length),
  "shop.tree": z.object({ left: Category, right: z.array(Category) }),
  folders: effect(Folder),
  "clock.*.**": effect(Schema.Struct({ at: Schema.DateFromString })),
  "odd.{a}.b?#/~%": z.unknown(),
  "$dead.**": z.unknown()
})

const make = () =>
  toAsyncApi(topics, {
    ...info,
    description: "What happens to orders",
    url: "wss://hub.example:8443/live",
    jsonSchema: ofValibot
  })

describe("toAsyncApi", () => {
  it("makes a document that AsyncAPI's parser takes, of schemas of three libraries", async () => {
    const { errors, parsed } = await check(make())
    expect(errors).toEqual([])
    expect(parsed?.info().title()).toBe("Orders")
    expect(
      parsed
        ?.allServers()
        .all()
        .map((server) => server.url())
    ).toEqual(["wss://hub.example:8443/live"])
    expect(
      parsed
        ?.allChannels()
        .all()
        .map((channel) => channel.address())
    ).toEqual([
      "orders.{segment2}.created",
      "orders.{segment2}.paid",
      "orders.{segments2}",
      "shop.category",
      "shop.length",
      "shop.tree",
      "folders",
      "clock.{segment2}.{segments3}",
      "odd.{segment2}.{segment3}",
      "$dead.{segments2}"
    ])
    expect(parsed?.allOperations().filterBySend()).toHaveLength(9)
    expect(parsed?.allOperations().filterByReceive()).toHaveLength(10)
  }, 120_000)

  it("is refused by the parser when it is broken: the check can fail", async () => {
    const document = make()
    const lost = { $ref: "#/components/messages/lost" }
    const channels = { ...document.channels, lost: { address: "lost", messages: { event: lost } } }
    const broken = [
      { ...document, info: { title: "no version" } },
      { ...document, channels },
      { ...document, servers: { hub: { host: "hub.example" } } },
      {
        ...document,
        components: {
          ...document.components,
          schemas: { ...document.components.schemas, orders_any_paid: { type: "money" } }
        }
      }
    ]
    for (const one of broken) expect((await check(one)).errors).not.toEqual([])
  }, 120_000)

  it("describes the payload as it goes over the wire: what the schema takes", () => {
    const { schemas } = make().components
    expect(schemas["shop_length"]).toEqual({ type: "string" })
    expect(schemas["clock_any_all"]).toMatchObject({ properties: { at: { type: "string" } } })
    expect(schemas["orders_any_created"]).toMatchObject({ required: ["id"] })
    expect(schemas["orders_any_paid"]).toEqual({
      type: "object",
      properties: { amount: { type: "number" } },
      required: ["amount"]
    })
  })

  it("keeps references of schemas within their own", () => {
    const { schemas } = make().components
    expect(schemas["shop_category"]).toMatchObject({
      properties: { children: { items: { $ref: "#/components/schemas/shop_category" } } }
    })
    const references = (value: unknown): ReadonlyArray<unknown> =>
      typeof value === "object" && value !== null
        ? Object.entries(value).flatMap(([key, inner]) => (key === "$ref" ? [inner] : references(inner)))
        : []
    for (const name of ["shop_category", "shop_tree", "folders"]) {
      const found = references(schemas[name])
      expect(found).not.toEqual([])
      for (const reference of found)
        expect(reference).toMatch(new RegExp(`^#/components/schemas/${name}(/|$)`))
    }
  })

  it("leaves values and names alone that look like references", () => {
    const made = {
      properties: {
        $ref: { type: "string" },
        $schema: { type: "string" },
        enum: { $ref: "#/definitions/a" }
      },
      definitions: { a: {} },
      enum: [{ $ref: "#/definitions/a" }],
      default: { $ref: "#", $schema: "x" }
    }
    const { components } = toAsyncApi(defineTopics({ a: z.unknown() }), { ...info, jsonSchema: () => made })
    expect(components.schemas["a"]).toEqual({
      ...made,
      properties: { ...made.properties, enum: { $ref: "#/components/schemas/a/definitions/a" } }
    })
  })

  it("has parameters for wildcards, and for what means something in an address", () => {
    const { channels } = make()
    expect(Object.keys(channels["clock_any_all"]?.parameters ?? {})).toEqual(["segment2", "segments3"])
    const odd = Object.values(channels).find((channel) => channel["x-event-hub-pattern"].startsWith("odd"))
    expect(odd?.parameters).toMatchObject({ segment2: { enum: ["{a}"] }, segment3: { enum: ["b?#/~%"] } })
    expect(channels["folders"]).not.toHaveProperty("parameters")
  })

  it("has every pattern, in its order, under a name of its own", () => {
    const schema = z.unknown()
    const names = { "a.b": schema, a_b: schema, "a/b": schema, "a.*": schema, "a.any": schema }
    const { channels } = toAsyncApi(
      defineTopics({ "a.any": schema, "a.b": schema, a_b: schema, "a/b": schema, "a.*": schema }),
      info
    )
    expect(Object.keys(channels)).toEqual(["a_any", "a_b", "a_b_2", "a_b_3", "a_any_2"])
    expect(new Set(Object.values(channels).map((channel) => channel["x-event-hub-pattern"]))).toEqual(
      new Set(Object.keys(names))
    )
  })

  it("lets clients publish and subscribe, but not publish to the hub's own topics", () => {
    expect(
      Object.keys(toAsyncApi(defineTopics({ a: z.unknown(), "$dead.**": z.unknown() }), info).operations)
    ).toEqual(["publish_a", "subscribe_a", "subscribe__dead_all"])
  })

  it("has a server only where there is an address, and only one of a hub", () => {
    expect(toAsyncApi(topics, { ...info, jsonSchema: ofValibot })).not.toHaveProperty("servers")
    for (const url of ["https://hub.example", "hub.example", ""]) {
      expect(() => toAsyncApi(topics, { ...info, url, jsonSchema: ofValibot })).toThrow(TypeError)
    }
    const { servers } = toAsyncApi(topics, { ...info, url: "ws://127.0.0.1:8090", jsonSchema: ofValibot })
    expect(servers?.hub).toMatchObject({ protocol: "ws", host: "127.0.0.1:8090", pathname: "/" })
    expect(servers?.hub.description).toContain("event-hub.v1")
  })

  it("says which topic has no JSON Schema, and what to do", () => {
    const failure = (schemas: Parameters<typeof defineTopics>[0], options = {}): NoJsonSchema => {
      try {
        toAsyncApi(defineTopics(schemas), { ...info, ...options })
      } catch (error) {
        if (error instanceof NoJsonSchema) return error
        throw error
      }
      throw new Error("it made a document")
    }
    const valibot = failure({ "a.b": z.string(), "orders.*": v.string() })
    expect(valibot.pattern).toBe("orders.*")
    expect(valibot.message).toContain("'orders.*'")
    expect(valibot.message).toContain("@valibot/to-json-schema")
    expect(failure({ a: Schema.toStandardSchemaV1(Schema.String) }).message).toContain(
      "toStandardJSONSchemaV1"
    )
    const date = failure({ a: z.date() })
    expect(date.message).toContain("Date cannot be represented")
    expect(date.cause).toBeInstanceOf(Error)
    const thrown = failure(
      { a: z.string() },
      {
        jsonSchema: () =>
          Object.fromEntries(
            [1].map(() => {
              throw new Error("not this one")
            })
          )
      }
    )
    expect(thrown.pattern).toBe("a")
    expect(failure({ a: z.string() }, { jsonSchema: () => [] }).message).toContain("no object")
  })

  it("is plain JSON", () => {
    const document = make()
    expect(JSON.parse(JSON.stringify(document))).toEqual(document)
  })
})
