/** `event-hub token`: a token for development, signed with JWT_SECRET. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Command, Flag } from "effect/cli"
import * as Policy from "../domain/Policy.ts"
import * as Settings from "../domain/Settings.ts"
import { mintToken } from "../layers/jwt/mintToken.ts"

/** The token was not made; the message says what to change. */
export class CannotMint extends Schema.TaggedError<CannotMint>()("CannotMint", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

const defaultScopes = ["publish:heartbeat.received", "subscribe:process.state"]

const units = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

const parseTtl = (text: string): number | undefined => {
  const [, n, unit] = /^([1-9]\d{0,5})([smhd])$/.exec(text) ?? []
  return n === undefined ? undefined : Number(n) * units[unit as keyof typeof units]
}

const explain = (line: string): Effect.Effect<void> =>
  Effect.sync(() => void process.stderr.write(`${line}\n`))

export interface TokenOptions {
  readonly scopes: ReadonlyArray<string>
  readonly sub: string
  readonly ttl: string
  readonly silent: boolean
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Prints the token on standard output, and what it is good for on standard error. */
export const mint = ({ env, scopes, silent, sub, ttl }: TokenOptions): Effect.Effect<void, CannotMint> =>
  Effect.gen(function* () {
    const secret = new TextEncoder().encode((env["JWT_SECRET"] ?? "").trim())
    if (secret.length < Settings.minSecretBytes) {
      const found = secret.length === 0 ? "is not set" : `has ${secret.length} bytes`
      return yield* new CannotMint({
        reason: `JWT_SECRET ${found}: tokens are signed with the hub's secret, at least ${Settings.minSecretBytes} bytes`
      })
    }
    const policy = Policy.scopesToPolicy(scopes)
    if (Result.isFailure(policy)) return yield* new CannotMint({ reason: policy.failure.message })
    const ttlMs = parseTtl(ttl)
    if (ttlMs === undefined) {
      return yield* new CannotMint({
        reason: `--ttl '${ttl}' is no duration: write for example 30m, 12h or 7d`
      })
    }
    if (sub === "") return yield* new CannotMint({ reason: "--sub must not be empty" })
    const given = (name: string): string | undefined => env[name]?.trim() || undefined
    const token = yield* mintToken({
      secret,
      sub,
      scopes,
      ttlMs,
      audience: given("JWT_AUD"),
      issuer: given("JWT_ISS")
    })
    if (!silent) {
      const until = new Date((yield* Clock.currentTimeMillis) + ttlMs).toISOString()
      yield* explain(`sub ${sub}, valid until ${until}, scopes: ${scopes.join(" ")}`)
    }
    yield* Effect.sync(() => void process.stdout.write(`${token}\n`))
  })

export const token = Command.make(
  "token",
  {
    scope: Flag.String("scope").pipe(
      Flag.withMetavar("action:pattern"),
      Flag.withDescription(
        `A right, such as subscribe:orders.**; may be given several times (default: ${defaultScopes.join(" ")})`
      ),
      Flag.atLeast(0)
    ),
    sub: Flag.String("sub").pipe(Flag.withDescription("Who it is for"), Flag.withDefault("dev")),
    ttl: Flag.String("ttl").pipe(
      Flag.withDescription("How long it is valid: 30m, 12h, 7d"),
      Flag.withDefault("12h")
    ),
    silent: Flag.Boolean("silent").pipe(
      Flag.withAlias("s"),
      Flag.withDescription("Print the token and nothing else"),
      Flag.withDefault(false)
    )
  },
  ({ scope, silent, sub, ttl }) =>
    mint({
      scopes: scope.length === 0 ? defaultScopes : scope,
      sub,
      ttl,
      // `npm run -s token` says it to npm.
      silent: silent || process.env["npm_config_loglevel"] === "silent",
      env: process.env
    })
).pipe(
  Command.withDescription("Make a token for development, signed with JWT_SECRET (HS256)"),
  Command.withExamples([
    {
      command: "event-hub token --scope publish:orders.** --scope subscribe:orders.**",
      description: "Publish and subscribe everything about orders"
    },
    { command: "TOKEN=$(event-hub token -s)", description: "For scripts: the token alone" }
  ])
)
