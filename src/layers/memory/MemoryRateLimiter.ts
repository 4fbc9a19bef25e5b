/** Token buckets in this hub's memory. */
import { Clock, Effect, Layer } from "effect"
import { type Bucket, full, isFull, type Rate, take } from "../../domain/RateLimit.ts"
import { RateLimiter } from "../../services/RateLimiter.ts"

interface Entry {
  readonly rate: Rate
  bucket: Bucket
}

const isSame = (a: Rate, b: Rate): boolean => a.perSecond === b.perSecond && a.burst === b.burst

/** With this many buckets, those that are full again are forgotten. */
const sweepAt = 10_000

const make = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const entries = new Map<string, Entry>()
  let nextSweep = sweepAt

  const sweep = (now: number): void => {
    for (const [key, { bucket, rate }] of entries) {
      if (isFull(rate, bucket, now)) entries.delete(key)
    }
    nextSweep = Math.max(sweepAt, entries.size * 2)
  }

  return RateLimiter.of({
    take: (key, rate, cost) => {
      const now = clock.currentTimeMillisUnsafe()
      let entry = entries.get(key)
      if (entry === undefined || !isSame(entry.rate, rate)) {
        if (entries.size >= nextSweep) sweep(now)
        entry = { rate, bucket: full(rate, now) }
        entries.set(key, entry)
      }
      const spent = take(rate, entry.bucket, cost, now)
      entry.bucket = spent.bucket
      return spent._tag === "Spent" ? undefined : spent.retryAfterMs
    }
  })
})

export const layer: Layer.Layer<RateLimiter> = Layer.effect(RateLimiter, make)
