/**
 * What is allowed to stand in a policy file, and is hardly meant: rules that decide nothing, and denies that deny less
 * than they seem to.
 */
import * as Result from "effect/Result"
import { type PolicyProblem, readLine, linesOf, type Rule } from "./Policy.ts"
import { isTemplate, parsePolicyFile, type Role, type RoleRule, substitute } from "./PolicyFile.ts"
import * as Topic from "./Topic.ts"

/** One thing that a rule is about. */
interface Part {
  readonly action: Exclude<Rule["action"], "*">
  readonly topic: string
  /** None: any reader, in a group or not. */
  readonly group: string | undefined
}

const partsOf = ({ action, groups, topics }: Rule): ReadonlyArray<Part> => {
  const actions = action === "*" ? (["publish", "subscribe"] as const) : [action]
  const members = groups === undefined ? [undefined] : groups === "*" ? ["*"] : groups
  return actions.flatMap((action) =>
    topics.flatMap((topic) => members.map((group): Part => ({ action, topic, group })))
  )
}

/** What fills a placeholder is some segment, the same wherever the placeholder stands. */
const filled = (name: string): string =>
  substitute(name, (placeholder) => `<${placeholder}>`.replaceAll(/[^!-~]|[.*]/g, "-").slice(0, 64))

/** Names are compared with each other, and parsed once. One that is too long when it is filled is about nothing. */
const makeCovers = (): ((a: string, b: string) => boolean) => {
  const parsed = new Map<string, Topic.Pattern | undefined>()
  const patternOf = (name: string): Topic.Pattern | undefined => {
    if (!parsed.has(name)) parsed.set(name, Result.getOrUndefined(Topic.parsePattern(filled(name))))
    return parsed.get(name)
  }
  return (a, b) => {
    const wide = patternOf(a)
    const narrow = patternOf(b)
    if (wide === undefined || narrow === undefined) return false
    const first = wide.segments[0]!
    return (first.startsWith("*") || first === narrow.segments[0]) && Topic.covers(wide, narrow)
  }
}

type Covers = ReturnType<typeof makeCovers>

/** Whether a rule is about all of a part, so that whatever comes after it is not asked. */
const isAboutAll = (rule: Rule, part: Part, ofDeny: boolean, covers: Covers): boolean => {
  if (rule.action !== part.action && (rule.action !== "*" || part.action === "admin")) return false
  const { groups } = rule
  if (groups !== undefined && part.group === undefined) return false
  if (groups !== undefined && groups !== "*" && !groups.includes(part.group!)) return false
  return rule.topics.some(
    (topic) =>
      // An allow that nothing fills allows nothing, where a deny denies for every value.
      !(ofDeny && rule.effect === "allow" && isTemplate(topic)) && covers(topic, part.topic)
  )
}

/** The rules before it that leave nothing for it to decide; none when they leave something. */
const hiding = (before: ReadonlyArray<RoleRule>, rule: Rule, covers: Covers): ReadonlyArray<RoleRule> => {
  const found = new Set<RoleRule>()
  for (const part of partsOf(rule)) {
    const first = before.find((earlier) => isAboutAll(earlier.rule, part, rule.effect === "deny", covers))
    if (first === undefined) return []
    found.add(first)
  }
  return [...found].sort((a, b) => a.line - b.line)
}

const linesSaid = (rules: ReadonlyArray<RoleRule>): string => {
  const lines = [...new Set(rules.map(({ line }) => line))]
  return lines.length === 1
    ? `line ${lines[0]}`
    : `lines ${lines.slice(0, -1).join(", ")} and ${lines.at(-1)}`
}

const hidden = (before: ReadonlyArray<RoleRule>, rule: Rule, covers: Covers): string | undefined => {
  const hiders = hiding(before, rule, covers)
  if (hiders.length === 0) return undefined
  const others = hiders.filter((other) => other.rule.effect !== rule.effect)
  if (rule.effect === "deny" && others.length > 0) {
    return `it denies no topic: ${linesSaid(others)} above allows them. Write denies first`
  }
  return `it never decides: ${linesSaid(hiders)} above ${hiders.length === 1 ? "is" : "are"} about all of it`
}

const ofRole = ({ name, rules, line }: Role): ReadonlyArray<Omit<PolicyProblem, "column">> => {
  if (rules.length === 0) return [{ line, reason: `role '${name}' has no rules: it allows nothing` }]
  const covers = makeCovers()
  return rules.flatMap(({ line, rule }, i) => {
    const reasons = [hidden(rules.slice(0, i), rule, covers)]
    if (rule.effect === "deny" && rule.groups !== undefined) {
      reasons.push("it denies only consumers in groups: live readers are not bound by a rule with groups")
    }
    return reasons.flatMap((reason) => (reason === undefined ? [] : [{ line, reason }]))
  })
}

/** `a #b` was perhaps meant to be two topics. */
const ofComment = (text: string): Omit<PolicyProblem, "line"> | undefined => {
  const { comment, words } = readLine(text)
  if (comment === undefined || words.length === 0) return undefined
  const isName = /^#\S+$/.test(comment.text) && Result.isSuccess(Topic.parsePattern(comment.text))
  return isName
    ? {
        column: comment.column,
        reason: `'${comment.text}' is a comment: a name that begins so is written \\${comment.text}`
      }
    : undefined
}

/** Of a text without problems; of one with problems there is nothing to say yet. */
export const warningsOf = (text: string): ReadonlyArray<PolicyProblem> => {
  const file = parsePolicyFile(text)
  if (Result.isFailure(file)) return []
  const lines = linesOf(text)
  const columnOf = (line: number): number => readLine(lines[line - 1] ?? "").words[0]?.column ?? 1
  const ofRules = [...file.success.roles.values()]
    .flatMap(ofRole)
    .map((warning) => ({ ...warning, column: columnOf(warning.line) }))
  const ofComments = lines.flatMap((text, i) => {
    const warning = ofComment(text)
    return warning === undefined ? [] : [{ line: i + 1, ...warning }]
  })
  return [...ofRules, ...ofComments].sort((a, b) => a.line - b.line || a.column - b.column)
}
