/** What is fuzzed: a part of the hub that reads texts of strangers, and what must hold whatever the text is. */

/** Numbers in [0, 1) that follow from a seed. */
export type Random = () => number

export interface Target {
  readonly name: string
  /** Texts that it takes, to be changed into ones that it may not. */
  readonly seeds: ReadonlyArray<string>
  /** Words that mean something to it. */
  readonly words: ReadonlyArray<string>
  /** Its texts are JSON: they are changed as values, too. */
  readonly isJson: boolean
  /** Throws when something does not hold. */
  readonly check: (input: string) => void | Promise<void>
  /** How deep the texts get; who never gets there finds nothing there. */
  readonly branches?: Branches
  /** Of the process that it asks, which ends with the fuzzer. */
  readonly pid?: number | undefined
  readonly close?: () => Promise<void>
}

/** Where a target's texts have to get to: each place at least once, and one of them with every second text. */
export class Branches {
  readonly #counts: Map<string, number>
  readonly #mostly: string
  #inputs = 0

  constructor(names: ReadonlyArray<string>, mostly: string) {
    this.#counts = new Map([...names, mostly].map((name) => [name, 0]))
    this.#mostly = mostly
  }

  input(): void {
    this.#inputs++
  }

  /** What is no place that has to be reached is not counted. */
  reach(name: string): void {
    const count = this.#counts.get(name)
    if (count !== undefined) this.#counts.set(name, count + 1)
  }

  /** What was not reached; nothing when all was. */
  get missing(): ReadonlyArray<string> {
    return [...this.#counts].flatMap(([name, count]) => {
      const least = name === this.#mostly ? Math.max(1, this.#inputs / 2) : 1
      return count >= least ? [] : [`${name} (${count} times with ${this.#inputs} inputs)`]
    })
  }

  toString(): string {
    return [...this.#counts].map(([name, count]) => `${name} ${count}`).join(", ")
  }
}

export class Violated extends Error {}

/** What must hold. */
export const must = (holds: boolean, what: string): void => {
  if (!holds) throw new Violated(what)
}

/** mulberry32 (https://gist.github.com/tommyettinger/46a874533244883189143505d203312c). */
export const randomOf = (seed: number): Random => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

export const below = (random: Random, n: number): number => Math.floor(random() * n)

export const pick = <A>(random: Random, values: ReadonlyArray<A>): A => {
  const value = values[below(random, values.length)]
  if (value === undefined) throw new Error("there is nothing to pick from")
  return value
}
