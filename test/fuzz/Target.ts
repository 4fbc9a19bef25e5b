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
  readonly close?: () => Promise<void>
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
