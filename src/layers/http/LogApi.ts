/**
 * The contract of what the ops HTTP API lets people do with the log itself: look at its events, take them out as a file,
 * bring a file back, publish.
 *
 * Events come and go in the form that they have everywhere else. A list of topics holds what the token may subscribe;
 * to import takes the right to administrate each topic that is written to.
 */
import * as Schema from "effect/Schema"
import { HttpApi, HttpApiEndpoint, HttpApiError, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import {
  After,
  Authorization,
  BadRequest,
  Count,
  dryRunInQuery,
  EventJson,
  Forbidden,
  Limit,
  Next,
  NotFound,
  reason,
  strict,
  Unavailable
} from "./OpsContract.ts"

// --- errors --------------------------------------------------------------------------------------------------

const type = "about:blank"

export class ContentTooLarge extends HttpApiError.Problem<ContentTooLarge>()("ContentTooLarge", {
  type,
  status: 413,
  title: "Content Too Large"
}) {}

export class UnsupportedEncoding extends HttpApiError.Problem<UnsupportedEncoding>()("UnsupportedEncoding", {
  type,
  status: 415,
  title: "Unsupported Media Type"
}) {}

export class TooManyRequests extends HttpApiError.Problem<TooManyRequests>()("TooManyRequests", {
  type,
  status: 429,
  title: "Too Many Requests"
}) {}

// --- shapes --------------------------------------------------------------------------------------------------

const bound = (description: string) =>
  Schema.optionalKey(
    Schema.String.annotate({
      description: `${description} A seq (of one topic only), an RFC 3339 time such as 2026-01-31T12:00:00Z, or @ and milliseconds since 1970; times are those at which events were stored.`
    })
  )

const range = {
  from: bound("The first event, or the time from which on."),
  to: bound("The last event, or the time before which.")
}

const TopicOrPattern = Schema.String.annotate({ description: "A topic, or a pattern of topics." })

export const Events = Schema.Struct({ events: Schema.Array(EventJson), next: Next }).annotate({
  identifier: "Events"
})

export const ImportReport = Schema.Struct({
  dryRun: Schema.Boolean,
  complete: Schema.Boolean.annotate({ description: "The file was whole, and read to its end." }),
  missing: Schema.NullOr(Schema.String).annotate({ description: "What was missing otherwise." }),
  lines: Count,
  topics: Count,
  restored: Count.annotate({ description: "Events that came back with their seqs and times." }),
  appended: Count.annotate({ description: "Events that were appended behind others, with new seqs." }),
  duplicates: Count.annotate({ description: "Events that were there already." }),
  latest: Count.annotate({ description: "Last events of keys that were put down again." }),
  bad: Count,
  badLines: Schema.Array(Schema.Struct({ line: Count, reason: Schema.String })).annotate({
    description: "The first of the bad lines; the header is line 1."
  })
}).annotate({ identifier: "Import" })

const Publishable = Schema.Struct({
  topic: Schema.String,
  payload: Schema.Unknown,
  id: Schema.optionalKey(
    Schema.String.annotate({ description: "The same id again is the same event; made when it is not given." })
  ),
  ts: Schema.optionalKey(Schema.Finite),
  type: Schema.optionalKey(Schema.String),
  key: Schema.optionalKey(Schema.String),
  headers: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  tags: Schema.optionalKey(Schema.Array(Schema.String)),
  caused_by: Schema.optionalKey(Schema.String),
  sid: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "NewEvent" })

const Published = Schema.Struct({
  topic: Schema.String,
  id: Schema.String,
  seq: Count,
  storedAt: Schema.Finite,
  duplicate: Schema.Boolean.annotate({ description: "The log held this id before; nothing was stored." })
}).annotate({ identifier: "Published" })

const NotPublished = Schema.Struct({
  topic: Schema.String,
  id: Schema.String,
  error: Schema.Struct({
    code: Schema.Literals(["too_large", "behind_refused", "unavailable", "rate_limited"]),
    msg: Schema.String,
    retryAfterMs: Schema.optionalKey(Count)
  })
}).annotate({ identifier: "NotPublished" })

export const PublishAnswer = Schema.Struct({
  results: Schema.Array(Schema.Union([Published, NotPublished]))
}).annotate({ identifier: "PublishAnswer" })

export type PublishResult = (typeof PublishAnswer.Type)["results"][number]

/** The media types of an export. Files are sent as what their names let programs believe, too. */
export const mediaTypes = [
  "application/x-ndjson",
  "application/ndjson",
  "application/jsonl",
  "application/octet-stream"
] as const

const FlagInQuery = Schema.Literals(["true", "false"])

// --- endpoints -----------------------------------------------------------------------------------------------

export const Log = HttpApiGroup.make("log")
  .add(
    HttpApiEndpoint.get("events", "/events", {
      query: {
        topic: TopicOrPattern,
        ...range,
        order: Schema.optionalKey(
          Schema.Literals(["asc", "desc"]).annotate({
            description: "Of the events within each topic; topics always come by name."
          })
        ),
        after: Schema.optionalKey(After),
        limit: Schema.optionalKey(Limit)
      },
      success: Events,
      error: [BadRequest, Forbidden, NotFound, Unavailable]
    }).annotate(
      OpenApi.Description,
      "Events of a topic, or of those of a pattern that the token may subscribe. A page may hold fewer than asked for; it was the last when 'next' is null."
    ),
    HttpApiEndpoint.get("export", "/export", {
      query: { topic: Schema.optionalKey(TopicOrPattern), ...range },
      success: HttpApiSchema.StreamUint8Array({ contentType: mediaTypes[0] }),
      error: [BadRequest, Forbidden, NotFound, Unavailable]
    }).annotate(
      OpenApi.Description,
      "Events as NDJSON: a header, the events by topic and seq, and a last line with their number and a checksum. A file without that line is cut off. With `Accept-Encoding: gzip` it comes compressed."
    ),
    HttpApiEndpoint.post("import", "/import", {
      query: { ...dryRunInQuery, strict: Schema.optionalKey(FlagInQuery), ...reason },
      payload: HttpApiSchema.StreamUint8Array({ contentType: mediaTypes }),
      success: ImportReport,
      error: [BadRequest, Forbidden, UnsupportedEncoding, Unavailable]
    }).annotate(
      OpenApi.Description,
      "Reads an export back. Topics that are absent get their seqs and times again. It may be sent again: what is there counts as a duplicate, and it goes on where it ended. With `Content-Encoding: gzip` it is decompressed. `strict` ends it at the first bad line."
    ),
    HttpApiEndpoint.post("publish", "/publish", {
      query: reason,
      payload: [Publishable, Schema.Array(Publishable)],
      success: PublishAnswer,
      error: [BadRequest, Forbidden, ContentTooLarge, TooManyRequests, Unavailable]
    }).annotate(
      OpenApi.Description,
      "Publishes one event or several, in their order. What is answered with a seq is durable. When the token may not publish one of them, or one is no event, none is published."
    )
  )
  .middleware(Authorization)
  .annotate(HttpApi.PayloadParseOptions, strict)
  .annotate(HttpApi.QueryParseOptions, strict)
