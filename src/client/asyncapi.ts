/**
 * Typed topics as an AsyncAPI 3 document: what clients of a hub send and receive, for people and generators.
 *
 * An entry of its own, `event-hub/client/asyncapi`, so that clients do not carry it. The document is written from
 * a client's side: `send` publishes, `receive` subscribes. A payload is described as it goes over the wire, which
 * is what its schema takes, in both directions; what a receiver's schema then makes of it is no one else's matter.
 */
import { SUBPROTOCOL } from "../protocol/Codes.ts"
import type { AnyTopics, StandardSchema } from "./topics.ts"

/** A JSON Schema, or a part of one. */
export interface JsonSchema {
  readonly [keyword: string]: unknown
}

export interface AsyncApiOptions {
  readonly title: string
  /** The version of your events, not of the hub. */
  readonly version: string
  readonly description?: string
  /** Where the hub is: `ws://…` or `wss://…`. */
  readonly url?: string
  /**
   * Makes a JSON Schema (draft-07) of what a schema takes. It is asked first, for every topic; `undefined` leaves the
   * topic to its schema, which has to implement Standard JSON Schema.
   */
  readonly jsonSchema?: (schema: StandardSchema, pattern: string) => object | undefined
}

export interface Reference {
  readonly $ref: string
}

export interface AsyncApiServer {
  readonly host: string
  readonly pathname: string
  readonly protocol: "ws" | "wss"
  readonly description: string
  readonly security: ReadonlyArray<Reference>
}

export interface AsyncApiChannel {
  readonly address: string
  readonly title: string
  readonly description: string
  readonly parameters?: Readonly<
    Record<string, { readonly description: string; readonly enum?: ReadonlyArray<string> }>
  >
  readonly messages: Readonly<Record<string, Reference>>
  readonly bindings: Reference
  /** The pattern as it was defined. */
  readonly "x-event-hub-pattern": string
}

export interface AsyncApiOperation {
  readonly action: "send" | "receive"
  readonly title: string
  readonly channel: Reference
  readonly messages: ReadonlyArray<Reference>
}

/** Plain JSON: `JSON.stringify` it. */
export interface AsyncApiDocument {
  readonly asyncapi: "3.0.0"
  readonly info: { readonly title: string; readonly version: string; readonly description?: string }
  readonly defaultContentType: "application/json"
  readonly servers?: { readonly hub: AsyncApiServer }
  readonly channels: Readonly<Record<string, AsyncApiChannel>>
  readonly operations: Readonly<Record<string, AsyncApiOperation>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly messages: Readonly<Record<string, object>>
    readonly securitySchemes: Readonly<Record<string, object>>
    readonly channelBindings: Readonly<Record<string, object>>
  }
}

/** There is no JSON Schema for the payloads of a topic; the message says what to do. */
export class NoJsonSchema extends Error {
  override readonly name = "NoJsonSchema"
  readonly pattern: string

  constructor(pattern: string, reason: string, cause?: unknown) {
    super(`no JSON Schema for the payloads of '${pattern}': ${reason}`, { cause })
    this.pattern = pattern
  }
}

const refTo = (...path: ReadonlyArray<string>): Reference => ({ $ref: `#/${path.join("/")}` })

// --- JSON Schema ---------------------------------------------------------------------------------------------

type Convert = (options: { readonly target: "draft-07" }) => unknown

const isObject = (value: unknown): value is JsonSchema =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isConvert = (value: unknown): value is Convert => typeof value === "function"

/** What Standard JSON Schema (https://standardschema.dev/json-schema) adds to a schema. */
const converterOf = (schema: StandardSchema): Convert | undefined => {
  const standard: object = schema["~standard"]
  const converter = "jsonSchema" in standard ? standard.jsonSchema : undefined
  const input = isObject(converter) ? converter["input"] : undefined
  return isConvert(input) ? input : undefined
}

const adviceFor = (vendor: string): string => {
  switch (vendor) {
    case "effect":
      return "pass the schema through Schema.toStandardJSONSchemaV1, too"
    case "valibot":
      return "give the option jsonSchema, as (schema) => toJsonSchema(schema) of @valibot/to-json-schema"
    default:
      return "give the option jsonSchema, a function that makes one"
  }
}

const jsonSchemaOf = (
  pattern: string,
  schema: StandardSchema,
  own: AsyncApiOptions["jsonSchema"]
): JsonSchema => {
  const { vendor } = schema["~standard"]
  let made: unknown
  try {
    made = own?.(schema, pattern)
    if (made === undefined) {
      const convert = converterOf(schema)
      if (convert === undefined)
        throw new NoJsonSchema(pattern, `'${vendor}' made none; ${adviceFor(vendor)}`)
      made = convert({ target: "draft-07" })
    }
  } catch (error) {
    if (error instanceof NoJsonSchema) throw error
    const reason = error instanceof Error ? error.message : String(error)
    throw new NoJsonSchema(
      pattern,
      `${reason}; describe what goes over the wire by types of JSON, or give the option jsonSchema`,
      error
    )
  }
  if (!isObject(made)) throw new NoJsonSchema(pattern, "what was made is no object")
  return made
}

/** Under these stand values, not schemas: nothing in them refers to anything. */
const valueKeywords = new Set(["const", "default", "enum", "examples"])

/** Under these stand schemas by a name, which may be that of a keyword. */
const namedKeywords = new Set(["properties", "patternProperties", "definitions", "$defs", "dependencies"])

/**
 * The schema as a part of something larger: what it says of itself as a whole goes, and its references, which began
 * at its own root, begin at `root`.
 */
const embedded = (value: unknown, root: string): unknown => {
  if (Array.isArray(value)) return value.map((one) => embedded(one, root))
  if (!isObject(value)) return value
  const entries = Object.entries(value).filter(([keyword]) => keyword !== "$schema")
  return Object.fromEntries(
    entries.map(([keyword, inner]) => {
      if (keyword === "$ref" && typeof inner === "string" && inner.startsWith("#")) {
        return [keyword, `${root}${inner.slice(1)}`]
      }
      if (valueKeywords.has(keyword)) return [keyword, inner]
      if (namedKeywords.has(keyword) && isObject(inner)) {
        const named = Object.entries(inner).map(([name, one]) => [name, embedded(one, root)])
        return [keyword, Object.fromEntries(named)]
      }
      return [keyword, embedded(inner, root)]
    })
  )
}

// --- channels ------------------------------------------------------------------------------------------------

const addressOf = (pattern: string): Pick<AsyncApiChannel, "address" | "parameters"> => {
  const parameters: Record<string, { readonly description: string; readonly enum?: ReadonlyArray<string> }> =
    {}
  const parts = pattern.split(".").map((segment, i) => {
    const name = segment === "**" ? `segments${i + 1}` : `segment${i + 1}`
    if (segment === "**") {
      parameters[name] = {
        description: "Any number of segments, joined by dots; without one, the dot beside it goes, too."
      }
    } else if (segment === "*") {
      parameters[name] = { description: "Exactly one segment." }
    } else if (/[{}?#]/.test(segment)) {
      // They mean something in an address.
      parameters[name] = { description: "Always the same.", enum: [segment] }
    } else {
      return segment
    }
    return `{${name}}`
  })
  const address = parts.join(".")
  return Object.keys(parameters).length === 0 ? { address } : { address, parameters }
}

/** `orders.*.created` is `orders_any_created`: a name that generators can make code of. */
const idOf = (pattern: string, taken: ReadonlyArray<string>): string => {
  const words = pattern
    .split(".")
    .map((segment) => (segment === "**" ? "all" : segment === "*" ? "any" : segment.replaceAll(/\W/g, "_")))
  const id = words.join("_")
  for (let n = 1; ; n++) {
    const numbered = n === 1 ? id : `${id}_${n}`
    if (!taken.includes(numbered)) return numbered
  }
}

const serverOf = (url: string): AsyncApiServer => {
  const { host, pathname, protocol } = new URL(url)
  if (protocol !== "ws:" && protocol !== "wss:") {
    throw new TypeError(`not the address of a hub: '${url}'; it begins with ws:// or wss://`)
  }
  return {
    host,
    pathname,
    protocol: protocol === "ws:" ? "ws" : "wss",
    description: `An event hub, over the WebSocket subprotocol \`${SUBPROTOCOL}\`.`,
    security: [refTo("components", "securitySchemes", "token")]
  }
}

/**
 * Describes typed topics. Throws `NoJsonSchema` for a schema that makes no JSON Schema, and a TypeError for a `url`
 * that is none of a hub.
 *
 * A channel is a pattern. Its address has a parameter for each wildcard, so `orders.*.created` becomes
 * `orders.{segment2}.created`, and `clock.**` becomes `clock.{segments2}`. Of several channels that fit a topic the
 * first one counts, as in `defineTopics`. Nobody publishes to the hub's own topics: they have no `send`.
 */
export const toAsyncApi = (
  topics: AnyTopics,
  { title, version, description, url, jsonSchema }: AsyncApiOptions
): AsyncApiDocument => {
  const channels: Record<string, AsyncApiChannel> = {}
  const operations: Record<string, AsyncApiOperation> = {}
  const schemas: Record<string, JsonSchema> = {}
  const messages: Record<string, object> = {}
  for (const [pattern, schema] of Object.entries(topics.schemas)) {
    const id = idOf(pattern, Object.keys(channels))
    const root = refTo("components", "schemas", id)
    schemas[id] = Object.fromEntries(
      Object.entries(embedded(jsonSchemaOf(pattern, schema, jsonSchema), root.$ref) ?? {})
    )
    messages[id] = {
      name: id,
      title: pattern,
      description: "The `payload` of a PUBLISH, and of the event in an EVENT.",
      contentType: "application/json",
      payload: root
    }
    channels[id] = {
      ...addressOf(pattern),
      title: pattern,
      description: `Topics that match \`${pattern}\`.`,
      messages: { event: refTo("components", "messages", id) },
      bindings: refTo("components", "channelBindings", "hub"),
      "x-event-hub-pattern": pattern
    }
    const channel = refTo("channels", id)
    const operation = { channel, messages: [refTo("channels", id, "messages", "event")] }
    if (!pattern.startsWith("$")) {
      operations[`publish_${id}`] = { action: "send", title: `Publish to ${pattern}`, ...operation }
    }
    operations[`subscribe_${id}`] = { action: "receive", title: `Subscribe to ${pattern}`, ...operation }
  }
  return {
    asyncapi: "3.0.0",
    info: { title, version, ...(description !== undefined && { description }) },
    defaultContentType: "application/json",
    ...(url !== undefined && { servers: { hub: serverOf(url) } }),
    channels,
    operations,
    components: {
      schemas,
      messages,
      securitySchemes: {
        token: {
          type: "http",
          scheme: "bearer",
          bearerFormat: "JWT",
          description: "Sent as the `token` of AUTH, the first message of a connection; not as a header."
        }
      },
      channelBindings: {
        hub: {
          ws: {
            method: "GET",
            headers: {
              type: "object",
              properties: { "Sec-WebSocket-Protocol": { type: "string", const: SUBPROTOCOL } }
            },
            bindingVersion: "0.1.0"
          }
        }
      }
    }
  }
}
