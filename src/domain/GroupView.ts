/** What people want to know of a consumer group on a topic, read from its state. */
import type { Entry, GroupState } from "./Group.ts"
import { doneCount, openCount } from "./Group.ts"

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
  /** Back from the dead letters, and not done yet. They are among the others as well. */
  readonly redriven: number
}

export const counts = (state: GroupState): GroupCounts => {
  let redelivered = 0
  let redriven = 0
  for (const entry of state.inFlight.values()) if (entry.attempt > 1) redelivered++
  for (const entry of state.waiting.values()) if (entry.attempt > 0) redelivered++
  for (const entries of [state.inFlight, state.waiting, state.dying]) {
    for (const { letter } of entries.values()) if (letter !== undefined) redriven++
  }
  let deferred = 0
  for (const { seqs, unlisted } of state.deferred.values()) deferred += seqs.length + unlisted
  return {
    inFlight: state.inFlight.size,
    waiting: state.waiting.size,
    deferred,
    redelivered,
    dying: state.dying.size,
    redriven
  }
}

/** How many events up to `head` are not acknowledged. */
export const pending = (state: GroupState, head: number): number => Math.max(0, head - doneCount(state))

/** The first event that is not acknowledged, if there is one up to `head`. */
export const oldestUnacked = (state: GroupState, head: number): number | undefined =>
  state.floor < head ? state.floor + 1 : undefined

/** The least time that a pace is taken from. */
const minMeasureMs = 1_000

/** How many events a second the group gets done; nothing before it was measured. */
export const rate = (state: GroupState, now: number): number | undefined => {
  const [first] = state.pace
  if (first === undefined || now - first.at < minMeasureMs) return undefined
  return Math.max(0, ((doneCount(state) - first.done) * 1_000) / (now - first.at))
}

/** A key of a `keyOrdered` group whose events wait for one that failed. */
export interface BlockedKey {
  readonly key: string
  /** The event that the others wait for. */
  readonly seq: number
  readonly state: "inFlight" | "waiting" | "dying"
  readonly attempt: number
  /** When the group first took it. */
  readonly since: number
  /** Of one that waits: not again before this time. */
  readonly notBefore: number | undefined
  readonly reason: string
  /** Events of the key that were passed over, or came back from the dead letters behind it. */
  readonly behind: number
}

/** Keys whose event came to nothing at least once and is not done, the longest blocked first. */
export const blockedKeys = (state: GroupState): ReadonlyArray<BlockedKey> => {
  const found = new Map<string, BlockedKey>()
  const behind = new Map<string, number>()
  const look = (place: BlockedKey["state"], seq: number, entry: Entry, notBefore?: number) => {
    const { attempt, key, reason, since } = entry
    if (key === undefined) return
    behind.set(key, (behind.get(key) ?? -1) + 1)
    const first = found.get(key)
    if (first !== undefined && (first.state === place ? first.seq < seq : first.state !== "waiting")) return
    found.set(key, { key, seq, state: place, attempt, since, notBefore, reason, behind: 0 })
  }
  for (const [seq, entry] of state.waiting) look("waiting", seq, entry, entry.notBefore)
  for (const [seq, entry] of state.dying) look("dying", seq, entry)
  for (const [seq, entry] of state.inFlight) look("inFlight", seq, entry)
  return [...found.values()]
    .filter(({ attempt, state: place }) => place !== "inFlight" || attempt > 1)
    .map((one) => {
      const passed = state.deferred.get(one.key)
      const passedOver = passed === undefined ? 0 : passed.seqs.length + passed.unlisted
      return { ...one, behind: behind.get(one.key)! + passedOver }
    })
    .sort((a, b) => a.since - b.since || a.seq - b.seq)
}

/** How many keys are blocked. */
export const countBlockedKeys = (state: GroupState): number => {
  const blocked = new Set<string>()
  /** Whatever waits of these keys waits behind an event that dies or is with a member. */
  const decided = new Set<string>()
  for (const { key } of state.waiting.values()) if (key !== undefined) blocked.add(key)
  for (const { key } of state.dying.values()) {
    if (key === undefined) continue
    blocked.add(key)
    decided.add(key)
  }
  for (const { attempt, key } of state.inFlight.values()) {
    if (key === undefined || decided.has(key)) continue
    decided.add(key)
    if (attempt > 1) blocked.add(key)
    else blocked.delete(key)
  }
  return blocked.size
}

// --- seek ----------------------------------------------------------------------------------------------------

/** What going on from another position means, in events. */
export interface SeekEffect {
  /** Acknowledged ones that come again. */
  readonly again: number
  /** Ones that are not acknowledged, and will not come. */
  readonly skipped: number
}

/** Whether an event was passed over and is not listed. */
export const isUnlisted = (
  state: GroupState,
  event: { readonly seq: number; readonly key: string | undefined }
): boolean => {
  const from = event.key === undefined ? undefined : state.deferred.get(event.key)?.from
  return from !== undefined && event.seq >= from && event.seq < state.next
}

/** From where to where the log has to be read to know what a seek means; mostly nowhere. */
export const unlistedUpTo = (
  state: GroupState,
  floor: number
): { readonly from: number; readonly to: number } | undefined => {
  let first = Infinity
  for (const { from } of state.deferred.values()) first = Math.min(first, from ?? Infinity)
  return floor < first || floor >= state.next - 1 ? undefined : { from: first, to: floor }
}

/** `unlisted`: how many events up to the new floor were passed over and are not listed, where that was asked for. */
export const seekEffect = (state: GroupState, floor: number, unlisted: number | undefined): SeekEffect => {
  let openUpTo = 0
  for (const entries of [state.inFlight, state.waiting, state.dying]) {
    for (const [seq, { letter }] of entries) if (letter === undefined && seq <= floor) openUpTo++
  }
  for (const passed of state.deferred.values()) {
    for (const seq of passed.seqs) if (seq <= floor) openUpTo++
    if (floor >= state.next - 1) openUpTo += passed.unlisted
  }
  openUpTo += unlisted ?? 0
  const seen = Math.max(0, state.next - 1 - floor)
  return {
    again: seen === 0 ? 0 : Math.max(0, seen - (openCount(state) - openUpTo)),
    skipped: openUpTo + Math.max(0, floor - state.next + 1)
  }
}
