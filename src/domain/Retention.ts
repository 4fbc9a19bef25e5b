/**
 * How long events are kept: rules by topic, their text form, and what a rule lets go of in one topic.
 *
 * The first rule whose pattern matches a topic decides; a topic without a rule is kept for ever. Age is counted
 * from when an event was stored, never by what its publisher's clock said. What a consumer group has not
 * acknowledged stays, unless the rule says otherwise.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as RuleText from "./RuleText.ts"
import * as Topic from "./Topic.ts"

/** What has an age and a count goes as soon as either lets it go; a rule with neither keeps its topics for ever. */
export interface RetentionRule {
  readonly pattern: Topic.Pattern
  /** How long an event is kept, in milliseconds. */
  readonly ageMs: number | undefined
  /** How many of the last events are kept. */
  readonly count: number | undefined
  /** `ignore`: events go also when a group has not acknowledged them. */
  readonly groups: "respect" | "ignore"
}

/** The rule of a topic; nothing when it is kept for ever. */
export const ruleFor = (
  rules: ReadonlyArray<RetentionRule>,
  topic: string | Topic.Topic
): RetentionRule | undefined => rules.find((rule) => Topic.matches(rule.pattern, topic))

/** Whether a rule ever lets go of something. */
export const isKeep = (rule: RetentionRule): boolean => rule.ageMs === undefined && rule.count === undefined

// --- the decision ----------------------------------------------------------------------------------------------

/** What a rule is asked about: one topic, as it stands. */
export interface TopicFacts {
  readonly rule: RetentionRule
  readonly head: number
  readonly floor: number
  /** The last event that is older than the rule's age. Means nothing for a rule without an age. */
  readonly byAge: number
  /** The last event that may be trimmed at all, by the least age of the store. */
  readonly byLeastAge: number
}

/** Somebody needs everything behind a position. */
export interface Need {
  readonly group: string
  readonly position: number
}

export interface Facts extends TopicFacts {
  /** The group that has acknowledged least; none when no group is registered for the topic. */
  readonly leastGroup: Need | undefined
  /** Of dead letters: what a group is about to take back. That is respected whatever the rule says. */
  readonly letters: Need | undefined
}

export interface Decision {
  /** Everything up to here goes. Never below the floor. */
  readonly upTo: number
  /** Who needs events that would go otherwise. */
  readonly heldBackBy: string | undefined
}

/** Up to where the rule alone would let go. The last event always stays. */
export const wanted = ({ byAge, byLeastAge, floor, head, rule }: TopicFacts): number => {
  const old = rule.ageMs === undefined ? 0 : byAge
  const many = rule.count === undefined ? 0 : head - rule.count
  return Math.max(floor, Math.min(head - 1, byLeastAge, Math.max(old, many)))
}

export const decide = (facts: Facts): Decision => {
  const { floor, leastGroup, letters, rule } = facts
  let upTo = wanted(facts)
  let heldBackBy: string | undefined
  // Who is behind the floor already cannot hold back what there is.
  for (const need of [rule.groups === "ignore" ? undefined : leastGroup, letters]) {
    if (need === undefined || need.position >= upTo || upTo <= floor) continue
    upTo = Math.max(floor, need.position)
    heldBackBy = need.group
  }
  return { upTo, heldBackBy }
}

/** The group that has acknowledged least. Of several, the first. */
export const leastOf = (needs: Iterable<Need>): Need | undefined => {
  let least: Need | undefined
  for (const need of needs) if (least === undefined || need.position < least.position) least = need
  return least
}

// --- the text form ---------------------------------------------------------------------------------------------

const units = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1_000],
  ["ms", 1]
] as const

/** A whole number of one unit, such as `7d` or `90s`, in milliseconds; nothing when it is none, or is 0. */
export const parseDuration = (text: string): number | undefined => {
  const [, digits, name] = /^(\d{1,16})(d|h|m|s|ms)$/.exec(text) ?? []
  const ms = Number(digits) * (units.find(([unit]) => unit === name)?.[1] ?? NaN)
  return Number.isSafeInteger(ms) && ms > 0 ? ms : undefined
}

/** In the largest unit that needs no fraction. `parseDuration` reads it back. */
export const formatDuration = (ms: number): string => {
  const [unit, size] = units.find(([, size]) => ms % size === 0) ?? ["ms", 1]
  return `${ms / size}${unit}`
}

export class InvalidRetention extends Schema.TaggedError<InvalidRetention>()("InvalidRetention", {
  problems: RuleText.Problems
}) {
  override get message() {
    return RuleText.formatProblems(this.problems)
  }
}

const { flaw, shown } = RuleText

const parseRule: RuleText.Form<RetentionRule>["parse"] = (pattern, options, at) => {
  const rule = { pattern, ageMs: undefined, count: undefined, groups: "respect" as const }
  if (options.length === 1 && options[0]?.text === "keep") return Result.succeed(rule)

  const given = new Map<string, RuleText.Word>()
  for (const { at, text } of options) {
    const [, name, value] = /^(age|count|groups)=(.*)$/.exec(text) ?? []
    if (text === "keep") return flaw(at, "'keep' stands alone: what is kept for ever has no other option")
    if (name === undefined || value === undefined) {
      return flaw(
        at,
        `${shown(text)} is no option; those are age=<duration>, count=<number>, groups=ignore and keep`
      )
    }
    if (given.has(name)) return flaw(at, `'${name}' stands twice; leave one of them out`)
    given.set(name, { text: value, at: at + name.length + 1 })
  }
  const age = given.get("age")
  const ageMs = age === undefined ? undefined : parseDuration(age.text)
  if (age !== undefined && ageMs === undefined) {
    return flaw(age.at, `${shown(age.text)} is no duration; write a number and d, h, m, s or ms, such as 7d`)
  }
  const last = given.get("count")
  const count = last === undefined ? undefined : /^\d{1,15}$/.test(last.text) ? Number(last.text) : 0
  if (last !== undefined && count === 0) {
    return flaw(last.at, `${shown(last.text)} is no count; write a whole number from 1 on, such as 1000`)
  }
  const groups = given.get("groups")
  if (groups !== undefined && groups.text !== "ignore" && groups.text !== "respect") {
    return flaw(groups.at, `${shown(groups.text)} is not known; write groups=ignore, or groups=respect`)
  }
  if (ageMs === undefined && count === undefined) {
    return flaw(at, "it does not say what goes; add age=<duration> or count=<number>, or keep")
  }
  return Result.succeed({ ...rule, ageMs, count, groups: groups?.text === "ignore" ? "ignore" : "respect" })
}

/**
 * Reads the text form: rules as `<pattern>: <options>`, separated by `;` or by lines, with the options
 * `age=<duration>`, `count=<number>` and `groups=ignore`, or `keep` alone.
 */
export const parseRules = (text: string): Result.Result<ReadonlyArray<RetentionRule>, InvalidRetention> =>
  Result.mapError(
    RuleText.parse(text, { options: "<options>", parse: parseRule }),
    (problems) => new InvalidRetention({ problems })
  )

export const formatRule = ({ ageMs, count, groups, pattern }: RetentionRule): string => {
  const options = [
    ageMs === undefined ? [] : [`age=${formatDuration(ageMs)}`],
    count === undefined ? [] : [`count=${count}`],
    groups === "ignore" ? ["groups=ignore"] : []
  ].flat()
  return `${pattern.name}: ${ageMs === undefined && count === undefined ? "keep" : options.join(" ")}`
}

/** The text form, which `parseRules` reads back. A pattern with `;` in it has none: write `*` in that place. */
export const formatRules = (rules: ReadonlyArray<RetentionRule>): string => rules.map(formatRule).join("; ")

/** A rule that would let go of events before the least age; nothing when there is none. */
export const belowLeastAge = (
  rules: ReadonlyArray<RetentionRule>,
  minAgeMs: number
): RetentionRule | undefined => rules.find(({ ageMs }) => ageMs !== undefined && ageMs < minAgeMs)
