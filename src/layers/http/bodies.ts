/**
 * The bodies of requests, before anything is believed of them: they come in time, they are UTF-8, and their JSON is not
 * deeper than whoever walks through it can stand.
 */
import { IncomingMessage } from "node:http"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Effect from "effect/Effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import * as Json from "../../domain/Json.ts"
import { problem } from "./answers.ts"
import { UnsupportedEncoding } from "./LogApi.ts"
import { BadRequest } from "./OpsContract.ts"

type Request = HttpServerRequest.HttpServerRequest
type Response = HttpServerResponse.HttpServerResponse

const hasBody = ({ headers }: Request): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0

/** Ends when the body is late; of one that is read as it comes, when it stood still for so long. */
const late = Effect.fnUntraced(function* (source: IncomingMessage, timeoutMs: number, isStream: boolean) {
  for (let before = source.socket.bytesRead; ; before = source.socket.bytesRead) {
    yield* Effect.sleep(timeoutMs)
    if (source.complete) return yield* Effect.never
    // What has come and is not read yet waits for the hub, and not for the client.
    if (!isStream || (source.socket.bytesRead === before && source.readableLength === 0)) return
  }
})

const tooLate = HttpServerResponse.setHeader(
  problem(408, "Request Timeout", "the body took too long to come"),
  "connection",
  "close"
)

/** The answer; or 408, when the body of the request does not come. */
export const inTime =
  (request: Request, timeoutMs: number, isStream: boolean) =>
  <E, R>(answer: Effect.Effect<Response, E, R>): Effect.Effect<Response, E, R> => {
    const source = NodeHttpServerRequest.toIncomingMessage(request)
    if (!hasBody(request) || !(source instanceof IncomingMessage)) return answer
    return Effect.raceFirst(answer, Effect.as(late(source, timeoutMs, isStream), tooLate))
  }

const utf8 = new TextDecoder("utf-8", { fatal: true })

const refuse = (detail: string) => Effect.die(new BadRequest({ detail }))

/** Only an import is unpacked: nobody else's body is larger than it says. */
const isPacked = ({ headers }: Request): boolean =>
  !["", "identity"].includes(headers["content-encoding"]?.trim().toLowerCase() ?? "")

/** The request with a text that can be gone through; what has none is refused when somebody asks for it. */
export const checked = (request: Request, maxDepth: number): Request => {
  if (isPacked(request)) {
    const detail = "a body is sent as it is here, without a 'content-encoding'"
    const text = Effect.die(new UnsupportedEncoding({ detail }))
    return Object.create(request, { text: { get: () => text } }) as Request
  }
  const text = Effect.flatMap(request.arrayBuffer, (bytes) => {
    let text: string
    try {
      text = utf8.decode(bytes)
    } catch {
      return refuse("the body is not UTF-8")
    }
    return Json.isTextDeeper(text, maxDepth)
      ? refuse(`the body has more than ${maxDepth} objects and arrays within each other`)
      : Effect.succeed(text)
  })
  // All else is the request's own, which knows how its body is read.
  return Object.create(request, { text: { get: () => text } }) as Request
}
