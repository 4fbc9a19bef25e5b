/** The parts that need no hub: parsers, and a connection's session. */
import { isDeepStrictEqual } from "node:util"
import { Result } from "effect"
import * as Archive from "../../src/domain/Archive.ts"
import * as Claims from "../../src/domain/Claims.ts"
import * as Event from "../../src/domain/Event.ts"
import * as Policy from "../../src/domain/Policy.ts"
import * as PolicyFile from "../../src/domain/PolicyFile.ts"
import { formatPolicyFile } from "../../src/domain/PolicyFileFormat.ts"
import * as Quota from "../../src/domain/Quota.ts"
import * as Retention from "../../src/domain/Retention.ts"
import * as Settings from "../../src/domain/Settings.ts"
import * as Topic from "../../src/domain/Topic.ts"
import { framesTarget } from "./frames.ts"
import { Branches, must, type Target } from "./Target.ts"

const { limits } = Settings

const patternWords = [
  "a",
  "b",
  "*",
  "**",
  ".",
  "a.b",
  "a.**",
  "**.a",
  "$dead",
  "$hub.stats",
  "orders.eu.created"
]

// --- topics --------------------------------------------------------------------------------------------------

const topicsBranches = new Branches(["a topic", "a pattern", "covers", "overlaps"], "looked at")

const topics: Target = {
  name: "topics",
  isJson: false,
  seeds: ["a.b.c a.*.c", "orders.** orders.eu.created", "**.a.**.b **.b", "$dead.g.** $dead.g.a", "* **"],
  words: patternWords,
  branches: topicsBranches,
  check: (input) => {
    topicsBranches.input()
    const [a = "", b = ""] = input.split(" ")
    topicsBranches.reach("looked at")
    if (Topic.covers(a, b)) topicsBranches.reach("covers")
    if (Topic.overlaps(a, b)) topicsBranches.reach("overlaps")
    for (const name of [a, b]) {
      const topic = Topic.parseTopic(name)
      const pattern = Topic.parsePattern(name)
      if (Result.isSuccess(topic)) {
        topicsBranches.reach("a topic")
        must(topic.success.name === name, "a topic keeps its name")
        must(Result.isSuccess(pattern) && pattern.success.concrete, "a topic is a pattern")
        must(Topic.matches(name, name), "a topic matches itself")
      }
      if (Result.isFailure(pattern)) continue
      topicsBranches.reach("a pattern")
      must(pattern.success.name === name, "a pattern keeps its name")
      must(Topic.covers(name, name) && Topic.overlaps(name, name), "a pattern covers and overlaps itself")
    }
    must(Topic.overlaps(a, b) === Topic.overlaps(b, a), "patterns overlap both ways round")
    must(!Topic.covers(a, b) || Topic.overlaps(a, b), "what covers overlaps")
    must(
      Topic.matches(a, b) === (Result.isSuccess(Topic.parseTopic(b)) && Topic.covers(a, b)),
      "a topic is covered by what matches it"
    )
  }
}

// --- policies ------------------------------------------------------------------------------------------------

const policyWords = [
  "allow",
  "deny",
  "publish",
  "subscribe",
  "admin",
  "group",
  "role",
  "role dev:",
  ":",
  "# c",
  "\n",
  "  ",
  "${claim.tenant}",
  "${claim.",
  "}",
  ...patternWords
]

const policies = [
  "allow publish heartbeat.* heartbeat.received # comment",
  "deny subscribe secrets.**\nallow subscribe process.state group dev ops",
  'allow subscribe a.** group "*"\nallow * **\n\n# all of it',
  "allow admin **\r\ndeny admin a.b"
]

const isWithin = (text: string, { problems }: Policy.InvalidPolicy): boolean => {
  const lines = text.split(/\r\n|\r|\n/)
  return problems.every(
    ({ column, line }) =>
      line >= 1 && line <= lines.length && column >= 1 && column <= (lines[line - 1]?.length ?? 0) + 1
  )
}

const policyBranches = new Branches(["taken", "refused"], "looked at")

const policy: Target = {
  name: "policy",
  isJson: false,
  seeds: policies,
  words: policyWords,
  branches: policyBranches,
  check: (input) => {
    policyBranches.input()
    const parsed = Policy.parsePolicy(input)
    policyBranches.reach("looked at")
    policyBranches.reach(Result.isSuccess(parsed) ? "taken" : "refused")
    if (Result.isFailure(parsed)) return must(isWithin(input, parsed.failure), "a problem is within the text")
    const again = Policy.parsePolicy(Policy.formatPolicy(parsed.success))
    must(isDeepStrictEqual(again, parsed), "a policy that is printed reads the same")
    for (const topic of ["a", "a.b", "secrets.x"]) {
      Policy.decide(parsed.success, { action: "publish", topic })
      Policy.decideSubscription(parsed.success, { pattern: `${topic}.**` })
    }
  }
}

const policyFileBranches = new Branches(["taken", "refused", "decided"], "looked at")

const policyFile: Target = {
  name: "policyFile",
  isJson: false,
  seeds: [
    "# Who may do what.\nrole dev:\n  allow publish heartbeat.*   # trailing\n  deny subscribe secrets.**\n",
    "role tenant-user:\n  allow subscribe orders.${claim.tenant}.**\n  allow subscribe users.${sub}.** group ${sub} mailer",
    "role a: allow publish x\nrole b:\nallow * **"
  ],
  words: policyWords,
  branches: policyFileBranches,
  check: (input) => {
    policyFileBranches.input()
    const parsed = PolicyFile.parsePolicyFile(input)
    policyFileBranches.reach("looked at")
    policyFileBranches.reach(Result.isSuccess(parsed) ? "taken" : "refused")
    if (Result.isFailure(parsed)) return must(isWithin(input, parsed.failure), "a problem is within the text")
    const file = parsed.success
    const printed = formatPolicyFile(input)
    const again = PolicyFile.parsePolicyFile(printed)
    must(Result.isSuccess(again), "a file that is printed is one")
    must(formatPolicyFile(printed) === printed, "a file that is printed twice is printed the same")
    for (const sub of ["ann", "a.b", "*", "", "$x"]) {
      const bearer = { roles: [...file.roles.keys()], sub, values: { tenant: "acme" } }
      const [one, other] = [
        PolicyFile.resolve(file, bearer),
        Result.flatMap(again, (file) => PolicyFile.resolve(file, bearer))
      ]
      must(Result.isSuccess(one), "who has the roles of a file has a policy")
      must(isDeepStrictEqual(one, other), "a file that is printed decides the same")
      policyFileBranches.reach("decided")
    }
  }
}

const scopesBranches = new Branches(["taken", "refused"], "read")

const scopes: Target = {
  name: "scopes",
  isJson: true,
  seeds: ['["publish:heartbeat.*","subscribe:process.**"]', '["admin:**","subscribe:$dead.**"]', "[]"],
  words: ["publish:", "subscribe:", "admin:", "*:", ":", ...patternWords],
  branches: scopesBranches,
  check: (input) => {
    scopesBranches.input()
    let value: unknown
    try {
      value = JSON.parse(input)
    } catch {
      return
    }
    scopesBranches.reach("read")
    if (!Array.isArray(value) || !value.every((scope) => typeof scope === "string")) return
    const parsed = Policy.scopesToPolicy(value)
    scopesBranches.reach(Result.isSuccess(parsed) ? "taken" : "refused")
    if (Result.isFailure(parsed)) return
    must(parsed.success.rules.length <= value.length, "a scope is one rule at most")
    must(
      parsed.success.rules.every(({ effect }) => effect === "allow"),
      "a scope allows"
    )
  }
}

// --- rules ---------------------------------------------------------------------------------------------------

/** Rules about topics: what is printed reads the same. */
const rules = <Rules extends ReadonlyArray<unknown>, E>(
  { name, seeds, words }: Pick<Target, "name" | "seeds" | "words">,
  parse: (text: string) => Result.Result<Rules, E>,
  format: (rules: Rules) => string
): Target => {
  const branches = new Branches(["taken", "refused"], "looked at")
  return {
    name,
    isJson: false,
    seeds,
    words: [...words, ";", ":", ...patternWords],
    branches,
    check: (input) => {
      branches.input()
      const parsed = parse(input)
      branches.reach("looked at")
      if (Result.isFailure(parsed)) return branches.reach("refused")
      if (parsed.success.length > 0) branches.reach("taken")
      must(isDeepStrictEqual(parse(format(parsed.success)), parsed), "rules that are printed read the same")
    }
  }
}

const quotas = rules(
  {
    name: "quotas",
    seeds: [
      "orders.**: 500/s burst=1000; logs.*: 1MB/s",
      "a.*: 5/s 99B/s burst=200B",
      "b.**: 7/s shared; c: none"
    ],
    words: ["5/s", "burst=9", "none", "shared", "MiB/s", "KiB", "1e9"]
  },
  Quota.parseQuotas,
  Quota.formatQuotas
)

const retention = rules(
  {
    name: "retention",
    seeds: ["orders.**: age=7d count=1000000; **: age=90d", "a.*: count=100", "$dead.**: age=30d; a: age=1h"],
    words: ["age=", "count=", "7d", "1h", "5m", "9s", "100ms", "1e3", "ignore-groups"]
  },
  Retention.parseRules,
  Retention.formatRules
)

// --- claims --------------------------------------------------------------------------------------------------

const claimsBranches = new Branches(["taken", "refused"], "object")

const claims: Target = {
  name: "claims",
  isJson: true,
  seeds: [
    '{"sub":"ann","exp":2000000000,"scopes":["publish:a.*"],"jti":"j1","iat":1700000000}',
    '{"sub":"ann","exp":2000000000,"policy":{"rules":[{"effect":"allow","action":"*","topics":["a.**"],"groups":["g"]}]}}',
    '{"sub":"ann","exp":2000000000,"roles":["dev"],"tenant":"acme","limits":{"publish":"10/s"}}'
  ],
  words: [
    "sub",
    "exp",
    "scopes",
    "policy",
    "rules",
    "roles",
    "limits",
    "allow",
    "subscribe",
    ...patternWords
  ],
  branches: claimsBranches,
  check: (input) => {
    claimsBranches.input()
    let value: unknown
    try {
      value = JSON.parse(input)
    } catch {
      return
    }
    claimsBranches.reach("object")
    const parsed = Claims.parseClaims(value)
    claimsBranches.reach(Result.isSuccess(parsed) ? "taken" : "refused")
    must(({} as { id?: unknown }).id === undefined, "no prototype is changed")
    if (Result.isFailure(parsed)) return must(parsed.failure.message !== "", "it is said what is wrong")
    const { expiresAt, policy, sub } = parsed.success
    must(typeof sub === "string" && sub !== "", "there is a subject")
    must(Number.isFinite(expiresAt), "a token ends")
    Policy.decide(policy, { action: "publish", topic: "a.b" })
  }
}

// --- imports -------------------------------------------------------------------------------------------------

const importLinesBranches = new Branches(["Event", "Latest", "Trailer", "refused"], "looked at")

const importLines: Target = {
  name: "importLines",
  isJson: true,
  seeds: [
    '{"id":"1","topic":"a.b","seq":1,"storedAt":1700000000000,"ts":1700000000000,"payload":{"x":1}}',
    '{"latest":{"id":"1","topic":"a.b","seq":1,"storedAt":5,"ts":5,"key":"k","payload":1,"headers":{"a":"b"},"tags":["t"]}}',
    '{"end":true,"events":2,"latest":1,"topics":1,"sha256":"abc"}',
    '{"format":"event-hub/export","version":1,"history":"h"}'
  ],
  words: ["id", "topic", "seq", "storedAt", "ts", "payload", "latest", "end", "$dead.g.a", ...patternWords],
  branches: importLinesBranches,
  check: (input) => {
    importLinesBranches.input()
    Archive.headerProblem(input)
    Archive.historyOf(input)
    Archive.trailerOf(input)
    const parsed = Archive.parseLine(input, limits)
    importLinesBranches.reach("looked at")
    importLinesBranches.reach(Result.isSuccess(parsed) ? parsed.success._tag : "refused")
    if (Result.isFailure(parsed)) return must(parsed.failure !== "", "it is said what is wrong")
    const line = parsed.success
    if (line._tag === "Trailer") return
    const text = line._tag === "Event" ? Archive.eventLine(line.record) : Archive.latestLine(line.record)
    must(text.indexOf("\n") === text.length - 1, "a line is one line")
    const again = Result.getOrThrow(Archive.parseLine(text, limits))
    must(
      again._tag === line._tag && Event.toJson(again.record) === Event.toJson(line.record),
      "a line that is printed reads the same"
    )
  }
}

export const pureTargets: ReadonlyArray<Target> = [
  topics,
  policy,
  policyFile,
  scopes,
  quotas,
  retention,
  claims,
  framesTarget(),
  importLines
]
