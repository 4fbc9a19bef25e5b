/** The lines about what was denied: at once, by number when the minute is over, and by number at the end. */
import { Effect, Exit, Layer, Logger, Scope } from "effect"
import { describe, expect, it } from "@effect/vitest"
import { TestClock } from "effect/testing"
import * as denialLogging from "../../../src/layers/core/denialLogging.ts"

const scene = Effect.gen(function* () {
  const lines: Array<unknown> = []
  const logger = Logger.layer([Logger.make(({ message }) => void lines.push(message))])
  const scope = yield* Scope.make()
  const context = yield* Layer.build(logger)
  const here = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
    effect.pipe(Scope.provide(scope), Effect.provide(context))
  const denials = yield* here(denialLogging.make({ leftOut: "and more" }))
  const tell = (who: string, name: string, at = "here") =>
    here(denials.tell({ what: "no", who, fields: { name }, at: { at } }))
  return { lines, tell, end: here(Scope.close(scope, Exit.void)) }
})

describe("what was denied", () => {
  it.effect("is told once, wherever it was, and the rest when the minute is over, without another", () =>
    Effect.gen(function* () {
      const { end, lines, tell } = yield* scene
      for (const at of ["here", "there", "there"]) yield* tell("ann", "a", at)
      yield* tell("ann", "b")
      const told = [
        ["no", { name: "a", at: "here" }],
        ["no", { name: "b", at: "here" }]
      ]
      expect(lines).toEqual(told)
      yield* TestClock.adjust("59 seconds")
      expect(lines).toEqual(told)
      yield* TestClock.adjust("1 second")
      expect(lines).toEqual([...told, ["and more", { who: "ann", count: 2 }]])
      yield* end
      expect(lines).toHaveLength(3)
    })
  )

  it.effect("is told at the end, when the minute is not over", () =>
    Effect.gen(function* () {
      const { end, lines, tell } = yield* scene
      yield* tell("ann", "a")
      yield* tell("ann", "a")
      yield* end
      expect(lines.at(-1)).toEqual(["and more", { who: "ann", count: 1 }])
    })
  )
})
