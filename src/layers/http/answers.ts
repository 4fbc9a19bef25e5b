/** What every answer of the ops server carries, and what says that something is wrong, by whatever part it is said. */
import { HttpServerResponse, ProblemDetails } from "effect/http"

type Headers = Readonly<Record<string, string>>

/** For whoever may get at what is answered: taken for what it says it is, kept by nobody, and shown in no other page. */
export const protective: Headers = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin"
}

/** A year; what was encrypted once is not asked for in the open again (RFC 6797). */
export const strictTransport: Headers = { "strict-transport-security": "max-age=31536000" }

export const problem = (
  status: number,
  title: string,
  detail: string
): HttpServerResponse.HttpServerResponse =>
  ProblemDetails.toResponse({ type: ProblemDetails.blankType, status, title, detail })

/** What an answer says for itself stands. */
export const withHeaders = (
  response: HttpServerResponse.HttpServerResponse,
  isSecure: boolean
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setHeaders(response, {
    ...protective,
    ...(isSecure ? strictTransport : {}),
    ...(response.status === 401 ? { "www-authenticate": 'Bearer realm="event-hub"' } : {}),
    ...response.headers
  })

/** The same as bytes, for a connection on which no request could be made out. */
export const rawProblem = (status: number, title: string, detail: string, isSecure: boolean): string => {
  const body = JSON.stringify({ type: ProblemDetails.blankType, status, title, detail })
  const headers = {
    ...protective,
    ...(isSecure ? strictTransport : {}),
    "content-type": ProblemDetails.contentType,
    "content-length": String(Buffer.byteLength(body)),
    connection: "close"
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${title}\r\n${lines.join("")}\r\n${body}`
}
