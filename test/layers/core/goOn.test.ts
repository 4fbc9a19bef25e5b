/** A loop whose turn has a bug goes on, tells it, and still ends when it is told to. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Logger } from "effect"
import { TestClock } from "effect/testing"
import { goOn } from "../../../src/layers/core/goOn.ts"

describe("goOn", () => {
  it.effect("logs what failed, and lets the loop go on until it is interrupted", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      let turns = 0
      const turn = Effect.suspend(() => {
        turns++
        if (turns === 1) return Effect.die(new Error("a bug"))
        return turns === 2 ? Effect.fail("a failure") : Effect.void
      })
      const loop = Effect.sleep(10).pipe(Effect.andThen(goOn("looking")(turn)), Effect.forever)
      const fiber = yield* Effect.forkChild(
        Effect.provide(loop, Logger.layer([Logger.make(({ message }) => void lines.push(message))])),
        { startImmediately: true }
      )
      yield* TestClock.adjust(100)
      expect(turns).toBe(10)
      expect(lines.flat().filter((line) => line === "looking failed; it goes on")).toHaveLength(2)
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust(100)
      expect(turns).toBe(10)
    })
  )

  it.effect("does not take an interruption for a failure", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(goOn("waiting")(Effect.never), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      expect(exit._tag).toBe("Failure")
    })
  )
})
