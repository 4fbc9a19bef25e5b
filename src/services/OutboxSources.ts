/**
 * The outboxes that a hub drains into its log: its own, and those of services that keep theirs elsewhere.
 *
 * Each has a store and a drainer of its own. One that cannot be reached holds up no other.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { DrainerStatus } from "./OutboxDrainer.ts"
import type { OutboxStats } from "./OutboxStore.ts"

/** The name of the hub's own outbox. */
export const ownSource = "hub"

export interface OutboxSource {
  readonly name: string
  /** Where it is, as people may see it. */
  readonly at: string
  /** Why nothing of it comes into the log at the moment; none when it does. */
  readonly problem: string | undefined
  /** What was done since its store was opened; none before. */
  readonly drainer: DrainerStatus | undefined
  /** What its server cannot do, in words. */
  readonly lacks: ReadonlyArray<string>
}

export interface MeasuredSource extends OutboxSource {
  /** None where the store was not opened, or does not answer: then `problem` says so. */
  readonly stats: OutboxStats | undefined
}

export class OutboxSources extends Context.Service<
  OutboxSources,
  {
    /** All of them, the hub's own first. Asks no store. */
    readonly list: Effect.Effect<ReadonlyArray<OutboxSource>>
    /** The same with what is in them. Each store is asked, and none is waited for longer than 1.5 seconds. */
    readonly measure: Effect.Effect<ReadonlyArray<MeasuredSource>>
  }
>()("event-hub/services/OutboxSources") {}
