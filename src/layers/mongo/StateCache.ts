/**
 * States as they were last read or written, so that changing one is one round trip. Others write as well: whoever uses
 * it finds out by compare and set. The least recently used give way.
 */
import type { At, Stored } from "./groupStates.ts"

/** About what a state in memory takes beside what is written of it. */
const overhead = 1_024

const sizeOf = ({ changes, whole }: Stored): number => overhead + whole + changes

const prefixOf = (group: string): string => `${group} `

export class StateCache {
  readonly #maxBytes: number
  /** In the order of their use. */
  readonly #states = new Map<string, Stored>()
  #bytes = 0

  /** As they are written; 0 keeps nothing. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  static keyOf({ group, topic }: At): string {
    return prefixOf(group) + topic
  }

  /** It is not kept any more: whether it is still true will be known when somebody has looked. */
  take(key: string): Stored | undefined {
    const stored = this.#states.get(key)
    if (stored === undefined) return undefined
    this.#states.delete(key)
    this.#bytes -= sizeOf(stored)
    return stored
  }

  keep(key: string, stored: Stored): void {
    this.take(key)
    this.#states.set(key, stored)
    this.#bytes += sizeOf(stored)
    for (const oldest of this.#states.keys()) {
      if (this.#bytes <= this.#maxBytes) return
      this.take(oldest)
    }
  }

  drop(group: string): void {
    const prefix = prefixOf(group)
    for (const key of [...this.#states.keys()]) if (key.startsWith(prefix)) this.take(key)
  }
}
