/**
 * Remembers which events a consumer has handled, so that a redelivery does not run its handler again.
 *
 * A backend gives these five methods; `exactlyOnce` (layers/core) is built on them. By themselves they promise
 * one run per lease and not one run: between the effect of a handler and `complete` a process may die, and the
 * run after that begins from the front. Only a backend that shares a transaction with the handler's own writes
 * closes that gap (layers/sqlite/createDedupe).
 *
 * Time is the store's, so consumers with wrong clocks cannot take over a run that is alive.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** What tells an event from all others. */
export interface EventRef {
  readonly topic: string
  readonly id: string
}

/** The right to finish one run of a handler. */
export interface RunToken {
  readonly consumer: string
  readonly topic: string
  readonly eventId: string
  /** Tells this run from all others of the same event. */
  readonly run: string
}

/** What `begin` found. `Run` is the only answer that allows the handler to run. */
export type Begun =
  | { readonly _tag: "Run"; readonly token: RunToken }
  | {
      readonly _tag: "InProgress"
      /** The end of its lease by the store's clock, in milliseconds since 1970. */
      readonly until: number
      /** How far away that is, for callers whose clock is another. At least 1. */
      readonly leftMs: number
    }
  | { readonly _tag: "Done" }

/** The run was given back, or taken over after its lease: whatever it did must not be marked as done. */
export class RunLost extends Schema.TaggedError<RunLost>()("RunLost", {
  consumer: Schema.String,
  topic: Schema.String,
  eventId: Schema.String
}) {
  override get message() {
    return (
      `'${this.consumer}' lost its run of event '${this.eventId}' on '${this.topic}': its lease ended, and another ` +
      "run began; give it a longer 'leaseMs' if its process is held up for that long"
    )
  }
}

export class DedupeStore extends Context.Service<
  DedupeStore,
  {
    /**
     * How long an event is remembered after it was handled, in milliseconds. Later it may be forgotten at any
     * time. Nothing that was not completed is ever forgotten.
     */
    readonly keepMs: number

    /**
     * Claims the handling of an event for `leaseMs`. Atomic: of any number of callers at once one gets `Run`,
     * and so does one after the lease of a run that was not completed. An event's id is unique in its topic,
     * and each consumer handles it for itself: the same id on two topics, or for two consumers, are two things
     * to handle.
     *
     * Enlists in the surrounding transaction where the backend has one: rolled back, it never happened. When it
     * fails, a claim may stand nevertheless, until its lease ends.
     */
    readonly begin: (run: {
      readonly consumer: string
      readonly topic: string
      readonly eventId: string
      readonly leaseMs: number
    }) => Effect.Effect<Begun, StoreUnavailable>

    /**
     * Gives a run `leaseMs` from now; its end never comes nearer. A lease that has ended, but was not taken
     * over, is prolonged as well. Of a completed run it changes nothing.
     */
    readonly extend: (token: RunToken, leaseMs: number) => Effect.Effect<void, RunLost | StoreUnavailable>

    /**
     * Makes a run final. Calling it again is harmless. A lease that has ended, but was not taken over, still
     * counts; a run that was taken over fails and changes nothing.
     */
    readonly complete: (token: RunToken) => Effect.Effect<void, RunLost | StoreUnavailable>

    /**
     * Gives a run back at once, as if `begin` had not been called. Runs that are completed, lost or unknown are
     * left alone.
     */
    readonly release: (token: RunToken) => Effect.Effect<void, StoreUnavailable>

    /**
     * Forgets events that were completed longer ago than this, and answers how many. Runs that are not
     * completed stay, however old they are. Stores forget by themselves what is older than `keepMs`; a shorter
     * time is for those who know that none of these events comes again.
     */
    readonly purge: (completed: { readonly olderThanMs: number }) => Effect.Effect<number, StoreUnavailable>
  }
>()("event-hub/services/DedupeStore") {}
