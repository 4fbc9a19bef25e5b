/**
 * How long an event may keep coming back to a group, and whether it is remembered for as long.
 *
 * Whoever handles events once remembers which ones were handled. What is forgotten while a group may still
 * deliver it is handled again: so both times are compared when a handler is made, before the first event.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { GroupOptions } from "./Group.ts"
import { delayMs, type RetryPolicy } from "./Retry.ts"
import * as Settings from "./Settings.ts"

/** From the attempt after this many on, no back-off is longer than the one before it (domain/Retry). */
const maxGrowing = 1_000

/**
 * The longest time, in milliseconds, from an event's first delivery until its last one is over: every attempt
 * uses up its acknowledgement time-out, and every back-off between two is as long as it can be.
 *
 * What makes it longer, without a bound: EXTEND, a NACK with a delay, a NACK of mode `release` (which counts no
 * attempt), a group that is paused or has no member, a redrive from the dead letters. Keep what was handled for
 * as long as that may take. Events of `$dead` topics are never given up, whatever `maxAttempts` says.
 */
export const retryHorizonMs = (
  { ackTimeoutMs, maxAttempts }: Pick<GroupOptions, "ackTimeoutMs" | "maxAttempts">,
  backoff: Omit<RetryPolicy, "maxAttempts">
): number => {
  const longest = (attempt: number) => delayMs(backoff, attempt, 1)
  let horizon = maxAttempts * ackTimeoutMs
  let attempt = 1
  while (attempt < Math.min(maxAttempts, maxGrowing) && longest(attempt) < backoff.maxMs) {
    horizon += longest(attempt++)
  }
  return attempt < maxAttempts && longest(attempt) > 0
    ? horizon + (maxAttempts - attempt) * longest(attempt)
    : horizon
}

/** Handled events would be forgotten while the group may still deliver them: they would be handled again. */
export class DedupeTooShort extends Schema.TaggedError<DedupeTooShort>()("DedupeTooShort", {
  keepMs: Schema.Number,
  horizonMs: Schema.Number
}) {
  override get message() {
    return (
      `handled events are remembered for ${this.keepMs} ms, and the group may deliver one for ${this.horizonMs} ms: ` +
      `set 'keepMs' to ${this.horizonMs} or more, or lower the group's 'ackTimeoutMs' or 'maxAttempts'`
    )
  }
}

export interface Redelivery {
  /** The options the group is registered with, where they are not the defaults. */
  readonly group?: Partial<GroupOptions> | undefined
  /** The hub's back-off, where it is not the default. */
  readonly backoff?: Omit<RetryPolicy, "maxAttempts"> | undefined
}

/** Answers for how long a group may deliver an event; fails when that is longer than it is remembered. */
export const checkKeep = (
  keepMs: number,
  { backoff = Settings.groups.backoff, group }: Redelivery = {}
): Result.Result<number, DedupeTooShort> => {
  const horizonMs = retryHorizonMs({ ...Settings.groups, ...group }, backoff)
  // Not `<`: what is no number is not long enough either.
  return keepMs >= horizonMs
    ? Result.succeed(horizonMs)
    : Result.fail(new DedupeTooShort({ keepMs, horizonMs }))
}

/** A setting that is no time. */
export class InvalidTime extends Schema.TaggedError<InvalidTime>()("InvalidTime", {
  setting: Schema.String,
  value: Schema.Number
}) {
  override get message() {
    return `'${this.setting}' is ${this.value}; give milliseconds, more than 0`
  }
}

/** Fails with the first of these settings that is no time to wait. */
export const checkTimes = (settings: Readonly<Record<string, number>>): Result.Result<void, InvalidTime> => {
  for (const [setting, value] of Object.entries(settings)) {
    if (!(value > 0 && value < Infinity)) return Result.fail(new InvalidTime({ setting, value }))
  }
  return Result.void
}
