/**
 * States as they were last read or written, so that changing one is one round trip. Others write as well: whoever uses
 * it finds out by compare and set. The least recently used give way.
 */
import { LRUCache } from "lru-cache"
import type { At, Stored } from "./groupStates.ts"

/** About what a state in memory takes beside what is written of it. */
const overhead = 1_024

const prefixOf = (group: string): string => `${group} `

export class StateCache {
  readonly #states: LRUCache<string, Stored> | undefined

  /** In bytes, as they are written; 0 keeps nothing. */
  constructor(maxBytes: number) {
    this.#states =
      maxBytes >= 1
        ? new LRUCache({
            // It takes whole numbers alone.
            maxSize: Math.floor(Math.min(maxBytes, Number.MAX_SAFE_INTEGER)),
            sizeCalculation: ({ changes, whole }) => overhead + whole + changes
          })
        : undefined
  }

  static keyOf({ group, topic }: At): string {
    return prefixOf(group) + topic
  }

  /** It is not kept any more: whether it is still true will be known when somebody has looked. */
  take(key: string): Stored | undefined {
    const stored = this.#states?.peek(key)
    this.#states?.delete(key)
    return stored
  }

  keep(key: string, stored: Stored): void {
    this.#states?.set(key, stored)
  }

  drop(group: string): void {
    const prefix = prefixOf(group)
    for (const key of [...(this.#states?.keys() ?? [])]) if (key.startsWith(prefix)) this.take(key)
  }
}
