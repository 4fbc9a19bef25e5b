/**
 * The token bucket against exact arithmetic: it never grants more than the burst and what the rate gave since,
 * never less, and the time it tells is the first at which the same cost passes.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import * as RateLimit from "../../src/domain/RateLimit.ts"

const rate = fc.record({
  perSecond: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 10_000_000 })),
  burst: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 10_000_000 }))
})
const waitMs = fc.oneof(fc.nat({ max: 3 }), fc.nat({ max: 300 }), fc.nat({ max: 100_000 }))
/** Costs as parts of the burst, over it included. */
const asks = fc.array(fc.record({ waitMs, part: fc.nat({ max: 120 }) }), { minLength: 1, maxLength: 60 })

/** Runs the asks, each with the bucket before it and the answer. */
const run = (
  rate: RateLimit.Rate,
  asks: ReadonlyArray<{ readonly waitMs: number; readonly part: number }>
) => {
  let bucket = RateLimit.full(rate, 0)
  let now = 0
  return asks.map(({ part, waitMs }) => {
    now += waitMs
    const cost = Math.ceil((rate.burst * part) / 100)
    const spent = RateLimit.take(rate, bucket, cost, now)
    bucket = spent.bucket
    return { cost, now, spent }
  })
}

const passes = (rate: RateLimit.Rate, bucket: RateLimit.Bucket, cost: number, now: number): boolean =>
  RateLimit.take(rate, bucket, cost, now)._tag === "Spent"

describe("RateLimit", () => {
  it("answers as a bucket counted in whole thousandths of a token does", () => {
    fc.assert(
      fc.property(rate, asks, (rate, asks) => {
        const size = 1000n * BigInt(rate.burst)
        let level = size
        let at = 0
        for (const { cost, now, spent } of run(rate, asks)) {
          level += BigInt(now - at) * BigInt(rate.perSecond)
          if (level > size) level = size
          at = now
          const wanted = 1000n * BigInt(Math.min(cost, rate.burst))
          if (level >= wanted) {
            expect(spent._tag).toBe("Spent")
            level -= wanted
          } else {
            const perMs = BigInt(rate.perSecond)
            expect(spent).toMatchObject({
              _tag: "Limited",
              retryAfterMs: Number((wanted - level + perMs - 1n) / perMs)
            })
          }
        }
      }),
      { numRuns: 500 }
    )
  })

  it("grants in no stretch of time more than the burst and what the rate gave meanwhile", () => {
    fc.assert(
      fc.property(rate, asks, (rate, asks) => {
        const granted = run(rate, asks).filter(({ spent }) => spent._tag === "Spent")
        granted.forEach((first, i) => {
          let sum = 0
          for (const { cost, now } of granted.slice(i)) {
            sum += Math.min(cost, rate.burst)
            expect(sum * 1000).toBeLessThanOrEqual(rate.burst * 1000 + (now - first.now) * rate.perSecond)
          }
        })
      })
    )
  })

  it("passes after the time it told, and 1 ms earlier it does not", () => {
    fc.assert(
      fc.property(rate, asks, (rate, asks) => {
        for (const { cost, now, spent } of run(rate, asks)) {
          if (spent._tag === "Spent") continue
          expect(spent.retryAfterMs).toBeGreaterThanOrEqual(1)
          expect(passes(rate, spent.bucket, cost, now + spent.retryAfterMs)).toBe(true)
          expect(passes(rate, spent.bucket, cost, now + spent.retryAfterMs - 1)).toBe(false)
        }
      }),
      { numRuns: 500 }
    )
  })

  it("does not lose what came in while it refused, however often it is asked", () => {
    const slow = { perSecond: 3, burst: 2 }
    let bucket = RateLimit.full(slow, 0)
    const granted: Array<number> = []
    for (let now = 0; now <= 2_000; now++) {
      const spent = RateLimit.take(slow, bucket, 1, now)
      bucket = spent.bucket
      if (spent._tag === "Spent") granted.push(now)
    }
    expect(granted).toEqual([0, 1, 334, 667, 1_000, 1_334, 1_667, 2_000])
  })

  it("lets through what costs more than the burst when it is full, and is empty then", () => {
    const rate = { perSecond: 10, burst: 5 }
    const spent = RateLimit.take(rate, RateLimit.full(rate, 0), 1_000, 0)
    expect(spent._tag).toBe("Spent")
    expect(RateLimit.take(rate, spent.bucket, 1, 0)).toMatchObject({ _tag: "Limited", retryAfterMs: 100 })
    expect(RateLimit.take(rate, spent.bucket, 1_000, 499)._tag).toBe("Limited")
    expect(RateLimit.take(rate, spent.bucket, 1_000, 500)._tag).toBe("Spent")
  })

  it("neither gives nor takes anything when the clock goes back, and tells a time on that clock", () => {
    const rate = { perSecond: 1, burst: 2 }
    const first = RateLimit.take(rate, RateLimit.full(rate, 10_000), 2, 10_000)
    const back = RateLimit.take(rate, first.bucket, 1, 4_000)
    expect(back).toEqual({ _tag: "Limited", bucket: first.bucket, retryAfterMs: 7_000 })
    expect(passes(rate, back.bucket, 1, 11_000)).toBe(true)
  })

  it("fills at rates below one a second, too", () => {
    const rate = { perSecond: 0.25, burst: 1 }
    const empty = RateLimit.take(rate, RateLimit.full(rate, 0), 1, 0).bucket
    expect(RateLimit.take(rate, empty, 1, 1_000)).toMatchObject({ retryAfterMs: 3_000 })
    expect(passes(rate, empty, 1, 4_000)).toBe(true)
  })

  it("is full, and can be forgotten, exactly when it would grant the whole burst", () => {
    fc.assert(
      fc.property(rate, asks, waitMs, (rate, asks, waitMs) => {
        for (const { now, spent } of run(rate, asks)) {
          const later = now + waitMs
          expect(RateLimit.isFull(rate, spent.bucket, later)).toBe(
            passes(rate, spent.bucket, rate.burst, later)
          )
        }
      })
    )
  })

  it("is full when it says, and not 1 ms earlier", () => {
    fc.assert(
      fc.property(rate, asks, (rate, asks) => {
        for (const { now, spent } of run(rate, asks)) {
          const at = now + RateLimit.fullAfterMs(rate, spent.bucket, now)
          expect(RateLimit.isFull(rate, spent.bucket, at)).toBe(true)
          if (at > now) expect(RateLimit.isFull(rate, spent.bucket, at - 1)).toBe(false)
        }
      })
    )
  })

  it("with other buckets spends from all or from none, and waits for the last of them", () => {
    const scene = fc.array(fc.record({ rate, asks, part: fc.nat({ max: 120 }) }), { maxLength: 4 })
    fc.assert(
      fc.property(scene, waitMs, (scene, wait) => {
        const now = 10_000_000 + wait
        const all = scene.map(({ asks, part, rate }) => ({
          rate,
          bucket: run(rate, asks).at(-1)!.spent.bucket,
          cost: Math.ceil((rate.burst * part) / 100)
        }))
        const each = all.map(({ bucket, cost, rate }) => RateLimit.take(rate, bucket, cost, now))
        const waits = each.map((spent) => (spent._tag === "Limited" ? spent.retryAfterMs : 0))
        const spent = RateLimit.takeAll(all, now)
        if (waits.every((ms) => ms === 0)) {
          expect(spent).toEqual({ _tag: "Spent", buckets: each.map(({ bucket }) => bucket) })
        } else {
          const longest = Math.max(...waits)
          expect(spent).toEqual({ _tag: "Limited", by: waits.indexOf(longest), retryAfterMs: longest })
          expect(RateLimit.takeAll(all, now + longest)._tag).toBe("Spent")
          expect(RateLimit.takeAll(all, now + longest - 1)._tag).toBe("Limited")
        }
      })
    )
  })

  it("with another rate owes what it owed, or all of it where that is less", () => {
    fc.assert(
      fc.property(rate, rate, asks, (from, to, asks) => {
        const { now, spent } = run(from, asks).at(-1)!
        const owed = from.burst * 1_000 - spent.bucket.thousandths
        const adapted = RateLimit.adapt(from, to, spent.bucket, now)
        expect(adapted.thousandths).toBe(to.burst * 1_000 - Math.min(owed, to.burst * 1_000))
        expect(adapted.at).toBe(now)
        // To and fro gives nothing.
        expect(RateLimit.adapt(to, from, adapted, now).thousandths).toBeGreaterThanOrEqual(
          spent.bucket.thousandths
        )
        if (owed <= to.burst * 1_000) {
          expect(RateLimit.adapt(to, from, adapted, now)).toEqual(spent.bucket)
        }
      })
    )
  })

  it("is the same as an Effect", () => {
    const rate = { perSecond: 10, burst: 1 }
    const spend = (bucket: RateLimit.Bucket) =>
      Effect.runSync(Effect.result(RateLimit.spend(rate, bucket, 1, 0)))
    const bucket = Result.getOrThrow(spend(RateLimit.full(rate, 0)))
    expect(passes(rate, bucket, 1, 0)).toBe(false)
    expect(Result.getOrThrow(Result.flip(spend(bucket)))).toMatchObject({
      _tag: "RateLimited",
      retryAfterMs: 100,
      message: "over the rate limit; try again in 100 ms"
    })
  })
})
