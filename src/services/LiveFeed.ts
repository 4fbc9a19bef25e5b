/**
 * The log as it grows, for live subscribers: without groups, acknowledgements, or state that outlives them.
 *
 * Per topic a subscriber gets every event from its position on, each once, in order, without a hole; what was
 * trimmed before it came is told as a gap. One that takes no more for a while is served from the store later.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Position, StoredRecord } from "../domain/Event.ts"
import type { Pattern } from "../domain/Topic.ts"
import type { From } from "../protocol/Messages.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** The position is of another life of the store, or beyond the end of the topic. */
export class UnrecoverablePosition extends Schema.TaggedError<UnrecoverablePosition>()(
  "UnrecoverablePosition",
  { reason: Schema.String }
) {
  override get message() {
    return `the position cannot be resumed: ${this.reason}`
  }
}

/** Events for all subscribers of a pattern. They share the object, so that one can encode for all. */
export interface LiveBatch {
  readonly pattern: Pattern
  readonly records: ReadonlyArray<StoredRecord>
  /** What subscribers made of the batch together; the feed does not look at it. */
  readonly shared: Map<string, unknown>
}

export interface LiveGap {
  readonly topic: string
  readonly from: number
  readonly to: number
}

/** What a subscriber does with what comes. Called without a fiber; it must not throw and must not block. */
export interface LiveSink {
  /** Answers false to take nothing of the batch, until `resume`. */
  readonly deliver: (batch: LiveBatch) => boolean
  readonly gap: (gap: LiveGap) => void
}

export interface LiveSubscription {
  /** The last seq of each topic of the pattern at the moment from which events come. */
  readonly heads: ReadonlyMap<string, Position>
  /** Nothing comes before this is called. */
  readonly start: () => void
  /** The sink takes events again. */
  readonly resume: () => void
  /** Topics in which the subscriber is behind. */
  readonly behind: () => number
}

export class LiveFeed extends Context.Service<
  LiveFeed,
  {
    readonly history: Effect.Effect<string, StoreUnavailable>
    /** Subscribes until the scope closes. */
    readonly subscribe: (subscription: {
      readonly pattern: Pattern
      readonly from: From
      readonly history: string | undefined
      readonly sink: LiveSink
    }) => Effect.Effect<LiveSubscription, UnrecoverablePosition | StoreUnavailable, Scope.Scope>
  }
>()("event-hub/services/LiveFeed") {}
