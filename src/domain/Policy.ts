/**
 * Who may publish, subscribe and administrate what: rules, the decision, and two ways to write rules down.
 *
 * The first rule that matches decides, and where none does the answer is no. A rule whose `groups` do not
 * fit the request is skipped, never decisive: a deny with `groups` therefore does not bind live readers.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Topic from "./Topic.ts"

/** `*` is publish and subscribe; rights to administrate are always written out. */
export const Action = Schema.Literals(["publish", "subscribe", "admin", "*"])
export type Action = typeof Action.Type

const PatternName = Schema.String.check(
  Schema.makeFilter((name) => {
    const parsed = Topic.parsePattern(name)
    return Result.isSuccess(parsed) || parsed.failure.message
  })
)

const GroupName = Schema.String.check(
  Schema.makeFilter((name) => Topic.isSegment(name) || "a group's name is one topic segment")
)

export const Rule = Schema.Struct({
  effect: Schema.Literals(["allow", "deny"]),
  action: Action,
  /** The rule matches a topic when one of these patterns does. */
  topics: Schema.NonEmptyArray(PatternName),
  /** Restricts a subscribe rule to these groups, `"*"` to any group. */
  groups: Schema.optionalKey(Schema.Union([Schema.Literal("*"), Schema.NonEmptyArray(GroupName)]))
}).check(
  Schema.makeFilter(
    (rule) =>
      rule.groups === undefined || rule.action === "subscribe" || "only a subscribe rule can have groups"
  )
)
export type Rule = typeof Rule.Type

export const Policy = Schema.Struct({ rules: Schema.Array(Rule) })
export type Policy = typeof Policy.Type

/** Allows nothing. */
export const none: Policy = { rules: [] }

export interface Request {
  readonly action: Exclude<Action, "*">
  readonly topic: string
  /** The consumer group that wants to subscribe; a live reader has none. */
  readonly group?: string | undefined
}

export interface SubscriptionRequest {
  readonly pattern: string
  readonly group?: string | undefined
}

export interface Allowed {
  readonly _tag: "Allowed"
  readonly rule: Rule
}

export interface Denied {
  readonly _tag: "Denied"
  /** The deny rule that decided; none when no rule matched. */
  readonly rule: Rule | undefined
  readonly reason: "denied_by_rule" | "no_rule_matches"
}

export type Decision = Allowed | Denied

export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", {
  action: Schema.String,
  topic: Schema.String,
  group: Schema.optionalKey(Schema.String),
  /** The text of the rule that denied. Only for logs and for those with `admin`. */
  rule: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    const who = this.group === undefined ? "" : ` in group '${this.group}'`
    return `no right to ${this.action} '${this.topic}'${who}`
  }
}

const byDefault: Denied = { _tag: "Denied", rule: undefined, reason: "no_rule_matches" }

const decided = (rule: Rule): Decision =>
  rule.effect === "allow" ? { _tag: "Allowed", rule } : { _tag: "Denied", rule, reason: "denied_by_rule" }

interface Parsed {
  readonly patterns: ReadonlyArray<Topic.Pattern>
  /** A pattern is none. Only a policy made by hand can have one; what is read from a token or a text is checked. */
  readonly isBroken: boolean
}

/** Rules are decided on again and again; their patterns are parsed once. */
const parsed = new WeakMap<Rule, Parsed>()

const parsedOf = (rule: Rule): Parsed => {
  let known = parsed.get(rule)
  if (known === undefined) {
    const patterns = rule.topics.map(Topic.parsePattern).filter(Result.isSuccess)
    known = {
      patterns: patterns.map(({ success }) => success),
      isBroken: patterns.length < rule.topics.length
    }
    parsed.set(rule, known)
  }
  return known
}

/** Whether a rule decides. What a broken pattern was meant to match nobody knows: a deny with one denies all. */
const decides = (rule: Rule, matches: (pattern: Topic.Pattern) => boolean): boolean => {
  const { isBroken, patterns } = parsedOf(rule)
  return (isBroken && rule.effect === "deny") || patterns.some(matches)
}

const appliesTo = (rule: Rule, action: Request["action"], group: string | undefined): boolean => {
  if (rule.action !== action && !(rule.action === "*" && action !== "admin")) return false
  if (rule.groups === undefined) return true
  return group !== undefined && (rule.groups === "*" || rule.groups.includes(group))
}

/** Decides on one concrete topic. A name that is no valid topic is denied. */
export const decide = (policy: Policy, request: Request): Decision => {
  const topic = Topic.parseTopic(request.topic)
  if (Result.isFailure(topic)) return byDefault
  for (const rule of policy.rules) {
    if (!appliesTo(rule, request.action, request.group)) continue
    if (decides(rule, (pattern) => Topic.matches(pattern, topic.success))) return decided(rule)
  }
  return byDefault
}

/**
 * Decides on a pattern, which stands for every topic it matches, now or later: a deny that overlaps it denies, an
 * allow has to cover it; an allow that covers only a part is skipped.
 */
export const decidePattern = (
  policy: Policy,
  action: Request["action"],
  { group, pattern }: SubscriptionRequest
): Decision => {
  const wanted = Topic.parsePattern(pattern)
  if (Result.isFailure(wanted)) return byDefault
  for (const rule of policy.rules) {
    if (!appliesTo(rule, action, group)) continue
    const relates = rule.effect === "allow" ? Topic.covers : Topic.overlaps
    if (decides(rule, (pattern) => relates(pattern, wanted.success))) return decided(rule)
  }
  return byDefault
}

/** Decides on a subscription to a pattern, which has to be allowed for every topic that it matches. */
export const decideSubscription = (policy: Policy, request: SubscriptionRequest): Decision =>
  decidePattern(policy, "subscribe", request)

/** Decides on a change to all topics that a pattern matches, such as one to a group that takes them. */
export const decideAdministration = (policy: Policy, pattern: string): Decision =>
  decidePattern(policy, "admin", { pattern })

const forbidden = (action: Action, topic: string, group: string | undefined, denied: Denied): Forbidden =>
  new Forbidden({
    action,
    topic,
    ...(group === undefined ? {} : { group }),
    ...(denied.rule === undefined ? {} : { rule: formatRule(denied.rule) })
  })

/** `decide` as an Effect. */
export const authorize = (policy: Policy, request: Request): Effect.Effect<Allowed, Forbidden> => {
  const decision = decide(policy, request)
  return decision._tag === "Allowed"
    ? Effect.succeed(decision)
    : Effect.fail(forbidden(request.action, request.topic, request.group, decision))
}

/** `decideSubscription` as an Effect. */
export const authorizeSubscription = (
  policy: Policy,
  request: SubscriptionRequest
): Effect.Effect<Allowed, Forbidden> => {
  const decision = decideSubscription(policy, request)
  return decision._tag === "Allowed"
    ? Effect.succeed(decision)
    : Effect.fail(forbidden("subscribe", request.pattern, request.group, decision))
}

export class InvalidScope extends Schema.TaggedError<InvalidScope>()("InvalidScope", {
  scope: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `not a scope: '${this.scope}': ${this.reason}`
  }
}

const actions = Action.literals

/**
 * Scopes like `publish:heartbeat.*`, each an allow rule. Split at the first `:`, since topics may hold more.
 * No scopes give no rights; one malformed scope fails the whole.
 */
export const scopesToPolicy = (scopes: ReadonlyArray<string>): Result.Result<Policy, InvalidScope> => {
  const rules: Array<Rule> = []
  for (const scope of scopes) {
    const colon = scope.indexOf(":")
    const action = actions.find((known) => known === scope.slice(0, Math.max(colon, 0)))
    if (colon < 0 || action === undefined) {
      return Result.fail(
        new InvalidScope({ scope, reason: `it is not <action>:<pattern> with one of ${actions.join(", ")}` })
      )
    }
    const name = scope.slice(colon + 1)
    const pattern = Topic.parsePattern(name)
    if (Result.isFailure(pattern)) {
      return Result.fail(new InvalidScope({ scope, reason: pattern.failure.message }))
    }
    rules.push({ effect: "allow", action, topics: [name] })
  }
  return Result.succeed({ rules })
}

/** Where a policy's text is wrong. Lines and columns are counted from 1. */
export interface PolicyProblem {
  readonly line: number
  readonly column: number
  readonly reason: string
}

/** Of a text that is none, so much is told: the rest of it is not even read. */
export const maxProblems = 100

export class InvalidPolicy extends Schema.TaggedError<InvalidPolicy>()("InvalidPolicy", {
  problems: Schema.NonEmptyArray(
    Schema.Struct({ line: Schema.Int, column: Schema.Int, reason: Schema.String })
  )
}) {
  /** The first problem's place. */
  get line(): number {
    return this.problems[0].line
  }
  get column(): number {
    return this.problems[0].column
  }
  override get message() {
    return this.problems.map(({ column, line, reason }) => `${line}:${column}: ${reason}`).join("\n")
  }
}

export interface Word {
  readonly text: string
  readonly column: number
}

/** A line of the text form: its words, the column where they end, and what is said behind them. */
export interface Line {
  readonly words: ReadonlyArray<Word>
  readonly end: number
  readonly comment: Word | undefined
}

/**
 * A word that begins with `#` begins a comment, wherever it stands. A name that begins so is written with a
 * backslash before it, as in a .gitignore: were `#` a name at times, a forgotten space would turn what somebody says
 * of a rule into topics that it allows.
 */
export const readLine = (text: string): Line => {
  const words = Array.from(text.matchAll(/\S+/g), (found) => ({ text: found[0], column: found.index + 1 }))
  const at = words.findIndex((word) => word.text.startsWith("#"))
  if (at < 0) return { words, end: text.length + 1, comment: undefined }
  const { column } = words[at]!
  return {
    words: words.slice(0, at),
    end: column,
    comment: { text: text.slice(column - 1).trimEnd(), column }
  }
}

const plain = (word: string): string => (/^\\+#/.test(word) ? word.slice(1) : word)

const escaped = (name: string): string => (/^\\*#/.test(name) ? `\\${name}` : name)

/** What may stand as a pattern and as a group in a rule: why a name may not, and from which of its characters on. */
export interface Names {
  readonly pattern: (name: string) => Flaw | undefined
  readonly group: (name: string) => Flaw | undefined
}

export interface Flaw {
  readonly at: number
  readonly reason: string
}

const literalNames: Names = {
  pattern: (name) => {
    const pattern = Topic.parsePattern(name)
    return Result.isFailure(pattern) ? { at: 0, reason: pattern.failure.message } : undefined
  },
  group: (name) => (Topic.isSegment(name) ? undefined : { at: 0, reason: `'${name}' is no name of a group` })
}

/** A rule from the words of a line, of which there is at least one. */
export const readRule = (
  line: number,
  { end, words }: Line,
  names: Names = literalNames
): Result.Result<Rule, PolicyProblem> => {
  const [first, second, ...rest] = words as [Word, ...Array<Word>]
  const fail = (column: number, reason: string) => Result.fail({ line, column, reason })
  const misfit = (word: Word, flawOf: Names["pattern"]) => {
    const name = plain(word.text)
    const flaw = flawOf(name)
    return flaw && fail(word.column + flaw.at + word.text.length - name.length, flaw.reason)
  }
  const effect = first.text
  if (effect !== "allow" && effect !== "deny") {
    return fail(first.column, `a rule begins with 'allow' or 'deny', not '${effect}'`)
  }
  if (second === undefined) return fail(end, `an action is missing: one of ${actions.join(", ")}`)
  const action = actions.find((known) => known === second.text)
  if (action === undefined) {
    return fail(second.column, `'${second.text}' is no action; the actions are ${actions.join(", ")}`)
  }
  // The first word is always a pattern, so that a topic may be called `group`.
  const keyword = rest.findIndex((word, i) => i > 0 && word.text === "group")
  const topics = keyword < 0 ? rest : rest.slice(0, keyword)
  if (topics.length === 0) return fail(end, "a topic pattern is missing")
  for (const word of topics) {
    const flaw = misfit(word, names.pattern)
    if (flaw !== undefined) return flaw
  }
  const patterns = topics.map((word) => plain(word.text)) as [string, ...Array<string>]
  if (keyword < 0) return Result.succeed({ effect, action, topics: patterns })
  if (action !== "subscribe") return fail(rest[keyword]!.column, "only a subscribe rule can have groups")
  const groups = rest.slice(keyword + 1)
  const [one, ...more] = groups.map((word) => plain(word.text))
  if (one === undefined) return fail(end, "the name of a group is missing, or '*' for any")
  if (one === "*" && more.length === 0) {
    return Result.succeed({ effect, action, topics: patterns, groups: "*" })
  }
  for (const word of groups) {
    const flaw = misfit(word, names.group)
    if (flaw !== undefined) return flaw
  }
  return Result.succeed({ effect, action, topics: patterns, groups: [one, ...more] })
}

export const linesOf = (text: string): ReadonlyArray<string> => text.split(/\r\n|\r|\n/)

/**
 * Reads the text form: one rule a line, `<allow|deny> <action> <pattern>… [group <name>…|group *]`. What stands
 * behind a `#` that begins a word is a comment. All that is wrong is told at once, up to `maxProblems`.
 */
export const parsePolicy = (text: string): Result.Result<Policy, InvalidPolicy> => {
  const rules: Array<Rule> = []
  const problems: Array<PolicyProblem> = []
  for (const [i, content] of linesOf(text).entries()) {
    const line = readLine(content)
    if (line.words.length === 0) continue
    const rule = readRule(i + 1, line)
    if (Result.isSuccess(rule)) rules.push(rule.success)
    else problems.push(rule.failure)
    if (problems.length >= maxProblems) break
  }
  const [first, ...more] = problems
  return first === undefined
    ? Result.succeed({ rules })
    : Result.fail(new InvalidPolicy({ problems: [first, ...more] }))
}

/** One rule in the text form. Patterns have no order within a rule; one called `group` goes first. */
export const formatRule = (rule: Rule): string => {
  const topics = rule.topics.filter((name) => name !== "group")
  if (topics.length < rule.topics.length) topics.unshift("group")
  const groups =
    rule.groups === undefined ? [] : ["group", ...(rule.groups === "*" ? ["*"] : rule.groups.map(escaped))]
  return [rule.effect, rule.action, ...topics.map(escaped), ...groups].join(" ")
}

/** The text form, which `parsePolicy` reads back to a policy that decides the same. */
export const formatPolicy = (policy: Policy): string =>
  policy.rules.map((rule) => `${formatRule(rule)}\n`).join("")
