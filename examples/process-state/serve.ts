/**
 * Serves the page on loopback, and prints its link.
 *
 *     HUB_TOKEN=… npm run example examples/process-state/serve.ts
 *
 * HUB_URL is `ws://127.0.0.1:8090`, HUB_OPS_URL `http://127.0.0.1:8082` and PORT 8085 unless set; port 0 picks a free one.
 * The token needs `subscribe:process.state`, and nothing more: it goes to the browser, in the link's fragment.
 *
 * The page opens its WebSocket to the hub itself, as HUB_ORIGINS allows it. `/latest-by-key` it asks here: the ops server
 * has no CORS headers, so a page of another origin cannot read its answers. The request goes on with the page's own
 * token, so whoever finds this server can do nothing by it that they could not do themselves.
 */
import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"
import { WebSocket } from "ws"

const {
  HUB_OPS_URL = "http://127.0.0.1:8082",
  HUB_TOKEN: token,
  HUB_URL = "ws://127.0.0.1:8090",
  PORT = "8085"
} = process.env
if (!token) throw new Error("HUB_TOKEN is not set: take the token that the hub printed, or `npm run token`")

const hub = new URL(HUB_URL)

const pathOf = (name: string): string => fileURLToPath(new URL(`page/${name}`, import.meta.url))

const bundle = async (): Promise<string> => {
  const { outputFiles } = await build({
    entryPoints: [pathOf("main.ts")],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    conditions: ["event-hub-source"],
    write: false
  })
  return outputFiles.map(({ text }) => text).join("")
}

/** No policy can name an IPv6 address, so any host stands for one. */
const gateway = hub.hostname.startsWith("[") ? "ws: wss:" : hub.origin

const headers = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src data:",
    `connect-src 'self' ${gateway}`,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ].join("; "),
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store"
}

const answer = (response: ServerResponse, status: number, contentType: string, body: string): void => {
  response.writeHead(status, { ...headers, "content-type": contentType }).end(body)
}

const askHub = async (
  response: ServerResponse,
  search: string,
  authorization: string | undefined
): Promise<void> => {
  try {
    const url = new URL("/latest-by-key", HUB_OPS_URL)
    url.search = search
    const from = await fetch(url, {
      headers: authorization === undefined ? {} : { authorization },
      signal: AbortSignal.timeout(10_000)
    })
    answer(response, from.status, from.headers.get("content-type") ?? "text/plain", await from.text())
  } catch {
    answer(response, 502, "application/problem+json", JSON.stringify({ detail: "the hub does not answer" }))
  }
}

const [html, style, script] = await Promise.all([
  readFile(pathOf("index.html"), "utf8"),
  readFile(pathOf("style.css"), "utf8"),
  bundle()
])
// What a URL is made of cannot end an attribute.
const index = html.replace('name="hub-url" content=""', () => `name="hub-url" content="${hub.href}"`)

const server = createServer(({ headers, method, url = "/" }, response) => {
  const { pathname, search } = new URL(url, "http://page")
  if (method !== "GET") answer(response, 405, "text/plain", "this is for GET\n")
  else if (pathname === "/") answer(response, 200, "text/html; charset=utf-8", index)
  else if (pathname === "/style.css") answer(response, 200, "text/css; charset=utf-8", style)
  else if (pathname === "/main.js") answer(response, 200, "text/javascript; charset=utf-8", script)
  else if (pathname === "/latest-by-key") void askHub(response, search, headers.authorization)
  else answer(response, 404, "text/plain", "there is nothing here\n")
})
server.listen(Number(PORT), "127.0.0.1")
await once(server, "listening")
const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
console.log(`${origin}/#token=${token}`)

/**
 * A page is not told why its socket was refused. So this asks once, as the page would, and says it where somebody can do
 * something about it. A hub that is not there yet is no reason to complain.
 */
const probe = new WebSocket(hub, { origin })
probe.on("error", () => {})
probe.on("open", () => probe.close())
probe.on("unexpected-response", (request, { statusCode }) => {
  if (statusCode === 403) console.error(`the hub refuses pages of ${origin}: add it to HUB_ORIGINS`)
  request.destroy()
})
