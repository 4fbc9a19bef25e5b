/** The endpoints of RevocationsApi, over Revocations. Who revoked what, and why, is logged. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { HttpApiBuilder } from "effect/http-api"
import { concerns, type Entry, type Revocation } from "../../domain/Revocation.ts"
import { Gateway } from "../../services/Gateway.ts"
import { Revocations } from "../../services/Revocations.ts"
import { audited } from "./audit.ts"
import { OpsApi } from "./OpsApi.ts"
import { BadRequest, Conflict, defaultLimit, NotFound, unavailable } from "./OpsContract.ts"
import { makeRights } from "./rights.ts"

/** How far a time may lie ahead of the hub's clock: a revocation of what is not issued yet would refuse everybody. */
const maxAheadMs = 60_000

/** Entries of one read, when it is looked for one of them. */
const scanSize = 1_000

interface Wanted {
  readonly tokenId?: string
  readonly sub?: string
  readonly issuedBefore?: number
  readonly expiresAt?: number
}

const refuse = (detail: string) => Effect.fail(new BadRequest({ detail }))

/** What is meant, where it is one thing. */
const meant = (
  { expiresAt, issuedBefore, sub, tokenId }: Wanted,
  now: number
): Effect.Effect<Revocation, BadRequest> => {
  if (issuedBefore !== undefined && issuedBefore > now + maxAheadMs) {
    return refuse("body field 'issuedBefore': it is later than now, and would refuse tokens to come")
  }
  if (tokenId !== undefined && expiresAt !== undefined && expiresAt <= now) {
    return refuse(
      "body field 'expiresAt': it is over, and the revocation would be forgotten at once; leave it out to be sure"
    )
  }
  if (tokenId !== undefined) {
    return sub === undefined && issuedBefore === undefined
      ? Effect.succeed({ _tag: "Token", tokenId })
      : refuse("the body names two things: give either 'tokenId', or 'sub' and 'issuedBefore'")
  }
  if (expiresAt !== undefined) {
    return refuse("body field 'expiresAt': it is of one token, and goes with 'tokenId' only")
  }
  if (sub !== undefined) return Effect.succeed({ _tag: "Subject", sub, issuedBefore: issuedBefore ?? now })
  return issuedBefore === undefined
    ? refuse("the body names nothing: give 'tokenId', 'sub' or 'issuedBefore'")
    : Effect.succeed({ _tag: "IssuedBefore", issuedBefore })
}

const fieldsOf = (what: Revocation) => ({
  tokenId: what._tag === "Token" ? what.tokenId : null,
  sub: what._tag === "Subject" ? what.sub : null,
  issuedBefore: what._tag === "Token" ? null : what.issuedBefore
})

/** As fields of a log line, whose `sub` is whoever did it. */
const loggedOf = (what: Revocation) => ({
  tokenId: what._tag === "Token" ? what.tokenId : undefined,
  subject: what._tag === "Subject" ? what.sub : undefined,
  issuedBefore: what._tag === "Token" ? undefined : what.issuedBefore
})

const shown = ({ by, id, reason, revokedAt, until, what }: Entry) => ({
  id,
  ...fieldsOf(what),
  revokedAt,
  by,
  reason: reason ?? null,
  until: until ?? null
})

export const revocations = HttpApiBuilder.group(
  OpsApi,
  "revocations",
  Effect.fn(function* (handlers) {
    const rights = yield* makeRights
    const revocations = yield* Revocations
    const gateway = yield* Gateway

    const find = (id: string) =>
      Effect.gen(function* () {
        let after: string | undefined
        do {
          const page = yield* revocations.list({ after, limit: scanSize })
          const found = page.items.find((entry) => entry.id === id)
          if (found !== undefined) return found
          after = page.next
        } while (after !== undefined)
        return undefined
      })

    return handlers.handleAll({
      revoke: ({ payload: { dryRun = false, reason, ...wanted } }) =>
        Effect.gen(function* () {
          const claims = yield* rights.permitEverything
          const what = yield* meant(wanted, yield* Clock.currentTimeMillis)
          const connections = gateway.sessions().filter((session) => concerns(what, session)).length
          const self = concerns(what, claims)
          if (dryRun) return { id: null, dryRun, connections, self }
          const details = { by: claims.sub, reason, expiresAt: wanted.expiresAt }
          const { id } = yield* Effect.mapError(
            audited(revocations.revoke(what, details), {
              what: "tokens revoked",
              reason,
              fields: { ...loggedOf(what), expiresAt: wanted.expiresAt },
              outcome: ({ id }) => ({ id, connections })
            }),
            (error) =>
              error._tag === "TooManyRevocations" ? new Conflict({ detail: error.message }) : unavailable()
          )
          return { id, dryRun, connections, self }
        }),

      revocations: ({ query: { after, limit = defaultLimit } }) =>
        Effect.gen(function* () {
          yield* rights.permitEverything
          const { items, next } = yield* Effect.mapError(revocations.list({ after, limit }), unavailable)
          return { revocations: items.map(shown), next: next ?? null }
        }),

      remove: ({ params: { id }, query: { dryRun, reason } }) =>
        Effect.gen(function* () {
          yield* rights.permitEverything
          const found = yield* Effect.mapError(find(id), unavailable)
          if (found === undefined) return yield* new NotFound({ detail: `there is no revocation '${id}'` })
          if (dryRun === "true") return { id, dryRun: true }
          yield* Effect.mapError(
            audited(revocations.remove(id), {
              what: "revocation removed",
              reason,
              fields: { id, ...loggedOf(found.what) }
            }),
            unavailable
          )
          return { id, dryRun: false }
        })
    })
  })
)
