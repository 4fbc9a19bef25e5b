/**
 * A hub in the process of the test, on free ports and in memory: for what no client can bring about, such as
 * events that were trimmed, tokens that were revoked, and a store that fails.
 */
import { Context, Effect, Layer, ManagedRuntime, Result } from "effect"
import * as Hub from "../../src/hub/Hub.ts"
import * as HubConfig from "../../src/hub/HubConfig.ts"
import * as Log from "../../src/hub/Log.ts"
import * as Tokens from "../../src/hub/Tokens.ts"
import * as RandomIds from "../../src/layers/core/RandomIds.ts"
import * as MemoryEventStore from "../../src/layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../../src/layers/memory/MemoryGroupStore.ts"
import * as MemoryOutboxStore from "../../src/layers/memory/MemoryOutboxStore.ts"
import * as MemoryRevocationStore from "../../src/layers/memory/MemoryRevocationStore.ts"
import { EventStore } from "../../src/services/EventStore.ts"
import { Gateway } from "../../src/services/Gateway.ts"
import { GroupStore } from "../../src/services/GroupStore.ts"
import { Ops } from "../../src/services/Ops.ts"
import { Revocations } from "../../src/services/Revocations.ts"
import { RevocationStore } from "../../src/services/RevocationStore.ts"
import { StoreUnavailable } from "../../src/services/StoreUnavailable.ts"
import { TokenVerifier } from "../../src/services/TokenVerifier.ts"
import { secret } from "./HubProcess.ts"

/** What the next calls of the stores do. Times are milliseconds. */
export interface Faults {
  /** `append` is refused. */
  append: boolean
  appendMs: number
  /** Topics cannot be listed: the store does not answer, or it has a bug. */
  topics: "none" | "unavailable" | "bug"
  topicsMs: number
  findMs: number
  /** Events cannot be read as lines; and how often that was asked for. */
  readLines: boolean
  linesRead: number
  /** A change of a group's state. */
  modifyMs: number
  /** What was revoked cannot be read. */
  revocations: boolean
}

export interface EmbeddedHub {
  readonly ws: string
  readonly ops: string
  readonly faults: Faults
  readonly events: EventStore["Service"]
  readonly groups: GroupStore["Service"]
  readonly revocations: Revocations["Service"]
  /** How many tokens were taken so far. */
  readonly verified: () => number
  /** What the hub logged. */
  readonly log: ReadonlyArray<string>
  readonly run: <A, E>(effect: Effect.Effect<A, E>) => Promise<A>
  readonly stop: () => Promise<void>
}

/** What a driver says is no business of a client. */
export const driverMessage = "ECONNRESET at Socket.readStream (node:net:999)"

const after = <A, E>(ms: number, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  ms === 0 ? effect : Effect.delay(effect, ms)

const faultyEvents = (store: EventStore["Service"], faults: Faults): EventStore["Service"] => ({
  ...store,
  append: (batch) =>
    Effect.suspend(() =>
      faults.append
        ? Effect.fail(new StoreUnavailable({ operation: "append", cause: new Error(driverMessage) }))
        : after(faults.appendMs, store.append(batch))
    ),
  readLines: (range) =>
    Effect.suspend(() => {
      faults.linesRead++
      return faults.readLines
        ? Effect.fail(new StoreUnavailable({ operation: "readLines", cause: new Error(driverMessage) }))
        : store.readLines(range)
    }),
  find: (ids) => Effect.suspend(() => after(faults.findMs, store.find(ids))),
  topics: (page) =>
    Effect.suspend(() => {
      if (faults.topics === "bug") return Effect.die(new Error(driverMessage))
      if (faults.topics === "unavailable") {
        return Effect.fail(new StoreUnavailable({ operation: "topics", cause: new Error(driverMessage) }))
      }
      return after(faults.topicsMs, store.topics(page))
    })
})

const faultyGroups = (store: GroupStore["Service"], faults: Faults): GroupStore["Service"] => ({
  ...store,
  modify: (at, f) => Effect.suspend(() => after(faults.modifyMs, store.modify(at, f)))
})

const faultyRevocations = (
  store: RevocationStore["Service"],
  faults: Faults
): RevocationStore["Service"] => ({
  ...store,
  version: Effect.suspend(() =>
    faults.revocations
      ? Effect.fail(new StoreUnavailable({ operation: "version", cause: new Error(driverMessage) }))
      : store.version
  )
})

export const startEmbeddedHub = async (env: Readonly<Record<string, string>> = {}): Promise<EmbeddedHub> => {
  const { settings } = Result.getOrThrow(
    HubConfig.read({ HUB_STORE: "memory:", WS_PORT: "0", OPS_PORT: "0", JWT_SECRET: secret, ...env })
  )
  const faults: Faults = {
    append: false,
    appendMs: 0,
    topics: "none",
    topicsMs: 0,
    findMs: 0,
    readLines: false,
    linesRead: 0,
    modifyMs: 0,
    revocations: false
  }
  const events = Layer.effect(
    EventStore,
    Effect.map(MemoryEventStore.make({ retention: { minAgeMs: 0 } }), (store) => faultyEvents(store, faults))
  )
  const groups = Layer.effect(
    GroupStore,
    Effect.map(MemoryGroupStore.make(), (store) => faultyGroups(store, faults))
  )
  const revocations = Layer.effect(
    RevocationStore,
    Effect.map(MemoryRevocationStore.make, (store) => faultyRevocations(store, faults))
  )
  const stores = Layer.mergeAll(events, groups, MemoryOutboxStore.layer(), revocations).pipe(
    Layer.provideMerge(RandomIds.layer)
  )
  const { verifier } = await Effect.runPromise(Tokens.make(settings))
  let verified = 0
  const counted = Layer.effect(
    TokenVerifier,
    Effect.map(TokenVerifier, ({ verify }) => ({
      verify: (token) => Effect.tap(verify(token), () => Effect.sync(() => verified++))
    }))
  ).pipe(Layer.provide(verifier))
  const log: Array<string> = []
  const runtime = ManagedRuntime.make(
    Hub.layer(stores, counted, settings).pipe(Layer.provide(Log.layer("json", (line) => void log.push(line))))
  )
  const context = await runtime.context()
  return {
    ws: Context.get(context, Gateway).url,
    ops: Context.get(context, Ops).url,
    faults,
    events: Context.get(context, EventStore),
    groups: Context.get(context, GroupStore),
    revocations: Context.get(context, Revocations),
    verified: () => verified,
    log,
    run: (effect) => runtime.runPromise(effect),
    stop: () => runtime.dispose()
  }
}
