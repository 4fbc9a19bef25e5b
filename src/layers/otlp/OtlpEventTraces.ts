/**
 * EventTraces as spans of OpenTelemetry, by its conventions for messaging
 * (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/), exported by OTLP.
 *
 * Spans are made of what is known when something has ended, and of nothing before: there is no span that could be left
 * open. Their names are those of operations: topics have no bound, and stand in an attribute.
 */
import { randomBytes } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Event from "../../domain/Event.ts"
import { isSampled } from "../../domain/Sampling.ts"
import {
  decodeTraceparent,
  encodeTraceparent,
  type TraceContext,
  traceparentHeader,
  tracestateHeader
} from "../../protocol/Traceparent.ts"
import { EventTraces, type Origin } from "../../services/EventTraces.ts"
import type { Span } from "./encodeSpans.ts"
import { makeExporter } from "./SpanExporter.ts"
import type { Receiver } from "./Receiver.ts"

interface Context extends TraceContext {
  readonly state: string | undefined
}

/** An event that entered, until it is forgotten. */
interface Entered {
  readonly traceId: string
  readonly spanId: string
  readonly state: string | undefined
}

/** What an event says of its trace; nothing when it says nothing that can be read. */
const contextOf = (body: string): Context | undefined => {
  // Most say nothing, and are not parsed for it.
  if (!body.includes(traceparentHeader)) return undefined
  const { headers } = JSON.parse(body) as Event.NewEvent
  const found = decodeTraceparent(headers?.[traceparentHeader] ?? "")
  return found && { ...found, state: headers?.[tracestateHeader] }
}

/**
 * The header goes into the text where the others are, or first of all: what the application wrote is not printed again,
 * since numbers that are too long for this would come out as others. Where that does not come out right, it stays away.
 */
const withTraceparent = (record: Event.EventRecord, context: TraceContext): Event.EventRecord => {
  const { body } = record
  const { headers } = JSON.parse(body) as Event.NewEvent
  const value = encodeTraceparent(context)
  const header = `${JSON.stringify(traceparentHeader)}:${JSON.stringify(value)}`
  const others = '"headers":{'
  const at = headers === undefined ? 1 : body.indexOf(others) + others.length
  const entry = headers === undefined ? `${others}${header}},` : `${header}${body[at] === "}" ? "" : ","}`
  const traced = `${body.slice(0, at)}${entry}${body.slice(at)}`
  try {
    const found = (JSON.parse(traced) as Event.NewEvent).headers
    return found?.[traceparentHeader] === value ? { ...record, body: traced } : record
  } catch {
    return record
  }
}

const operations: Readonly<
  Record<Origin, { readonly kind: Span["kind"]; readonly type: string | undefined }>
> = {
  publish: { kind: "producer", type: "send" },
  outbox: { kind: "internal", type: undefined }
}

const attributesOf = (operation: string, type: string | undefined, { id, topic }: Event.EventRecord) => ({
  "messaging.system": "event_hub",
  "messaging.operation.name": operation,
  ...(type === undefined ? {} : { "messaging.operation.type": type }),
  "messaging.destination.name": topic,
  "messaging.message.id": id
})

const idOf = (bytes: number): string => randomBytes(bytes).toString("hex")

const make = (settings: Receiver, version: string) =>
  Effect.gen(function* () {
    const push = yield* makeExporter(settings, version)
    const clock = yield* Clock.Clock
    const now = () => Number(clock.currentTimeNanosUnsafe()) / 1e6
    const entered = new WeakMap<Event.EventRecord, Entered>()

    const sampledContext = (body: string): Context | undefined => {
      const found = contextOf(body)
      return found !== undefined && isSampled(settings.sampler, found.traceId, found.sampled)
        ? found
        : undefined
    }

    /** What is traced of an event that comes in: as its publisher says, or as the sampler does. */
    const begin = (record: Event.EventRecord, spanId: string) => {
      const found = contextOf(record.body)
      if (found !== undefined) {
        return isSampled(settings.sampler, found.traceId, found.sampled)
          ? { record, traceId: found.traceId, state: found.state, parentSpanId: found.spanId }
          : undefined
      }
      const traceId = idOf(16)
      if (!isSampled(settings.sampler, traceId, undefined)) return undefined
      return {
        record: withTraceparent(record, { traceId, spanId, sampled: true }),
        traceId,
        state: undefined,
        parentSpanId: undefined
      }
    }

    return EventTraces.of({
      enter: (origin, given, agoMs) => {
        const spanId = idOf(8)
        const begun = begin(given, spanId)
        if (begun === undefined) return undefined
        const { parentSpanId, record, state, traceId } = begun
        const startMs = now() - agoMs
        const { kind, type } = operations[origin]
        entered.set(record, { traceId, spanId, state })
        return {
          record,
          end: (problem) =>
            push({
              traceId,
              spanId,
              parentSpanId,
              traceState: state,
              name: origin,
              kind,
              startMs,
              endMs: now(),
              attributes: {
                ...attributesOf(origin, type, record),
                ...(problem === undefined ? {} : { "error.type": problem })
              },
              problem
            })
        }
      },

      appended: (records, tookMs) => {
        const endMs = now()
        for (const record of records) {
          const within = entered.get(record)
          if (within === undefined) continue
          push({
            traceId: within.traceId,
            spanId: idOf(8),
            parentSpanId: within.spanId,
            traceState: within.state,
            name: "append",
            kind: "internal",
            startMs: endMs - tookMs,
            endMs,
            attributes: {
              ...attributesOf("append", undefined, record),
              "messaging.batch.message_count": records.length
            },
            problem: undefined
          })
        }
      },

      delivered: ({ attempt, deliveries, group, record, tookMs }) => {
        const within = sampledContext(record.body)
        if (within === undefined) return
        const endMs = now()
        push({
          traceId: within.traceId,
          spanId: idOf(8),
          parentSpanId: within.spanId,
          traceState: within.state,
          name: "deliver",
          kind: "consumer",
          startMs: endMs - tookMs,
          endMs,
          attributes: {
            ...attributesOf("deliver", "receive", record),
            "event_hub.seq": record.seq,
            "event_hub.deliveries": deliveries,
            ...(group === undefined ? {} : { "messaging.consumer.group.name": group }),
            ...(attempt === undefined ? {} : { "event_hub.attempt": attempt })
          },
          problem: undefined
        })
      }
    })
  })

/** `version`: of the hub, as the receiver is told. */
export const layer = (settings: Receiver, version: string): Layer.Layer<never> =>
  Layer.effect(EventTraces, make(settings, version))
