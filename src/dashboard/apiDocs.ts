/**
 * The page at /docs: the hub's description of its own API, to read and to try.
 *
 * All of it comes from /openapi.json. Nothing is loaded from elsewhere, the token stays in the page, and whatever a
 * description or an answer holds is shown as text.
 */
import { byId, h, put } from "./dom.ts"

type Json = unknown
type Fields = Readonly<Record<string, Json>>

const isFields = (value: Json): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const fields = (value: Json): Fields => (isFields(value) ? value : {})
const list = (value: Json): ReadonlyArray<Json> => (Array.isArray(value) ? value : [])
const text = (value: Json): string => (typeof value === "string" ? value : "")

// --- shapes --------------------------------------------------------------------------------------------------

/** What a schema demands beyond its type. */
const bounds = (schema: Fields): string =>
  ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"]
    .filter((name) => schema[name] !== undefined)
    .map((name) => `${name} ${String(schema[name])}`)
    .join(", ")

const comment = (schema: Fields): string => {
  const parts = [
    text(schema["description"]),
    bounds(schema),
    ...list(schema["allOf"]).map((one) => bounds(fields(one)))
  ]
  const said = parts.filter((part) => part !== "").join("; ")
  return said === "" ? "" : ` // ${said}`
}

/** A schema as a TypeScript type, which most readers know. */
const shape = (value: Json, indent = ""): string => {
  const schema = fields(value)
  const { $ref, anyOf, items, oneOf, properties, type } = schema
  if (typeof $ref === "string") return $ref.split("/").at(-1) ?? $ref
  if (Array.isArray(schema["enum"])) return schema["enum"].map((one) => JSON.stringify(one)).join(" | ")
  if (schema["const"] !== undefined) return JSON.stringify(schema["const"])
  const several = list(anyOf ?? oneOf)
  if (several.length > 0) return [...new Set(several.map((one) => shape(one, indent)))].join(" | ")
  if (Array.isArray(type)) return type.join(" | ")
  if (type === "array") {
    const item = shape(items, indent)
    return item.includes("|") ? `Array<${item}>` : `${item}[]`
  }
  if (type !== "object") return typeof type === "string" ? type : "any JSON"
  const required = new Set(list(schema["required"]))
  const inner = `${indent}  `
  const lines = Object.entries(fields(properties)).map(
    ([name, one]) =>
      `${inner}${name}${required.has(name) ? "" : "?"}: ${shape(one, inner)}${comment(fields(one))}`
  )
  const rest = schema["additionalProperties"]
  if (isFields(rest)) lines.push(`${inner}[name]: ${shape(rest, inner)}`)
  return lines.length === 0 ? "{}" : `{\n${lines.join("\n")}\n${indent}}`
}

// --- one endpoint --------------------------------------------------------------------------------------------

interface Operation {
  readonly method: string
  readonly path: string
  readonly what: Fields
}

const isSecured = ({ what }: Operation): boolean => list(what["security"]).length > 0

interface Parameter {
  readonly name: string
  readonly place: string
  readonly isRequired: boolean
  readonly schema: Fields
  readonly description: string
}

const parametersOf = ({ what }: Operation): ReadonlyArray<Parameter> =>
  list(what["parameters"]).map((one) => {
    const { description, in: place, name, required, schema } = fields(one)
    return {
      name: text(name),
      place: text(place),
      isRequired: required === true,
      schema: fields(schema),
      description: text(description) || text(fields(schema)["description"])
    }
  })

const table = (caption: string, names: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>) =>
  rows.length > 0 &&
  h(
    "table",
    {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, cell)))))
  )

/** Media types with their shapes, of a body or of an answer. */
const contentOf = (value: Json) =>
  Object.entries(fields(fields(value)["content"])).map(([type, media]) => ({
    type,
    shape: shape(fields(media)["schema"])
  }))

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

const token = () => {
  const input = byId("token")
  return input instanceof HTMLInputElement ? input.value.trim() : ""
}

/** Asks the hub, and shows as a command what is asked. */
const trial = (operation: Operation): HTMLElement => {
  const parameters = parametersOf(operation)
  const controls = parameters.map((parameter) => ({ parameter, input: h("input", { autocomplete: "off" }) }))
  const [type] = contentOf(operation.what["requestBody"]).map((content) => content.type)
  const body = h("textarea", { spellcheck: "false" })
  const command = h("pre", {})
  const answer = h("pre", { role: "status", hidden: true })

  const request = (): readonly [path: string, init: RequestInit] => {
    let path = operation.path
    const query = new URLSearchParams()
    for (const { input, parameter } of controls) {
      if (parameter.place === "path")
        path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value))
      else if (input.value !== "") query.append(parameter.name, input.value)
    }
    const headers: Record<string, string> = token() === "" ? {} : { authorization: `Bearer ${token()}` }
    const sent = type === undefined || body.value === "" ? undefined : body.value
    if (sent !== undefined && type !== undefined) headers["content-type"] = type
    return [
      `${path}${query.size === 0 ? "" : `?${String(query)}`}`,
      { method: operation.method.toUpperCase(), headers, ...(sent === undefined ? {} : { body: sent }) }
    ]
  }

  const showCommand = (): void => {
    const [path, { body: sent, method = "GET" }] = request()
    const words = ["curl", ...(method === "GET" ? [] : ["-X", method])]
    if (isSecured(operation)) words.push("-H", '"Authorization: Bearer $HUB_TOKEN"')
    if (typeof sent === "string" && type !== undefined) {
      words.push("-H", quoted(`Content-Type: ${type}`), "-d", quoted(sent))
    }
    command.textContent = [...words, quoted(location.origin + path)].join(" ")
  }

  const send = async (): Promise<void> => {
    answer.hidden = false
    answer.textContent = "…"
    try {
      const response = await fetch(...request())
      const said = await response.text()
      const isJson = response.headers.get("content-type")?.includes("json") === true
      const shown = isJson && !said.includes("\n") ? JSON.stringify(JSON.parse(said), undefined, 2) : said
      answer.textContent = `${response.status} ${response.statusText}\n\n${shown.slice(0, 100_000)}`
    } catch (error) {
      answer.textContent = `No answer: ${String(error)}`
    }
  }

  const form = h(
    "form",
    {
      oninput: showCommand,
      onsubmit: (event) => {
        event.preventDefault()
        void send()
      }
    },
    ...controls.map(({ input, parameter }) =>
      h("label", {}, parameter.name, parameter.isRequired && " (required)", input)
    ),
    type !== undefined && h("label", {}, `Body, ${type}`, body),
    h("button", {}, "Send"),
    command,
    answer
  )
  showCommand()
  return form
}

const endpoint = (operation: Operation): HTMLElement => {
  const { method, path, what } = operation
  const body = fields(what["requestBody"])
  const description = text(what["description"])
  const details = h(
    "details",
    {},
    h(
      "summary",
      {},
      h("code", {}, `${method.toUpperCase()} ${path}`),
      " ",
      h("span", { class: "quiet" }, description)
    )
  )
  // Made when it is looked at: there are many, and most stay closed.
  const fill = (): void => {
    if (details.childElementCount > 1) return
    details.append(
      h("p", {}, isSecured(operation) ? "Takes a bearer token." : "For anybody."),
      table(
        "Parameters",
        ["name", "in", "type", "meaning"],
        parametersOf(operation).map(({ description, isRequired, name, place, schema }) => [
          isRequired ? `${name} (required)` : name,
          place,
          [shape(schema), bounds(schema)].filter((part) => part !== "").join("; "),
          description
        ])
      ) || "",
      ...contentOf(body).flatMap(({ shape, type }) => [
        h("p", {}, `Body, ${type}${body["required"] === true ? "" : ", may be left out"}`),
        h("pre", {}, shape)
      ]),
      table(
        "Answers",
        ["status", "meaning", "content"],
        Object.entries(fields(what["responses"])).map(([status, one]) => [
          status,
          text(fields(one)["description"]),
          contentOf(one)
            .map(({ shape, type }) => (type.includes("problem") ? type : `${type}: ${shape}`))
            .join("\n")
        ])
      ) || "",
      h("h3", {}, "Try it"),
      trial(operation)
    )
  }
  details.addEventListener("toggle", fill)
  return details
}

// --- the page ------------------------------------------------------------------------------------------------

const methods = ["get", "post", "put", "patch", "delete"]

const show = (spec: Fields): void => {
  const operations = Object.entries(fields(spec["paths"])).flatMap(([path, one]) =>
    methods.flatMap((method): ReadonlyArray<Operation> => {
      const what = fields(one)[method]
      return isFields(what) ? [{ method, path, what }] : []
    })
  )
  const shown = operations.map((operation) => ({
    tag: text(list(operation.what["tags"])[0]),
    words: `${operation.method} ${operation.path} ${text(operation.what["description"])}`.toLowerCase(),
    element: endpoint(operation)
  }))
  const sections = [...Map.groupBy(shown, ({ tag }) => tag)].map(([tag, some]) => ({
    some,
    element: h("section", {}, h("h2", {}, tag), ...some.map(({ element }) => element))
  }))
  const shapes = Object.entries(fields(fields(spec["components"])["schemas"])).map(([name, schema]) =>
    h("details", {}, h("summary", {}, h("code", {}, name)), h("pre", {}, shape(schema)))
  )
  put(
    byId("content"),
    sections.map(({ element }) => element),
    h("section", {}, h("h2", {}, "Shapes"), shapes)
  )

  const find = byId("find")
  const filter = (): void => {
    const wanted = find instanceof HTMLInputElement ? find.value.trim().toLowerCase() : ""
    let count = 0
    for (const { element, some } of sections) {
      for (const one of some) {
        one.element.hidden = !one.words.includes(wanted)
        if (!one.element.hidden) count++
      }
      element.hidden = some.every((one) => one.element.hidden)
    }
    byId("state").textContent = `${count} of ${shown.length} endpoints`
  }
  find.addEventListener("input", filter)
  byId("controls").addEventListener("submit", (event) => event.preventDefault())
  filter()
}

const load = async (): Promise<void> => {
  try {
    show(fields(await (await fetch("/openapi.json")).json()))
  } catch (error) {
    byId("state").textContent =
      `The description could not be loaded: ${String(error)}. Reload the page to try again.`
  }
}

void load()
