/** Drains an outbox in a MongoDB into a hub of another process: `event-hub/remote/mongo`. */
import * as Layer from "effect/Layer"
import * as ApplicationDatabase from "../layers/mongo/ApplicationDatabase.ts"
import * as MongoOutboxStore from "../layers/mongo/MongoOutboxStore.ts"
import { drainInto, type DrainOptions, type OutboxDrain } from "./drainOutbox.ts"

export type { DrainOptions, OutboxDrain } from "./drainOutbox.ts"
export { CannotBring, type Options as HubOptions } from "../layers/remote/RemoteTarget.ts"

export interface Options extends DrainOptions {
  /** A database of the application's own client, which stays open. No collection but the outbox is made there. */
  readonly db: ApplicationDatabase.ApplicationDatabase
  /** The collection, if it is another one than `outbox`. */
  readonly collection?: string
}

/**
 * Brings what `createOutbox` adds into the log of the hub, for as long as it is not closed. Any number of services,
 * and hubs on the same database, may do it at once: a record is claimed by one, and its event has its id.
 *
 * Rejects with `CannotConnect` or `StoreUnavailable` when the database does not answer, and with `OwnedByOther` when
 * the collection is the outbox of a relay. Whether the hub is there does not matter: it is waited for.
 */
export const drainOutbox = ({ collection, db, ...options }: Options): Promise<OutboxDrain> =>
  drainInto(
    MongoOutboxStore.layer(undefined, collection === undefined ? {} : { collection }).pipe(
      Layer.provide(ApplicationDatabase.layer(db))
    ),
    options
  )
