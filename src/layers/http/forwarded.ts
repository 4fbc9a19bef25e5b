/** Who asks, and for what: as the connection says, or as the proxy before the hub does. */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Option from "effect/Option"
import type { HttpServerRequest } from "effect/http"
import * as Forwarded from "../../domain/Forwarded.ts"

type Request = HttpServerRequest.HttpServerRequest

/** The client's address. */
export const addressOf = (request: Request, trustProxy: boolean): Option.Option<string> =>
  Option.orElse(
    Option.fromUndefinedOr(trustProxy ? Forwarded.address(request.headers["x-forwarded-for"]) : undefined),
    () => request.remoteAddress
  )

/** The host, and the port, that the client knows the hub by. */
export const hostOf = (request: Request, trustProxy: boolean): string =>
  (trustProxy ? Forwarded.last(request.headers["x-forwarded-host"]) : undefined) ??
  request.headers["host"] ??
  ""

export const isEncrypted = (request: Request, trustProxy: boolean): boolean => {
  const told = trustProxy ? Forwarded.last(request.headers["x-forwarded-proto"]) : undefined
  if (told !== undefined) return told.toLowerCase() === "https"
  return "encrypted" in NodeHttpServerRequest.toIncomingMessage(request).socket
}
