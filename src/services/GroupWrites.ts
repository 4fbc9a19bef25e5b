/** What this hub itself changes in the GroupStore, which its `changes` does not tell. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { GroupChange } from "./GroupStore.ts"

export class GroupWrites extends Context.Service<
  GroupWrites,
  {
    /**
     * Calls a listener with each state that was written, or may have been, and with each group that was removed. Who
     * is registered, the store's list says. It must not throw and must not block.
     */
    readonly onWritten: (listener: (change: GroupChange) => void) => Effect.Effect<void, never, Scope.Scope>
  }
>()("event-hub/services/GroupWrites") {}
