/**
 * What the generated description does not know of requests with a body: that some may come without one, and that the
 * server refuses bodies that are too long or of another type, whatever the endpoint.
 */

type Json = unknown
type Fields = Readonly<Record<string, Json>>

const isFields = (value: Json): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const fieldsOf = (value: Json): Fields => (isFields(value) ? value : {})

const problem = (description: string): Fields => ({
  description,
  content: {
    "application/problem+json": {
      schema: {
        type: "object",
        properties: {
          type: { type: "string" },
          title: { type: "string" },
          status: { type: "integer" },
          detail: { type: "string" }
        },
        required: ["type", "title", "status", "detail"]
      }
    }
  }
})

const refusals: Fields = {
  "413": problem("Content Too Large"),
  "415": problem("Unsupported Media Type")
}

/** A schema that takes null, on the top or as one of several. */
const takesNull = (schema: Json): boolean => {
  const { anyOf, type } = fieldsOf(schema)
  return type === "null" || (Array.isArray(anyOf) && anyOf.some(takesNull))
}

/** Where null is a body, none is as good. */
const isOptional = (body: Fields): boolean =>
  Object.values(fieldsOf(body["content"])).some((media) => takesNull(fieldsOf(media)["schema"]))

const describeBody = (operation: Json): Json => {
  if (!isFields(operation) || !isFields(operation["requestBody"])) return operation
  const body = operation["requestBody"]
  return {
    ...operation,
    requestBody: isOptional(body) ? { ...body, required: false } : body,
    responses: { ...refusals, ...fieldsOf(operation["responses"]) }
  }
}

const mapFields = (value: Json, f: (value: Json) => Json): Fields =>
  Object.fromEntries(Object.entries(fieldsOf(value)).map(([name, one]) => [name, f(one)]))

export const describeBodies = (spec: Fields): Record<string, unknown> => ({
  ...spec,
  paths: mapFields(spec["paths"], (path) => mapFields(path, describeBody))
})
