/** Reading an environment, variable by variable: the values, and everything that is wrong at once. */

export interface Variable {
  readonly name: string
  readonly about: string
  /** As docs show it. */
  readonly fallback: string
}

/** A variable that was not understood, or contradicts another one. */
export interface Problem {
  readonly name: string
  readonly problem: string
}

/**
 * Reads one variable after the other: notes each with what it is about, and what is wrong instead of stopping there.
 */
export interface Reader {
  readonly text: (name: string, about: string, shown?: string) => string | undefined
  readonly int: (
    name: string,
    about: string,
    range: readonly [min: number, max: number],
    fallback: number
  ) => number
  readonly optionalInt: (
    name: string,
    about: string,
    range: readonly [min: number, max: number]
  ) => number | undefined
  readonly parsed: <A>(
    name: string,
    about: string,
    shown: string,
    parse: (text: string) => A | Wrong,
    fallback: A
  ) => A
  readonly wrong: (name: string, problem: string) => void
}

/** Why a text is not what was asked for: words to follow the name of the variable. */
export class Wrong {
  readonly problem: string
  constructor(problem: string) {
    this.problem = problem
  }
}

export const grouped = (n: number): string => n.toString().replaceAll(/(?<=\d)(?=(?:\d{3})+$)/g, ",")

export const parseIntIn =
  ([min, max]: readonly [number, number]) =>
  (text: string): number | Wrong => {
    const n = /^\d{1,15}$/.test(text) ? Number(text) : NaN
    return n >= min && n <= max
      ? n
      : new Wrong(`must be a whole number from ${grouped(min)} to ${grouped(max)}`)
  }

export const readerOf = (
  env: Readonly<Record<string, string | undefined>>,
  variables: Array<Variable>,
  problems: Array<Problem>
): Reader => {
  const wrong = (name: string, problem: string) => void problems.push({ name, problem })
  const given = (name: string): string | undefined => {
    const value = env[name]
    return value === undefined || value.trim() === "" ? undefined : value.trim()
  }
  const parsed: Reader["parsed"] = (name, about, shown, parse, fallback) => {
    variables.push({ name, about, fallback: shown })
    const text = given(name)
    if (text === undefined) return fallback
    const value = parse(text)
    if (!(value instanceof Wrong)) return value
    wrong(name, value.problem)
    return fallback
  }
  return {
    parsed,
    wrong,
    text: (name, about, shown = "–") =>
      parsed<string | undefined>(name, about, shown, (text) => text, undefined),
    int: (name, about, range, fallback) =>
      parsed(name, about, grouped(fallback), parseIntIn(range), fallback),
    optionalInt: (name, about, range) =>
      parsed<number | undefined>(name, about, "no limit", parseIntIn(range), undefined)
  }
}
