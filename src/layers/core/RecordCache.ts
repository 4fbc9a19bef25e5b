/**
 * Events that groups were given or passed over, and may come to again soon: whoever retries them does not read the
 * log anew. Of all topics of a hub, the least recently used give way.
 */
import { LRUCache } from "lru-cache"
import type { StoredRecord } from "../../domain/Event.ts"

/** About what a record costs beside its body. */
const overhead = 256

export class RecordCache {
  readonly #records: LRUCache<string, StoredRecord> | undefined

  /** In bytes, as far as bodies are ASCII; 0 keeps nothing. */
  constructor(maxBytes: number) {
    this.#records =
      maxBytes < 1
        ? undefined
        : new LRUCache({ maxSize: maxBytes, sizeCalculation: ({ body }) => body.length + overhead })
  }

  keep(record: StoredRecord): void {
    this.#records?.set(`${record.topic}:${record.seq}`, record)
  }

  get(topic: string, seq: number): StoredRecord | undefined {
    return this.#records?.get(`${topic}:${seq}`)
  }

  /** It is done with. Another group that needs it reads it again. */
  drop(topic: string, seq: number): void {
    this.#records?.delete(`${topic}:${seq}`)
  }
}
