/**
 * What of a group's state could be delivered now, and when there will be more: what a runner asks before it makes a
 * round, and what a claim chooses its retries from.
 */
import { Entries } from "./Entries.ts"
import { type Entry, type GroupState, isSuspect, tracked, type Waiting } from "./GroupState.ts"

/** Keys of which an event is delivered, waits or dies: no other event of theirs may overtake it. */
export const busyKeys = (state: GroupState): { readonly has: (key: string) => boolean } => {
  const places = [state.inFlight, state.waiting, state.dying].map((entries) => Entries.from<Entry>(entries))
  return { has: (key) => places.some((entries) => entries.countOf(key) > 0) }
}

/**
 * Events that can be delivered again now, in the order of the log, no more than asked for. In key order that is at most
 * one of each key: the first of those that wait, when none of the key is with a member or dying.
 */
export const dueOf = (
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
