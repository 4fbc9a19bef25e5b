/**
 * Which of the things that were denied are worth a line in the log: enough to see who wants what he may not have, and
 * never so much that a hostile client fills the disk.
 *
 * Of whoever it is (a subject, the origin of an address), the first of each kind in a minute is a line, up to ten; of all together up to
 * a thousand. What is left out is counted, and the count is a line when the minute is over.
 */

/** How many were left out of the log, of one or of all others. */
export interface LeftOut {
  readonly who: string
  readonly count: number
}

interface Entry {
  readonly since: number
  readonly kinds: Set<string>
  leftOut: number
}

const windowMs = 60_000

/** A minute that began then. One that is still to begin is over, too: the clock was set back. */
const isOver = (since: number, now: number): boolean => now >= since + windowMs || now < since

const linesOfOne = 10
const linesOfAll = 1_000
/** Of those who have no line of their own for their count, because there are too many of them. */
const others = "others"

export class DenialLog {
  readonly #maxEntries: number
  /** The oldest first. */
  readonly #entries = new Map<string, Entry>()
  #since = -Infinity
  #lines = 0
  #leftOut = 0

  constructor(maxEntries: number = 10_000) {
    this.#maxEntries = maxEntries
  }

  /** Whether this one is to be logged. If not, it is counted. */
  isWorthALine(who: string, kind: string, now: number): boolean {
    if (isOver(this.#since, now)) {
      this.#since = now
      this.#lines = 0
    }
    const entry = this.#entries.get(who) ?? this.#add(who, now)
    if (entry === undefined) {
      this.#leftOut++
      return false
    }
    if (entry.kinds.has(kind) || entry.kinds.size >= linesOfOne || this.#lines >= linesOfAll) {
      entry.leftOut++
      return false
    }
    entry.kinds.add(kind)
    this.#lines++
    return true
  }

  /** What was left out in minutes that are over: each is told once. */
  due(now: number): ReadonlyArray<LeftOut> {
    const due: Array<LeftOut> = []
    for (const [who, { leftOut: count, since }] of this.#entries) {
      if (!isOver(since, now)) break
      this.#entries.delete(who)
      if (count === 0) continue
      if (due.length < linesOfOne) due.push({ who, count })
      else this.#leftOut += count
    }
    if (this.#leftOut > 0 && isOver(this.#since, now)) {
      due.push({ who: others, count: this.#leftOut })
      this.#leftOut = 0
    }
    return due
  }

  #add(who: string, now: number): Entry | undefined {
    if (this.#entries.size >= this.#maxEntries) return undefined
    const entry = { since: now, kinds: new Set<string>(), leftOut: 0 }
    this.#entries.set(who, entry)
    return entry
  }
}
