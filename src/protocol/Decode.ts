/**
 * From the text of a frame to checked messages.
 *
 * Written by hand because every frame of every client goes through it: it allocates nothing but the message.
 * A bad element fails alone, with what was wrong and the `ref` to answer under; only a frame that is no JSON,
 * or no message and no array of messages, fails as a whole. Unknown fields are ignored, and `null` in an
 * optional field is as good as none, since many encoders write it so.
 */
import type {
  Ack,
  Auth,
  ClientMessage,
  Extend,
  From,
  GroupOptions,
  LiveOptions,
  Nack,
  Ping,
  Publish,
  PublishOptions,
  Ref,
  Subscribe,
  Unsubscribe
} from "./Messages.ts"

/** A message that cannot be understood. `ref` is there when the sender gave a usable one. */
export interface Malformed {
  readonly op: "MALFORMED"
  readonly ref?: Ref
  readonly msg: string
}

export type Decoded = ClientMessage | Malformed

export interface DecodeLimits {
  /** Messages in one frame. */
  readonly maxMessages: number
  /** Ids in one ACK. */
  readonly maxAckIds: number
}

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isAbsent = (value: unknown): value is undefined | null => value === undefined || value === null

/** Thrown and caught inside this module only: a message has many fields, and the first bad one decides. */
class Bad extends Error {}

const bad = (msg: string): never => {
  throw new Bad(msg)
}

const refOf = (message: Json): Ref | undefined => {
  const ref = message["ref"]
  // JSON.parse reads 1e999 as Infinity, which would be sent back as null.
  if (typeof ref === "number") return Number.isFinite(ref) ? ref : undefined
  return typeof ref === "string" && ref.length <= 256 ? ref : undefined
}

const text = (message: Json, field: string): string => {
  const value = message[field]
  return typeof value === "string"
    ? value
    : bad(isAbsent(value) ? `'${field}' is missing` : `'${field}' must be a string`)
}

const optionalText = (message: Json, field: string): string | undefined =>
  isAbsent(message[field]) ? undefined : text(message, field)

const optionalInt = (message: Json, field: string, min: number): number | undefined => {
  const value = message[field]
  if (isAbsent(value)) return undefined
  return typeof value === "number" && Number.isSafeInteger(value) && value >= min
    ? value
    : bad(`'${field}' must be a whole number of at least ${min}`)
}

const optionalBoolean = (message: Json, field: string): boolean | undefined => {
  const value = message[field]
  if (isAbsent(value)) return undefined
  return typeof value === "boolean" ? value : bad(`'${field}' must be true or false`)
}

const optionalChoice = <A extends string>(
  message: Json,
  field: string,
  choices: ReadonlyArray<A>
): A | undefined => {
  const value = message[field]
  if (isAbsent(value)) return undefined
  return choices.includes(value as A)
    ? (value as A)
    : bad(`'${field}' must be one of ${choices.map((choice) => `"${choice}"`).join(", ")}`)
}

const optionalStrings = (message: Json, field: string): ReadonlyArray<string> | undefined => {
  const value = message[field]
  if (isAbsent(value)) return undefined
  return Array.isArray(value) && value.every((item) => typeof item === "string")
    ? value
    : bad(`'${field}' must be an array of strings`)
}

const optionalHeaders = (message: Json): Readonly<Record<string, string>> | undefined => {
  const value = message["headers"]
  if (isAbsent(value)) return undefined
  if (!isObject(value)) return bad("'headers' must be an object of strings")
  for (const name of Object.keys(value)) {
    if (typeof value[name] !== "string") return bad("'headers' must be an object of strings")
  }
  return value as Readonly<Record<string, string>>
}

const options = (message: Json): Json | undefined => {
  const value = message["opts"]
  if (isAbsent(value)) return undefined
  return isObject(value) ? value : bad("'opts' must be an object")
}

/**
 * Leaves out the fields that are undefined, so that what is absent on the wire is absent in the value.
 * A copy, because `delete` would turn the object into a slow dictionary.
 */
const compact = <A extends object>(value: { [K in keyof A]: A[K] | undefined }): A => {
  const out: Partial<A> = {}
  for (const field in value) if (value[field] !== undefined) out[field] = value[field] as A[typeof field]
  return out as A
}

const withRef = <A extends ClientMessage>(message: Json, value: A): A => {
  const ref = refOf(message)
  if (ref !== undefined) (value as { ref?: Ref }).ref = ref
  return value
}

const publishOptions = (opts: Json): PublishOptions => {
  const ts = opts["ts"]
  if (!isAbsent(ts) && !(typeof ts === "number" && Number.isFinite(ts))) bad("'ts' must be a number")
  return compact<PublishOptions>({
    id: optionalText(opts, "id"),
    type: optionalText(opts, "type"),
    key: optionalText(opts, "key"),
    headers: optionalHeaders(opts),
    tags: optionalStrings(opts, "tags"),
    caused_by: optionalText(opts, "caused_by"),
    sid: optionalText(opts, "sid"),
    ts: isAbsent(ts) ? undefined : (ts as number)
  })
}

/** Each says where to begin by itself: a message with two of them means something that nobody would guess. */
const beginnings = ["after", "time", "topics"]

const fromOf = (opts: Json): From | undefined => {
  const from = opts["from"]
  if (isAbsent(from)) return undefined
  if (from === "new" || from === "start") return from
  if (isObject(from) && beginnings.filter((field) => !isAbsent(from[field])).length === 1) {
    const after = optionalInt(from, "after", 0)
    if (after !== undefined) return { after }
    const time = from["time"]
    if (typeof time === "number" && Number.isFinite(time)) return { time }
    const topics = from["topics"]
    if (isObject(topics)) {
      for (const topic of Object.keys(topics)) {
        if (optionalInt(topics, topic, 0) === undefined) bad("'topics' must hold numbers")
      }
      const rest = optionalChoice(from, "rest", ["start", "new"])
      const positions = topics as Readonly<Record<string, number>>
      return rest === undefined ? { topics: positions } : { topics: positions, rest }
    }
  }
  return bad(`'from' must be "new", "start", { after }, { time } or { topics, rest? }`)
}

const subscribeOptions = (opts: Json): LiveOptions & GroupOptions =>
  compact<LiveOptions & GroupOptions>({
    from: fromOf(opts),
    history: optionalText(opts, "history"),
    overflow: optionalChoice(opts, "overflow", ["catchup", "close"]),
    credit: optionalInt(opts, "credit", 1),
    ackTimeoutMs: optionalInt(opts, "ackTimeoutMs", 1),
    maxAttempts: optionalInt(opts, "maxAttempts", 1),
    keyOrdered: optionalBoolean(opts, "keyOrdered")
  })

const auth = (message: Json): Auth =>
  withRef(message, { op: "AUTH", token: optionalText(message, "token") ?? "" })

const publish = (message: Json): Publish => {
  const topic = text(message, "topic")
  const payload = message["payload"]
  if (payload === undefined) bad("'payload' is missing; send null for none")
  const opts = options(message)
  return withRef(
    message,
    opts === undefined
      ? { op: "PUBLISH", topic, payload }
      : { op: "PUBLISH", topic, payload, opts: publishOptions(opts) }
  )
}

const subscribe = (message: Json): Subscribe => {
  const topic = text(message, "topic")
  const group = optionalText(message, "group")
  const opts = options(message)
  return withRef(
    message,
    compact<Subscribe>({
      op: "SUBSCRIBE",
      topic,
      group,
      opts: opts === undefined ? undefined : subscribeOptions(opts)
    })
  )
}

const unsubscribe = (message: Json): Unsubscribe =>
  withRef(
    message,
    compact<Unsubscribe>({
      op: "UNSUBSCRIBE",
      topic: text(message, "topic"),
      group: optionalText(message, "group")
    })
  )

const ack = (message: Json, limits: DecodeLimits): Ack => {
  if (!isAbsent(message["ids"]) && !isAbsent(message["id"])) bad("an ACK has 'id' or 'ids', not both")
  const ids = optionalStrings(message, "ids") ?? [text(message, "id")]
  if (ids.length > limits.maxAckIds) bad(`an ACK holds at most ${limits.maxAckIds} ids`)
  return withRef(
    message,
    compact<Ack>({
      op: "ACK",
      topic: text(message, "topic"),
      group: text(message, "group"),
      ids,
      attempt: optionalInt(message, "attempt", 1)
    })
  )
}

const nack = (message: Json): Nack =>
  withRef(
    message,
    compact<Nack>({
      op: "NACK",
      topic: text(message, "topic"),
      group: text(message, "group"),
      id: text(message, "id"),
      attempt: optionalInt(message, "attempt", 1),
      reason: optionalText(message, "reason"),
      mode: optionalChoice(message, "mode", ["fail", "release", "poison"]),
      delayMs: optionalInt(message, "delayMs", 0)
    })
  )

const extend = (message: Json): Extend =>
  withRef(
    message,
    compact<Extend>({
      op: "EXTEND",
      topic: text(message, "topic"),
      group: text(message, "group"),
      id: text(message, "id"),
      attempt: optionalInt(message, "attempt", 1),
      byMs: optionalInt(message, "byMs", 1)
    })
  )

const ping = (message: Json): Ping => withRef(message, { op: "PING" })

const decodeMessage = (value: unknown, limits: DecodeLimits): Decoded => {
  if (!isObject(value)) return { op: "MALFORMED", msg: "a message is an object" }
  try {
    if (!isAbsent(value["ref"]) && refOf(value) === undefined) {
      return { op: "MALFORMED", msg: "'ref' must be a number or a string of at most 256 characters" }
    }
    switch (value["op"]) {
      case "AUTH":
        return auth(value)
      case "PUBLISH":
        return publish(value)
      case "SUBSCRIBE":
        return subscribe(value)
      case "UNSUBSCRIBE":
        return unsubscribe(value)
      case "ACK":
        return ack(value, limits)
      case "NACK":
        return nack(value)
      case "EXTEND":
        return extend(value)
      case "PING":
        return ping(value)
      default:
        return bad("unknown 'op'")
    }
  } catch (error) {
    if (!(error instanceof Bad)) throw error
    const ref = refOf(value)
    return ref === undefined
      ? { op: "MALFORMED", msg: error.message }
      : { op: "MALFORMED", ref, msg: error.message }
  }
}

/** Checks one frame. The answer is never empty unless the frame was an empty array. */
export const decodeFrame = (frame: string, limits: DecodeLimits): ReadonlyArray<Decoded> => {
  let value: unknown
  try {
    value = JSON.parse(frame)
  } catch {
    return [{ op: "MALFORMED", msg: "the frame is not JSON" }]
  }
  if (!Array.isArray(value)) return [decodeMessage(value, limits)]
  if (value.length > limits.maxMessages) {
    return [{ op: "MALFORMED", msg: `a frame holds at most ${limits.maxMessages} messages` }]
  }
  return value.map((item) => decodeMessage(item, limits))
}
