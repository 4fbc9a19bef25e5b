/**
 * Who is behind, and how fast topics grow: over all topics and groups at once.
 *
 * What a group has to do comes from what is stored, as with Inspector; the figures of all places are kept in memory
 * while somebody looks, and brought up to date at most once a second for all who do. Growth is what this hub saw.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** How far a group is in a topic that it takes. */
export interface Place {
  readonly group: string
  readonly topic: string
  /** Everything up to here is acknowledged. */
  readonly seq: number
  readonly head: number
  readonly pending: number
  readonly inFlight: number
}

export interface PlaceWithLag extends Place {
  /** Age of the oldest unacknowledged event in milliseconds; 0 when there is none. */
  readonly lagMs: number
}

/** How far a group is, over all topics that it takes. */
export interface GroupStanding {
  readonly pending: number
  readonly inFlight: number
  /** Topics in which something is pending. */
  readonly topicsBehind: number
}

export interface StandingTotals {
  readonly topics: number
  readonly groups: number
  readonly pending: number
  readonly inFlight: number
}

/** What came into a topic in the last seconds, by the second. */
export interface GrowthRate {
  readonly eventsPerSecond: number
  readonly bytesPerSecond: number
}

export interface TopicGrowth extends GrowthRate {
  readonly topic: string
  readonly head: number
}

/** What changed since it was begun, or taken last. */
export interface StandingWatch {
  /** The places with the largest changes, as they are now; what is left out comes with the next. */
  readonly take: (limit: number) => Effect.Effect<ReadonlyArray<PlaceWithLag>, StoreUnavailable>
}

export class Standing extends Context.Service<
  Standing,
  {
    readonly totals: Effect.Effect<StandingTotals, StoreUnavailable>
    /** Every group that is registered. */
    readonly groups: Effect.Effect<ReadonlyMap<string, GroupStanding>, StoreUnavailable>
    /** Where most is pending, of the places that are shown. */
    readonly behind: (ranking: {
      readonly limit: number
      readonly show: (group: string, topic: string) => boolean
    }) => Effect.Effect<ReadonlyArray<PlaceWithLag>, StoreUnavailable>
    /** The topics that grow fastest, in events, of those that are shown. */
    readonly growing: (ranking: {
      readonly limit: number
      readonly show: (topic: string) => boolean
    }) => Effect.Effect<ReadonlyArray<TopicGrowth>, StoreUnavailable>
    /** Asks no store. */
    readonly growthOf: (topic: string) => GrowthRate
    /** Follows every place until the scope closes. */
    readonly watch: Effect.Effect<StandingWatch, StoreUnavailable, Scope.Scope>
  }
>()("event-hub/services/Standing") {}
