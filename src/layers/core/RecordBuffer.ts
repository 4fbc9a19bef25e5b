/**
 * The end of a topic as this hub saw it grow: records without a hole between them, so that a group that keeps up
 * never reads the store.
 */
import type { StoredRecord } from "../../domain/Event.ts"

const limit = { records: 1_024, length: 2 * 1024 * 1024 }

/** How many records that nobody needs any more are let go of at once. */
const dropAtOnce = 128

export class RecordBuffer {
  #head = 0
  #records: Array<StoredRecord> = []
  #length = 0

  /** How far the topic is known to reach. */
  get head(): number {
    return this.#head
  }

  /** The topic has grown by this one. */
  push(record: StoredRecord): void {
    if (record.seq <= this.#head) return
    if (record.seq !== this.#head + 1) this.#clear()
    this.#head = record.seq
    this.#records.push(record)
    this.#length += record.body.length
    if (this.#records.length > limit.records || this.#length > limit.length) {
      // Half at once, so that a group that is behind does not pay for every event.
      this.#drop(Math.ceil(this.#records.length / 2))
    }
  }

  /** The topic reaches this far, with records that were not seen. True: that is news. */
  growTo(head: number): boolean {
    if (head <= this.#head) return false
    this.#clear()
    this.#head = head
    return true
  }

  /** Records from a seq on, if it is held here. */
  from(seq: number, count: number): ReadonlyArray<StoredRecord> | undefined {
    const first = this.#records[0]
    if (first === undefined || first.seq > seq) return undefined
    return this.#records.slice(seq - first.seq, seq - first.seq + count)
  }

  get(seq: number): StoredRecord | undefined {
    const first = this.#records[0]
    return first === undefined ? undefined : this.#records[seq - first.seq]
  }

  /** What stands before this seq is not needed any more, unless something fails. */
  forgetBefore(seq: number): void {
    const first = this.#records[0]
    if (first !== undefined && seq - first.seq >= dropAtOnce) this.#drop(seq - first.seq)
  }

  #drop(count: number): void {
    for (const { body } of this.#records.splice(0, count)) this.#length -= body.length
  }

  #clear(): void {
    this.#records = []
    this.#length = 0
  }
}
