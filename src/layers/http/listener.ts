/**
 * The node:http server under the ops server, with what keeps strangers from holding it: so many connections, and so much
 * time for the head of a request. What is no request at all is answered here.
 *
 * When there are as many connections as there may be, one that nobody needs makes room for the next: whoever connects and
 * says nothing keeps nobody out.
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse
} from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { Server as TlsServer } from "node:tls"
import * as AuthDelay from "../../domain/AuthDelay.ts"
import type { OpsSettings } from "../../domain/Settings.ts"
import { rawProblem } from "./answers.ts"

export type MakeServer = (options: ServerOptions) => Server

/** Node looks for requests that are late now and then: not so often that it costs anything. */
const lookEveryMs = (timeoutMs: number): number => Math.max(50, Math.min(2_000, timeoutMs / 4))

export const isSecure = (server: Server): boolean => server instanceof TlsServer

const refusals: Readonly<Record<string, readonly [status: number, title: string, detail: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, "Request Timeout", "the head of the request took too long"],
  HPE_HEADER_OVERFLOW: [431, "Request Header Fields Too Large", "a head has at most 16 KiB"]
}

export interface ListenerOptions {
  readonly make?: MakeServer | undefined
  /** All connections come from the proxy: none of them says who has too many. */
  readonly trustProxy?: boolean
  /** A connection was closed so that there are no more than there may be. */
  readonly onDropped?: () => void
}

/** Connections of one address: a tenth of all, and as many as a browser and a scraper have together. */
const leastShare = 8
const shareOf = (maxConnections: number): number =>
  Math.min(maxConnections, Math.max(leastShare, Math.ceil(maxConnections / 10)))

/** Connections of all, or of one address. */
class Connections {
  size = 0
  /** Those without a whole head of a request so far, the oldest first. */
  readonly silent = new Set<Socket>()
  /** Those whose requests are answered, the longest idle first. */
  readonly idle = new Set<Socket>()

  /** The one that is missed the least. */
  get spare(): Socket | undefined {
    return this.silent.values().next().value ?? this.idle.values().next().value
  }
}

interface Place {
  readonly socket: Socket
  readonly among: ReadonlyArray<Connections>
  /** Requests without an answer yet. */
  asked: number
}

/** Who has a connection. Over TLS requests know another socket than connections do: what both know is the other side. */
class Places {
  readonly #all = new Connections()
  readonly #byOrigin = new Map<string, Connections>()
  readonly #byPeer = new Map<string, Place>()
  readonly #bySocket = new Map<Socket, () => void>()
  readonly #maxConnections: number
  readonly #share: number
  readonly #onDropped: () => void

  constructor(maxConnections: number, share: number, onDropped: () => void) {
    this.#maxConnections = maxConnections
    this.#share = share
    this.#onDropped = onDropped
  }

  static #peerOf({ remoteAddress, remotePort }: Socket): string {
    return `${remoteAddress} ${remotePort}`
  }

  add(socket: Socket): void {
    const origin = AuthDelay.originOf(socket.remoteAddress ?? "unknown")
    const before = this.#byOrigin.get(origin)
    if (before !== undefined && before.size >= this.#share) this.#drop(before.spare ?? socket)
    else if (this.#all.size >= this.#maxConnections) this.#drop(this.#all.spare ?? socket)
    if (socket.destroyed) return
    // It may be gone by now: its last one may just have been dropped.
    const mine = this.#byOrigin.get(origin) ?? new Connections()
    this.#byOrigin.set(origin, mine)
    const peer = Places.#peerOf(socket)
    const place: Place = { socket, among: [this.#all, mine], asked: 0 }
    this.#byPeer.set(peer, place)
    for (const connections of place.among) {
      connections.size++
      connections.silent.add(socket)
    }
    const leave = (): void => {
      if (!this.#bySocket.delete(socket)) return
      if (this.#byPeer.get(peer) === place) this.#byPeer.delete(peer)
      for (const connections of place.among) {
        connections.size--
        connections.silent.delete(socket)
        connections.idle.delete(socket)
      }
      if (mine.size === 0) this.#byOrigin.delete(origin)
    }
    this.#bySocket.set(socket, leave)
    socket.once("close", leave)
  }

  /** A request has come; what is given back is called when it has its answer. */
  asked(socket: Socket): () => void {
    const place = this.#byPeer.get(Places.#peerOf(socket))
    if (place === undefined) return () => {}
    place.asked++
    for (const { idle, silent } of place.among) {
      silent.delete(place.socket)
      idle.delete(place.socket)
    }
    return () => {
      if (--place.asked > 0 || !this.#bySocket.has(place.socket)) return
      for (const { idle } of place.among) idle.add(place.socket)
    }
  }

  #drop(socket: Socket): void {
    // Its place is free at once: whether it is closed by now is for the system to know.
    this.#bySocket.get(socket)?.()
    socket.destroy()
    this.#onDropped()
  }
}

export const listener = (
  { headersTimeoutMs, bodyTimeoutMs, maxConnections }: OpsSettings,
  { make = createServer, onDropped = () => {}, trustProxy = false }: ListenerOptions = {}
): Server => {
  const server = make({
    headersTimeout: headersTimeoutMs,
    // An import takes as long as it takes; bodies have time-outs of their own.
    requestTimeout: 0,
    connectionsCheckingInterval: lookEveryMs(headersTimeoutMs),
    // Nothing here is upgraded, and what follows the head of a request is its body.
    shouldUpgradeCallback: () => false
  })
  const places = new Places(maxConnections, trustProxy ? Infinity : shareOf(maxConnections), onDropped)
  server.on("connection", (socket: Socket) => places.add(socket))
  // One more than there may be has to come, so that another can go. This is the end, should none go.
  server.maxConnections = maxConnections + 1
  server.on("drop", onDropped)

  /** Connections with a request that has no answer yet: nothing else may be written there. */
  const answering = new WeakMap<Duplex, number>()
  const begin = (request: IncomingMessage, response: ServerResponse): void => {
    const { socket } = request
    const answered = places.asked(socket)
    answering.set(socket, (answering.get(socket) ?? 0) + 1)
    response.once("close", () => {
      answering.set(socket, (answering.get(socket) ?? 1) - 1)
      answered()
    })
    // A body that nobody waits for any more holds its connection for as long as any other, and no longer.
    response.once("finish", () => {
      if (request.complete) return
      const timer = setTimeout(() => socket.destroy(), bodyTimeoutMs)
      request.once("close", () => clearTimeout(timer))
    })
  }
  server.on("request", begin)
  // One that waits to be asked for its body comes so, since whoever answers requests asks for it.
  server.on("checkContinue", begin)

  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    const { code = "" } = error
    // A handshake that failed, or a connection that is gone, has nobody to be told.
    if (!/^(?:HPE|ERR_HTTP)_/.test(code) || !socket.writable || (answering.get(socket) ?? 0) > 0) {
      socket.destroy()
      return
    }
    const [status, title, detail] = refusals[code] ?? [400, "Bad Request", "this is no HTTP"]
    socket.end(rawProblem(status, title, detail, isSecure(server)))
    setTimeout(() => socket.destroy(), 1_000).unref()
  })
  return server
}
