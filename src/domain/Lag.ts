/**
 * How far a group is behind, computed from what is stored: the same answer from any hub, and right after a
 * restart. Nothing here is a counter that somebody has to keep.
 */
import * as Group from "./Group.ts"

/** Where an event stands, for people: enough to find it. */
export interface Mark {
  readonly seq: number
  readonly id: string
  readonly ts: number
  readonly storedAt: number
}

export interface LagFacts {
  readonly topic: string
  readonly group: string
  readonly state: Group.GroupState
  /** The event at the group's floor; none when it has acknowledged nothing, or it was trimmed. */
  readonly cursor: Mark | undefined
  readonly tail: Mark | undefined
  /** When the oldest unacknowledged event was stored. */
  readonly oldestStoredAt: number | undefined
  /** Events in the group's dead letters. */
  readonly dead: number
  readonly window: number
  readonly now: number
}

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
  readonly dead: number
  /** Why the group takes no new events although there are; `null` when it does. */
  readonly stalled: "window_full" | null
}

export const lag = (facts: LagFacts): Lag => {
  const head = facts.tail?.seq ?? 0
  const counts = Group.counts(facts.state)
  const pending = Group.pending(facts.state, head)
  return {
    topic: facts.topic,
    group: facts.group,
    lastCursor: facts.cursor ?? null,
    tail: facts.tail ?? null,
    lagMs:
      pending === 0 || facts.oldestStoredAt === undefined ? 0 : Math.max(0, facts.now - facts.oldestStoredAt),
    pending,
    inFlight: counts.inFlight,
    waiting: counts.waiting,
    deferred: counts.deferred,
    redelivered: counts.redelivered,
    dead: facts.dead,
    stalled: Group.isStalled(facts.state, head, facts.window) ? "window_full" : null
  }
}
