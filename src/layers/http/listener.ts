/**
 * The node:http server under the ops server, with what keeps strangers from holding it: so many connections, and so much
 * time for the head of a request. What is no request at all is answered here.
 */
import { createServer, type Server, type ServerOptions } from "node:http"
import type { Duplex } from "node:stream"
import { Server as TlsServer } from "node:tls"
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

export const listener = (
  { headersTimeoutMs, bodyTimeoutMs, maxConnections }: OpsSettings,
  make: MakeServer = createServer
): Server => {
  const server = make({
    headersTimeout: headersTimeoutMs,
    // An import takes as long as it takes; bodies have time-outs of their own.
    requestTimeout: 0,
    connectionsCheckingInterval: lookEveryMs(headersTimeoutMs),
    // Nothing here is upgraded, and what follows the head of a request is its body.
    shouldUpgradeCallback: () => false
  })
  server.maxConnections = maxConnections

  /** Connections with a request that has no answer yet: nothing else may be written there. */
  const answering = new WeakMap<Duplex, number>()
  server.on("request", (request, response) => {
    const { socket } = request
    answering.set(socket, (answering.get(socket) ?? 0) + 1)
    response.once("close", () => answering.set(socket, (answering.get(socket) ?? 1) - 1))
    // A body that nobody waits for any more holds its connection for as long as any other, and no longer.
    response.once("finish", () => {
      if (request.complete) return
      const timer = setTimeout(() => socket.destroy(), bodyTimeoutMs)
      request.once("close", () => clearTimeout(timer))
    })
  })

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
