/**
 * A token bucket as a pure function: it fills at a rate up to a burst, and whatever is done spends from it.
 *
 * What costs more than the burst is let through when the bucket is full, and empties it: refusing it for
 * ever would be a limit on size, which is another limit's business.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

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
  const left = filled.thousandths - Math.min(cost, rate.burst) * 1000
  if (left >= 0) return { _tag: "Spent", bucket: { thousandths: left, at: filled.at } }
  const wait = Math.ceil(-left / rate.perSecond)
  return { _tag: "Limited", bucket: filled, retryAfterMs: wait + Math.max(0, filled.at - now) }
}

/** What was spent stays spent, and flows back at the new rate: changing rates to and fro gives nobody more. */
export const adapt = (from: Rate, to: Rate, bucket: Bucket, now: number): Bucket => {
  const { at, thousandths } = refill(from, bucket, now)
  return { thousandths: Math.max(0, capacity(to) - (capacity(from) - thousandths)), at }
}

/** After how many milliseconds a bucket is full again, if nobody spends. */
export const fullAfterMs = (rate: Rate, bucket: Bucket, now: number): number =>
  Math.ceil(Math.max(0, capacity(rate) - bucket.thousandths) / rate.perSecond) + bucket.at - now

/** What one message asks of one bucket. */
export interface Ask {
  readonly rate: Rate
  readonly bucket: Bucket
  readonly cost: number
}

export type AllSpent =
  | { readonly _tag: "Spent"; readonly buckets: ReadonlyArray<Bucket> }
  /** Nothing was spent from any. `by` is the index of the one that takes longest. */
  | { readonly _tag: "Limited"; readonly by: number; readonly retryAfterMs: number }

/** Spends from all of several buckets, or from none. They have to be different ones. */
export const takeAll = (asks: ReadonlyArray<Ask>, now: number): AllSpent => {
  const buckets: Array<Bucket> = []
  let by = -1
  let retryAfterMs = 0
  asks.forEach(({ bucket, cost, rate }, i) => {
    const spent = take(rate, bucket, cost, now)
    buckets.push(spent.bucket)
    if (spent._tag === "Spent" || spent.retryAfterMs <= retryAfterMs) return
    by = i
    retryAfterMs = spent.retryAfterMs
  })
  return by < 0 ? { _tag: "Spent", buckets } : { _tag: "Limited", by, retryAfterMs }
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
