/** The ops HTTP server: the API of OpsApi over the services of the hub, and the dashboard's page. */
import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Effect, Layer } from "effect"
import {
  HttpRouter,
  HttpServer,
  type HttpServerError,
  type HttpServerRequest,
  HttpServerResponse
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

/** The host that the browser knows us by, without its port; nothing when it is none. */
const hostOf = (request: HttpServerRequest.HttpServerRequest): string | undefined => {
  const host = request.headers["host"] ?? ""
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : undefined
}

/**
 * The page may load what is served here, and connect to the gateway: nothing else, and nothing inline
 * (https://www.w3.org/TR/CSP3/).
 */
const contentSecurityPolicy = (gateway: string | undefined): string =>
  [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    `connect-src 'self'${gateway === undefined ? "" : ` ${gateway}`}`,
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
        if (found === undefined) return HttpServerResponse.empty({ status: 404 })
        const host = hostOf(request)
        return HttpServerResponse.text(
          found.body.replace(
            'name="event-hub-ws-port" content=""',
            `name="event-hub-ws-port" content="${port}"`
          ),
          {
            contentType: found.contentType,
            headers: {
              "content-security-policy": contentSecurityPolicy(
                host === undefined ? undefined : `ws://${host}:${port} wss://${host}:${port}`
              )
            }
          }
        )
      })

    const file = (request: HttpServerRequest.HttpServerRequest) =>
      Effect.map(
        asset(new URL(request.url, "http://localhost").pathname.slice("/assets/".length)),
        (found) =>
          found === undefined
            ? HttpServerResponse.empty({ status: 404 })
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
      HttpRouter.serve(Layer.mergeAll(api, page, headers), { disableLogger: true, disableListenLog: true })
    ),
    Layer.provide(httpServer(options))
  )
