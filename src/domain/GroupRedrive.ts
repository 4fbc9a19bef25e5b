/**
 * Dead letters that go back into their group: a second source of events beside the log.
 *
 * A redrive is a plan in the state of the group: from which letter to which, and what has to be true of them. Letters
 * are taken back a bounded number at a time, as members get them done, and none comes back twice.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { entriesOf, type Entry, type GroupState, nobody, type RedrivePlan } from "./Group.ts"
import * as Ranges from "./Ranges.ts"

/** Letters that come back at the same time; the others wait for their turn among the dead letters. */
export const redriveWindow = 1_000

const maxPlans = 100

/** Ranges of letters that came back one by one, before all that lie between have to. */
const maxLetterRanges = 10_000

/** Too much was asked back piece by piece. */
export class RedriveRefused extends Schema.TaggedError<RedriveRefused>()("RedriveRefused", {
  reason: Schema.String
}) {
  override get message() {
    return `the dead letters do not come back: ${this.reason}`
  }
}

/** Asks for dead letters to come back. All that lie between take the place of what was asked of them before. */
export const plan = (state: GroupState, asked: RedrivePlan): Result.Result<GroupState, RedriveRefused> => {
  const { letters } = state.redrive
  if (asked.next > asked.upTo) return Result.succeed(state)
  const isWhole = Object.keys(asked.filter).length === 0
  const plans = state.redrive.plans.filter(
    ({ next, upTo }) => !isWhole || next < asked.next || upTo > asked.upTo
  )
  const reason =
    plans.length >= maxPlans
      ? `${maxPlans} redrives wait already; let a member of the group take them, or ask for all at once`
      : letters.length >= maxLetterRanges && !isWhole
        ? "too many came back piece by piece; ask for all of them"
        : undefined
  return reason === undefined
    ? Result.succeed({ ...state, redrive: { letters, plans: [...plans, asked] } })
    : Result.fail(new RedriveRefused({ reason }))
}

/** One form for equal plans, whatever the order of their fields. */
const formOf = (one: RedrivePlan): string =>
  JSON.stringify(one, ["next", "upTo", "filter", "letters", "ids", "key", "reason", "since", "until"])

/** A dead letter that was asked back: where it stands, and which event it is. */
export interface Letter {
  readonly letter: number
  readonly seq: number
  readonly key: string | undefined
}

/** The event of a letter is on its way already: delivered, waiting, passed over, or not looked at yet. */
const isOpen = (state: GroupState, { key, seq }: Letter): boolean => {
  if (seq >= state.next) return true
  if (state.inFlight.has(seq) || state.waiting.has(seq)) return true
  const passed = key === undefined ? undefined : state.deferred.get(key)
  return (
    passed !== undefined && (passed.seqs.includes(seq) || (passed.from !== undefined && seq >= passed.from))
  )
}

const roomFor = (state: GroupState): number => {
  let room = redriveWindow
  for (const [, { letter }] of entriesOf(state)) if (letter !== undefined) room--
  return room
}

/** Letters were asked back, and there is room for them. */
export const isWaiting = (state: GroupState): boolean => state.redrive.plans.length > 0 && roomFor(state) > 0

/**
 * Takes letters of the first plan back among the waiting: those that match it, in order, of all that stand up to
 * `to`. A letter comes back once, and none whose event is on its way. What has no room waits in the plan. What was
 * found for another plan, or before this one went on, changes nothing.
 */
export const admit = (
  state: GroupState,
  found: { readonly plan: RedrivePlan; readonly letters: ReadonlyArray<Letter>; readonly to: number },
  now: number
): GroupState => {
  const [first, ...rest] = state.redrive.plans
  if (first === undefined || formOf(first) !== formOf(found.plan)) return state
  const waiting = new Map(state.waiting)
  const back: Array<number> = []
  let room = roomFor(state)
  let next = found.to + 1
  const here = { ...state, waiting }
  for (const one of found.letters) {
    const { key, letter, seq } = one
    if (letter < first.next || Ranges.has(state.redrive.letters, letter)) continue
    const open = isOpen(here, one)
    // Of an event that dies this may be the very letter: it can come back when the group has let go of it.
    if (state.dying.has(seq) || (!open && room-- <= 0)) {
      next = letter
      break
    }
    back.push(letter)
    if (open) continue
    waiting.set(seq, {
      attempt: 0,
      unanswered: 0,
      member: nobody,
      key,
      since: now,
      reason: "",
      letter,
      notBefore: now
    })
  }
  if (next === first.next) return state
  const plans = next > first.upTo ? rest : [{ ...first, next }, ...rest]
  return {
    ...state,
    waiting: waiting.size === state.waiting.size ? state.waiting : waiting,
    redrive: { plans, letters: Ranges.addAll(state.redrive.letters, back) }
  }
}

const hasEntry = (state: GroupState, test: (entry: Entry) => boolean): boolean => {
  for (const entries of [state.inFlight, state.waiting, state.dying]) {
    for (const entry of entries.values()) if (test(entry)) return true
  }
  return false
}

/**
 * Dead letters up to `floor` were trimmed: nothing has to be known of them, and events that were to come back from
 * them cannot.
 */
export const forgetTrimmed = (state: GroupState, floor: number): GroupState => {
  const { letters, plans } = state.redrive
  const known = letters.filter(([, to]) => to > floor)
  const lost = ({ letter }: Entry): boolean => letter !== undefined && letter <= floor
  const here = known.length === letters.length ? state : { ...state, redrive: { plans, letters: known } }
  if (!hasEntry(state, lost)) return here
  const kept = <A extends Entry>(entries: ReadonlyMap<number, A>) =>
    new Map([...entries].filter(([, entry]) => !lost(entry)))
  return {
    ...here,
    inFlight: kept(state.inFlight),
    waiting: kept(state.waiting),
    dying: kept(state.dying)
  }
}

/** The first dead letter that has to stay readable, since it comes back or is on its way. */
export const firstNeeded = (state: GroupState): number | undefined => {
  let first = Infinity
  for (const { next } of state.redrive.plans) first = Math.min(first, next)
  for (const [, { letter }] of entriesOf(state)) if (letter !== undefined) first = Math.min(first, letter)
  return first === Infinity ? undefined : first
}
