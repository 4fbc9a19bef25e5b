/**
 * The text form that rules about topics share: `<pattern>: <options>`, separated by `;` or by lines.
 *
 * The first rule whose pattern matches a topic decides. All that is wrong is told at once, and a rule that can never
 * apply is wrong, too: whoever wrote it believes in it.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Topic from "./Topic.ts"

/** Where rules are wrong, and what to write instead. Rules and characters are counted from 1. */
export interface RuleProblem {
  readonly rule: number
  readonly at: number
  readonly reason: string
}

/** What is wrong with one rule. */
export type Flaw = Omit<RuleProblem, "rule">

/** The field of an error that says what is wrong. */
export const Problems = Schema.NonEmptyArray(
  Schema.Struct({ rule: Schema.Int, at: Schema.Int, reason: Schema.String })
)

export const formatProblems = (problems: typeof Problems.Type): string =>
  problems.map(({ at, reason, rule }) => `rule ${rule} (character ${at}): ${reason}`).join("; ")

export interface Word {
  readonly text: string
  readonly at: number
}

export const shown = (word: string): string => `'${word.length > 128 ? `${word.slice(0, 128)}…` : word}'`

export const flaw = (at: number, reason: string): Result.Result<never, Flaw> => Result.fail({ at, reason })

/** The words of each rule that is not empty. */
const split = (text: string): ReadonlyArray<readonly [Word, ...Array<Word>]> =>
  Array.from(text.matchAll(/[^;\r\n]+/g), (part) =>
    Array.from(part[0].matchAll(/\S+/g), (word) => ({ text: word[0], at: part.index + word.index + 1 }))
  ).flatMap(([first, ...rest]) => (first === undefined ? [] : [[first, ...rest] as const]))

export interface Form<Rule> {
  /** What stands behind the pattern, such as `<options>`. */
  readonly options: string
  /** `at`: where the rule begins. */
  readonly parse: (
    pattern: Topic.Pattern,
    options: ReadonlyArray<Word>,
    at: number
  ) => Result.Result<Rule, Flaw>
}

export const parse = <Rule extends { readonly pattern: Topic.Pattern }>(
  text: string,
  form: Form<Rule>
): Result.Result<ReadonlyArray<Rule>, typeof Problems.Type> => {
  const problems: Array<RuleProblem> = []
  const rules: Array<readonly [number: number, rule: Rule]> = []

  const parseOne = (first: Word, options: ReadonlyArray<Word>): Result.Result<Rule, Flaw> => {
    if (!first.text.endsWith(":")) {
      const how = `write a rule as '<pattern>: ${form.options}'`
      return flaw(first.at, `${shown(first.text)} ends in no ':'; ${how}`)
    }
    const pattern = Topic.parsePattern(first.text.slice(0, -1))
    if (Result.isFailure(pattern)) return flaw(first.at, pattern.failure.message)
    return form.parse(pattern.success, options, first.at)
  }

  split(text).forEach(([first, ...options], i) => {
    const parsed = parseOne(first, options)
    if (Result.isFailure(parsed)) return problems.push({ rule: i + 1, ...parsed.failure })
    const rule = parsed.success
    const [number, earlier] = rules.find(([, other]) => Topic.covers(other.pattern, rule.pattern)) ?? []
    if (earlier !== undefined) {
      const reason = `it never applies, since rule ${number} takes all its topics before; put it in front of that`
      problems.push({ rule: i + 1, at: first.at, reason })
    }
    return rules.push([i + 1, rule])
  })
  const [problem, ...more] = problems
  return problem === undefined
    ? Result.succeed(rules.map(([, rule]) => rule))
    : Result.fail([problem, ...more])
}
