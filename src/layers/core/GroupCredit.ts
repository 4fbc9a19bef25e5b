/**
 * Who of a group's members gets how much of a topic: their credit is divided before a round, what the round did not
 * use is given back, and what is answered or lapses is free again.
 *
 * Credit is shared by all topics of the group. A topic that finds none is starved, and is woken when some is free. An
 * event that has to be delivered alone has a member held for it, which gets nothing else until it is idle.
 */
import type { GroupState } from "../../domain/Group.ts"
import {
  freeCredit,
  type GroupMember,
  type Held,
  isCurrent,
  isIdle,
  isTaking,
  type SuspectHolder
} from "./groupMember.ts"
import type { Allotment, AnswerCommand } from "./groupRound.ts"

/** The most events that one round hands out. */
export const roundLimit = 512

/** What all topics of a group have in common where its credit is concerned. */
export interface CreditPool {
  isPaused: boolean
  readonly members: Set<GroupMember>
  /** Those with something to deliver and nobody to take it, the longest waiting first. */
  readonly starved: Set<SuspectHolder>
}

/** The one whose topic it is. */
export interface CreditUser extends SuspectHolder {
  readonly topic: string
  /** Another round is to follow the one under way. */
  readonly goOn: () => void
}

/** How much the members of these allotments can take of anything but suspects. */
export const wantedBy = (allotments: ReadonlyArray<Allotment>): number =>
  allotments.reduce((sum, { limit, mode }) => sum + (mode === "shared" ? limit : 0), 0)

/** Credit that these answers are going to free: what follows them can be in the same round. */
export const creditFreedBy = (
  topic: string,
  answers: ReadonlyArray<Pick<AnswerCommand, "answer" | "member">>
): ReadonlyMap<GroupMember, number> => {
  const freed = new Map<GroupMember, number>()
  const seen = new Set<Held>()
  for (const { answer, member } of answers) {
    if (answer._tag === "Extend") continue
    for (const id of answer.ids) {
      const delivery = member.held.get(topic)?.get(id)
      if (delivery === undefined || !delivery.isOpen || seen.has(delivery)) continue
      seen.add(delivery)
      freed.set(member, (freed.get(member) ?? 0) + 1)
    }
  }
  return freed
}

/** What a member takes of its free credit: no more than there is for `each`, and something is left for `others`. */
const shareOf = (free: number, each: number, others: number): number =>
  Math.min(each, Math.max(1, Math.ceil(free / (others + 1))), free)

const none: ReadonlyMap<GroupMember, number> = new Map()

export class GroupCredit {
  readonly #pool: CreditPool
  readonly #user: CreditUser
  readonly #isDraining: () => boolean
  #turn = 0
  /** A suspect was with the only member: others get their turn before the next one. */
  #hasHadSuspect = false

  constructor(pool: CreditPool, user: CreditUser, isDraining: () => boolean) {
    this.#pool = pool
    this.#user = user
    this.#isDraining = isDraining
  }

  /** Members of this topic that can take something. */
  takers(): ReadonlyArray<GroupMember> {
    if (this.#isDraining() || this.#pool.isPaused) return []
    return [...this.#pool.members].filter(
      (member) =>
        isTaking(member) &&
        (member.holdFor === undefined || member.holdFor === this.#user) &&
        member.matches(this.#user.topic)
    )
  }

  // --- before a round ----------------------------------------------------------------------------------------

  /** Divides what there is to deliver among the members that have credit, each time beginning with another. */
  allot(given: {
    /** About how many events could be delivered now, suspects not counted. */
    readonly work: number
    readonly hasSuspect: boolean
    readonly answers: ReadonlyArray<Pick<AnswerCommand, "answer" | "member">>
    readonly retries: { readonly takeDue: () => number }
  }): ReadonlyArray<Allotment> {
    const { hasSuspect, work } = given
    const takers = this.takers()
    const alone = this.#allotAlone(takers, work, hasSuspect)
    const allotments = alone === undefined ? [] : [alone]
    const { starved } = this.#pool
    // Where other topics wait for credit, they get what is freed.
    const isAsked = [...starved].some((user) => user !== this.#user)
    const freeing = isAsked ? none : creditFreedBy(this.#user.topic, given.answers)
    const creditOf = (member: GroupMember) => freeCredit(member) + (freeing.get(member) ?? 0)
    const shared = takers.filter((member) => member.holdFor === undefined && creditOf(member) > 0)
    if ((work > 0 || hasSuspect) && shared.length === 0) starved.add(this.#user)
    else starved.delete(this.#user)
    if (work === 0 || shared.length === 0) return allotments
    const others = starved.size
    const each = Math.ceil(Math.min(work, roundLimit) / shared.length)
    const first = this.#turn++ % shared.length
    for (let i = 0; i < shared.length; i++) {
      const member = shared[(first + i) % shared.length]!
      const limit = shareOf(creditOf(member), each, others)
      const toBeFreed = Math.max(0, limit - Math.max(0, freeCredit(member)))
      member.reserved += limit
      allotments.push({ member, limit, toBeFreed, mode: "shared", retriesFirst: given.retries.takeDue() })
    }
    return allotments
  }

  /** Sets a member aside for a suspect; nobody, when there is none or its turn has not come. */
  #allotAlone(takers: ReadonlyArray<GroupMember>, work: number, hasSuspect: boolean): Allotment | undefined {
    const [only] = takers
    if (!hasSuspect) {
      for (const member of takers) if (member.holdFor === this.#user && isIdle(member)) this.letGo(member)
      return undefined
    }
    if (this.#hasHadSuspect && work > 0 && takers.length === 1 && isIdle(only!)) {
      // One that hangs its handler, again and again, would leave nothing of the only member to the others.
      this.#hasHadSuspect = false
      only!.holdFor = undefined
      this.#user.goOn()
      return undefined
    }
    const member = this.#aloneMember(takers)
    if (member === undefined) return undefined
    // All of its credit, so that nothing joins the suspect.
    member.reserved += member.credit
    this.#hasHadSuspect = true
    return { member, limit: member.credit, toBeFreed: 0, mode: "alone", retriesFirst: 1 }
  }

  /** Who gets the suspect: somebody idle, else whoever is nearest to it gets nothing more until then. */
  #aloneMember(takers: ReadonlyArray<GroupMember>): GroupMember | undefined {
    const holding = takers.find((member) => member.holdFor === this.#user)
    if (holding !== undefined) return isIdle(holding) ? holding : undefined
    const [nearest] = takers
      .filter((member) => member.holdFor === undefined)
      .sort((a, b) => a.inFlight + a.reserved - (b.inFlight + b.reserved))
    if (nearest === undefined) return undefined
    nearest.holdFor = this.#user
    return isIdle(nearest) ? nearest : undefined
  }

  // --- after it ----------------------------------------------------------------------------------------------

  /** A round is over: the credit that it did not use can be used by others. */
  giveBack(allotments: ReadonlyArray<Allotment>): void {
    for (const { limit, member } of allotments) {
      member.reserved -= limit
      const { holdFor } = member
      if (holdFor !== undefined && holdFor !== this.#user && isIdle(member)) holdFor.wake()
    }
    if (allotments.length > 0) this.#wakeStarved()
  }

  /** A delivery is over. True: credit is free again. */
  release(member: GroupMember, id: string): boolean {
    const held = member.held.get(this.#user.topic)
    const delivery = held?.get(id)
    if (delivery === undefined) return false
    held!.delete(id)
    return delivery.isOpen && this.#free(member)
  }

  /** Deliveries that lapsed cost no credit any more; they can be answered until somebody else has them. */
  reconcile(state: GroupState): void {
    let freed = false
    for (const member of this.#pool.members) {
      const held = member.held.get(this.#user.topic)
      if (held === undefined) continue
      for (const [id, delivery] of held) {
        if (isCurrent(state, member, delivery)) continue
        if (delivery.isOpen) {
          delivery.isOpen = false
          freed = this.#free(member)
        }
        if (state.waiting.get(delivery.seq)?.member !== member.id) held.delete(id)
      }
    }
    if (freed) this.wakeOthers()
  }

  /** The suspect that it was held for is not there any more. */
  letGo(member: GroupMember): void {
    member.holdFor = undefined
    this.wakeOthers()
  }

  /** Credit is free, or a member is: topics of the group that had none go on, and this one behind them. */
  wakeOthers(): void {
    this.#wakeStarved()
    this.#user.goOn()
  }

  #free(member: GroupMember): true {
    member.inFlight--
    if (member.holdFor !== undefined && member.inFlight === 0) {
      // It is idle now: the suspect it is held for can be delivered, or was, and nothing holds it any more.
      const holder = member.holdFor
      if (!holder.hasSuspectDue) member.holdFor = undefined
      holder.wake()
    }
    return true
  }

  /** As many as there is credit for: who is woken sets its part aside at once. */
  #wakeStarved(): void {
    for (const user of [...this.#pool.starved]) {
      if (user === this.#user) continue
      const isFree = (member: GroupMember) =>
        isTaking(member) && member.holdFor === undefined && freeCredit(member) > 0
      if (![...this.#pool.members].some(isFree)) return
      user.wake()
    }
  }
}
