/**
 * The Gateway on `ws`: accepts connections that may come, keeps their time, and closes them in good order.
 */
import { createServer, type IncomingMessage, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import type { Duplex } from "node:stream"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { WebSocketServer } from "ws"
import type { Claims } from "../../domain/Claims.ts"
import * as Quota from "../../domain/Quota.ts"
import * as Settings from "../../domain/Settings.ts"
import { CloseCode, SUBPROTOCOL } from "../../protocol/Codes.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { Appender } from "../../services/Appender.ts"
import { CannotListen, Gateway } from "../../services/Gateway.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { GroupDelivery } from "../../services/GroupDelivery.ts"
import { Ids } from "../../services/Ids.ts"
import { LiveFeed } from "../../services/LiveFeed.ts"
import { RateLimiter } from "../../services/RateLimiter.ts"
import { Revocations } from "../../services/Revocations.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { TokenVerifier } from "../../services/TokenVerifier.ts"
import * as metrics from "../core/metrics.ts"
import { Connection, type GatewayContext } from "./Connection.ts"
import { Intake } from "./Intake.ts"
import { mayConnect } from "./origin.ts"

export interface Options {
  readonly host: string
  /** 0 picks a free one. */
  readonly port: number
  /** Origins that browsers may connect from; none: the hub's own host, and loopback. */
  readonly origins?: ReadonlyArray<string> | undefined
  readonly limits?: Settings.Limits
  readonly settings?: Settings.GatewaySettings
  readonly auth?: Settings.AuthSettings
  readonly groups?: Settings.GroupSettings
}

/** While the store is behind, how often it is looked whether it still is. */
const lookAgain = "10 millis"

/** Connections that are told that there are too many, and have not gone yet; beyond, not even that is told. */
const refusedAtOnce = 100

/** How long a closing hub waits for clients to answer its close frames. */
const closeTimeout = "1 second"

/** Headers of a request that takes longer than this are not waited for. */
const handshakeTimeoutMs = 10_000

const listen = (host: string, port: number): Effect.Effect<Server, CannotListen, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Server, CannotListen>((resume) => {
      const server = createServer({ headersTimeout: handshakeTimeoutMs, requestTimeout: handshakeTimeoutMs })
      server.once("error", (error: NodeJS.ErrnoException) => {
        const reason = error.code === "EADDRINUSE" ? "the port is in use" : (error.code ?? error.message)
        resume(Effect.fail(new CannotListen({ host, port, reason })))
      })
      server.listen(port, host, () => {
        server.removeAllListeners("error")
        resume(Effect.succeed(server))
      })
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      }).pipe(Effect.timeoutOption(closeTimeout), Effect.asVoid)
  )

const refuse = (socket: Duplex, status: string, why: string): void => {
  socket.on("error", () => {})
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: ${why.length}\r\n\r\n${why}`
  )
}

const offered = (request: IncomingMessage): ReadonlyArray<string> =>
  (request.headers["sec-websocket-protocol"] ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")

const make = Effect.fnUntraced(function* (options: Options) {
  const { auth = Settings.auth, limits = Settings.limits, settings = Settings.gateway } = options
  const ids = yield* Ids
  const access = yield* AccessControl
  const appender = yield* Appender
  const feed = yield* LiveFeed
  const groups = yield* GroupDelivery
  const verifier = yield* TokenVerifier
  const revocations = yield* Revocations
  const rateLimiter = yield* RateLimiter
  const clock = yield* Clock.Clock
  const history = yield* feed.history
  const recorder = yield* metrics.recorder
  const traces = yield* EventTraces
  const seconds = metrics.turnSeconds(clock)
  const fork = yield* FiberSet.makeRuntime()
  const connections = new Set<Connection>()
  let draining = false

  const intake = new Intake({
    queued: appender.queued,
    pauseAtEvents: settings.pauseAtEvents,
    pauseAtBytes: settings.pauseAtBytes,
    // Sockets are read between two of these, so that short messages are not behind the long ones of others.
    soon: (run) => void setImmediate(run),
    later: (run) => void fork(Effect.delay(Effect.sync(run), lookAgain)),
    onPause: () => recorder.add(metrics.intakePauses, 1)
  })

  /** What a connection may send is put together once for each token. */
  const spendings = (connection: string) => {
    let known: { readonly claims: Claims; readonly account: Quota.Account } | undefined
    return (claims: Claims, cost: Quota.Cost): ReadonlyArray<Quota.Spending> => {
      if (known?.claims !== claims) {
        const who = { connection, sub: claims.sub }
        known = { claims, account: Quota.accountOf(limits.quotas, who, claims.limits) }
      }
      return Quota.spendingsOf(known.account, cost)
    }
  }

  const count = (limit: Quota.Kind | "behind_another"): void =>
    recorder.add(metrics.rateLimited, 1, { limit })

  const contextFor = (id: string, spendingsOf = spendings(id)): GatewayContext => ({
    limits,
    settings,
    clockToleranceMs: auth.clockToleranceMs,
    history,
    decide: access.decide,
    decideSubscription: access.decideSubscription,
    spend: (claims, cost) => {
      const limited = rateLimiter.take(spendingsOf(claims, cost))
      if (limited !== undefined) count(limited.kind)
      return limited
    },
    look: (claims, cost) => {
      const limited = rateLimiter.look(spendingsOf(claims, cost))
      count(limited?.kind ?? "behind_another")
      return limited
    },
    intake,
    makeId: ids.next,
    verifier,
    access,
    appender,
    feed,
    groups,
    defaultCredit: (options.groups ?? Settings.groups).credit,
    recorder,
    published: recorder.histogram(metrics.publishDuration),
    liveDeliveries: recorder.counter(metrics.liveDeliveries),
    traces,
    seconds,
    now: () => clock.currentTimeMillisUnsafe(),
    fork: (effect) => fork(effect),
    onClosed: (connection) => connections.delete(connection)
  })

  const server = yield* listen(options.host, options.port)
  const { port } = server.address() as AddressInfo
  const host = options.host.includes(":") ? `[${options.host}]` : options.host

  const wss = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: limits.maxFrameBytes,
    perMessageDeflate: false,
    handleProtocols: () => SUBPROTOCOL
  })

  server.on("request", (_request, response) => {
    response.writeHead(426, { Connection: "Upgrade", Upgrade: "websocket", "Content-Type": "text/plain" })
    response.end("This port speaks WebSocket.\n")
  })

  server.on("upgrade", (request, socket, head) => {
    const turnAway = (reason: metrics.Refused, status: string, why: string): void => {
      recorder.add(metrics.connectionsRefused, 1, { reason })
      refuse(socket, status, why)
    }
    if (draining) return turnAway("draining", "503 Service Unavailable", "The hub is stopping.\n")
    if (connections.size >= limits.maxConnections + refusedAtOnce) {
      return turnAway("too_many", "503 Service Unavailable", "The hub has too many connections.\n")
    }
    if (!mayConnect(request.headers.origin, request.headers.host, options.origins)) {
      return turnAway("origin", "403 Forbidden", "This origin may not connect.\n")
    }
    const protocols = offered(request)
    if (protocols.length > 0 && !protocols.includes(SUBPROTOCOL)) {
      return turnAway("subprotocol", "400 Bad Request", `The subprotocol is ${SUBPROTOCOL}.\n`)
    }
    wss.handleUpgrade(request, socket, head, (ws) => {
      const id = ids.next()
      const connection = new Connection(id, contextFor(id), ws, socket)
      connections.add(connection)
      recorder.add(metrics.connectionsOpened, 1)
      if (connections.size > limits.maxConnections) {
        recorder.add(metrics.connectionsRefused, 1, { reason: "too_many" satisfies metrics.Refused })
        connection.refuse(settings.reconnectSpreadMs)
      }
    })
  })

  yield* recorder.gauge(metrics.connections, () => connections.size)
  yield* recorder.gauge(metrics.outboundBytes, () => {
    let bytes = 0
    for (const connection of connections) bytes += connection.outboundBytes
    return bytes
  })

  // --- time --------------------------------------------------------------------------------------------------

  const tickMs = Math.min(1_000, Math.max(20, Math.min(settings.authTimeoutMs, settings.heartbeatMs) / 10))
  yield* Effect.sleep(tickMs).pipe(
    Effect.andThen(
      Effect.sync(() => {
        const now = clock.currentTimeMillisUnsafe()
        for (const connection of connections) connection.tick(now)
      })
    ),
    Effect.forever,
    Effect.forkScoped
  )

  yield* revocations.changes.pipe(
    Stream.runForEach(() =>
      Effect.sync(() => {
        for (const connection of connections) {
          if (connection.claims !== undefined && revocations.isRevoked(connection.claims))
            connection.revoked()
        }
      })
    ),
    Effect.forkScoped
  )

  // --- the end -----------------------------------------------------------------------------------------------

  /** Nothing is unanswered, neither deliveries nor requests; or time is up. */
  const quiet = Effect.sync(
    () => groups.inFlight() === 0 && [...connections].every((connection) => connection.isQuiet)
  ).pipe(
    Effect.repeat({ until: (isQuiet) => isQuiet, schedule: Schedule.spaced("10 millis") }),
    Effect.timeoutOption(settings.drainMs)
  )

  const closeAll = Effect.callback<void>((resume) => {
    for (const connection of connections) connection.close(CloseCode.restart, "the hub is stopping")
    const look = setInterval(() => connections.size === 0 && resume(Effect.void), 10)
    return Effect.sync(() => clearInterval(look))
  }).pipe(
    Effect.timeoutOption(closeTimeout),
    Effect.andThen(
      Effect.sync(() => {
        for (const connection of connections) connection.terminate()
      })
    )
  )

  const drain = Effect.suspend(() => {
    if (draining) return Effect.void
    draining = true
    return Effect.gen(function* () {
      yield* groups.drain
      const slot = settings.reconnectSpreadMs / Math.max(1, connections.size)
      let i = 0
      for (const connection of connections) connection.announceDrain(Math.round(slot * i++))
      yield* quiet
      yield* closeAll
    })
  })

  yield* Effect.addFinalizer(() => drain)

  return Gateway.of({
    url: `ws://${host}:${port}`,
    connections: () => Array.from(connections, (connection) => connection.info),
    isDraining: () => draining,
    drain
  })
})

export const layer = (
  options: Options
): Layer.Layer<
  Gateway,
  CannotListen | StoreUnavailable,
  AccessControl | Appender | GroupDelivery | Ids | LiveFeed | RateLimiter | Revocations | TokenVerifier
> => Layer.effect(Gateway, make(options))
