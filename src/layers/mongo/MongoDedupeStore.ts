/**
 * What was handled, in a MongoDB database.
 *
 * Inside a transaction (`MongoSession`) every operation is part of it: aborted, it never happened. The server forgets
 * what was handled by an index that expires; where it has none of these, `purge` does.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { ClientSession } from "mongodb"
import * as Settings from "../../domain/Settings.ts"
import { DedupeStore, RunLost, type RunToken } from "../../services/DedupeStore.ts"
import { Ids } from "../../services/Ids.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { dedupeCommands, type DedupeCommands, prepareDedupe } from "./dedupeCommands.ts"
import { MongoDatabase, MongoSession, tryUse } from "./MongoDatabase.ts"
import { collection } from "./schema.ts"

export interface Options {
  /** How long an event is remembered after it was handled, in milliseconds. */
  readonly keepMs?: number
}

const held = (token: RunToken, isHeld: boolean): Effect.Effect<void, RunLost> =>
  isHeld
    ? Effect.void
    : Effect.fail(new RunLost({ consumer: token.consumer, topic: token.topic, eventId: token.eventId }))

/** The service over a collection that is prepared. */
export const storeOver = (commands: DedupeCommands, keepMs: number): DedupeStore["Service"] => {
  const use = <A>(
    method: string,
    f: (session: ClientSession | undefined) => Promise<A>
  ): Effect.Effect<A, StoreUnavailable> =>
    Effect.flatMap(Effect.serviceOption(MongoSession), (session) =>
      tryUse(`DedupeStore.${method}`, () => f(Option.getOrUndefined(session)))
    )

  return DedupeStore.of({
    keepMs,
    begin: (run) => use("begin", (session) => commands.begin(run, session)),
    extend: (token, leaseMs) =>
      Effect.flatMap(
        use("extend", (session) => commands.extend(token, leaseMs, session)),
        (isHeld) => held(token, isHeld)
      ),
    complete: (token) =>
      Effect.flatMap(
        use("complete", (session) => commands.complete(token, session)),
        (isHeld) => held(token, isHeld)
      ),
    release: (token) => use("release", (session) => commands.release(token, session)),
    purge: ({ olderThanMs }) => use("purge", (session) => commands.forget(olderThanMs, session))
  })
}

const make = Effect.fnUntraced(function* ({ keepMs = Settings.dedupe.keepMs }: Options = {}) {
  const { db } = yield* MongoDatabase
  const ids = yield* Ids
  const handled = collection(db, "dedupe")
  yield* tryUse("DedupeStore.open", () => prepareDedupe(handled, keepMs))
  return storeOver(dedupeCommands(handled, ids.next), keepMs)
})

/** In the database of the layer, or of the transaction that a program is in: they are of one client. */
export const layer = (options?: Options): Layer.Layer<DedupeStore, StoreUnavailable, MongoDatabase | Ids> =>
  Layer.effect(DedupeStore, make(options))
