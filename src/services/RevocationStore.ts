/** Where revocations are kept, and how hubs see that others have changed something, without reading all of them. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Entry } from "../domain/Revocation.ts"
import type { Page } from "./Page.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

export class RevocationStore extends Context.Service<
  RevocationStore,
  {
    /** Adds an entry; durable when it is answered. One whose id is there already changes nothing. */
    readonly add: (entry: Entry) => Effect.Effect<void, StoreUnavailable>
    /** False: there was none. */
    readonly remove: (id: string) => Effect.Effect<boolean, StoreUnavailable>
    /** By their ids. A limit of its own holds where none is given. */
    readonly list: (page?: {
      readonly after?: string | undefined
      readonly limit?: number
    }) => Effect.Effect<Page<Entry>, StoreUnavailable>
    /**
     * Stands for what is in the store; one small read. Two answers are equal only when nothing was added or removed
     * between them: whoever has listed everything after the first knows it all. Nothing is promised of answers that
     * differ, so a store may say at any time that it does not know.
     */
    readonly version: Effect.Effect<string, StoreUnavailable>
    /**
     * Forgets entries whose `until` is earlier, and answers how many. A store whose server has a time of its own keeps
     * those that are not over by that.
     */
    readonly prune: (before: number) => Effect.Effect<number, StoreUnavailable>
  }
>()("event-hub/services/RevocationStore") {}
