/**
 * When to try again, and when to stop: exponential back-off with a cap and full jitter.
 *
 * Full jitter (a uniform draw between zero and the capped exponential) spreads a crowd of failures best; see
 * M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. The random number is an argument.
 */
export interface RetryPolicy {
  /** The longest first delay, in milliseconds. Each further attempt doubles it. */
  readonly baseMs: number
  /** No delay is longer than this, in milliseconds. */
  readonly maxMs: number
  /** How many attempts there are in all, the first included. */
  readonly maxAttempts: number
}

export type RetryDecision =
  | { readonly _tag: "Retry"; readonly delayMs: number }
  /** The last attempt has been made. */
  | { readonly _tag: "Stop" }

/** Short of where a double becomes infinite, so that no delay at all stays none after any number of attempts. */
const maxDoublings = 1_000

/** The delay after the given attempt (1 for the first), for a random number in [0, 1). */
export const delayMs = (policy: Omit<RetryPolicy, "maxAttempts">, attempt: number, random: number): number =>
  Math.floor(
    random * Math.min(policy.maxMs, policy.baseMs * 2 ** Math.min(maxDoublings, Math.max(0, attempt - 1)))
  )

/** What follows the failure of the given attempt (1 for the first). */
export const afterFailure = (policy: RetryPolicy, attempt: number, random: number): RetryDecision =>
  attempt >= policy.maxAttempts
    ? { _tag: "Stop" }
    : { _tag: "Retry", delayMs: delayMs(policy, attempt, random) }
