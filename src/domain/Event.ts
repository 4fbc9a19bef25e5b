/**
 * Events: what a publisher gives, what the log holds, and the one encoding both share.
 *
 * An event is turned into JSON once, when it is accepted. The log stores that text, and the gateway sends it
 * with the two facts that only the store can add, `seq` and `storedAt`, put in front. Nothing on the way
 * parses or prints a payload again.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Json from "./Json.ts"
import * as Topic from "./Topic.ts"

/** What a publisher gives. `payload` is any JSON value; `undefined`, functions and cycles are refused. */
export interface NewEvent {
  /** Unique per topic. The same id again is the same event. */
  readonly id: string
  readonly topic: string
  /** The publisher's time in milliseconds since 1970. Information only: nothing is decided by it. */
  readonly ts: number
  readonly payload: unknown
  readonly type?: string
  /** Events of one key keep their order in the outbox and in `keyOrdered` groups. */
  readonly key?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly tags?: ReadonlyArray<string>
  /** The id of the event that led to this one. */
  readonly caused_by?: string
  /** The session or stream it belongs to, for whoever reads it. */
  readonly sid?: string
}

/** An event of the log. */
export interface Event extends NewEvent {
  /** 1, 2, 3, … without a hole within its topic. */
  readonly seq: number
  /** The store's time in milliseconds since 1970; never decreases within a topic. */
  readonly storedAt: number
}

/** An accepted event, encoded: what stores keep. */
export interface EventRecord {
  readonly topic: string
  readonly id: string
  readonly key: string | undefined
  /** Its payload is `null`, which removes its key from latest-by-key. */
  readonly tombstone: boolean
  /** A JSON object with every field of the event but `seq` and `storedAt`. */
  readonly body: string
}

export interface StoredRecord extends EventRecord {
  readonly seq: number
  readonly storedAt: number
}

/** Where in a topic: the `seq` of the last event seen. What follows it comes next. */
export type Position = number

export interface EventLimits {
  /** Bytes of the payload as JSON in UTF-8. */
  readonly maxPayloadBytes: number
  /** Characters of `id`, `type`, `key`, `caused_by`, `sid`, of a tag, and of a header's name. */
  readonly maxNameLength: number
  readonly maxHeaders: number
  /** Characters of all header names and values together. */
  readonly maxHeadersLength: number
  readonly maxTags: number
  /** Objects and arrays within each other. */
  readonly maxJsonDepth: number
}

export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()("PayloadTooLarge", {
  bytes: Schema.Int,
  maxBytes: Schema.Int
}) {
  override get message() {
    return `the payload has ${this.bytes} bytes; at most ${this.maxBytes} are allowed`
  }
}

export class InvalidEvent extends Schema.TaggedError<InvalidEvent>()("InvalidEvent", {
  reason: Schema.String
}) {
  override get message() {
    return `not an event: ${this.reason}`
  }
}

export type EventError = Topic.InvalidTopic | PayloadTooLarge | InvalidEvent

/** Length of a string in UTF-8, without making the bytes. */
export const utf8Length = (text: string): number => {
  let bytes = text.length
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x80) continue
    if (unit < 0x800) bytes += 1
    else if (unit >= 0xd800 && unit <= 0xdbff && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      // A pair of two units is four bytes.
      bytes += 2
      i++
    } else bytes += 2
  }
  return bytes
}

const notJson = "its payload is not JSON"

const tooDeep = ({ maxJsonDepth }: EventLimits): string =>
  `its payload has more than ${maxJsonDepth} objects and arrays within each other`

/** The payload as JSON; or why it is none that would come out as it went in. */
const printPayload = (
  payload: unknown,
  limits: EventLimits
): { readonly text: string } | { readonly reason: string } => {
  let text: string | undefined
  try {
    text = JSON.stringify(payload)
  } catch (error) {
    // The stack of the printer ends far beyond any limit; all else is a cycle, or a value that has no JSON.
    return { reason: error instanceof RangeError ? tooDeep(limits) : notJson }
  }
  if (text === undefined) return { reason: notJson }
  if (Json.isTextDeeper(text, limits.maxJsonDepth)) return { reason: tooDeep(limits) }
  // What is no finite number is printed as null.
  if (text.includes("null") && !Json.isFinite(payload)) {
    return { reason: "its payload holds a number beyond the range of a double" }
  }
  return { text }
}

const names = ["id", "type", "key", "caused_by", "sid"] as const

const problem = (event: NewEvent, limits: EventLimits): string | undefined => {
  if (event.id.length === 0) return "its id is empty"
  if (!Number.isFinite(event.ts)) return "its ts is no finite number"
  for (const name of names) {
    const value = event[name]
    if (value === undefined) continue
    if (value.length > limits.maxNameLength) {
      return `its ${name} is longer than ${limits.maxNameLength} characters`
    }
    // A lone surrogate has no UTF-8: a store would change it, and the id would never be found again.
    if (!value.isWellFormed()) return `its ${name} holds half of a surrogate pair`
  }
  if (event.headers !== undefined) {
    const headers = Object.entries(event.headers)
    if (headers.length > limits.maxHeaders) return `it has more than ${limits.maxHeaders} headers`
    let length = 0
    for (const [name, value] of headers) {
      if (name.length > limits.maxNameLength) {
        return `the name of a header is longer than ${limits.maxNameLength} characters`
      }
      length += name.length + value.length
    }
    if (length > limits.maxHeadersLength) {
      return `its headers have more than ${limits.maxHeadersLength} characters`
    }
  }
  if (event.tags !== undefined) {
    if (event.tags.length > limits.maxTags) return `it has more than ${limits.maxTags} tags`
    if (event.tags.some((tag) => tag.length > limits.maxNameLength)) {
      return `a tag is longer than ${limits.maxNameLength} characters`
    }
  }
  return undefined
}

/** Checks an event against the limits and encodes it. */
export const encodeEvent = (event: NewEvent, limits: EventLimits): Result.Result<EventRecord, EventError> => {
  const topic = Topic.parseTopic(event.topic)
  if (Result.isFailure(topic)) return Result.fail(topic.failure)
  const reason = problem(event, limits)
  if (reason !== undefined) return Result.fail(new InvalidEvent({ reason }))
  const printed = printPayload(event.payload, limits)
  if ("reason" in printed) return Result.fail(new InvalidEvent(printed))
  const payload = printed.text
  // No string has more than three bytes a unit: most payloads need no count.
  if (payload.length * 3 > limits.maxPayloadBytes) {
    const bytes = utf8Length(payload)
    if (bytes > limits.maxPayloadBytes) {
      return Result.fail(new PayloadTooLarge({ bytes, maxBytes: limits.maxPayloadBytes }))
    }
  }
  let body = `{"id":${JSON.stringify(event.id)},"topic":${JSON.stringify(event.topic)},"ts":${event.ts}`
  if (event.type !== undefined) body += `,"type":${JSON.stringify(event.type)}`
  if (event.key !== undefined) body += `,"key":${JSON.stringify(event.key)}`
  if (event.headers !== undefined) body += `,"headers":${JSON.stringify(event.headers)}`
  if (event.tags !== undefined) body += `,"tags":${JSON.stringify(event.tags)}`
  if (event.caused_by !== undefined) body += `,"caused_by":${JSON.stringify(event.caused_by)}`
  if (event.sid !== undefined) body += `,"sid":${JSON.stringify(event.sid)}`
  body += `,"payload":${payload}}`
  return Result.succeed({
    topic: event.topic,
    id: event.id,
    key: event.key,
    tombstone: payload === "null",
    body
  })
}

/** `encodeEvent` for what comes from outside: the hub's own topics are closed to everyone. */
export const acceptEvent = (event: NewEvent, limits: EventLimits): Result.Result<EventRecord, EventError> =>
  Topic.isOwn(event.topic)
    ? Result.fail(new Topic.InvalidTopic({ topic: event.topic, reason: ownTopic }))
    : encodeEvent(event, limits)

export const ownTopic = "topics that begin with '$' are the hub's own"

/** `acceptEvent` as an Effect. */
export const accept = (event: NewEvent, limits: EventLimits): Effect.Effect<EventRecord, EventError> =>
  Effect.fromResult(acceptEvent(event, limits))

/** What the text of an event holds, without what only the store can add. */
const fields = new Set(["topic", "ts", "headers", "tags", "payload", ...names])

/**
 * Why a record is not what `acceptEvent` makes; nothing when it could be. For records out of places that others may
 * write to: what is in the log goes on its way unread, so that nothing else may get there.
 */
export const unsound = ({ body, id, key, tombstone, topic }: EventRecord): string | undefined => {
  const parsed = Topic.parseTopic(topic)
  if (Result.isFailure(parsed)) return parsed.failure.message
  if (Topic.isOwn(topic)) return ownTopic
  // Other fields are put in front of these without a look, and others read the log line by line.
  if (!body.startsWith('{"')) return "its text does not begin as a JSON object without spaces"
  if (/[\r\n]/.test(body)) return "its text has several lines"
  const event = Json.parseObject(body)
  if (event === undefined) return "its text is no JSON object"
  const unknown = Object.keys(event).find((name) => !fields.has(name))
  if (unknown !== undefined) return `its text has a field '${unknown.slice(0, 100)}' that events have not`
  if (event["topic"] !== topic) return "its text has another topic"
  if (event["id"] !== id || id === "") return "its text has another id, or none"
  if (event["key"] !== key) return "its text has another key"
  if (!Number.isFinite(event["ts"])) return "its text has no ts"
  if (event["payload"] === undefined) return "its text has no payload"
  if ((event["payload"] === null) !== tombstone) return "it says of a payload that it is null, or not"
  const { headers, tags } = event
  for (const name of names) {
    if (event[name] !== undefined && typeof event[name] !== "string") return `its ${name} is no text`
  }
  if (headers !== undefined && !Json.isTextByName(headers)) return "its headers are no texts by name"
  return tags === undefined || Json.isTexts(tags) ? undefined : "its tags are no texts"
}

/** The JSON text of a stored event with all its fields, as it goes over the wire. */
export const toJson = (record: StoredRecord): string =>
  `{"seq":${record.seq},"storedAt":${record.storedAt},${record.body.slice(1)}`

/** A stored event as a value. The text is our own, so it is parsed without a check. */
export const decode = (record: StoredRecord): Event => JSON.parse(toJson(record)) as Event

/** Events as they go to a file: nobody looks into them on the way. */
export interface EventLines {
  /** The JSON of each event and a newline, in UTF-8. */
  readonly bytes: Uint8Array
  readonly count: number
  /** The seqs of the first and the last of them. */
  readonly first: number
  readonly last: number
}

const encoder = new TextEncoder()

/** Events of one topic as lines; nothing when there are none. */
export const toLines = (records: ReadonlyArray<StoredRecord>): EventLines | undefined => {
  const first = records[0]?.seq
  const last = records.at(-1)?.seq
  if (first === undefined || last === undefined) return undefined
  let text = ""
  for (const record of records) text += `${toJson(record)}\n`
  return { bytes: encoder.encode(text), count: records.length, first, last }
}
