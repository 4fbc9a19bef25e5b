/**
 * The seam where every store gets its spans and its timing, whatever the backend: one wrapper around the
 * service, instead of some lines in each method of each backend.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Tracer from "effect/Tracer"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as metrics from "./metrics.ts"

interface Seam {
  readonly operation: string
  readonly clock: Clock.Clock
  readonly duration: metrics.Distribution
  readonly errors: metrics.Count
}

/** What is refused for a reason of its own, or not waited for any longer, is no failure of the store. */
const hasFailed = (exit: Exit.Exit<unknown, unknown>): boolean => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return false
  const error = Exit.findErrorOption(exit)
  return error._tag === "None" || error.value instanceof StoreUnavailable
}

const wrap = <A, E, R>(
  { clock, duration, errors, operation }: Seam,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const timed = Effect.suspend(() => {
    const begin = clock.monotonicTimeNanosUnsafe()
    return Effect.onExit(effect, (exit) =>
      Effect.sync(() => {
        duration.observe(Number(clock.monotonicTimeNanosUnsafe() - begin) / 1e9)
        if (hasFailed(exit)) errors.count++
      })
    )
  })
  // Effect's own tracer tells nobody, and a span costs more than many an operation.
  return Effect.contextWith((context: Context.Context<never>) =>
    Context.get(context, Tracer.Tracer) === Tracer.nativeTracer ? timed : Effect.withSpan(timed, operation)
  )
}

/** Every member that is an Effect, or answers one, in a span of its name, and timed. */
const wrapAll = <S extends object>(
  name: string,
  service: S,
  recorder: metrics.Recorder,
  clock: Clock.Clock
): S => {
  const wrapped: Record<string, unknown> = {}
  for (const [member, value] of Object.entries(service) as ReadonlyArray<[string, unknown]>) {
    if (!Effect.isEffect(value) && typeof value !== "function") {
      wrapped[member] = value
      continue
    }
    const operation = `${name}.${member}`
    const seam: Seam = {
      operation,
      clock,
      duration: recorder.histogram(metrics.storeDuration, { operation }),
      errors: recorder.counter(metrics.storeErrors, { operation })
    }
    wrapped[member] = Effect.isEffect(value)
      ? wrap(seam, value)
      : (...args: ReadonlyArray<unknown>) => {
          const answer: unknown = value(...args)
          return Effect.isEffect(answer) ? wrap(seam, answer) : answer
        }
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
