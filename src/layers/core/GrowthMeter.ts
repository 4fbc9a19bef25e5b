/**
 * How fast topics grew in the last seconds: events and bytes, second by second, of a bounded number of topics.
 *
 * It counts all the time, so that whoever looks for the first time finds something. What an event costs is a look
 * into a map and two additions; topics that grew longest ago give way.
 */
import type { GrowthRate } from "../../services/Standing.ts"

/** Rates are taken over so many seconds. */
export const windowSeconds = 10

interface Meter {
  /** The second in which the topic grew last. */
  last: number
  /** When it was met. */
  readonly first: number
  readonly events: Float64Array
  readonly bytes: Float64Array
}

const still: GrowthRate = { eventsPerSecond: 0, bytesPerSecond: 0 }

export class GrowthMeter {
  readonly #maxTopics: number
  /** Those that grew longest ago first, by the second. */
  readonly #meters = new Map<string, Meter>()

  constructor(maxTopics: number) {
    this.#maxTopics = maxTopics
  }

  add(topic: string, events: number, bytes: number, now: number): void {
    const second = Math.floor(now / 1_000)
    const meter = this.#meterOf(topic, second)
    const at = meter.last % windowSeconds
    meter.events[at]! += events
    meter.bytes[at]! += bytes
  }

  #meterOf(topic: string, second: number): Meter {
    const known = this.#meters.get(topic)
    if (known !== undefined) {
      // A clock that was set back a little goes on where it was; one that was set back far begins anew.
      if (isBefore(second, known)) return this.#make(topic, second)
      if (second <= known.last) return known
      const passed = Math.min(second - known.last, windowSeconds)
      for (let i = 1; i <= passed; i++) {
        const at = (known.last + i) % windowSeconds
        known.events[at] = 0
        known.bytes[at] = 0
      }
      known.last = second
      this.#meters.delete(topic)
      this.#meters.set(topic, known)
      return known
    }
    return this.#make(topic, second)
  }

  #make(topic: string, second: number): Meter {
    const made: Meter = {
      last: second,
      first: second,
      events: new Float64Array(windowSeconds),
      bytes: new Float64Array(windowSeconds)
    }
    this.#meters.delete(topic)
    this.#meters.set(topic, made)
    if (this.#meters.size > this.#maxTopics) {
      for (const oldest of this.#meters.keys()) {
        this.#meters.delete(oldest)
        break
      }
    }
    return made
  }

  of(topic: string, now: number): GrowthRate {
    const meter = this.#meters.get(topic)
    return meter === undefined ? still : growthOf(meter, now)
  }

  /** Topics that grew within the window. */
  *all(now: number): Generator<readonly [topic: string, growth: GrowthRate]> {
    for (const [topic, meter] of this.#meters) {
      const growth = growthOf(meter, now)
      if (growth.eventsPerSecond > 0) yield [topic, growth]
    }
  }
}

/** Before all that the meter holds. */
const isBefore = (second: number, { last }: Meter): boolean => last - second > windowSeconds

/** A topic that was met within the window is measured since then, but over no less than a second. */
const growthOf = (meter: Meter, now: number): GrowthRate => {
  if (isBefore(Math.floor(now / 1_000), meter)) return still
  const { bytes, events, first, last } = meter
  const second = Math.max(last, Math.floor(now / 1_000))
  let allEvents = 0
  let allBytes = 0
  for (let back = 0; back < windowSeconds; back++) {
    const at = second - back
    if (at > last || at <= last - windowSeconds || at < 0) continue
    allEvents += events[at % windowSeconds]!
    allBytes += bytes[at % windowSeconds]!
  }
  const seconds = Math.min(windowSeconds, Math.max(1, second - first + 1))
  return { eventsPerSecond: allEvents / seconds, bytesPerSecond: allBytes / seconds }
}
