/** Spans as OTLP carries them (https://opentelemetry.io/docs/specs/otlp/), as JSON or in protobuf. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as OtlpResource from "effect/observability/OtlpResource"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import type { Receiver } from "./Receiver.ts"

/** The numbers that OTLP gives the kinds of spans. */
const kinds = { internal: 1, producer: 4, consumer: 5 } as const

export interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  /** What the publisher's vendors know of the trace, as it came. */
  readonly traceState: string | undefined
  readonly name: string
  readonly kind: keyof typeof kinds
  /** Milliseconds since 1970, with their fractions. */
  readonly startMs: number
  readonly endMs: number
  readonly attributes: Readonly<Record<string, string | number>>
  /** Why it came to nothing; none when it did not. */
  readonly problem: string | undefined
}

const nanosOf = (ms: number): string => String(BigInt(Math.round(ms * 1e3)) * 1_000n)

const otlpSpan = (span: Span) => ({
  traceId: span.traceId,
  spanId: span.spanId,
  parentSpanId: span.parentSpanId,
  ...(span.traceState === undefined ? {} : { traceState: span.traceState }),
  name: span.name,
  kind: kinds[span.kind],
  startTimeUnixNano: nanosOf(span.startMs),
  endTimeUnixNano: nanosOf(Math.max(span.startMs, span.endMs)),
  attributes: OtlpResource.entriesToAttributes(Object.entries(span.attributes)),
  droppedAttributesCount: 0,
  events: [],
  droppedEventsCount: 0,
  links: [],
  droppedLinksCount: 0,
  status: span.problem === undefined ? { code: 0 as const } : { code: 2 as const, message: span.problem }
})

export interface Encoded {
  readonly contentType: string
  readonly body: string | Uint8Array
}

/** Who the spans are of, and how they are sent. */
export type Options = Pick<Receiver, "protocol" | "resource" | "serviceName">

export const makeEncoder = (
  { protocol, resource, serviceName }: Options,
  version: string
): ((spans: ReadonlyArray<Span>) => Encoded) => {
  const encodedResource = {
    attributes: OtlpResource.entriesToAttributes(
      Object.entries({
        "telemetry.sdk.language": "nodejs",
        "telemetry.sdk.name": "event-hub",
        "telemetry.sdk.version": version,
        "service.version": version,
        ...resource,
        "service.name": serviceName
      })
    ),
    droppedAttributesCount: 0
  }
  const scope = { name: "event-hub", version }
  const dataOf = (spans: ReadonlyArray<Span>) => ({
    resourceSpans: [{ resource: encodedResource, scopeSpans: [{ scope, spans: spans.map(otlpSpan) }] }]
  })
  if (protocol === "http/json") {
    return (spans) => ({ contentType: "application/json", body: JSON.stringify(dataOf(spans)) })
  }
  const { traces } = Context.get(
    Effect.runSync(Effect.scoped(Layer.build(OtlpSerialization.layerProtobuf))),
    OtlpSerialization.OtlpSerialization
  )
  return (spans) => {
    const encoded = traces(dataOf(spans))
    if (encoded._tag !== "Uint8Array") throw new Error(`protobuf is bytes, and this is ${encoded._tag}`)
    return { contentType: "application/x-protobuf", body: encoded.body }
  }
}
