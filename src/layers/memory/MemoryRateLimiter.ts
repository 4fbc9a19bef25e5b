/** Token buckets in this hub's memory, and never more than so many. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Limited, Spending } from "../../domain/Quota.ts"
import {
  type AllSpent,
  adapt,
  type Bucket,
  full,
  fullAfterMs,
  isFull,
  type Rate,
  takeAll
} from "../../domain/RateLimit.ts"
import * as Settings from "../../domain/Settings.ts"
import { RateLimiter } from "../../services/RateLimiter.ts"

interface Entry {
  rate: Rate
  bucket: Bucket
}

/** With this many buckets, those that are full again are forgotten. */
const sweepAt = 10_000

/** The part of all buckets that is left when too many are busy, so that not each new one makes a sweep. */
const kept = 7 / 8

const make = Effect.fnUntraced(function* (
  { maxBuckets }: Settings.RateLimiterSettings = Settings.rateLimiter
) {
  const clock = yield* Clock.Clock
  const entries = new Map<string, Entry>()
  let nextSweep = Math.min(sweepAt, maxBuckets)

  const sweep = (now: number): void => {
    for (const [key, { bucket, rate }] of entries) {
      if (isFull(rate, bucket, now)) entries.delete(key)
    }
    if (entries.size >= maxBuckets) {
      const busy = Array.from(entries, ([key, { bucket, rate }]) => ({
        key,
        left: fullAfterMs(rate, bucket, now)
      })).sort((a, b) => a.left - b.left)
      for (const { key } of busy.slice(0, entries.size - Math.floor(maxBuckets * kept))) entries.delete(key)
    }
    nextSweep = Math.min(maxBuckets, Math.max(sweepAt, entries.size * 2))
  }

  const bucketOf = ({ key, rate }: Spending, now: number): Bucket => {
    const entry = entries.get(key)
    if (entry === undefined) return full(rate, now)
    const isSame = entry.rate.perSecond === rate.perSecond && entry.rate.burst === rate.burst
    return isSame ? entry.bucket : adapt(entry.rate, rate, entry.bucket, now)
  }

  const tryAll = (spendings: ReadonlyArray<Spending>, now: number): AllSpent =>
    takeAll(
      spendings.map((spending) => ({
        rate: spending.rate,
        cost: spending.cost,
        bucket: bucketOf(spending, now)
      })),
      now
    )

  const limitedBy = (
    spendings: ReadonlyArray<Spending>,
    { by, retryAfterMs }: Extract<AllSpent, { readonly _tag: "Limited" }>
  ): Limited => ({ kind: spendings[by]!.kind, retryAfterMs })

  return RateLimiter.of({
    take: (spendings) => {
      if (spendings.length === 0) return undefined
      const now = clock.currentTimeMillisUnsafe()
      const spent = tryAll(spendings, now)
      if (spent._tag === "Limited") return limitedBy(spendings, spent)
      spendings.forEach(({ key, rate }, i) => {
        const bucket = spent.buckets[i]!
        const entry = entries.get(key)
        if (entry === undefined) {
          if (entries.size >= nextSweep) sweep(now)
          entries.set(key, { rate, bucket })
        } else {
          entry.rate = rate
          entry.bucket = bucket
        }
      })
      return undefined
    },
    look: (spendings) => {
      const spent = tryAll(spendings, clock.currentTimeMillisUnsafe())
      return spent._tag === "Limited" ? limitedBy(spendings, spent) : undefined
    }
  })
})

export const layer = (settings?: Settings.RateLimiterSettings): Layer.Layer<RateLimiter> =>
  Layer.effect(RateLimiter, make(settings))
