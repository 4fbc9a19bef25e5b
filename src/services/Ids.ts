/** Where new ids come from, so that a test can know them beforehand. */
import * as Context from "effect/Context"

export class Ids extends Context.Service<
  Ids,
  {
    /** An id that nobody else has: for events without one (a UUIDv7, RFC 9562), claims, generations, … */
    readonly next: () => string
  }
>()("event-hub/services/Ids") {}
