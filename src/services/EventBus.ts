/**
 * What programs use: publish events, follow topics, and consume them as a member of a group.
 *
 * The gateway offers the same over WebSocket; a program in the hub's own process saves the way around.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Event, EventError } from "../domain/Event.ts"
import type { GroupConflict, GroupOptions } from "../domain/Group.ts"
import type { InvalidPattern } from "../domain/Topic.ts"
import type { From } from "../protocol/Messages.ts"
import type { Overloaded } from "./Appender.ts"
import type { GroupNotFound } from "./GroupStore.ts"
import type { UnrecoverablePosition } from "./LiveFeed.ts"
import type { OutboxEvent } from "./OutboxStore.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** An event to publish. Id and time are made when they are not given. */
export type Publishable = OutboxEvent

export interface Published {
  readonly topic: string
  readonly id: string
  readonly seq: number
  readonly storedAt: number
  /** The log held this id before; nothing new was stored. */
  readonly duplicate: boolean
}

/** These positions, both included, will not come: they were trimmed. */
export interface Trimmed {
  readonly _tag: "Trimmed"
  readonly topic: string
  readonly from: number
  readonly to: number
}

export interface Received {
  readonly _tag: "Received"
  readonly event: Event
}

export interface Handled extends Event {
  /** 1 for the first delivery. */
  readonly attempt: number
}

/** A handler that fails with this gives the event up at once: it goes to the dead letters. */
export class Poison extends Schema.TaggedError<Poison>()("Poison", { reason: Schema.String }) {}

/**
 * A handler that fails with this did not try: the event goes back without counting an attempt, and comes again
 * after this time, in milliseconds. Handlers of the client may throw it, too; it knows it by `nack`.
 */
export class Release extends Schema.TaggedError<Release>()("Release", {
  delayMs: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)),
  /** Why; nothing is wrong when there is none. */
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    const { cause } = this
    const why = cause === undefined ? "" : `: ${cause instanceof Error ? cause.message : String(cause)}`
    return `it was not tried, and comes again in ${this.delayMs} ms${why}`
  }
  /** How the client reads it (src/client/Nack). */
  get nack(): { readonly mode: "release"; readonly delayMs: number } {
    return { mode: "release", delayMs: this.delayMs }
  }
}

export class EventBus extends Context.Service<
  EventBus,
  {
    /** Publishes events of any topics, and answers in their order when they are durable. */
    readonly publish: (
      events: ReadonlyArray<Publishable>
    ) => Effect.Effect<ReadonlyArray<Published>, EventError | StoreUnavailable | Overloaded>

    /** Follows a pattern, from `"new"` on unless told otherwise. Each event once per topic, in order. */
    readonly subscribe: (subscription: {
      readonly pattern: string
      readonly from?: From
      readonly history?: string
    }) => Stream.Stream<Received | Trimmed, InvalidPattern | UnrecoverablePosition | StoreUnavailable>

    /**
     * Handles events as a member of a group, until it is interrupted: acknowledges those whose handler
     * succeeds, and refuses those whose handler fails, so that they come again after a back-off. An event
     * may come more than once; `Poison` gives it up, and `Release` gives it back.
     */
    readonly consume: <E, R>(
      membership: {
        readonly pattern: string
        readonly group: string
        readonly options?: Partial<GroupOptions>
        readonly from?: From
        /** Events handled at the same time. */
        readonly concurrency?: number
      },
      handler: (event: Handled) => Effect.Effect<void, E | Poison | Release, R>
    ) => Effect.Effect<
      never,
      InvalidPattern | GroupConflict | GroupNotFound | UnrecoverablePosition | StoreUnavailable,
      R
    >
  }
>()("event-hub/services/EventBus") {}
