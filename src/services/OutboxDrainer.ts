/**
 * Brings outbox records into the log: claims, appends, marks, over and over, as long as its layer lives.
 *
 * A crash between any two steps repeats nothing in the log, because a record's event has the record's id.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"

export interface DrainerStatus {
  readonly worker: string
  /** Records brought into the log since the start. */
  readonly sent: number
  /** Attempts that failed since the start. */
  readonly failed: number
  /** Claims that were lost to another worker since the start. */
  readonly lost: number
  /** Why the last round did not work; none when it did. */
  readonly problem: string | undefined
}

export class OutboxDrainer extends Context.Service<
  OutboxDrainer,
  {
    readonly status: Effect.Effect<DrainerStatus>
    /** Looks into the outbox now. */
    readonly wake: Effect.Effect<void>
  }
>()("event-hub/services/OutboxDrainer") {}
