/** What a server refuses at the moment is asked again, and nothing else is. */
import { describe, expect, it } from "vitest"
import { isDuplicateKey, upsert, whileBusy } from "../../../src/layers/mongo/attempts.ts"

const failing = (times: number, error: unknown) => {
  const calls = { made: 0 }
  const f = () => (++calls.made > times ? Promise.resolve("done") : Promise.reject(error))
  return { calls, f }
}

const coded = (code: unknown) => Object.assign(new Error(`code ${String(code)}`), { code })

describe.each([
  { name: "whileBusy", again: whileBusy, codes: [1, 112, 117, 12_587, 16_908_292], others: [86, 11_000] },
  { name: "upsert", again: upsert, codes: [1, 9, 11_000], others: [86, 112] }
])("$name", ({ again, codes, others }) => {
  it.each(codes)("asks again after code %d", async (code) => {
    const { calls, f } = failing(2, coded(code))
    expect(await again(f)).toBe("done")
    expect(calls.made).toBe(3)
  })

  it.each([...others.map(coded), coded("1"), new Error("no code"), undefined])(
    "does not ask again after %o",
    async (error) => {
      const { calls, f } = failing(1, error)
      await expect(again(f)).rejects.toBe(error)
      expect(calls.made).toBe(1)
    }
  )

  it("gives up in the end", async () => {
    const { calls, f } = failing(Infinity, coded(1))
    await expect(again(f)).rejects.toThrow("code 1")
    expect(calls.made).toBe(10)
  })
})

it("knows a duplicate key by its code", () => {
  const answers = [coded(11_000), coded("11000"), { code: 11_000 }, undefined].map(isDuplicateKey)
  expect(answers).toEqual([true, false, false, false])
})
