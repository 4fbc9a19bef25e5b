/** The contract of what anybody may ask of a hub: whether it lives, whether it takes work, and its metrics. */
import * as Schema from "effect/Schema"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"

export const Check = Schema.Struct({
  name: Schema.String,
  ok: Schema.Boolean,
  required: Schema.optionalKey(
    Schema.Boolean.annotate({ description: "false: the hub takes work also when this is not ok." })
  ),
  detail: Schema.optionalKey(
    Schema.String.annotate({ description: "What is wrong, or what an operator should know." })
  )
})

export const Ready = Schema.Struct({
  ready: Schema.Literal(true),
  checks: Schema.Array(Check)
}).annotate({ identifier: "Ready" })

/**
 * The hub runs, and takes no work: it stops, or its store does not answer. The outboxes of others do not count: while
 * one business database is down, the hubs are to go on with everything else.
 */
export const NotReady = Schema.Struct({ ready: Schema.Literal(false), checks: Schema.Array(Check) })
  .annotate({ identifier: "NotReady" })
  .pipe(HttpApiSchema.status(503))

export const Health = HttpApiGroup.make("health").add(
  HttpApiEndpoint.get("healthz", "/healthz", {
    success: Schema.Struct({ status: Schema.Literal("ok") })
  }).annotate(OpenApi.Description, "The process answers."),
  HttpApiEndpoint.get("readyz", "/readyz", { success: [Ready, NotReady] }).annotate(
    OpenApi.Description,
    "The hub takes work."
  ),
  HttpApiEndpoint.get("metrics", "/metrics", {
    success: Schema.String.pipe(
      HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4; charset=utf-8" })
    )
  }).annotate(OpenApi.Description, "Metrics in the Prometheus text format.")
)
