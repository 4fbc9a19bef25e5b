/**
 * What the hub counts and times, with the names that Prometheus gets (https://prometheus.io/docs/practices/naming).
 *
 * No topic, user, group or connection is ever a label: their number has no bound, and every label value is a
 * time series. What depends on them is answered by the ops API. Labels that there are have closed sets of values, or
 * are names of the configuration; docs/observability.md lists all of them.
 *
 * Counters and histograms are plain numbers, read when somebody scrapes: what is on the way of every event cannot
 * afford to look its series up in a registry.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type { Kind } from "../../domain/Quota.ts"
import { CloseCode, errorCodes } from "../../protocol/Codes.ts"
import type { EndReason } from "../../protocol/Messages.ts"

const counter = (name: string, description: string) =>
  Metric.counter(name, { description, incremental: true })

const gauge = (name: string, description: string) => Metric.gauge(name, { description })

const boundariesOf = new WeakMap<object, ReadonlyArray<number>>()

const histogram = (name: string, boundaries: ReadonlyArray<number>, description: string) => {
  const made = Metric.histogram(name, { description, boundaries })
  boundariesOf.set(made, boundaries)
  return made
}

/** Seconds, from a tenth of a millisecond to ten seconds: what a machine does. */
const durations = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
]

/** Seconds, from a millisecond to an hour: what waits for others. */
const waits = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600]

// --- into the log --------------------------------------------------------------------------------------------

export const publishDuration = histogram(
  "event_hub_publish_duration_seconds",
  durations,
  "From the frame of a publish that a connection sent to its OK."
)

export const appended = counter("event_hub_events_appended_total", "Events that were new to the log.")

export const duplicates = counter(
  "event_hub_events_duplicate_total",
  "Events that the log held already, by their id."
)

export const notAppended = counter(
  "event_hub_events_not_appended_total",
  "Events that the store refused, alone or with the whole batch."
)

export const appendWait = histogram(
  "event_hub_append_wait_duration_seconds",
  durations,
  "How long events wait for the batch that they are committed in."
)

export const commitDuration = histogram(
  "event_hub_commit_duration_seconds",
  durations,
  "How long the store takes to commit a batch of events."
)

export const batchSize = histogram(
  "event_hub_append_batch_events",
  [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
  "Events that were committed together."
)

export const appendQueued = gauge("event_hub_append_queued_events", "Events that wait for the store.")

export const trimmed = counter("event_hub_events_trimmed_total", "Events that retention forgot.")

// --- out of it -----------------------------------------------------------------------------------------------

export const liveDeliveries = counter(
  "event_hub_live_deliveries_total",
  "Events handed to live subscribers on connections."
)

export const groupDeliveries = counter(
  "event_hub_group_deliveries_total",
  "Events handed to members of groups."
)

export const groupRedeliveries = counter(
  "event_hub_group_redeliveries_total",
  "Events handed to members of groups that had been delivered before."
)

export const groupAcks = counter("event_hub_group_acks_total", "Events acknowledged by groups.")

export const groupNacks = counter("event_hub_group_nacks_total", "Events refused by members of groups.")

export const deadLetters = counter("event_hub_dead_letters_total", "Events that groups gave up.")

/** By path: live subscribers who are at the end of a topic, and first deliveries to groups. */
export const storedToSent = histogram(
  "event_hub_stored_to_sent_duration_seconds",
  waits,
  "From the time an event was stored at until it was handed to a connection, by path."
)

export const sentToAcked = histogram(
  "event_hub_sent_to_acked_duration_seconds",
  waits,
  "From the delivery of an event to a member of a group until its acknowledgement was stored."
)

export const liveSubscriptions = gauge("event_hub_live_subscriptions", "Live subscriptions that are open.")

export const groupMembers = gauge("event_hub_group_members", "Members of groups that are connected here.")

export const groupInFlight = gauge(
  "event_hub_group_in_flight_events",
  "Deliveries to members of groups that are not answered yet."
)

export const livePauses = counter(
  "event_hub_live_pauses_total",
  "Times that a live subscription got nothing more for a while, since its client read too slowly."
)

/** By path. */
export const gaps = counter(
  "event_hub_gaps_total",
  "Gaps that subscribers were told of, for events that were trimmed before they came, by path."
)

/** By reason. */
export const subscriptionsEnded = counter(
  "event_hub_subscriptions_ended_total",
  "Subscriptions that the hub ended, by reason."
)

// --- connections ---------------------------------------------------------------------------------------------

export const connections = gauge("event_hub_connections", "Connections that are open.")

export const outboundBytes = gauge(
  "event_hub_outbound_bytes",
  "Bytes that wait for clients to read them, over all connections."
)

export const connectionsOpened = counter(
  "event_hub_connections_opened_total",
  "Connections that were accepted."
)

/** By close code, and what it is called: a closed set. */
export const connectionsClosed = counter(
  "event_hub_connections_closed_total",
  "Connections that ended, by code and reason."
)

/** By reason. */
export const connectionsRefused = counter(
  "event_hub_connections_refused_total",
  "Connections that were refused before they were accepted, by reason."
)

export const opsConnectionsDropped = counter(
  "event_hub_ops_connections_dropped_total",
  "Connections of the ops server that were closed to make room for others, or since there was none."
)

export const handshakesFailed = counter(
  "event_hub_tls_handshakes_failed_total",
  "Connections that ended before TLS was agreed on, at both ports."
)

/** By error code: a closed set of names. */
export const errorsSent = counter(
  "event_hub_errors_total",
  "Requests that were answered by an error, by code."
)

/** By the kind of limit: a closed set of names. */
export const rateLimited = counter(
  "event_hub_rate_limited_total",
  "Requests that were over a rate, by the limit that they met."
)

/** By what came of it: a closed set of names. */
export const jwksRequests = counter(
  "event_hub_jwks_requests_total",
  "Requests for the keys of an issuer of tokens, by what came of them."
)

export const intakePauses = counter(
  "event_hub_intake_pauses_total",
  "Times that connections which publish were not read, since the store was behind."
)

// --- outboxes, by source: a name of the configuration --------------------------------------------------------

export const outboxSent = counter("event_hub_outbox_sent_total", "Outbox records brought into the log.")

export const outboxFailed = counter(
  "event_hub_outbox_failed_total",
  "Attempts to drain an outbox record that failed."
)

export const outboxToStored = histogram(
  "event_hub_outbox_to_stored_duration_seconds",
  waits,
  "From the adding of an outbox record until its event was stored."
)

export const outboxUp = gauge(
  "event_hub_outbox_up",
  "1: the outbox is drained; 0: /outbox says why it is not."
)

export const outboxPaused = gauge("event_hub_outbox_paused", "1: somebody paused the outbox; 0: it goes on.")

export const outboxPending = gauge(
  "event_hub_outbox_pending_records",
  "Outbox records that are neither sent nor dead."
)

export const outboxDead = gauge("event_hub_outbox_dead_records", "Outbox records that were given up.")

export const outboxAge = gauge(
  "event_hub_outbox_oldest_age_seconds",
  "Age of the oldest outbox record that is neither sent nor dead; 0 when there is none."
)

export const outboxMeasured = gauge(
  "event_hub_outbox_measured_timestamp_seconds",
  "When the records of the outbox were counted, since unix epoch; 0: not yet."
)

// --- the store, and the hub itself ---------------------------------------------------------------------------

/** By operation: the methods of the stores. */
export const storeDuration = histogram(
  "event_hub_store_operation_duration_seconds",
  durations,
  "How long operations of the stores take."
)

/** By operation. */
export const storeErrors = counter(
  "event_hub_store_operation_errors_total",
  "Operations of the stores that failed."
)

export const storeBytes = gauge(
  "event_hub_store_bytes",
  "Bytes of the files of the store, where it has files of its own (SQLite)."
)

/** By the setting that names them. */
export const configFileCurrent = gauge(
  "event_hub_config_file_current",
  "1: what the files of a setting say holds; 0: it cannot be used, and what they said before holds on."
)

/** By the setting that names them, and whether what they said was taken. */
export const configFileReloads = counter(
  "event_hub_config_file_reloads_total",
  "Times that the files of a setting said something new."
)

export const ready = gauge("event_hub_ready", "1: the hub takes work; 0: /readyz says why it does not.")

export const buildInfo = gauge("event_hub_build_info", "1, with the version of the hub.")

export const spansExported = counter(
  "event_hub_trace_spans_exported_total",
  "Spans that were handed to the receiver of traces."
)

export const spansDropped = counter(
  "event_hub_trace_spans_dropped_total",
  "Spans that were given up, since the receiver of traces was too slow or away."
)

// --- labels --------------------------------------------------------------------------------------------------

/** How an event reaches a subscriber. */
export type Path = "live" | "group"

/** Why a connection was refused. */
export type Refused = "draining" | "too_many" | "origin" | "subprotocol"

/** What came of a request for the keys of an issuer. */
export type JwksOutcome = "ok" | "unreachable" | "timeout" | "status" | "unusable"

const closeNames = new Map<number, string>([
  ...Object.entries(CloseCode).map(
    ([name, code]) => [code, name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)] as const
  ),
  // Of RFC 6455: nobody sends them, and a connection that ended has them all the same.
  [1005, "no_status"],
  [1006, "abnormal"]
])

/** Codes that are ours, or the standard's; whatever else a client closes with is one series. */
export const closeLabels = (code: number): Readonly<Record<string, string>> => {
  const reason = closeNames.get(code)
  return reason === undefined ? { code: "other", reason: "other" } : { code: String(code), reason }
}

const paths: ReadonlyArray<Path> = ["live", "group"]
const refusals: ReadonlyArray<Refused> = ["draining", "too_many", "origin", "subprotocol"]
const ends: ReadonlyArray<EndReason> = ["revoked", "removed", "history_changed", "unavailable"]
const jwksOutcomes: ReadonlyArray<JwksOutcome> = ["ok", "unreachable", "timeout", "status", "unusable"]
const limits: ReadonlyArray<Kind | "behind_another"> = [
  "connection_messages",
  "connection_bytes",
  "subject_messages",
  "subject_bytes",
  "topic_events",
  "topic_bytes",
  "behind_another"
]

// --- recording -----------------------------------------------------------------------------------------------

/** A counter's number, to be added to in place. */
export interface Count {
  count: number
}

/** A histogram's numbers. */
export interface Distribution {
  /** `times` observations of the same value. */
  readonly observe: (value: number, times?: number) => void
}

type Labels = Readonly<Record<string, string>>

/** Counts and times from code that runs without a fiber. */
export interface Recorder {
  readonly add: (metric: Metric.Counter<number>, n: number, labels?: Labels) => void
  readonly observe: (metric: Metric.Histogram<number>, value: number, labels?: Labels) => void
  /** What `add` adds to: for those who cannot afford to look it up each time. */
  readonly counter: (metric: Metric.Counter<number>, labels?: Labels) => Count
  readonly histogram: (metric: Metric.Histogram<number>, labels?: Labels) => Distribution
  /** A number that is asked for by whoever wants to know it, until the scope closes. */
  readonly gauge: (
    metric: Metric.Gauge<number>,
    read: () => number,
    labels?: Labels
  ) => Effect.Effect<void, never, Scope.Scope>
}

class Counted implements Count {
  count = 0

  get state(): Metric.CounterState<number> {
    return { count: this.count, incremental: true }
  }
}

class Distributed implements Distribution {
  readonly #boundaries: ReadonlyArray<number>
  readonly #counts: Float64Array
  #count = 0
  #sum = 0
  #min = Number.MAX_VALUE
  #max = -Number.MAX_VALUE

  constructor(boundaries: ReadonlyArray<number>) {
    this.#boundaries = boundaries
    this.#counts = new Float64Array(boundaries.length + 1)
  }

  observe(value: number, times = 1): void {
    const boundaries = this.#boundaries
    let low = 0
    let high = boundaries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (value <= boundaries[middle]!) high = middle
      else low = middle + 1
    }
    this.#counts[low]! += times
    this.#count += times
    this.#sum += value * times
    if (value < this.#min) this.#min = value
    if (value > this.#max) this.#max = value
  }

  get state(): Metric.HistogramState {
    let below = 0
    const buckets = this.#boundaries.map((boundary, i): [number, number] => {
      below += this.#counts[i]!
      return [boundary, below]
    })
    return { buckets, count: this.#count, min: this.#min, max: this.#max, sum: this.#sum }
  }
}

/** The series of a registry. */
interface Series {
  /** By metric and labels. */
  readonly byKey: Map<string, Counted | Distributed>
  /** All of one metric. */
  readonly byId: Map<string, Array<Counted | Distributed>>
}

/** What is counted stands once for each registry and series, however many record into it. */
const recorded = new WeakMap<Metric.MetricRegistry, Series>()

const seriesIn = (context: Context.Context<never>): Series => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const known = recorded.get(registry)
  if (known !== undefined) return known
  const made: Series = { byKey: new Map(), byId: new Map() }
  recorded.set(registry, made)
  return made
}

/** Nobody writes to a series from outside. */
const unwritten = { update: () => {}, modify: () => {} }

const labelled = <State>(metric: Metric.Metric<number, State>, labels: Labels | undefined) =>
  labels === undefined ? metric : Metric.withAttributes(metric, labels)

const recorderIn = (context: Context.Context<never>): Recorder => {
  const around = JSON.stringify(Context.get(context, Metric.CurrentMetricAttributes))
  const { byId, byKey } = seriesIn(context)

  const seriesOf = <A extends Counted | Distributed>(
    metric: Metric.Metric<number, A["state"]>,
    labels: Labels | undefined,
    make: () => A
  ): A => {
    const key = `${metric.id} ${around} ${JSON.stringify(labels)}`
    const found = byKey.get(key)
    if (found !== undefined) return found as A
    const made = make()
    byKey.set(key, made)
    const all = byId.get(metric.id)
    if (all === undefined) byId.set(metric.id, [made])
    else all.push(made)
    Metric.registerUnsafe(labelled(metric, labels), context, { ...unwritten, get: () => made.state })
    return made
  }

  /** By metric, and by what its labels say. */
  const known = new Map<object, Map<string, Counted | Distributed>>()
  const remembered = <A extends Counted | Distributed>(
    metric: Metric.Metric<number, A["state"]>,
    labels: Labels | undefined,
    make: () => A
  ): A => {
    let byLabels = known.get(metric)
    if (byLabels === undefined) known.set(metric, (byLabels = new Map()))
    const key = labels === undefined ? "" : Object.values(labels).join(" ")
    let found = byLabels.get(key)
    if (found === undefined) byLabels.set(key, (found = seriesOf(metric, labels, make)))
    return found as A
  }

  const counter: Recorder["counter"] = (metric, labels) => remembered(metric, labels, () => new Counted())
  const histogram: Recorder["histogram"] = (metric, labels) =>
    remembered(metric, labels, () => new Distributed(boundariesOf.get(metric) ?? durations))

  return {
    counter,
    histogram,
    add: (metric, n, labels) => void (counter(metric, labels).count += n),
    observe: (metric, value, labels) => histogram(metric, labels).observe(value),
    gauge: (metric, read, labels) =>
      Effect.acquireRelease(
        Effect.sync(() =>
          Metric.registerUnsafe(labelled(metric, labels), context, {
            ...unwritten,
            get: () => ({ value: read() })
          })
        ),
        (registration) => Effect.sync(() => registration.remove())
      )
  }
}

/** Records into the registry of the surrounding program. */
export const recorder: Effect.Effect<Recorder> = Effect.map(Effect.context<never>(), recorderIn)

/** What recorders counted and timed so far. No gauge is asked: some are dear, or tell of the time since they were. */
export interface Reader {
  /** Over all labels. */
  readonly count: (metric: Metric.Counter<number>) => number
  /** One of each labels; the bounds are the same. */
  readonly histograms: (metric: Metric.Histogram<number>) => ReadonlyArray<Metric.HistogramState>
}

/** Reads what is recorded in the registry of the surrounding program. */
export const reader: Effect.Effect<Reader> = Effect.map(Effect.context<never>(), (context) => {
  const { byId } = seriesIn(context)
  const seriesOf = ({ id }: { readonly id: string }) => byId.get(id) ?? []
  return {
    count: (metric) =>
      seriesOf(metric).reduce((sum, series) => sum + (series instanceof Counted ? series.count : 0), 0),
    histograms: (metric) =>
      seriesOf(metric).flatMap((series) => (series instanceof Distributed ? [series.state] : []))
  }
})

/**
 * Makes every series that does not depend on the configuration, so that each begins at 0: what happens for the first time
 * is then an increase, and not a new series that no rule has seen before.
 */
export const prepare: Effect.Effect<void> = Effect.map(recorder, (recorder) => {
  for (const metric of [
    appended,
    duplicates,
    notAppended,
    trimmed,
    liveDeliveries,
    groupDeliveries,
    groupRedeliveries,
    groupAcks,
    groupNacks,
    deadLetters,
    livePauses,
    connectionsOpened,
    opsConnectionsDropped,
    handshakesFailed,
    intakePauses,
    spansExported,
    spansDropped
  ]) {
    recorder.counter(metric)
  }
  for (const metric of [publishDuration, appendWait, commitDuration, batchSize, sentToAcked]) {
    recorder.histogram(metric)
  }
  for (const path of paths) {
    recorder.histogram(storedToSent, { path })
    recorder.counter(gaps, { path })
  }
  for (const code of [...closeNames.keys(), 0]) recorder.counter(connectionsClosed, closeLabels(code))
  for (const reason of refusals) recorder.counter(connectionsRefused, { reason })
  for (const reason of ends) recorder.counter(subscriptionsEnded, { reason })
  for (const code of errorCodes) recorder.counter(errorsSent, { code })
  for (const limit of limits) recorder.counter(rateLimited, { limit })
  for (const outcome of jwksOutcomes) recorder.counter(jwksRequests, { outcome })
})

/** Seconds on a clock that nobody sets; only differences mean something. */
export const secondsOf = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e9

/**
 * The same, looked up once for all that is done in one turn: a look at the clock costs more than all that is recorded of
 * an event, and events come and go by the hundred at a time.
 */
export const turnSeconds = (clock: Clock.Clock): (() => number) => {
  let now: number | undefined
  const end = (): void => void (now = undefined)
  return () => {
    if (now === undefined) {
      now = secondsOf(clock)
      // oxlint-disable-next-line no-restricted-globals -- the end of this turn, and not a fiber's next one
      queueMicrotask(end)
    }
    return now
  }
}
