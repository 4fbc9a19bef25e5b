/**
 * The contract of what the ops HTTP API lets people do about tokens that are out: refuse them from now on, and take that
 * back. It takes the right to administrate everything.
 */
import * as Schema from "effect/Schema"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { maxTokenIdLength } from "../../domain/Claims.ts"
import {
  After,
  Authorization,
  BadRequest,
  Conflict,
  Count,
  dryRun,
  dryRunInQuery,
  Forbidden,
  Limit,
  Next,
  NotFound,
  reason,
  strict,
  Unavailable
} from "./OpsContract.ts"

/** A time in seconds, which tokens have, would be one of January 1970 here. */
const Millis = Schema.Int.check(
  Schema.isBetween({ minimum: 1e11, maximum: 8.64e15 }, { message: "Expected milliseconds since 1970" })
)

const TokenId = Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(maxTokenIdLength)).annotate({
  description: "The `jti` of one token. A token without one cannot be revoked by it."
})

const Subject = Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(256)).annotate({
  description: "The `sub` of tokens."
})

const issuedBefore = Schema.optionalKey(
  Millis.annotate({
    description:
      "Milliseconds since 1970: tokens whose `iat` is earlier, and those without one. With `sub` alone: now. Not later than a minute from now."
  })
)

export const RevocationJson = Schema.Struct({
  id: Schema.String,
  tokenId: Schema.NullOr(Schema.String),
  sub: Schema.NullOr(Schema.String),
  issuedBefore: Schema.NullOr(Schema.Finite),
  revokedAt: Schema.Finite,
  by: Schema.String.annotate({ description: "The `sub` of whoever revoked." }),
  reason: Schema.NullOr(Schema.String),
  until: Schema.NullOr(Schema.Finite).annotate({
    description:
      "From then on the tokens that it is about are refused anyway, and it is forgotten; null: it is kept."
  })
}).annotate({ identifier: "Revocation" })

export const RevocationList = HttpApiGroup.make("revocations")
  .add(
    HttpApiEndpoint.post("revoke", "/revocations", {
      payload: Schema.Struct({
        tokenId: Schema.optionalKey(TokenId),
        sub: Schema.optionalKey(Subject),
        issuedBefore,
        expiresAt: Schema.optionalKey(
          Millis.annotate({
            description:
              "With `tokenId`: when that token expires, in milliseconds since 1970, which is not over yet. The revocation is forgotten then; one too early would let the token in again."
          })
        ),
        ...dryRun,
        ...reason
      }),
      success: Schema.Struct({
        id: Schema.NullOr(Schema.String).annotate({ description: "null: it was a dry run." }),
        dryRun: Schema.Boolean,
        connections: Count.annotate({
          description: "Connections to this hub that it ends. Those to other hubs of the same store end, too."
        }),
        self: Schema.Boolean.annotate({ description: "The caller's own token is among those." })
      }).annotate({ identifier: "Revoked" }),
      error: [BadRequest, Forbidden, Conflict, Unavailable]
    }).annotate(
      OpenApi.Description,
      "Refuses tokens from now on: one by its `tokenId`; those of a `sub`, issued until now or before a time; or all that were issued before a time. Connections that have one are closed with 4102, at every hub of the store."
    ),
    HttpApiEndpoint.get("revocations", "/revocations", {
      query: { after: Schema.optionalKey(After), limit: Schema.optionalKey(Limit) },
      success: Schema.Struct({ revocations: Schema.Array(RevocationJson), next: Next }).annotate({
        identifier: "Revocations"
      }),
      error: [BadRequest, Forbidden, Unavailable]
    }).annotate(OpenApi.Description, "What is revoked, the oldest first."),
    HttpApiEndpoint.delete("remove", "/revocations/:id", {
      params: { id: Schema.String },
      query: { ...dryRunInQuery, ...reason },
      success: Schema.Struct({ id: Schema.String, dryRun: Schema.Boolean }).annotate({
        identifier: "RevocationRemoved"
      }),
      error: [BadRequest, Forbidden, NotFound, Unavailable]
    }).annotate(
      OpenApi.Description,
      "Takes a revocation back: tokens that nothing else refuses are taken again, at other hubs soon."
    )
  )
  .middleware(Authorization)
  .annotate(HttpApi.PayloadParseOptions, strict)
  .annotate(HttpApi.QueryParseOptions, strict)
