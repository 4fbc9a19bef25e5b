/**
 * The trace an event belongs to, in its headers.
 *
 * Whoever publishes inside a span hands it on to whoever handles the event, through outbox, log and delivery.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import { decodeTraceparent, encodeTraceparent, traceparentHeader } from "../../protocol/Traceparent.ts"

interface WithHeaders {
  readonly headers?: Readonly<Record<string, string>>
}

/** Adds the span that is current, unless the event says where it belongs. */
export const withTraceparent = <A extends WithHeaders>(event: A): Effect.Effect<A> =>
  event.headers !== undefined && Object.hasOwn(event.headers, traceparentHeader)
    ? Effect.succeed(event)
    : Effect.map(Effect.option(Effect.currentParentSpan), (found) =>
        Option.isNone(found)
          ? event
          : { ...event, headers: { ...event.headers, [traceparentHeader]: encodeTraceparent(found.value) } }
      )

/** The span that an event was published in; none when it says nothing, or nothing that can be read. */
export const parentOf = ({ headers }: WithHeaders): Tracer.AnySpan | undefined => {
  const found = decodeTraceparent(headers?.[traceparentHeader] ?? "")
  return found && Tracer.externalSpan(found)
}
