/** MongoDB as the store of any number of hubs: `event-hub/mongo`. */
export type { AnyDb, AnyDbWithSessions, AnySession } from "./anyDriver.ts"
export * as ApplicationDatabase from "./ApplicationDatabase.ts"
export {
  createRelayStore,
  InvalidRelayEvent,
  type RelayCollection,
  type RelayEvent,
  type RelaySession,
  type RelaySource,
  type RelayStore,
  type RelayStoreOptions
} from "./createRelayStore.ts"
export { createDedupe, type Dedupe, type Options as DedupeOptions } from "./createDedupe.ts"
export * as MongoDatabase from "./MongoDatabase.ts"
export * as MongoDedupeStore from "./MongoDedupeStore.ts"
export * as MongoEventStore from "./MongoEventStore.ts"
export * as MongoGroupStore from "./MongoGroupStore.ts"
export { claimOwnership, OwnedByOther, type OutboxOwner } from "./outboxOwner.ts"
export {
  CannotWire,
  type Change,
  type EventMeta,
  type EventSink,
  type HookContext,
  type HookedRepository,
  type HookListener,
  type NamedRepository,
  type Operation,
  type Repositories,
  SessionRequired,
  wireOutbox,
  type WireOptions
} from "./wireOutbox.ts"
export * as MongoOutboxStore from "./MongoOutboxStore.ts"
export * as MongoRevocationStore from "./MongoRevocationStore.ts"
export * as MongoTransaction from "./MongoTransaction.ts"
export { createOutbox, type AddOptions, type Options as OutboxOptions, type Outbox } from "./createOutbox.ts"
