/** The trace of an event as a header, by the examples and rules of W3C Trace Context, level 1. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Tracer } from "effect"
import { parentOf, withTraceparent } from "../../../src/layers/core/traceparent.ts"

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const spanId = "00f067aa0ba902b7"

const read = (traceparent: string) => parentOf({ headers: { traceparent } })

describe("withTraceparent", () => {
  it.effect("changes nothing outside of a span", () =>
    Effect.gen(function* () {
      const event = { headers: { h: "v" } }
      expect(yield* withTraceparent(event)).toBe(event)
    })
  )

  it.effect("adds the span that is current, beside the other headers", () =>
    Effect.gen(function* () {
      const parent = Tracer.externalSpan({ traceId, spanId, sampled: false })
      const inside = Effect.withParentSpan(parent)
      expect(yield* inside(withTraceparent({ headers: { h: "v" } }))).toEqual({
        headers: { h: "v", traceparent: `00-${traceId}-${spanId}-00` }
      })
      expect(yield* inside(withTraceparent({}))).toEqual({
        headers: { traceparent: `00-${traceId}-${spanId}-00` }
      })
    })
  )

  it.effect("leaves an event alone that says where it belongs", () =>
    Effect.gen(function* () {
      const event = { headers: { traceparent: "anything" } }
      expect(yield* withTraceparent(event).pipe(Effect.withSpan("business"))).toBe(event)
    })
  )

  it.effect("writes what `parentOf` reads", () =>
    Effect.gen(function* () {
      const [event, span] = yield* Effect.all([withTraceparent({}), Effect.currentSpan]).pipe(
        Effect.withSpan("business")
      )
      expect(parentOf(event)).toMatchObject({ traceId: span.traceId, spanId: span.spanId, sampled: true })
    })
  )
})

describe("parentOf", () => {
  it("reads ids and the sampled flag, and no other flag", () => {
    expect(read(`00-${traceId}-${spanId}-01`)).toMatchObject({ traceId, spanId, sampled: true })
    expect(read(`00-${traceId}-${spanId}-00`)).toMatchObject({ sampled: false })
    expect(read(`00-${traceId}-${spanId}-03`)).toMatchObject({ sampled: true })
    expect(read(`00-${traceId}-${spanId}-fe`)).toMatchObject({ sampled: false })
  })

  it.each([
    ["nothing", ""],
    ["another version", `01-${traceId}-${spanId}-01`],
    ["a version that is forbidden", `ff-${traceId}-${spanId}-01`],
    ["capital letters", `00-${traceId.toUpperCase()}-${spanId}-01`],
    ["a trace of zeros", `00-${"0".repeat(32)}-${spanId}-01`],
    ["a span of zeros", `00-${traceId}-${"0".repeat(16)}-01`],
    ["something behind it", `00-${traceId}-${spanId}-01-extra`],
    ["too short a trace", `00-${traceId.slice(1)}-${spanId}-01`],
    ["a line break behind it", `00-${traceId}-${spanId}-01\n`]
  ])("takes %s for no parent", (_, header) => {
    expect(read(header)).toBe(undefined)
  })

  it("finds nothing where there are no headers, or no such header", () => {
    expect(parentOf({})).toBe(undefined)
    expect(parentOf({ headers: { h: "v" } })).toBe(undefined)
  })
})
