/**
 * What an operator does with consumer groups: look at them, move them, stop them, free what is stuck, and bring
 * back what was given up.
 *
 * A change is durable when it is answered, and members on this hub go on by it at once. Those of other hubs notice
 * with the next thing they do for the group. Every change may be repeated after `StoreUnavailable` without harm.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Death } from "../domain/DeadLetter.ts"
import type { Event } from "../domain/Event.ts"
import type { GroupOptions, RedriveFilter } from "../domain/Group.ts"
import type { RedriveRefused } from "../domain/GroupRedrive.ts"
import type { BlockedKey } from "../domain/GroupView.ts"
import type { InvalidFilter, LetterStatus } from "../domain/Letters.ts"
import type { Pattern } from "../domain/Topic.ts"
import type { GroupNotFound } from "./GroupStore.ts"
import type { GroupNotOnTopic, TopicNotFound } from "./Inspector.ts"
import type { Page } from "./Page.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export interface GroupInfo {
  readonly group: string
  /** In the order of their names. */
  readonly patterns: ReadonlyArray<string>
  readonly options: GroupOptions
  /** When the first pattern was registered. */
  readonly registeredAt: number
  /** When a member was last known to be there. */
  readonly lastUsedAt: number
  readonly paused: boolean
  /** Its positions belong to this life of the store. A group of another one has to be removed to begin anew. */
  readonly sameHistory: boolean
  /** Nobody has used it for longer than the hub is told to wait. */
  readonly unused: boolean
  /** It has members on this hub. */
  readonly active: boolean
}

/** How far a group is in one of its topics. */
export interface GroupPosition {
  readonly topic: string
  /** Everything up to here is acknowledged. */
  readonly seq: number
  readonly head: number
  readonly pending: number
  readonly inFlight: number
}

/**
 * Where a group goes on. `seq`: behind that event. `time`: at the first event stored then or later. `start`: at the
 * first event that can be read. `end`: at the next one that comes.
 */
export type SeekTarget = { readonly seq: number } | { readonly time: number } | "start" | "end"

/** What going on from another position means, in one topic. */
export interface Sought {
  readonly topic: string
  /** The floor before, and after. */
  readonly from: number
  readonly to: number
  /** Acknowledged events that come again. */
  readonly again: number
  /** Events that are not acknowledged, and will not come. */
  readonly skipped: number
}

/** Where the group is asked to go on is no place for that. */
export class InvalidSeek extends Schema.TaggedError<InvalidSeek>()("InvalidSeek", {
  reason: Schema.String
}) {
  override get message() {
    return `the group cannot go on there: ${this.reason}`
  }
}

/** The group's positions belong to another life of the store, and none of this one takes their place. */
export class ForeignHistory extends Schema.TaggedError<ForeignHistory>()("ForeignHistory", {
  group: Schema.String
}) {
  override get message() {
    return `group '${this.group}' was registered in another history of the store; remove it to begin anew`
  }
}

/** The group goes on faster than it can be counted what a seek would mean. */
export class GroupBusy extends Schema.TaggedError<GroupBusy>()("GroupBusy", {
  group: Schema.String,
  topic: Schema.String
}) {
  override get message() {
    return `group '${this.group}' goes on while it is counted what a seek on '${this.topic}' means; pause it first`
  }
}

/** Nothing can be done about this key now. */
export class KeyNotBlocked extends Schema.TaggedError<KeyNotBlocked>()("KeyNotBlocked", {
  group: Schema.String,
  topic: Schema.String,
  key: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `key '${this.key}' of group '${this.group}' on '${this.topic}' is not released: ${this.reason}`
  }
}

export interface BlockedKeyInfo extends BlockedKey {
  /** How long ago the group first took the event that blocks. */
  readonly ageMs: number
}

/** The place of a blocked key among the others: since when, and by which event, which no other key has. */
export type BlockedPlace = Pick<BlockedKey, "since" | "seq">

export interface BlockedKeys {
  /** All of them, also those that are not listed. */
  readonly total: number
  /** The longest blocked first. */
  readonly keys: ReadonlyArray<BlockedKeyInfo>
  /** Give it as `after` to get the next ones; none: these were the last. */
  readonly next: BlockedPlace | undefined
}

/** What goes with a group, as it stood just before. */
export interface Forgotten {
  /** Topics on which it had a position. */
  readonly positions: number
  /** Events with its members, and events that were to be retried. They can come to another group, and to none of this name. */
  readonly inFlight: number
  readonly waiting: number
}

/** One topic of one group. */
export interface At {
  readonly group: string
  readonly topic: string
}

export interface DeadLetterInfo {
  /** Its position in the topic of dead letters, by which it is asked back. */
  readonly letter: number
  readonly status: LetterStatus
  /** When it was given up. */
  readonly diedAt: number
  /** Where it comes from, and why it is here. */
  readonly death: Death
  /** The letter itself: payload, key, type and headers are the original's. */
  readonly event: Event
}

export interface Redriven {
  /** Dead letters that match and had not been asked back yet. */
  readonly matched: number
}

export class GroupAdmin extends Context.Service<
  GroupAdmin,
  {
    /** Groups in the order of their names. */
    readonly list: (page: {
      readonly after?: string
      readonly limit: number
    }) => Effect.Effect<Page<GroupInfo>, StoreUnavailable>

    readonly get: (group: string) => Effect.Effect<GroupInfo, GroupNotFound | StoreUnavailable>

    /**
     * Topics that there are and that the group takes, in the order of their names, and how far it is in each. In
     * one that it has not met it stands at 0.
     */
    readonly positions: (page: {
      readonly group: string
      readonly after?: string
      readonly limit: number
    }) => Effect.Effect<Page<GroupPosition>, GroupNotFound | StoreUnavailable>

    /**
     * Lets a group go on from another position in a topic, in those that a pattern matches, or in all that it takes
     * and that there are. A position before what can be read is the first that can be.
     *
     * Atomic per topic: what is answered is what this change meant for the state that it changed. What was in flight
     * is forgotten, and acknowledgements of it change nothing. A dry run says the same figures and changes nothing.
     * When it fails, topics before the one that failed, in the order of their names, are changed.
     */
    readonly seek: (request: {
      readonly group: string
      readonly topic?: Pattern
      readonly to: SeekTarget
      readonly dryRun?: boolean
    }) => Effect.Effect<
      ReadonlyArray<Sought>,
      | GroupNotFound
      | GroupNotOnTopic
      | TopicNotFound
      | InvalidSeek
      | ForeignHistory
      | GroupBusy
      | StoreUnavailable
    >

    /** Nothing is delivered to the group's members from here on; what they have can be answered. */
    readonly pause: (group: string) => Effect.Effect<void, GroupNotFound | StoreUnavailable>
    readonly resume: (group: string) => Effect.Effect<void, GroupNotFound | StoreUnavailable>

    /**
     * Forgets the group and all its positions. Its members are told, and its dead letters stay. A dry run says what
     * would be forgotten.
     */
    readonly remove: (
      group: string,
      options?: { readonly dryRun?: boolean }
    ) => Effect.Effect<Forgotten, GroupNotFound | StoreUnavailable>

    /** Keys whose events wait for one that failed; none in groups that are not `keyOrdered`. */
    readonly blockedKeys: (
      request: At & { readonly after?: BlockedPlace; readonly limit: number }
    ) => Effect.Effect<BlockedKeys, GroupNotFound | GroupNotOnTopic | TopicNotFound | StoreUnavailable>

    /**
     * Frees a blocked key, and answers which event it was about. `retry`: that event comes again at once.
     * `dead-letter`: it is given up, whoever has it, and the others of its key go on. A dry run answers, or refuses,
     * the same, and changes nothing.
     */
    readonly releaseKey: (
      request: At & {
        readonly key: string
        readonly mode: "retry" | "dead-letter"
        readonly dryRun?: boolean
      }
    ) => Effect.Effect<
      number,
      GroupNotFound | GroupNotOnTopic | TopicNotFound | KeyNotBlocked | StoreUnavailable
    >

    /**
     * Dead letters of a group on a topic, in the order of their positions. `after` is such a position. A page may
     * hold fewer than asked for and not be the last: how much is read for one has a bound. Letters of a group that
     * was removed can be read as long as they are kept.
     */
    readonly deadLetters: (
      page: At & {
        readonly filter?: RedriveFilter
        readonly after?: number
        readonly limit: number
      }
    ) => Effect.Effect<
      { readonly items: ReadonlyArray<DeadLetterInfo>; readonly next: number | undefined },
      GroupNotFound | GroupNotOnTopic | TopicNotFound | InvalidFilter | StoreUnavailable
    >

    /**
     * Lets dead letters come back into their group: those that stand there now, match, and did not come back yet.
     * They come a bounded number at a time, as members get them done. A dry run only counts.
     */
    readonly redrive: (
      request: At & { readonly filter?: RedriveFilter; readonly dryRun?: boolean }
    ) => Effect.Effect<
      Redriven,
      GroupNotFound | GroupNotOnTopic | TopicNotFound | InvalidFilter | RedriveRefused | StoreUnavailable
    >
  }
>()("event-hub/services/GroupAdmin") {}
