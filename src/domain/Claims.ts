/**
 * What a verified token must hold, and the policy that follows from it.
 *
 * Verification (signature, issuer, audience, time) is the TokenVerifier's. This module reads the payload: a
 * token that says anything other than what is written here is refused, since a right that was meant but
 * misread is worse than a connection that does not come about.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Policy from "./Policy.ts"
import { valuesOf } from "./PolicyFile.ts"
import * as Quota from "./Quota.ts"

/** Of a `jti`, by which a token is revoked. */
export const maxTokenIdLength = 256

/** The last second that a date can name: 100,000,000 days after 1970 (ECMA-262, section 21.4.1.1). */
export const maxSeconds = 8_640_000_000_000

const Seconds = Schema.Finite.check(Schema.isBetween({ minimum: -maxSeconds, maximum: maxSeconds }))

/** The registered claims are those of RFC 7519, section 4.1; times are seconds since 1970. */
const Payload = Schema.Struct({
  sub: Schema.NonEmptyString.check(Schema.isMaxLength(256)),
  exp: Seconds,
  iat: Schema.optionalKey(Seconds),
  jti: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(maxTokenIdLength, {
        message: `Expected at most ${maxTokenIdLength} characters: a longer one could not be revoked`
      })
    )
  ),
  scopes: Schema.optionalKey(Schema.Array(Schema.String)),
  policy: Schema.optionalKey(Schema.Unknown),
  roles: Schema.optionalKey(Schema.Unknown),
  limits: Schema.optionalKey(Schema.Unknown)
})

/** Who a connection or a request is, and what it may do. */
export interface Claims {
  /** The subject: a user or a service. */
  readonly sub: string
  /** Milliseconds since 1970, after which these rights end; `Infinity` for a static token. */
  readonly expiresAt: number
  /** Milliseconds since 1970. */
  readonly issuedAt: number | undefined
  readonly tokenId: string | undefined
  /** What the token carries itself. What holds with its roles, AccessControl says. */
  readonly policy: Policy.Policy
  /** Roles of the policy file; none when it names none, or carries a policy, which wins over them. */
  readonly roles?: ReadonlyArray<string> | undefined
  /** The token's claims that can fill placeholders in rules of its roles. */
  readonly values?: Readonly<Record<string, string>> | undefined
  /** The claim `roles` is no list of names: where there is a policy file, the token is refused. */
  readonly hasBadRoles?: true | undefined
  /** How much it may send, where that is less than the configuration allows; none: as much as that. */
  readonly limits?: Quota.Quotas | undefined
}

export class InvalidClaims extends Schema.TaggedError<InvalidClaims>()("InvalidClaims", {
  reason: Schema.String
}) {
  override get message() {
    return `the token's claims cannot be used: ${this.reason}`
  }
}

const decodePayload = Schema.decodeUnknownResult(Payload)

/** A rule with a field that nobody knows may be one that was meant to restrict: it is refused. */
const decodePolicy = Schema.decodeUnknownResult(Policy.Policy, { onExcessProperty: "error" })

const policyOf = (payload: typeof Payload.Type): Result.Result<Policy.Policy, InvalidClaims> => {
  if (payload.policy !== undefined) {
    return Result.mapError(
      decodePolicy(payload.policy),
      (error) => new InvalidClaims({ reason: `policy: ${error.message}` })
    )
  }
  if (payload.scopes !== undefined) {
    return Result.mapError(
      Policy.scopesToPolicy(payload.scopes),
      (error) => new InvalidClaims({ reason: error.message })
    )
  }
  return Result.succeed(Policy.none)
}

const limitsOf = (payload: typeof Payload.Type): Result.Result<Quota.Quotas | undefined, InvalidClaims> =>
  payload.limits === undefined
    ? Result.succeed(undefined)
    : Result.mapError(Quota.parseClaim(payload.limits), (reason) => new InvalidClaims({ reason }))

const isListOfNames = Schema.is(Schema.Array(Schema.String))

/** What `roles` means depends on whether the hub has a policy file; hubs without one have never looked at it. */
const rolesOf = (
  { policy, roles }: typeof Payload.Type,
  payload: unknown
): Pick<Claims, "roles" | "values" | "hasBadRoles"> => {
  if (roles === undefined) return {}
  if (!isListOfNames(roles)) return { hasBadRoles: true }
  if (policy !== undefined || roles.length === 0) return {}
  return { roles, values: valuesOf(payload) }
}

/** From the payload of a token whose signature was good. An embedded `policy` wins over `scopes` and `roles`. */
export const parseClaims = (payload: unknown): Result.Result<Claims, InvalidClaims> =>
  Result.flatMap(
    Result.mapError(decodePayload(payload), (error) => new InvalidClaims({ reason: error.message })),
    (claims) =>
      Result.flatMap(policyOf(claims), (policy) =>
        Result.map(limitsOf(claims), (limits) => ({
          sub: claims.sub,
          expiresAt: claims.exp * 1000,
          issuedAt: claims.iat === undefined ? undefined : claims.iat * 1000,
          tokenId: claims.jti,
          policy,
          ...rolesOf(claims, payload),
          ...(limits === undefined ? {} : { limits })
        }))
      )
  )

/** `parseClaims` as an Effect. */
export const claims = (payload: unknown): Effect.Effect<Claims, InvalidClaims> =>
  Effect.fromResult(parseClaims(payload))
