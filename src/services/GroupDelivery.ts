/**
 * Consumer groups at work: members join, get events, and answer for them.
 *
 * Each event of a group's topics goes to one member at a time until it is acknowledged. An acknowledgement
 * that was answered is durable: the event never comes again, unless somebody seeks or redrives.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StoredRecord } from "../domain/Event.ts"
import type { GroupConflict, GroupOptions, Outcome } from "../domain/Group.ts"
import type { Pattern } from "../domain/Topic.ts"
import type { EndReason, From, NackMode } from "../protocol/Messages.ts"
import type { UnrecoverablePosition } from "./LiveFeed.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export interface GroupEvent {
  readonly record: StoredRecord
  readonly attempt: number
  readonly redelivered: boolean
  readonly deadline: number
}

/** What a member does with what comes. Called without a fiber; it must not throw and must not block. */
export interface MemberSink {
  readonly deliver: (events: ReadonlyArray<GroupEvent>) => void
  /** Events that were trimmed before the group took them. */
  readonly gap: (gap: { readonly topic: string; readonly from: number; readonly to: number }) => void
  /** The membership is over. */
  readonly end: (reason: EndReason) => void
}

/** What a member says about deliveries of one topic, by the ids of their events. */
export type Answer = {
  readonly topic: string
  readonly ids: ReadonlyArray<string>
  /** Which delivery is meant; none: the member's current one. */
  readonly attempt?: number | undefined
} & (
  | { readonly _tag: "Ack" }
  | {
      readonly _tag: "Nack"
      readonly mode: NackMode
      readonly reason: string
      readonly delayMs?: number | undefined
    }
  | { readonly _tag: "Extend"; readonly byMs?: number | undefined }
)

export interface Member {
  /** Nothing comes before this is called. */
  readonly start: () => void
  /**
   * Hands an answer over. `done` is called with the outcomes, in the order of the ids, when they are durable.
   * Plain, since there is one for every event.
   */
  readonly answer: (
    answer: Answer,
    done: (outcomes: ReadonlyArray<Outcome> | StoreUnavailable) => void
  ) => void
  /** Whether the member has this event, or had it last. */
  readonly holds: (topic: string, id: string) => boolean
  /** The member takes nothing new, however much credit it has, until it says otherwise. */
  readonly setPaused: (paused: boolean) => void
  /**
   * Says goodbye: nothing comes any more, answers given before are durable when this ends, and the rest goes
   * back without counting as an attempt.
   */
  readonly leave: Effect.Effect<void, StoreUnavailable>
}

export interface Membership {
  readonly pattern: Pattern
  readonly group: string
  /** Options that must agree with the registered ones; what is not given has the registered value. */
  readonly wanted: Partial<GroupOptions>
  /** Where a new group begins. Means nothing when the group is registered. */
  readonly from: From
  readonly history: string | undefined
  /** Unacknowledged events at once, over all topics of this membership. */
  readonly credit: number
  readonly sink: MemberSink
}

export class GroupDelivery extends Context.Service<
  GroupDelivery,
  {
    /**
     * Registers the group when it is new, and joins it until the scope closes. Closing without `leave` frees
     * the member's events at once, and their attempts count.
     */
    readonly join: (
      membership: Membership
    ) => Effect.Effect<Member, GroupConflict | UnrecoverablePosition | StoreUnavailable, Scope.Scope>

    /** Members get nothing new from here on; their answers are taken. For a hub that stops. */
    readonly drain: Effect.Effect<void>

    /**
     * Something about the group was changed beside its members: it was paused, resumed, removed, or goes on from
     * another position. Members that are here are told, and go on at once; for a group without any it does nothing.
     */
    readonly refresh: (group: string) => Effect.Effect<void, StoreUnavailable>

    /** Groups that have members here. */
    readonly activeGroups: () => ReadonlyArray<string>

    /** How many members a group has here. */
    readonly members: (group: string) => number

    /** Deliveries of this hub's members that are not answered yet. */
    readonly inFlight: () => number
  }
>()("event-hub/services/GroupDelivery") {}
