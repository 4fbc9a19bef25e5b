/**
 * Why a policy allows something or not: which rule decides, and for each of the others why it does not.
 *
 * The decisions are those of Policy, asked again with single rules; nothing is decided here. For people who write
 * policies, and for whoever wonders why a token is refused.
 */
import * as Result from "effect/Result"
import { ownTopic } from "./Event.ts"
import { namedBy } from "./OwnTopics.ts"
import * as Policy from "./Policy.ts"
import * as Topic from "./Topic.ts"

export interface ExplainedRule {
  /** Its place among those that are shown, from 1. */
  readonly n: number
  /** The rule in the text form. */
  readonly text: string
  readonly decides: boolean
  readonly why: string
}

export interface Explanation {
  readonly allowed: boolean
  /** In a sentence. */
  readonly reason: string
  /** The rule that decides; none when none fits, and what no rule allows is denied, or when it is not shown. */
  readonly rule: number | undefined
  /** All rules that are shown, in their order. */
  readonly rules: ReadonlyArray<ExplainedRule>
}

/** `topic` is a topic, or a pattern, which stands for all topics that it matches. */
export type Request = Policy.Request

/** One topic is decided on as such; what is asked for a pattern has to hold for all of it. */
const decide = (policy: Policy.Policy, request: Request): Policy.Decision =>
  Result.isSuccess(Topic.parseTopic(request.topic))
    ? Policy.decide(policy, request)
    : Policy.decidePattern(policy, request.action, { pattern: request.topic, group: request.group })

const quoted = (names: ReadonlyArray<string>): string => names.map((name) => `'${name}'`).join(", ")

const actionProblem = (rule: Policy.Rule, action: Request["action"]): string | undefined => {
  if (rule.action === action || (rule.action === "*" && action !== "admin")) return undefined
  return rule.action === "*"
    ? "'*' is publish and subscribe; a right to admin is always written out"
    : `it is about ${rule.action}, not about ${action}`
}

const groupProblem = ({ groups }: Policy.Rule, group: string | undefined): string | undefined => {
  if (groups === undefined) return undefined
  if (group === undefined) return "it is about consumer groups, and none was asked for"
  return groups === "*" || groups.includes(group) ? undefined : `it is about other groups than '${group}'`
}

const topicProblem = (rule: Policy.Rule, name: string): string => {
  const wanted = Topic.parsePattern(name)
  if (Result.isFailure(wanted)) return `'${name}' is no topic and no pattern`
  if (wanted.success.concrete) return `it does not match '${name}'`
  const touched = rule.topics.some((pattern) => Topic.overlaps(pattern, wanted.success))
  return touched
    ? `it allows only a part of '${name}', and all of it is asked for: it is skipped`
    : `it matches no topic of '${name}'`
}

/** Why a rule does not fit. */
const misfit = (rule: Policy.Rule, { action, group, topic }: Request): string =>
  actionProblem(rule, action) ?? groupProblem(rule, group) ?? topicProblem(rule, topic)

const isBroken = (rule: Policy.Rule): boolean =>
  rule.topics.some((name) => Result.isFailure(Topic.parsePattern(name)))

const whyItDecides = (rule: Policy.Rule): string =>
  rule.effect === "deny" && isBroken(rule)
    ? "one of its patterns is none: nobody knows what it was meant to deny, so it denies all"
    : "it is the first rule that fits"

const summary = (decision: Policy.Decision, n: number | undefined, hidden: number): string => {
  if (hidden > 0 && n === undefined) {
    return decision._tag === "Allowed"
      ? "its roles allow it"
      : "what its roles and its own rules say together does not allow it"
  }
  if (decision.rule === undefined || n === undefined) return "no rule fits, and what no rule allows is denied"
  return `rule ${n} ${decision._tag === "Allowed" ? "allows" : "denies"} it: ${Policy.formatRule(decision.rule)}`
}

/**
 * What a policy says of a topic or a pattern itself: the outcome is that of `Policy.decide` and its like. The first
 * `hidden` rules count, and nothing is said of them: they are roles', and whoever asks may not see what there is to hide.
 */
export const explain = (policy: Policy.Policy, request: Request, hidden: number = 0): Explanation => {
  const shown = policy.rules.slice(hidden)
  const decision = decide(policy, request)
  const at = decision.rule === undefined ? -1 : policy.rules.indexOf(decision.rule) - hidden
  const n = at < 0 ? undefined : at + 1
  const first = n === undefined ? "a rule of its roles" : `rule ${n}`
  const why = (rule: Policy.Rule, i: number): string => {
    if (i === at) return whyItDecides(rule)
    const fits = decide({ rules: [rule] }, request).rule !== undefined
    return fits ? `it fits, too, but ${first} comes first` : misfit(rule, request)
  }
  return {
    allowed: decision._tag === "Allowed",
    reason: summary(decision, n, hidden),
    rule: n,
    rules: shown.map((rule, i) => ({
      n: i + 1,
      text: Policy.formatRule(rule),
      decides: i === at,
      why: why(rule, i)
    }))
  }
}

const nobody = (policy: Policy.Policy, why: string, hidden: number): Explanation => ({
  allowed: false,
  reason: why,
  rule: undefined,
  rules: policy.rules.slice(hidden).map((rule, i) => ({
    n: i + 1,
    text: Policy.formatRule(rule),
    decides: false,
    why: "no rule decides about this"
  }))
})

/**
 * What the hub answers: the same, and what holds for its own topics. Nobody publishes there, and to read one takes
 * the right to the topics that it names as well; explained is the first of them that is denied.
 */
export const explainAccess = (policy: Policy.Policy, request: Request, hidden: number = 0): Explanation => {
  if (request.action === "publish" && Topic.isOwn(request.topic)) return nobody(policy, ownTopic, hidden)
  const explanation = explain(policy, request, hidden)
  if (!explanation.allowed || request.action !== "subscribe") return explanation
  const named = namedBy(request.topic)
  for (const topic of named) {
    const about = explainAccess(policy, { ...request, topic }, hidden)
    if (!about.allowed) {
      return {
        ...about,
        reason: `'${request.topic}' takes the right to ${quoted(named)}, too; of '${topic}': ${about.reason}`
      }
    }
  }
  return explanation
}
