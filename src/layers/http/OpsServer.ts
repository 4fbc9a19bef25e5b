/** The ops HTTP server: the API of OpsApi over the services of the hub, and the dashboard's page. */
import type { Server } from "node:http"
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
  HttpServerResponse
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
import type { Revocations } from "../../services/Revocations.ts"
import type { Standing } from "../../services/Standing.ts"
import type { TokenVerifier } from "../../services/TokenVerifier.ts"
import * as metrics from "../core/metrics.ts"
import { problem, withHeaders } from "./answers.ts"
import { makeAssets } from "./assets.ts"
import { checked, inTime } from "./bodies.ts"
import { groups } from "./GroupsHandlers.ts"
import { addressOf, hostOf, isEncrypted } from "./forwarded.ts"
import { health } from "./HealthHandlers.ts"
import * as HttpDenials from "./HttpDenials.ts"
import { isSecure, listener, type MakeServer } from "./listener.ts"
import { log } from "./LogHandlers.ts"
import { OpsApi } from "./OpsApi.ts"
import { authorization, problems } from "./OpsMiddleware.ts"
import { outboxes } from "./OutboxHandlers.ts"
import { policies } from "./PolicyHandlers.ts"
import { reads } from "./ReadsHandlers.ts"
import { revocations } from "./RevocationsHandlers.ts"
import { standings } from "./StandingHandlers.ts"

export interface Options {
  readonly host: string
  /** 0 picks a free one. */
  readonly port: number
  /** Of what is published and imported. */
  readonly limits?: Settings.Limits
  readonly archive?: Settings.ArchiveSettings
  readonly auth?: Pick<Settings.AuthSettings, "clockToleranceMs">
  readonly settings?: Settings.OpsSettings
  /** How late refused tokens are answered. */
  readonly gateway?: Settings.GatewaySettings
  /** A server that speaks TLS; none: one that does not. */
  readonly server?: MakeServer | undefined
  /** A proxy before it says who asks, and for what. */
  readonly trustProxy?: boolean
}

/** How long requests that run may take when the hub stops. */
const shutdownTimeout = "500 millis"

const api = ({
  archive = Settings.archive,
  auth = Settings.auth,
  gateway = Settings.gateway,
  limits = Settings.limits
}: Options) =>
  HttpApiBuilder.layer(OpsApi, { openapiPath: "/openapi.json" }).pipe(
    Layer.provide([
      reads,
      log({ archive, limits, clockToleranceMs: auth.clockToleranceMs }),
      groups,
      outboxes,
      policies,
      revocations,
      standings,
      health
    ]),
    Layer.provide([authorization(gateway, auth), problems]),
    Layer.provide(HttpDenials.layer(gateway.maxAuthAddresses))
  )

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
  if (allowed.length === 0) return notFound(request)
  const method = request.method === "HEAD" ? "GET" : request.method
  // There would be a route, if its parameters could be read.
  return allowed.some((one) => one === method)
    ? problem(400, "Bad Request", "the path is no UTF-8, or a part of it is too long")
    : notAllowed(request.method, allowed)
}

/**
 * The gateway as a policy names it: on the host that the browser knows us by. No policy can name an IPv6
 * address, so any host stands for one; and what is no host name is none.
 */
const gatewaySources = (asked: string, port: string, encrypted: boolean): string => {
  const host = URL.canParse(`http://${asked}`) ? new URL(`http://${asked}`).hostname : ""
  const schemes = encrypted ? ["wss"] : ["ws", "wss"]
  if (host.startsWith("[")) return schemes.map((scheme) => ` ${scheme}:`).join("")
  return /^[\w.-]+$/.test(host) ? schemes.map((scheme) => ` ${scheme}://${host}:${port}`).join("") : ""
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

/** What no page here asks a browser for. */
const documentHeaders = {
  "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
}

const page = ({ trustProxy = false }: Options) =>
  Layer.unwrap(
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
              headers: {
                ...documentHeaders,
                "content-security-policy": contentSecurityPolicy(
                  gatewaySources(hostOf(request, trustProxy), port, isEncrypted(request, trustProxy))
                )
              }
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
                headers: { ...documentHeaders, "content-security-policy": contentSecurityPolicy("") }
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
const answers = ({ limits = Settings.limits, settings = Settings.ops, trustProxy = false }: Options) =>
  HttpRouter.middleware(
    (effect) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        // Events come in bodies as large as the gateway's frames.
        const size = pathOf(request) === "/publish" ? ByteSize.bytes(limits.maxFrameBytes) : maxBodySize
        const refusals = refusalsOf(size)
        const isStream = pathOf(request) === "/import"
        const named = request.modify({ remoteAddress: addressOf(request, trustProxy) })
        return effect.pipe(
          Effect.provideService(HttpServerRequest.HttpServerRequest, checked(named, limits.maxJsonDepth)),
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
          inTime(request, settings.bodyTimeoutMs, isStream),
          Effect.map((response) => {
            const refusal = refusals[response.status]
            return refusal === undefined || isProblem(response)
              ? response
              : problem(response.status, ...refusal)
          })
        )
      }),
    { global: true }
  )

const cannotListen = ({ host, port }: Options, { cause }: HttpServerError.ServeError): CannotListen => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
  return new CannotListen({ host, port, reason: code === "EADDRINUSE" ? "the port is in use" : code })
}

const httpServer = (options: Options, server: Server) =>
  Layer.mergeAll(
    Layer.effect(
      HttpServer.HttpServer,
      Effect.mapError(
        NodeHttpServer.make(() => server, {
          host: options.host,
          port: options.port,
          gracefulShutdownTimeout: shutdownTimeout
        }),
        (error) => cannotListen(options, error)
      )
    ),
    NodeHttpServer.layerHttpServices
  )

/** Routes, and an answer to what none of them is for: HttpRouter's own has no body. */
const serve = (options: Options, encrypted: boolean) =>
  Layer.unwrap(
    Effect.map(
      HttpRouter.toHttpEffect(Layer.mergeAll(api(options), page(options), answers(options))),
      (app) =>
        HttpServer.serve(
          app.pipe(
            Effect.catchTag("HttpServerError", (error) => {
              if (error.reason._tag === "RouteNotFound") {
                return Effect.map(HttpServerRequest.HttpServerRequest, answerOtherwise)
              }
              return error.reason._tag === "RequestParseError"
                ? Effect.succeed(problem(400, "Bad Request", "the request cannot be read"))
                : Effect.fail(error)
            }),
            Effect.map((response) => withHeaders(response, encrypted))
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
  | Revocations
  | Standing
  | TokenVerifier
> =>
  Layer.unwrap(
    Effect.map(metrics.recorder, (recorder) => {
      const dropped = recorder.counter(metrics.opsConnectionsDropped)
      const server = listener(options.settings ?? Settings.ops, {
        make: options.server,
        trustProxy: options.trustProxy ?? false,
        onDropped: () => void dropped.count++
      })
      const encrypted = isSecure(server)
      return Layer.effect(
        Ops,
        Effect.map(HttpServer.HttpServer, ({ address }) => {
          const host = options.host.includes(":") ? `[${options.host}]` : options.host
          const port = address._tag !== "UnixPathAddress" ? address.port : options.port
          return Ops.of({ url: `${encrypted ? "https" : "http"}://${host}:${port}` })
        })
      ).pipe(Layer.provideMerge(serve(options, encrypted)), Layer.provide(httpServer(options, server)))
    })
  )
