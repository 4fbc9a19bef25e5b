/**
 * How much a client may send: which rates a message falls under, from the configuration and from its token.
 *
 * Three may be asked at once: the connection's, those of its subject on all connections, and the topic's. The
 * configuration protects the hub, so what a token says can only make that narrower; where the configuration has no
 * limit, the token's holds.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Rate } from "./RateLimit.ts"
import * as RuleText from "./RuleText.ts"
import * as Topic from "./Topic.ts"

/** Messages and bytes, each in a bucket of its own; none: no limit. */
export interface Rates {
  readonly messages: Rate | undefined
  readonly bytes: Rate | undefined
}

/**
 * How much may be published on topics. The first rule whose pattern matches a topic decides; each topic has buckets
 * of its own, unless the rule says `shared`. A rule without rates takes its topics out.
 */
export interface TopicQuota {
  readonly pattern: Topic.Pattern
  readonly events: Rate | undefined
  readonly bytes: Rate | undefined
  /** One bucket for all topics that the pattern matches. */
  readonly shared: boolean
}

export interface Quotas {
  readonly connection: Rates
  /** Of all connections of one subject together. */
  readonly subject: Rates
  readonly topics: ReadonlyArray<TopicQuota>
}

export const unlimited: Quotas = {
  connection: { messages: undefined, bytes: undefined },
  subject: { messages: undefined, bytes: undefined },
  topics: []
}

// --- which buckets a message spends from -------------------------------------------------------------------------

/** Which limit it is; these are labels of a metric, too. */
export type Kind =
  | "connection_messages"
  | "connection_bytes"
  | "subject_messages"
  | "subject_bytes"
  | "topic_events"
  | "topic_bytes"

/** One bucket, by its key, and what is spent from it. */
export interface Spending {
  readonly kind: Kind
  readonly key: string
  readonly rate: Rate
  readonly cost: number
}

/** PUBLISH costs a message and the bytes of its event, on its topic; SUBSCRIBE a message, and has no topic here. */
export interface Cost {
  readonly topic: string | undefined
  readonly bytes: number
}

export interface Who {
  readonly connection: string
  readonly sub: string
}

/** The rates of one connection with one token, ready to be asked for each message. */
export interface Account {
  readonly messages: ReadonlyArray<Omit<Spending, "cost">>
  readonly bytes: ReadonlyArray<Omit<Spending, "cost">>
  readonly topics: ReadonlyArray<{ readonly rules: ReadonlyArray<TopicQuota>; readonly of: string }>
}

/** The lower of two, in each of its numbers. */
export const narrower = (a: Rate | undefined, b: Rate | undefined): Rate | undefined =>
  a === undefined || b === undefined
    ? (a ?? b)
    : { perSecond: Math.min(a.perSecond, b.perSecond), burst: Math.min(a.burst, b.burst) }

const bucket = (kind: Kind, rate: Rate | undefined, of: string): ReadonlyArray<Omit<Spending, "cost">> =>
  rate === undefined ? [] : [{ kind, key: `${kind} ${of}`, rate }]

export const accountOf = (config: Quotas, { connection, sub }: Who, token: Quotas = unlimited): Account => ({
  messages: [
    ...bucket(
      "connection_messages",
      narrower(config.connection.messages, token.connection.messages),
      connection
    ),
    ...bucket("subject_messages", narrower(config.subject.messages, token.subject.messages), sub)
  ],
  bytes: [
    ...bucket("connection_bytes", narrower(config.connection.bytes, token.connection.bytes), connection),
    ...bucket("subject_bytes", narrower(config.subject.bytes, token.subject.bytes), sub)
  ],
  // What a token says of topics is its subject's share of them: the configuration's buckets are everybody's.
  topics: [
    { rules: config.topics, of: "" },
    { rules: token.topics, of: ` ${sub}` }
  ].filter(({ rules }) => rules.length > 0)
})

/** The rule of a topic; nothing when it has no limit. */
export const quotaFor = (
  rules: ReadonlyArray<TopicQuota>,
  topic: string | Topic.Topic
): TopicQuota | undefined => rules.find(({ pattern }) => Topic.matches(pattern, topic))

/** Everything that a message spends. Either all of it is there, or nothing is spent. */
export const spendingsOf = (account: Account, { bytes, topic }: Cost): ReadonlyArray<Spending> => {
  const spendings: Array<Spending> = []
  for (const of of account.messages) spendings.push({ ...of, cost: 1 })
  if (topic === undefined) return spendings
  for (const of of account.bytes) spendings.push({ ...of, cost: bytes })
  if (account.topics.length === 0) return spendings
  const parsed = Result.getOrElse(Topic.parseTopic(topic), () => topic)
  for (const { of, rules } of account.topics) {
    const rule = quotaFor(rules, parsed)
    if (rule === undefined) continue
    // No topic is named `*`, and neither topics nor patterns hold a space.
    const name = `${rule.pattern.name} ${rule.shared ? "*" : topic}${of}`
    for (const found of bucket("topic_events", rule.events, name)) spendings.push({ ...found, cost: 1 })
    for (const found of bucket("topic_bytes", rule.bytes, name)) spendings.push({ ...found, cost: bytes })
  }
  return spendings
}

/** Too much for now; nothing was spent. */
export interface Limited {
  readonly kind: Kind
  /** After so many milliseconds the same message passes, if nobody else spends before. */
  readonly retryAfterMs: number
}

/** For people. */
export const describe = (kind: Kind): string => {
  switch (kind) {
    case "connection_messages":
      return "too many messages on this connection"
    case "connection_bytes":
      return "too many bytes on this connection"
    case "subject_messages":
      return "too many messages of this subject"
    case "subject_bytes":
      return "too many bytes of this subject"
    case "topic_events":
      return "too many events on this topic"
    case "topic_bytes":
      return "too many bytes on this topic"
  }
}

// --- the text form of topic quotas -------------------------------------------------------------------------------

/** What a bucket counts up to without rounding. */
const most = 1_000_000_000_000

const units = [
  ["GiB", 1024 ** 3],
  ["GB", 1000 ** 3],
  ["MiB", 1024 ** 2],
  ["MB", 1000 ** 2],
  ["KiB", 1024],
  ["kB", 1000],
  ["B", 1]
] as const

/** A whole number from 1 on, of events or, with a unit, of bytes. */
interface Amount {
  readonly of: "events" | "bytes"
  readonly n: number
}

const parseAmount = (text: string): Amount | undefined => {
  const [, digits, name] = /^(\d{1,13})([A-Za-z]*)$/.exec(text) ?? []
  if (digits === undefined) return undefined
  const size = name === "" ? 1 : units.find(([unit]) => unit === name)?.[1]
  const n = Number(digits) * (size ?? NaN)
  return n >= 1 && n <= most ? { of: name === "" ? "events" : "bytes", n } : undefined
}

const formatBytes = (n: number): string => {
  const [unit, size] = units.find(([, size]) => n % size === 0) ?? ["B", 1]
  return `${n / size}${unit}`
}

export class InvalidQuota extends Schema.TaggedError<InvalidQuota>()("InvalidQuota", {
  problems: RuleText.Problems
}) {
  override get message() {
    return RuleText.formatProblems(this.problems)
  }
}

const { flaw, shown } = RuleText

const parseQuota: RuleText.Form<TopicQuota>["parse"] = (pattern, options, start) => {
  const none = { pattern, events: undefined, bytes: undefined, shared: false }
  if (options.length === 1 && options[0]?.text === "none") return Result.succeed(none)

  const rates = new Map<Amount["of"], number>()
  const bursts = new Map<Amount["of"], RuleText.Word & Amount>()
  let shared = false
  for (const { at, text } of options) {
    if (text === "none") return flaw(at, "'none' stands alone: what has no limit has no other option")
    if (text === "shared") {
      if (shared) return flaw(at, "'shared' stands twice; leave one of them out")
      shared = true
      continue
    }
    const rate = text.endsWith("/s") ? text.slice(0, -2) : undefined
    const burst = text.startsWith("burst=") ? text.slice("burst=".length) : undefined
    const given = rate ?? burst
    if (given === undefined) {
      return flaw(at, `${shown(text)} is no option; those are <amount>/s, burst=<amount>, shared and none`)
    }
    const amount = parseAmount(given)
    if (amount === undefined) {
      const bad = `${shown(given)} is no amount; write a whole number from 1 on`
      return flaw(at, `${bad}, and for bytes B, kB, MB, GB, KiB, MiB or GiB behind it, such as 500 or 1MB`)
    }
    if (rate === undefined ? bursts.has(amount.of) : rates.has(amount.of)) {
      const what = rate === undefined ? "burst" : "rate"
      return flaw(at, `the ${what} of ${amount.of} stands twice; leave one of them out`)
    }
    if (rate === undefined) bursts.set(amount.of, { at, text, ...amount })
    else rates.set(amount.of, amount.n)
  }
  for (const { at, of, text } of bursts.values()) {
    if (rates.has(of)) continue
    const example = of === "events" ? "500/s" : "1MB/s"
    return flaw(at, `${shown(text)} has no effect without a rate of ${of}, such as ${example}`)
  }
  if (rates.size === 0) {
    return flaw(
      start,
      "it does not say how much; add <events>/s or <bytes>/s, such as 500/s or 1MB/s, or none"
    )
  }
  const rateOf = (of: Amount["of"]): Rate | undefined => {
    const perSecond = rates.get(of)
    return perSecond === undefined ? undefined : { perSecond, burst: bursts.get(of)?.n ?? perSecond }
  }
  return Result.succeed({ ...none, events: rateOf("events"), bytes: rateOf("bytes"), shared })
}

/**
 * Reads the text form: rules as `<pattern>: <rates>`, separated by `;` or by lines. A rate is `500/s` (events) or
 * `1MB/s` (bytes); `burst=1000` or `burst=4MB` is what may come at once, the rate of a second unless given; `shared`
 * is one quota for all its topics; `none` alone takes topics out.
 */
export const parseQuotas = (text: string): Result.Result<ReadonlyArray<TopicQuota>, InvalidQuota> =>
  Result.mapError(
    RuleText.parse(text, { options: "<rates>", parse: parseQuota }),
    (problems) => new InvalidQuota({ problems })
  )

export const formatQuota = ({ bytes, events, pattern, shared }: TopicQuota): string => {
  const rate = (of: Rate | undefined, format: (n: number) => string): ReadonlyArray<string> =>
    of === undefined
      ? []
      : [`${format(of.perSecond)}/s`, ...(of.burst === of.perSecond ? [] : [`burst=${format(of.burst)}`])]
  const rates = [...rate(events, String), ...rate(bytes, formatBytes)]
  const options = rates.length === 0 ? ["none"] : [...rates, ...(shared ? ["shared"] : [])]
  return `${pattern.name}: ${options.join(" ")}`
}

/** The text form, which `parseQuotas` reads back. A pattern with `;` in it has none: write `*` in that place. */
export const formatQuotas = (rules: ReadonlyArray<TopicQuota>): string => rules.map(formatQuota).join("; ")

// --- the claim of a token ----------------------------------------------------------------------------------------

const Amount = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: most }))

const RateClaim = Schema.Struct({ perSecond: Amount, burst: Schema.optionalKey(Amount) })

const ratesClaim = { messages: Schema.optionalKey(RateClaim), bytes: Schema.optionalKey(RateClaim) }

/** `messages` and `bytes` of each connection with this token, `subject` of all together, `topics` in the text form. */
const LimitsClaim = Schema.Struct({
  ...ratesClaim,
  subject: Schema.optionalKey(Schema.Struct(ratesClaim)),
  topics: Schema.optionalKey(Schema.String)
})

/** A field that nobody knows may be one that was meant to limit: it is refused. */
const decodeClaim = Schema.decodeUnknownResult(LimitsClaim, { onExcessProperty: "error" })

const rateOf = (claim: typeof RateClaim.Type | undefined): Rate | undefined =>
  claim === undefined ? undefined : { perSecond: claim.perSecond, burst: claim.burst ?? claim.perSecond }

/** From the `limits` of a token; or why they cannot be used. */
export const parseClaim = (claim: unknown): Result.Result<Quotas, string> =>
  Result.flatMap(
    Result.mapError(decodeClaim(claim), (error) => `limits: ${error.message}`),
    ({ bytes, messages, subject, topics = "" }) =>
      Result.map(
        Result.mapError(parseQuotas(topics), (error) => `limits: topics: ${error.message}`),
        (rules): Quotas => ({
          connection: { messages: rateOf(messages), bytes: rateOf(bytes) },
          subject: { messages: rateOf(subject?.messages), bytes: rateOf(subject?.bytes) },
          topics: rules
        })
      )
  )
