/**
 * Durable consumer groups: who is registered for what, and one state per group and topic.
 *
 * `modify` is all the delivery logic asks of a backend; the logic itself is written once, in domain/Group.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { GroupConflict, GroupOptions, GroupState, Registration } from "../domain/Group.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** Nobody registered the group, or it was removed. */
export class GroupNotFound extends Schema.TaggedError<GroupNotFound>()("GroupNotFound", {
  group: Schema.String
}) {
  override get message() {
    return `there is no group '${this.group}'`
  }
}

/** What changed; no topic: who is registered, or paused, or that it is gone. */
export interface GroupChange {
  readonly group: string
  readonly topic: string | undefined
}

export interface GroupCursor {
  readonly group: string
  readonly topic: string
  readonly state: GroupState
}

export class GroupStore extends Context.Service<
  GroupStore,
  {
    /**
     * Whether only this hub uses the store. Members that a hub of an earlier life left behind are then known
     * to be gone, and their events are free at once.
     */
    readonly exclusive: boolean

    /**
     * Makes a pattern part of a group, for good. Atomic: with the registration stands a state at the given
     * position for every topic in `positions`, where the group has none yet; other topics begin before their
     * first event. A registration that exists is answered as it is, and no position changes.
     *
     * All patterns of one group have the same options: the first registration fixes them, and asking for
     * others is a conflict. What is not asked for has the registered value, or `defaults` the first time.
     * Somebody is there to use the group: it was last used now, with all its patterns. A group that is paused
     * stays so, and its new pattern is paused, too.
     */
    readonly register: (registration: {
      readonly group: string
      readonly pattern: string
      readonly wanted: Partial<GroupOptions>
      readonly defaults: GroupOptions
      readonly history: string
      readonly generation: string
      readonly positions: ReadonlyMap<string, number>
    }) => Effect.Effect<Registration, GroupConflict | StoreUnavailable>

    /** Every registration, in the order of group and pattern. */
    readonly list: Effect.Effect<ReadonlyArray<Registration>, StoreUnavailable>

    /** Pauses a group with all its patterns, or lets it go on; durable. False when there is no such group. */
    readonly setPaused: (group: string, paused: boolean) => Effect.Effect<boolean, StoreUnavailable>

    /**
     * These groups are used now, by the store's clock; those that do not exist are ignored. A constant number
     * of round trips for any number of groups.
     */
    readonly touch: (groups: ReadonlyArray<string>) => Effect.Effect<void, StoreUnavailable>

    /**
     * Forgets a group with all its patterns and states; false when there was none. With a condition it is
     * forgotten only if it was last used before `unusedSince`: atomic, so that nobody who joins meanwhile
     * loses it.
     */
    readonly remove: (
      group: string,
      condition?: { readonly unusedSince: number }
    ) => Effect.Effect<boolean, StoreUnavailable>

    /**
     * Atomic read-modify-write of one state. `f` gets the state, or nothing when the group has not met the
     * topic, and the store's time, read with it; it must be pure, since it runs again when somebody else was
     * faster. Answering the state it was given writes nothing. When `modify` succeeds, the change is durable.
     */
    readonly modify: <A>(
      at: { readonly group: string; readonly topic: string },
      f: (state: GroupState | undefined, now: number) => readonly [answer: A, state: GroupState]
    ) => Effect.Effect<A, GroupNotFound | StoreUnavailable>

    /** The state as it is. Costs the same at any number of events. */
    readonly read: (at: {
      readonly group: string
      readonly topic: string
    }) => Effect.Effect<GroupState | undefined, StoreUnavailable>

    /** The states of all groups on a topic, in the order of the groups. */
    readonly cursors: (topic: string) => Effect.Effect<ReadonlyArray<GroupCursor>, StoreUnavailable>

    /** The states of one group, in the order of the topics: all of them, or so many behind a topic. */
    readonly topicsOf: (
      group: string,
      page?: { readonly after?: string; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<GroupCursor>, StoreUnavailable>

    /**
     * What another hub has changed: a group's state on a topic, or the group itself. A hint and never the truth: it may
     * repeat, come late, or miss. An exclusive store has none.
     */
    readonly changes: Stream.Stream<ReadonlyArray<GroupChange>>
  }
>()("event-hub/services/GroupStore") {}
