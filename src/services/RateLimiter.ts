/** Token buckets by key, within one hub. Idle buckets are forgotten: a forgotten bucket is a full one. */
import { Context } from "effect"
import type { Rate } from "../domain/RateLimit.ts"

export class RateLimiter extends Context.Service<
  RateLimiter,
  {
    /**
     * Spends from the bucket of a key. Answers nothing when there was enough, else after how many
     * milliseconds there will be; then nothing was spent. Plain, because every message asks.
     */
    readonly take: (key: string, rate: Rate, cost: number) => number | undefined
  }
>()("event-hub/services/RateLimiter") {}
