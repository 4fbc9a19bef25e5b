/** Which tokens a hub takes: as configured, or those of a secret made for this run. */
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as metrics from "../layers/core/metrics.ts"
import * as RevocableTokenVerifier from "../layers/core/RevocableTokenVerifier.ts"
import * as JwtTokenVerifier from "../layers/jwt/JwtTokenVerifier.ts"
import { mintToken } from "../layers/jwt/mintToken.ts"
import * as StaticTokenVerifier from "../layers/jwt/StaticTokenVerifier.ts"
import type { CannotUseFile, ConfigFiles } from "../services/ConfigFiles.ts"
import type { Revocations } from "../services/Revocations.ts"
import type { TokenVerifier } from "../services/TokenVerifier.ts"
import type { Keys } from "./HubAuth.ts"
import type { HubSettings } from "./HubConfig.ts"

export type Settings = Pick<HubSettings, "audience" | "auth" | "issuer" | "jwks" | "tokens">

export interface Tokens {
  readonly verifier: Layer.Layer<TokenVerifier, CannotUseFile, Revocations | ConfigFiles>
  /** A token for whoever started a hub without configuring one. */
  readonly devToken: string | undefined
}

/** Everything, also what the hub writes itself: it is the developer's own hub. */
const devScopes = ["publish:**", "subscribe:**", "subscribe:$dead.**", "subscribe:$hub.**", "admin:**"]
const devTokenTtlMs = 24 * 60 * 60 * 1000

type Jwt = Layer.Layer<TokenVerifier, CannotUseFile, ConfigFiles>

const bytesOf = (secret: Redacted.Redacted): Uint8Array => new TextEncoder().encode(Redacted.value(secret))

/** Tokens by the keys that are configured. */
export const layerOf = (keys: Keys, { audience, issuer, jwks, tokens }: Settings): Jwt => {
  const expectations = { audience, issuer, settings: tokens }
  switch (keys._tag) {
    case "Secrets":
      return JwtTokenVerifier.layer({
        keys: { _tag: "Secrets", secrets: keys.secrets.map(bytesOf) },
        ...expectations
      })
    case "JwksFile":
      return JwtTokenVerifier.layerFile({ path: keys.path, what: "JWT_JWKS_FILE", ...expectations })
    case "JwksUrl":
      return Layer.unwrap(
        Effect.map(metrics.recorder, (recorder) =>
          JwtTokenVerifier.layer({
            keys: {
              _tag: "Jwks",
              url: keys.url,
              settings: jwks,
              onRequest: (outcome) => recorder.add(metrics.jwksRequests, 1, { outcome })
            },
            ...expectations
          })
        )
      )
  }
}

export const make = (settings: Settings): Effect.Effect<Tokens> =>
  Effect.gen(function* () {
    const { audience, auth, issuer } = settings
    if (auth._tag === "Random") {
      const secret = Redacted.make(randomBytes(32).toString("base64url"))
      const devToken = yield* mintToken({
        secret: bytesOf(secret),
        sub: "dev",
        scopes: devScopes,
        ttlMs: devTokenTtlMs,
        audience,
        issuer
      })
      const jwt = layerOf({ _tag: "Secrets", secrets: [secret] }, settings)
      return { verifier: RevocableTokenVerifier.layer(jwt), devToken }
    }
    const verifier =
      auth._tag === "Keys"
        ? layerOf(auth.keys, settings)
        : StaticTokenVerifier.layer(Redacted.value(auth.token), auth.keys && layerOf(auth.keys, settings))
    return { verifier: RevocableTokenVerifier.layer(verifier), devToken: undefined }
  })
