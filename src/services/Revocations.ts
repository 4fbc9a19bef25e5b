/** Tokens that are good by themselves and refused nevertheless. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { Claims } from "../domain/Claims.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export type Revocation =
  /** One token, by its `jti`. */
  | { readonly _tag: "Token"; readonly tokenId: string }
  /** Every token of a subject that was issued before a time (milliseconds since 1970). */
  | { readonly _tag: "Subject"; readonly sub: string; readonly issuedBefore: number }
  /** Every token that was issued before a time. */
  | { readonly _tag: "IssuedBefore"; readonly issuedBefore: number }

export class Revocations extends Context.Service<
  Revocations,
  {
    readonly revoke: (revocation: Revocation) => Effect.Effect<void, StoreUnavailable>
    /** By what is known here. A token without `iat` counts as issued before any time. */
    readonly isRevoked: (claims: Claims) => boolean
    /** Something was revoked: whoever has a session looks again. */
    readonly changes: Stream.Stream<void>
  }
>()("event-hub/services/Revocations") {}
