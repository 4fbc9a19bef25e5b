/** What a server refuses at the moment is asked again, and nothing else is. */
import { expect, it } from "vitest"
import { whileBusy } from "../../../src/layers/mongo/whileBusy.ts"

const failing = (times: number, error: unknown) => {
  const calls = { made: 0 }
  const f = () => (++calls.made > times ? Promise.resolve("done") : Promise.reject(error))
  return { calls, f }
}

const coded = (code: unknown) => Object.assign(new Error(`code ${String(code)}`), { code })

it.each([1, 112, 117, 12_587])("asks again after code %d", async (code) => {
  const { calls, f } = failing(2, coded(code))
  expect(await whileBusy(f)).toBe("done")
  expect(calls.made).toBe(3)
})

it.each([coded(86), coded("1"), new Error("no code"), undefined])(
  "does not ask again after %o",
  async (error) => {
    const { calls, f } = failing(1, error)
    await expect(whileBusy(f)).rejects.toBe(error)
    expect(calls.made).toBe(1)
  }
)

it("gives up in the end", async () => {
  const { calls, f } = failing(Infinity, coded(1))
  await expect(whileBusy(f)).rejects.toThrow("code 1")
  expect(calls.made).toBe(10)
})
