/**
 * What people ask about topics and groups: how far, how far behind, and what is the value now.
 *
 * Everything is computed from what is stored, by look-ups that cost the same at any number of events.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Event } from "../domain/Event.ts"
import type { Lag } from "../domain/Lag.ts"
import type { Page } from "./Page.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export class TopicNotFound extends Schema.TaggedError<TopicNotFound>()("TopicNotFound", {
  topic: Schema.String
}) {
  override get message() {
    return `there is no topic '${this.topic}'`
  }
}

/** The group exists not at all, or takes nothing of this topic. */
export class GroupNotOnTopic extends Schema.TaggedError<GroupNotOnTopic>()("GroupNotOnTopic", {
  topic: Schema.String,
  group: Schema.String
}) {
  override get message() {
    return `there is no group '${this.group}' on topic '${this.topic}'`
  }
}

/** How far one group is in a topic. */
export interface Cursor {
  readonly group: string
  /** Everything up to here is acknowledged. */
  readonly seq: number
  /** The event at `seq`; `null` when there is none, or it was trimmed. */
  readonly lastId: string | null
  readonly lastTs: number | null
  readonly pending: number
  readonly inFlight: number
}

export interface LatestPage {
  readonly items: ReadonlyArray<Event>
  /**
   * The topic's last seq before the first page was read. A live subscription from here on, and the pages, hold
   * every change of every key.
   */
  readonly seq: number
  /** The life of the store that `seq` belongs to. */
  readonly history: string
  readonly next: string | undefined
}

export class Inspector extends Context.Service<
  Inspector,
  {
    /** Groups that take the topic, in the order of their names. */
    readonly cursors: (page: {
      readonly topic: string
      readonly after?: string
      readonly limit: number
    }) => Effect.Effect<Page<Cursor>, TopicNotFound | StoreUnavailable>
    readonly lag: (of: {
      readonly topic: string
      readonly group: string
    }) => Effect.Effect<Lag, TopicNotFound | GroupNotOnTopic | StoreUnavailable>
    /** The last event of each key; keys without one are missing. */
    readonly latestOf: (of: {
      readonly topic: string
      readonly keys: ReadonlyArray<string>
    }) => Effect.Effect<ReadonlyMap<string, Event>, TopicNotFound | StoreUnavailable>
    readonly latestByKey: (page: {
      readonly topic: string
      readonly after?: string
      readonly limit: number
    }) => Effect.Effect<LatestPage, TopicNotFound | StoreUnavailable>
  }
>()("event-hub/services/Inspector") {}
