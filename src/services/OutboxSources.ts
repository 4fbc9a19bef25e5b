/**
 * The outboxes that a hub drains into its log: its own, and those of services that keep theirs elsewhere.
 *
 * Each has a store and a drainer of its own. One that cannot be reached holds up no other.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { DrainerStatus } from "./OutboxDrainer.ts"
import type { OutboxStats, OutboxStore } from "./OutboxStore.ts"

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

/** The hub drains none of this name. */
export class SourceNotFound extends Schema.TaggedError<SourceNotFound>()("SourceNotFound", {
  name: Schema.String
}) {
  override get message() {
    return `there is no outbox '${this.name}'`
  }
}

/** The hub knows of it, and has no store of it at the moment. */
export class SourceNotOpen extends Schema.TaggedError<SourceNotOpen>()("SourceNotOpen", {
  name: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `outbox '${this.name}' is not open: ${this.problem}`
  }
}

export class OutboxSources extends Context.Service<
  OutboxSources,
  {
    /** All of them, the hub's own first. Asks no store. */
    readonly list: Effect.Effect<ReadonlyArray<OutboxSource>>
    /** The same with what is in them. Each store is asked, and none is waited for longer than 1.5 seconds. */
    readonly measure: Effect.Effect<ReadonlyArray<MeasuredSource>>
    /** The store of one, to look into it or change it at once: one that is lost is replaced, so it is not to be kept. */
    readonly storeOf: (name: string) => Effect.Effect<OutboxStore["Service"], SourceNotFound | SourceNotOpen>
  }
>()("event-hub/services/OutboxSources") {}
