/** The ops HTTP server. */
import { Context } from "effect"

export class Ops extends Context.Service<
  Ops,
  {
    /** `http://host:port`. */
    readonly url: string
  }
>()("event-hub/services/Ops") {}
