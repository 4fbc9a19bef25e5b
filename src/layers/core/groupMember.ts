/** The members of a group that are connected here: their credit, and what each of them has in hand. */
import type * as Group from "../../domain/Group.ts"
import type { EndReason } from "../../protocol/Messages.ts"
import type { MemberSink } from "../../services/GroupDelivery.ts"

/** A delivery that a member has not answered, or that lapsed and may still be answered. */
export interface Held {
  readonly seq: number
  readonly attempt: number
  readonly generation: string
  /** By this hub's clock. */
  readonly sentAt: number
  /** It counts against the member's credit. */
  isOpen: boolean
}

/** Who keeps a member free for an event that has to be delivered alone. */
export interface SuspectHolder {
  /** Such an event is due. */
  readonly hasSuspectDue: boolean
  readonly wake: () => void
}

export interface GroupMember {
  readonly id: string
  readonly credit: number
  readonly sink: MemberSink
  readonly matches: (topic: string) => boolean
  /** It takes nothing before it is started, and nothing while it is paused. */
  isStarted: boolean
  isPaused: boolean
  isClosed: boolean
  /** Deliveries that count against the credit, over all topics. */
  inFlight: number
  /** Credit that rounds under way may use. */
  reserved: number
  /** It gets nothing else, until it is idle and has had its suspect. */
  holdFor: SuspectHolder | undefined
  /** By topic and event id. */
  readonly held: Map<string, Map<string, Held>>
}

/** It has nothing, and nothing is on its way to it. */
export const isIdle = (member: GroupMember): boolean => member.inFlight === 0 && member.reserved === 0

export const freeCredit = (member: GroupMember): number => member.credit - member.inFlight - member.reserved

/** It can be given something, of one topic or another. */
export const isTaking = (member: GroupMember): boolean =>
  member.isStarted && !member.isPaused && !member.isClosed

/** Whether the delivery is still the member's to answer, with its deadline ahead. */
export const isCurrent = (state: Group.GroupState, member: GroupMember, delivery: Held): boolean => {
  const running = state.inFlight.get(delivery.seq)
  return (
    delivery.generation === state.generation &&
    running?.member === member.id &&
    running.attempt === delivery.attempt
  )
}

/** The membership is over, for a reason that is not the member's own. */
export const endMember = (member: GroupMember, reason: EndReason): void => {
  if (member.isClosed) return
  member.isClosed = true
  member.sink.end(reason)
}
