/** How much of the disk an SQLite store takes: its file, and what is written and not merged into that yet. */
import { statSync } from "node:fs"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as metrics from "../layers/core/metrics.ts"

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

/** As a metric of the hub; a look at two entries of a directory, when somebody scrapes. */
export const layer = (path: string): Layer.Layer<never> =>
  Layer.effectDiscard(
    Effect.flatMap(metrics.recorder, ({ gauge }) =>
      gauge(metrics.storeBytes, () => sizeOf(path) + sizeOf(`${path}-wal`))
    )
  )
