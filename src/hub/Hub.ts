/**
 * A hub over any stores: the log and its groups, the outbox and its drainer, the gateway, the ops server.
 *
 * The order is the way of one event; layers are closed in the opposite one, so that what was taken in goes
 * its way to the end before what it needs is gone.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { AccessControl } from "../services/AccessControl.ts"
import type { Appender } from "../services/Appender.ts"
import type { Archive } from "../services/Archive.ts"
import type { EventBus } from "../services/EventBus.ts"
import type { EventStore } from "../services/EventStore.ts"
import type { CannotUseFile, ConfigFiles } from "../services/ConfigFiles.ts"
import type { CannotListen, Gateway } from "../services/Gateway.ts"
import type { GroupAdmin } from "../services/GroupAdmin.ts"
import type { GroupDelivery } from "../services/GroupDelivery.ts"
import type { GroupStore } from "../services/GroupStore.ts"
import type { GroupWrites } from "../services/GroupWrites.ts"
import type { Ids } from "../services/Ids.ts"
import type { Inspector } from "../services/Inspector.ts"
import type { LiveFeed } from "../services/LiveFeed.ts"
import type { Ops } from "../services/Ops.ts"
import type { OutboxDrainer } from "../services/OutboxDrainer.ts"
import type { OutboxSources } from "../services/OutboxSources.ts"
import type { OutboxStore } from "../services/OutboxStore.ts"
import type { RateLimiter } from "../services/RateLimiter.ts"
import type { Retention } from "../services/Retention.ts"
import type { Revocations } from "../services/Revocations.ts"
import type { RevocationStore } from "../services/RevocationStore.ts"
import type { Standing } from "../services/Standing.ts"
import type { StoreUnavailable } from "../services/StoreUnavailable.ts"
import type { TokenVerifier } from "../services/TokenVerifier.ts"
import type { Vitals } from "../services/Vitals.ts"
import * as DrainedSources from "../layers/core/DrainedSources.ts"
import * as GroupCommitAppender from "../layers/core/GroupCommitAppender.ts"
import * as GroupDispatcher from "../layers/core/GroupDispatcher.ts"
import * as metrics from "../layers/core/metrics.ts"
import * as OwnTopics from "../layers/core/OwnTopics.ts"
import * as PartVitals from "../layers/core/PartVitals.ts"
import * as PolicyAccessControl from "../layers/core/PolicyAccessControl.ts"
import * as RoleTokenVerifier from "../layers/core/RoleTokenVerifier.ts"
import * as StoreArchive from "../layers/core/StoreArchive.ts"
import * as StoreEventBus from "../layers/core/StoreEventBus.ts"
import * as StoreGroupAdmin from "../layers/core/StoreGroupAdmin.ts"
import * as StoreInspector from "../layers/core/StoreInspector.ts"
import * as StoreRetention from "../layers/core/StoreRetention.ts"
import * as StoreRevocations from "../layers/core/StoreRevocations.ts"
import * as StoreStanding from "../layers/core/StoreStanding.ts"
import * as TailFeed from "../layers/core/TailFeed.ts"
import * as WatchedGroupStore from "../layers/core/WatchedGroupStore.ts"
import * as FilePolicies from "../layers/files/FilePolicies.ts"
import * as PolledConfigFiles from "../layers/files/PolledConfigFiles.ts"
import * as OpsServer from "../layers/http/OpsServer.ts"
import * as MemoryRateLimiter from "../layers/memory/MemoryRateLimiter.ts"
import * as WebSocketGateway from "../layers/websocket/WebSocketGateway.ts"
import type { Receiver } from "../layers/otlp/Receiver.ts"
import type { HubSettings } from "./HubConfig.ts"
import * as Sha256 from "./Sha256.ts"
import { ownOutboxOf, sourceOf } from "./outboxes.ts"
import * as processMetrics from "./processMetrics.ts"
import * as Tls from "./tls.ts"
import { version } from "./version.ts"
import * as processVitals from "./processVitals.ts"

export type Stores = EventStore | GroupStore | OutboxStore | RevocationStore | Ids

/** What programs use without any server. */
export type Bus =
  | Stores
  | Appender
  | LiveFeed
  | GroupDelivery
  | GroupAdmin
  | Archive
  | EventBus
  | OutboxDrainer
  | OutboxSources
  | Inspector
  | Retention
  | GroupWrites
  | Standing
  | Vitals

export type Hub =
  Bus | AccessControl | ConfigFiles | RateLimiter | Revocations | TokenVerifier | Gateway | Ops

export type BusSettings = Pick<HubSettings, "limits" | "groups" | "appender" | "drainer" | "retention"> &
  Partial<Pick<HubSettings, "archive" | "store" | "mongo" | "outboxSources" | "standing">>

/** The log, its groups and the outboxes, with nothing that listens. */
export const bus = <E, R>(stores: Layer.Layer<Stores, E, R>, settings: BusSettings): Layer.Layer<Bus, E, R> =>
  Layer.mergeAll(
    DrainedSources.layer(settings.drainer, {
      at: ownOutboxOf(settings.store),
      others: settings.outboxSources?.map((source) => sourceOf(source, settings))
    }),
    StoreRetention.layer(settings.retention),
    StoreGroupAdmin.layer(settings.retention)
  ).pipe(
    (parts) => Layer.provideMerge(PartVitals.outboxes, parts),
    Layer.provideMerge(StoreEventBus.layer(settings.limits)),
    Layer.provideMerge(OwnTopics.layer(settings.standing)),
    Layer.provideMerge(
      Layer.mergeAll(
        TailFeed.layer,
        GroupDispatcher.layer(settings.groups),
        StoreStanding.layer(settings.standing),
        PartVitals.layer,
        Layer.effectDiscard(metrics.prepare)
      )
    ),
    Layer.provideMerge(Layer.provide(StoreArchive.layer(settings), Sha256.layer)),
    Layer.provideMerge(GroupCommitAppender.layer(settings.appender)),
    Layer.provideMerge(StoreInspector.layer(settings.groups)),
    Layer.provideMerge(WatchedGroupStore.layer),
    Layer.provideMerge(stores)
  )

/** Who collects no traces does not pay for it, not even with the loading of what does. */
const tracesOf = (settings: Receiver | undefined): Layer.Layer<never> =>
  settings === undefined
    ? Layer.empty
    : Layer.unwrap(
        Effect.map(
          Effect.promise(() => import("../layers/otlp/OtlpEventTraces.ts")),
          (traces) => traces.layer(settings, version)
        )
      )

export const layer = <E, E2, R>(
  stores: Layer.Layer<Stores, E, R>,
  verifier: Layer.Layer<TokenVerifier, E2, Revocations | ConfigFiles>,
  settings: HubSettings
): Layer.Layer<Hub, E | E2 | CannotListen | CannotUseFile | StoreUnavailable, R> => {
  const { gateway, groups, host, limits, opsPort, origins, rateLimiter, tokens, wsPort } = settings
  const { archive, ops, trustProxy } = settings
  const both = { host, limits, auth: tokens, trustProxy }
  const listening = Layer.unwrap(
    Effect.map(Tls.TlsServers, ({ make: server }) =>
      Layer.mergeAll(
        OpsServer.layer({ ...both, port: opsPort, archive, settings: ops, gateway, server }),
        PartVitals.gateway
      ).pipe(
        Layer.provideMerge(
          WebSocketGateway.layer({
            ...both,
            port: wsPort,
            origins,
            settings: gateway,
            groups,
            server,
            isSecure: server !== undefined
          })
        )
      )
    )
  )
  return Layer.mergeAll(listening, processVitals.layer, processMetrics.layer).pipe(
    Layer.provideMerge(RoleTokenVerifier.layer(verifier)),
    Layer.provideMerge(
      Layer.mergeAll(
        PolicyAccessControl.layer,
        MemoryRateLimiter.layer(rateLimiter),
        StoreRevocations.layer({
          settings: settings.revocations,
          tokens: { ...tokens, hasAgeless: settings.auth._tag === "Static" }
        })
      )
    ),
    Layer.provideMerge(bus(stores, settings)),
    // Before the stores: a file that cannot be used stops a start that has touched nothing yet.
    Layer.provide(Tls.layer(settings.tls)),
    Layer.provideMerge(
      settings.policy === undefined
        ? Layer.empty
        : FilePolicies.layer(settings.policy, settings.files.maxPolicyBytes)
    ),
    Layer.provideMerge(PolledConfigFiles.layer(settings.files)),
    Layer.provide(tracesOf(settings.traces))
  )
}
