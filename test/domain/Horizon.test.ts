/** How long a group may deliver an event, compared with deliveries played through; and who is refused for it. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Horizon from "../../src/domain/Horizon.ts"
import * as Retry from "../../src/domain/Retry.ts"
import * as Settings from "../../src/domain/Settings.ts"

const backoff = fc.record({ baseMs: fc.nat({ max: 10_000 }), maxMs: fc.nat({ max: 100_000 }) })
const options = fc.record({
  ackTimeoutMs: fc.integer({ min: 1, max: 100_000 }),
  maxAttempts: fc.integer({ min: 1, max: 40 })
})

/** How one delivery ends: refused after a part of its time with a back-off, or never answered. */
interface Ending {
  readonly refused: boolean
  /** The part of the acknowledgement time-out until then. */
  readonly after: number
  readonly random: number
}

/** Plays an event's deliveries until it is given up, and answers when the last one was over. */
const lifetime = (
  { ackTimeoutMs, maxAttempts }: { readonly ackTimeoutMs: number; readonly maxAttempts: number },
  backoff: { readonly baseMs: number; readonly maxMs: number },
  endingOf: (attempt: number) => Ending
): number => {
  let now = 0
  for (let attempt = 1; ; attempt++) {
    const { after, random, refused } = endingOf(attempt)
    now += refused ? Math.floor(after * ackTimeoutMs) : ackTimeoutMs
    const decision = Retry.afterFailure({ ...backoff, maxAttempts }, attempt, random)
    if (decision._tag === "Stop") return now
    // Whoever did not answer gets no back-off.
    if (refused) now += decision.delayMs
  }
}

describe("retryHorizonMs", () => {
  it("is reached by no event, however its deliveries end", () => {
    const part = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    const endings = fc.array(fc.record({ refused: fc.boolean(), after: part, random: part }), {
      minLength: 40
    })
    fc.assert(
      fc.property(options, backoff, endings, (options, backoff, endings) => {
        const time = lifetime(options, backoff, (attempt) => endings[attempt - 1]!)
        expect(time).toBeLessThanOrEqual(Horizon.retryHorizonMs(options, backoff))
      }),
      { numRuns: 1_000 }
    )
  })

  it("is reached, to a millisecond an attempt, by one that is always refused in the last moment", () => {
    fc.assert(
      fc.property(options, backoff, (options, backoff) => {
        const longest = { refused: true, after: 1, random: 1 - Number.EPSILON }
        const time = lifetime(options, backoff, () => longest)
        const horizon = Horizon.retryHorizonMs(options, backoff)
        expect(horizon - time).toBeLessThanOrEqual(options.maxAttempts)
        expect(horizon - time).toBeGreaterThanOrEqual(0)
      }),
      { numRuns: 1_000 }
    )
  })

  it("adds up to the numbers of the defaults", () => {
    const backoffs = [1, 2, 4, 8, 16, 32, 60, 60, 60].map((seconds) => seconds * 1_000)
    expect(Horizon.retryHorizonMs(Settings.groups, Settings.groups.backoff)).toBe(
      10 * 30_000 + backoffs.reduce((sum, delay) => sum + delay, 0)
    )
  })

  it.each([
    ["one attempt has no back-off", 1, { baseMs: 1_000, maxMs: 2_000 }, 50],
    ["no back-off at all", 3, { baseMs: 0, maxMs: 2_000 }, 150],
    ["a cap of nothing", 3, { baseMs: 100, maxMs: 0 }, 150],
    ["a cap below the base", 3, { baseMs: 100, maxMs: 30 }, 210],
    ["a million attempts", 1_000_000, { baseMs: 1, maxMs: 2 }, 50_000_000 + 1 + 999_998 * 2],
    ["a million attempts without back-off", 1_000_000, { baseMs: 0, maxMs: 2 }, 50_000_000],
    ["attempts without end", Infinity, { baseMs: 1, maxMs: 2 }, Infinity],
    ["attempts without end and back-off", Infinity, { baseMs: 0, maxMs: 2 }, Infinity]
  ])("%s", (_what, maxAttempts, backoff, horizon) => {
    expect(Horizon.retryHorizonMs({ ackTimeoutMs: 50, maxAttempts }, backoff)).toBe(horizon)
  })
})

describe("checkKeep", () => {
  it("agrees from the horizon on, and names both times below it", () => {
    fc.assert(
      fc.property(options, backoff, (group, backoff) => {
        const horizonMs = Horizon.retryHorizonMs(group, backoff)
        expect(Horizon.checkKeep(horizonMs, { group, backoff })).toEqual(Result.succeed(horizonMs))
        const refused = Result.getOrThrow(Result.flip(Horizon.checkKeep(horizonMs - 1, { group, backoff })))
        expect(refused).toMatchObject({ _tag: "DedupeTooShort", keepMs: horizonMs - 1, horizonMs })
        for (const figure of [horizonMs - 1, horizonMs]) expect(refused.message).toContain(`${figure} ms`)
      })
    )
  })

  it("takes the defaults for what is not said", () => {
    const { backoff, ...group } = Settings.groups
    const horizonMs = Horizon.retryHorizonMs(group, backoff)
    expect(Horizon.checkKeep(horizonMs)).toEqual(Result.succeed(horizonMs))
    expect(Result.isFailure(Horizon.checkKeep(horizonMs - 1))).toBe(true)
    expect(Horizon.checkKeep(Infinity, { group: { maxAttempts: 3 } })).toEqual(
      Result.succeed(Horizon.retryHorizonMs({ ...group, maxAttempts: 3 }, backoff))
    )
  })

  it("refuses what is no time", () => {
    expect(Result.isFailure(Horizon.checkKeep(NaN))).toBe(true)
    expect(Result.isFailure(Horizon.checkKeep(1e12, { group: { ackTimeoutMs: NaN } }))).toBe(true)
  })
})

describe("checkTimes", () => {
  it("agrees to times, and names the first that is none", () => {
    expect(Horizon.checkTimes({ a: 1, b: 0.5 })).toEqual(Result.void)
    for (const value of [0, -1, NaN, Infinity]) {
      const refused = Result.getOrThrow(Result.flip(Horizon.checkTimes({ a: 1, leaseMs: value, c: -1 })))
      expect(refused).toMatchObject({ _tag: "InvalidTime", setting: "leaseMs", value })
      expect(refused.message).toContain("'leaseMs'")
    }
  })
})
