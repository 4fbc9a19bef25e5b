/**
 * A consumer group the slow and obvious way: one record for every event of the topic, and a loop over all of
 * them for every question. What domain/Group is compared with.
 */
import * as Group from "../../src/domain/Group.ts"
import { backoff, type Key, type Operation, type Setup, type Step } from "./groupHistory.ts"

interface Delivered {
  readonly attempt: number
  readonly unanswered: number
}

export type Place =
  | { readonly at: "new" }
  | ({ readonly at: "inFlight"; readonly member: string; readonly deadline: number } & Delivered)
  | ({ readonly at: "waiting"; readonly member: string | undefined; readonly notBefore: number } & Delivered)
  | ({ readonly at: "dying"; readonly reason: string } & Delivered)
  | { readonly at: "done" }

type Open = Extract<Place, { readonly at: "inFlight" | "waiting" }>

/** What a claim may choose from; the order within `deferred` is the group's own affair. */
export interface Choice {
  readonly retries: ReadonlyArray<number>
  readonly deferred: { readonly of: ReadonlyArray<number>; readonly count: number }
  readonly fresh: ReadonlyArray<number>
}

export class NaiveGroup {
  /** Where each event is; the first has seq 1. */
  places: Array<Place> = []
  readonly #keys: Array<Key> = []
  readonly #setup: Setup

  constructor(setup: Setup) {
    this.#setup = setup
  }

  /** The largest number up to which everything is done. */
  get floor(): number {
    const open = this.places.findIndex((place) => place.at !== "done")
    return open < 0 ? this.places.length : open
  }

  /** What a claim has to choose, when the events from `next` up to `shown` are new to the group. */
  choose(request: Group.Claim, next: number): Choice {
    const { limit, mode, now } = request
    const due = this.#seqs((place) => place.at === "waiting" && place.notBefore <= now)
    const suspects = due.filter((seq) => this.#isSuspect(seq))
    if (limit <= 0) return { retries: [], deferred: { of: [], count: 0 }, fresh: [] }
    if (mode === "alone") return { retries: suspects.slice(0, 1), deferred: { of: [], count: 0 }, fresh: [] }
    const retries = due.filter((seq) => !this.#isSuspect(seq))
    const first = Math.min(retries.length, Math.max(1, Math.floor(limit / 5)))
    const last = Math.min(next + request.candidates.length - 1, this.floor + this.#setup.window)
    const free = this.#seqs((place, seq) => place.at === "new" && seq <= last && this.#isNextOfItsKey(seq))
    const deferred = free.filter((seq) => seq < next)
    const count = Math.min(deferred.length, limit - first)
    const fresh = free.filter((seq) => seq >= next).slice(0, limit - first - count)
    return {
      retries: retries.slice(0, limit - count - fresh.length),
      deferred: { of: deferred, count },
      fresh
    }
  }

  /** Carries out what was carried out on the real group, and says what the answers were about. */
  follow({ deliveries, now, operation }: Step): ReadonlyArray<Group.Outcome> {
    switch (operation._tag) {
      case "Publish":
        this.#keys.push(...operation.keys)
        this.places.push(...operation.keys.map((): Place => ({ at: "new" })))
        return []
      case "Claim":
        for (const { seq } of deliveries) this.#deliver(seq, operation.request)
        return []
      case "Ack":
        return operation.answers.map((answer) => this.#answer(answer, () => ({ at: "done" })))
      case "Nack": {
        // Of two refusals of one event in one go, the first counts.
        const seen = new Set<number>()
        return operation.refusals.map((refusal) => {
          if (seen.has(refusal.seq)) return "stale"
          const outcome = this.#answer(refusal, (open) => this.#refuse(open, refusal, now))
          if (outcome === "done") seen.add(refusal.seq)
          return outcome
        })
      }
      case "Extend":
        return operation.answers.map((answer) =>
          this.#answer(answer, (open) =>
            open.at === "waiting"
              ? "stale"
              : { ...open, deadline: Math.max(open.deadline, now + answer.byMs) }
          )
        )
      case "Expire":
        this.#lapse((open) => open.deadline <= now, "the acknowledgement timed out", now)
        return []
      case "Lose":
        this.#lapse((open) => operation.members.includes(open.member), "its member was lost", now)
        return []
      default:
        this.places = this.places.map((place, i) => moved(place, i + 1, operation, now))
        return []
    }
  }

  #seqs(choose: (place: Place, seq: number) => boolean): ReadonlyArray<number> {
    return this.places.flatMap((place, i) => (choose(place, i + 1) ? [i + 1] : []))
  }

  #isSuspect(seq: number): boolean {
    const place = this.places[seq - 1]!
    return "unanswered" in place && place.unanswered >= 2
  }

  #isNextOfItsKey(seq: number): boolean {
    const key = this.#keys[seq - 1]
    if (!this.#setup.options.keyOrdered || key === undefined) return true
    const others = this.#seqs((place, other) => this.#keys[other - 1] === key && place.at !== "done")
    return others.every((other) => other >= seq && (other === seq || this.places[other - 1]!.at === "new"))
  }

  #deliver(seq: number, { member, now, options }: Group.Claim): void {
    const place = this.places[seq - 1]!
    const { attempt, unanswered } = "attempt" in place ? place : { attempt: 0, unanswered: 0 }
    this.places[seq - 1] = {
      at: "inFlight",
      member,
      attempt: attempt + 1,
      unanswered,
      deadline: now + options.ackTimeoutMs
    }
  }

  #answer(answer: Group.Answer, then: (open: Open) => Place | "stale"): Group.Outcome {
    const { attempt, member, seq } = answer
    const place = this.places[seq - 1] ?? { at: "new" }
    if (place.at === "done") return "already"
    if (place.at === "new" || place.at === "dying" || place.member === undefined) return "stale"
    // While it runs it is its member's. Lapsed, whoever can name the attempt may still speak for it.
    const isHis =
      place.at === "inFlight"
        ? place.member === member && (attempt === undefined || attempt === place.attempt)
        : attempt === undefined
          ? place.member === member
          : place.attempt === attempt
    const next = isHis ? then(place) : "stale"
    if (next === "stale") return "stale"
    this.places[seq - 1] = next
    return "done"
  }

  #refuse(
    { attempt, unanswered }: Open,
    { delayMs, mode, random, reason }: Group.Refusal,
    now: number
  ): Place {
    const { maxAttempts } = this.#setup.options
    const gone = mode === "poison" || (mode === "fail" && attempt >= maxAttempts)
    if (gone && maxAttempts !== Infinity) return { at: "dying", attempt, unanswered, reason }
    if (mode === "release") {
      const notBefore = now + (delayMs ?? 0)
      return { at: "waiting", member: undefined, attempt: attempt - 1, unanswered, notBefore }
    }
    const longest = Math.min(backoff.maxMs, backoff.baseMs * 2 ** (attempt - 1))
    const notBefore = now + (delayMs ?? Math.floor(longest * random))
    return { at: "waiting", member: undefined, attempt, unanswered, notBefore }
  }

  #lapse(lapsed: (open: Extract<Place, { at: "inFlight" }>) => boolean, reason: string, now: number): void {
    this.places = this.places.map((place): Place => {
      if (place.at !== "inFlight" || !lapsed(place)) return place
      const { attempt, member } = place
      const unanswered = place.unanswered + 1
      return attempt >= this.#setup.options.maxAttempts
        ? { at: "dying", attempt, unanswered, reason }
        : { at: "waiting", member, attempt, unanswered, notBefore: now }
    })
  }
}

const moved = (place: Place, seq: number, operation: Operation, now: number): Place => {
  switch (operation._tag) {
    case "Leave": {
      if (place.at !== "inFlight" || place.member !== operation.member) return place
      const { attempt, unanswered } = place
      return { at: "waiting", member: undefined, attempt: attempt - 1, unanswered, notBefore: now }
    }
    case "Bury":
      return place.at === "dying" && operation.seqs.includes(seq) ? { at: "done" } : place
    case "Trim":
      return seq <= operation.floor ? { at: "done" } : place
    case "Seek":
      return seq <= operation.floor ? { at: "done" } : { at: "new" }
    default:
      return place
  }
}

/** Where the real state says an event is. */
export const placeIn = (state: Group.GroupState, seq: number): Place => {
  if (seq <= state.floor || state.acked.some(([from, to]) => from <= seq && seq <= to)) return { at: "done" }
  const running = state.inFlight.get(seq)
  const waiting = state.waiting.get(seq)
  const dying = state.dying.get(seq)
  if (running !== undefined) {
    const { attempt, deadline, member, unanswered } = running
    return { at: "inFlight", member, attempt, unanswered, deadline }
  }
  if (waiting !== undefined) {
    const { attempt, member, notBefore, unanswered } = waiting
    return { at: "waiting", member: member === "" ? undefined : member, attempt, unanswered, notBefore }
  }
  if (dying !== undefined) {
    const { attempt, reason, unanswered } = dying
    return { at: "dying", attempt, unanswered, reason }
  }
  return { at: "new" }
}
