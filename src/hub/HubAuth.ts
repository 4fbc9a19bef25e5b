/** Who may come in, and how it is kept secret on the way: the part of a hub's configuration that is about that. */
import * as Redacted from "effect/Redacted"
import * as Defaults from "../domain/Settings.ts"
import { type Reader, Wrong } from "./environment.ts"

export type Keys =
  /** The first signs; each verifies, so that a secret can be changed while tokens of the one before are about. */
  | { readonly _tag: "Secrets"; readonly secrets: readonly [Redacted.Redacted, ...Array<Redacted.Redacted>] }
  | { readonly _tag: "JwksUrl"; readonly url: URL }
  | { readonly _tag: "JwksFile"; readonly path: string }

/** Who may come in. `Random`: nothing is configured; a secret for this run, and loopback only. */
export type Auth =
  | { readonly _tag: "Random" }
  | { readonly _tag: "Keys"; readonly keys: Keys }
  /** One token is known by heart; others, if at all, by the keys. */
  | { readonly _tag: "Static"; readonly token: Redacted.Redacted; readonly keys: Keys | undefined }

/** Files, each in PEM. */
export interface TlsFiles {
  readonly certificate: string
  readonly key: string
}

export interface HubAuth {
  readonly auth: Auth
  readonly audience: string | undefined
  readonly issuer: string | undefined
  readonly tokens: Defaults.AuthSettings
  readonly jwks: Defaults.JwksSettings
  readonly revocations: Defaults.RevocationSettings
  /** The file with the roles that tokens refer to. */
  readonly policy: string | undefined
  readonly files: Defaults.FileSettings
  readonly tls: TlsFiles | undefined
  /** A proxy stands before the hub: who a client is, is what that says. */
  readonly trustProxy: boolean
}

const hour = 3_600_000
const day = 24 * hour

export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || host === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(host)

/** What keeps a hub from listening beyond loopback while nothing says who may come in. */
export const authVariables = "JWT_SECRET, JWT_JWKS_URL, JWT_JWKS_FILE or STATIC_TOKEN"

const parseSecret = (text: string): Redacted.Redacted | Wrong => {
  const bytes = new TextEncoder().encode(text).length
  return bytes < Defaults.minSecretBytes
    ? new Wrong(
        `must have at least ${Defaults.minSecretBytes} bytes (RFC 7518, section 3.2), it has ${bytes}`
      )
    : Redacted.make(text)
}

const parseStaticToken = (text: string): Redacted.Redacted | Wrong => {
  const bytes = new TextEncoder().encode(text).length
  return bytes < Defaults.minStaticTokenBytes
    ? new Wrong(
        `must have at least ${Defaults.minStaticTokenBytes} bytes, it has ${bytes}, and can be guessed: ` +
          "take what `openssl rand -hex 16` prints"
      )
    : Redacted.make(text)
}

const parseSecrets = (text: string): ReadonlyArray<Redacted.Redacted> | Wrong => {
  const secrets: Array<Redacted.Redacted> = []
  for (const [i, part] of text.split(/\s+/).entries()) {
    const secret = parseSecret(part)
    if (secret instanceof Wrong) return new Wrong(`number ${i + 1} ${secret.problem}`)
    secrets.push(secret)
  }
  return secrets
}

const parseJwksUrl = (text: string): URL | Wrong => {
  if (!URL.canParse(text)) return new Wrong("must be a URL")
  const url = new URL(text)
  if (url.username !== "" || url.password !== "") return new Wrong("must not have a user or a password in it")
  return url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url.hostname))
    ? url
    : new Wrong("must be an https: URL (http: only on loopback)")
}

const parseTypes = (text: string): ReadonlyArray<string> | Wrong => {
  const types = text.split(",").map((part) => part.trim())
  return types.every((type) => /^[\w.+/-]{1,64}$/.test(type))
    ? types
    : new Wrong("must be a list of types such as JWT, at+jwt, separated by commas")
}

const readTokens = (read: Reader): Defaults.AuthSettings => {
  const d = Defaults.auth
  return {
    clockToleranceMs: read.int(
      "JWT_CLOCK_TOLERANCE_MS",
      "How far the clocks of the hub and of the issuer may be apart.",
      [0, hour],
      d.clockToleranceMs
    ),
    maxTokenAgeMs: read.optionalInt(
      "JWT_MAX_AGE_MS",
      "Tokens that were issued (`iat`) longer ago are refused, whatever their expiry; with it, `iat` is required.",
      [1_000, 3_650 * day]
    ),
    types: read.parsed(
      "JWT_TYP",
      "What the header `typ` of a token may be, in any case, separated by commas; a token without one passes.",
      d.types.map((type) => `\`${type}\``).join(", "),
      parseTypes,
      d.types
    ),
    maxTokenBytes: read.int("LIMIT_TOKEN_BYTES", "Bytes of a token.", [1_024, 1_048_576], d.maxTokenBytes),
    expiryWarningMs: read.int(
      "HUB_EXPIRY_WARNING_MS",
      "How long before its token expires a connection is told.",
      [0, day],
      d.expiryWarningMs
    )
  }
}

const readJwks = (read: Reader): Defaults.JwksSettings => {
  const d = Defaults.jwks
  const settings = {
    freshMs: read.int(
      "JWT_JWKS_FRESH_MS",
      "Keys are asked for again after this time, while the known ones are used on.",
      [100, day],
      d.freshMs
    ),
    staleMs: read.int(
      "JWT_JWKS_STALE_MS",
      "Keys that could not be confirmed for so long are not used any more.",
      [100, 365 * day],
      d.staleMs
    ),
    cooldownMs: read.int(
      "JWT_JWKS_COOLDOWN_MS",
      "The time between two requests to JWT_JWKS_URL, however many tokens ask.",
      [100, hour],
      d.cooldownMs
    ),
    timeoutMs: read.int(
      "JWT_JWKS_TIMEOUT_MS",
      "How long such a request may take.",
      [100, 60_000],
      d.timeoutMs
    ),
    maxBytes: read.int("LIMIT_JWKS_BYTES", "Bytes of a JWK Set.", [1_024, 16_777_216], d.maxBytes)
  }
  if (settings.staleMs < settings.freshMs) {
    read.wrong("JWT_JWKS_STALE_MS", "must not be less than JWT_JWKS_FRESH_MS")
  }
  return settings
}

const readKeys = (read: Reader): Keys | undefined => {
  const secret = read.parsed<Redacted.Redacted | undefined>(
    "JWT_SECRET",
    `Signs and verifies tokens: HS256, from 48 bytes on HS384, from 64 on HS512. At least ${Defaults.minSecretBytes} bytes.`,
    "–",
    parseSecret,
    undefined
  )
  const previous = read.parsed<ReadonlyArray<Redacted.Redacted>>(
    "JWT_PREVIOUS_SECRETS",
    "Secrets that verify tokens and sign none, separated by whitespace: those that JWT_SECRET was before.",
    "–",
    parseSecrets,
    []
  )
  const url = read.parsed<URL | undefined>(
    "JWT_JWKS_URL",
    "The public keys of an issuer of tokens (RS, PS, ES, EdDSA), as a JWK Set. Wins over JWT_SECRET.",
    "–",
    parseJwksUrl,
    undefined
  )
  const path = read.text("JWT_JWKS_FILE", "The same from a file, which is taken anew when it changes.")
  if (url !== undefined && path !== undefined) {
    read.wrong("JWT_JWKS_FILE", "must not be set together with JWT_JWKS_URL")
  }
  if (url !== undefined) return { _tag: "JwksUrl", url }
  if (path !== undefined) return { _tag: "JwksFile", path }
  if (secret !== undefined) return { _tag: "Secrets", secrets: [secret, ...previous] }
  if (previous.length > 0) read.wrong("JWT_PREVIOUS_SECRETS", "has no effect without JWT_SECRET")
  return undefined
}

const parseBoolean = (text: string): boolean | Wrong =>
  text === "true" || text === "false" ? text === "true" : new Wrong("must be true or false")

const readTls = (read: Reader): TlsFiles | undefined => {
  const certificate = read.text(
    "TLS_CERT",
    "A file with the certificate of both ports and its chain, in PEM; with TLS_KEY. Taken anew when it changes."
  )
  const key = read.text("TLS_KEY", "A file with the key of TLS_CERT, in PEM.")
  if (certificate !== undefined && key !== undefined) return { certificate, key }
  if (certificate !== undefined) read.wrong("TLS_CERT", "must be set together with TLS_KEY")
  if (key !== undefined) read.wrong("TLS_KEY", "must be set together with TLS_CERT")
  return undefined
}

export const readAuth = (read: Reader): HubAuth => {
  const keys = readKeys(read)
  const audience = read.text("JWT_AUD", "The `aud` a token must have.", "any")
  const issuer = read.text("JWT_ISS", "The `iss` a token must have.", "any")
  const tokens = readTokens(read)
  const jwks = readJwks(read)
  const staticToken = read.parsed<Redacted.Redacted | undefined>(
    "STATIC_TOKEN",
    `One token for machines in a closed network: publishes and subscribes everywhere, never admin. At least ${Defaults.minStaticTokenBytes} bytes.`,
    "–",
    parseStaticToken,
    undefined
  )
  const policy = read.text(
    "HUB_POLICY",
    "A file with the roles that tokens refer to, taken anew when it changes: [policies](policies.md)."
  )
  const files = {
    intervalMs: read.int(
      "HUB_FILES_INTERVAL_MS",
      "The time between two looks at HUB_POLICY, JWT_JWKS_FILE, TLS_CERT and TLS_KEY; SIGHUP makes the hub look at once.",
      [100, hour],
      Defaults.files.intervalMs
    ),
    timeoutMs: read.int(
      "HUB_FILES_TIMEOUT_MS",
      "How long such a look may take; what takes longer cannot be read, and what was known holds on.",
      [100, hour],
      Defaults.files.timeoutMs
    ),
    maxPolicyBytes: read.int(
      "LIMIT_POLICY_BYTES",
      "Bytes of HUB_POLICY.",
      [1_024, 16_777_216],
      Defaults.files.maxPolicyBytes
    )
  }
  const revocations = {
    intervalMs: read.int(
      "HUB_REVOCATION_INTERVAL_MS",
      "The time between two looks at what was revoked at another hub of the same store.",
      [50, 500],
      Defaults.revocations.intervalMs
    ),
    staleMs: read.int(
      "HUB_REVOCATION_STALE_MS",
      "A hub that could not look for so long takes no new tokens until it can; connections stay.",
      [1_000, hour],
      Defaults.revocations.staleMs
    ),
    maxEntries: read.int(
      "LIMIT_REVOCATIONS",
      "Revocations of tokens and subjects that are kept; each hub has all of them in memory.",
      [1, 1_000_000],
      Defaults.revocations.maxEntries
    )
  }
  const tls = readTls(read)
  const trustProxy = read.parsed(
    "TRUST_PROXY",
    "`true`: a proxy stands before the hub, and the last address of `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are believed.",
    "`false`",
    parseBoolean,
    false
  )
  const auth: Auth =
    staticToken !== undefined
      ? { _tag: "Static", token: staticToken, keys }
      : keys !== undefined
        ? { _tag: "Keys", keys }
        : { _tag: "Random" }
  return { auth, audience, issuer, tokens, jwks, revocations, policy, files, tls, trustProxy }
}
