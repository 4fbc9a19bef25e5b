/**
 * The roles that tokens refer to, as they are now. Where a hub has none, what tokens say of roles means nothing.
 */
import * as Context from "effect/Context"
import * as Stream from "effect/Stream"
import type { PolicyFile } from "../domain/PolicyFile.ts"

export interface Policies {
  /** The same object for as long as nothing changes. */
  readonly current: () => PolicyFile | undefined
  /** There are others now. */
  readonly changes: Stream.Stream<void>
}

export const Policies = Context.Reference<Policies>("event-hub/services/Policies", {
  defaultValue: () => ({ current: () => undefined, changes: Stream.never })
})
