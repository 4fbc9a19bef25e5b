/**
 * What the server of a store cannot do that somebody may count on, in words for people. A layer of stores gives it
 * where there is something to say; the stores keep their promises all the same.
 */
import * as Context from "effect/Context"

export const StoreLacks = Context.Reference<ReadonlyArray<string>>("event-hub/services/StoreLacks", {
  defaultValue: () => []
})
