/**
 * Brings spans to a receiver, in batches and beside everything else.
 *
 * What waits has a bound, and what is beyond it is dropped and counted: a receiver that is slow or away costs the hub
 * nothing but that. It is told once, and once more when it is over.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Semaphore from "effect/Semaphore"
import type * as Scope from "effect/Scope"
import * as metrics from "../core/metrics.ts"
import { type Encoded, makeEncoder, type Span } from "./encodeSpans.ts"
import type { Receiver } from "./Receiver.ts"

/** How long a receiver that failed is left alone, in milliseconds: twice as long each time. */
const rest = { firstMs: 1_000, longestMs: 30_000 }

/** How long a hub that stops goes on exporting. */
const flushTimeout = "1 second"

/** What may be answered otherwise the next time (https://opentelemetry.io/docs/specs/otlp/#failures-1). */
const passing = new Set([429, 502, 503, 504])

class NotExported extends Data.TaggedError("NotExported")<{
  readonly reason: string
  /** The same spans may be taken later. */
  readonly mayPass: boolean
}> {
  override get message() {
    return this.reason
  }
}

const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  // `fetch failed` says nothing: what it failed of is its cause.
  return error.cause instanceof Error && error.cause.message !== "" ? error.cause.message : error.message
}

/** A bug in the encoding costs the batch, and not all that come after it. */
const notEncoded = (error: unknown) => new NotExported({ reason: reasonOf(error), mayPass: false })

const post = ({ endpoint, headers, timeoutMs }: Receiver, { body, contentType }: Encoded) =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(endpoint, {
        method: "POST",
        headers: { ...Redacted.value(headers), "content-type": contentType },
        body: typeof body === "string" ? body : new Uint8Array(body),
        redirect: "manual",
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
      })
      await response.arrayBuffer()
      return response.status
    },
    catch: (error) => new NotExported({ reason: reasonOf(error), mayPass: true })
  }).pipe(
    Effect.flatMap((status) =>
      status >= 200 && status < 300
        ? Effect.void
        : Effect.fail(
            new NotExported({ reason: `it answered with status ${status}`, mayPass: passing.has(status) })
          )
    )
  )

/** Takes spans from code that runs without a fiber. */
export type Push = (span: Span) => void

export const makeExporter = (settings: Receiver, version: string): Effect.Effect<Push, never, Scope.Scope> =>
  Effect.gen(function* () {
    const recorder = yield* metrics.recorder
    const exported = recorder.counter(metrics.spansExported)
    const dropped = recorder.counter(metrics.spansDropped)
    const encode = makeEncoder(settings, version)
    const isFull = yield* Queue.sliding<void>(1)
    const { origin, pathname } = new URL(settings.endpoint)
    /** Without its query, which may hold a key. */
    const endpoint = `${origin}${pathname}`
    let waiting: Array<Span> = []
    let isFailing = false
    let restMs = rest.firstMs

    const failed = (error: NotExported) =>
      Effect.suspend(() => {
        const isNew = !isFailing
        isFailing = true
        return isNew
          ? Effect.logWarning("traces cannot be exported; they are dropped until they can", {
              endpoint,
              reason: error.reason
            })
          : Effect.void
      })

    const succeeded = Effect.suspend(() => {
      restMs = rest.firstMs
      if (!isFailing) return Effect.void
      isFailing = false
      return Effect.logInfo("traces are exported again", { endpoint })
    })

    /** One batch. What it was not taken for may pass, and then it goes before the others again. */
    const exportOne = Effect.suspend(() => {
      const batch = waiting.slice(0, settings.maxBatchSpans)
      waiting = waiting.slice(batch.length)
      return Effect.try({ try: () => encode(batch), catch: notEncoded }).pipe(
        Effect.flatMap((body) => post(settings, body)),
        Effect.tap(() => {
          exported.count += batch.length
          return succeeded
        }),
        Effect.tapError((error) => {
          const kept = error.mayPass ? batch.slice(0, settings.maxQueuedSpans - waiting.length) : []
          waiting = [...kept, ...waiting]
          dropped.count += batch.length - kept.length
          return failed(error)
        })
      )
    })

    const oneAtATime = yield* Semaphore.make(1)
    const exportAll = Effect.gen(function* () {
      while (waiting.length > 0) yield* exportOne
    }).pipe(oneAtATime.withPermits(1))

    yield* Effect.forever(
      Effect.gen(function* () {
        yield* Effect.timeoutOption(Queue.take(isFull), settings.delayMs)
        yield* exportAll.pipe(
          Effect.catch(() => {
            const pause = restMs
            restMs = Math.min(2 * restMs, rest.longestMs)
            return Effect.sleep(pause)
          })
        )
      })
    ).pipe(Effect.forkScoped)

    // Added last, so it runs before the fiber above is interrupted, and waits for a batch that is under way.
    yield* Effect.addFinalizer(() =>
      isFailing ? Effect.void : Effect.ignore(Effect.timeoutOption(exportAll, flushTimeout))
    )

    return (span) => {
      if (waiting.length >= settings.maxQueuedSpans) {
        dropped.count++
        return
      }
      waiting.push(span)
      if (waiting.length === settings.maxBatchSpans) Queue.offerUnsafe(isFull, undefined)
    }
  })
