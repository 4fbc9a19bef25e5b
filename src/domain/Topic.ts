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

/** Segments of a pattern, without those at `to` and beyond. */
interface Block {
  readonly from: number
  readonly to: number
}

/** What stands between two `**`, and how many segments each `**` takes at least, given the `*` beside it. */
interface Parts {
  /** One more than `least`: the first stands at the start, the last at the end. */
  readonly blocks: ReadonlyArray<Block>
  readonly least: ReadonlyArray<number>
}

/** `a.*.**.b` is `a`, anything of one segment or more, `b`; and so is `a.**.*.b`. */
const partsOf = (segments: ReadonlyArray<string>): Parts => {
  const blocks: Array<Block> = []
  const least: Array<number> = []
  let from = 0
  for (let i = 0; i < segments.length; i++) {
    const to = i
    let stars = 0
    let isGap = false
    for (let segment = segments[i]; isWildcard(segment); segment = segments[++i]) {
      if (segment === "*") stars++
      else isGap = true
    }
    if (!isGap) continue
    blocks.push({ from, to })
    least.push(stars)
    from = i
  }
  blocks.push({ from, to: segments.length })
  return { blocks, least }
}

/** No topic is empty, and none that a wildcard begins is the hub's own: a `**` in front may have to take a segment. */
const takesOne = (segments: ReadonlyArray<string>): boolean => {
  if (segments[0] !== "**") return false
  const next = segments.find((segment) => segment !== "**")
  return next === undefined || isOwn(next)
}

/**
 * Whether every topic that `b` matches is matched by `a`. A string that is not valid covers nothing and is
 * covered by nothing.
 *
 * Exact, in as many steps as the product of the two lengths at most: there are more segments than are written in
 * any pattern, so what stands between two `**` of `a` has to be found as it is within `b`, where no `**` is, and the
 * first place where it is found is as good as any later one (docs/decisions/covers.md).
 */
export const covers = (a: string | Pattern, b: string | Pattern): boolean => {
  const pa = asPattern(a)
  const pb = asPattern(b)
  if (pa === undefined || pb === undefined) return false
  // An own topic is matched only by patterns that begin with its first segment as written.
  if (isOwn(pb.segments[0]!) && isWildcard(pa.segments[0])) return false
  const { blocks, least } = partsOf(pa.segments)
  // What a `**` in front has to take stands before it as a `*`. Nothing is copied for that: the steps are counted.
  const shift = takesOne(pb.segments) ? 1 : 0
  const length = pb.segments.length + shift
  const segmentAt = (at: number): string | undefined => (at < shift ? "*" : pb.segments[at - shift])
  const isAt = ({ from, to }: Block, at: number): boolean => {
    for (let i = from; i < to; i++) {
      const segment = pa.segments[i]
      const there = segmentAt(at + i - from)
      if (segment !== there && (segment !== "*" || there === "**" || there === undefined)) return false
    }
    return true
  }
  const lengthOf = ({ from, to }: Block): number => to - from

  const first = blocks[0]!
  const last = blocks.at(-1)!
  if (least.length === 0) return lengthOf(first) === length && isAt(first, 0)
  const end = length - lengthOf(last)
  if (end < lengthOf(first) || !isAt(first, 0) || !isAt(last, end)) return false
  let at = lengthOf(first)
  for (const [i, n] of least.entries()) {
    for (let left = n; left > 0; at++) {
      if (at === end) return false
      if (segmentAt(at) !== "**") left--
    }
    if (i === least.length - 1) break
    const block = blocks[i + 1]!
    while (at + lengthOf(block) <= end && !isAt(block, at)) at++
    at += lengthOf(block)
    if (at > end) return false
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
