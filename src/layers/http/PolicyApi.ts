/**
 * The contract of what the ops HTTP API tells of policies: why something is allowed, or is not. Of their own token
 * everybody may ask; of any other policy, given as text, whoever administrates everything.
 */
import * as Schema from "effect/Schema"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Authorization, BadRequest, Count, Forbidden, strict } from "./OpsContract.ts"

const request = {
  action: Schema.Literals(["publish", "subscribe", "admin"]),
  topic: Schema.String.annotate({
    description: "A topic, or a pattern, which stands for all topics that it matches."
  }),
  group: Schema.optionalKey(
    Schema.String.annotate({
      description: "The consumer group that is to subscribe; a live reader has none."
    })
  )
}

export const ExplanationJson = Schema.Struct({
  allowed: Schema.Boolean,
  reason: Schema.String.annotate({ description: "In a sentence." }),
  rule: Schema.NullOr(Count).annotate({
    description: "The rule that decides; null: none fits, or it is one that is not shown."
  }),
  rules: Schema.Array(
    Schema.Struct({
      n: Count.annotate({ description: "Its place among those that are shown, from 1." }),
      text: Schema.String.annotate({ description: "The rule in the text form." }),
      decides: Schema.Boolean,
      why: Schema.String.annotate({ description: "Why it decides, or why it does not." })
    })
  )
}).annotate({ identifier: "Explanation" })

export const Policies = HttpApiGroup.make("policies")
  .add(
    HttpApiEndpoint.get("explain", "/policy/explain", {
      query: request,
      success: ExplanationJson,
      error: BadRequest
    }).annotate(
      OpenApi.Description,
      "What the token may do, and which of its rules says so. Rules of its roles are shown to those only who " +
        "administrate the topic, or everything."
    ),
    HttpApiEndpoint.post("explainText", "/policy/explain", {
      payload: Schema.Struct({
        policy: Schema.String.annotate({
          description:
            "One rule a line: allow|deny <action> <pattern>… [group <name>…|group *]; or roles, each opened by a line " +
            "'role <name>:'"
        }),
        roles: Schema.optionalKey(
          Schema.Array(Schema.String).annotate({
            description: "The roles of the token; of a policy with roles only, which needs at least one."
          })
        ),
        sub: Schema.optionalKey(
          Schema.String.annotate({ description: "The subject of the token, which fills ${sub}." })
        ),
        claims: Schema.optionalKey(
          Schema.Record(Schema.String, Schema.Unknown).annotate({
            description: "Other claims of the token, which fill ${claim.<name>}."
          })
        ),
        ...request
      }),
      success: ExplanationJson,
      error: [BadRequest, Forbidden]
    }).annotate(OpenApi.Description, "What a token with this policy might do, and why. Changes nothing.")
  )
  .middleware(Authorization)
  .annotate(HttpApi.PayloadParseOptions, strict)
  .annotate(HttpApi.QueryParseOptions, strict)
