/** The outboxes of a hub as layers, from what its configuration says of them; and how places are shown to people. */
import { existsSync } from "node:fs"
import { resolve } from "node:path"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { MongoSettings } from "../domain/Settings.ts"
import * as Settings from "../domain/Settings.ts"
import type { EventLimits } from "../domain/Event.ts"
import type { Source } from "../layers/core/DrainedSources.ts"
import { instrument } from "../layers/core/instrument.ts"
import { withoutSecrets } from "../layers/mongo/withoutSecrets.ts"
import * as SqliteDatabase from "../layers/sqlite/SqliteDatabase.ts"
import * as SqliteOutboxStore from "../layers/sqlite/SqliteOutboxStore.ts"
import { OutboxStore } from "../services/OutboxStore.ts"
import type { Store } from "./HubConfig.ts"
import { defaultCollection, type OutboxPlace, type SourceSettings } from "./HubSources.ts"

/** A store without what is secret in it. */
export const nameOf = (store: Store): string => {
  if (store._tag === "Memory") return "memory:"
  return store._tag === "Sqlite" ? `sqlite:${resolve(store.path)}` : withoutSecrets(Redacted.value(store.url))
}

/** The outbox of a hub, without what is secret in it. */
export const ownOutboxOf = (store: Store | undefined): string => {
  if (store === undefined) return "the hub's own store"
  return store._tag === "Mongo" ? `${nameOf(store)}#${defaultCollection}` : nameOf(store)
}

const placeOf = (place: OutboxPlace): string =>
  place._tag === "Mongo" ? `${nameOf(place)}#${place.collection}` : nameOf(place)

/** A file that its service has not made yet is waited for: made here, a slip in a path would look like success. */
const sqliteStore = (path: string, limits: EventLimits, onBroken: (problem: string) => void) =>
  Layer.unwrap(
    Effect.suspend(() =>
      existsSync(path)
        ? Effect.succeed(
            instrument(OutboxStore, SqliteOutboxStore.layer(limits)).pipe(
              Layer.provide(SqliteDatabase.layer({ path, onBroken }))
            )
          )
        : Effect.fail(new Error("there is no such file; the service that adds to it makes it"))
    )
  )

export interface SourceOptions {
  readonly limits: EventLimits
  readonly mongo?: MongoSettings | undefined
}

export const sourceOf = (
  { name, outbox }: SourceSettings,
  { limits, mongo = Settings.mongo }: SourceOptions
): Source => ({
  name,
  at: placeOf(outbox),
  open: (onLost) =>
    outbox._tag === "Sqlite"
      ? sqliteStore(outbox.path, limits, onLost)
      : // Who has no MongoDB does not pay for its driver.
        Layer.unwrap(
          Effect.map(
            Effect.promise(() => import("./MongoSource.ts")),
            (MongoSource) => MongoSource.layer(outbox, { limits, mongo })
          )
        )
})
