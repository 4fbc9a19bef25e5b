/**
 * The one error of every store that is about the store itself, and not about what was asked of it.
 *
 * It is retryable: nothing of the operation is promised to have happened, and nothing is promised not to
 * have. Every write of ours may be repeated after it without harm, and says so.
 */
import * as Schema from "effect/Schema"

export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>()("StoreUnavailable", {
  /** The method that failed, like `EventStore.append`. */
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `the store is not available (${this.operation})`
  }
}
