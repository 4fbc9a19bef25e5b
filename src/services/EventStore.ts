/**
 * The durable event log: per topic a dense sequence of events, 1, 2, 3, ….
 *
 * It is a thin store: events come and go encoded (`EventRecord`). What programs use is EventBus, which
 * encodes, makes ids and retries. A backend promises what stands at the methods; `testing/eventStore` checks it.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { EventLines, EventRecord, Position, StoredRecord } from "../domain/Event.ts"
import type { Pattern } from "../domain/Topic.ts"
import type { Page } from "./Page.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export interface Appended {
  readonly _tag: "Appended"
  readonly topic: string
  readonly id: string
  readonly seq: number
  readonly storedAt: number
  /** The log held the id before; `seq` and `storedAt` are those of the first time. */
  readonly duplicate: boolean
}

/** This event is not in the log. Those of other topics in the batch are not concerned. */
export interface NotAppended {
  readonly _tag: "NotAppended"
  readonly topic: string
  readonly id: string
  /**
   * `too_large`: the backend cannot hold a record of this size.
   * `behind_refused`: an event of its topic that stood before it in the batch was not appended.
   * `unavailable`: this part of the store did not answer; append it again.
   */
  readonly reason: "too_large" | "behind_refused" | "unavailable"
}

export type AppendResult = Appended | NotAppended

/** An event that was in a log before, and comes back into one. */
export interface ReturningRecord extends EventRecord {
  /**
   * When it was stored the first time. It is stored at this time again, unless the event before it in its topic is
   * younger, or the store's own clock is not there yet; none: it is stored now.
   */
  readonly firstStoredAt?: number
}

export interface TopicInfo {
  readonly topic: string
  /** The last seq; at least 1, since a topic exists from its first event on. */
  readonly head: number
  /** The last seq that was trimmed; 0 when none was. What can be read begins behind it. */
  readonly floor: number
  /** When the event at the head was stored. */
  readonly storedAt: number
}

/** What a topic is filled with. */
export interface Restoration {
  readonly topic: string
  readonly firstSeq: number
  readonly events: ReadonlyArray<EventRecord & { readonly storedAt: number }>
}

export interface Growth {
  readonly topic: string
  readonly head: number
}

/** `restore` fills topics that do not exist, and no others: it would have to renumber what is there. */
export class TopicExists extends Schema.TaggedError<TopicExists>()("TopicExists", {
  topic: Schema.String
}) {
  override get message() {
    return `topic '${this.topic}' exists; only an absent topic can be restored`
  }
}

export class EventStore extends Context.Service<
  EventStore,
  {
    /**
     * The id of this life of the store. A store that was wiped or replaced has another one, and positions of
     * one mean nothing in the other.
     */
    readonly history: Effect.Effect<string, StoreUnavailable>

    /**
     * Appends events of any topics, and answers in their order. What is answered is durable.
     *
     * Per topic only a prefix of the batch is stored: nothing is stored behind an event of the same topic
     * that was refused. Topics are independent. Idempotent by (topic, id) as long as the event is retained:
     * the same id again, in the same batch or later, answers the first result as a duplicate.
     * May be called at the same time by many; interruption leaves each topic with a prefix.
     */
    readonly append: (
      batch: ReadonlyArray<ReturningRecord>
    ) => Effect.Effect<ReadonlyArray<AppendResult>, StoreUnavailable>

    /**
     * Events with `seq > after` in their order, at most `limit` and about `maxBytes`, but one at least when
     * there is one. Dense: the first is `after + 1`, or what follows the floor when that was trimmed; an event
     * is never passed over because it is about to be written.
     */
    readonly read: (range: {
      readonly topic: string
      readonly after: Position
      readonly limit: number
      readonly maxBytes?: number
    }) => Effect.Effect<ReadonlyArray<StoredRecord>, StoreUnavailable>

    /**
     * What `read` answers, as lines of JSON (`Event.toJson`): for whoever passes it on and looks at none of it. Nothing
     * when there is no such event. The bytes are the caller's own.
     */
    readonly readLines: (range: {
      readonly topic: string
      readonly after: Position
      readonly limit: number
      readonly maxBytes: number
    }) => Effect.Effect<EventLines | undefined, StoreUnavailable>

    /** The position before the first event stored at or after a time; the head when there is none. */
    readonly readTime: (at: {
      readonly topic: string
      readonly time: number
    }) => Effect.Effect<Position, StoreUnavailable>

    /** What is known of a topic; nothing before its first event. Costs the same at any number of events. */
    readonly head: (topic: string) => Effect.Effect<TopicInfo | undefined, StoreUnavailable>

    /** Topics that a pattern matches, in the order of their names. Own topics only for patterns that name them. */
    readonly topics: (page: {
      readonly pattern: Pattern
      readonly after?: string
      readonly limit: number
    }) => Effect.Effect<Page<TopicInfo>, StoreUnavailable>

    /** The seqs of those ids that the topic holds. */
    readonly find: (ids: {
      readonly topic: string
      readonly ids: ReadonlyArray<string>
    }) => Effect.Effect<ReadonlyMap<string, number>, StoreUnavailable>

    /**
     * The last event of each of these keys; keys without one, or whose last payload was `null`, are missing.
     * It survives trimming.
     */
    readonly latestOf: (keys: {
      readonly topic: string
      readonly keys: ReadonlyArray<string>
    }) => Effect.Effect<ReadonlyMap<string, StoredRecord>, StoreUnavailable>

    /** The last event of every key, in the order of the keys. It survives trimming. */
    readonly latestByKey: (page: {
      readonly topic: string
      readonly after?: string
      readonly limit: number
    }) => Effect.Effect<Page<StoredRecord>, StoreUnavailable>

    /**
     * Forgets events with `seq ≤ upTo`, and answers the new floor. The last event always stays, and so does
     * what is younger than the retention's least age. The floor is durable before anything is deleted.
     * Calling it again is harmless.
     */
    readonly trim: (to: {
      readonly topic: string
      readonly upTo: number
    }) => Effect.Effect<number, StoreUnavailable>

    /**
     * Fills an absent topic, with the seqs from `firstSeq` on and the times given, as far as they do not decrease
     * and the store's own clock is there already. All or nothing. What follows is appended (`firstStoredAt`).
     */
    readonly restore: (topic: Restoration) => Effect.Effect<void, TopicExists | StoreUnavailable>

    /**
     * Puts down the last events of keys that were trimmed, in a topic that exists: those with `seq ≤ floor` whose
     * key has no later event here. Others change nothing. Calling it again is harmless.
     */
    readonly restoreLatest: (latest: {
      readonly topic: string
      readonly records: ReadonlyArray<StoredRecord>
    }) => Effect.Effect<void, StoreUnavailable>

    /**
     * Topics that others appended to, another hub above all, and how far they grew. What goes through this
     * service's own `append` is not among them. A hint and never the truth: it may repeat, come late, or
     * miss; whoever follows it looks into the log at times on its own.
     */
    readonly changes: Stream.Stream<ReadonlyArray<Growth>>
  }
>()("event-hub/services/EventStore") {}
