/** What was denied over HTTP, in the log: what is left out of it is counted over all endpoints together. */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as denialLogging from "../core/denialLogging.ts"

export class HttpDenials extends Context.Service<HttpDenials, denialLogging.DenialLogging>()(
  "event-hub/layers/http/HttpDenials"
) {}

export const layer = (maxEntries: number): Layer.Layer<HttpDenials> =>
  Layer.effect(
    HttpDenials,
    denialLogging.make({ leftOut: "more of it was denied over HTTP than is logged", maxEntries })
  )
