/**
 * How far a group is behind, why, and when it will have caught up, computed from what is stored: the same answer
 * from any hub, and right after a restart. Nothing here is a counter that somebody has to keep.
 */
import * as Group from "./Group.ts"
import * as GroupView from "./GroupView.ts"

/** Where an event stands, for people: enough to find it. */
export interface Mark {
  readonly seq: number
  readonly id: string
  readonly ts: number
  readonly storedAt: number
}

/** Arrivals are counted over this time, in milliseconds. */
export const arrivalWindowMs = 30_000

/** A topic that is younger than the window is measured over its life, but over no less than this. */
const minArrivalMs = 1_000

/** What came into a topic lately. */
export interface Arrivals {
  readonly events: number
  /** When the topic got its first event, if that is among them. */
  readonly bornAt: number | undefined
}

export interface LagFacts {
  readonly topic: string
  readonly group: string
  readonly state: Group.GroupState
  readonly keyOrdered: boolean
  readonly paused: boolean
  /** The group was registered in the life of the store that this is, so that its positions mean something. */
  readonly sameHistory: boolean
  /** The event at the group's floor; none when it has acknowledged nothing, or it was trimmed. */
  readonly cursor: Mark | undefined
  /** The topic's last seq, and the event there; none when it was trimmed meanwhile. */
  readonly head: number
  readonly tail: Mark | undefined
  /** When the oldest unacknowledged event was stored. */
  readonly oldestStoredAt: number | undefined
  /** The group's dead letters on this topic; none when it never had any. */
  readonly letters: { readonly floor: number; readonly head: number } | undefined
  /** What was stored within `arrivalWindowMs`. */
  readonly arrivals: Arrivals
  readonly window: number
  readonly now: number
}

/**
 * `history`: the group stands behind the end of the topic, or its positions belong to another life of the store.
 * `paused`: somebody paused it. `window_full`: as much as it may is begun and not finished.
 */
export type Stalled = "history" | "paused" | "window_full"

export interface Lag {
  readonly topic: string
  readonly group: string
  readonly lastCursor: Mark | null
  readonly tail: Mark | null
  /** Age of the oldest unacknowledged event in milliseconds; 0 when there is none. */
  readonly lagMs: number
  /** Unacknowledged events, delivered or not. */
  readonly pending: number
  readonly inFlight: number
  /** Waiting to be delivered again. */
  readonly waiting: number
  /** Passed over until an earlier event of their key is done. */
  readonly deferred: number
  readonly redelivered: number
  /** Dead letters that did not come back. */
  readonly dead: number
  /** Dead letters that came back and are not done yet. They are among `inFlight` and `waiting` as well. */
  readonly redriven: number
  /** Why the group takes nothing new; `null` when it does. */
  readonly stalled: Stalled | null
  /** Keys of a `keyOrdered` group whose events wait for one that failed. */
  readonly blockedKeys: number
  /** Events that the group gets done in a second; `null` before it was measured. */
  readonly ratePerSecond: number | null
  /** Events that were stored in a second, over about the last 30 s. */
  readonly arrivalPerSecond: number
  /**
   * Milliseconds until nothing is pending, if both go on like this; 0 when nothing is. `null`: never, or nobody
   * knows.
   */
  readonly catchUpMs: number | null
}

const deadOf = ({ letters, state }: LagFacts): number => {
  if (letters === undefined) return 0
  let dead = letters.head - letters.floor
  for (const [from, to] of state.redrive.letters) {
    dead -= Math.max(0, Math.min(to, letters.head) - Math.max(from, letters.floor + 1) + 1)
  }
  return dead
}

const arrivalOf = ({ arrivals: { bornAt, events }, now }: LagFacts): number => {
  const lived = bornAt === undefined ? arrivalWindowMs : now - bornAt
  return (events * 1_000) / Math.min(arrivalWindowMs, Math.max(minArrivalMs, lived))
}

const stalledOf = (facts: LagFacts): Stalled | null => {
  const { head, paused, sameHistory, state, window } = facts
  if (!sameHistory || state.floor > head) return "history"
  if (paused) return "paused"
  return Group.isStalled(state, head, window) ? "window_full" : null
}

export const lag = (facts: LagFacts): Lag => {
  const { head, now, state } = facts
  const counts = GroupView.counts(state)
  const pending = GroupView.pending(state, head)
  const stalled = stalledOf(facts)
  const rate = GroupView.rate(state, now)
  const arrival = arrivalOf(facts)

  const catchUpMs = (): number | null => {
    if (stalled === "history") return null
    if (pending === 0) return 0
    const gain = stalled === "paused" || rate === undefined ? 0 : rate - arrival
    const ms = Math.ceil((pending * 1_000) / gain)
    return gain > 0 && Number.isSafeInteger(ms) ? ms : null
  }

  return {
    topic: facts.topic,
    group: facts.group,
    lastCursor: facts.cursor ?? null,
    tail: facts.tail ?? null,
    lagMs: pending === 0 || facts.oldestStoredAt === undefined ? 0 : Math.max(0, now - facts.oldestStoredAt),
    pending,
    inFlight: counts.inFlight,
    waiting: counts.waiting,
    deferred: counts.deferred,
    redelivered: counts.redelivered,
    dead: deadOf(facts),
    redriven: counts.redriven,
    stalled,
    blockedKeys: facts.keyOrdered ? GroupView.countBlockedKeys(state) : 0,
    ratePerSecond: rate ?? null,
    arrivalPerSecond: arrival,
    catchUpMs: catchUpMs()
  }
}
