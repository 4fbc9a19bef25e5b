/**
 * Topics, patterns, and how they relate.
 *
 * A topic is a name like `orders.eu.created`. A pattern is a topic whose segments may be `*` (exactly one
 * segment) or `**` (zero or more). A first segment that starts with `$` is the hub's own: no pattern that
 * begins with a wildcard matches it, as in MQTT 5.0, section 4.7.2.
 *
 * No function here backtracks exponentially, whatever the pattern: they are asked about what strangers send.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { matchesSegments } from "../protocol/Segments.ts"

export interface Topic {
  readonly _tag: "Topic"
  readonly name: string
  readonly segments: ReadonlyArray<string>
}

export interface Pattern {
  readonly _tag: "Pattern"
  readonly name: string
  /** As written, but runs of `**` are one `**`, which matches the same. */
  readonly segments: ReadonlyArray<string>
  /** A pattern without wildcards matches one topic: itself. */
  readonly concrete: boolean
}

export class InvalidTopic extends Schema.TaggedError<InvalidTopic>()("InvalidTopic", {
  topic: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `not a topic: ${this.reason}`
  }
}

export class InvalidPattern extends Schema.TaggedError<InvalidPattern>()("InvalidPattern", {
  pattern: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `not a pattern: ${this.reason}`
  }
}

export const maxSegments = 32
export const maxSegmentLength = 64
export const maxBytes = 512

/** What a name may have beyond other topics. */
interface Extra {
  readonly segments: number
  readonly bytes: number
}

/** What `$dead.<group>.` adds to the longest topic: the hub's own topics may be that much longer. */
const own: Extra = { segments: 2, bytes: "$dead..".length + maxSegmentLength }

/** `$hub.group.<group>.` stands before any topic, also before one of dead letters. */
const live: Extra = {
  segments: own.segments + 3,
  bytes: own.bytes + "$hub.group..".length + maxSegmentLength
}

const extraOf = (name: string): Extra =>
  isOwn(name) ? (name.startsWith("$hub.") ? live : own) : { segments: 0, bytes: 0 }

/** Printable ASCII without space, `.` and `*`. */
const literal = /^[!-)+-\-/-~]+$/

/** Whether a name is the hub's own. Nobody publishes there but the hub. */
export const isOwn = (name: string): boolean => name.startsWith("$")

/** Why these segments are none, or nothing when they are fine. */
const problem = (name: string, segments: ReadonlyArray<string>, wildcards: boolean): string | undefined => {
  const extra = extraOf(name)
  if (name.length === 0) return "it is empty"
  if (segments.length > maxSegments + extra.segments) return `it has more than ${maxSegments} segments`
  for (const segment of segments) {
    if (segment.length === 0) return "it has an empty segment"
    if (wildcards && (segment === "*" || segment === "**")) continue
    if (segment.length > maxSegmentLength) return `a segment has more than ${maxSegmentLength} characters`
    if (segment.includes("*")) {
      return wildcards
        ? "'*' stands only as a whole segment, '*' or '**'"
        : "a topic holds no '*'; that is for patterns"
    }
    if (!literal.test(segment)) return "a segment holds printable ASCII only, without space, '.' and '*'"
  }
  // Every character is one byte by now.
  if (name.length > maxBytes + extra.bytes) return `it is longer than ${maxBytes} bytes`
  return undefined
}

/** A long or binary name is cut in an error: errors go to logs and back to whoever sent it. */
const shown = (name: string): string => (name.length > 128 ? `${name.slice(0, 128)}…` : name)

export const parseTopic = (name: string): Result.Result<Topic, InvalidTopic> => {
  const segments = name.split(".")
  const reason = problem(name, segments, false)
  return reason === undefined
    ? Result.succeed({ _tag: "Topic", name, segments })
    : Result.fail(new InvalidTopic({ topic: shown(name), reason }))
}

export const parsePattern = (name: string): Result.Result<Pattern, InvalidPattern> => {
  const written = name.split(".")
  const reason = problem(name, written, true)
  if (reason !== undefined) return Result.fail(new InvalidPattern({ pattern: shown(name), reason }))
  const segments = written.filter((segment, i) => segment !== "**" || written[i - 1] !== "**")
  return Result.succeed({ _tag: "Pattern", name, segments, concrete: !name.includes("*") })
}

/** `parseTopic` as an Effect. */
export const topic = (name: string): Effect.Effect<Topic, InvalidTopic> => Effect.fromResult(parseTopic(name))

/** `parsePattern` as an Effect. */
export const pattern = (name: string): Effect.Effect<Pattern, InvalidPattern> =>
  Effect.fromResult(parsePattern(name))

/** A consumer group's name, and whatever else has to be exactly one segment. */
export const isSegment = (name: string): boolean => problem(name, [name], false) === undefined

const asTopic = (value: string | Topic): Topic | undefined =>
  typeof value === "string" ? Result.getOrUndefined(parseTopic(value)) : value

const asPattern = (value: string | Pattern): Pattern | undefined =>
  typeof value === "string" ? Result.getOrUndefined(parsePattern(value)) : value

const isWildcard = (segment: string | undefined): boolean => segment === "*" || segment === "**"

/** Whether the pattern matches the topic. A string that is not valid matches nothing. */
export const matches = (pattern: string | Pattern, topic: string | Topic): boolean => {
  const p = asPattern(pattern)
  const t = asTopic(topic)
  return p !== undefined && t !== undefined && matchesSegments(p.segments, t.segments)
}

/**
 * A pattern as a nondeterministic automaton whose set of states is the bits of a number: bit i stands for
 * "the first i segments are used up". Runs of `**` are one, so one shift closes a set over empty matches.
 */
interface Automaton {
  readonly many: bigint
  readonly one: bigint
  readonly literals: ReadonlyMap<string, bigint>
  readonly accepting: bigint
}

const automaton = (segments: ReadonlyArray<string>): Automaton => {
  let many = 0n
  let one = 0n
  const literals = new Map<string, bigint>()
  segments.forEach((segment, i) => {
    const bit = 1n << BigInt(i)
    if (segment === "**") many |= bit
    else if (segment === "*") one |= bit
    else literals.set(segment, (literals.get(segment) ?? 0n) | bit)
  })
  return { many, one, literals, accepting: 1n << BigInt(segments.length) }
}

const close = (a: Automaton, states: bigint): bigint => states | ((states & a.many) << 1n)

/** One segment further. `undefined` stands for a segment that is written in no pattern. */
const step = (a: Automaton, states: bigint, segment: string | undefined): bigint => {
  const named = segment === undefined ? 0n : (a.literals.get(segment) ?? 0n)
  return close(a, (states & a.many) | ((states & (a.one | named)) << 1n))
}

/**
 * How many states `covers` looks at before it gives up and answers "no", which denies. Patterns that people
 * write need fewer than a hundred; the bound is for those that are made to be slow.
 */
const coversBudget = 10_000

/**
 * Whether every topic that `b` matches is matched by `a`. A string that is not valid covers nothing and is
 * covered by nothing.
 *
 * Walks `b` while `a` follows as an automaton. Where `b` has a wildcard, a segment that stands in neither
 * pattern is the hardest case for `a`, so no other needs to be tried.
 */
export const covers = (a: string | Pattern, b: string | Pattern): boolean => {
  const pa = asPattern(a)
  const pb = asPattern(b)
  if (pa === undefined || pb === undefined) return false
  const nfa = automaton(pa.segments)
  const segments = pb.segments
  // An own topic is matched only by patterns that begin with its first segment as written.
  if (isOwn(segments[0]!) && isWildcard(pa.segments[0])) return false
  const seen = new Set<string>()
  const open: Array<readonly [at: number, states: bigint, used: boolean]> = [[0, close(nfa, 1n), false]]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [at, states, used] = next
    const key = `${at} ${states} ${used}`
    if (seen.has(key)) continue
    if (seen.size === coversBudget) return false
    seen.add(key)
    const segment = segments[at]
    if (segment === undefined) {
      // No topic is empty, so what was reached without a segment is no counterexample.
      if (used && (states & nfa.accepting) === 0n) return false
    } else if (segment === "**") {
      open.push([at + 1, states, used], [at, step(nfa, states, undefined), true])
    } else if (segment === "*") {
      open.push([at + 1, step(nfa, states, undefined), true])
    } else if (used || at === 0 || !isOwn(segment)) {
      open.push([at + 1, step(nfa, states, segment), true])
    }
  }
  return true
}

/** Whether some topic is matched by both. A string that is not valid overlaps nothing. */
export const overlaps = (a: string | Pattern, b: string | Pattern): boolean => {
  const pa = asPattern(a)?.segments
  const pb = asPattern(b)?.segments
  if (pa === undefined || pb === undefined) return false
  const guarded = isWildcard(pa[0]) || isWildcard(pb[0])
  const width = pb.length + 1
  const seen = new Uint8Array((pa.length + 1) * width * 2)
  const open: Array<readonly [i: number, j: number, used: 0 | 1]> = [[0, 0, 0]]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [i, j, used] = next
    const at = (i * width + j) * 2 + used
    if (seen[at] === 1) continue
    seen[at] = 1
    const x = pa[i]
    const y = pb[j]
    if (x === undefined && y === undefined && used === 1) return true
    if (x === "**") open.push([i + 1, j, used])
    if (y === "**") open.push([i, j + 1, used])
    if (x === undefined || y === undefined) continue
    const same = x === y || isWildcard(x) || isWildcard(y)
    const written = isWildcard(x) ? y : x
    if (!same || (used === 0 && guarded && isOwn(written))) continue
    open.push([x === "**" ? i : i + 1, y === "**" ? j : j + 1, 1])
  }
  return false
}
