/**
 * The trace an event belongs to, as a header: `traceparent` of W3C Trace Context, level 1.
 *
 * Whoever publishes inside a span hands it on to whoever handles the event, through outbox, log and delivery.
 */
import { Effect, Option, Tracer } from "effect"

const header = "traceparent"

/** Ids of nothing but zeros are invalid (section 3.2.2). */
const version00 = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$/

interface WithHeaders {
  readonly headers?: Readonly<Record<string, string>>
}

/** Adds the span that is current, unless the event says where it belongs. */
export const withTraceparent = <A extends WithHeaders>(event: A): Effect.Effect<A> =>
  event.headers !== undefined && Object.hasOwn(event.headers, header)
    ? Effect.succeed(event)
    : Effect.map(Effect.option(Effect.currentParentSpan), (found) => {
        if (Option.isNone(found)) return event
        const { sampled, spanId, traceId } = found.value
        const traceparent = `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
        return { ...event, headers: { ...event.headers, [header]: traceparent } }
      })

/** The span that an event was published in; none when it says nothing, or nothing that can be read. */
export const parentOf = (event: WithHeaders): Tracer.AnySpan | undefined => {
  const found = event.headers === undefined ? null : version00.exec(event.headers[header] ?? "")
  return found === null
    ? undefined
    : Tracer.externalSpan({
        traceId: found[1]!,
        spanId: found[2]!,
        sampled: (Number.parseInt(found[3]!, 16) & 1) === 1
      })
}
