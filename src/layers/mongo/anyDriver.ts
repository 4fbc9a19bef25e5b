/**
 * What is taken of an application's driver, which may be another copy than the one here: data layers bring their own.
 *
 * To the type checker the classes of two copies are different things, for their private members. Nobody calls those, so
 * what is called is said here, and what an application hands over is taken for the driver's in this file alone.
 */
import type { ClientSession, Db } from "mongodb"

/** A session of the driver, of whichever copy. */
export interface AnySession {
  inTransaction(): boolean
  withTransaction<A>(f: () => Promise<A>, options?: object): Promise<A>
  endSession(): Promise<unknown>
}

/** A `Db` of the driver, of whichever copy. */
export interface AnyDb {
  readonly databaseName: string
  collection(name: string): { readonly collectionName: string }
  command(command: object): Promise<unknown>
}

/** A `Db`, and the sessions of its client. */
export interface AnyDbWithSessions<Session extends AnySession = AnySession> extends AnyDb {
  readonly client: { startSession(): Session }
}

/** A `Db`, and the databases of its client. */
export interface AnyDbWithClient {
  readonly databaseName: string
  readonly client: { db(name?: string, options?: object): unknown }
}

/** It is one, of some copy: nothing else has these members. It is used as a database, and never asked for its class. */
export const asDb = (db: AnyDb): Db => db as Db

/** As above. It goes to collections of its own client, and so to its own copy. */
export const asSession = (session: AnySession): ClientSession => session as ClientSession

/** The same database, of the same copy, once more: with these options, whatever those of the application are. */
export const dbWith = ({ client, databaseName }: AnyDbWithClient, options: object): Db =>
  client.db(databaseName, options) as Db
