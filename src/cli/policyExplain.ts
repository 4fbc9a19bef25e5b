/** `event-hub policy explain`: which rule of a policy file decides for somebody, and why the others do not. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { Argument, Command, Flag } from "effect/cli"
import { parseClaims } from "../domain/Claims.ts"
import * as Policy from "../domain/Policy.ts"
import { explainAccess, type Request } from "../domain/PolicyExplanation.ts"
import { type Filled, fillRoles, type PolicyFile, type Rights, valuesOf } from "../domain/PolicyFile.ts"
import * as Topic from "../domain/Topic.ts"
import { fileArgument, nameOf, parsed, readText, say } from "./policyText.ts"
import { CannotDo } from "./remote.ts"

/** It was explained, and the answer is no. */
const deniedCode = 2

interface Asked {
  readonly roles: ReadonlyArray<string>
  readonly sub: Option.Option<string>
  readonly claims: ReadonlyArray<string>
  readonly token: Option.Option<string>
}

/** Without a look at its signature: what it says, whoever said it. */
const rightsOfToken = (token: string): Effect.Effect<Rights, CannotDo> =>
  Effect.suspend(() => {
    const [, payload = ""] = token.trim().split(".")
    let said: unknown
    try {
      said = JSON.parse(Buffer.from(payload, "base64url").toString())
    } catch {
      return Effect.fail(new CannotDo({ reason: "--token is no token: its payload cannot be read" }))
    }
    const claims = parseClaims(said)
    if (Result.isFailure(claims)) return Effect.fail(new CannotDo({ reason: claims.failure.message }))
    return claims.success.hasBadRoles
      ? Effect.fail(new CannotDo({ reason: "the token's claim 'roles' is no array of strings" }))
      : Effect.succeed(claims.success)
  })

const rightsOf = ({ claims, roles, sub, token }: Asked): Effect.Effect<Rights, CannotDo> =>
  Effect.suspend(() => {
    if (Option.isSome(token)) {
      return roles.length > 0 || claims.length > 0 || Option.isSome(sub)
        ? Effect.fail(
            new CannotDo({ reason: "--token says it all: --role, --sub and --claim go without it" })
          )
        : rightsOfToken(token.value)
    }
    if (roles.length === 0) return Effect.fail(new CannotDo({ reason: "give a --role, or a --token" }))
    const wrong = claims.find((claim) => claim.indexOf("=") < 1)
    if (wrong !== undefined) {
      return Effect.fail(new CannotDo({ reason: `--claim '${wrong}' is not <name>=<value>` }))
    }
    const said = claims.map((claim): [string, string] => {
      const at = claim.indexOf("=")
      return [claim.slice(0, at), claim.slice(at + 1)]
    })
    const values = valuesOf(Object.fromEntries(said))
    return Effect.succeed({ roles, sub: Option.getOrElse(sub, () => ""), values, policy: Policy.none })
  })

const checked = (request: Request): Effect.Effect<void, CannotDo> => {
  const pattern = Topic.parsePattern(request.topic)
  if (Result.isFailure(pattern)) return Effect.fail(new CannotDo({ reason: pattern.failure.message }))
  return request.group === undefined || Topic.isSegment(request.group)
    ? Effect.void
    : Effect.fail(new CannotDo({ reason: "--group: a group's name is one topic segment" }))
}

export interface Row {
  /** Its place among the rules that count for the token; none: it is left out. */
  readonly n: number | null
  /** None: the token carries it itself. */
  readonly role: string | null
  readonly line: number | null
  readonly text: string
  readonly decides: boolean
  readonly why: string
}

export interface Explained {
  readonly allowed: boolean
  readonly reason: string
  readonly rule: number | null
  readonly rules: ReadonlyArray<Row>
}

const leftOut = "the token has no value that fills its placeholder, so it allows nothing"

/** The rules of the roles in the order in which they are asked, then those of the token. */
export const explainFor = (
  file: PolicyFile,
  rights: Rights,
  request: Request
): Result.Result<Explained, CannotDo> => {
  const ofRoles: Result.Result<ReadonlyArray<Filled>, { readonly message: string }> = rights.roles ===
  undefined
    ? Result.succeed([])
    : fillRoles(file, { ...rights, roles: rights.roles })
  if (Result.isFailure(ofRoles)) {
    const known = [...file.roles.keys()].join(", ")
    return Result.fail(new CannotDo({ reason: `${ofRoles.failure.message}; it has ${known}` }))
  }
  const own = rights.policy.rules.map((rule) => ({ role: null, line: null, written: rule, rule }))
  const all = [...ofRoles.success, ...own]
  const rules = all.flatMap(({ rule }) => (rule === undefined ? [] : [rule]))
  const { rule = null, ...explained } = explainAccess({ rules }, request)
  let n = 0
  const rows = all.map(({ line, role, rule, written }): Row => {
    if (rule === undefined) {
      return { n: null, role, line, text: Policy.formatRule(written), decides: false, why: leftOut }
    }
    return { role, line, ...explained.rules[n++]! }
  })
  return Result.succeed({ ...explained, rule, rules: rows })
}

const placeOf = (file: string, { line, role }: Row): string =>
  line === null ? "the token" : `${nameOf(file)}:${line} (${role})`

const textOf = (file: string, { allowed, reason, rules }: Explained): string => {
  const table = rules.map(
    (row) => [row.n === null ? "-" : String(row.n), placeOf(file, row), row.text] as const
  )
  const width = (column: 0 | 1 | 2): number => Math.max(0, ...table.map((cells) => cells[column].length))
  const lines = table.map(
    ([n, place, text], i) =>
      `${rules[i]!.decides ? ">" : " "} ${n.padStart(width(0))}  ${place.padEnd(width(1))}  ${text.padEnd(width(2))}  ${rules[i]!.why}\n`
  )
  return `${allowed ? "allowed" : "denied"}: ${reason}\n${lines.length === 0 ? "" : "\n"}${lines.join("")}`
}

export const explain = Command.make(
  "explain",
  {
    file: fileArgument,
    action: Argument.Literals("action", ["publish", "subscribe", "admin"]).pipe(
      Argument.withDescription("publish, subscribe or admin")
    ),
    topic: Argument.String("topic").pipe(
      Argument.withDescription("A topic, or a pattern, which stands for all topics that it matches")
    ),
    roles: Flag.String("role").pipe(
      Flag.withMetavar("name"),
      Flag.withDescription("A role of the token; may be given several times"),
      Flag.atLeast(0)
    ),
    sub: Flag.String("sub").pipe(Flag.withDescription("What fills ${sub}"), Flag.optional),
    claims: Flag.String("claim").pipe(
      Flag.withMetavar("name=value"),
      Flag.withDescription("What fills ${claim.<name>}; may be given several times"),
      Flag.atLeast(0)
    ),
    token: Flag.String("token").pipe(
      Flag.withMetavar("jwt"),
      Flag.withDescription(
        "What this token says of all that; neither its signature nor its time is looked at"
      ),
      Flag.optional
    ),
    group: Flag.String("group").pipe(
      Flag.withDescription("The consumer group of a subscription"),
      Flag.optional
    ),
    json: Flag.Boolean("json").pipe(Flag.withDescription("For programs"), Flag.withDefault(false))
  },
  ({ action, file, group, json, topic, ...asked }) =>
    Effect.gen(function* () {
      const request = { action, topic, group: Option.getOrUndefined(group) }
      yield* checked(request)
      const rights = yield* rightsOf(asked)
      const policies = yield* parsed(file, yield* readText(file))
      const explained = yield* Effect.fromResult(explainFor(policies, rights, request))
      if (Option.isSome(asked.token)) {
        process.stderr.write("the token's signature and time were not looked at\n")
      }
      say(json ? `${JSON.stringify(explained, null, 2)}\n` : textOf(file, explained))
      if (!explained.allowed) process.exitCode = deniedCode
    })
).pipe(
  Command.withDescription(
    "Say which rule decides, and why not the others: exit 0 allowed, 2 denied, 1 wrong"
  ),
  Command.withExamples([
    {
      command:
        "event-hub policy explain policies.txt subscribe orders.7.created --role user --claim tenant=7",
      description: "Whether somebody of a tenant may look at its orders"
    },
    {
      command: "event-hub policy explain policies.txt publish orders.** --token $TOKEN",
      description: "What a token may do; a pattern has to be allowed as a whole"
    }
  ])
)
