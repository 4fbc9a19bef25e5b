/** The hub over a MongoDB: any number of them share one database, and everything in it. */
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Settings from "../domain/Settings.ts"
import { instrument } from "../layers/core/instrument.ts"
import * as RandomIds from "../layers/core/RandomIds.ts"
import * as MongoDatabase from "../layers/mongo/MongoDatabase.ts"
import * as MongoEventStore from "../layers/mongo/MongoEventStore.ts"
import * as MongoGroupStore from "../layers/mongo/MongoGroupStore.ts"
import * as MongoOutboxStore from "../layers/mongo/MongoOutboxStore.ts"
import * as MongoRevocationStore from "../layers/mongo/MongoRevocationStore.ts"
import type { ConfigFiles } from "../services/ConfigFiles.ts"
import { EventStore } from "../services/EventStore.ts"
import type { CannotUseFile } from "../services/ConfigFiles.ts"
import type { CannotListen } from "../services/Gateway.ts"
import { GroupStore } from "../services/GroupStore.ts"
import { OutboxStore } from "../services/OutboxStore.ts"
import type { Revocations } from "../services/Revocations.ts"
import { RevocationStore } from "../services/RevocationStore.ts"
import type { StoreUnavailable } from "../services/StoreUnavailable.ts"
import type { TokenVerifier } from "../services/TokenVerifier.ts"
import * as Hub from "./Hub.ts"
import type { HubSettings } from "./HubConfig.ts"

export const stores = (
  url: Redacted.Redacted,
  {
    limits,
    mongo,
    retention = Settings.retention
  }: Partial<Pick<HubSettings, "limits" | "mongo" | "retention">> = {}
): Layer.Layer<Hub.Stores, MongoDatabase.CannotConnect | StoreUnavailable> =>
  Layer.mergeAll(
    instrument(EventStore, MongoEventStore.layer({ retention })),
    instrument(GroupStore, MongoGroupStore.layer()),
    instrument(OutboxStore, MongoOutboxStore.layer(limits)),
    instrument(RevocationStore, MongoRevocationStore.layer),
    MongoDatabase.layerLacks
  ).pipe(
    Layer.provide(MongoDatabase.layer({ ...mongo, url: Redacted.value(url) })),
    Layer.provideMerge(RandomIds.layer)
  )

export const layer = <E>(
  url: Redacted.Redacted,
  verifier: Layer.Layer<TokenVerifier, E, Revocations | ConfigFiles>,
  settings: HubSettings
): Layer.Layer<Hub.Hub, E | CannotListen | CannotUseFile | StoreUnavailable | MongoDatabase.CannotConnect> =>
  Hub.layer(stores(url, settings), verifier, { ...settings, store: { _tag: "Mongo", url } })
