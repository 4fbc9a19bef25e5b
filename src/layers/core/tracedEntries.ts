/** Events that come in together, in their traces: for whoever hands several of them to the log at once. */
import * as Effect from "effect/Effect"
import type { EventRecord } from "../../domain/Event.ts"
import type { EventTraces, Origin } from "../../services/EventTraces.ts"
import type { TargetResult } from "../../services/OutboxTarget.ts"

/** What came of each, when that is known. */
const problemOf = (result: TargetResult): string | undefined =>
  result._tag === "Appended" ? undefined : result.reason

/**
 * Appends events that came in so many milliseconds ago, each by its place. Those that are traced have their spans from
 * then on until the answer; without anybody who collects traces this is `append`.
 */
export const appendTraced = <
  A extends ReadonlyArray<TargetResult>,
  E extends { readonly message: string },
  R
>(
  traces: EventTraces | undefined,
  origin: Origin,
  records: ReadonlyArray<EventRecord>,
  append: (records: ReadonlyArray<EventRecord>) => Effect.Effect<A, E, R>,
  agoMs: (i: number) => number = () => 0
): Effect.Effect<A, E, R> => {
  if (traces === undefined) return append(records)
  return Effect.suspend(() => {
    const entries = records.map((record, i) => traces.enter(origin, record, agoMs(i)))
    return append(records.map((record, i) => entries[i]?.record ?? record)).pipe(
      Effect.tap((results) =>
        Effect.sync(() => entries.forEach((entry, i) => entry?.end(problemOf(results[i]!))))
      ),
      Effect.tapError((error) => Effect.sync(() => entries.forEach((entry) => entry?.end(error.message))))
    )
  })
}
