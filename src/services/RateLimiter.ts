/**
 * Token buckets by key, within one hub. Idle buckets are forgotten: a forgotten bucket is a full one.
 *
 * How many are remembered is bounded. When all are busy, those that would be full again soonest are forgotten first:
 * whoever spends most is remembered longest, and a forgotten one gains less than its burst.
 */
import * as Context from "effect/Context"
import type { Limited, Spending } from "../domain/Quota.ts"

export class RateLimiter extends Context.Service<
  RateLimiter,
  {
    /**
     * Spends from several buckets, with different keys: from all of them, or, when one has too little, from none. Then
     * it answers which one takes longest, and after how many milliseconds there will be enough in all. A key whose
     * rate changes keeps what it has spent. Plain, because every message asks.
     */
    readonly take: (spendings: ReadonlyArray<Spending>) => Limited | undefined

    /** What `take` would answer now; spends nothing. */
    readonly look: (spendings: ReadonlyArray<Spending>) => Limited | undefined
  }
>()("event-hub/services/RateLimiter") {}
