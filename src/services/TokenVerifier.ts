/** From a token to what it says, or why it is refused. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Claims } from "../domain/Claims.ts"

/** Missing, malformed, badly signed, for somebody else, or with claims that cannot be used. */
export class TokenInvalid extends Schema.TaggedError<TokenInvalid>()("TokenInvalid", {
  /** For the log and for developers; it never holds the token or a key. */
  reason: Schema.String,
  /** Whose token it is, where its signature is good and what it says is not: its issuer has to know. For the log. */
  sub: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    return `the token was refused: ${this.reason}`
  }
}

/** Its signature is good and its time is over, or has not come. */
export class TokenExpired extends Schema.TaggedError<TokenExpired>()("TokenExpired", {
  reason: Schema.String
}) {
  override get message() {
    return `the token was refused: ${this.reason}`
  }
}

/** The keys to verify it with cannot be had right now. The token may be good: try again. */
export class VerifierUnavailable extends Schema.TaggedError<VerifierUnavailable>()("VerifierUnavailable", {
  reason: Schema.String
}) {
  override get message() {
    return `tokens cannot be verified at the moment: ${this.reason}`
  }
}

export class TokenVerifier extends Context.Service<
  TokenVerifier,
  {
    readonly verify: (
      token: string
    ) => Effect.Effect<Claims, TokenInvalid | TokenExpired | VerifierUnavailable>
  }
>()("event-hub/services/TokenVerifier") {}
