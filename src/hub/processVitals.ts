/** How the process is: its memory, and how late the event loop comes to what is due. */
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Vitals } from "../services/Vitals.ts"

const resolutionMs = 10

/** Costs nothing while nobody asks. */
const process_ = Effect.gen(function* () {
  const loop = monitorEventLoopDelay({ resolution: resolutionMs })
  yield* Effect.acquireRelease(
    Effect.sync(() => loop.enable()),
    () => Effect.sync(() => loop.disable())
  )
  return () => {
    // Without a sample there is no percentile.
    const p99 = loop.count === 0 ? resolutionMs : loop.percentile(99) / 1e6
    loop.reset()
    return { loopDelayMs: Math.max(0, p99 - resolutionMs), rssBytes: process.memoryUsage.rss() }
  }
})

export const layer: Layer.Layer<never, never, Vitals> = Layer.effectDiscard(
  Effect.flatMap(Vitals, ({ attach }) => attach({ process: process_ }))
)
