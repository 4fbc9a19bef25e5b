/**
 * What one hub keeps in memory of topics that it appends to: where they ended when it looked last, and whose turn it is.
 * Neither is needed to be right, only to be fast; the log decides.
 */
import { setTimeout } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { Head } from "./eventLog.ts"

/** The server's time goes on, whatever clock the program is given. */
export const pause = (millis: number): Effect.Effect<void> =>
  Effect.promise((signal) => setTimeout(millis, undefined, { signal }))

/** The ends of topics as they were seen last. They may be behind, and are never ahead. */
export const makeHeads = (limit: number) => {
  const heads = new Map<string, Head>()
  return {
    get: (topic: string): Head | undefined => heads.get(topic),
    set: (topic: string, head: Head): void => {
      // The topic goes to the end of the line: the first is the one that was not written for the longest time.
      heads.delete(topic)
      heads.set(topic, head)
      if (heads.size > limit) for (const oldest of heads.keys()) return void heads.delete(oldest)
    },
    delete: (topic: string): void => void heads.delete(topic)
  }
}

/** One append to a topic at a time: those of one hub need not collide. */
export const makeLanes = () => {
  const lanes = new Map<string, { readonly semaphore: Semaphore.Semaphore; users: number }>()
  return <A, E>(topic: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const lane = lanes.get(topic) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
      lanes.set(topic, lane)
      lane.users++
      return lane.semaphore
        .withPermits(1)(effect)
        .pipe(
          Effect.ensuring(
            Effect.sync(() => {
              if (--lane.users === 0) lanes.delete(topic)
            })
          )
        )
    })
}
