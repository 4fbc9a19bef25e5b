/** Drains the outbox of an SQLite file into a hub of another process: `event-hub/remote/sqlite`. */
import * as Layer from "effect/Layer"
import * as SqliteDatabase from "../layers/sqlite/SqliteDatabase.ts"
import * as SqliteOutboxStore from "../layers/sqlite/SqliteOutboxStore.ts"
import { drainInto, type DrainOptions, type OutboxDrain } from "./drainOutbox.ts"

export type { DrainOptions, OutboxDrain } from "./drainOutbox.ts"
export { CannotBring, type Options as HubOptions } from "../layers/remote/RemoteTarget.ts"

export interface Options extends DrainOptions {
  /** The file that the application gives to `createOutbox`. No hub may run on it, and nobody else drain it. */
  readonly path: string
}

/**
 * Brings what `createOutbox` adds into the log of the hub, for as long as it is not closed.
 *
 * Rejects with `CannotOpen` when the file cannot be used. Whether the hub is there does not matter: it is waited for.
 */
export const drainOutbox = ({ path, ...options }: Options): Promise<OutboxDrain> =>
  drainInto(SqliteOutboxStore.layer().pipe(Layer.provide(SqliteDatabase.layer({ path }))), options)
