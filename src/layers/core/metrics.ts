/**
 * What the hub counts and times, with the names that Prometheus gets (https://prometheus.io/docs/practices/naming).
 *
 * No topic, user, group or connection is ever a label: their number has no bound, and every label value is a
 * time series. What depends on them is answered by the ops API.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

const counter = (name: string, description: string) =>
  Metric.counter(name, { description, incremental: true })

/** Seconds, from a tenth of a millisecond to ten seconds. */
const durations = Metric.boundariesFromIterable([
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
])

export const appended = counter("event_hub_events_appended_total", "Events that were new to the log.")

export const duplicates = counter(
  "event_hub_events_duplicate_total",
  "Events that the log held already, by their id."
)

export const notAppended = counter(
  "event_hub_events_not_appended_total",
  "Events that the store did not take."
)

export const batchSize = Metric.histogram("event_hub_append_batch_events", {
  description: "Events that were committed together.",
  boundaries: Metric.boundariesFromIterable([1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
})

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

export const trimmed = counter("event_hub_events_trimmed_total", "Events that retention forgot.")

export const outboxSent = counter("event_hub_outbox_sent_total", "Outbox records brought into the log.")

export const outboxFailed = counter(
  "event_hub_outbox_failed_total",
  "Attempts to drain an outbox record that failed."
)

export const connectionsOpened = counter(
  "event_hub_connections_opened_total",
  "Connections that were accepted."
)

/** By close code: a closed set of numbers. */
export const connectionsClosed = counter(
  "event_hub_connections_closed_total",
  "Connections that ended, by code."
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

export const intakePauses = counter(
  "event_hub_intake_pauses_total",
  "Times that connections which publish were not read, since the store was behind."
)

/** By operation: the methods of the stores. */
export const storeDuration = Metric.histogram("event_hub_store_operation_duration_seconds", {
  description: "How long operations of the stores take.",
  boundaries: durations
})

/** Adds to counters from code that runs without a fiber. */
export interface Recorder {
  readonly add: (metric: Metric.Counter<number>, n: number, labels?: Readonly<Record<string, string>>) => void
  readonly observe: (
    metric: Metric.Histogram<number>,
    value: number,
    labels?: Readonly<Record<string, string>>
  ) => void
}

/** Metrics with labels are made once for each set of values. */
const labelled = <A extends Metric.Metric<number, unknown>>() => {
  const made = new Map<A, Map<string, A>>()
  return (metric: A, labels: Readonly<Record<string, string>>): A => {
    let byLabels = made.get(metric)
    if (byLabels === undefined) made.set(metric, (byLabels = new Map()))
    const key = Object.values(labels).join(" ")
    let found = byLabels.get(key)
    if (found === undefined)
      byLabels.set(key, (found = Metric.withAttributes(metric, labels) as unknown as A))
    return found
  }
}

/** Records into the registry of the surrounding program. */
export const recorder: Effect.Effect<Recorder> = Effect.map(Effect.context<never>(), (services) => {
  const context = services as Context.Context<never>
  const withLabels = labelled<Metric.Metric<number, unknown>>()
  const record = (
    metric: Metric.Metric<number, unknown>,
    value: number,
    labels: Readonly<Record<string, string>> | undefined
  ) => (labels === undefined ? metric : withLabels(metric, labels)).updateUnsafe(value, context)
  return { add: record, observe: record }
})
