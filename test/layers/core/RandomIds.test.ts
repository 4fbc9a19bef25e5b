/** Ids that nobody can guess or meet twice, and ids that a test can know. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { Ids } from "../../../src/services/Ids.ts"

const made = (count: number) => Ids.useSync(({ next }) => Array.from({ length: count }, () => next()))

describe("RandomIds", () => {
  it.effect("are UUIDs of version 7, each another, in the order of their making", () =>
    Effect.gen(function* () {
      const before = Date.now()
      const ids = yield* made(20_000)
      const after = Date.now()
      expect(new Set(ids).size).toBe(ids.length)
      expect(ids.toSorted()).toEqual(ids)
      for (const id of ids) {
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      }
      const time = Number.parseInt(ids[0]!.replaceAll("-", "").slice(0, 12), 16)
      expect(time).toBeGreaterThanOrEqual(before)
      expect(time).toBeLessThanOrEqual(after)
    }).pipe(Effect.provide(RandomIds.layer))
  )

  it.effect("count up in tests, each time from the start", () =>
    Effect.gen(function* () {
      const first = yield* made(3).pipe(Effect.provide(RandomIds.layerTest()))
      expect(first).toEqual(["id-1", "id-2", "id-3"])
      expect(yield* made(2).pipe(Effect.provide(RandomIds.layerTest("x")))).toEqual(["x-1", "x-2"])
    })
  )
})
