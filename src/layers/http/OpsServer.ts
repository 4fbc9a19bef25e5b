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
  HttpServerRequest,
  HttpServerRespondable,
  HttpServerResponse,
  ProblemDetails
} from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as Settings from "../../domain/Settings.ts"
import type { AccessControl } from "../../services/AccessControl.ts"
import type { Appender } from "../../services/Appender.ts"
import type { Archive } from "../../services/Archive.ts"
import type { EventStore } from "../../services/EventStore.ts"
import { CannotListen, Gateway } from "../../services/Gateway.ts"
import type { GroupAdmin } from "../../services/GroupAdmin.ts"
import type { GroupDelivery } from "../../services/GroupDelivery.ts"
import type { Ids } from "../../services/Ids.ts"
import type { Inspector } from "../../services/Inspector.ts"
import { Ops } from "../../services/Ops.ts"
import type { OutboxSources } from "../../services/OutboxSources.ts"
import type { RateLimiter } from "../../services/RateLimiter.ts"
import type { Standing } from "../../services/Standing.ts"
import type { TokenVerifier } from "../../services/TokenVerifier.ts"
import { makeAssets } from "./assets.ts"
import { groups } from "./GroupsHandlers.ts"
import { health } from "./HealthHandlers.ts"
import { log } from "./LogHandlers.ts"
import { OpsApi } from "./OpsApi.ts"
import { authorization, problems } from "./OpsMiddleware.ts"
import { outboxes } from "./OutboxHandlers.ts"
import { policies } from "./PolicyHandlers.ts"
import { reads } from "./ReadsHandlers.ts"
import { standings } from "./StandingHandlers.ts"

export interface Options {
  readonly host: string
  /** 0 picks a free one. */
  readonly port: number
  /** Of what is published and imported. */
  readonly limits?: Settings.Limits
  readonly archive?: Settings.ArchiveSettings
}

/** How long the head of a request may take to come, in milliseconds. Node looks every 30 seconds. */
const headersTimeout = 30_000

/** How long requests that run may take when the hub stops. */
const shutdownTimeout = "500 millis"

const api = ({ archive = Settings.archive, limits = Settings.limits }: Options) =>
  HttpApiBuilder.layer(OpsApi, { openapiPath: "/openapi.json" }).pipe(
    Layer.provide([reads, log({ archive, limits }), groups, outboxes, policies, standings, health]),
    Layer.provide([authorization, problems])
  )

const problem = (status: number, title: string, detail: string) =>
  ProblemDetails.toResponse({ type: ProblemDetails.blankType, status, title, detail })

/** What every answer carries. */
const finished = (response: HttpServerResponse.HttpServerResponse) =>
  HttpServerResponse.setHeaders(response, {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    ...(response.status === 401 ? { "www-authenticate": 'Bearer realm="event-hub"' } : {})
  })

const pathOf = ({ url }: HttpServerRequest.HttpServerRequest): string => url.split("?")[0] ?? url

const notFound = (request: HttpServerRequest.HttpServerRequest) =>
  problem(404, "Not Found", `there is nothing at ${pathOf(request)}`)

/** What can be asked for at which paths; `:name` stands for one segment. */
const endpoints = [
  ...Object.values(OpsApi.groups).flatMap(({ endpoints }) => Object.values(endpoints)),
  ...["/", "/docs", "/openapi.json"].map((path) => ({ method: "GET", path }))
].map(({ method, path }) => ({ method, path: new RegExp(`^${path.replace(/:[^/]+/g, "[^/]+")}$`) }))

/** A path parameter may have as many characters: a segment of a topic has 64, and each may be written as three. */
const maxParamLength = 1_000

/** Something is there, and not for this method. */
const notAllowed = (method: string, allowed: ReadonlyArray<string>) => {
  const allow = allowed.flatMap((one) => (one === "GET" ? ["GET", "HEAD"] : [one])).join(", ")
  return HttpServerResponse.setHeader(
    problem(405, "Method Not Allowed", `this is for ${allow}; ${method} does nothing here`),
    "allow",
    allow
  )
}

/** Of what no route is for, whatever its method. HEAD is what GET would be. */
const answerOtherwise = (request: HttpServerRequest.HttpServerRequest) => {
  const path = pathOf(request)
  const allowed = endpoints.filter((endpoint) => endpoint.path.test(path)).map(({ method }) => method)
  return finished(allowed.length === 0 ? notFound(request) : notAllowed(request.method, allowed))
}

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

    /** The description of the API, to read and to try: it asks this server alone. */
    const docs = (request: HttpServerRequest.HttpServerRequest) =>
      Effect.map(asset("dashboard/apiDocs.html"), (found) =>
        found === undefined
          ? notFound(request)
          : HttpServerResponse.text(found.body, {
              contentType: found.contentType,
              headers: { "content-security-policy": contentSecurityPolicy("") }
            })
      )

    return Layer.mergeAll(
      HttpRouter.add("GET", "/", index),
      HttpRouter.add("GET", "/docs", docs),
      HttpRouter.add("GET", "/assets/*", file)
    )
  })
)

/** The most that a body may have. */
const maxBodySize = ByteSize.kibibytes(256)

/** What is refused before an endpoint is asked. */
const refusalsOf = (
  size: ByteSize.ByteSize
): Readonly<Record<number, readonly [title: string, detail: string]>> => ({
  400: ["Bad Request", "the request cannot be read"],
  413: ["Content Too Large", `a body has at most ${ByteSize.toNumberUnsafe(size)} bytes here`],
  415: ["Unsupported Media Type", "a body is application/json, and that of an import application/x-ndjson"]
})

const isProblem = ({ headers }: HttpServerResponse.HttpServerResponse): boolean =>
  headers["content-type"]?.startsWith("application/problem+json") === true

/** Each error is a problem document, whatever made it. */
const answers = ({ limits = Settings.limits }: Options) =>
  HttpRouter.middleware(
    (effect) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        // Events come in bodies as large as the gateway's frames.
        const size = pathOf(request) === "/publish" ? ByteSize.bytes(limits.maxFrameBytes) : maxBodySize
        const refusals = refusalsOf(size)
        return effect.pipe(
          Effect.provideService(HttpIncomingMessage.MaxBodySize, size),
          // A body that cannot be read is a defect for whoever reads it, and knows what to answer.
          Effect.catchDefect((defect) =>
            HttpServerRespondable.isRespondable(defect)
              ? HttpServerRespondable.toResponse(defect)
              : Effect.as(
                  Effect.logError("a request failed", { path: pathOf(request) }, defect),
                  problem(500, "Internal Server Error", "the hub has a bug; its log says more")
                )
          ),
          Effect.map((response) => {
            const refusal = refusals[response.status]
            return finished(
              refusal === undefined || isProblem(response) ? response : problem(response.status, ...refusal)
            )
          })
        )
      }),
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
        // An import takes as long as it takes. Without a time-out of its own, the head of a request would, too.
        NodeHttpServer.make(() => createServer({ requestTimeout: 0, headersTimeout }), {
          ...options,
          gracefulShutdownTimeout: shutdownTimeout
        }),
        (error) => cannotListen(options, error)
      )
    ),
    NodeHttpServer.layerHttpServices
  )

/** Routes, and an answer to what none of them is for: HttpRouter's own has no body. */
const serve = (options: Options) =>
  Layer.unwrap(
    Effect.map(HttpRouter.toHttpEffect(Layer.mergeAll(api(options), page, answers(options))), (app) =>
      HttpServer.serve(
        Effect.catchTag(app, "HttpServerError", (error) =>
          error.reason._tag === "RouteNotFound"
            ? Effect.map(HttpServerRequest.HttpServerRequest, answerOtherwise)
            : Effect.fail(error)
        )
      )
    )
  ).pipe(Layer.provide(Layer.succeed(HttpRouter.RouterConfig, { maxParamLength })))

export const layer = (
  options: Options
): Layer.Layer<
  Ops,
  CannotListen,
  | AccessControl
  | Appender
  | Archive
  | EventStore
  | Gateway
  | GroupAdmin
  | GroupDelivery
  | Ids
  | Inspector
  | OutboxSources
  | RateLimiter
  | Standing
  | TokenVerifier
> =>
  Layer.effect(
    Ops,
    Effect.map(HttpServer.HttpServer, ({ address }) => {
      const host = options.host.includes(":") ? `[${options.host}]` : options.host
      const port = address._tag !== "UnixPathAddress" ? address.port : options.port
      return Ops.of({ url: `http://${host}:${port}` })
    })
  ).pipe(Layer.provideMerge(serve(options)), Layer.provide(httpServer(options)))
