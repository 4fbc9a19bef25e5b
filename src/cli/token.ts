/** `event-hub token`: a token for development, signed with JWT_SECRET. */
import { randomUUID } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Option from "effect/Option"
import { Command, Flag } from "effect/cli"
import * as Policy from "../domain/Policy.ts"
import * as Settings from "../domain/Settings.ts"
import { hmacs } from "../layers/jwt/Keys.ts"
import { mintToken } from "../layers/jwt/mintToken.ts"
import { inspectCommand } from "./tokenInspect.ts"

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

/** What has an option of its own, or a variable. */
const reserved = new Set(["sub", "exp", "iat", "jti", "aud", "iss", "scopes", "roles"])

/** `name=text` or `name:=json`. */
const parseClaim = (text: string): Result.Result<readonly [name: string, value: unknown], string> => {
  const [, name, sign, value] = /^([^=:\s]+)(:?=)(.*)$/s.exec(text) ?? []
  if (name === undefined || value === undefined) {
    return Result.fail(`--claim '${text}' is no claim: write name=text, or name:=json`)
  }
  if (reserved.has(name))
    return Result.fail(`--claim '${name}': this claim has an option or a variable of its own`)
  if (sign === "=") return Result.succeed([name, value])
  try {
    return Result.succeed([name, JSON.parse(value)])
  } catch {
    return Result.fail(`--claim '${name}': what follows := is no JSON`)
  }
}

export interface TokenOptions {
  readonly scopes: ReadonlyArray<string>
  readonly roles?: ReadonlyArray<string>
  /** Each as `name=text` or `name:=json`. */
  readonly claims?: ReadonlyArray<string>
  readonly alg?: (typeof hmacs)[number][0]
  readonly tokenId?: string
  readonly sub: string
  readonly ttl: string
  readonly silent: boolean
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Prints the token on standard output, and what it is good for on standard error. */
export const mint = (options: TokenOptions): Effect.Effect<void, CannotMint> =>
  Effect.gen(function* () {
    const { alg = "HS256", env, roles = [], scopes, silent, sub, tokenId = randomUUID(), ttl } = options
    const secret = new TextEncoder().encode((env["JWT_SECRET"] ?? "").trim())
    if (secret.length < Settings.minSecretBytes) {
      const found = secret.length === 0 ? "is not set" : `has ${secret.length} bytes`
      return yield* new CannotMint({
        reason: `JWT_SECRET ${found}: tokens are signed with the hub's secret, at least ${Settings.minSecretBytes} bytes`
      })
    }
    const least = hmacs.find(([name]) => name === alg)?.[1] ?? Infinity
    if (secret.length < least) {
      return yield* new CannotMint({
        reason: `JWT_SECRET has ${secret.length} bytes: --alg ${alg} takes at least ${least}`
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
    const claims: Record<string, unknown> = roles.length === 0 ? {} : { roles }
    for (const text of options.claims ?? []) {
      const claim = parseClaim(text)
      if (Result.isFailure(claim)) return yield* new CannotMint({ reason: claim.failure })
      Object.defineProperty(claims, claim.success[0], {
        value: claim.success[1],
        enumerable: true,
        configurable: true,
        writable: true
      })
    }
    const given = (name: string): string | undefined => env[name]?.trim() || undefined
    const token = yield* mintToken({
      secret,
      sub,
      scopes,
      ttlMs,
      audience: given("JWT_AUD"),
      issuer: given("JWT_ISS"),
      alg,
      tokenId,
      claims
    })
    if (!silent) {
      const until = new Date((yield* Clock.currentTimeMillis) + ttlMs).toISOString()
      const rights = roles.length === 0 ? "" : `, roles: ${roles.join(" ")}`
      yield* explain(`sub ${sub}, valid until ${until}, scopes: ${scopes.join(" ")}${rights}`)
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
    role: Flag.String("role").pipe(
      Flag.withMetavar("name"),
      Flag.withDescription(
        "A role of the hub's policy file; may be given several times (then no default scopes)"
      ),
      Flag.atLeast(0)
    ),
    claim: Flag.String("claim").pipe(
      Flag.withMetavar("name=text"),
      Flag.withDescription("Another claim, name:=json for one that is no text; may be given several times"),
      Flag.atLeast(0)
    ),
    jti: Flag.String("jti").pipe(
      Flag.withDescription("What it can be revoked by (default: a random one)"),
      Flag.optional
    ),
    alg: Flag.Literals("alg", ["HS256", "HS384", "HS512"]).pipe(
      Flag.withDescription("How it is signed; HS384 takes a JWT_SECRET of 48 bytes, HS512 one of 64"),
      Flag.withDefault("HS256" as const)
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
  ({ alg, claim, jti, role, scope, silent, sub, ttl }) =>
    mint({
      scopes: scope.length === 0 && role.length === 0 ? defaultScopes : scope,
      roles: role,
      claims: claim,
      alg,
      ...Option.match(jti, { onNone: () => ({}), onSome: (tokenId) => ({ tokenId }) }),
      sub,
      ttl,
      // `npm run -s token` says it to npm.
      silent: silent || process.env["npm_config_loglevel"] === "silent",
      env: process.env
    })
).pipe(
  Command.withDescription("Make a token for development, signed with JWT_SECRET"),
  Command.withExamples([
    {
      command: "event-hub token --scope publish:orders.** --scope subscribe:orders.**",
      description: "Publish and subscribe everything about orders"
    },
    { command: "TOKEN=$(event-hub token -s)", description: "For scripts: the token alone" },
    {
      command: "event-hub token --role dev --claim tenant=acme --ttl 7d",
      description: "With a role of the policy file, and a claim that fills its placeholders"
    }
  ]),
  Command.withSubcommands([inspectCommand])
)
