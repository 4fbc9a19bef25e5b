/** Groups under a clock that goes on with every look at it: no moment between two looks is lost. */
import { describe, expect, it } from "@effect/vitest"
import { Clock, Duration, Effect, Layer } from "effect"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import { join } from "./Consumer.ts"
import { dispatcher, publish } from "./groupsAtWork.ts"
import * as TestStores from "./TestStores.ts"

/** Each look costs as many milliseconds as it is told, in turn; who sleeps wakes when it is time. */
const restless = (steps: ReadonlyArray<number>): Clock.Clock => {
  let now = 1_000
  let looks = 0
  const look = () => (now += steps[looks++ % steps.length]!)
  const turn = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
  return {
    currentTimeMillisUnsafe: look,
    currentTimeMillis: Effect.sync(look),
    currentTimeNanosUnsafe: () => BigInt(look()) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(look()) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => BigInt(look()) * 1_000_000n,
    monotonicTimeNanos: Effect.sync(() => BigInt(look()) * 1_000_000n),
    sleep: (duration) =>
      Effect.gen(function* () {
        const until = now + Duration.toMillis(duration)
        while (now < until) {
          yield* turn
          now++
        }
      })
  }
}

const layer = dispatcher({ maxAttempts: 20 }).pipe(
  Layer.provideMerge(GroupCommitAppender.layer()),
  Layer.provideMerge(TestStores.layer())
)

const paces = [
  [0],
  [1],
  [0, 1],
  [0, 0, 1],
  [0, 0, 0, 1],
  [0, 0, 0, 0, 1],
  [0, 0, 0, 0, 0, 0, 1],
  [3, 0, 0, 0]
]

describe("GroupRunner: a retry that becomes due while a round looks at the clock", () => {
  it.live.each(paces.map((steps) => ({ steps })))("comes: $steps ms a look", ({ steps }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      const came = (count: number) =>
        Effect.gen(function* () {
          for (let turns = 0; turns < 2_000 && consumer.deliveries.length < count; turns++) {
            yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
          }
          expect(consumer.deliveries).toHaveLength(count)
        })
      yield* came(1)
      for (const [i, delayMs] of [0, 1, 2, 3, 0, 1, 2, 3, 4, 5].entries()) {
        yield* consumer.nack("1", { delayMs })
        yield* came(i + 2)
      }
    }).pipe(Effect.scoped, Effect.provide(layer), Effect.provideService(Clock.Clock, restless(steps)))
  )
})
