/**
 * The way of single events through the hub, told to whoever collects traces (W3C Trace Context, OpenTelemetry).
 *
 * An event says by its header `traceparent` which trace it belongs to. What the hub does with it becomes spans of that
 * trace: it was published, or waited in an outbox; it was appended; it was delivered. The header stays what it was, so
 * the spans of handlers are children of the publisher's, beside those of the hub.
 */
import * as Context from "effect/Context"
import type { EventRecord, StoredRecord } from "../domain/Event.ts"

/** How an event came into the hub. */
export type Origin = "publish" | "outbox"

/** An event that is traced, from its coming in until it is stored, or refused. */
export interface TracedEntry {
  /** The event as it goes on: with a `traceparent`, if it had none. */
  readonly record: EventRecord
  /** Why it was not stored; none when it was. */
  readonly end: (problem?: string) => void
}

/** An event that was handed to subscribers. */
export interface TracedDelivery {
  readonly record: StoredRecord
  /** How long it was on its way, in milliseconds. */
  readonly tookMs: number
  /** None for live subscribers. */
  readonly group?: string
  readonly attempt?: number
  /** How many got it. */
  readonly deliveries: number
}

/** Nothing here fails or waits. */
export interface EventTraces {
  /** An event came in so many milliseconds ago. Nothing when it is not traced. */
  readonly enter: (origin: Origin, record: EventRecord, agoMs: number) => TracedEntry | undefined
  /** A batch was taken by the appender, and the store has answered. Only what entered is told. */
  readonly appended: (records: ReadonlyArray<EventRecord>, tookMs: number) => void
  readonly delivered: (delivery: TracedDelivery) => void
}

/** None, unless somebody collects traces: then nothing on the way of an event costs anything for them. */
export const EventTraces = Context.Reference<EventTraces | undefined>("event-hub/services/EventTraces", {
  defaultValue: () => undefined
})
