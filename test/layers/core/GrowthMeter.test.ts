/** How fast topics grew, against a list of all that happened. */
import fc from "fast-check"
import { describe, expect, it } from "@effect/vitest"
import { GrowthMeter, windowSeconds } from "../../../src/layers/core/GrowthMeter.ts"

interface Grown {
  readonly topic: string
  readonly events: number
  readonly bytes: number
  /** Milliseconds since the last one. */
  readonly after: number
}

const grown = fc.record({
  topic: fc.constantFrom("a", "b", "c"),
  events: fc.integer({ min: 1, max: 9 }),
  bytes: fc.integer({ min: 1, max: 999 }),
  after: fc.oneof(fc.integer({ min: 0, max: 900 }), fc.integer({ min: 0, max: 15_000 }))
})

describe("the growth of topics", () => {
  it("is what came in the last seconds, over those that it is known for", () => {
    fc.assert(
      fc.property(fc.array(grown, { maxLength: 60 }), fc.integer({ min: 0, max: 12_000 }), (all, later) => {
        const meter = new GrowthMeter(10)
        let now = 1_000_000
        const told: Array<Grown & { readonly second: number }> = []
        for (const one of all) {
          now += one.after
          meter.add(one.topic, one.events, one.bytes, now)
          told.push({ ...one, second: Math.floor(now / 1_000) })
        }
        now += later
        const second = Math.floor(now / 1_000)
        for (const topic of ["a", "b", "c"]) {
          const own = told.filter((one) => one.topic === topic)
          const recent = own.filter((one) => one.second > second - windowSeconds)
          const first = own[0]?.second ?? second
          const seconds = Math.min(windowSeconds, second - first + 1)
          const sum = (of: "events" | "bytes") => recent.reduce((total, one) => total + one[of], 0)
          expect(meter.of(topic, now)).toEqual({
            eventsPerSecond: sum("events") / seconds,
            bytesPerSecond: sum("bytes") / seconds
          })
        }
        const growing = Array.from(meter.all(now), ([topic]) => topic).sort()
        expect(growing).toEqual(["a", "b", "c"].filter((topic) => meter.of(topic, now).eventsPerSecond > 0))
      }),
      { numRuns: 300 }
    )
  })

  it("is forgotten of the topics that grew longest ago", () => {
    const meter = new GrowthMeter(2)
    meter.add("a", 1, 1, 1_000)
    meter.add("b", 1, 1, 2_000)
    meter.add("a", 1, 1, 3_000)
    meter.add("c", 1, 1, 4_000)
    expect(Array.from(meter.all(4_000), ([topic]) => topic)).toEqual(["a", "c"])
    expect(meter.of("b", 4_000)).toEqual({ eventsPerSecond: 0, bytesPerSecond: 0 })
  })

  it("goes on where it was when the clock is set back a little", () => {
    const meter = new GrowthMeter(2)
    meter.add("a", 4, 8, 100_000)
    meter.add("a", 6, 2, 95_000)
    expect(meter.of("a", 95_000)).toEqual({ eventsPerSecond: 10, bytesPerSecond: 10 })
  })

  it("begins anew when the clock is set back far", () => {
    const meter = new GrowthMeter(2)
    meter.add("a", 4, 8, 100_000)
    meter.add("b", 4, 8, 100_000)
    expect(meter.of("a", 40_000)).toEqual({ eventsPerSecond: 0, bytesPerSecond: 0 })
    for (let now = 40_000; now < 60_000; now += 1_000) meter.add("a", 6, 2, now)
    expect(meter.of("a", 59_000)).toEqual({ eventsPerSecond: 6, bytesPerSecond: 2 })
    expect(Array.from(meter.all(59_000), ([topic]) => topic)).toEqual(["a"])
  })
})
