/**
 * The database of an application, by its own client, for the outbox in it and nothing else: no collection of a hub is
 * made there, and no connection. The client stays the application's to close.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Settings from "../../domain/Settings.ts"
import { type AnyDbWithClient, dbWith } from "./anyDriver.ts"
import { CannotConnect, clockOf, featuresOf, MongoDatabase, timeOf, tryUse } from "./MongoDatabase.ts"

/** A `Db` of the driver, of whichever copy the application has. */
export type ApplicationDatabase = AnyDbWithClient

/** What is marked here must not be rolled back, however the application reads and writes for itself. */
const options = {
  writeConcern: { w: "majority", journal: true, wtimeoutMS: Settings.mongo.socketTimeoutMs },
  readConcern: { level: "majority" },
  readPreference: "primary",
  ignoreUndefined: true,
  serializeFunctions: false
} as const

const make = (
  application: ApplicationDatabase
): Effect.Effect<MongoDatabase["Service"], CannotConnect, Scope.Scope> =>
  Effect.gen(function* () {
    const db = dbWith(application, options)
    const { features, time } = yield* Effect.tryPromise({
      try: async () => ({ features: await featuresOf(db), time: await timeOf(db) }),
      catch: (error) =>
        new CannotConnect({
          url: `the database '${application.databaseName}'`,
          reason: error instanceof Error ? error.message : String(error)
        })
    })
    const now = yield* clockOf(db, time)
    const use: MongoDatabase["Service"]["use"] = (operation, f) => tryUse(operation, () => f(db))
    // There is no log here, and so no life of one.
    return MongoDatabase.of({ client: db.client, db, history: "", features, use, now })
  })

export const layer = (database: ApplicationDatabase): Layer.Layer<MongoDatabase, CannotConnect> =>
  Layer.effect(MongoDatabase, make(database))
