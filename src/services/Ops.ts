/** The ops HTTP server. */
import * as Context from "effect/Context"

export class Ops extends Context.Service<
  Ops,
  {
    /** `http://host:port`. */
    readonly url: string
  }
>()("event-hub/services/Ops") {}
