/**
 * A consumer group the slow and obvious way: one record for every event of the topic, and a loop over all of
 * them for every question. What domain/Group is compared with.
 */
import type * as Group from "../../src/domain/Group.ts"
import { redriveWindow } from "../../src/domain/GroupRedrive.ts"
import { backoff, type Key, type Letters, type Setup, type Step } from "./groupHistory.ts"

interface Begun {
  readonly attempt: number
  readonly unanswered: number
  readonly since: number
  readonly reason: string
  /** It comes back from the dead letters: for the log it is done. */
  readonly letter: number | undefined
}

export type Place =
  | { readonly at: "new" }
  | { readonly at: "passed"; readonly listed: boolean }
  | ({ readonly at: "inFlight"; readonly member: string; readonly deadline: number } & Begun)
  | ({ readonly at: "waiting"; readonly member: string; readonly notBefore: number } & Begun)
  | ({ readonly at: "dying"; readonly member: string } & Begun)
  | { readonly at: "done" }

type BegunPlace = Extract<Place, Begun>
type Running = Extract<Place, { readonly at: "inFlight" }>
type Open = Extract<Place, { readonly at: "inFlight" | "waiting" }>

/** What the group answers. */
export interface Answers {
  readonly deliveries: ReadonlyArray<Group.Delivery>
  readonly outcomes: ReadonlyArray<Group.Outcome>
  readonly released: number | undefined
}

const nobody = ""

const isBegun = (place: Place): place is BegunPlace => "attempt" in place

/** For the log: whatever came back from the dead letters was done before. */
export const isDone = (place: Place): boolean =>
  place.at === "done" || (isBegun(place) && place.letter !== undefined)

/** Of one that waits 200 characters are kept, of one that dies 1,000. */
const cut = (reason: string, length: number): string =>
  reason.length > length ? `${reason.slice(0, length - 1)}…` : reason

export class NaiveGroup {
  /** Where each event is; the first has seq 1. */
  places: Array<Place> = []
  readonly keys: Array<Key> = []
  /** The first event that was not looked at. */
  next = 1
  /** Where a look for events of a key begins that were passed over and are not listed. */
  froms = new Map<string, number>()
  /** Keys of which some events were trimmed unseen: how many are left is known when they were looked up. */
  vague = new Set<string>()
  plans: ReadonlyArray<Group.RedrivePlan> = []
  /** Letters that came back. */
  came = new Set<number>()
  readonly #setup: Setup

  constructor(setup: Setup) {
    this.#setup = setup
  }

  // --- what it says ------------------------------------------------------------------------------------------

  get head(): number {
    return this.places.length
  }

  /** The largest number up to which everything is done for sure. */
  get floor(): number {
    const open = this.places.findIndex((place) => !isDone(place))
    return Math.min(this.next - 1, open < 0 ? this.head : open, ...[...this.froms.values()].map((n) => n - 1))
  }

  seqs(choose: (place: Place, seq: number) => boolean): ReadonlyArray<number> {
    const found: Array<number> = []
    for (let seq = 1; seq <= this.head; seq++) if (choose(this.places[seq - 1]!, seq)) found.push(seq)
    return found
  }

  /** Events of a key that are somewhere. */
  ofKey(key: Key, ...at: ReadonlyArray<Place["at"]>): ReadonlyArray<number> {
    return this.seqs((place, seq) => this.keys[seq - 1] === key && at.includes(place.at))
  }

  listed(key: Key): ReadonlyArray<number> {
    return this.seqs((place, seq) => this.keys[seq - 1] === key && place.at === "passed" && place.listed)
  }

  unlisted(key?: string): ReadonlyArray<number> {
    return this.seqs(
      (place, seq) =>
        place.at === "passed" && !place.listed && (key === undefined || this.keys[seq - 1] === key)
    )
  }

  redriven(): ReadonlyArray<number> {
    return this.seqs((place) => isBegun(place) && place.letter !== undefined)
  }

  /** How much of the window is taken. */
  get tracked(): number {
    return this.seqs(isBegun).length + this.#behind
  }

  /** What those that were passed over take of it. */
  get #behind(): number {
    let n = 0
    const keys = new Set([...this.keys, ...this.froms.keys()])
    for (const key of keys) {
      if (key !== undefined) n += Math.max(this.listed(key).length, this.froms.has(key) ? 1 : 0)
    }
    return n
  }

  /** As much is left for others as those take that were passed over. */
  #hasRoomToList(window: number): boolean {
    return window - this.tracked > this.#behind
  }

  // --- what happens ------------------------------------------------------------------------------------------

  /** Carries out what was carried out on the real group. */
  follow({ now, operation }: Pick<Step, "now" | "operation">): Answers {
    const { window } = this.#setup
    const said = { deliveries: [], outcomes: [], released: undefined }
    switch (operation._tag) {
      case "Publish":
        this.keys.push(...operation.keys)
        this.places.push(...operation.keys.map((): Place => ({ at: "new" })))
        return said
      case "Claim":
        return { ...said, deliveries: this.#claim(operation.request) }
      case "Ack": {
        const seen = new Set<number>()
        const outcomes = operation.answers.map((answer) => {
          if (seen.has(answer.seq)) return "already"
          const outcome = this.#answer(answer, () => ({ at: "done" }))
          if (outcome === "done") seen.add(answer.seq)
          return outcome
        })
        return { ...said, outcomes }
      }
      case "Nack": {
        // Of two refusals of one event in one go, the first counts.
        const seen = new Set<number>()
        const outcomes = operation.refusals.map((refusal) => {
          if (seen.has(refusal.seq)) return "stale"
          const outcome = this.#answer(refusal, (open) => this.#refuse(open, refusal, now))
          if (outcome === "done") seen.add(refusal.seq)
          return outcome
        })
        return { ...said, outcomes }
      }
      case "Extend": {
        const outcomes = operation.answers.map((answer) =>
          this.#answer(answer, (open) =>
            open.at === "waiting"
              ? "stale"
              : { ...open, deadline: Math.max(open.deadline, now + answer.byMs) }
          )
        )
        return { ...said, outcomes }
      }
      case "Expire":
        this.#lapse((open) => open.deadline <= now, "the acknowledgement timed out", now)
        return said
      case "Lose":
        this.#lapse((open) => operation.members.includes(open.member), "its member was lost", now)
        return said
      case "Leave":
        this.#each((place) =>
          place.at === "inFlight" && place.member === operation.member ? handedBack(place, now) : place
        )
        return said
      case "Bury":
        this.#each((place, seq) =>
          place.at === "dying" && operation.seqs.includes(seq) ? { at: "done" } : place
        )
        return said
      case "Trim":
        this.#trim(operation.floor)
        return said
      case "Seek":
        this.#seek(operation.floor)
        return said
      case "List":
        for (const found of operation.found) this.#list(found, window)
        return said
      case "Plan":
        this.#plan(operation.plan)
        return said
      case "Admit":
        this.#admit(operation.found, now)
        return said
      case "TrimLetters":
        this.came = new Set([...this.came].filter((letter) => letter > operation.floor))
        this.#each((place) =>
          isBegun(place) && place.letter !== undefined && place.letter <= operation.floor
            ? { at: "done" }
            : place
        )
        return said
      case "ReleaseKey":
        return { ...said, released: this.#releaseKey(operation.key, operation.mode, now) }
      default:
        return said
    }
  }

  #each(change: (place: Place, seq: number) => Place): void {
    this.places = this.places.map((place, i) => change(place, i + 1))
  }

  // --- claim -------------------------------------------------------------------------------------------------

  isSuspect(seq: number): boolean {
    const place = this.places[seq - 1]!
    return isBegun(place) && place.unanswered >= 2
  }

  /** Events that may be delivered again, each the first of its key that waits, with none of it elsewhere. */
  due(now: number): ReadonlyArray<number> {
    return this.seqs((place, seq) => {
      if (place.at !== "waiting" || place.notBefore > now) return false
      const key = this.keys[seq - 1]
      if (!this.#setup.options.keyOrdered || key === undefined) return true
      return (
        this.ofKey(key, "inFlight", "dying").length === 0 &&
        this.ofKey(key, "waiting").every((other) => other >= seq)
      )
    })
  }

  #claim(request: Group.Claim): ReadonlyArray<Group.Delivery> {
    const { candidates, hasOthers, limit, member, mode, now, options, retriesFirst, window } = request
    const deliveries: Array<Group.Delivery> = []
    if (limit <= 0) return deliveries
    const retries = this.due(now).filter((seq) => {
      const place = this.places[seq - 1]!
      // What this member let lapse is for the others, where there are any.
      const isItsOwn = place.at === "waiting" && place.member === member
      return this.isSuspect(seq) === (mode === "alone") && !(hasOthers === true && isItsOwn)
    })
    const isFull = () => deliveries.length >= limit
    const deadline = now + options.ackTimeoutMs

    const give = (seq: number): void => {
      const place = this.places[seq - 1]!
      const begun = isBegun(place)
        ? place
        : { attempt: 0, unanswered: 0, since: now, reason: "", letter: undefined }
      const { letter, reason, since, unanswered } = begun
      const attempt = begun.attempt + 1
      this.places[seq - 1] = { at: "inFlight", member, attempt, unanswered, since, reason, letter, deadline }
      deliveries.push({ seq, attempt, redelivered: isBegun(place), deadline, letter })
    }
    const giveRetries = (most: number): void => {
      for (let n = 0; n < most && retries.length > 0 && !isFull(); n++) give(retries.shift()!)
    }

    if (mode === "alone") {
      giveRetries(1)
      return deliveries
    }
    giveRetries(retriesFirst)
    for (const seq of this.seqs((place) => place.at === "passed" && place.listed)) {
      const key = this.keys[seq - 1]
      const isFree = this.ofKey(key, "inFlight", "waiting", "dying").length === 0
      if (!isFull() && isFree && this.listed(key)[0] === seq) give(seq)
    }
    for (const { key, seq } of candidates) {
      if (seq !== this.next) break
      const isBlocked =
        options.keyOrdered &&
        key !== undefined &&
        (this.froms.has(key) || this.ofKey(key, "inFlight", "waiting", "dying", "passed").length > 0)
      if (isBlocked) {
        const listed = !this.froms.has(key) && this.listed(key).length < 64 && this.#hasRoomToList(window)
        if (!listed) this.froms.set(key, this.froms.get(key) ?? seq)
        this.places[seq - 1] = { at: "passed", listed }
      } else if (isFull() || this.tracked >= window) {
        break
      } else {
        give(seq)
      }
      this.next++
    }
    giveRetries(Infinity)
    return deliveries
  }

  // --- answers -----------------------------------------------------------------------------------------------

  #answer(answer: Group.Answer, then: (open: Open) => Place | "stale"): Group.Outcome {
    const { attempt, member, seq } = answer
    const place = this.places[seq - 1] ?? { at: "new" }
    if (place.at === "done") {
      // Whether it was passed over, only its key could tell.
      return [...this.froms.values()].some((from) => seq >= from) ? "stale" : "already"
    }
    if (place.at !== "inFlight" && place.at !== "waiting") return "stale"
    if (place.member === nobody) return "stale"
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

  #refuse(open: Open, { delayMs, mode, random, reason: said }: Group.Refusal, now: number): Place {
    const { attempt, letter, member, since, unanswered } = open
    const { maxAttempts } = this.#setup.options
    const gone = mode === "poison" || (mode === "fail" && attempt >= maxAttempts)
    if (gone && maxAttempts !== Infinity) {
      return { at: "dying", member, attempt, unanswered, since, reason: cut(said, 1_000), letter }
    }
    const reason = said === "" ? open.reason : cut(said, 200)
    const rest = { member: nobody, unanswered, since, reason, letter }
    if (mode === "release") {
      return { at: "waiting", ...rest, attempt: attempt - 1, notBefore: now + (delayMs ?? 0) }
    }
    const longest = Math.min(backoff.maxMs, backoff.baseMs * 2 ** (attempt - 1))
    return { at: "waiting", ...rest, attempt, notBefore: now + (delayMs ?? Math.floor(longest * random)) }
  }

  #lapse(lapsed: (open: Running) => boolean, reason: string, now: number): void {
    this.#each((place) => {
      if (place.at !== "inFlight" || !lapsed(place)) return place
      const { attempt, letter, member, since } = place
      const ended = { member, attempt, unanswered: place.unanswered + 1, since, reason, letter }
      return attempt >= this.#setup.options.maxAttempts
        ? { at: "dying", ...ended }
        : { at: "waiting", ...ended, notBefore: now }
    })
  }

  // --- the log -----------------------------------------------------------------------------------------------

  #trim(floor: number): void {
    if (floor <= this.floor) return
    this.next = Math.max(this.next, floor + 1)
    for (const [key, from] of this.froms) {
      if (this.unlisted(key).some((seq) => seq <= floor)) this.vague.add(key)
      this.froms.set(key, Math.max(from, floor + 1))
      if (floor + 1 >= this.next) this.#allListed(key)
    }
    this.#each((place, seq) => (seq <= floor && !isDone(place) ? { at: "done" } : place))
  }

  #seek(floor: number): void {
    this.next = floor + 1
    this.froms = new Map()
    this.vague = new Set()
    this.#each((place, seq) => {
      if (seq > floor) {
        // The log brings it: its letter is as dead as before.
        if (isBegun(place) && place.letter !== undefined) this.came.delete(place.letter)
        return { at: "new" }
      }
      if (!isBegun(place) || place.letter === undefined) return { at: "done" }
      if (place.at === "inFlight") return handedBack(place, place.since)
      return place.at === "waiting" ? { ...place, member: nobody } : place
    })
  }

  #list(found: Group.Listing, window: number): void {
    const { from, key, to } = found
    if (this.listed(key).length > 0 || this.froms.get(key) !== from) return
    const here = this.unlisted(key).filter((seq) => seq <= to)
    for (const seq of here) {
      const n = this.listed(key).length
      if (n > 0 && (n >= 64 || !this.#hasRoomToList(window))) {
        this.froms.set(key, seq)
        return
      }
      this.places[seq - 1] = { at: "passed", listed: true }
    }
    if (to + 1 >= this.next) this.#allListed(key)
    else {
      this.froms.set(key, to + 1)
      // That nothing is left is known when somebody looked.
      if (this.unlisted(key).length === 0) this.vague.add(key)
    }
  }

  #allListed(key: string): void {
    this.froms.delete(key)
    this.vague.delete(key)
  }

  // --- dead letters ------------------------------------------------------------------------------------------

  #plan(plan: Group.RedrivePlan): void {
    if (plan.next > plan.upTo) return
    const isWhole = JSON.stringify(plan.filter) === "{}"
    const others = this.plans.filter(
      (other) => !isWhole || !(other.next >= plan.next && other.upTo <= plan.upTo)
    )
    this.plans = [...others, plan]
  }

  #admit({ letters, plan, to }: Letters, now: number): void {
    const [first, ...rest] = this.plans
    if (first === undefined || JSON.stringify(first) !== JSON.stringify(plan)) return
    let next = to + 1
    for (const { letter, seq } of letters) {
      if (this.came.has(letter)) continue
      const { at } = this.places[seq - 1]!
      // It may be the letter of this very death, of which the group does not know yet.
      if (at === "dying") {
        next = letter
        break
      }
      if (at === "done") {
        if (this.redriven().length >= redriveWindow) {
          next = letter
          break
        }
        const fresh = { attempt: 0, unanswered: 0, since: now, reason: "", letter }
        this.places[seq - 1] = { at: "waiting", member: nobody, ...fresh, notBefore: now }
      }
      this.came.add(letter)
    }
    this.plans = next > first.upTo ? rest : [{ ...first, next }, ...rest]
  }

  #releaseKey(key: string, mode: "retry" | "dead-letter", now: number): number | undefined {
    const waiting = this.ofKey(key, "waiting")
    const [seq] = mode === "retry" ? waiting : [...this.ofKey(key, "inFlight"), ...waiting]
    const place = this.places[(seq ?? 0) - 1]
    if (seq === undefined || place === undefined) return undefined
    if (mode === "retry" && place.at === "waiting") {
      this.places[seq - 1] = { ...place, notBefore: now }
    } else if (isBegun(place)) {
      const { attempt, letter, member, since, unanswered } = place
      const said = ["given up by an operator", place.reason].filter((part) => part !== "").join("; ")
      const reason = cut(said, 1_000)
      this.places[seq - 1] = { at: "dying", member, attempt, unanswered, since, reason, letter }
    }
    return seq
  }
}

const handedBack = ({ attempt, letter, reason, since, unanswered }: Running, notBefore: number): Place => ({
  at: "waiting",
  member: nobody,
  attempt: attempt - 1,
  unanswered,
  since,
  reason,
  letter,
  notBefore
})

const begun = ({ attempt, letter, member, reason, since, unanswered }: Group.Entry) => ({
  member,
  attempt,
  unanswered,
  since,
  reason,
  letter
})

/** Where the real state says an event is. */
export const placeIn = (state: Group.GroupState, seq: number, key: Key): Place => {
  const running = state.inFlight.get(seq)
  if (running !== undefined) return { at: "inFlight", ...begun(running), deadline: running.deadline }
  const waiting = state.waiting.get(seq)
  if (waiting !== undefined) return { at: "waiting", ...begun(waiting), notBefore: waiting.notBefore }
  const dying = state.dying.get(seq)
  if (dying !== undefined) return { at: "dying", ...begun(dying) }
  if (seq >= state.next) return { at: "new" }
  const passed = key === undefined ? undefined : state.deferred.get(key)
  if (passed?.seqs.includes(seq)) return { at: "passed", listed: true }
  if (passed?.from !== undefined && seq >= passed.from) return { at: "passed", listed: false }
  return { at: "done" }
}
