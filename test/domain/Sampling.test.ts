/** Which traces are collected: by name, by share, and as the parent says. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { isSampled, isSamplerName, samplerNames, samplerOf } from "../../src/domain/Sampling.ts"

const hex = fc.constantFrom(..."0123456789abcdef")
const traceId = fc.string({ unit: hex, minLength: 32, maxLength: 32 })
const share = fc.double({ min: 0, max: 1, noNaN: true })
const parent = fc.constantFrom(true, false, undefined)

describe("isSampled", () => {
  it("does as the parent says where it is parent-based, and does not ask it where it is not", () => {
    fc.assert(
      fc.property(traceId, share, fc.boolean(), (id, share, said) => {
        for (const root of ["always_on", "always_off", "traceidratio"] as const) {
          const own = isSampled(samplerOf(root, share), id, undefined)
          expect(isSampled(samplerOf(root, share), id, said)).toBe(own)
          expect(isSampled(samplerOf(`parentbased_${root}`, share), id, said)).toBe(said)
          expect(isSampled(samplerOf(`parentbased_${root}`, share), id, undefined)).toBe(own)
        }
      })
    )
  })

  it("collects all, nothing, or a share that only grows with the share", () => {
    fc.assert(
      fc.property(traceId, share, share, parent, (id, a, b, said) => {
        expect(isSampled(samplerOf("always_on", a), id, said)).toBe(true)
        expect(isSampled(samplerOf("always_off", a), id, said)).toBe(false)
        expect(isSampled(samplerOf("traceidratio", 1), id, said)).toBe(true)
        expect(isSampled(samplerOf("traceidratio", 0), id, said)).toBe(false)
        const [less, more] = [Math.min(a, b), Math.max(a, b)]
        if (isSampled(samplerOf("traceidratio", less), id, said)) {
          expect(isSampled(samplerOf("traceidratio", more), id, said)).toBe(true)
        }
      })
    )
  })

  it("takes the share from the end of the id, which is random", () => {
    const quarter = samplerOf("traceidratio", 0.25)
    expect(isSampled(quarter, `${"f".repeat(18)}3fffffffffffff`, undefined)).toBe(true)
    expect(isSampled(quarter, `${"0".repeat(18)}40000000000000`, undefined)).toBe(false)
  })

  it("knows the names of the standard, and no others", () => {
    expect(samplerNames.every(isSamplerName)).toBe(true)
    for (const name of ["", "on", "ALWAYS_ON", "jaeger_remote"]) expect(isSamplerName(name)).toBe(false)
  })
})
