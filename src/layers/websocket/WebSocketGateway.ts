/**
 * The Gateway on `ws`: accepts connections that may come, keeps their time, and closes them in good order.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import type { Duplex } from "node:stream"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { WebSocketServer } from "ws"
import * as AuthDelay from "../../domain/AuthDelay.ts"
import type { Claims } from "../../domain/Claims.ts"
import * as Forwarded from "../../domain/Forwarded.ts"
import * as Quota from "../../domain/Quota.ts"
import * as Settings from "../../domain/Settings.ts"
import { CloseCode, SUBPROTOCOL } from "../../protocol/Codes.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { Appender } from "../../services/Appender.ts"
import { type CannotListen, Gateway } from "../../services/Gateway.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { GroupDelivery } from "../../services/GroupDelivery.ts"
import { Ids } from "../../services/Ids.ts"
import { LiveFeed } from "../../services/LiveFeed.ts"
import { RateLimiter } from "../../services/RateLimiter.ts"
import { Revocations } from "../../services/Revocations.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { TokenVerifier } from "../../services/TokenVerifier.ts"
import * as denialLogging from "../core/denialLogging.ts"
import { goOn } from "../core/goOn.ts"
import * as metrics from "../core/metrics.ts"
import { Refusals } from "../core/Refusals.ts"
import { Connection } from "./Connection.ts"
import type { GatewayContext } from "./GatewayContext.ts"
import { Intake } from "./Intake.ts"
import { listen, type MakeServer, refuse } from "./listen.ts"
import { mayConnect } from "./origin.ts"
import { bytesBesideToken, Strangers } from "./Strangers.ts"

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
  /** A proxy stands before the hub: who a client is, and which host it called, is what that says. */
  readonly trustProxy?: boolean
  /** Makes the server; without it, one that speaks plain HTTP. */
  readonly server?: MakeServer | undefined
  /** The server speaks TLS. */
  readonly isSecure?: boolean
}

type Fields = Readonly<Record<string, string | undefined>>

/** While the store is behind, how often it is looked whether it still is. */
const lookAgain = "10 millis"

/** Connections that are told that there are too many, and have not gone yet; beyond, not even that is told. */
const refusedAtOnce = 100

/** How long a closing hub waits for clients to answer its close frames. */
const closeTimeout = "1 second"

/** The head of a request that takes longer than this is not waited for. */
const handshakeTimeoutMs = 10_000

/** Sockets whose handshake is not done yet, besides connections. */
const handshakesAtOnce = 1_000

/** How long a connection that was closed waits for its client's answer. */
const closingMs = 5_000

/** Subscriptions that are decided on in one turn of the event loop, when all of them are. */
const decisionsAtOnce = 500

/** Of a reason that goes into the log. */
const maxReason = 200

const offered = (request: IncomingMessage): ReadonlyArray<string> =>
  (request.headers["sec-websocket-protocol"] ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")

const addressOf = (request: IncomingMessage, trustProxy: boolean): string =>
  (trustProxy ? Forwarded.address(request.headers["x-forwarded-for"]) : undefined) ??
  request.socket.remoteAddress ??
  "unknown"

const hostOf = (request: IncomingMessage, trustProxy: boolean): string | undefined =>
  (trustProxy ? Forwarded.last(request.headers["x-forwarded-host"]) : undefined) ?? request.headers.host

const make = Effect.fnUntraced(function* (options: Options) {
  const { auth = Settings.auth, limits = Settings.limits, settings = Settings.gateway } = options
  const { trustProxy = false } = options
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

  const strangers = new Strangers({
    bytesOfEach: auth.maxTokenBytes + bytesBesideToken,
    bytesOfAll: settings.maxAnonymousBytes
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

  // --- what is denied ----------------------------------------------------------------------------------------

  const now = () => clock.currentTimeMillisUnsafe()
  const refusals = new Refusals(settings)
  const denials = yield* denialLogging.make({
    leftOut: "more of it was denied than is logged",
    maxEntries: settings.maxAuthAddresses
  })

  const tell = (denied: denialLogging.Denied): void => {
    const line = denials.line(denied)
    if (line !== undefined) fork(line)
  }

  const contextFor = (id: string, address: string, spendingsOf = spendings(id)): GatewayContext => ({
    limits,
    settings,
    clockToleranceMs: auth.clockToleranceMs,
    expiryWarningMs: auth.expiryWarningMs,
    history,
    decide: access.decide,
    decideSubscription: access.decideSubscription,
    decideAdministration: access.decideAdministration,
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
    delayOf: (code, reason) => {
      tell({
        what: "a token was refused",
        who: AuthDelay.originOf(address),
        fields: { code, reason: reason.slice(0, maxReason) },
        at: { address, connection: id }
      })
      // Whoever signs tokens made this one: it was not guessed.
      return code === "token_expired" ? 0 : refusals.delayMs(address, now())
    },
    isRevoked: revocations.isRevoked,
    denied: ({ action, group, rule, topic }, sub) => {
      const fields = { sub, action, topic, group, rule }
      tell({ what: "forbidden", who: sub, fields, at: { connection: id, address } })
    },
    intake,
    strangers,
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
    now,
    fork: (effect) => fork(effect)
  })

  // Not among the types of `ws`.
  const closing = { closeTimeout: closingMs }
  const wss = new WebSocketServer({
    ...closing,
    noServer: true,
    clientTracking: false,
    maxPayload: limits.maxFrameBytes,
    perMessageDeflate: false,
    handleProtocols: () => SUBPROTOCOL
  })

  const explain = (_request: IncomingMessage, response: ServerResponse): void => {
    response.writeHead(426, { Connection: "Upgrade", Upgrade: "websocket", "Content-Type": "text/plain" })
    response.end("This port speaks WebSocket.\n")
  }

  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const address = addressOf(request, trustProxy)
    const turnAway = (reason: metrics.Refused, status: string, why: string, fields?: Fields): void => {
      recorder.add(metrics.connectionsRefused, 1, { reason })
      if (fields !== undefined) {
        const who = AuthDelay.originOf(address)
        tell({ what: "a connection was refused", who, fields: { reason, ...fields }, at: { address } })
      }
      refuse(socket, status, why)
    }
    if (draining) return turnAway("draining", "503 Service Unavailable", "The hub is stopping.\n")
    if (connections.size >= limits.maxConnections + refusedAtOnce) {
      return turnAway("too_many", "503 Service Unavailable", "The hub has too many connections.\n")
    }
    const { host, origin } = request.headers
    // Node asks for it (RFC 9112, section 3.2), but not of what it hands over here.
    if (host === undefined) return refuse(socket, "400 Bad Request", "A request names its host.\n")
    if (!mayConnect(origin, hostOf(request, trustProxy), options.origins)) {
      const fields = { origin: origin?.slice(0, maxReason) }
      return turnAway("origin", "403 Forbidden", "This origin may not connect.\n", fields)
    }
    const protocols = offered(request)
    if (protocols.length > 0 && !protocols.includes(SUBPROTOCOL)) {
      const fields = { offered: protocols.join(", ").slice(0, maxReason) }
      return turnAway("subprotocol", "400 Bad Request", `The subprotocol is ${SUBPROTOCOL}.\n`, fields)
    }
    wss.handleUpgrade(request, socket, head, (ws) => {
      const id = ids.next()
      const connection = new Connection({
        id,
        address,
        context: contextFor(id, address),
        ws,
        socket,
        onClosed: (closed) => connections.delete(closed)
      })
      connections.add(connection)
      recorder.add(metrics.connectionsOpened, 1)
      if (connections.size > limits.maxConnections) {
        recorder.add(metrics.connectionsRefused, 1, { reason: "too_many" satisfies metrics.Refused })
        connection.refuse(settings.reconnectSpreadMs)
      }
    })
  }

  const server = yield* listen({
    host: options.host,
    port: options.port,
    server: options.server,
    headMs: Math.min(handshakeTimeoutMs, settings.authTimeoutMs),
    maxSockets: limits.maxConnections + refusedAtOnce + handshakesAtOnce,
    serve: (server) => void server.on("request", explain).on("upgrade", upgrade)
  })
  const { port } = server.address() as AddressInfo
  const host = options.host.includes(":") ? `[${options.host}]` : options.host

  yield* recorder.gauge(metrics.connections, () => connections.size)
  yield* recorder.gauge(metrics.outboundBytes, () => {
    let bytes = 0
    for (const connection of connections) bytes += connection.outboundBytes
    return bytes
  })

  // --- time --------------------------------------------------------------------------------------------------

  const closeRevoked = (): void => {
    for (const connection of connections) {
      if (connection.claims !== undefined && revocations.isRevoked(connection.claims)) connection.revoked()
    }
  }

  const tickMs = Math.min(1_000, Math.max(20, Math.min(settings.authTimeoutMs, settings.heartbeatMs) / 10))
  yield* Effect.sleep(tickMs).pipe(
    Effect.andThen(
      Effect.sync(() => {
        const at = now()
        for (const connection of connections) connection.tick(at)
        closeRevoked()
      })
    ),
    goOn("looking after connections"),
    Effect.forever,
    Effect.forkScoped
  )

  yield* revocations.changes.pipe(
    Stream.runForEach(() => goOn("closing what was revoked")(Effect.sync(closeRevoked))),
    Effect.forkScoped
  )

  /** There may be ten thousand connections: others have their turns in between. */
  const decideAgain = Effect.callback<void>((resume) => {
    const all = connections.values()
    const decideOnSome = (): void => {
      try {
        for (let decided = 0; decided < decisionsAtOnce;) {
          const { done, value: connection } = all.next()
          if (done === true) return resume(Effect.void)
          connection.policyChanged()
          decided += 1 + connection.subscriptions
        }
      } catch (error) {
        return resume(Effect.die(error))
      }
      setImmediate(decideOnSome)
    }
    decideOnSome()
  })

  yield* access.changes.pipe(
    Stream.runForEach(() => goOn("deciding again")(decideAgain)),
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
    url: `${options.isSecure === true ? "wss" : "ws"}://${host}:${port}`,
    connections: () => Array.from(connections, (connection) => connection.info),
    sessions: () => Array.from(connections).flatMap(({ claims }) => claims ?? []),
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
