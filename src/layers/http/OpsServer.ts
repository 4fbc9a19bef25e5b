/** The ops HTTP server: the API of OpsApi over the services of the hub, and the dashboard's page. */
import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Effect, Layer } from "effect"
import {
  HttpRouter,
  HttpServer,
  type HttpServerError,
  type HttpServerRequest,
  HttpServerResponse,
  ProblemDetails
} from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import type { AccessControl } from "../../services/AccessControl.ts"
import type { EventStore } from "../../services/EventStore.ts"
import { CannotListen, Gateway } from "../../services/Gateway.ts"
import type { Inspector } from "../../services/Inspector.ts"
import { Ops } from "../../services/Ops.ts"
import type { OutboxDrainer } from "../../services/OutboxDrainer.ts"
import type { OutboxStore } from "../../services/OutboxStore.ts"
import type { TokenVerifier } from "../../services/TokenVerifier.ts"
import { makeAssets } from "./assets.ts"
import { OpsApi } from "./OpsApi.ts"
import { authorization, health, problems, reads } from "./OpsHandlers.ts"

export interface Options {
  readonly host: string
  /** 0 picks a free one. */
  readonly port: number
}

/** How long requests that run may take when the hub stops. */
const shutdownTimeout = "500 millis"

const api = HttpApiBuilder.layer(OpsApi, { openapiPath: "/openapi.json" }).pipe(
  Layer.provide([reads, health]),
  Layer.provide([authorization, problems])
)

const problem = (status: number, title: string, detail: string) =>
  ProblemDetails.toResponse({ type: ProblemDetails.blankType, status, title, detail })

const pathOf = ({ url }: HttpServerRequest.HttpServerRequest): string => url.split("?")[0] ?? url

const notFound = (request: HttpServerRequest.HttpServerRequest) =>
  problem(404, "Not Found", `there is nothing at ${pathOf(request)}`)

/** The API is read-only. */
const paths = new Set<string>(
  Object.values(OpsApi.groups).flatMap(({ endpoints }) => Object.values(endpoints).map(({ path }) => path))
)

const notAllowed = (method: string) =>
  HttpServerResponse.setHeader(
    problem(405, "Method Not Allowed", `this is read with GET; ${method} does nothing here`),
    "allow",
    "GET, HEAD"
  )

/** Whatever nothing else answers. HEAD is what GET would be. */
const otherwise = Layer.mergeAll(
  HttpRouter.add("GET", "*", (request) => Effect.succeed(notFound(request))),
  ...(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const).map((method) =>
    HttpRouter.add(method, "*", (request) =>
      Effect.succeed(paths.has(pathOf(request)) ? notAllowed(method) : notFound(request))
    )
  )
)

/**
 * The gateway as a policy names it: on the host that the browser knows us by. No policy can name an IPv6
 * address, so any host stands for one; and what is no host name is none.
 */
const gatewaySources = (request: HttpServerRequest.HttpServerRequest, port: string): string => {
  const asked = `http://${request.headers["host"] ?? ""}`
  const host = URL.canParse(asked) ? new URL(asked).hostname : ""
  if (host.startsWith("[")) return " ws: wss:"
  return /^[\w.-]+$/.test(host) ? ` ws://${host}:${port} wss://${host}:${port}` : ""
}

/**
 * The page may load what is served here, and connect to the gateway: nothing else, and nothing inline
 * (https://www.w3.org/TR/CSP3/).
 */
const contentSecurityPolicy = (gateway: string): string =>
  [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    `connect-src 'self'${gateway}`,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ].join("; ")

const page = Layer.unwrap(
  Effect.gen(function* () {
    const gateway = yield* Gateway
    const asset = makeAssets()
    const port = new URL(gateway.url).port

    const index = (request: HttpServerRequest.HttpServerRequest) =>
      Effect.map(asset("dashboard/index.html"), (found) => {
        if (found === undefined) return notFound(request)
        return HttpServerResponse.text(
          found.body.replace(
            'name="event-hub-ws-port" content=""',
            `name="event-hub-ws-port" content="${port}"`
          ),
          {
            contentType: found.contentType,
            headers: { "content-security-policy": contentSecurityPolicy(gatewaySources(request, port)) }
          }
        )
      })

    const file = (request: HttpServerRequest.HttpServerRequest) =>
      Effect.map(asset(pathOf(request).slice("/assets/".length)), (found) =>
        found === undefined
          ? notFound(request)
          : HttpServerResponse.text(found.body, { contentType: found.contentType })
      )

    return Layer.mergeAll(HttpRouter.add("GET", "/", index), HttpRouter.add("GET", "/assets/*", file))
  })
)

/** What every answer carries, whatever made it. */
const headers = HttpRouter.middleware(
  (effect) =>
    Effect.map(effect, (response) =>
      HttpServerResponse.setHeaders(response, {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        ...(response.status === 401 ? { "www-authenticate": 'Bearer realm="event-hub"' } : {})
      })
    ),
  { global: true }
)

const cannotListen = ({ host, port }: Options, { cause }: HttpServerError.ServeError): CannotListen => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
  return new CannotListen({ host, port, reason: code === "EADDRINUSE" ? "the port is in use" : code })
}

const httpServer = (options: Options) =>
  Layer.mergeAll(
    Layer.effect(
      HttpServer.HttpServer,
      Effect.mapError(
        NodeHttpServer.make(() => createServer(), { ...options, gracefulShutdownTimeout: shutdownTimeout }),
        (error) => cannotListen(options, error)
      )
    ),
    NodeHttpServer.layerHttpServices
  )

export const layer = (
  options: Options
): Layer.Layer<
  Ops,
  CannotListen,
  AccessControl | EventStore | Gateway | Inspector | OutboxDrainer | OutboxStore | TokenVerifier
> =>
  Layer.effect(
    Ops,
    Effect.map(HttpServer.HttpServer, ({ address }) => {
      const host = options.host.includes(":") ? `[${options.host}]` : options.host
      const port = address._tag !== "UnixPathAddress" ? address.port : options.port
      return Ops.of({ url: `http://${host}:${port}` })
    })
  ).pipe(
    Layer.provideMerge(
      HttpRouter.serve(Layer.mergeAll(api, page, otherwise, headers), {
        disableLogger: true,
        disableListenLog: true
      })
    ),
    Layer.provide(httpServer(options))
  )
