/**
 * Dead letters as people ask for them: what has become of each, and which ones are meant.
 *
 * What a letter says of itself is read in DeadLetter, how letters come back stands in GroupRedrive.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type Death, isAskedFor } from "./DeadLetter.ts"
import type { StoredRecord } from "./Event.ts"
import type { GroupState, RedriveFilter } from "./Group.ts"
import * as Ranges from "./Ranges.ts"

/**
 * `dead`: it waits for somebody to decide. `redriving`: it was asked back and is not there yet, or its event is on
 * its way. `redriven`: it came back, and what came of that is decided: done, or another letter.
 */
export type LetterStatus = "dead" | "redriving" | "redriven"

const isPassedOver = (state: GroupState, seq: number, key: string | undefined): boolean => {
  const passed = key === undefined ? undefined : state.deferred.get(key)
  return (
    passed !== undefined && (passed.seqs.includes(seq) || (passed.from !== undefined && seq >= passed.from))
  )
}

export const statusOf = (state: GroupState, letter: StoredRecord, death: Death): LetterStatus => {
  const { seq } = death
  const entry = state.inFlight.get(seq) ?? state.waiting.get(seq) ?? state.dying.get(seq)
  if (entry?.letter === letter.seq) return "redriving"
  if (Ranges.has(state.redrive.letters, letter.seq)) {
    // The log brings its event, too: somebody went back to before it. A later letter of it is another matter.
    const isOpen =
      entry === undefined
        ? seq >= state.next || isPassedOver(state, seq, letter.key)
        : entry.letter === undefined
    return isOpen ? "redriving" : "redriven"
  }
  const isPlanned = state.redrive.plans.some(
    ({ filter, next, upTo }) => letter.seq >= next && letter.seq <= upTo && isAskedFor(filter, letter, death)
  )
  return isPlanned ? "redriving" : "dead"
}

// --- filters -------------------------------------------------------------------------------------------------

/** What one filter may hold. It is kept with the group until its letters are back. */
export const maxFilterLetters = 1_000
export const maxFilterIds = 100
export const maxFilterLength = 256

export class InvalidFilter extends Schema.TaggedError<InvalidFilter>()("InvalidFilter", {
  reason: Schema.String
}) {
  override get message() {
    return `not a filter of dead letters: ${this.reason}`
  }
}

const problem = ({ ids, key, letters, reason, since, until }: RedriveFilter): string | undefined => {
  const texts = [
    ...(ids ?? []),
    ...(key === undefined ? [] : [key]),
    ...(reason === undefined ? [] : [reason])
  ]
  if (letters?.length === 0 || ids?.length === 0) return "an empty list matches nothing; leave it out for all"
  if (letters !== undefined && letters.length > maxFilterLetters) {
    return `it has ${letters.length} letters; at most ${maxFilterLetters} are allowed`
  }
  if (letters?.some((letter) => !Number.isSafeInteger(letter) || letter < 1) === true) {
    return "a letter is known by its seq in the topic of dead letters, a whole number from 1 on"
  }
  if (ids !== undefined && ids.length > maxFilterIds) {
    return `it has ${ids.length} ids; at most ${maxFilterIds} are allowed`
  }
  if (ids?.includes("") === true) return "an id is empty"
  if (reason === "") return "the reason is empty; leave it out for any"
  if (texts.some((text) => text.length > maxFilterLength)) {
    return `an id, the key or the reason is longer than ${maxFilterLength} characters`
  }
  if ([since, until].some((time) => time !== undefined && !Number.isFinite(time))) {
    return "'since' and 'until' are times in milliseconds since 1970"
  }
  if (since !== undefined && until !== undefined && since >= until) return "'since' is not before 'until'"
  return undefined
}

/** Fails with what is wrong with a filter. */
export const checkFilter = (filter: RedriveFilter): Result.Result<RedriveFilter, InvalidFilter> => {
  const reason = problem(filter)
  return reason === undefined ? Result.succeed(filter) : Result.fail(new InvalidFilter({ reason }))
}

/** Where letters that match a filter can stand at all: from the first to the last, of those between the two given. */
export const rangeOf = (
  filter: RedriveFilter,
  within: { readonly from: number; readonly to: number }
): { readonly from: number; readonly to: number } => {
  let from = Infinity
  let to = -Infinity
  for (const letter of filter.letters ?? [within.from, within.to]) {
    from = Math.min(from, letter)
    to = Math.max(to, letter)
  }
  return { from: Math.max(from, within.from), to: Math.min(to, within.to) }
}
