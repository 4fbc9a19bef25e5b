/** Events that were handled, in memory. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Settings from "../../../src/domain/Settings.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryDedupeStore from "../../../src/layers/memory/MemoryDedupeStore.ts"
import { DedupeStore } from "../../../src/services/DedupeStore.ts"
import { dedupeStoreSuite } from "../../../src/testing/dedupeStore.ts"

const layer = (options?: MemoryDedupeStore.Options) =>
  Layer.provide(MemoryDedupeStore.layer(options), RandomIds.layer)

dedupeStoreSuite("memory", layer(), { advance: TestClock.adjust })

describe("MemoryDedupeStore", () => {
  it.effect("keeps events for as long as the defaults say, and then forgets them by itself", () =>
    Effect.gen(function* () {
      const store = yield* DedupeStore
      const { keepMs } = Settings.dedupe
      expect(store.keepMs).toBe(keepMs)
      const begin = (eventId: string) => store.begin({ consumer: "c", topic: "t", eventId, leaseMs: 1_000 })
      const handle = (eventId: string) =>
        Effect.flatMap(begin(eventId), (begun) =>
          begun._tag === "Run" ? store.complete(begun.token) : Effect.die(begun._tag)
        )
      for (let n = 0; n < 100; n++) yield* handle(`${n}`)
      yield* TestClock.adjust(keepMs)
      expect(yield* begin("0")).toMatchObject({ _tag: "Done" })
      yield* TestClock.adjust(1)
      yield* handle("new")
      // All that is left.
      expect(yield* store.purge({ olderThanMs: -1 })).toBe(1)
    }).pipe(Effect.provide(layer()))
  )
})
