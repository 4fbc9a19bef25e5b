/**
 * Roles that tokens refer to, each with rules, and how they become the policy of one token.
 *
 * A rule of a role may hold placeholders, `${sub}` and `${claim.<name>}`, which what the token says fills: each is
 * exactly one segment. A value that is none fills nothing: an allow with it allows nothing, a deny with it denies for
 * every value. Whoever chooses such a value for themselves gains no right by it, and gets rid of no deny.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Policy from "./Policy.ts"
import * as Topic from "./Topic.ts"

export interface RoleRule {
  readonly line: number
  /** As it is written, with its placeholders. */
  readonly rule: Policy.Rule
}

export interface Role {
  readonly name: string
  readonly line: number
  readonly rules: ReadonlyArray<RoleRule>
}

export interface PolicyFile {
  readonly roles: ReadonlyMap<string, Role>
}

export class UnknownRole extends Schema.TaggedError<UnknownRole>()("UnknownRole", { role: Schema.String }) {
  override get message() {
    const { role } = this
    return `there is no role '${role.length > 64 ? `${role.slice(0, 64)}…` : role}' in the policy file`
  }
}

// --- placeholders --------------------------------------------------------------------------------------------

/** What fills placeholders. */
export interface Values {
  readonly sub: string
  /** Other claims of the token, by their names. */
  readonly values?: Readonly<Record<string, string>> | undefined
}

/**
 * Whether a value fills a placeholder: as one literal segment, and never as the beginning of the hub's own topics,
 * which wildcards do not match either.
 */
export const canFill = (value: string): boolean => Topic.isSegment(value) && !Topic.isOwn(value)

/** What fills from a token's payload: texts and whole numbers. Times tell nobody apart. */
export const valuesOf = (payload: unknown): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(payload ?? {}).flatMap(([name, value]: [string, unknown]) => {
      if (name === "exp" || name === "iat" || name === "nbf") return []
      const text = typeof value === "string" || Number.isSafeInteger(value) ? String(value) : ""
      return canFill(text) ? [[name, text]] : []
    })
  )

/** A segment as it is written, or the placeholder that it is: `sub` or `claim.<name>`. */
interface Segment {
  readonly text: string
  readonly placeholder?: string
}

const placeholder = /^\$\{([^}]*)\}(?=\.|$)/

const known = /^(?:sub|claim\.[^\s{}$]+)$/

const form = "a placeholder is a whole segment, ${sub} or ${claim.<name>}"

/** The name of a claim may hold dots: a placeholder is read as one segment. */
const segmentsOf = (name: string): Result.Result<ReadonlyArray<Segment>, Policy.Flaw> => {
  const segments: Array<Segment> = []
  for (let at = 0; at <= name.length;) {
    const rest = name.slice(at)
    const [whole, inside] = placeholder.exec(rest) ?? []
    if (whole !== undefined && known.test(inside!)) segments.push({ text: whole, placeholder: inside! })
    else {
      const [text] = rest.split(".", 1) as [string]
      const wrong = text.indexOf("${")
      if (wrong >= 0) return Result.fail({ at: at + wrong, reason: form })
      segments.push({ text })
    }
    at += segments.at(-1)!.text.length + 1
  }
  return Result.succeed(segments)
}

const replaced = (segments: ReadonlyArray<Segment>, by: (placeholder: string) => string): string =>
  segments.map(({ placeholder, text }) => (placeholder === undefined ? text : by(placeholder))).join(".")

/** What placeholders stand for at most. */
const widest = (segments: ReadonlyArray<Segment>): string => replaced(segments, () => "*")

/** A name of a rule with something else in the place of its placeholders. */
export const substitute = (name: string, by: (placeholder: string) => string): string =>
  replaced(Result.getOrThrow(segmentsOf(name)), by)

const names: Policy.Names = {
  pattern: (name) => {
    const segments = segmentsOf(name)
    if (Result.isFailure(segments)) return segments.failure
    const pattern = Topic.parsePattern(widest(segments.success))
    return Result.isFailure(pattern) ? { at: 0, reason: pattern.failure.message } : undefined
  },
  group: (name) => {
    const segments = segmentsOf(name)
    if (Result.isFailure(segments)) return segments.failure
    const [only, ...more] = segments.success
    const isName = more.length === 0 && (only!.placeholder !== undefined || Topic.isSegment(name))
    return isName ? undefined : { at: 0, reason: `'${name}' is no name of a group` }
  }
}

/** Whether a name holds placeholders. */
export const isTemplate = (name: string): boolean => name.includes("${")

// --- the text ------------------------------------------------------------------------------------------------

/** A line that opens a role. What stands behind its name is a rule, or nothing. */
export interface Header {
  readonly name: string
  readonly rest: Policy.Line
}

const headerOf = (line: Policy.Line): Result.Result<Header, Omit<Policy.PolicyProblem, "line">> => {
  const [, second, ...rest] = line.words
  const fail = (column: number, reason: string) => Result.fail({ column, reason })
  if (second === undefined) return fail(line.end, "the name of the role is missing: role <name>:")
  const colon = second.text.indexOf(":")
  const name = colon < 0 ? second.text : second.text.slice(0, colon)
  if (!Topic.isSegment(name)) return fail(second.column, `'${name}' is no name of a role: it is one segment`)
  const behind = second.column + (colon < 0 ? second.text.length : colon)
  if (colon < 0) return fail(behind, `a ':' is missing behind the name: role ${name}:`)
  if (second.text.length > colon + 1) return fail(behind + 1, `a space is missing behind '${name}:'`)
  return Result.succeed({ name, rest: { ...line, words: rest } })
}

/** Whether a line opens a role; none of a policy without roles does. */
export const isHeader = ({ words }: Policy.Line): boolean => words[0]?.text === "role"

/** Whether a text has roles, or is the policy of one token. */
export const hasRoles = (text: string): boolean =>
  Policy.linesOf(text).some((line) => isHeader(Policy.readLine(line)))

/** A file as it stands there, line by line, also where it is wrong. */
export interface WrittenLine {
  readonly n: number
  readonly line: Policy.Line
  readonly header: Header | undefined
  readonly rule: Policy.Rule | undefined
  readonly problems: ReadonlyArray<Policy.PolicyProblem>
}

const readWritten = (n: number, text: string, inRole: boolean): WrittenLine => {
  const line = Policy.readLine(text)
  const nothing = { n, line, header: undefined, rule: undefined, problems: [] }
  if (line.words.length === 0) return nothing
  const ruleOf = (from: Policy.Line): Pick<WrittenLine, "rule" | "problems"> => {
    if (from.words.length === 0) return { rule: undefined, problems: [] }
    const rule = Policy.readRule(n, from, names)
    return Result.isSuccess(rule)
      ? { rule: rule.success, problems: [] }
      : { rule: undefined, problems: [rule.failure] }
  }
  if (isHeader(line)) {
    const header = headerOf(line)
    return Result.isSuccess(header)
      ? { ...nothing, header: header.success, ...ruleOf(header.success.rest) }
      : { ...nothing, problems: [{ line: n, ...header.failure }] }
  }
  if (inRole) return { ...nothing, ...ruleOf(line) }
  const { column } = line.words[0]!
  const reason =
    "it stands before the first role: rules belong to roles, each opened by a line 'role <name>:'"
  return { ...nothing, problems: [{ line: n, column, reason }] }
}

function* written(text: string): Generator<WrittenLine> {
  let inRole = false
  for (const [i, content] of Policy.linesOf(text).entries()) {
    const line = readWritten(i + 1, content, inRole)
    inRole ||= isHeader(line.line)
    yield line
  }
}

export const readLines = (text: string): ReadonlyArray<WrittenLine> => [...written(text)]

/**
 * Reads the text of a policy file: `role <name>:`, then its rules, to the next role. All that is wrong is told at once,
 * up to `Policy.maxProblems`.
 * A file without any role is wrong, too: it is one that somebody is just writing, or has cut off.
 */
export const parsePolicyFile = (text: string): Result.Result<PolicyFile, Policy.InvalidPolicy> => {
  const roles = new Map<string, Role & { readonly rules: Array<RoleRule> }>()
  const problems: Array<Policy.PolicyProblem> = []
  let role: Array<RoleRule> = []
  for (const { header, line, n, problems: found, rule } of written(text)) {
    if (problems.length >= Policy.maxProblems) break
    if (isHeader(line)) role = []
    if (header !== undefined) {
      const before = roles.get(header.name)
      if (before === undefined) roles.set(header.name, { name: header.name, line: n, rules: role })
      else {
        const reason = `there is a role '${header.name}' already, on line ${before.line}`
        problems.push({ line: n, column: line.words[1]!.column, reason })
      }
    }
    problems.push(...found)
    if (rule !== undefined) role.push({ line: n, rule })
  }
  if (roles.size === 0 && problems.length === 0) {
    problems.push({ line: 1, column: 1, reason: "it has no role: role <name>:" })
  }
  const [first, ...more] = problems
  return first === undefined
    ? Result.succeed({ roles })
    : Result.fail(new Policy.InvalidPolicy({ problems: [first, ...more] }))
}

// --- filling and merging -------------------------------------------------------------------------------------

const valueOf = (placeholder: string, { sub, values = {} }: Values): string | undefined => {
  const claim = placeholder.slice("claim.".length)
  const value = placeholder === "sub" ? sub : Object.hasOwn(values, claim) ? values[claim] : undefined
  return value !== undefined && canFill(value) ? value : undefined
}

/** A rule that holds placeholders, taken apart once for all who have it. */
interface Template {
  readonly topics: ReadonlyArray<ReadonlyArray<Segment>>
  readonly placeholders: ReadonlyArray<string>
}

const templates = new WeakMap<Policy.Rule, Template>()

const takeApart = ({ groups, topics: written }: Policy.Rule): Template => {
  const topics = written.map((name) => Result.getOrThrow(segmentsOf(name)))
  const inTopics = topics.flat().flatMap(({ placeholder }) => placeholder ?? [])
  const inGroups = groups === undefined || groups === "*" ? [] : groups.filter(isTemplate)
  return { topics, placeholders: [...inTopics, ...inGroups.map((name) => name.slice(2, -1))] }
}

const templateOf = (rule: Policy.Rule): Template => {
  let template = templates.get(rule)
  if (template === undefined) templates.set(rule, (template = takeApart(rule)))
  return template
}

/** The names that a written one stands for: one, or, of an allow that nothing fills, none. */
const fillPattern = (
  segments: ReadonlyArray<Segment>,
  effect: Policy.Rule["effect"],
  values: Values
): ReadonlyArray<string> => {
  let isFilled = true
  const pattern = replaced(segments, (placeholder) => {
    const value = valueOf(placeholder, values)
    if (value === undefined) isFilled = false
    return value ?? "*"
  })
  // Filled, it may be longer than any topic is; nothing else can be wrong with it.
  const isPattern = pattern.length <= Topic.maxBytes || Result.isSuccess(Topic.parsePattern(pattern))
  if (effect === "allow") return isFilled && isPattern ? [pattern] : []
  return [isPattern ? pattern : widest(segments)]
}

const fillGroups = (
  groups: NonNullable<Policy.Rule["groups"]>,
  effect: Policy.Rule["effect"],
  values: Values
): Policy.Rule["groups"] => {
  if (groups === "*") return groups
  const filled = groups.map((name) => (isTemplate(name) ? valueOf(name.slice(2, -1), values) : name))
  if (effect === "deny" && filled.includes(undefined)) return "*"
  const [first, ...more] = filled.filter((name) => name !== undefined)
  return first === undefined ? undefined : [first, ...more]
}

/** The rule for one token; none when it is an allow and what it needs is not in the token. */
const fill = (rule: Policy.Rule, values: Values): Policy.Rule | undefined => {
  const { groups: written, ...others } = rule
  const { placeholders, topics } = templateOf(rule)
  // Most rules are the same for everybody, and so are their parsed patterns.
  if (placeholders.length === 0) return rule
  const [first, ...more] = topics.flatMap((segments) => fillPattern(segments, rule.effect, values))
  if (first === undefined) return undefined
  const filled: Policy.Rule = { ...others, topics: [first, ...more] }
  if (written === undefined) return filled
  const groups = fillGroups(written, rule.effect, values)
  return groups === undefined ? undefined : { ...filled, groups }
}

/** A rule of a role as it counts for one token. */
export interface Filled {
  readonly role: string
  readonly line: number
  readonly written: Policy.Rule
  /** None: it is an allow, and the token has nothing that fills it. */
  readonly rule: Policy.Rule | undefined
}

export interface Bearer extends Values {
  readonly roles: ReadonlyArray<string>
}

/**
 * The rules of the roles in the order in which they are asked: of one role as it is written, of several all denies
 * first. What one role denies, another does not allow.
 */
export const fillRoles = (
  file: PolicyFile,
  { roles, ...values }: Bearer
): Result.Result<ReadonlyArray<Filled>, UnknownRole> => {
  const rules: Array<Filled> = []
  const wanted = new Set(roles)
  for (const name of wanted) {
    const role = file.roles.get(name)
    if (role === undefined) return Result.fail(new UnknownRole({ role: name }))
    for (const { line, rule } of role.rules) {
      rules.push({ role: name, line, written: rule, rule: fill(rule, values) })
    }
  }
  if (wanted.size < 2) return Result.succeed(rules)
  const isDeny = ({ written }: Filled): boolean => written.effect === "deny"
  return Result.succeed([...rules.filter(isDeny), ...rules.filter((rule) => !isDeny(rule))])
}

/** What their policy depends on: whoever has the same roles of a file, and the same in their placeholders, has the same. */
export const identityOf = (file: PolicyFile, { roles, ...values }: Bearer): string => {
  const wanted = new Set(roles)
  const used = new Set<string>()
  for (const name of wanted) {
    for (const { rule } of file.roles.get(name)?.rules ?? []) {
      for (const placeholder of templateOf(rule).placeholders) used.add(placeholder)
    }
  }
  return JSON.stringify([[...wanted], Array.from(used, (name) => valueOf(name, values) ?? null)])
}

/** The policy of whoever has these roles. */
export const resolve = (file: PolicyFile, bearer: Bearer): Result.Result<Policy.Policy, UnknownRole> =>
  Result.map(fillRoles(file, bearer), (rules) => ({
    rules: rules.flatMap(({ rule }) => (rule === undefined ? [] : [rule]))
  }))

/** What a token says about its roles. */
export interface Named {
  readonly roles?: ReadonlyArray<string> | undefined
  readonly hasBadRoles?: true | undefined
}

/** Why a token with these roles is refused, where there is this file. */
export const problemOf = (file: PolicyFile, { hasBadRoles, roles }: Named): string | undefined => {
  if (hasBadRoles) return "its claim 'roles' is no array of strings"
  const role = roles?.find((name) => !file.roles.has(name))
  return role === undefined ? undefined : new UnknownRole({ role }).message
}

/** What a token says about its rights. */
export interface Rights extends Values {
  readonly roles?: ReadonlyArray<string> | undefined
  /** What it carries itself: after its roles. */
  readonly policy: Policy.Policy
}

/** What holds for a token: the rules of its roles, then its own. */
export const policyOf = (
  file: PolicyFile,
  { policy, roles, ...values }: Rights
): Result.Result<Policy.Policy, UnknownRole> =>
  roles === undefined
    ? Result.succeed(policy)
    : Result.map(resolve(file, { ...values, roles }), ({ rules }) => ({ rules: [...rules, ...policy.rules] }))
