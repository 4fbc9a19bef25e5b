/** Every store in memory: for tests, and for programs that may forget. */
export * as MemoryDedupeStore from "./MemoryDedupeStore.ts"
export * as MemoryEventStore from "./MemoryEventStore.ts"
export * as MemoryGroupStore from "./MemoryGroupStore.ts"
export * as MemoryOutboxStore from "./MemoryOutboxStore.ts"
export * as MemoryRateLimiter from "./MemoryRateLimiter.ts"
export * as MemoryRevocationStore from "./MemoryRevocationStore.ts"
