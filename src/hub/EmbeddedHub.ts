/** The hub on one SQLite file: one machine, nothing to install. */
import * as Layer from "effect/Layer"
import * as Settings from "../domain/Settings.ts"
import * as RandomIds from "../layers/core/RandomIds.ts"
import { instrument } from "../layers/core/instrument.ts"
import * as SqliteDatabase from "../layers/sqlite/SqliteDatabase.ts"
import * as SqliteEventStore from "../layers/sqlite/SqliteEventStore.ts"
import * as SqliteGroupStore from "../layers/sqlite/SqliteGroupStore.ts"
import * as SqliteOutboxStore from "../layers/sqlite/SqliteOutboxStore.ts"
import * as SqliteRevocationStore from "../layers/sqlite/SqliteRevocationStore.ts"
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
import * as storeSize from "./storeSize.ts"

export const stores = (
  path: string,
  { limits, retention = Settings.retention }: Partial<Pick<HubSettings, "limits" | "retention">> = {}
): Layer.Layer<Hub.Stores, SqliteDatabase.CannotOpen> =>
  Layer.mergeAll(
    instrument(EventStore, SqliteEventStore.layer({ retention })),
    instrument(GroupStore, SqliteGroupStore.layer),
    instrument(OutboxStore, SqliteOutboxStore.layer(limits)),
    instrument(RevocationStore, SqliteRevocationStore.layer)
  ).pipe(
    Layer.merge(storeSize.layer(path)),
    Layer.provide(SqliteDatabase.layer({ path })),
    Layer.provideMerge(RandomIds.layer)
  )

export const layer = <E>(
  path: string,
  verifier: Layer.Layer<TokenVerifier, E, Revocations | ConfigFiles>,
  settings: HubSettings
): Layer.Layer<Hub.Hub, E | CannotListen | CannotUseFile | StoreUnavailable | SqliteDatabase.CannotOpen> =>
  Hub.layer(stores(path, settings), verifier, { ...settings, store: { _tag: "Sqlite", path } })
