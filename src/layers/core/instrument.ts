/**
 * The seam where every store gets its spans and its timing, whatever the backend: one wrapper around the
 * service, instead of some lines in each method of each backend.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as metrics from "./metrics.ts"

const wrap = <A, E, R>(
  operation: string,
  effect: Effect.Effect<A, E, R>,
  recorder: metrics.Recorder,
  clock: Clock.Clock
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const begin = clock.monotonicTimeNanosUnsafe()
    return Effect.onExit(effect, () =>
      Effect.sync(() => {
        const seconds = Number(clock.monotonicTimeNanosUnsafe() - begin) / 1e9
        recorder.observe(metrics.storeDuration, seconds, { operation })
      })
    )
  }).pipe(Effect.withSpan(operation))

/** Every member that is an Effect, or answers one, in a span of its name, and timed. */
const wrapAll = <S extends object>(
  name: string,
  service: S,
  recorder: metrics.Recorder,
  clock: Clock.Clock
): S => {
  const wrapped: Record<string, unknown> = {}
  for (const [member, value] of Object.entries(service) as ReadonlyArray<[string, unknown]>) {
    const operation = `${name}.${member}`
    if (Effect.isEffect(value)) wrapped[member] = wrap(operation, value, recorder, clock)
    else if (typeof value === "function") {
      wrapped[member] = (...args: ReadonlyArray<unknown>) => {
        const answer: unknown = value(...args)
        return Effect.isEffect(answer) ? wrap(operation, answer, recorder, clock) : answer
      }
    } else wrapped[member] = value
  }
  return wrapped as S
}

/** The layer of a store, with spans and metrics. */
export const instrument = <I, S extends object, E, R>(
  service: Context.Key<I, S>,
  layer: Layer.Layer<I, E, R>
): Layer.Layer<I, E, R> =>
  Layer.effect(
    service,
    Effect.gen(function* () {
      const name = service.key.split("/").at(-1) ?? service.key
      return wrapAll(name, yield* service, yield* metrics.recorder, yield* Clock.Clock)
    })
  ).pipe(Layer.provide(layer))
