/** What is pure about the page: the latest state by key out of what is read and what comes, and what is shown of it. */
import type { Latest } from "../latest.ts"
import type { ProcessState } from "../topics.ts"

/** The latest state of each key. An event that is older than what is known of its key changes nothing. */
export class LatestStates {
  readonly #seqs: Map<string, number>
  readonly #states: Map<string, ProcessState>

  constructor({ items }: Pick<Latest, "items">) {
    this.#seqs = new Map(items.map(({ key, seq }) => [key, seq]))
    this.#states = new Map(items.map(({ key, state }) => [key, state]))
  }

  get all(): ReadonlyMap<string, ProcessState> {
    return this.#states
  }

  /** Whether it changed anything. `null` removes the key. Events of the live subscription come in order. */
  apply(key: string, seq: number, state: ProcessState | null): boolean {
    if (seq <= (this.#seqs.get(key) ?? 0)) return false
    if (state) {
      this.#seqs.set(key, seq)
      this.#states.set(key, state)
      return true
    }
    // What comes from here on is newer, so nothing has to be remembered of it.
    this.#seqs.delete(key)
    return this.#states.delete(key)
  }
}

export type Column = keyof ProcessState

export interface Order {
  readonly column: Column
  readonly isDescending: boolean
}

const collator = new Intl.Collator(undefined, { numeric: true })

const compareValues = (a: string | number, b: string | number): number =>
  typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b))

/** Those that are alike stand by pid, whatever the direction. */
export const compareBy =
  ({ column, isDescending }: Order) =>
  (a: ProcessState, b: ProcessState): number =>
    compareValues(a[column], b[column]) * (isDescending ? -1 : 1) || a.pid - b.pid

/** Every word of the filter is somewhere in the pid, the name or the state. */
export const matcher = (filter: string): ((state: ProcessState) => boolean) => {
  const words = filter.toLowerCase().split(/\s+/)
  return ({ name, pid, state }) => {
    const text = `${pid} ${name} ${state}`.toLowerCase()
    return words.every((word) => text.includes(word))
  }
}
