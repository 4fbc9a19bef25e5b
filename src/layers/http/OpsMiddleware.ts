/** What stands before the endpoints of OpsApi: whose token it is, and what is wrong with a request that does not fit. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as SchemaIssue from "effect/SchemaIssue"
import { HttpServerRequest } from "effect/http"
import { HttpApiMiddleware } from "effect/http-api"
import * as AuthDelay from "../../domain/AuthDelay.ts"
import type { Claims } from "../../domain/Claims.ts"
import type { AuthSettings, GatewaySettings } from "../../domain/Settings.ts"
import { Revocations } from "../../services/Revocations.ts"
import { type TokenExpired, type TokenInvalid, TokenVerifier } from "../../services/TokenVerifier.ts"
import { Refusals } from "../core/Refusals.ts"
import { makeEndedBy } from "./endedBy.ts"
import { HttpDenials } from "./HttpDenials.ts"
import {
  Authorization,
  BadRequest,
  CurrentClaims,
  Problems,
  Unauthorized,
  Unavailable
} from "./OpsContract.ts"

const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1()

/** What a part of a request is called. */
const slots: Readonly<Record<string, string>> = {
  Query: "query parameter",
  Params: "path parameter",
  Payload: "body field"
}

/** A request that does not fit is answered with what does not fit, by name. */
export const problems = HttpApiMiddleware.layerSchemaErrorTransform(Problems, (error) => {
  const slot = slots[error.kind] ?? error.kind.toLowerCase()
  const details = formatIssues(error.cause.issue).issues.map(({ message, path = [] }) => {
    const name = path.map((part) => String(typeof part === "object" ? part.key : part)).join(".")
    if (name === "") return `the ${error.kind === "Payload" ? "body" : error.kind.toLowerCase()}: ${message}`
    if (message === "Missing key") return `${slot} '${name}' is missing`
    return message === "Expected no excess property"
      ? `there is no ${slot} '${name}'`
      : `${slot} '${name}': ${message}`
  })
  // What could be several things is wrong in each of them.
  return Effect.fail(new BadRequest({ detail: [...new Set(details)].join("; ") }))
})

/** Of a reason that goes into the log. */
const maxReason = 200

/**
 * The request with a text that is given only to a caller who is still good when all of it has come: a body may be as late
 * as it likes, within its time, and a token that was revoked or ran out meanwhile does nothing any more. What is read as
 * it comes (an import) asks by itself.
 */
const fromStillGood = (
  request: HttpServerRequest.HttpServerRequest,
  check: Effect.Effect<void>
): HttpServerRequest.HttpServerRequest => {
  const text = Effect.tap(request.text, check)
  // All else is the request's own, which knows how its body is read.
  return Object.create(request, { text: { get: () => text } }) as HttpServerRequest.HttpServerRequest
}

/**
 * Refused tokens are logged, and those that look guessed are answered late, as by the gateway: each address a little later
 * each time. What is accepted never waits.
 */
export const authorization = (
  settings: GatewaySettings,
  { clockToleranceMs }: Pick<AuthSettings, "clockToleranceMs">
) =>
  Layer.effect(
    Authorization,
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      const revocations = yield* Revocations
      const endedBy = yield* makeEndedBy(clockToleranceMs)
      const refusals = new Refusals(settings)
      const denials = yield* HttpDenials

      const refuse = Effect.fnUntraced(function* ({ _tag, message, reason }: TokenInvalid | TokenExpired) {
        const request = yield* HttpServerRequest.HttpServerRequest
        const now = yield* Clock.currentTimeMillis
        const address = Option.getOrElse(request.remoteAddress, () => "unknown")
        const code = _tag === "TokenExpired" ? "token_expired" : "jwt_invalid"
        yield* denials.tell({
          what: "a token was refused",
          who: AuthDelay.originOf(address),
          fields: { code, reason: reason.slice(0, maxReason) },
          at: { address }
        })
        // Whoever signs tokens made one that has expired: it was not guessed.
        if (_tag === "TokenInvalid") yield* Effect.sleep(refusals.delayMs(address, now))
        return yield* new Unauthorized({ detail: message })
      })

      /** A body that cannot be taken any more is a defect of its reading, and says itself what to answer. */
      const check = (claims: Claims): Effect.Effect<void> =>
        Effect.suspend(() => {
          const reason = endedBy(claims)()
          if (reason !== undefined) return Effect.die(new Unauthorized({ detail: reason }))
          return revocations.isCurrent()
            ? Effect.void
            : Effect.die(new Unavailable({ detail: "the store does not say which tokens were revoked" }))
        })

      return Authorization.of({
        bearer: (effect, { credential }) => {
          const token = Redacted.value(credential)
          if (token === "") {
            return Effect.fail(
              new Unauthorized({ detail: "a bearer token is missing from the Authorization header" })
            )
          }
          return Effect.flatMap(
            verify(token).pipe(
              Effect.catchTag("VerifierUnavailable", ({ message }) =>
                Effect.fail(new Unavailable({ detail: message }))
              ),
              Effect.catchTag(["TokenInvalid", "TokenExpired"], refuse)
            ),
            (claims) =>
              effect.pipe(
                Effect.provideService(CurrentClaims, claims),
                Effect.updateService(HttpServerRequest.HttpServerRequest, (request) =>
                  fromStillGood(request, check(claims))
                )
              )
          )
        }
      })
    })
  )
