/** The ops HTTP API of a hub of its own: requests as its description has them, and as it has not. */
import { Agent, request as httpRequest } from "node:http"
import { startHub } from "../support/HubProcess.ts"
import { everything, tokenFor } from "../support/tokens.ts"
import { Branches, must, type Target } from "./Target.ts"

type Fields = Readonly<Record<string, unknown>>

const fieldsOf = (value: unknown): Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {}

const itemsOf = (value: unknown): ReadonlyArray<unknown> => (Array.isArray(value) ? value : [])

/** Values that fit a schema, or come near to it. */
const exampleOf = (schema: unknown, schemas: Fields, depth = 0): unknown => {
  const { $ref, anyOf, enum: values, items, properties, type } = fieldsOf(schema)
  if (depth > 5) return null
  if (typeof $ref === "string") return exampleOf(schemas[$ref.split("/").at(-1) ?? ""], schemas, depth + 1)
  if (Array.isArray(anyOf)) return exampleOf(anyOf[0], schemas, depth + 1)
  if (Array.isArray(values)) return values[0]
  if (type === "object") {
    return Object.fromEntries(
      Object.entries(fieldsOf(properties)).map(([name, one]) => [
        name,
        name === "topic" || name === "pattern" ? "a.b" : exampleOf(one, schemas, depth + 1)
      ])
    )
  }
  if (type === "array") return [exampleOf(items, schemas, depth + 1)]
  if (type === "integer" || type === "number") return 1
  return type === "boolean" ? true : "a"
}

/** What stands for a value in a request. What is too deep to be written is left out. */
const textOf = (value: unknown): string => {
  if (typeof value === "string") return value
  try {
    return JSON.stringify(value) ?? ""
  } catch {
    return ""
  }
}

interface Asked {
  readonly method: string
  readonly path: string
  readonly query: Fields
  readonly type: string | undefined
  readonly body: string | undefined
}

/** A request for each operation, as JSON: it is what is mutated. */
const requestsOf = (description: unknown): ReadonlyArray<string> => {
  const schemas = fieldsOf(fieldsOf(fieldsOf(description)["components"])["schemas"])
  return Object.entries(fieldsOf(fieldsOf(description)["paths"])).flatMap(([path, operations]) =>
    Object.entries(fieldsOf(operations)).map(([method, operation]) => {
      const { parameters, requestBody } = fieldsOf(operation)
      const named = itemsOf(parameters).map(fieldsOf)
      const [media] = Object.entries(fieldsOf(fieldsOf(requestBody)["content"]))
      const asked: Asked = {
        method: method.toUpperCase(),
        path: path.replaceAll(/\{[^}]*\}/g, "a"),
        query: Object.fromEntries(
          named
            .filter((one) => one["in"] === "query")
            .map(({ name, schema }) => [String(name), exampleOf(schema, schemas)])
        ),
        type: media?.[0],
        body:
          media === undefined ? undefined : JSON.stringify(exampleOf(fieldsOf(media[1])["schema"], schemas))
      }
      return JSON.stringify(asked)
    })
  )
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly text: string
  readonly sniffed: boolean
}

const boundMs = 20_000

export const httpTarget = async (): Promise<Target> => {
  const hub = await startHub({ LIMIT_AUTH_DELAY_MS: "0" })
  const token = await tokenFor({
    expiresIn: 7_200,
    scopes: [...everything, "admin:**", "admin:$dead.**", "subscribe:$hub.**"]
  })
  const agent = new Agent({ keepAlive: true, maxSockets: 4 })
  const { hostname, port } = new URL(hub.ops)

  const ask = (method: string, path: string, type?: string, body?: string): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const headers = {
        authorization: `Bearer ${token}`,
        ...(type === undefined ? {} : { "content-type": type }),
        ...(body === undefined ? {} : { "content-length": String(Buffer.byteLength(body)) })
      }
      const request = httpRequest(
        { agent, hostname, port, method, path, headers, timeout: boundMs },
        (response) => {
          const chunks: Array<Buffer> = []
          response.on("data", (chunk: Buffer) => chunks.push(chunk))
          response.on("error", reject)
          response.on("end", () =>
            resolve({
              status: response.statusCode ?? 0,
              type: response.headers["content-type"] ?? "",
              text: Buffer.concat(chunks).toString(),
              sniffed: response.headers["x-content-type-options"] !== "nosniff"
            })
          )
        }
      )
      request.on("timeout", () => request.destroy(new Error(`no answer within ${boundMs} ms`)))
      request.on("error", reject)
      request.end(body)
    })

  const description = await ask("GET", "/openapi.json")
  const seeds = requestsOf(JSON.parse(description.text))
  must(seeds.length > 20, "the description has operations")

  const branches = new Branches(["200", "400", "404", "405", "415"], "sent")
  const check = async (input: string): Promise<void> => {
    branches.input()
    let asked: Fields
    try {
      asked = fieldsOf(JSON.parse(input))
    } catch {
      return
    }
    const { method, type } = asked
    const verb = typeof method === "string" ? method : ""
    if (!/^(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE)$/.test(verb)) return
    const parameters = Object.entries(fieldsOf(asked["query"])).map(
      ([name, value]) =>
        `${encodeURIComponent(name.toWellFormed())}=${encodeURIComponent(textOf(value).toWellFormed())}`
    )
    const written = textOf(asked["path"])
    // What no client can write is no request.
    const place = (written.startsWith("/") ? written : `/${written}`).replaceAll(/[^!-~]/g, (unit) =>
      encodeURIComponent(unit.toWellFormed())
    )
    const target = parameters.length === 0 ? place : `${place}?${parameters.join("&")}`
    if (target.length > 14_000) return
    const media = typeof type === "string" && /^[\w/+.;= -]+$/.test(type) ? type : undefined
    const text = verb === "GET" || verb === "HEAD" ? undefined : textOf(asked["body"])
    const answer = await ask(verb, target, media, text)
    branches.reach("sent")
    branches.reach(String(answer.status))
    must(
      answer.status < 500 || answer.status === 503,
      `the answer is ${answer.status}: ${answer.text.slice(0, 200)}`
    )
    must(!answer.sniffed, "the answer is taken for what it says it is")
    if (verb === "HEAD") return
    const isProblem = answer.type.startsWith("application/problem+json")
    must(answer.status < 400 || isProblem, `${answer.status} says what is wrong, as ${answer.type}`)
    if (!/^application\/(?:problem\+)?json/.test(answer.type)) return
    const value: unknown = JSON.parse(answer.text)
    if (isProblem) must(fieldsOf(value)["status"] === answer.status, "a problem says its status")
  }

  return {
    name: "http",
    seeds,
    isJson: true,
    words: [
      "a",
      "a.b",
      "a.**",
      "g",
      "topic",
      "pattern",
      "limit",
      "after",
      "from",
      "to",
      "dryRun",
      "reason",
      "confirm"
    ],
    check,
    branches,
    pid: hub.process.pid,
    close: async () => {
      const health = await ask("GET", "/healthz")
      agent.destroy()
      const exit = await hub.stop()
      must(
        health.status === 200 && exit.code === 0,
        `the hub lived to the end: ${health.status}, ${exit.code}`
      )
    }
  }
}
