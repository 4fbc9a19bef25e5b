/** Every store in one SQLite file, and the outbox for programs that write to it without Effect. */
export { createOutbox, type Options as OutboxOptions, type Outbox } from "./createOutbox.ts"
export * as SqliteDatabase from "./SqliteDatabase.ts"
export * as SqliteEventStore from "./SqliteEventStore.ts"
export * as SqliteGroupStore from "./SqliteGroupStore.ts"
export * as SqliteOutboxStore from "./SqliteOutboxStore.ts"
