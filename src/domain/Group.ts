/**
 * The state of one consumer group on one topic, and everything that can happen to it: the heart of delivery.
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
 * All operations are pure and take many events at once; time and random numbers are arguments. How a state is
 * written down is in GroupEncoding, what people want to know of it in GroupView.
 */
import { Effect, Result, Schema } from "effect"
import { Entries } from "./Entries.ts"
import * as Ranges from "./Ranges.ts"
import * as Retry from "./Retry.ts"

export interface GroupOptions {
  /** How long a member has to answer, in milliseconds. */
  readonly ackTimeoutMs: number
  /** Deliveries of one event before it goes to the dead letters. */
  readonly maxAttempts: number
  /** Events of one key strictly in their order, one at a time. */
  readonly keyOrdered: boolean
}

/** A durable consumer group. Its options are fixed for as long as it is registered. */
export interface Registration {
  readonly group: string
  readonly pattern: string
  readonly options: GroupOptions
  readonly registeredAt: number
  /** The life of the event store that its positions belong to. */
  readonly history: string
  /** Nothing is delivered to its members; what they have can be answered. Of the group, with all its patterns. */
  readonly paused: boolean
  /** When a member was last known to be there, by the store's clock. Of the group, with all its patterns. */
  readonly lastUsedAt: number
}

/** The group exists with another pattern or other options. */
export class GroupConflict extends Schema.TaggedError<GroupConflict>()("GroupConflict", {
  group: Schema.String,
  differs: Schema.Array(Schema.String)
}) {
  override get message() {
    return `group '${this.group}' is registered with another ${this.differs.join(" and another ")}`
  }
}

/**
 * Which of the wanted values differ from the registered ones. A group is known by its name and pattern, so
 * the pattern is not among them; what is not given does not differ.
 */
export const conflicts = (
  registered: Registration,
  wanted: Partial<GroupOptions>
): Result.Result<Registration, GroupConflict> => {
  const names = ["ackTimeoutMs", "maxAttempts", "keyOrdered"] as const
  const differs = names.filter(
    (name) => wanted[name] !== undefined && wanted[name] !== registered.options[name]
  )
  return differs.length === 0
    ? Result.succeed(registered)
    : Result.fail(new GroupConflict({ group: registered.group, differs }))
}

/** `conflicts` as an Effect. */
export const agree = (
  registered: Registration,
  wanted: Partial<GroupOptions>
): Effect.Effect<Registration, GroupConflict> => Effect.fromResult(conflicts(registered, wanted))

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

/** What is kept of the reason of one that waits: many may, and a state has to stay small. */
const maxReasonLength = 200

/** What stands in a dead letter. */
const maxDyingReasonLength = 1_000

const shortened = (reason: string, length = maxReasonLength): string =>
  reason.length <= length ? reason : `${reason.slice(0, length - 1)}…`

/** Everything that was begun and is not finished. */
export function* entriesOf(state: GroupState): Generator<readonly [number, Entry]> {
  yield* state.inFlight
  yield* state.waiting
  yield* state.dying
}

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
const settled = (state: GroupState): GroupState => {
  const floor = floorOf(state)
  return floor === state.floor ? state : { ...state, floor }
}

/** What the events of a key that were passed over take of the window: one each that is listed, else one for the key. */
const weight = ({ from, seqs }: Deferred): number => Math.max(seqs.length, from === undefined ? 0 : 1)

const listedIn = (state: GroupState): number => {
  let listed = 0
  for (const passed of state.deferred.values()) listed += weight(passed)
  return listed
}

/** How much the state has to remember. The `window` bounds it. */
const tracked = (state: GroupState): number =>
  state.inFlight.size + state.waiting.size + state.dying.size + listedIn(state)

// --- claim ---------------------------------------------------------------------------------------------------

/** An event that is not looked at yet. Candidates are given in the order of their seqs, from `next` on. */
export interface Candidate {
  readonly seq: number
  readonly key: string | undefined
}

export interface Delivery {
  readonly seq: number
  readonly attempt: number
  readonly redelivered: boolean
  readonly deadline: number
  /** Where it stands among the dead letters, when it comes back from them. */
  readonly letter: number | undefined
}

export interface Claim {
  readonly now: number
  readonly member: string
  /** How many events the member takes now. */
  readonly limit: number
  /** How many of them may be retries before anything else is looked at; retries also fill what others leave. */
  readonly retriesFirst: number
  /** No more retries than this, even if nothing else is left; suspects do not count. */
  readonly retriesAtMost?: number
  /**
   * `shared` takes anything but suspects. `alone` takes one suspect and nothing else: for a member that has
   * nothing in flight, so that an event which kills its handler takes no other down with it.
   */
  readonly mode: "shared" | "alone"
  /** Others are there to take what this member let lapse: it may be the member that is at fault. */
  readonly hasOthers?: boolean
  readonly candidates: ReadonlyArray<Candidate>
  readonly options: GroupOptions
  /** How many events may be begun and not finished before no new ones are taken. */
  readonly window: number
}

export interface Claimed {
  readonly state: GroupState
  readonly deliveries: ReadonlyArray<Delivery>
}

const bySeq = (a: readonly [number, unknown], b: readonly [number, unknown]): number => a[0] - b[0]

/** Events of one key that are listed by their seqs; the others are looked up when their turn comes. */
const maxListed = 64

/** Lists take no more than half of what is left of the window: the rest is for events that can be delivered. */
const hasRoomToList = (room: number, listed: number): boolean => room > listed

const nonePassed: Deferred = { seqs: [], from: undefined, unlisted: 0 }

/** Keys of which an event is delivered, waits or dies: no other event of theirs may overtake it. */
const busyKeys = (state: GroupState): { readonly has: (key: string) => boolean } => {
  const places = [state.inFlight, state.waiting, state.dying].map((entries) => Entries.from<Entry>(entries))
  return { has: (key) => places.some((entries) => entries.countOf(key) > 0) }
}

/**
 * Events that can be delivered again now, in the order of the log, no more than asked for. In key order that is at most
 * one of each key: the first of those that wait, when none of the key is with a member or dying.
 */
const dueOf = (
  state: GroupState,
  now: number,
  options: {
    readonly keyOrdered: boolean
    readonly alone: boolean
    readonly notFrom?: string | undefined
    readonly atMost: number
  }
): Array<readonly [number, Waiting]> => {
  const { alone, atMost, keyOrdered, notFrom } = options
  const waiting = Entries.from(state.waiting)
  const inFlight = Entries.from(state.inFlight)
  const dying = Entries.from(state.dying)
  /** Of keys of which more than one waits. */
  const firsts = new Map<string, number>()
  const firstOf = (key: string): number => {
    let first = firsts.get(key)
    if (first === undefined) {
      first = waiting.find((entry) => entry.key === key)![0]
      firsts.set(key, first)
    }
    return first
  }
  const isFree = (seq: number, key: string): boolean =>
    inFlight.countOf(key) + dying.countOf(key) === 0 && (waiting.countOf(key) === 1 || firstOf(key) === seq)
  const due: Array<readonly [number, Waiting]> = []
  waiting.find((entry, seq) => {
    if (entry.notBefore > now || isSuspect(entry) !== alone || entry.member === notFrom) return false
    if (keyOrdered && entry.key !== undefined && !isFree(seq, entry.key)) return false
    return due.push([seq, entry]) >= atMost
  })
  return due
}

/**
 * Chooses what a member gets next: some retries that are due, then deferred events whose key is free, then new
 * ones, and retries again; of each kind the oldest first, so that none waits for ever.
 */
export const claim = (state: GroupState, request: Claim): Claimed => {
  const { candidates, member, mode, now, options } = request
  if (request.limit <= 0) return { state, deliveries: [] }
  let due: Array<readonly [number, Waiting]> | undefined
  const deadline = now + options.ackTimeoutMs
  const taken = new Map<number, InFlight>()
  const deferred = new Map<string, Deferred>()
  const deliveries: Array<Delivery> = []
  let room = request.window - tracked(state)
  let listed = listedIn(state)
  let next = state.next

  const give = (seq: number, entry: InFlight, redelivered: boolean): void => {
    const { attempt, letter } = entry
    taken.set(seq, entry)
    deliveries.push({ seq, attempt, redelivered, deadline, letter })
  }

  let retriesLeft = mode === "alone" ? 1 : Math.min(request.limit, request.retriesAtMost ?? Infinity)
  const retry = (wanted: number): void => {
    const count = Math.min(wanted, retriesLeft)
    if (count <= 0) return
    due ??= dueOf(state, now, {
      keyOrdered: options.keyOrdered,
      alone: mode === "alone",
      notFrom: request.hasOthers === true ? member : undefined,
      atMost: retriesLeft
    })
    retriesLeft -= count
    for (const [seq, { notBefore: _, ...entry }] of due.splice(0, count)) {
      give(seq, { ...entry, attempt: entry.attempt + 1, member, deadline }, true)
    }
  }

  const deliver = (seq: number, key: string | undefined): void => {
    const fresh = { attempt: 1, unanswered: 0, since: now, reason: "", letter: undefined }
    room--
    give(seq, { ...fresh, member, key, deadline }, false)
  }

  const passedOver = (key: string): Deferred => deferred.get(key) ?? state.deferred.get(key) ?? nonePassed

  const put = (key: string, passed: Deferred): void => {
    const more = weight(passed) - weight(passedOver(key))
    room -= more
    listed += more
    deferred.set(key, passed)
  }

  const defer = (seq: number, key: string): void => {
    const { from, seqs, unlisted } = passedOver(key)
    const isListed = from === undefined && seqs.length < maxListed && hasRoomToList(room, listed)
    if (isListed) put(key, { seqs: [...seqs, seq], from, unlisted })
    else put(key, { seqs, from: from ?? seq, unlisted: unlisted + 1 })
  }

  if (mode === "alone") {
    retry(1)
  } else {
    retry(Math.min(request.limit, request.retriesFirst))
    const busy = busyKeys(state)
    const here = new Set<string>()
    const isBusy = (key: string) => here.has(key) || busy.has(key)
    const free: Array<readonly [number, string]> = []
    for (const [key, { seqs }] of state.deferred) {
      // One without a list has to be looked up first.
      if (seqs[0] !== undefined && !isBusy(key)) free.push([seqs[0], key])
    }
    for (const [seq, key] of free.sort(bySeq).slice(0, request.limit - deliveries.length)) {
      const { from, seqs, unlisted } = passedOver(key)
      deliver(seq, key)
      here.add(key)
      put(key, { seqs: seqs.slice(1), from, unlisted })
    }
    for (const { key, seq } of candidates) {
      if (seq !== next) break
      const isBehind = key !== undefined && weight(passedOver(key)) > 0
      if (options.keyOrdered && key !== undefined && (isBehind || isBusy(key))) {
        defer(seq, key)
      } else {
        if (deliveries.length >= request.limit || room <= 0) break
        deliver(seq, key)
        if (options.keyOrdered && key !== undefined) here.add(key)
      }
      next = seq + 1
    }
    retry(request.limit - deliveries.length)
  }
  if (deliveries.length === 0 && next === state.next) return { state, deliveries }
  return {
    state: {
      ...state,
      next,
      inFlight: withAll(state.inFlight, taken),
      waiting: without(state.waiting, taken),
      deferred: changed(state.deferred, deferred)
    },
    deliveries
  }
}

/** Deferred events with these changes; a key without any is none. */
const changed = (
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

/** Keys of which no event is listed although some were passed over, and where to look for them in the log. */
export const unlistedKeys = (state: GroupState): ReadonlyMap<string, number> => {
  const keys = new Map<string, number>()
  for (const [key, { from, seqs }] of state.deferred) {
    if (seqs.length === 0 && from !== undefined) keys.set(key, from)
  }
  return keys
}

/** What a look into the log has found of a key that was passed over. */
export interface Listing {
  readonly key: string
  /** From here, to there, both included: where it looked. */
  readonly from: number
  readonly to: number
  /** In the order of the log. */
  readonly seqs: ReadonlyArray<number>
}

/**
 * Lists events that were passed over: one of each key, so that it goes on, and more where the window has room. A
 * look that is out of date changes nothing.
 */
export const list = (state: GroupState, found: ReadonlyArray<Listing>, window: number): GroupState => {
  const changes = new Map<string, Deferred>()
  let room = window - tracked(state)
  let allListed = listedIn(state)
  for (const { from, key, seqs, to } of found) {
    const before = state.deferred.get(key)
    if (before === undefined || before.seqs.length > 0 || before.from !== from) continue
    // A look from before a seek may have seen what this generation has not looked at.
    const here = seqs.filter((seq) => seq < state.next)
    const listed: Array<number> = []
    for (const seq of here.slice(0, maxListed)) {
      if (listed.length > 0 && !hasRoomToList(room + 1 - listed.length, allListed - 1 + listed.length)) break
      listed.push(seq)
    }
    const rest = here[listed.length] ?? (to + 1 >= state.next ? undefined : to + 1)
    const unlisted = rest === undefined ? 0 : Math.max(1, before.unlisted - listed.length)
    const passed = { seqs: listed, from: rest, unlisted }
    const more = weight(passed) - weight(before)
    room -= more
    allListed += more
    changes.set(key, passed)
  }
  if (changes.size === 0) return state
  return settled({ ...state, deferred: changed(state.deferred, changes) })
}

// --- answers -------------------------------------------------------------------------------------------------

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

const withAll = <A extends Entry>(
  entries: ReadonlyMap<number, A>,
  more: ReadonlyMap<number, A>
): ReadonlyMap<number, A> => (more.size === 0 ? entries : Entries.from(entries).withAll(more))

const without = <A extends Entry>(
  entries: ReadonlyMap<number, A>,
  gone: { readonly keys: () => Iterable<number> }
): ReadonlyMap<number, A> => (entries.size === 0 ? entries : Entries.from(entries).without(gone.keys()))

/** These are done. */
const finish = (state: GroupState, seqs: ReadonlySet<number>): GroupState =>
  seqs.size === 0
    ? state
    : settled({
        ...state,
        inFlight: without(state.inFlight, seqs),
        waiting: without(state.waiting, seqs),
        dying: without(state.dying, seqs)
      })

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

/** Entries that go from one place to another. */
const moved = (
  state: GroupState,
  to: { readonly waiting: ReadonlyMap<number, Waiting>; readonly dying: ReadonlyMap<number, Dying> }
): GroupState => ({
  ...state,
  inFlight: without(without(state.inFlight, to.waiting), to.dying),
  waiting: withAll(without(state.waiting, to.dying), to.waiting),
  dying: withAll(state.dying, to.dying)
})

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

// --- what ends without an answer -------------------------------------------------------------------------------

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

// --- what people do --------------------------------------------------------------------------------------------

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

// --- what the runner has to know -------------------------------------------------------------------------------

/** How many keys have an event that was passed over and could be delivered now, or has to be looked up first. */
export const freeKeys = (state: GroupState): number => {
  if (state.deferred.size === 0) return 0
  const busy = busyKeys(state)
  let free = 0
  for (const [key, { seqs }] of state.deferred) if (seqs.length === 0 || !busy.has(key)) free++
  return free
}

/** Whether there is an event that has to be delivered alone now, or once it was answered. */
export const hasSuspects = (state: GroupState): boolean => {
  for (const entry of state.waiting.values()) if (isSuspect(entry)) return true
  for (const entry of state.inFlight.values()) if (isSuspect(entry)) return true
  return false
}

/** Whether an event waits that has to be delivered alone. */
export const suspectDue = (state: GroupState, now: number, keyOrdered: boolean): boolean =>
  dueOf(state, now, { keyOrdered, alone: true, atMost: 1 }).length > 0

/** Whether the member has an event that has to be alone. */
export const holdsSuspect = (state: GroupState, member: string): boolean => {
  for (const entry of state.inFlight.values()) if (entry.member === member && isSuspect(entry)) return true
  return false
}

/** When the next delivery runs out; `Infinity` for never. */
export const nextDeadline = (state: GroupState): number => {
  let at = Infinity
  for (const { deadline } of state.inFlight.values()) if (deadline < at) at = deadline
  return at
}

/**
 * How many retries are due, suspects not counted, and when the next one is, suspects included; `Infinity` for never.
 * Where more are due than is `enough`, nothing further is looked at.
 */
export const outlook = (
  state: GroupState,
  now: number,
  enough = Infinity
): { readonly due: number; readonly next: number } => {
  let due = 0
  let next = Infinity
  for (const entry of state.waiting.values()) {
    if (entry.notBefore > now) {
      if (entry.notBefore < next) next = entry.notBefore
    } else if (!isSuspect(entry) && ++due > enough) return { due, next: now }
  }
  return { due, next }
}

/** The group takes nothing new, although there is: as much as it may is begun and not finished. */
export const isStalled = (state: GroupState, head: number, window: number): boolean =>
  state.next <= head && tracked(state) >= window

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
