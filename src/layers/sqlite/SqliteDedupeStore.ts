/**
 * What was handled, in a database of the application's, on its own connection.
 *
 * Inside a transaction that is open on that connection every operation is part of it: rolled back, it never
 * happened. So leave none open over an `await`, or give the store a connection of its own. Outside of one, each
 * operation is a transaction, and waits for others that write to the file at the cost of this thread.
 */
import type { DatabaseSync } from "node:sqlite"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Settings from "../../domain/Settings.ts"
import { DedupeStore, RunLost, type RunToken } from "../../services/DedupeStore.ts"
import { Ids } from "../../services/Ids.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { dedupeCommands, type DedupeCommands } from "./dedupeCommands.ts"
import { CannotRemember, prepareDedupe } from "./dedupeSchema.ts"

export interface Options {
  /** How long an event is remembered after it was handled, in milliseconds. */
  readonly keepMs?: number
  /** How long a transaction waits for others that write to the file, in milliseconds. */
  readonly busyTimeoutMs?: number
}

/** How many events one statement of a purge forgets, so that it does not hold up other writers for long. */
const purgeChunk = 1_000

const attempt = <A>(operation: string, f: () => A): Effect.Effect<A, StoreUnavailable> =>
  Effect.try({
    try: f,
    catch: (cause) => new StoreUnavailable({ operation: `DedupeStore.${operation}`, cause })
  })

const held = (token: RunToken, isHeld: boolean): Effect.Effect<void, RunLost> =>
  isHeld
    ? Effect.void
    : Effect.fail(new RunLost({ consumer: token.consumer, topic: token.topic, eventId: token.eventId }))

/** The service over a connection that is prepared. */
export const storeOver = (commands: DedupeCommands): DedupeStore["Service"] =>
  DedupeStore.of({
    keepMs: commands.keepMs,
    begin: (run) => attempt("begin", () => commands.begin(run)),
    extend: (token, leaseMs) =>
      Effect.flatMap(
        attempt("extend", () => commands.extend(token, leaseMs)),
        (isHeld) => held(token, isHeld)
      ),
    complete: (token) =>
      Effect.flatMap(
        attempt("complete", () => commands.complete(token)),
        (isHeld) => held(token, isHeld)
      ),
    release: (token) => attempt("release", () => commands.release(token)),
    purge: ({ olderThanMs }) =>
      Effect.gen(function* () {
        let purged = 0
        for (;;) {
          const some = yield* attempt("purge", () => commands.forget(olderThanMs, purgeChunk))
          purged += some
          if (some < purgeChunk) return purged
          yield* Effect.yieldNow
        }
      })
  })

const make = Effect.fnUntraced(function* (db: DatabaseSync, options: Options = {}) {
  const { busyTimeoutMs = 5_000, keepMs = Settings.dedupe.keepMs } = options
  const clock = yield* Clock.Clock
  const ids = yield* Ids
  const commands = yield* Effect.try({
    try: () => {
      prepareDedupe(db, busyTimeoutMs)
      return dedupeCommands(db, { keepMs, now: () => clock.currentTimeMillisUnsafe(), newRun: ids.next })
    },
    catch: (cause) =>
      cause instanceof CannotRemember ? cause : new StoreUnavailable({ operation: "DedupeStore.open", cause })
  })
  return storeOver(commands)
})

/** The table is made in the database if it has none yet. The connection stays the application's, and open. */
export const layer = (
  db: DatabaseSync,
  options?: Options
): Layer.Layer<DedupeStore, CannotRemember | StoreUnavailable, Ids> =>
  Layer.effect(DedupeStore, make(db, options))
