/**
 * Everything that can happen to a consumer group on a topic: the heart of delivery.
 *
 * What each place of the state means is in GroupState, what a member gets next in GroupClaim, what could be delivered
 * now in GroupOutlook. Here is what ends a delivery, by an answer or without one, and what trims and people do. All
 * operations are pure and take many events at once; time and random numbers are arguments.
 *
 * How a state is written down is in GroupEncoding, what people want to know of it in GroupView.
 */
import {
  bySeq,
  type Deferred,
  doneCount,
  type Dying,
  entriesOf,
  type Entry,
  finish,
  type GroupState,
  type InFlight,
  initial,
  moved,
  nobody,
  settled,
  type Waiting,
  withAll,
  without
} from "./GroupState.ts"
import * as Ranges from "./Ranges.ts"
import * as Retry from "./Retry.ts"

export {
  type Candidate,
  type Claim,
  claim,
  type Claimed,
  type Delivery,
  list,
  type Listing,
  unlistedKeys
} from "./GroupClaim.ts"
export {
  freeKeys,
  hasSuspects,
  holdsSuspect,
  isStalled,
  nextDeadline,
  outlook,
  suspectDue
} from "./GroupOutlook.ts"
export { agree, conflicts, GroupConflict, type GroupOptions, type Registration } from "./GroupRegistration.ts"
export {
  aloneAfter,
  type Deferred,
  doneCount,
  type Dying,
  entriesOf,
  type Entry,
  type GroupState,
  type InFlight,
  initial,
  isSuspect,
  nobody,
  openCount,
  type Redrive,
  type RedriveFilter,
  type RedrivePlan,
  type Sample,
  type Waiting
} from "./GroupState.ts"

/** What is kept of the reason of one that waits: many may, and a state has to stay small. */
const maxReasonLength = 200

/** What stands in a dead letter. */
const maxDyingReasonLength = 1_000

const shortened = (reason: string, length = maxReasonLength): string =>
  reason.length <= length ? reason : `${reason.slice(0, length - 1)}…`

// --- answers --------------------------------------------------------------------------------------------------

/** Which delivery an answer is about. Without `attempt` it is the member's current one. */
export interface Answer {
  readonly seq: number
  readonly member: string
  readonly attempt?: number | undefined
}

export type Outcome =
  | "done"
  /** It was acknowledged before. */
  | "already"
  /** It is somebody else's by now, or nobody's: the answer changed nothing. */
  | "stale"

/**
 * Whether an event was passed over, or may have been: whether one that is not listed was depends on its key, and
 * nobody who is asked knows it.
 */
const mayBeDeferred = (state: GroupState, seq: number): boolean => {
  for (const { from, seqs } of state.deferred.values()) {
    if ((from !== undefined && seq >= from) || seqs.includes(seq)) return true
  }
  return false
}

/**
 * Finds the delivery that an answer is about. One that lapsed counts as long as nobody took it over: the
 * work was done, and delivering it again would only do it twice.
 */
const answered = (
  state: GroupState,
  answer: Answer
): { readonly outcome: "already" | "stale" } | { readonly entry: Entry } => {
  const running = state.inFlight.get(answer.seq)
  if (running !== undefined) {
    const same = running.member === answer.member && (answer.attempt ?? running.attempt) === running.attempt
    return same ? { entry: running } : { outcome: "stale" }
  }
  const lapsed = state.waiting.get(answer.seq)
  if (lapsed !== undefined) {
    if (lapsed.member === nobody) return { outcome: "stale" }
    const same =
      answer.attempt === undefined ? lapsed.member === answer.member : lapsed.attempt === answer.attempt
    return same ? { entry: lapsed } : { outcome: "stale" }
  }
  if (state.dying.has(answer.seq) || answer.seq >= state.next) return { outcome: "stale" }
  if (answer.seq <= state.floor) return { outcome: "already" }
  return { outcome: mayBeDeferred(state, answer.seq) ? "stale" : "already" }
}

/** What became of the answers, each in the place of its question. */
export interface Answered {
  readonly state: GroupState
  readonly outcomes: ReadonlyArray<Outcome>
}

export const ack = (state: GroupState, answers: ReadonlyArray<Answer>): Answered => {
  const done = new Set<number>()
  const outcomes = answers.map((answer): Outcome => {
    if (done.has(answer.seq)) return "already"
    const found = answered(state, answer)
    if ("outcome" in found) return found.outcome
    done.add(answer.seq)
    return "done"
  })
  return { state: finish(state, done), outcomes }
}

export interface Refusal extends Answer {
  /** `fail` counts the attempt and backs off, `release` takes it back, `poison` gives up at once. */
  readonly mode: "fail" | "release" | "poison"
  readonly reason: string
  /** Takes the place of the back-off. */
  readonly delayMs?: number | undefined
  /** In [0, 1). */
  readonly random: number
}

export interface Limits {
  readonly now: number
  /** `Infinity` for dead letters, which are never given up again. */
  readonly maxAttempts: number
  readonly backoff: Omit<Retry.RetryPolicy, "maxAttempts">
}

export const nack = (state: GroupState, refusals: ReadonlyArray<Refusal>, limits: Limits): Answered => {
  const waiting = new Map<number, Waiting>()
  const dying = new Map<number, Dying>()
  const seen = new Set<number>()
  const outcomes = refusals.map((refusal): Outcome => {
    if (seen.has(refusal.seq)) return "stale"
    const found = answered(state, refusal)
    if ("outcome" in found) return found.outcome
    seen.add(refusal.seq)
    const { attempt, key, letter, member, since, unanswered } = found.entry
    const last = refusal.mode === "poison" || (refusal.mode === "fail" && attempt >= limits.maxAttempts)
    if (last && limits.maxAttempts !== Infinity) {
      const reason = shortened(refusal.reason, maxDyingReasonLength)
      dying.set(refusal.seq, { attempt, unanswered, member, key, since, reason, letter })
      return "done"
    }
    const released = refusal.mode === "release"
    const delay = refusal.delayMs ?? (released ? 0 : Retry.delayMs(limits.backoff, attempt, refusal.random))
    waiting.set(refusal.seq, {
      attempt: released ? attempt - 1 : attempt,
      unanswered,
      member: nobody,
      key,
      since,
      reason: refusal.reason === "" ? found.entry.reason : shortened(refusal.reason),
      letter,
      notBefore: limits.now + delay
    })
    return "done"
  })
  if (seen.size === 0) return { state, outcomes }
  return { state: moved(state, { waiting, dying }), outcomes }
}

/** Gives members more time, counted from now; a deadline never comes nearer. */
export const extend = (
  state: GroupState,
  answers: ReadonlyArray<Answer & { readonly byMs: number }>,
  now: number
): Answered => {
  const extended = new Map<number, InFlight>()
  const outcomes = answers.map((answer): Outcome => {
    const found = answered(state, answer)
    if ("outcome" in found) return found.outcome
    const running = extended.get(answer.seq) ?? state.inFlight.get(answer.seq)
    if (running === undefined) return "stale"
    extended.set(answer.seq, { ...running, deadline: Math.max(running.deadline, now + answer.byMs) })
    return "done"
  })
  return {
    state: extended.size === 0 ? state : { ...state, inFlight: withAll(state.inFlight, extended) },
    outcomes
  }
}

// --- what ends without an answer ------------------------------------------------------------------------------

/** Takes deliveries back that nobody answered: the attempt counts, and their slots are free at once. */
const lapse = (
  state: GroupState,
  lapsed: (entry: InFlight) => boolean,
  reason: string,
  limits: Pick<Limits, "now" | "maxAttempts">
): GroupState => {
  const waiting = new Map<number, Waiting>()
  const dying = new Map<number, Dying>()
  for (const [seq, entry] of state.inFlight) {
    if (!lapsed(entry)) continue
    const { deadline: _, ...rest } = entry
    const ended = { ...rest, unanswered: entry.unanswered + 1, reason }
    if (entry.attempt >= limits.maxAttempts) dying.set(seq, ended)
    else waiting.set(seq, { ...ended, notBefore: limits.now })
  }
  return waiting.size + dying.size === 0 ? state : moved(state, { waiting, dying })
}

/** Deadlines that have passed. */
export const expire = (state: GroupState, limits: Pick<Limits, "now" | "maxAttempts">): GroupState =>
  lapse(state, (entry) => entry.deadline <= limits.now, "the acknowledgement timed out", limits)

/** Members that are gone without a word. */
export const removeMembers = (
  state: GroupState,
  isGone: (member: string) => boolean,
  limits: Pick<Limits, "now" | "maxAttempts">
): GroupState => lapse(state, (entry) => isGone(entry.member), "its member was lost", limits)

/** Handed back: the attempt does not count. */
const returned = (entry: InFlight, notBefore: number): Waiting => {
  const { deadline: _, ...rest } = entry
  return { ...rest, attempt: entry.attempt - 1, member: nobody, notBefore }
}

/** A member that said goodbye: what it still had goes back at once, and the attempts do not count. */
export const leave = (state: GroupState, member: string, now: number): GroupState => {
  const waiting = new Map<number, Waiting>()
  for (const [seq, entry] of state.inFlight) {
    if (entry.member === member) waiting.set(seq, returned(entry, now))
  }
  return waiting.size === 0 ? state : moved(state, { waiting, dying: new Map() })
}

/** These stand in the dead letters now: the group lets go of them. */
export const bury = (state: GroupState, seqs: Iterable<number>): GroupState =>
  finish(state, new Set([...seqs].filter((seq) => state.dying.has(seq))))

/**
 * What a trim up to `floor` takes from the group: events that it would have delivered, for the first time or
 * again. What a member has in hand is not lost to it. Of events that were passed over and are not listed, the
 * range may hold others of other keys.
 */
export const lostTo = (state: GroupState, floor: number): Ranges.Ranges => {
  const lost: Array<Ranges.Range> = []
  const add = (from: number, to: number) => {
    if (from <= to) lost.push([from, to])
  }
  for (const entries of [state.waiting, state.dying]) {
    for (const [seq, { letter }] of entries) if (letter === undefined && seq <= floor) add(seq, seq)
  }
  for (const { from, seqs } of state.deferred.values()) {
    for (const seq of seqs) if (seq <= floor) add(seq, seq)
    if (from !== undefined) add(from, Math.min(floor, state.next - 1))
  }
  add(state.next, floor)
  return Ranges.of(lost)
}

/**
 * Events up to `floor` were trimmed before the group was done with them. They are passed over, with what was known
 * of them: nobody can read them any more.
 */
export const skipTrimmed = (state: GroupState, floor: number): GroupState => {
  if (floor <= state.floor) return state
  const gone = new Set<number>()
  for (const [seq, { letter }] of entriesOf(state)) if (letter === undefined && seq <= floor) gone.add(seq)
  const next = Math.max(state.next, floor + 1)
  const deferred = new Map<string, Deferred>()
  for (const [key, passed] of state.deferred) {
    const seqs = passed.seqs.filter((seq) => seq > floor)
    const rest = passed.from === undefined ? undefined : Math.max(passed.from, floor + 1)
    const from = rest === undefined || rest >= next ? undefined : rest
    // How many of them are gone, nobody knows: those that are left are no more than these.
    const unlisted = from === undefined ? 0 : Math.min(passed.unlisted, next - from)
    if (seqs.length > 0 || from !== undefined) deferred.set(key, { seqs, from, unlisted })
  }
  return settled({
    ...state,
    next,
    inFlight: without(state.inFlight, gone),
    waiting: without(state.waiting, gone),
    dying: without(state.dying, gone),
    deferred
  })
}

// --- what people do -------------------------------------------------------------------------------------------

/**
 * Goes on from another position. What was in flight is forgotten: acknowledgements of it come with the old
 * generation and change nothing. Redriven events come back as well, unless the log brings them again.
 */
export const seek = (
  state: GroupState,
  to: { readonly generation: string; readonly floor: number }
): GroupState => {
  const isKept = ([seq, { letter }]: readonly [number, Entry]) => letter !== undefined && seq <= to.floor
  const back = [...state.inFlight]
    .filter(isKept)
    .map(([seq, entry]): [number, Waiting] => [seq, returned(entry, entry.since)])
  const lapsed = [...state.waiting]
    .filter(isKept)
    .map(([seq, entry]): [number, Waiting] => [seq, { ...entry, member: nobody }])
  // The log brings these again; if somebody makes it pass them over, they are dead letters as before.
  const dropped = [...entriesOf(state)].flatMap(([seq, { letter }]) =>
    letter !== undefined && seq > to.floor ? [letter] : []
  )
  return {
    ...initial(to.generation, to.floor),
    waiting: new Map([...lapsed, ...back]),
    dying: new Map([...state.dying].filter(isKept)),
    redrive: { ...state.redrive, letters: Ranges.removeAll(state.redrive.letters, dropped) }
  }
}

/**
 * Frees a blocked key: `retry` delivers its first event again at once, `dead-letter` gives up the one that the
 * others wait for, whoever has it, so that they go on. Nothing changes when no event of the key is begun.
 */
export const releaseKey = (
  state: GroupState,
  release: { readonly key: string; readonly mode: "retry" | "dead-letter"; readonly now: number }
): { readonly state: GroupState; readonly seq: number | undefined } => {
  const { key, mode, now } = release
  const none = { state, seq: undefined }
  // What came back from the dead letters may stand before the one that a member has, and waits for it all the same.
  const places = mode === "retry" ? [state.waiting] : [state.inFlight, state.waiting]
  const [first] = places.flatMap((entries) =>
    [...entries].filter(([, entry]: readonly [number, Entry]) => entry.key === key).sort(bySeq)
  )
  if (first === undefined) return none
  const [seq, entry] = first
  if (mode === "retry") {
    const waiting = new Map([[seq, { ...state.waiting.get(seq)!, notBefore: now }]])
    return { state: moved(state, { waiting, dying: new Map() }), seq }
  }
  const { attempt, letter, member, since, unanswered } = entry
  const reason = entry.reason === "" ? "given up by an operator" : `given up by an operator; ${entry.reason}`
  const dying = new Map([
    [
      seq,
      { attempt, unanswered, member, key, since, reason: shortened(reason, maxDyingReasonLength), letter }
    ]
  ])
  return { state: moved(state, { waiting: new Map(), dying }), seq }
}

// --- how fast it gets on --------------------------------------------------------------------------------------

/** The least and the longest time between two samples of a group's pace. */
const sampleMs = 10_000
const idleMs = 60_000

/** Notes how much is done by now, at times. */
export const sampled = (state: GroupState, now: number): GroupState => {
  const last = state.pace.at(-1)
  if (last !== undefined && now >= last.at && now - last.at < sampleMs) return state
  const sample = { at: now, done: doneCount(state) }
  const isOld = last === undefined || now < last.at || now - last.at > idleMs
  return { ...state, pace: isOld ? [sample] : [last, sample] }
}
