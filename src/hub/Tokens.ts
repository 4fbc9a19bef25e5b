/** Which tokens a hub takes: as configured, or those of a secret made for this run. */
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as RevocableTokenVerifier from "../layers/core/RevocableTokenVerifier.ts"
import * as JwtTokenVerifier from "../layers/jwt/JwtTokenVerifier.ts"
import { mintToken } from "../layers/jwt/mintToken.ts"
import * as StaticTokenVerifier from "../layers/jwt/StaticTokenVerifier.ts"
import type { ConfigFiles } from "../services/ConfigFiles.ts"
import type { Revocations } from "../services/Revocations.ts"
import type { TokenVerifier } from "../services/TokenVerifier.ts"
import type { Keys } from "./HubAuth.ts"
import type { HubSettings } from "./HubConfig.ts"

export interface Tokens {
  readonly verifier: Layer.Layer<TokenVerifier, never, Revocations | ConfigFiles>
  /** A token for whoever started a hub without configuring one. */
  readonly devToken: string | undefined
}

/** Everything, also what the hub writes itself: it is the developer's own hub. */
const devScopes = ["publish:**", "subscribe:**", "subscribe:$dead.**", "subscribe:$hub.**", "admin:**"]
const devTokenTtlMs = 24 * 60 * 60 * 1000

export const make = (settings: HubSettings): Effect.Effect<Tokens> =>
  Effect.gen(function* () {
    const { audience, auth, issuer, tokens } = settings
    const jwt = (keys: JwtTokenVerifier.Options["keys"]) =>
      JwtTokenVerifier.layer({ keys, audience, issuer, clockToleranceMs: tokens.clockToleranceMs })

    if (auth._tag === "Random") {
      const secret = randomBytes(32)
      const devToken = yield* mintToken({
        secret,
        sub: "dev",
        scopes: devScopes,
        ttlMs: devTokenTtlMs,
        audience,
        issuer
      })
      return { verifier: RevocableTokenVerifier.layer(jwt({ _tag: "Secret", secret })), devToken }
    }

    const byKeys = (keys: Keys) =>
      jwt(
        keys._tag === "JwksUrl"
          ? { _tag: "Jwks", url: keys.url }
          : keys._tag === "JwksFile"
            ? { _tag: "Jwks", url: new URL(`file:${keys.path}`) }
            : { _tag: "Secret", secret: new TextEncoder().encode(Redacted.value(keys.secrets[0])) }
      )
    const verifier =
      auth._tag === "Keys"
        ? byKeys(auth.keys)
        : StaticTokenVerifier.layer(Redacted.value(auth.token), auth.keys && byKeys(auth.keys))
    return { verifier: RevocableTokenVerifier.layer(verifier), devToken: undefined }
  })
