/**
 * What a group on a topic knows of its retries: how many are due, how many of these may go out beside fresh events,
 * and when the next come; and whether one waits that has to be delivered alone.
 *
 * Thousands may wait, and most rounds change none of them: what was found out is kept until it can be different.
 */
import * as Group from "../../domain/Group.ts"
import { roundLimit } from "./GroupCredit.ts"
import type { Round } from "./groupRound.ts"
import { RetryPace } from "./RetryPace.ts"

/** The part of what is handed out that retries have for sure, beside fresh events without end. */
const retryShare = 0.05

export class GroupRetries {
  readonly #keyOrdered: boolean
  readonly #pace = new RetryPace(retryShare)
  /** Retries that are to come before anything else: a part of one for each event that is handed out. */
  #due = 0
  /** When those that are due and had to share come. */
  #at = Infinity
  #known:
    | (ReturnType<typeof Group.outlook> & {
        readonly now: number
        readonly waiting: Group.GroupState["waiting"]
      })
    | undefined
  #mayHaveSuspects = true

  constructor(keyOrdered: boolean) {
    this.#keyOrdered = keyOrdered
  }

  /** How many may go out, however many are due. */
  left(now: number): number {
    return this.#pace.left(now)
  }

  /** How many are due and may go out. */
  ready(state: Group.GroupState, now: number): number {
    const allowed = this.#pace.left(now)
    const { due } = this.#outlook(state, now, allowed)
    this.#at = due > allowed ? this.#pace.nextAt(now) : Infinity
    return Math.min(due, allowed)
  }

  /** How many are to come before anything else, each once. */
  takeDue(): number {
    const taken = Math.floor(this.#due)
    this.#due -= taken
    return taken
  }

  /** What went out in a round. */
  took(round: Pick<Round, "fresh" | "retries">, delivered: number): void {
    this.#pace.took(round)
    this.#due = Math.min(roundLimit, this.#due + delivered * retryShare)
  }

  /** When the next come that were not due when the round `began`, or had to share; `Infinity` for never. */
  nextAt(state: Group.GroupState, began: number): number {
    return this.#at === Infinity ? this.#outlook(state, began - 1, Infinity).next : this.#at
  }

  /** An event is due that has to be delivered alone. */
  hasSuspect(state: Group.GroupState, now: number): boolean {
    if (this.#mayHaveSuspects) this.#mayHaveSuspects = Group.hasSuspects(state)
    return this.#mayHaveSuspects && Group.suspectDue(state, now, this.#keyOrdered)
  }

  /** Deliveries came to nothing, or the state is another: there may be suspects that there were not. */
  mayHaveSuspects(): void {
    this.#mayHaveSuspects = true
  }

  /** What is known of the retries; looked up again when other ones wait, or the next is due. */
  #outlook(
    state: Group.GroupState,
    now: number,
    enough: number
  ): { readonly due: number; readonly next: number } {
    const known = this.#known
    if (known?.waiting === state.waiting && now >= known.now && now < known.next) return known
    const found = Group.outlook(state, now, enough)
    this.#known = { ...found, now, waiting: state.waiting }
    return found
  }
}
