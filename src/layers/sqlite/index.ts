/** Every store in one SQLite file, and the outbox and exactly-once handling for programs without Effect. */
export { AsyncHandler, createDedupe, type Dedupe, type Options as DedupeOptions } from "./createDedupe.ts"
export { createOutbox, type Options as OutboxOptions, type Outbox } from "./createOutbox.ts"
export { CannotRemember } from "./dedupeSchema.ts"
export * as SqliteDatabase from "./SqliteDatabase.ts"
export * as SqliteDedupeStore from "./SqliteDedupeStore.ts"
export * as SqliteEventStore from "./SqliteEventStore.ts"
export * as SqliteGroupStore from "./SqliteGroupStore.ts"
export * as SqliteOutboxStore from "./SqliteOutboxStore.ts"
