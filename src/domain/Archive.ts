/**
 * The log as a file: what an export looks like, line by line, and what an import makes of a line.
 *
 * JSON objects in UTF-8, one a line (https://github.com/ndjson/ndjson-spec). The first says what the file is, the last how
 * much is in it, with a checksum of what stands between both, which therefore is the same whenever the same events are
 * exported: a file without that line was cut off. Between them stand the events, as the API shows them: topics in the
 * order of their names, events in the order of their seqs. Where events were trimmed, the last ones of their keys are
 * kept, and stand behind the first event that follows.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as DeadLetter from "./DeadLetter.ts"
import * as Event from "./Event.ts"
import * as Json from "./Json.ts"
import * as Topic from "./Topic.ts"

export const format = "event-hub/export"
export const version = 1

// --- what is asked for ---------------------------------------------------------------------------------------

/** An event of one topic, or a time in milliseconds since 1970 by which events were stored. */
export type Bound = { readonly seq: number } | { readonly time: number }

export interface Selection {
  readonly pattern: Topic.Pattern
  /** The first event, or the time from which on; none: from the start of each topic. */
  readonly from: Bound | undefined
  /** The last event, or the time before which; none: to the end of each topic. */
  readonly to: Bound | undefined
}

export class InvalidSelection extends Schema.TaggedError<InvalidSelection>()("InvalidSelection", {
  field: Schema.Literals(["topic", "from", "to", "after"]),
  reason: Schema.String
}) {
  override get message() {
    return `'${this.field}': ${this.reason}`
  }
}

const boundForms =
  "a seq such as 120, a time such as 2026-01-31T12:00:00Z, or milliseconds since 1970 such as @1767225600000"

/** https://www.rfc-editor.org/rfc/rfc3339, or the day alone, which begins at midnight UTC. */
const rfc3339 = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d))?$/

const numberOf = (digits: string): number | undefined => {
  const n = /^\d{1,16}$/.test(digits) ? Number(digits) : NaN
  return Number.isSafeInteger(n) ? n : undefined
}

export const parseBound = (text: string): Bound | undefined => {
  if (text.startsWith("@")) {
    const time = numberOf(text.slice(1))
    return time === undefined ? undefined : { time }
  }
  if (rfc3339.test(text)) {
    // oxlint-disable-next-line no-restricted-globals -- a conversion of what is given: no clock is asked
    const time = Date.parse(text)
    return Number.isNaN(time) ? undefined : { time }
  }
  const seq = numberOf(text)
  return seq === undefined ? undefined : { seq }
}

export const formatBound = (bound: Bound): string => ("seq" in bound ? String(bound.seq) : `@${bound.time}`)

/** What is selected, as people write it. */
export const parseSelection = (asked: {
  readonly topic: string
  readonly from?: string | undefined
  readonly to?: string | undefined
}): Result.Result<Selection, InvalidSelection> => {
  const pattern = Topic.parsePattern(asked.topic)
  if (Result.isFailure(pattern)) {
    return Result.fail(new InvalidSelection({ field: "topic", reason: pattern.failure.message }))
  }
  const bounds: { from: Bound | undefined; to: Bound | undefined } = { from: undefined, to: undefined }
  for (const field of ["from", "to"] as const) {
    const text = asked[field]
    if (text === undefined) continue
    const bound = parseBound(text)
    if (bound === undefined) {
      return Result.fail(new InvalidSelection({ field, reason: `it is none of: ${boundForms}` }))
    }
    if ("seq" in bound && !pattern.success.concrete) {
      const reason = "a seq counts the events of one topic: name that topic, or give a time"
      return Result.fail(new InvalidSelection({ field, reason }))
    }
    bounds[field] = bound
  }
  return Result.succeed({ pattern: pattern.success, ...bounds })
}

/** An event that was shown last: what follows it, in the order that was asked for, comes next. */
export interface Cursor {
  readonly topic: string
  readonly seq: number
}

/** No seq holds a colon, and what follows the first one is the topic. */
export const formatCursor = ({ seq, topic }: Cursor): string => `${seq}:${topic}`

export const parseCursor = (text: string): Result.Result<Cursor, InvalidSelection> => {
  const colon = text.indexOf(":")
  const seq = numberOf(text.slice(0, Math.max(0, colon)))
  const topic = text.slice(colon + 1)
  return seq === undefined || Result.isFailure(Topic.parseTopic(topic))
    ? Result.fail(
        new InvalidSelection({ field: "after", reason: "give what 'next' of the page before was, as it is" })
      )
    : Result.succeed({ seq, topic })
}

/** A cursor that a page of this selection may have given. */
export const parseCursorOf = (
  { pattern }: Selection,
  text: string
): Result.Result<Cursor, InvalidSelection> =>
  Result.flatMap(parseCursor(text), (cursor) => {
    const topic = Topic.parseTopic(cursor.topic)
    if (Result.isSuccess(topic) && Topic.matches(pattern, topic.success)) return Result.succeed(cursor)
    const reason = `'${cursor.topic}' is no topic of '${pattern.name}': ask with the 'topic' of the page before`
    return Result.fail(new InvalidSelection({ field: "after", reason }))
  })

// --- lines, written ------------------------------------------------------------------------------------------

export interface Header {
  /** The life of the store that it comes from. */
  readonly history: string
  /** Milliseconds since 1970. */
  readonly exportedAt: number
  readonly selection: Selection
}

export interface Trailer {
  readonly events: number
  /** Last events of keys that were trimmed. */
  readonly latest: number
  readonly topics: number
  /** SHA-256 of every byte between the first line and this one, as 64 hexadecimal digits. */
  readonly sha256: string
}

export const headerLine = ({ exportedAt, history, selection }: Header): string =>
  `${JSON.stringify({
    format,
    version,
    history,
    exportedAt,
    topic: selection.pattern.name,
    from: selection.from ?? null,
    to: selection.to ?? null
  })}\n`

export const eventLine = (record: Event.StoredRecord): string => `${Event.toJson(record)}\n`

export const latestLine = (record: Event.StoredRecord): string => `{"latest":${Event.toJson(record)}}\n`

export const trailerLine = ({ events, latest, sha256, topics }: Trailer): string =>
  `${JSON.stringify({ end: true, events, latest, topics, sha256 })}\n`

/** The file that an export is offered as. */
export const fileName = ({ exportedAt, selection }: Header): string => {
  const { concrete, name } = selection.pattern
  const what = concrete ? name.replaceAll(/[^\w.-]+/g, "_").slice(0, 100) : "events"
  // oxlint-disable-next-line no-restricted-globals -- a conversion of what is given: no clock is asked
  const at = new Date(exportedAt).toISOString()
  return `${what}-${at.replaceAll(/[-:]|\.\d+/g, "")}.ndjson`
}

// --- lines, read ---------------------------------------------------------------------------------------------

export type Line =
  | { readonly _tag: "Event"; readonly record: Event.StoredRecord }
  | { readonly _tag: "Latest"; readonly record: Event.StoredRecord }
  | { readonly _tag: "Trailer"; readonly trailer: Trailer }

const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0

/** Why the first line is not one that this version understands; nothing when it is. */
export const headerProblem = (text: string): string | undefined => {
  const value = Json.parseObject(text)
  if (value?.["format"] !== format) {
    return `the first line does not say "format":"${format}"; send a file that an export has made`
  }
  if (value["version"] !== version) {
    const found = value["version"]
    // It may be deeper than whoever prints it can stand.
    const shown =
      typeof found === "object" ? "of another kind" : (JSON.stringify(found) ?? "none").slice(0, 20)
    return `the file has version ${shown}, and this hub reads version ${version}`
  }
  return undefined
}

/** The life of the store that the file comes from, as its first line says. */
export const historyOf = (text: string): string | undefined => {
  const history = Json.parseObject(text)?.["history"]
  return typeof history === "string" ? history : undefined
}

const texts = ["type", "key", "caused_by", "sid"] as const

/** The event, or why it is none. `null` in an optional field is as good as none. */
const eventOf = (value: Json.JsonObject): Event.Event | string => {
  const { headers, id, payload, seq, storedAt, tags, topic, ts } = value
  if (typeof topic !== "string") return "'topic' must be a string"
  if (typeof id !== "string") return "'id' must be a string"
  if (!isCount(seq) || seq === 0) return "'seq' must be a whole number of at least 1"
  if (!isCount(storedAt)) return "'storedAt' must be milliseconds since 1970"
  if (typeof ts !== "number") return "'ts' must be a number"
  if (payload === undefined) return "'payload' is missing"
  const event: { -readonly [K in keyof Event.Event]: Event.Event[K] } = {
    id,
    topic,
    ts,
    seq,
    storedAt,
    payload
  }
  for (const name of texts) {
    const text = value[name]
    if (text === undefined || text === null) continue
    if (typeof text !== "string") return `'${name}' must be a string`
    event[name] = text
  }
  if (headers !== undefined && headers !== null) {
    if (!Json.isTextByName(headers)) return "'headers' must be an object of strings"
    event.headers = headers
  }
  if (tags !== undefined && tags !== null) {
    if (!Json.isTexts(tags)) return "'tags' must be an array of strings"
    event.tags = tags
  }
  return event
}

const recordOf = (
  value: Json.JsonObject,
  limits: Event.EventLimits
): Result.Result<Event.StoredRecord, string> => {
  const event = eventOf(value)
  if (typeof event === "string") return Result.fail(event)
  const isLetter = DeadLetter.isDeadLetterTopic(event.topic)
  if (Topic.isOwn(event.topic) && !isLetter) return Result.fail(Event.ownTopic)
  // A dead letter is larger than its original by what is said of its death.
  const encoded = Event.encodeEvent(event, isLetter ? DeadLetter.unlimited : limits)
  if (Result.isFailure(encoded)) return Result.fail(encoded.failure.message)
  const { seq, storedAt } = event
  return Result.succeed({ ...encoded.success, seq, storedAt })
}

const trailerIn = ({ events, latest, sha256, topics }: Json.JsonObject): Trailer | undefined =>
  isCount(events) && isCount(latest) && isCount(topics) && typeof sha256 === "string"
    ? { events, latest, topics, sha256 }
    : undefined

/** What the last line says; nothing when the line is another one. */
export const trailerOf = (text: string): Trailer | undefined => {
  const value = Json.parseObject(text)
  return value?.["end"] === true ? trailerIn(value) : undefined
}

/** One line behind the first. */
export const parseLine = (text: string, limits: Event.EventLimits): Result.Result<Line, string> => {
  const value = Json.parseObject(text)
  if (value === undefined) return Result.fail("it is no JSON object")
  const { end, latest } = value
  if (end === true) {
    const trailer = trailerIn(value)
    return trailer !== undefined
      ? Result.succeed({ _tag: "Trailer", trailer })
      : Result.fail("the last line must hold 'events', 'latest', 'topics' and 'sha256'")
  }
  if (latest === undefined) {
    return Result.map(recordOf(value, limits), (record): Line => ({ _tag: "Event", record }))
  }
  if (!Json.isObject(latest)) return Result.fail("'latest' must be an event")
  return Result.flatMap(recordOf(latest, limits), (record) => {
    if (record.key === undefined) return Result.fail("the last event of a key must have a 'key'")
    if (record.tombstone) return Result.fail("a payload of null is no last event of a key")
    return Result.succeed<Line>({ _tag: "Latest", record })
  })
}

/** What a file lacks that was read to its end; nothing when it is whole. */
export const missingOf = (said: Trailer | undefined, found: Trailer): string | undefined => {
  if (said === undefined) return "its last line is missing: the file is cut off"
  for (const what of ["events", "latest", "topics"] as const) {
    if (said[what] === found[what]) continue
    const name = what === "latest" ? "last events of keys" : what
    return `its last line counts ${said[what]} ${name}, and there are ${found[what]}`
  }
  return said.sha256 === found.sha256 ? undefined : "its checksum differs: it was changed on the way"
}
