/**
 * The contract of what the ops HTTP API tells of consumer groups, and lets an operator do with them.
 *
 * Looking takes the right to subscribe, changing the right to administrate: the topic that is named, or, where a
 * whole group is meant, all of its patterns. A parameter or a field that nobody knows is refused: one that was meant
 * to restrict a change must not be lost by a slip of the pen.
 */
import * as Schema from "effect/Schema"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import {
  After,
  Authorization,
  BadRequest,
  Conflict,
  Count,
  dryRun,
  dryRunInQuery,
  EventJson,
  Forbidden,
  Limit,
  Next,
  NotFound,
  optionalReason,
  reason,
  strict,
  TopicName,
  Unavailable
} from "./OpsContract.ts"

// --- shapes --------------------------------------------------------------------------------------------------

const group = { group: Schema.String.annotate({ description: "The name of a consumer group." }) }

const TopicPattern = Schema.String.annotate({ description: "A topic, or a pattern of topics." })

const Options = Schema.Struct({
  ackTimeoutMs: Count,
  maxAttempts: Count,
  keyOrdered: Schema.Boolean
})

const info = {
  group: Schema.String,
  patterns: Schema.Array(Schema.String),
  options: Options,
  registeredAt: Schema.Finite,
  lastUsedAt: Schema.Finite,
  paused: Schema.Boolean,
  sameHistory: Schema.Boolean,
  unused: Schema.Boolean,
  active: Schema.Boolean
}

const OfWhole = Schema.NullOr(Count)

/** What a group has to do over all of its topics shows to whoever may see all of its patterns. */
export const GroupJson = Schema.Struct({
  ...info,
  members: Count.annotate({ description: "Its members on this hub." }),
  pending: OfWhole.annotate({
    description:
      "Events that are not acknowledged, in all its topics; null where some of its patterns are hidden."
  }),
  inFlight: OfWhole,
  topicsBehind: OfWhole.annotate({ description: "Topics in which something is pending." })
}).annotate({ identifier: "Group" })

export const GroupList = Schema.Struct({
  groups: Schema.Array(GroupJson),
  next: Next
}).annotate({ identifier: "Groups" })

export const GroupWithTopics = Schema.Struct({
  ...info,
  topics: Schema.Array(
    Schema.Struct({ topic: Schema.String, seq: Count, head: Count, pending: Count, inFlight: Count })
  ),
  next: Next
}).annotate({ identifier: "GroupWithTopics" })

const SeekTarget = Schema.Union([
  Schema.Literals(["start", "end"]),
  Schema.Struct({ seq: Count }),
  Schema.Struct({ time: Schema.Finite })
]).annotate({
  description:
    "Goes on behind the event {seq}, at the first one stored at or after {time} (milliseconds since 1970), at the first that can be read, or at the next that comes."
})

export const SeekAnswer = Schema.Struct({
  group: Schema.String,
  dryRun: Schema.Boolean,
  topics: Schema.Array(
    Schema.Struct({ topic: Schema.String, from: Count, to: Count, again: Count, skipped: Count })
  )
}).annotate({ identifier: "Seek" })

export const BlockedKeysJson = Schema.Struct({
  group: Schema.String,
  topic: Schema.String,
  total: Count,
  keys: Schema.Array(
    Schema.Struct({
      key: Schema.String,
      seq: Count,
      state: Schema.Literals(["inFlight", "waiting", "dying"]),
      attempt: Count,
      since: Schema.Finite,
      ageMs: Schema.Finite,
      notBefore: Schema.NullOr(Schema.Finite),
      reason: Schema.String,
      behind: Count
    })
  ),
  next: Next
}).annotate({ identifier: "BlockedKeys" })

/** Where a page of blocked keys begins: `<since>:<seq>` of the last one before it. */
const PlaceFromString = Schema.String.check(
  Schema.isPattern(/^\d{1,15}(?:\.\d{1,15})?:\d{1,15}$/, { message: "Expected `next` of the page before" })
).annotate({ description: "`next` of the page before." })

export const RemovedGroup = Schema.Struct({
  group: Schema.String,
  dryRun: Schema.Boolean,
  removed: Schema.Boolean,
  positions: Count.annotate({ description: "Topics on which it had a position." }),
  inFlight: Count.annotate({ description: "Events that its members had." }),
  waiting: Count.annotate({ description: "Events that were to be retried." })
}).annotate({ identifier: "RemovedGroup" })

const ReleaseMode = Schema.Literals(["retry", "dead-letter"])

const Letter = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))

const Filter = Schema.Struct({
  letters: Schema.optionalKey(Schema.Array(Letter)),
  ids: Schema.optionalKey(Schema.Array(Schema.String)),
  key: Schema.optionalKey(Schema.String),
  reason: Schema.optionalKey(Schema.String),
  since: Schema.optionalKey(Schema.Finite),
  until: Schema.optionalKey(Schema.Finite)
}).annotate({
  identifier: "DeadLetterFilter",
  description:
    "What is not given excludes nothing. 'reason' is a part of it; 'since' <= time of death < 'until'."
})

const LetterFromString = Schema.NumberFromString.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(1))

const PositionFromString = Schema.NumberFromString.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(0))

export const DeadLetters = Schema.Struct({
  group: Schema.String,
  topic: Schema.String,
  letters: Schema.Array(
    Schema.Struct({
      letter: Count,
      status: Schema.Literals(["dead", "redriving", "redriven"]),
      diedAt: Schema.Finite,
      reason: Schema.String,
      attempts: Count,
      redrives: Count,
      id: Schema.String,
      seq: Count,
      storedAt: Schema.Finite,
      event: EventJson
    })
  ),
  next: Schema.NullOr(Count)
}).annotate({ identifier: "DeadLetters" })

// --- endpoints -----------------------------------------------------------------------------------------------

const errors = [BadRequest, Forbidden, NotFound, Unavailable] as const
const conflicting = [...errors, Conflict] as const

const page = { after: Schema.optionalKey(After), limit: Schema.optionalKey(Limit) }

export const Groups = HttpApiGroup.make("groups")
  .add(
    HttpApiEndpoint.get("list", "/groups", {
      query: page,
      success: GroupList,
      error: [BadRequest, Unavailable]
    }).annotate(
      OpenApi.Description,
      "Consumer groups by name: those that take a pattern which the token may subscribe or administrate, with these patterns."
    ),
    HttpApiEndpoint.get("get", "/groups/:group", {
      params: group,
      query: page,
      success: GroupWithTopics,
      error: errors
    }).annotate(OpenApi.Description, "A consumer group, and how far it is in each topic that it takes."),
    HttpApiEndpoint.post("seek", "/groups/:group/seek", {
      params: group,
      payload: Schema.Struct({
        topic: Schema.optionalKey(TopicPattern),
        to: SeekTarget,
        ...dryRun,
        ...reason
      }),
      success: SeekAnswer,
      error: conflicting
    }).annotate(
      OpenApi.Description,
      "Goes on from another position: in one topic, in those of a pattern, or in all that the group takes. Says how many acknowledged events come again, and how many unacknowledged ones never will."
    ),
    HttpApiEndpoint.post("pause", "/groups/:group/pause", {
      params: group,
      payload: optionalReason,
      success: Schema.Struct({ group: Schema.String, paused: Schema.Literal(true) }),
      error: errors
    }).annotate(OpenApi.Description, "Delivers nothing to the group's members until it is resumed."),
    HttpApiEndpoint.post("resume", "/groups/:group/resume", {
      params: group,
      payload: optionalReason,
      success: Schema.Struct({ group: Schema.String, paused: Schema.Literal(false) }),
      error: errors
    }).annotate(OpenApi.Description, "Lets a paused group go on."),
    HttpApiEndpoint.delete("remove", "/groups/:group", {
      params: group,
      query: { ...dryRunInQuery, ...reason },
      success: RemovedGroup,
      error: errors
    }).annotate(OpenApi.Description, "Forgets the group and its positions. Its dead letters stay."),
    HttpApiEndpoint.get("blockedKeys", "/groups/:group/blocked-keys", {
      params: group,
      query: {
        topic: TopicName,
        after: Schema.optionalKey(PlaceFromString),
        limit: Schema.optionalKey(Limit)
      },
      success: BlockedKeysJson,
      error: errors
    }).annotate(
      OpenApi.Description,
      "Keys of a key-ordered group whose events wait for one that failed, the longest blocked first."
    ),
    HttpApiEndpoint.post("releaseKey", "/groups/:group/release-key", {
      params: group,
      payload: Schema.Struct({
        topic: TopicName,
        key: Schema.String,
        mode: ReleaseMode,
        ...dryRun,
        ...reason
      }),
      success: Schema.Struct({
        group: Schema.String,
        topic: Schema.String,
        key: Schema.String,
        mode: ReleaseMode,
        dryRun: Schema.Boolean,
        seq: Count
      }),
      error: conflicting
    }).annotate(
      OpenApi.Description,
      "Frees a blocked key: its event comes again at once, or goes to the dead letters."
    ),
    HttpApiEndpoint.get("deadLetters", "/dead-letters", {
      query: {
        ...group,
        topic: TopicName,
        letter: Schema.optionalKey(Schema.Array(LetterFromString)),
        id: Schema.optionalKey(Schema.Array(Schema.String)),
        key: Schema.optionalKey(Schema.String),
        reason: Schema.optionalKey(Schema.String),
        since: Schema.optionalKey(Schema.FiniteFromString),
        until: Schema.optionalKey(Schema.FiniteFromString),
        after: Schema.optionalKey(PositionFromString),
        limit: Schema.optionalKey(Limit)
      },
      success: DeadLetters,
      error: errors
    }).annotate(
      OpenApi.Description,
      "What a group gave up on a topic, and why. A page may hold fewer than asked for; it was the last when 'next' is null."
    ),
    HttpApiEndpoint.post("redrive", "/dead-letters/redrive", {
      payload: Schema.Struct({
        ...group,
        topic: TopicName,
        filter: Schema.optionalKey(Filter),
        ...dryRun,
        ...reason
      }),
      success: Schema.Struct({
        group: Schema.String,
        topic: Schema.String,
        dryRun: Schema.Boolean,
        matched: Count
      }),
      error: conflicting
    }).annotate(
      OpenApi.Description,
      "Lets dead letters come back into their group: those that match and did not come back yet."
    )
  )
  .middleware(Authorization)
  .annotate(HttpApi.PayloadParseOptions, strict)
  .annotate(HttpApi.QueryParseOptions, strict)
