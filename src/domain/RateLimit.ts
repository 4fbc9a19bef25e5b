/**
 * A token bucket as a pure function: it fills at a rate up to a burst, and whatever is done spends from it.
 *
 * What costs more than the burst is let through when the bucket is full, and empties it: refusing it for
 * ever would be a limit on size, which is another limit's business.
 */
import { Effect, Schema } from "effect"

export interface Rate {
  /** Tokens a second. */
  readonly perSecond: number
  /** How many tokens the bucket holds. */
  readonly burst: number
}

export interface Bucket {
  readonly tokens: number
  /** When `tokens` was true, in milliseconds. */
  readonly at: number
}

export type Spent =
  | { readonly _tag: "Spent"; readonly bucket: Bucket }
  /** Nothing was spent. After `retryAfterMs` the same cost will pass, if nobody else spends before. */
  | { readonly _tag: "Limited"; readonly bucket: Bucket; readonly retryAfterMs: number }

export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  retryAfterMs: Schema.Int
}) {
  override get message() {
    return `over the rate limit; try again in ${this.retryAfterMs} ms`
  }
}

export const full = (rate: Rate, now: number): Bucket => ({ tokens: rate.burst, at: now })

/** What is in the bucket now. A clock that went back takes nothing away. */
export const refill = (rate: Rate, bucket: Bucket, now: number): Bucket =>
  now <= bucket.at
    ? bucket
    : {
        tokens: Math.min(rate.burst, bucket.tokens + ((now - bucket.at) * rate.perSecond) / 1000),
        at: now
      }

export const take = (rate: Rate, bucket: Bucket, cost: number, now: number): Spent => {
  const filled = refill(rate, bucket, now)
  const needed = Math.min(cost, rate.burst)
  if (filled.tokens >= needed) {
    return { _tag: "Spent", bucket: { tokens: filled.tokens - needed, at: filled.at } }
  }
  const wait = Math.ceil(((needed - filled.tokens) * 1000) / rate.perSecond)
  return { _tag: "Limited", bucket: filled, retryAfterMs: Math.max(1, wait + Math.max(0, filled.at - now)) }
}

/** `take` as an Effect. */
export const spend = (
  rate: Rate,
  bucket: Bucket,
  cost: number,
  now: number
): Effect.Effect<Bucket, RateLimited> => {
  const spent = take(rate, bucket, cost, now)
  return spent._tag === "Spent"
    ? Effect.succeed(spent.bucket)
    : Effect.fail(new RateLimited({ retryAfterMs: spent.retryAfterMs }))
}
