/**
 * Lets go of events that nobody has to keep any more, by the rules of domain/Retention, and tells which consumer
 * groups nobody uses.
 *
 * It works by itself as long as its layer lives, where that is wanted; `run` is for whoever does not want to wait.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export interface TrimmedTopic {
  readonly topic: string
  readonly forgotten: number
  /** The last event that was forgotten. */
  readonly floor: number
}

/** A topic that keeps events longer than its rule says. */
export interface HeldBack {
  readonly topic: string
  /** Who has not acknowledged them, or is about to take these dead letters back. */
  readonly group: string
  /** How many events the rule would let go of. */
  readonly events: number
}

export interface UnusedGroup {
  readonly group: string
  /** When a member was last known to be there. */
  readonly lastUsedAt: number
}

/** What one pass over all topics and groups did. The lists hold the first thousand entries, the figures count all. */
export interface RetentionReport {
  readonly startedAt: number
  readonly endedAt: number
  /** Topics that have a rule by which events go. */
  readonly topics: number
  readonly topicsTrimmed: number
  readonly eventsForgotten: number
  readonly topicsHeldBack: number
  readonly groupsUnused: number
  readonly groupsExpired: number
  readonly trimmed: ReadonlyArray<TrimmedTopic>
  readonly heldBack: ReadonlyArray<HeldBack>
  /** Groups without a member for long; those that were removed for it are not among them. */
  readonly unused: ReadonlyArray<UnusedGroup>
  /** Groups that were removed, since nobody had used them for longer than that. */
  readonly expired: ReadonlyArray<UnusedGroup>
  /** Why it ended before it was through; none when it was. */
  readonly problem: string | undefined
}

export class Retention extends Context.Service<
  Retention,
  {
    /**
     * One pass now, over every topic and group; passes wait for each other. It goes in steps, and may be
     * interrupted after any of them. A store that does not answer ends it, and what was done until then stays.
     */
    readonly run: Effect.Effect<RetentionReport, StoreUnavailable>

    /** The last pass, also one that ended early; nothing before the first. */
    readonly lastRun: Effect.Effect<RetentionReport | undefined>
  }
>()("event-hub/services/Retention") {}
