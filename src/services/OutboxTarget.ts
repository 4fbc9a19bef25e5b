/**
 * Where a drainer brings the records of its outbox: the log of the hub that it is part of, or that of another process.
 *
 * It is the one part of an Appender that a drainer needs, with answers that only somebody else's log has.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { EventRecord } from "../domain/Event.ts"
import type { Overloaded } from "./Appender.ts"
import type { AppendResult, NotAppended } from "./EventStore.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** The log is somebody's who has not taken this event. */
export interface NotTaken extends Omit<NotAppended, "reason"> {
  /**
   * `invalid`: it will be refused for as long as it is what it is; what stands behind it was tried nevertheless.
   * `forbidden`: there is no right to it; a person may change that.
   * `later`: nothing is wrong with it, and it was not its turn.
   */
  readonly reason: "invalid" | "forbidden" | "later"
  /** In the words of whoever refused it. */
  readonly message: string
}

export type TargetResult = AppendResult | NotTaken

export class OutboxTarget extends Context.Service<
  OutboxTarget,
  {
    /**
     * Appends events, and answers in their order. What is answered as appended is durable, and the same id again is
     * the same event.
     *
     * Of one (topic, key) nothing is stored behind an event that was not, unless that one is `invalid` or `too_large`.
     * StoreUnavailable comes within a bounded time, and says nothing about what was stored.
     */
    readonly append: (
      records: ReadonlyArray<EventRecord>
    ) => Effect.Effect<ReadonlyArray<TargetResult>, StoreUnavailable | Overloaded>
  }
>()("event-hub/services/OutboxTarget") {}
