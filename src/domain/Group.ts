/**
 * The state of one consumer group on one topic, and everything that can happen to it: the heart of delivery.
 *
 * Every event of the topic is, for the group, in exactly one place:
 *
 *   seq ≤ floor            acknowledged, with all before it
 *   acked                  acknowledged out of order
 *   inFlight               delivered to a member, until its deadline
 *   waiting                delivered before, to be delivered again from `notBefore` on
 *   dying                  out of attempts: it is let go when it stands in the dead letters
 *   deferred               passed over, because an event of its key was not done (`keyOrdered`)
 *   seq ≥ next             not looked at yet
 *
 * The floor is the contiguous acknowledged prefix and nothing else: no event is skipped by moving it.
 * All operations are pure and take many events at once; time and random numbers are arguments.
 */
import { Effect, Result, Schema } from "effect"
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

interface Entry {
  /** 1 for the first delivery. */
  readonly attempt: number
  /** Deliveries that ended without a word from the member: time-outs and lost members. */
  readonly unanswered: number
  /** Who has it, or had it last and may still answer; `nobody` once it was answered or handed back. */
  readonly member: string
  readonly key: string | undefined
}

export interface InFlight extends Entry {
  readonly deadline: number
}

export interface Waiting extends Entry {
  readonly notBefore: number
}

export interface Dying extends Entry {
  readonly reason: string
}

export interface GroupState {
  /** New after a seek, or when the group is created again: claims of another generation mean nothing. */
  readonly generation: string
  readonly floor: number
  readonly next: number
  readonly acked: Ranges.Ranges
  readonly inFlight: ReadonlyMap<number, InFlight>
  readonly waiting: ReadonlyMap<number, Waiting>
  readonly dying: ReadonlyMap<number, Dying>
  /** By key, in the order of their seqs; never empty lists. */
  readonly deferred: ReadonlyMap<string, ReadonlyArray<number>>
}

/** A delivery is answered once: what comes after a NACK is about no delivery any more. */
const nobody = ""

/** A group that has seen everything up to `floor` and nothing after it. */
export const initial = (generation: string, floor: number): GroupState => ({
  generation,
  floor,
  next: floor + 1,
  acked: Ranges.empty,
  inFlight: new Map(),
  waiting: new Map(),
  dying: new Map(),
  deferred: new Map()
})

/**
 * Goes on from another position. What was in flight is forgotten: acknowledgements of it come with the old
 * generation and change nothing.
 */
export const seek = (to: { readonly generation: string; readonly floor: number }): GroupState =>
  initial(to.generation, to.floor)

/** After this many deliveries without a word, an event is delivered alone within its member. */
export const aloneAfter = 2

const isSuspect = (entry: Entry): boolean => entry.unanswered >= aloneAfter

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
}

export interface Claim {
  readonly now: number
  readonly member: string
  /** How many events the member takes now. */
  readonly limit: number
  /**
   * `shared` takes anything but suspects. `alone` takes one suspect and nothing else: for a member that has
   * nothing in flight, so that an event which kills its handler takes no other down with it.
   */
  readonly mode: "shared" | "alone"
  readonly candidates: ReadonlyArray<Candidate>
  readonly options: GroupOptions
  /** How far `next` may be ahead of the floor. */
  readonly window: number
}

export interface Claimed {
  readonly state: GroupState
  readonly deliveries: ReadonlyArray<Delivery>
}

const isDue = (entry: Waiting, now: number): boolean => entry.notBefore <= now

const bySeq = (a: readonly [number, unknown], b: readonly [number, unknown]): number => a[0] - b[0]

/** Keys of which an event is delivered, waits or dies: no other event of theirs may overtake it. */
const busyKeys = (state: GroupState): Set<string> => {
  const busy = new Set<string>()
  for (const entries of [state.inFlight, state.waiting, state.dying]) {
    for (const { key } of entries.values()) if (key !== undefined) busy.add(key)
  }
  return busy
}

/** A group whose retries never end would deliver nothing else: beside fresh events they get a fifth. */
const retryShare = (limit: number): number => Math.max(1, Math.floor(limit / 5))

/**
 * Chooses what a member gets next: retries that are due, then deferred events whose key is free, then new
 * ones. Retries fill what the others leave, and at least their share.
 */
export const claim = (state: GroupState, request: Claim): Claimed => {
  const { candidates, member, mode, now, options } = request
  if (request.limit <= 0) return { state, deliveries: [] }
  const due = [...state.waiting]
    .filter(([, entry]) => isDue(entry, now) && isSuspect(entry) === (mode === "alone"))
    .sort(bySeq)
  const deadline = now + options.ackTimeoutMs
  const inFlight = new Map(state.inFlight)
  const waiting = new Map(state.waiting)
  const deferred = new Map(state.deferred)
  const appended = new Map<string, Array<number>>()
  const deliveries: Array<Delivery> = []
  let next = state.next

  const retry = (limit: number): void => {
    for (const [seq, entry] of due.splice(0, limit)) {
      const attempt = entry.attempt + 1
      const { key, unanswered } = entry
      waiting.delete(seq)
      inFlight.set(seq, { attempt, unanswered, member, key, deadline })
      deliveries.push({ seq, attempt, redelivered: true, deadline })
    }
  }

  const deliver = (seq: number, key: string | undefined): void => {
    inFlight.set(seq, { attempt: 1, unanswered: 0, member, key, deadline })
    deliveries.push({ seq, attempt: 1, redelivered: false, deadline })
  }

  const defer = (seq: number, key: string): void => {
    let seqs = appended.get(key)
    if (seqs === undefined) {
      seqs = [...(deferred.get(key) ?? [])]
      appended.set(key, seqs)
      deferred.set(key, seqs)
    }
    seqs.push(seq)
  }

  if (mode === "alone") {
    retry(1)
  } else {
    retry(retryShare(request.limit))
    const busy = options.keyOrdered ? busyKeys(state) : new Set<string>()
    for (const [key, seqs] of state.deferred) {
      if (deliveries.length >= request.limit) break
      if (busy.has(key)) continue
      const [first, ...rest] = seqs
      deliver(first!, key)
      busy.add(key)
      if (rest.length === 0) deferred.delete(key)
      else deferred.set(key, rest)
    }
    for (const { key, seq } of candidates) {
      if (seq !== next || seq - state.floor > request.window) break
      if (options.keyOrdered && key !== undefined && (busy.has(key) || deferred.has(key))) {
        defer(seq, key)
      } else {
        if (deliveries.length >= request.limit) break
        deliver(seq, key)
        if (options.keyOrdered && key !== undefined) busy.add(key)
      }
      next = seq + 1
    }
    retry(request.limit - deliveries.length)
  }
  if (deliveries.length === 0 && next === state.next) return { state, deliveries }
  return { state: { ...state, next, inFlight, waiting, deferred }, deliveries }
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
 * Finds the delivery that an answer is about. One that lapsed counts as long as nobody took it over: the
 * work was done, and delivering it again would only do it twice.
 */
const answered = (
  state: GroupState,
  answer: Answer
): { readonly outcome: "already" | "stale" } | { readonly entry: Entry } => {
  if (answer.seq <= state.floor || Ranges.has(state.acked, answer.seq)) return { outcome: "already" }
  const running = state.inFlight.get(answer.seq)
  if (running !== undefined) {
    const same = running.member === answer.member && (answer.attempt ?? running.attempt) === running.attempt
    return same ? { entry: running } : { outcome: "stale" }
  }
  const lapsed = state.waiting.get(answer.seq)
  if (lapsed === undefined || lapsed.member === nobody) return { outcome: "stale" }
  const same =
    answer.attempt === undefined ? lapsed.member === answer.member : lapsed.attempt === answer.attempt
  return same ? { entry: lapsed } : { outcome: "stale" }
}

const without = <A>(entries: ReadonlyMap<number, A>, seqs: ReadonlySet<number>): ReadonlyMap<number, A> => {
  if (![...seqs].some((seq) => entries.has(seq))) return entries
  const rest = new Map(entries)
  for (const seq of seqs) rest.delete(seq)
  return rest
}

/** Moves events to the acknowledged, and the floor with them. */
const settle = (state: GroupState, seqs: ReadonlySet<number>): GroupState => {
  if (seqs.size === 0) return state
  const acked = Ranges.addAll(state.acked, seqs)
  const first = acked[0]
  const reached = first !== undefined && first[0] === state.floor + 1
  return {
    ...state,
    floor: reached ? first[1] : state.floor,
    acked: reached ? acked.slice(1) : acked,
    inFlight: without(state.inFlight, seqs),
    waiting: without(state.waiting, seqs),
    dying: without(state.dying, seqs)
  }
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
  return { state: settle(state, done), outcomes }
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
  const waiting = new Map(state.waiting)
  const dying = new Map(state.dying)
  const seen = new Set<number>()
  const outcomes = refusals.map((refusal): Outcome => {
    if (seen.has(refusal.seq)) return "stale"
    const found = answered(state, refusal)
    if ("outcome" in found) return found.outcome
    seen.add(refusal.seq)
    const { attempt, key, member, unanswered } = found.entry
    waiting.delete(refusal.seq)
    const last = refusal.mode === "poison" || (refusal.mode === "fail" && attempt >= limits.maxAttempts)
    if (last && limits.maxAttempts !== Infinity) {
      dying.set(refusal.seq, { attempt, unanswered, member, key, reason: refusal.reason })
      return "done"
    }
    const released = refusal.mode === "release"
    const delay = refusal.delayMs ?? (released ? 0 : Retry.delayMs(limits.backoff, attempt, refusal.random))
    waiting.set(refusal.seq, {
      attempt: released ? attempt - 1 : attempt,
      unanswered,
      member: nobody,
      key,
      notBefore: limits.now + delay
    })
    return "done"
  })
  if (seen.size === 0) return { state, outcomes }
  return { state: { ...state, inFlight: without(state.inFlight, seen), waiting, dying }, outcomes }
}

/** Gives members more time, counted from now; a deadline never comes nearer. */
export const extend = (
  state: GroupState,
  answers: ReadonlyArray<Answer & { readonly byMs: number }>,
  now: number
): Answered => {
  const inFlight = new Map(state.inFlight)
  const outcomes = answers.map((answer): Outcome => {
    const found = answered(state, answer)
    if ("outcome" in found) return found.outcome
    const running = inFlight.get(answer.seq)
    if (running === undefined) return "stale"
    inFlight.set(answer.seq, { ...running, deadline: Math.max(running.deadline, now + answer.byMs) })
    return "done"
  })
  return { state: outcomes.includes("done") ? { ...state, inFlight } : state, outcomes }
}

// --- what ends without an answer -------------------------------------------------------------------------------

/** Takes deliveries back that nobody answered: the attempt counts, and their slots are free at once. */
const lapse = (
  state: GroupState,
  lapsed: (entry: InFlight) => boolean,
  reason: string,
  limits: Pick<Limits, "now" | "maxAttempts">
): GroupState => {
  const inFlight = new Map<number, InFlight>()
  const waiting = new Map(state.waiting)
  const dying = new Map(state.dying)
  for (const [seq, entry] of state.inFlight) {
    if (!lapsed(entry)) {
      inFlight.set(seq, entry)
      continue
    }
    const { attempt, key, member } = entry
    const unanswered = entry.unanswered + 1
    if (attempt >= limits.maxAttempts) dying.set(seq, { attempt, unanswered, member, key, reason })
    else waiting.set(seq, { attempt, unanswered, member, key, notBefore: limits.now })
  }
  return inFlight.size === state.inFlight.size ? state : { ...state, inFlight, waiting, dying }
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

/** A member that said goodbye: what it still had goes back at once, and the attempts do not count. */
export const leave = (state: GroupState, member: string, now: number): GroupState => {
  const waiting = new Map(state.waiting)
  const gone = new Set<number>()
  for (const [seq, entry] of state.inFlight) {
    if (entry.member !== member) continue
    gone.add(seq)
    waiting.set(seq, {
      attempt: entry.attempt - 1,
      unanswered: entry.unanswered,
      member: nobody,
      key: entry.key,
      notBefore: now
    })
  }
  return gone.size === 0 ? state : { ...state, inFlight: without(state.inFlight, gone), waiting }
}

/** These stand in the dead letters now: the group lets go of them. */
export const bury = (state: GroupState, seqs: Iterable<number>): GroupState =>
  settle(state, new Set([...seqs].filter((seq) => state.dying.has(seq))))

/**
 * Events up to `floor` were trimmed before the group took them. They are passed over, with what was known of
 * them: nobody can read them any more.
 */
export const skipTrimmed = (state: GroupState, floor: number): GroupState => {
  if (floor <= state.floor) return state
  const gone = new Set<number>()
  for (let seq = state.floor + 1; seq <= Math.min(floor, state.next - 1); seq++) gone.add(seq)
  const deferred = new Map<string, ReadonlyArray<number>>()
  for (const [key, seqs] of state.deferred) {
    const rest = seqs.filter((seq) => seq > floor)
    if (rest.length > 0) deferred.set(key, rest)
  }
  const settled = settle({ ...state, deferred }, gone)
  return settled.floor >= floor ? settled : { ...settled, floor, next: Math.max(settled.next, floor + 1) }
}

// --- read-outs -----------------------------------------------------------------------------------------------

/** Whether an event waits that has to be delivered alone. */
export const suspectDue = (state: GroupState, now: number): boolean => {
  for (const entry of state.waiting.values()) if (isSuspect(entry) && isDue(entry, now)) return true
  return false
}

/** Whether the member has an event that has to be alone. */
export const holdsSuspect = (state: GroupState, member: string): boolean => {
  for (const entry of state.inFlight.values()) if (entry.member === member && isSuspect(entry)) return true
  return false
}

/**
 * When something happens by itself: the next deadline, or the next retry of those that are due after a time;
 * `Infinity` for never.
 */
export const wakeAt = (state: GroupState, after = -Infinity): number => {
  let at = Infinity
  for (const { deadline } of state.inFlight.values()) at = Math.min(at, deadline)
  for (const { notBefore } of state.waiting.values()) if (notBefore > after) at = Math.min(at, notBefore)
  return at
}

export interface GroupCounts {
  readonly inFlight: number
  /** Waiting to be delivered again. */
  readonly waiting: number
  /** Passed over, because their key is busy. */
  readonly deferred: number
  /** Delivered more than once and not done yet. */
  readonly redelivered: number
  /** Given up, but not in the dead letters yet. */
  readonly dying: number
}

export const counts = (state: GroupState): GroupCounts => {
  let redelivered = 0
  for (const entry of state.inFlight.values()) if (entry.attempt > 1) redelivered++
  for (const entry of state.waiting.values()) if (entry.attempt > 0) redelivered++
  let deferred = 0
  for (const seqs of state.deferred.values()) deferred += seqs.length
  return {
    inFlight: state.inFlight.size,
    waiting: state.waiting.size,
    deferred,
    redelivered,
    dying: state.dying.size
  }
}

/** How many events up to `head` are not acknowledged. */
export const pending = (state: GroupState, head: number): number =>
  Math.max(0, head - state.floor - Ranges.size(state.acked))

/** The first event that is not acknowledged, if there is one up to `head`. */
export const oldestUnacked = (state: GroupState, head: number): number | undefined =>
  state.floor < head ? state.floor + 1 : undefined

/** The group takes nothing new, although there is: too much above the floor waits for one event. */
export const isStalled = (state: GroupState, head: number, window: number): boolean =>
  state.next <= head && state.next - state.floor > window

// --- storage -------------------------------------------------------------------------------------------------

/** The encoded form's version; a store that holds a newer one is refused. */
const version = 1

/** A compact text: members are named once, entries are rows. */
export const encodeState = (state: GroupState): string => {
  const members = new Map<string, number>()
  const memberOf = (name: string): number => {
    const known = members.get(name)
    if (known !== undefined) return known
    members.set(name, members.size)
    return members.size - 1
  }
  const rows = <A extends Entry>(entries: ReadonlyMap<number, A>, last: (entry: A) => number | string) =>
    Array.from(entries, ([seq, entry]) => [
      seq,
      entry.attempt,
      entry.unanswered,
      memberOf(entry.member),
      entry.key ?? null,
      last(entry)
    ])
  return JSON.stringify({
    v: version,
    generation: state.generation,
    floor: state.floor,
    next: state.next,
    acked: state.acked,
    inFlight: rows(state.inFlight, (entry) => entry.deadline),
    waiting: rows(state.waiting, (entry) => entry.notBefore),
    dying: rows(state.dying, (entry) => entry.reason),
    deferred: [...state.deferred],
    members: [...members.keys()]
  })
}

const rowOf = <Last extends Schema.Top>(last: Last) =>
  Schema.Tuple([Schema.Int, Schema.Int, Schema.Int, Schema.Int, Schema.NullOr(Schema.String), last])

const Timed = rowOf(Schema.Finite)
const Given = rowOf(Schema.String)

const Encoded = Schema.Struct({
  v: Schema.Literal(version),
  generation: Schema.String,
  floor: Schema.Int,
  next: Schema.Int,
  acked: Schema.Array(Schema.Tuple([Schema.Int, Schema.Int])),
  inFlight: Schema.Array(Timed),
  waiting: Schema.Array(Timed),
  dying: Schema.Array(Given),
  deferred: Schema.Array(Schema.Tuple([Schema.String, Schema.Array(Schema.Int)])),
  members: Schema.Array(Schema.String)
}).check(
  Schema.makeFilter(
    ({ dying, inFlight, members, waiting }) =>
      [...inFlight, ...waiting, ...dying].every(([, , , member]) => members[member] !== undefined) ||
      "a delivery's member is not among the members"
  )
)

/** A group's stored state cannot be read: it is damaged, or was written by a newer version. */
export class InvalidGroupState extends Schema.TaggedError<InvalidGroupState>()("InvalidGroupState", {
  reason: Schema.String
}) {
  override get message() {
    return `a group's stored state cannot be read: ${this.reason}`
  }
}

type Head = [seq: number, attempt: number, unanswered: number, member: number, key: string | null]

const decodeEncoded = Schema.decodeUnknownResult(Schema.fromJsonString(Encoded))

export const decodeState = (text: string): Result.Result<GroupState, InvalidGroupState> =>
  Result.mapBoth(decodeEncoded(text), {
    onFailure: (error) => new InvalidGroupState({ reason: error.message }),
    onSuccess: (encoded): GroupState => {
      const entries = <Last, A>(
        rows: ReadonlyArray<readonly [...Head, last: Last]>,
        make: (entry: Entry, last: Last) => A
      ): ReadonlyMap<number, A> =>
        new Map(
          rows.map(([seq, attempt, unanswered, member, key, last]) => [
            seq,
            make({ attempt, unanswered, member: encoded.members[member]!, key: key ?? undefined }, last)
          ])
        )
      return {
        generation: encoded.generation,
        floor: encoded.floor,
        next: encoded.next,
        acked: encoded.acked,
        inFlight: entries(encoded.inFlight, (entry, last) => ({ ...entry, deadline: last })),
        waiting: entries(encoded.waiting, (entry, last) => ({ ...entry, notBefore: last })),
        dying: entries(encoded.dying, (entry, last) => ({ ...entry, reason: last })),
        deferred: new Map(encoded.deferred)
      }
    }
  })
