/**
 * The state of one consumer group on one topic.
 *
 * Every event of the topic is, for the group, in exactly one place:
 *
 *   inFlight               delivered to a member, until its deadline
 *   waiting                to be delivered again from `notBefore` on
 *   dying                  out of attempts: it is let go when it stands in the dead letters
 *   deferred               passed over, because an event of its key was not done (`keyOrdered`)
 *   seq ≥ next             not looked at yet
 *   anywhere else          acknowledged
 *
 * What is acknowledged is not written down: it is what lies before `next` and is in none of the other places. The
 * state is therefore as large as what was begun and not finished, however far ahead of its floor a group is. The
 * floor is the contiguous acknowledged prefix and nothing else: no event is skipped by moving it.
 *
 * Dead letters come back by a second way (`redrive`): they wait and are delivered among the others, and the
 * positions in the log know nothing of them.
 *
 * Here are the places, what they take of the window, and the steps from one to another that everything which happens
 * to a group (Group, GroupClaim) is made of. How a state is written down is in GroupEncoding.
 */
import { Entries } from "./Entries.ts"
import * as Ranges from "./Ranges.ts"

export interface Entry {
  /** 1 for the first delivery. */
  readonly attempt: number
  /** Deliveries that ended without a word from the member: time-outs and lost members. */
  readonly unanswered: number
  /** Who has it, or had it last and may still answer; `nobody` once it was answered or handed back. */
  readonly member: string
  readonly key: string | undefined
  /** When the group first took it. */
  readonly since: number
  /** Why its last delivery came to nothing; empty when it was the first. */
  readonly reason: string
  /** Its position among the dead letters it comes back from; none: it comes from the log. */
  readonly letter: number | undefined
}

export interface InFlight extends Entry {
  readonly deadline: number
}

export interface Waiting extends Entry {
  readonly notBefore: number
}

export type Dying = Entry

/** Events of one key that were passed over. Those next in line are listed, however many there are behind them. */
export interface Deferred {
  /** In the order of the log. */
  readonly seqs: ReadonlyArray<number>
  /** No event of the key before this was passed over beside the listed; none: all of them are listed. */
  readonly from: number | undefined
  /** How many are not listed. */
  readonly unlisted: number
}

/** Which dead letters are to come back. What is not given excludes nothing. */
export interface RedriveFilter {
  /** Positions in the topic of dead letters. */
  readonly letters?: ReadonlyArray<number>
  /** Ids of the original events. */
  readonly ids?: ReadonlyArray<string>
  readonly key?: string
  /** A part of the reason. */
  readonly reason?: string
  /** Given up at or after this time, and before that one. */
  readonly since?: number
  readonly until?: number
}

/** Dead letters that were asked back and are not among the waiting yet. */
export interface RedrivePlan {
  readonly next: number
  readonly upTo: number
  readonly filter: RedriveFilter
}

export interface Redrive {
  readonly plans: ReadonlyArray<RedrivePlan>
  /** Letters that came back, or were found to be on their way already: they do not come back again. */
  readonly letters: Ranges.Ranges
}

/** How much was done at a time. */
export interface Sample {
  readonly at: number
  readonly done: number
}

export interface GroupState {
  /** New after a seek, or when the group is created again: claims of another generation mean nothing. */
  readonly generation: string
  readonly floor: number
  readonly next: number
  readonly inFlight: ReadonlyMap<number, InFlight>
  readonly waiting: ReadonlyMap<number, Waiting>
  readonly dying: ReadonlyMap<number, Dying>
  readonly deferred: ReadonlyMap<string, Deferred>
  readonly redrive: Redrive
  /** At most two samples, the older first: how fast the group gets on. */
  readonly pace: ReadonlyArray<Sample>
}

/** A delivery is answered once: what comes after a NACK is about no delivery any more. */
export const nobody = ""

const noRedrive: Redrive = { plans: [], letters: Ranges.empty }

/** A group that has seen everything up to `floor` and nothing after it. */
export const initial = (generation: string, floor: number): GroupState => ({
  generation,
  floor,
  next: floor + 1,
  inFlight: new Map(),
  waiting: new Map(),
  dying: new Map(),
  deferred: new Map(),
  redrive: noRedrive,
  pace: []
})

/** After this many deliveries without a word, an event is delivered alone within its member. */
export const aloneAfter = 2

export const isSuspect = (entry: Entry): boolean => entry.unanswered >= aloneAfter

/** Everything that was begun and is not finished. */
export function* entriesOf(state: GroupState): Generator<readonly [number, Entry]> {
  yield* state.inFlight
  yield* state.waiting
  yield* state.dying
}

export const bySeq = (a: readonly [number, unknown], b: readonly [number, unknown]): number => a[0] - b[0]

// --- how much there is of it ----------------------------------------------------------------------------------

/** What the events of a key that were passed over take of the window: one each that is listed, else one for the key. */
export const weight = ({ from, seqs }: Deferred): number => Math.max(seqs.length, from === undefined ? 0 : 1)

export const listedIn = (state: GroupState): number => {
  let listed = 0
  for (const passed of state.deferred.values()) listed += weight(passed)
  return listed
}

/** How much the state has to remember. The `window` bounds it. */
export const tracked = (state: GroupState): number =>
  state.inFlight.size + state.waiting.size + state.dying.size + listedIn(state)

/** How many events of the log are done. */
export const doneCount = (state: GroupState): number =>
  Math.max(state.floor, state.next - 1 - openCount(state))

/**
 * How many events were begun or passed over, and are not done; no less, and after a trim perhaps more, until those
 * that are not listed are found again.
 */
export const openCount = (state: GroupState): number => {
  let open = state.inFlight.size + state.waiting.size + state.dying.size
  if (state.redrive.letters.length > 0) {
    for (const [, { letter }] of entriesOf(state)) if (letter !== undefined) open--
  }
  for (const { seqs, unlisted } of state.deferred.values()) open += seqs.length + unlisted
  return open
}

// --- from one place to another --------------------------------------------------------------------------------

/** The least seq that is passed over, or may be. */
const firstOf = ({ from, seqs }: Deferred): number => seqs[0] ?? from!

const isOpenAt = ({ dying, inFlight, waiting }: GroupState, seq: number): boolean => {
  const entry = waiting.get(seq) ?? inFlight.get(seq) ?? dying.get(seq)
  return entry !== undefined && entry.letter === undefined
}

const floorOf = (state: GroupState): number => {
  // Mostly the event behind the floor is what holds it up.
  if (isOpenAt(state, state.floor + 1)) return state.floor
  let first = state.next
  for (const entries of [state.inFlight, state.waiting, state.dying]) {
    for (const [seq, { letter }] of entries) if (letter === undefined && seq < first) first = seq
  }
  for (const passed of state.deferred.values()) first = Math.min(first, firstOf(passed))
  return first - 1
}

/** The floor follows whatever was finished. */
export const settled = (state: GroupState): GroupState => {
  const floor = floorOf(state)
  return floor === state.floor ? state : { ...state, floor }
}

export const withAll = <A extends Entry>(
  entries: ReadonlyMap<number, A>,
  more: ReadonlyMap<number, A>
): ReadonlyMap<number, A> => (more.size === 0 ? entries : Entries.from(entries).withAll(more))

export const without = <A extends Entry>(
  entries: ReadonlyMap<number, A>,
  gone: { readonly keys: () => Iterable<number> }
): ReadonlyMap<number, A> => (entries.size === 0 ? entries : Entries.from(entries).without(gone.keys()))

/** Entries that go from one place to another. */
export const moved = (
  state: GroupState,
  to: { readonly waiting: ReadonlyMap<number, Waiting>; readonly dying: ReadonlyMap<number, Dying> }
): GroupState => ({
  ...state,
  inFlight: without(without(state.inFlight, to.waiting), to.dying),
  waiting: withAll(without(state.waiting, to.dying), to.waiting),
  dying: withAll(state.dying, to.dying)
})

/** These are done. */
export const finish = (state: GroupState, seqs: ReadonlySet<number>): GroupState =>
  seqs.size === 0
    ? state
    : settled({
        ...state,
        inFlight: without(state.inFlight, seqs),
        waiting: without(state.waiting, seqs),
        dying: without(state.dying, seqs)
      })

/** Deferred events with these changes; a key without any is none. */
export const changed = (
  before: ReadonlyMap<string, Deferred>,
  changes: ReadonlyMap<string, Deferred>
): ReadonlyMap<string, Deferred> => {
  if (changes.size === 0) return before
  const after = new Map(before)
  for (const [key, passed] of changes) {
    if (weight(passed) > 0) after.set(key, passed)
    else after.delete(key)
  }
  return after
}
