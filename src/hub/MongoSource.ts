/** An outbox in a MongoDB that is not the hub's: nothing but the outbox's own collection and indexes is made there. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { EventLimits } from "../domain/Event.ts"
import type { MongoSettings } from "../domain/Settings.ts"
import { instrument } from "../layers/core/instrument.ts"
import * as MongoDatabase from "../layers/mongo/MongoDatabase.ts"
import * as MongoOutboxStore from "../layers/mongo/MongoOutboxStore.ts"
import { withoutSecrets } from "../layers/mongo/withoutSecrets.ts"
import type { Ids } from "../services/Ids.ts"
import { OutboxStore } from "../services/OutboxStore.ts"
import type { StoreUnavailable } from "../services/StoreUnavailable.ts"

interface Place {
  readonly url: Redacted.Redacted
  readonly collection: string
}

interface Options {
  readonly limits: EventLimits
  readonly mongo: MongoSettings
}

export const layer = (
  { collection, url }: Place,
  { limits, mongo }: Options
): Layer.Layer<OutboxStore, Error | StoreUnavailable, Ids> => {
  const text = Redacted.value(url)
  // The place is said beside it, and a driver may repeat a URL that it does not like.
  const reason = ({ reason }: MongoDatabase.CannotConnect) =>
    new Error(reason.replaceAll(text, withoutSecrets(text)))
  return Layer.mergeAll(
    instrument(OutboxStore, MongoOutboxStore.layer(limits, { collection })),
    MongoDatabase.layerLacks
  ).pipe(
    Layer.provide(
      MongoDatabase.layerOfOthers({ ...mongo, url: text }).pipe(
        Layer.catchTag("CannotConnect", (error) =>
          Layer.effect(MongoDatabase.MongoDatabase, Effect.fail(reason(error)))
        )
      )
    )
  )
}
