/** The ops HTTP server: the API of OpsApi over the services of the hub, and the dashboard's page. */
import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import {
  HttpIncomingMessage,
  HttpRouter,
  HttpServer,
  type HttpServerError,
  type HttpServerRequest,
  HttpServerRespondable,
  HttpServerResponse,
  ProblemDetails
} from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import type { AccessControl } from "../../services/AccessControl.ts"
import type { EventStore } from "../../services/EventStore.ts"
import { CannotListen, Gateway } from "../../services/Gateway.ts"
import type { GroupAdmin } from "../../services/GroupAdmin.ts"
import type { Inspector } from "../../services/Inspector.ts"
import { Ops } from "../../services/Ops.ts"
import type { OutboxSources } from "../../services/OutboxSources.ts"
import type { TokenVerifier } from "../../services/TokenVerifier.ts"
import { makeAssets } from "./assets.ts"
import { groups } from "./GroupsHandlers.ts"
import { OpsApi } from "./OpsApi.ts"
import { authorization, health, problems, reads } from "./OpsHandlers.ts"
import { outboxes } from "./OutboxHandlers.ts"

export interface Options {
  readonly host: string
  /** 0 picks a free one. */
  readonly port: number
}

/** How long requests that run may take when the hub stops. */
const shutdownTimeout = "500 millis"

const api = HttpApiBuilder.layer(OpsApi, { openapiPath: "/openapi.json" }).pipe(
  Layer.provide([reads, groups, outboxes, health]),
  Layer.provide([authorization, problems])
)

const problem = (status: number, title: string, detail: string) =>
  ProblemDetails.toResponse({ type: ProblemDetails.blankType, status, title, detail })

const pathOf = ({ url }: HttpServerRequest.HttpServerRequest): string => url.split("?")[0] ?? url

const notFound = (request: HttpServerRequest.HttpServerRequest) =>
  problem(404, "Not Found", `there is nothing at ${pathOf(request)}`)

/** What can be asked for at which paths; `:name` stands for one segment. */
const endpoints = Object.values(OpsApi.groups).flatMap(({ endpoints }) =>
  Object.values(endpoints).map(({ method, path }) => ({
    method,
    path: new RegExp(`^${path.replace(/:[^/]+/g, "[^/]+")}$`)
  }))
)

/** Something is there, and not for this method. */
const notAllowed = (method: string, allowed: ReadonlyArray<string>) => {
  const allow = allowed.flatMap((one) => (one === "GET" ? ["GET", "HEAD"] : [one])).join(", ")
  return HttpServerResponse.setHeader(
    problem(405, "Method Not Allowed", `this is for ${allow}; ${method} does nothing here`),
    "allow",
    allow
  )
}

const answerOtherwise = (method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") =>
  HttpRouter.add(method, "*", (request) => {
    const path = pathOf(request)
    const allowed = endpoints.filter((endpoint) => endpoint.path.test(path)).map(({ method }) => method)
    return Effect.succeed(allowed.length === 0 ? notFound(request) : notAllowed(method, allowed))
  })

/** Whatever nothing else answers. HEAD is what GET would be. */
const otherwise = Layer.mergeAll(
  answerOtherwise("GET"),
  ...(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const).map(answerOtherwise)
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

/** The most that a body may have. */
const maxBodySize = ByteSize.kibibytes(256)

/** What is refused before an endpoint is asked. */
const refusals: Readonly<Record<number, readonly [title: string, detail: string]>> = {
  400: ["Bad Request", "the request cannot be read"],
  413: ["Content Too Large", `a body has at most ${ByteSize.toNumberUnsafe(maxBodySize)} bytes`],
  415: ["Unsupported Media Type", "a body is application/json"]
}

const isProblem = ({ headers }: HttpServerResponse.HttpServerResponse): boolean =>
  headers["content-type"]?.startsWith("application/problem+json") === true

/** What every answer carries, whatever made it; and each error is a problem document. */
const answers = HttpRouter.middleware(
  (effect) =>
    effect.pipe(
      Effect.provideService(HttpIncomingMessage.MaxBodySize, maxBodySize),
      // A body that cannot be read is a defect for whoever reads it, and knows what to answer.
      Effect.catchDefect((defect) =>
        HttpServerRespondable.isRespondable(defect)
          ? HttpServerRespondable.toResponse(defect)
          : Effect.die(defect)
      ),
      Effect.map((response) => {
        const refusal = refusals[response.status]
        const answer =
          refusal === undefined || isProblem(response) ? response : problem(response.status, ...refusal)
        return HttpServerResponse.setHeaders(answer, {
          "x-content-type-options": "nosniff",
          "referrer-policy": "no-referrer",
          "cache-control": "no-store",
          ...(response.status === 401 ? { "www-authenticate": 'Bearer realm="event-hub"' } : {})
        })
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
  AccessControl | EventStore | Gateway | GroupAdmin | Inspector | OutboxSources | TokenVerifier
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
      HttpRouter.serve(Layer.mergeAll(api, page, otherwise, answers), {
        disableLogger: true,
        disableListenLog: true
      })
    ),
    Layer.provide(httpServer(options))
  )
