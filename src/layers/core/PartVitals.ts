/** Vitals, and the parts of a hub that attach themselves as they come up. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Gateway } from "../../services/Gateway.ts"
import { OutboxSources } from "../../services/OutboxSources.ts"
import { type VitalParts, Vitals } from "../../services/Vitals.ts"

export const layer: Layer.Layer<Vitals> = Layer.sync(Vitals, () => {
  const attached = new Set<Partial<VitalParts>>()
  return Vitals.of({
    attach: (parts) =>
      Effect.acquireRelease(
        Effect.sync(() => void attached.add(parts)),
        () => Effect.sync(() => void attached.delete(parts))
      ),
    parts: () => Object.assign({}, ...attached) as Partial<VitalParts>
  })
})

/** The gateway's part. */
export const gateway: Layer.Layer<never, never, Gateway | Vitals> = Layer.effectDiscard(
  Effect.gen(function* () {
    const { connections, isDraining } = yield* Gateway
    const { attach } = yield* Vitals
    yield* attach({ connections, isDraining })
  })
)

/** The part of the outboxes. */
export const outboxes: Layer.Layer<never, never, OutboxSources | Vitals> = Layer.effectDiscard(
  Effect.gen(function* () {
    const { measure } = yield* OutboxSources
    const { attach } = yield* Vitals
    yield* attach({ outboxes: measure })
  })
)
