/** What was denied, in the log: a line for what is worth one, and a number for the rest, each minute and in the end. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { DenialLog } from "./DenialLog.ts"

export interface Denied {
  /** The message of the line. */
  readonly what: string
  /** Whose lines are counted together: a subject, or the origin of an address. */
  readonly who: string
  /** Of one kind there is one line in a minute; without it, whatever has the same fields is one. */
  readonly kind?: string
  readonly fields: Readonly<Record<string, string | undefined>>
  /** Where it happened, which is no part of what it is. */
  readonly at?: Readonly<Record<string, string | undefined>>
}

export interface DenialLogging {
  /** The line, if this one is worth it; if not, it is counted. Asked when something was denied, and not earlier. */
  readonly line: (denied: Denied) => Effect.Effect<void> | undefined
  /** The same as an effect. */
  readonly tell: (denied: Denied) => Effect.Effect<void>
}

export interface Options {
  /** The message of the lines that say how many were left out. */
  readonly leftOut: string
  readonly maxEntries?: number
}

const lookEvery = "1 second"

export const make = ({ leftOut, maxEntries }: Options): Effect.Effect<DenialLogging, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const denials = new DenialLog(maxEntries)

    const tellLeftOut = (until: () => number) =>
      Effect.suspend(() =>
        Effect.forEach(denials.due(until()), ({ count, who }) => Effect.logInfo(leftOut, { who, count }), {
          discard: true
        })
      )
    yield* Effect.addFinalizer(() => tellLeftOut(() => Infinity))
    yield* Effect.sleep(lookEvery).pipe(
      Effect.andThen(tellLeftOut(() => clock.currentTimeMillisUnsafe())),
      Effect.forever,
      Effect.forkScoped
    )

    const line = ({ at, fields, kind, what, who }: Denied): Effect.Effect<void> | undefined => {
      const text = `${what} ${kind ?? Object.values(fields).join(" ")}`
      return denials.isWorthALine(who, text, clock.currentTimeMillisUnsafe())
        ? Effect.logInfo(what, { ...fields, ...at })
        : undefined
    }
    return { line, tell: (denied) => Effect.suspend(() => line(denied) ?? Effect.void) }
  })
