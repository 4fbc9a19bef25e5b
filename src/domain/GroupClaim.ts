/**
 * What a member of a group gets next, and what is passed over meanwhile: in key order, events whose key is busy.
 *
 * Those next in line are listed in the state by their seqs. However many are behind them, the state holds only where
 * they begin in the log; when their turn comes they are looked up there, and listed.
 */
import { busyKeys, dueOf } from "./GroupOutlook.ts"
import type { GroupOptions } from "./GroupRegistration.ts"
import {
  bySeq,
  changed,
  type Deferred,
  type GroupState,
  type InFlight,
  listedIn,
  settled,
  tracked,
  type Waiting,
  weight,
  withAll,
  without
} from "./GroupState.ts"

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

/** Events of one key that are listed by their seqs; the others are looked up when their turn comes. */
const maxListed = 64

/** Lists take no more than half of what is left of the window: the rest is for events that can be delivered. */
const hasRoomToList = (room: number, listed: number): boolean => room > listed

const nonePassed: Deferred = { seqs: [], from: undefined, unlisted: 0 }

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

// --- what was passed over -------------------------------------------------------------------------------------

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
