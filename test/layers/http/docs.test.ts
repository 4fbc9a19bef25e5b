/** docs/http-api.md has a section for every endpoint, and for nothing else. */
import { readFileSync } from "node:fs"
import { expect, it } from "vitest"
import { endpoints } from "./endpoints.ts"

const text = readFileSync(new URL("../../../docs/http-api.md", import.meta.url), "utf8")

it("has every endpoint of the contract", () => {
  const described = [...text.matchAll(/^### `(.+)`$/gm)].map(([, name]) => name)
  expect(described.toSorted()).toEqual(endpoints.map(({ name }) => name).toSorted())
})

it("its JSON is JSON", () => {
  const blocks = [...text.matchAll(/^```json\n([^]*?)^```$/gm)].map(([, json]) => json ?? "")
  expect(blocks.length).toBeGreaterThan(10)
  for (const block of blocks) expect(() => JSON.parse(block) as unknown).not.toThrow()
})
