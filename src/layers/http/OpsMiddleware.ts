/** What stands before the endpoints of OpsApi: whose token it is, and what is wrong with a request that does not fit. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as SchemaIssue from "effect/SchemaIssue"
import { HttpApiMiddleware } from "effect/http-api"
import { TokenVerifier } from "../../services/TokenVerifier.ts"
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

export const authorization = Layer.effect(
  Authorization,
  Effect.gen(function* () {
    const { verify } = yield* TokenVerifier
    return Authorization.of({
      bearer: (effect, { credential }) => {
        const token = Redacted.value(credential)
        if (token === "") {
          return Effect.fail(
            new Unauthorized({ detail: "a bearer token is missing from the Authorization header" })
          )
        }
        return Effect.flatMap(
          Effect.mapError(verify(token), (error) =>
            error._tag === "VerifierUnavailable"
              ? new Unavailable({ detail: error.message })
              : new Unauthorized({ detail: error.message })
          ),
          (claims) => Effect.provideService(effect, CurrentClaims, claims)
        )
      }
    })
  })
)
