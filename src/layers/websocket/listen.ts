/** The port of the gateway: a server that waits for nobody too long, and holds no more sockets than it may. */
import { createServer, type Server, type ServerOptions } from "node:http"
import type { Duplex } from "node:stream"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { CannotListen } from "../../services/Gateway.ts"

/** Makes the server; one that speaks TLS, where that is wanted. */
export type MakeServer = (options: ServerOptions) => Server

export interface ListenOptions {
  readonly host: string
  readonly port: number
  readonly server?: MakeServer | undefined
  /** The head of a request that takes longer to come is not waited for. */
  readonly headMs: number
  readonly maxSockets: number
  /** Is given the server before it listens: nobody comes earlier than who opens the door. */
  readonly serve: (server: Server) => void
}

/** How often Node looks for heads that take too long; by default every 30 seconds, which is as good as never. */
const checkMs = 500

const closeTimeout = "1 second"

export const listen = (options: ListenOptions): Effect.Effect<Server, CannotListen, Scope.Scope> => {
  const { headMs, host, maxSockets, port, serve, server: make = createServer } = options
  return Effect.acquireRelease(
    Effect.callback<Server, CannotListen>((resume) => {
      const server = make({
        headersTimeout: headMs,
        requestTimeout: headMs,
        connectionsCheckingInterval: Math.min(checkMs, headMs)
      })
      server.maxConnections = maxSockets
      serve(server)
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
}

/** Answers a handshake that leads to nothing. Its socket is the server's no more: nobody else would close it. */
export const refuse = (socket: Duplex, status: string, why: string): void => {
  socket.on("error", () => {})
  socket.once("finish", () => socket.destroy())
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: ${why.length}\r\n\r\n${why}`
  )
}
