/** What a drainer makes of the answers that only somebody else's log has. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, References } from "effect"
import { TestClock } from "effect/testing"
import * as Settings from "../../../src/domain/Settings.ts"
import * as AppendingDrainer from "../../../src/layers/core/AppendingDrainer.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryOutboxStore from "../../../src/layers/memory/MemoryOutboxStore.ts"
import { OutboxDrainer } from "../../../src/services/OutboxDrainer.ts"
import { OutboxStore } from "../../../src/services/OutboxStore.ts"
import { type NotTaken, OutboxTarget, type TargetResult } from "../../../src/services/OutboxTarget.ts"

type Reason = NotTaken["reason"] | "unavailable"

/** Takes all but these; behind what may pass later, nothing of its key. */
const targetBut = (refused: Map<string, Reason>, asked: Array<string>) =>
  Layer.succeed(OutboxTarget, {
    append: (records) =>
      Effect.sync(() => {
        const held = new Set<string>()
        return records.map(({ id, key = id, topic }): TargetResult => {
          const about = { _tag: "NotAppended", topic, id } as const
          if (held.has(key)) return { ...about, reason: "behind_refused" }
          asked.push(id)
          const reason = refused.get(id)
          if (reason === undefined)
            return { ...about, _tag: "Appended", seq: 1, storedAt: 1, duplicate: false }
          if (reason !== "invalid") held.add(key)
          return reason === "unavailable"
            ? { ...about, reason }
            : { ...about, reason, message: `it is ${reason}` }
        })
      })
  })

const scene = (
  refused: Map<string, Reason>,
  test: (outbox: OutboxStore["Service"], asked: Array<string>) => Effect.Effect<void, unknown, OutboxDrainer>
) => {
  const asked: Array<string> = []
  const outbox = Layer.provideMerge(MemoryOutboxStore.layer(), RandomIds.layerTest())
  const retry = { baseMs: 100, maxMs: 100, maxAttempts: 3 }
  return Effect.gen(function* () {
    const store = yield* OutboxStore
    for (const id of ["a1", "a2", "b1"]) yield* store.add({ id, topic: "t", key: id[0]!, payload: 1 })
    yield* Effect.provide(
      test(store, asked),
      AppendingDrainer.layerInto({ ...Settings.drainer, retry }).pipe(
        Layer.provide(targetBut(refused, asked))
      )
    )
  }).pipe(Effect.provide(outbox), Effect.provideService(References.MinimumLogLevel, "None"))
}

const statesOf = (outbox: OutboxStore["Service"]) =>
  Effect.map(outbox.list({ limit: 10 }), ({ items }) =>
    items.map(
      ({ id, lastError, state }) => `${id} ${state}${lastError === undefined ? "" : `: ${lastError}`}`
    )
  )

describe("a drainer", () => {
  it.effect("gives up at once what is invalid, and goes on behind it", () =>
    scene(new Map([["a1", "invalid"]]), (outbox, asked) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("1 second")
        expect(yield* statesOf(outbox)).toEqual(["a1 Dead: it is invalid", "a2 Sent", "b1 Sent"])
        expect(asked).toEqual(["a1", "a2", "b1"])
      })
    )
  )

  it.effect("tries again what is forbidden, and gives it up after its last attempt", () =>
    scene(new Map([["a1", "forbidden"]]), (outbox, asked) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(1)
        expect((yield* statesOf(outbox))[2]).toBe("b1 Sent")
        yield* TestClock.adjust("10 seconds")
        expect(yield* statesOf(outbox)).toEqual(["a1 Dead: it is forbidden", "a2 Sent", "b1 Sent"])
        expect(asked.filter((id) => id === "a1")).toHaveLength(3)
        expect(asked.at(-1)).toBe("a2")
      })
    )
  )

  it.effect("counts no attempt of what only comes later, however often it is asked", () => {
    const refused = new Map<string, Reason>([["a1", "later"]])
    return scene(refused, (outbox, asked) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("2 minutes")
        expect(asked.filter((id) => id === "a1").length).toBeGreaterThan(3)
        expect(asked).not.toContain("a2")
        expect((yield* (yield* OutboxDrainer).status).failed).toBe(0)
        refused.clear()
        yield* TestClock.adjust("10 seconds")
        expect(yield* statesOf(outbox)).toEqual(["a1 Sent", "a2 Sent", "b1 Sent"])
      })
    )
  })
})
