/**
 * Tokens that are good by themselves and refused nevertheless.
 *
 * What is revoked stands in the store, so it holds for every hub of it and after a restart. Other hubs learn of it within
 * a bounded time (`Settings.revocations`); one that cannot ask the store for longer knows that it does not know.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Claims } from "../domain/Claims.ts"
import type { Entry, Revocation } from "../domain/Revocation.ts"
import type { Page } from "./Page.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export interface RevocationDetails {
  /** The `sub` of whoever revokes; the hub itself unless it is given. */
  readonly by?: string
  readonly reason?: string | undefined
  /** Of a token that is revoked by its id: when it expires. The revocation is forgotten soon after. */
  readonly expiresAt?: number | undefined
}

/** Each hub has all of them in memory: there are as many as its settings allow. */
export class TooManyRevocations extends Schema.TaggedError<TooManyRevocations>()("TooManyRevocations", {
  limit: Schema.Int
}) {
  override get message() {
    return (
      `there are ${this.limit} revocations, as many as the hub keeps (LIMIT_REVOCATIONS): take back those whose tokens ` +
      "have expired, or revoke what was issued before a time, which stands for all of them and is always taken"
    )
  }
}

export class Revocations extends Context.Service<
  Revocations,
  {
    /** It is durable and in force at this hub when it is answered; at the others soon. */
    readonly revoke: (
      what: Revocation,
      details?: RevocationDetails
    ) => Effect.Effect<Entry, StoreUnavailable | TooManyRevocations>
    /** Takes a revocation back: what it refused is taken again. False: there is none with this id. */
    readonly remove: (id: string) => Effect.Effect<boolean, StoreUnavailable>
    /** As the store has them, by their ids. */
    readonly list: (page?: {
      readonly after?: string | undefined
      readonly limit?: number
    }) => Effect.Effect<Page<Entry>, StoreUnavailable>
    /** By what is known here. A token without `iat` counts as issued before any time. */
    readonly isRevoked: (claims: Claims) => boolean
    /** False: the store could not be asked for so long that something may have been revoked and is not known here. */
    readonly isCurrent: () => boolean
    /** What is revoked has changed: whoever has a session looks again. */
    readonly changes: Stream.Stream<void>
  }
>()("event-hub/services/Revocations") {}
