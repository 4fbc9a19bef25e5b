/**
 * The header that says which trace an event belongs to: `traceparent` of W3C Trace Context, level 1.
 *
 * Whoever publishes inside a span hands it on by this header to whoever handles the event.
 */

export const traceparentHeader = "traceparent"

/** What the vendors of those who took part know of the trace (section 3.3): passed on as it is. */
export const tracestateHeader = "tracestate"

/** What the header says of a span. */
export interface TraceContext {
  readonly traceId: string
  readonly spanId: string
  readonly sampled: boolean
}

/** Ids of nothing but zeros are invalid (section 3.2.2). */
const version00 = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$/

export const encodeTraceparent = ({ sampled, spanId, traceId }: TraceContext): string =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`

/** Nothing for a header that cannot be read. */
export const decodeTraceparent = (header: string): TraceContext | undefined => {
  const found = version00.exec(header)
  return found === null
    ? undefined
    : { traceId: found[1]!, spanId: found[2]!, sampled: (Number.parseInt(found[3]!, 16) & 1) === 1 }
}
