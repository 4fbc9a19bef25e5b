/**
 * What was handled, in memory: the model of the other backends.
 *
 * It ends with its process, and with it everything that was handled: what comes again after a restart is
 * handled again. It holds as many events as were handled within `keepMs`.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Settings from "../../domain/Settings.ts"
import { DedupeStore, RunLost, type RunToken } from "../../services/DedupeStore.ts"
import { Ids } from "../../services/Ids.ts"

interface Running {
  readonly run: string
  leaseUntil: number
}

interface Done {
  /** The run that completed it, and may say so again. */
  readonly run: string
  readonly at: number
}

export interface Options {
  /** How long an event is remembered after it was handled, in milliseconds. */
  readonly keepMs?: number
}

/** Any string may be a part, so no separator tells them apart. */
const keyOf = ({ consumer, eventId, topic }: Omit<RunToken, "run">): string =>
  JSON.stringify([consumer, topic, eventId])

export const make = Effect.fnUntraced(function* ({ keepMs = Settings.dedupe.keepMs }: Options = {}) {
  const clock = yield* Clock.Clock
  const ids = yield* Ids
  const running = new Map<string, Running>()
  /** In the order of their completion. */
  const done = new Map<string, Done>()

  const forgetBefore = (time: number): number => {
    let forgotten = 0
    for (const [key, { at }] of done) {
      if (at >= time) break
      done.delete(key)
      forgotten++
    }
    return forgotten
  }

  const lost = ({ consumer, eventId, topic }: RunToken) => new RunLost({ consumer, topic, eventId })

  return DedupeStore.of({
    keepMs,
    begin: ({ consumer, eventId, leaseMs, topic }) =>
      Effect.sync(() => {
        const event = { consumer, topic, eventId }
        const now = clock.currentTimeMillisUnsafe()
        forgetBefore(now - keepMs)
        const key = keyOf(event)
        if (done.has(key)) return { _tag: "Done" }
        const { leaseUntil = -Infinity } = running.get(key) ?? {}
        if (leaseUntil > now) return { _tag: "InProgress", until: leaseUntil, leftMs: leaseUntil - now }
        const token = { ...event, run: ids.next() }
        running.set(key, { run: token.run, leaseUntil: now + leaseMs })
        return { _tag: "Run", token }
      }),
    extend: (token, leaseMs) =>
      Effect.suspend(() => {
        const key = keyOf(token)
        if (done.get(key)?.run === token.run) return Effect.void
        const found = running.get(key)
        if (found?.run !== token.run) return Effect.fail(lost(token))
        found.leaseUntil = Math.max(found.leaseUntil, clock.currentTimeMillisUnsafe() + leaseMs)
        return Effect.void
      }),
    complete: (token) =>
      Effect.suspend(() => {
        const key = keyOf(token)
        if (done.get(key)?.run === token.run) return Effect.void
        if (running.get(key)?.run !== token.run) return Effect.fail(lost(token))
        running.delete(key)
        done.set(key, { run: token.run, at: clock.currentTimeMillisUnsafe() })
        return Effect.void
      }),
    release: (token) =>
      Effect.sync(() => {
        const key = keyOf(token)
        if (running.get(key)?.run === token.run) running.delete(key)
      }),
    purge: ({ olderThanMs }) => Effect.sync(() => forgetBefore(clock.currentTimeMillisUnsafe() - olderThanMs))
  })
})

export const layer = (options?: Options): Layer.Layer<DedupeStore, never, Ids> =>
  Layer.effect(DedupeStore, make(options))
