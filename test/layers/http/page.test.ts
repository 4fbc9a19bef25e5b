/** The page and its files: what a browser is told about them, and that nothing else is served. */
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { ask, askRaw } from "./ops.ts"

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub()
})

afterAll(() => hub.stop())

const policyOf = (header: unknown): Readonly<Record<string, string>> =>
  Object.fromEntries(
    String(header)
      .split("; ")
      .map((directive) => [directive.split(" ")[0] ?? "", directive.split(" ").slice(1).join(" ")])
  )

it("the page may load what is served here and connect to the gateway, and nothing else", async () => {
  const { headers, status, text, type } = await ask(hub, "/")
  expect([status, type]).toEqual([200, "text/html; charset=utf-8"])
  const { port } = new URL(hub.ws)
  expect(policyOf(headers.get("content-security-policy"))).toEqual({
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": `'self' ws://127.0.0.1:${port} wss://127.0.0.1:${port}`,
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'"
  })
  expect(headers.get("referrer-policy")).toBe("no-referrer")
  expect(text).toContain(`<meta name="event-hub-ws-port" content="${port}" />`)
  expect(text).not.toMatch(/<script(?![^>]* src=)|<style|\son\w+=|style=/)
})

it.each(["/", "/assets/dashboard/style.css", "/healthz", "/topics", "/metrics", "/nowhere"])(
  "%s is taken for what it says it is, and kept by nobody",
  async (path) => {
    const { headers } = await ask(hub, path)
    expect(headers.get("x-content-type-options")).toBe("nosniff")
    expect(headers.get("cache-control")).toBe("no-store")
  }
)

it.each([
  ["hub.example.com:8082", "ws://hub.example.com:"],
  // A policy cannot name an IPv6 address.
  ["[::1]:8082", "'self' ws: wss:"],
  ["evil;script-src-elem", undefined],
  ["a,b", undefined],
  ["*", undefined],
  ["'unsafe-inline'", undefined]
])("the policy names the host that was asked for, if it is one: %s", async (host, expected) => {
  const { headers, status } = await askRaw(hub, "/", { host })
  expect(status).toBe(200)
  const policy = policyOf(headers["content-security-policy"])
  if (expected === undefined) expect(policy["connect-src"]).toBe("'self'")
  else expect(policy["connect-src"]).toContain(expected)
  expect(Object.keys(policy)).toHaveLength(8)
})

describe("the files", () => {
  const source = fileURLToPath(new URL("../../../src/", import.meta.url))
  const files = ["dashboard", "client", "protocol"].flatMap((folder) =>
    readdirSync(`${source}/${folder}`, { encoding: "utf8", recursive: true }).map(
      (name) => `${folder}/${name}`
    )
  )

  it.each(files.filter((file) => file.endsWith(".ts")))("%s comes as JavaScript", async (file) => {
    const { status, text, type } = await ask(hub, `/assets/${file}`)
    expect([status, type]).toEqual([200, "text/javascript; charset=utf-8"])
    expect(text).not.toMatch(/^(?:export )?(?:interface|type) /m)
    // It runs in a module, where types would be a syntax error.
    const code = text
      .replaceAll(/^(?:import|export \{|export \*)[\s\S]*?from ".*";?$/gm, "")
      .replaceAll(/^export /gm, "")
    expect(() => new Function(code)).not.toThrow()
  })

  it("the style is CSS", async () => {
    const { status, type } = await ask(hub, "/assets/dashboard/style.css")
    expect([status, type]).toEqual([200, "text/css; charset=utf-8"])
  })

  it.each([
    "/assets/../package.json",
    "/assets/dashboard/../../package.json",
    "/assets/dashboard/../main.ts",
    "/assets/..%2f..%2fpackage.json",
    "/assets/%2e%2e/%2e%2e/package.json",
    "/assets/dashboard/%2e%2e/main.ts",
    "/assets/dashboard/..%5cmain.ts",
    "/assets//etc/passwd",
    "/assets/dashboard/main.ts%00.css",
    "/assets/hub/serve.ts",
    "/assets/layers/http/OpsServer.ts",
    "/assets/main.ts",
    "/assets/dashboard/nothing.ts",
    "/assets/dashboard/views/nothing.ts",
    "/assets/dashboard/views/../main.ts",
    "/assets/dashboard/views/%2e%2e/main.ts",
    "/assets/client/views/topics.ts",
    "/assets/dashboard",
    "/../../package.json"
  ])("there are no others: %s", async (path) => {
    expect(await askRaw(hub, path)).toMatchObject({ status: 404 })
  })
})
