/**
 * What a hub tells of itself once a second, as the payload of `$hub.stats`: numbers only, and no names of anything.
 *
 * Counters are read as they are, since the hub started; latencies are those of the time since the last look, taken
 * out of histograms, and so as exact as the bounds of these.
 */

export interface Quantiles {
  /** In seconds. */
  readonly p50: number
  readonly p99: number
  /** No observation was longer; that of all, where no bound says it. */
  readonly max: number
}

export interface HubStats {
  /** The hub's time in milliseconds since 1970. */
  readonly at: number
  /** A random id of this run of the hub. */
  readonly hub: string
  readonly startedAt: number
  /** It takes work: it is not stopping, its store answers, and its own outbox is drained. */
  readonly ready: boolean
  readonly connections: number
  /** Bytes that wait for clients to read them. */
  readonly outboundBytes: number
  /** Since the hub started. */
  readonly totals: Readonly<Record<TotalName, number>>
  /** `null`: there was nothing in that time. */
  readonly latency: Readonly<Record<LatencyName, Quantiles | null>>
  /** All outboxes of the hub; `null`: none of them answers. */
  readonly outbox: {
    readonly pending: number
    readonly dead: number
    readonly oldestAgeMs: number
    /** Somebody paused one of them. */
    readonly paused: boolean
  } | null
  /** Of all groups; `null` where the store does not answer, as with the others. */
  readonly pending: number | null
  readonly inFlight: number | null
  readonly topics: number | null
  readonly groups: number | null
  /** 99th percentile of the event loop's delay since the last look; `null` where nobody measures it. */
  readonly loopDelayMs: number | null
  readonly rssBytes: number | null
}

/** What is counted. */
export type TotalName =
  | "appended"
  | "duplicates"
  | "notAppended"
  | "trimmed"
  | "liveDeliveries"
  | "groupDeliveries"
  | "redeliveries"
  | "acks"
  | "nacks"
  | "deadLetters"
  | "outboxSent"
  | "outboxFailed"
  | "errors"
  | "rateLimited"
  | "connectionsOpened"
  | "connectionsClosed"

/**
 * `publish`: from the frame of a publish to its OK. `append`: how long events wait for their batch. `commit`: how long
 * the store takes for one. `delivery`: from being stored to being sent, live and in groups.
 */
export type LatencyName = "publish" | "append" | "commit" | "delivery"

/** A histogram as it was read: observations up to each bound, which rise; and the longest of all. */
export interface Histogram {
  readonly buckets: ReadonlyArray<readonly [bound: number, upTo: number]>
  readonly count: number
  readonly max: number
}

/** The value below which a part of the observations lies, as if they were spread evenly between two bounds. */
const quantile = (
  counts: ReadonlyArray<readonly [number, number]>,
  count: number,
  q: number,
  max: number
): number => {
  const rank = q * count
  let below = 0
  let lower = 0
  for (const [bound, upTo] of counts) {
    if (upTo >= rank && upTo > below) {
      const upper = Math.min(bound, max)
      return Math.min(upper, lower + ((upper - lower) * (rank - below)) / (upTo - below))
    }
    below = upTo
    lower = bound
  }
  return max
}

/** What was observed between two looks at a histogram; nothing when nothing was. */
export const between = (before: Histogram | undefined, now: Histogram): Quantiles | null => {
  const count = now.count - (before?.count ?? 0)
  if (count <= 0) return null
  const counts = now.buckets.map(
    ([bound, upTo], i) => [bound, upTo - (before?.buckets[i]?.[1] ?? 0)] as const
  )
  // Of the longest since the start nobody knows when it was, unless it was just now.
  const last = counts.find(([, upTo]) => upTo >= count)?.[0] ?? Infinity
  const max = Math.min(last, now.max)
  return { p50: quantile(counts, count, 0.5, max), p99: quantile(counts, count, 0.99, max), max }
}
