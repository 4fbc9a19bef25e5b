/** A database of its own for a test, and the write commands that the driver sent there. */
import { isDeepStrictEqual } from "node:util"
import type { ClientSession, CommandStartedEvent } from "mongodb"
import { Effect } from "effect"
import { MongoDatabase } from "../../../src/layers/mongo/MongoDatabase.ts"
import { database } from "../../support/mongo.ts"

export interface Scene extends Pick<MongoDatabase["Service"], "client" | "db" | "features"> {
  readonly commands: ReadonlyArray<CommandStartedEvent>
}

export const withScene = (url: string, test: (scene: Scene) => Promise<void>): Promise<void> =>
  Effect.gen(function* () {
    const { client, db, features } = yield* MongoDatabase
    const commands: Array<CommandStartedEvent> = []
    client.on("commandStarted", (event) => commands.push(event))
    yield* Effect.promise(() => test({ client, db, features, commands }))
  }).pipe(Effect.provide(database(url, { client: { monitorCommands: true } })), Effect.runPromise)

/** Runs `f` in a transaction and aborts that: what was sent is seen on servers without transactions as well. */
export const inTransaction = async (
  { client }: Scene,
  f: (session: ClientSession) => Promise<void>
): Promise<void> => {
  await client.withSession(async (session) => {
    session.startTransaction()
    await f(session)
    // A server without transactions does not know this command either.
    await session.abortTransaction().catch(() => {})
  })
}

/** What says that a command belongs to a transaction of this session. */
export const partOf = (session: ClientSession, command: CommandStartedEvent["command"]): boolean =>
  isDeepStrictEqual(command["lsid"], session.id) &&
  command["txnNumber"] !== undefined &&
  command["autocommit"] === false
