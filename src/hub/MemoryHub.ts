/** The hub that forgets everything when it ends: for tests, for programs that embed it, for trying things out. */
import * as Layer from "effect/Layer"
import * as Settings from "../domain/Settings.ts"
import { instrument } from "../layers/core/instrument.ts"
import * as RandomIds from "../layers/core/RandomIds.ts"
import * as MemoryEventStore from "../layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../layers/memory/MemoryGroupStore.ts"
import * as MemoryOutboxStore from "../layers/memory/MemoryOutboxStore.ts"
import * as MemoryRevocationStore from "../layers/memory/MemoryRevocationStore.ts"
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

export const stores = ({
  limits,
  retention = Settings.retention
}: Partial<Pick<HubSettings, "limits" | "retention">> = {}): Layer.Layer<Hub.Stores> =>
  Layer.mergeAll(
    instrument(EventStore, MemoryEventStore.layer({ retention })),
    instrument(GroupStore, MemoryGroupStore.layer),
    instrument(OutboxStore, MemoryOutboxStore.layer(limits)),
    instrument(RevocationStore, MemoryRevocationStore.layer)
  ).pipe(Layer.provideMerge(RandomIds.layer))

export const layer = <E>(
  verifier: Layer.Layer<TokenVerifier, E, Revocations | ConfigFiles>,
  settings: HubSettings
): Layer.Layer<Hub.Hub, E | CannotListen | CannotUseFile | StoreUnavailable> =>
  Hub.layer(stores(settings), verifier, { ...settings, store: { _tag: "Memory" } })
