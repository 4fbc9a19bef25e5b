/**
 * The contract suites: what every store must hold, whatever it is made of, and what consumer groups hold over it.
 * They need vitest and @effect/vitest.
 */
export * as dedupeStore from "./dedupeStore.ts"
export * as eventStore from "./eventStore.ts"
export * as groupDelivery from "./groupDelivery.ts"
export * as groupStore from "./groupStore.ts"
export * as outboxStore from "./outboxStore.ts"
export * as revocationStore from "./revocationStore.ts"
