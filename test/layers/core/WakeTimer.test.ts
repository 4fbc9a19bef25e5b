/** It wakes once, at the first of the times it was given. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { WakeTimer } from "../../../src/layers/core/WakeTimer.ts"

const scene = Effect.gen(function* () {
  const context = yield* Effect.context<never>()
  const fibers: Array<Fiber.Fiber<void>> = []
  let woken = 0
  const timer = new WakeTimer(
    (effect) => {
      const fiber = Effect.runForkWith(context)(effect)
      fibers.push(fiber)
      return fiber
    },
    () => void woken++
  )
  const wokenAfter = (ms: number) =>
    Effect.map(TestClock.adjust(ms), () => {
      const count = woken
      woken = 0
      return count
    })
  return { timer, wokenAfter, started: () => fibers.length }
})

describe("WakeTimer", () => {
  it.effect("wakes once, and can be set again", () =>
    Effect.gen(function* () {
      const { timer, wokenAfter } = yield* scene
      timer.wakeAt(10, 0)
      expect(yield* wokenAfter(9)).toBe(0)
      expect(yield* wokenAfter(1)).toBe(1)
      expect(yield* wokenAfter(100)).toBe(0)
      timer.wakeAt(120, 110)
      expect(yield* wokenAfter(10)).toBe(1)
    })
  )

  it.effect("wakes at the sooner of two times, with one that sleeps", () =>
    Effect.gen(function* () {
      const { started, timer, wokenAfter } = yield* scene
      timer.wakeAt(50, 0)
      timer.wakeAt(80, 0)
      expect(started()).toBe(1)
      timer.wakeAt(20, 0)
      expect(yield* wokenAfter(20)).toBe(1)
      expect(yield* wokenAfter(100)).toBe(0)
    })
  )

  it.effect("wakes as soon as it can when the time has passed", () =>
    Effect.gen(function* () {
      const { timer, wokenAfter } = yield* scene
      timer.wakeAt(0, 100)
      expect(yield* wokenAfter(1)).toBe(1)
    })
  )

  it.effect("does not wake when it was called off", () =>
    Effect.gen(function* () {
      const { timer, wokenAfter } = yield* scene
      timer.wakeAt(10, 0)
      timer.clear()
      expect(yield* wokenAfter(100)).toBe(0)
      timer.wakeAt(110, 100)
      timer.wakeAt(Infinity, 100)
      expect(yield* wokenAfter(100)).toBe(0)
    })
  )
})
