/**
 * The one way into the log of this hub: takes events from all publishers and commits them in groups.
 *
 * What waits while a commit is under way makes up the next one. A lone publisher therefore waits for nothing,
 * and a crowd shares the cost of making its events durable.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { EventRecord, StoredRecord } from "../domain/Event.ts"
import type { AppendResult, Growth, Restoration, ReturningRecord, TopicExists } from "./EventStore.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** Too many events wait for the store. Nothing was stored; come back later. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  queued: Schema.Int
}) {
  override get message() {
    return `${this.queued} events wait for the store; try again later`
  }
}

export type AppendOutcome = AppendResult | StoreUnavailable

export class Appender extends Context.Service<
  Appender,
  {
    /**
     * Appends events in their order, and answers when all are durable or refused. Interruption does not call
     * back what was handed over.
     */
    readonly append: (
      records: ReadonlyArray<ReturningRecord>
    ) => Effect.Effect<ReadonlyArray<AppendResult>, StoreUnavailable | Overloaded>

    /** `append` for one event without a fiber. False: overloaded, and `done` will not be called. */
    readonly offer: (record: EventRecord, done: (outcome: AppendOutcome) => void) => boolean

    /** Fills an absent topic (`EventStore.restore`), and tells that it has grown. */
    readonly restore: (topic: Restoration) => Effect.Effect<void, TopicExists | StoreUnavailable>

    /** Events that wait for the store. */
    readonly queued: () => number

    /**
     * Calls a listener with what was committed, before its publishers get their answers: new events only, in
     * the order of their seqs per topic. It must not throw and must not block.
     */
    readonly onCommitted: (
      listener: (records: ReadonlyArray<StoredRecord>) => void
    ) => Effect.Effect<void, never, Scope.Scope>

    /**
     * Calls a listener with topics that reach further than `onCommitted` told, perhaps: an append failed and
     * was stored nevertheless, or an event was there already. A hint, and like `onCommitted` otherwise.
     */
    readonly onGrown: (
      listener: (grown: ReadonlyArray<Growth>) => void
    ) => Effect.Effect<void, never, Scope.Scope>
  }
>()("event-hub/services/Appender") {}
