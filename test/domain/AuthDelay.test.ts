/** The answers to refused AUTHs: at once first, then later and later, and at once again after a while. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import * as AuthDelay from "../../src/domain/AuthDelay.ts"

const settings = { authDelayMs: 250, maxAuthDelayMs: 5_000 }

const after = (times: ReadonlyArray<number>): AuthDelay.Refusals | undefined =>
  times.reduce<AuthDelay.Refusals | undefined>((before, now) => AuthDelay.refuse(before, now), undefined)

const delays = (times: ReadonlyArray<number>): ReadonlyArray<number> =>
  times.map((_, i) => AuthDelay.delayMs(after(times.slice(0, i + 1))!, settings))

const times = fc
  .array(fc.nat(30_000), { minLength: 1, maxLength: 60 })
  .map((gaps) => gaps.map((_, i) => gaps.slice(0, i + 1).reduce((sum, gap) => sum + gap, 0)))

describe("refused AUTHs of an address", () => {
  it("are answered at once three times, and each further one later than the one before", () => {
    expect(delays([0, 0, 0, 0, 0, 0])).toEqual([0, 0, 0, 250, 500, 750])
  })

  it("wait five seconds at most", () => {
    expect(delays(Array.from({ length: 100 }, () => 0)).at(-1)).toBe(5_000)
  })

  it("are forgotten after a minute without one", () => {
    expect(delays([0, 0, 0, 0, 60_000])).toEqual([0, 0, 0, 250, 0])
    expect(delays([0, 0, 0, 0, 0, 0, 30_000]).at(-1)).toBe(250)
  })

  it("never wait longer than if all of them had come at once, and never less than nothing", () => {
    fc.assert(
      fc.property(times, (times) => {
        for (const [i, delay] of delays(times).entries()) {
          expect(delay).toBeGreaterThanOrEqual(0)
          expect(delay).toBeLessThanOrEqual(Math.max(0, i + 1 - AuthDelay.atOnce) * settings.authDelayMs)
          expect(delay).toBeLessThanOrEqual(settings.maxAuthDelayMs)
        }
      })
    )
  })

  it("wait no less when one comes earlier, or when there was one more", () => {
    fc.assert(
      fc.property(times, fc.nat(30_000), (times, gap) => {
        const before = after(times)!
        const now = times.at(-1)! + gap
        const next = AuthDelay.refuse(before, now)
        expect(AuthDelay.refuse(before, now + 1).level).toBeLessThanOrEqual(next.level)
        expect(AuthDelay.refuse(AuthDelay.refuse(before, now), now).level).toBeGreaterThan(next.level)
      })
    )
  })

  it("do not decay by a clock that is set back", () => {
    expect(AuthDelay.levelAt({ level: 4, at: 1_000 }, 0)).toBe(4)
  })
})

describe("who counts as one", () => {
  it.each([
    ["192.0.2.7", "192.0.2.7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:0DB8:1:2::6", "2001:db8:1:2::/64"],
    ["2001:db8::6", "2001:db8:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["unknown", "unknown"]
  ])("%s is %s", (address, origin) => {
    expect(AuthDelay.originOf(address)).toBe(origin)
  })

  it("is the same for every address of a network of 64 bits", () => {
    const group = fc.nat(0xffff).map((n) => n.toString(16))
    fc.assert(
      fc.property(
        fc.array(group, { minLength: 8, maxLength: 8 }),
        fc.array(group, { minLength: 4, maxLength: 4 }),
        (all, other) => {
          const here = AuthDelay.originOf(all.join(":"))
          expect(AuthDelay.originOf([...all.slice(0, 4), ...other].join(":"))).toBe(here)
        }
      )
    )
  })
})
