/**
 * `event-hub token inspect`: what is in a token, and what a hub with this environment would make of it.
 *
 * Of the signature only whether it is good is said, so that what is printed is not a token that somebody could use.
 */
import { readFile } from "node:fs/promises"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { Argument, Command, Flag } from "effect/cli"
import { isTexts, type JsonObject } from "../domain/Json.ts"
import type { Claims } from "../domain/Claims.ts"
import { formatRule } from "../domain/Policy.ts"
import * as PolicyFile from "../domain/PolicyFile.ts"
import { type Problem, readerOf } from "../hub/environment.ts"
import { type HubAuth, type Keys as ConfiguredKeys, readAuth } from "../hub/HubAuth.ts"
import { formatProblems } from "../hub/HubConfig.ts"
import { type Inspection, inspectToken, type NamedKeys } from "../layers/jwt/inspectToken.ts"
import * as Jwks from "../layers/jwt/Jwks.ts"
import * as Keys from "../layers/jwt/Keys.ts"
import * as KeySet from "../layers/jwt/KeySet.ts"
import { CannotDo } from "./remote.ts"

type Env = Readonly<Record<string, string | undefined>>

const readSettings = (env: Env): Effect.Effect<HubAuth, CannotDo> =>
  Effect.suspend(() => {
    const problems: Array<Problem> = []
    const settings = readAuth(readerOf(env, [], problems))
    return problems.length === 0
      ? Effect.succeed(settings)
      : Effect.fail(new CannotDo({ reason: formatProblems(problems) }))
  })

const ofFile = (path: string): Effect.Effect<Keys.Keys, CannotDo> =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (error) => new CannotDo({ reason: `JWT_JWKS_FILE: ${path} cannot be read: ${String(error)}` })
  }).pipe(
    Effect.flatMap((json) =>
      Effect.mapError(
        Effect.fromResult(KeySet.parse(json)),
        (found) => new CannotDo({ reason: `JWT_JWKS_FILE: ${path} is ${found}` })
      )
    ),
    Effect.map((set) => ({
      algorithms: KeySet.algorithms,
      find: (wanted) => Effect.promise(() => set.find(wanted))
    }))
  )

/** The roles that a hub with this environment has. */
const readPolicies = ({
  files,
  policy: path
}: HubAuth): Effect.Effect<PolicyFile.PolicyFile | undefined, CannotDo> => {
  if (path === undefined) return Effect.succeed(undefined)
  const cannot = (why: string) => new CannotDo({ reason: `HUB_POLICY: ${path} ${why}` })
  return Effect.tryPromise({
    try: () => readFile(path),
    catch: (error) => cannot(`cannot be read: ${String(error)}`)
  }).pipe(
    Effect.flatMap((bytes) => {
      if (bytes.length > files.maxPolicyBytes)
        return Effect.fail(cannot(`has more than ${files.maxPolicyBytes} bytes`))
      return Effect.mapError(
        Effect.fromResult(PolicyFile.parsePolicyFile(bytes.toString("utf8"))),
        ({ column, line, problems }) => cannot(`cannot be used: ${line}:${column}: ${problems[0].reason}`)
      )
    })
  )
}

/** Secrets are told apart by their place, and never shown. */
const sourcesOf = (keys: ConfiguredKeys | undefined, { jwks }: HubAuth) =>
  Effect.gen(function* () {
    if (keys === undefined) return []
    if (keys._tag === "JwksUrl") {
      return [{ name: "JWT_JWKS_URL", keys: yield* Jwks.make({ url: keys.url, settings: jwks }) }]
    }
    if (keys._tag === "JwksFile") return [{ name: "JWT_JWKS_FILE", keys: yield* ofFile(keys.path) }]
    return keys.secrets.map((secret, i): NamedKeys => ({
      name: i === 0 ? "JWT_SECRET" : `JWT_PREVIOUS_SECRETS, number ${i}`,
      keys: Keys.ofSecrets([new TextEncoder().encode(Redacted.value(secret))])
    }))
  })

/** What somebody wrote into a token must not write on the screen: all of it stays in its line, and is seen. */
const visible = (text: string): string =>
  text.replaceAll(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (found) => `\\u${found.codePointAt(0)!.toString(16).padStart(4, "0")}`
  )

const shown = (value: unknown): string => visible(JSON.stringify(value) ?? "")

const units = [
  ["year", 31_557_600_000],
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1_000]
] as const

const relative = (ms: number): string => {
  const [unit, length] = units.find(([, length]) => Math.abs(ms) >= length) ?? ["second", 1_000]
  return new Intl.RelativeTimeFormat("en").format(Math.round(ms / length), unit)
}

interface Time {
  readonly what: string
  readonly iso: string
  readonly relative: string
}

const timesOf = (payload: JsonObject, now: number): ReadonlyArray<Time> =>
  (
    [
      ["issued", "iat"],
      ["valid from", "nbf"],
      ["expires", "exp"]
    ] as const
  ).flatMap(([what, claim]) => {
    const seconds = payload[claim]
    const date = new Date(typeof seconds === "number" ? seconds * 1000 : NaN)
    return Number.isNaN(date.getTime())
      ? []
      : [{ what, iso: date.toISOString(), relative: relative(date.getTime() - now) }]
  })

interface Report {
  readonly taken: boolean
  readonly problems: ReadonlyArray<string>
  readonly signedBy: string | null
  readonly header: JsonObject | null
  readonly claims: JsonObject | null
  readonly times: ReadonlyArray<Time>
  /** Rules in their text form, those of its roles where HUB_POLICY says what they are. */
  readonly rights: ReadonlyArray<string>
  readonly roles: ReadonlyArray<string>
}

/** What the policy file makes of its roles: the rules that hold, and why it is refused. */
const judge = (claims: Claims | undefined, file: PolicyFile.PolicyFile | undefined) => {
  if (claims === undefined) return { rules: [], problem: undefined }
  if (file === undefined) return { rules: claims.policy.rules, problem: undefined }
  const policy = Result.getOrElse(PolicyFile.policyOf(file, claims), () => claims.policy)
  return { rules: policy.rules, problem: PolicyFile.problemOf(file, claims) }
}

const reportOf = (
  { header, payload, problems: found, signedBy }: Inspection,
  { problem, rules }: ReturnType<typeof judge>,
  now: number
): Report => {
  const problems = problem === undefined ? found : [...found, problem]
  return {
    taken: problems.length === 0,
    problems: problems.map((problem) => problem.replaceAll(/\s*\n\s*/g, " ")),
    signedBy: signedBy ?? null,
    header: header ?? null,
    claims: payload ?? null,
    times: payload === undefined ? [] : timesOf(payload, now),
    rights: rules.map(formatRule),
    roles: isTexts(payload?.["roles"]) ? payload["roles"] : []
  }
}

const section = (name: string, lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.map((line, i) => `${(i === 0 ? name : "").padEnd(10)} ${line}`)

const members = (object: JsonObject | null): ReadonlyArray<string> =>
  Object.entries(object ?? {}).map(([name, value]) => `${shown(name).slice(1, -1)}: ${shown(value)}`)

const format = (report: Report): string =>
  [
    ...section("header", members(report.header)),
    ...section("claims", members(report.claims)),
    ...section(
      "times",
      report.times.map(({ iso, relative, what }) => `${what} ${iso} (${relative})`)
    ),
    ...section("rights", report.rights.length === 0 ? ["none"] : report.rights),
    ...section("roles", report.roles.map(shown)),
    ...section("signature", [report.signedBy === null ? "not verified" : `good, by ${report.signedBy}`]),
    ...section(
      "verdict",
      report.taken ? ["taken"] : report.problems.map((problem) => `refused: ${visible(problem)}`)
    )
  ].join("\n")

/** A token is short; whatever else is piped in is read no further. */
const maxInput = 1_048_576

const readInput = async (): Promise<string> => {
  let text = ""
  for await (const chunk of process.stdin.setEncoding("utf8")) {
    text += String(chunk)
    if (text.length > maxInput) break
  }
  return text
}

const print = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stdout.write(`${text}\n`))

export interface InspectOptions {
  /** `-`: on standard input. */
  readonly token: string
  readonly json: boolean
  readonly env: Env
}

/** A token that is known by heart has nothing in it to be told. */
const isStatic = (text: string, { auth }: HubAuth): boolean =>
  auth._tag === "Static" && text === Redacted.value(auth.token)

const reportOn = (text: string, settings: HubAuth) =>
  Effect.gen(function* () {
    const { audience, auth, issuer, tokens } = settings
    const sources = yield* sourcesOf(auth._tag === "Random" ? undefined : auth.keys, settings)
    const file = yield* readPolicies(settings)
    const now = yield* Clock.currentTimeMillis
    const found = yield* inspectToken(text, sources, { audience, issuer, settings: tokens }, now)
    return reportOf(found, judge(found.claims, file), now)
  }).pipe(
    Effect.scoped,
    Effect.catchTag("VerifierUnavailable", ({ message }) => Effect.fail(new CannotDo({ reason: message })))
  )

/** Prints what is in it, and succeeds with whether it would be taken. */
export const inspect = ({ env, json, token }: InspectOptions) =>
  Effect.gen(function* () {
    const settings = yield* readSettings(env)
    const text = (token === "-" ? yield* Effect.promise(readInput) : token).trim()
    if (isStatic(text, settings)) {
      yield* print(json ? `{"taken":true,"static":true}` : "verdict    taken: it is STATIC_TOKEN")
      return true
    }
    const report = yield* reportOn(text, settings)
    yield* print(json ? JSON.stringify(report, null, 2) : format(report))
    return report.taken
  })

export const inspectCommand = Command.make(
  "inspect",
  {
    token: Argument.String("token").pipe(Argument.withDescription("A token; - for standard input")),
    json: Flag.Boolean("json").pipe(Flag.withDescription("For machines"), Flag.withDefault(false))
  },
  ({ json, token }) =>
    Effect.map(inspect({ token, json, env: process.env }), (taken) => {
      if (!taken) process.exitCode = 1
    })
).pipe(
  Command.withDescription("Say what is in a token, and whether a hub with this environment would take it"),
  Command.withExamples([
    {
      command: "event-hub token -s | event-hub token inspect -",
      description: "Of a token that was just made"
    },
    { command: "event-hub token inspect --json eyJ…", description: "Exits with 1 when it would be refused" }
  ])
)
