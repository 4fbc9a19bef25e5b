/**
 * What property tests run against: the log, its groups and the outbox in memory, ids that count up, and no
 * server. Time is the test's clock.
 */
import * as Layer from "effect/Layer"
import * as Settings from "../domain/Settings.ts"
import * as RandomIds from "../layers/core/RandomIds.ts"
import * as MemoryEventStore from "../layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../layers/memory/MemoryGroupStore.ts"
import * as MemoryOutboxStore from "../layers/memory/MemoryOutboxStore.ts"
import * as MemoryRevocationStore from "../layers/memory/MemoryRevocationStore.ts"
import * as Hub from "./Hub.ts"

const storesWith = (retention: Settings.RetentionSettings): Layer.Layer<Hub.Stores> =>
  Layer.mergeAll(
    MemoryEventStore.layer({ retention }),
    MemoryGroupStore.layer,
    MemoryOutboxStore.layer(),
    MemoryRevocationStore.layer
  ).pipe(Layer.provideMerge(RandomIds.layerTest()))

export const stores: Layer.Layer<Hub.Stores> = storesWith(Settings.retention)

/** Retention works when a test runs it, or by itself where an interval is given. */
const retention: Settings.RetentionSettings = { ...Settings.retention, intervalMs: undefined }

export const layer = (settings: Partial<Hub.BusSettings> = {}): Layer.Layer<Hub.Bus> =>
  Hub.bus(storesWith(settings.retention ?? retention), {
    limits: Settings.limits,
    groups: Settings.groups,
    appender: Settings.appender,
    drainer: Settings.drainer,
    retention,
    ...settings
  })
