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
  /** A thousandth of a token is what a rate of 1 gives in 1 ms: whole rates add up without rounding. */
  readonly thousandths: number
  /** When `thousandths` was true, in milliseconds. */
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

const capacity = (rate: Rate): number => rate.burst * 1000

export const full = (rate: Rate, now: number): Bucket => ({ thousandths: capacity(rate), at: now })

/** What is in the bucket now. A clock that went back takes nothing away. */
const refill = (rate: Rate, bucket: Bucket, now: number): Bucket =>
  now <= bucket.at
    ? bucket
    : {
        thousandths: Math.min(capacity(rate), bucket.thousandths + (now - bucket.at) * rate.perSecond),
        at: now
      }

/** A bucket that is full again can be forgotten. */
export const isFull = (rate: Rate, bucket: Bucket, now: number): boolean =>
  refill(rate, bucket, now).thousandths >= capacity(rate)

export const take = (rate: Rate, bucket: Bucket, cost: number, now: number): Spent => {
  const filled = refill(rate, bucket, now)
  const missing = Math.min(cost, rate.burst) * 1000 - filled.thousandths
  if (missing <= 0) return { _tag: "Spent", bucket: { thousandths: -missing, at: filled.at } }
  const wait = Math.ceil(missing / rate.perSecond)
  return { _tag: "Limited", bucket: filled, retryAfterMs: wait + Math.max(0, filled.at - now) }
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
