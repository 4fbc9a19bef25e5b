/** Refused tokens by address: each waits for its own, and an address that is forgotten begins anew. */
import { expect, it } from "@effect/vitest"
import * as Settings from "../../../src/domain/Settings.ts"
import { Refusals } from "../../../src/layers/core/Refusals.ts"

const settings = { ...Settings.gateway, authDelayMs: 100, maxAuthDelayMs: 250, maxAuthAddresses: 3 }

const times = (n: number, once: () => number): ReadonlyArray<number> => Array.from({ length: n }, once)

it("each address has its own, and those of one network of IPv6 are one", () => {
  const refusals = new Refusals(settings)
  expect(times(7, () => refusals.delayMs("192.0.2.1", 0))).toEqual([0, 0, 0, 100, 200, 250, 250])
  expect(refusals.delayMs("192.0.2.2", 0)).toBe(0)
  expect(refusals.delayMs("::ffff:192.0.2.1", 0)).toBe(250)
  let host = 0
  expect(times(4, () => refusals.delayMs(`2001:db8::${++host}`, 0)).at(-1)).toBe(100)
})

it("of so many addresses only, the one that was refused longest ago is forgotten first", () => {
  const refusals = new Refusals(settings)
  for (const address of ["a", "b", "c"]) times(3, () => refusals.delayMs(address, 0))
  expect(refusals.delayMs("a", 0)).toBe(100)
  expect(refusals.delayMs("d", 0)).toBe(0)
  expect(refusals.delayMs("b", 0)).toBe(0)
  expect(refusals.delayMs("a", 0)).toBe(200)
})
