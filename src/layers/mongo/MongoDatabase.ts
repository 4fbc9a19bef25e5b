/**
 * A MongoDB database as the store of any number of hubs: connected, checked, with its collections and indexes made,
 * and with what the server cannot do found out once.
 *
 * Nothing here or in the stores beside it needs a transaction of several documents: the hub runs on a standalone
 * server, and on others that speak the wire protocol. Only an application's own write and its outbox record share one.
 */
import { type ClientSession, type Db, MongoClient, MongoError, type MongoClientOptions } from "mongodb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Settings from "../../domain/Settings.ts"
import { Ids } from "../../services/Ids.ts"
import { StoreLacks } from "../../services/StoreLacks.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { migrate, SchemaProblem } from "./schema.ts"
import { withoutSecrets } from "./withoutSecrets.ts"

/** The database cannot be this hub's store. */
export class CannotConnect extends Schema.TaggedError<CannotConnect>()("CannotConnect", {
  /** Without its user and password. */
  url: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `cannot use ${this.url} as the hub's store: ${this.reason}`
  }
}

export interface Options extends Partial<Settings.MongoSettings> {
  /** The database is the one that its path names, else `prom`. */
  readonly url: string
  /** What else the driver is to be told; `monitorCommands` above all. */
  readonly client?: Pick<MongoClientOptions, "appName" | "monitorCommands" | "tls" | "tlsCAFile">
}

/** What not every server can do. */
export interface Features {
  /** It is MongoDB itself, whose plans and errors are known. */
  readonly mongodb: boolean
  readonly version: string
  /** Several documents in one transaction: replica sets and sharded clusters. */
  readonly transactions: boolean
  readonly changeStreams: boolean
  readonly sharded: boolean
}

export class MongoDatabase extends Context.Service<
  MongoDatabase,
  {
    readonly client: MongoClient
    readonly db: Db
    /** The id of this life of the store. */
    readonly history: string
    readonly features: Features
    /**
     * Calls the driver. What the server or the way to it is to blame for fails with StoreUnavailable; anything else
     * is a defect.
     */
    readonly use: <A>(operation: string, f: (db: Db) => Promise<A>) => Effect.Effect<A, StoreUnavailable>
    /** The server's time, without asking it: its last answer, and what has passed since by a clock that never jumps. */
    readonly now: () => number
  }
>()("event-hub/layers/mongo/MongoDatabase") {}

/** The transaction that a program is in: what is written inside takes part. */
export class MongoSession extends Context.Service<MongoSession, ClientSession>()(
  "event-hub/layers/mongo/MongoDatabase/MongoSession"
) {}

/** By its name, too: the database of an application comes with a copy of the driver of its own. */
const isMongoError = (error: unknown): error is Error & { readonly code?: unknown } =>
  error instanceof MongoError || (error instanceof Error && error.name.startsWith("Mongo"))

/** Codes of https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml that are about what was asked. */
const askedWrongly = new Set([
  2, // BadValue
  9, // FailedToParse
  14, // TypeMismatch
  40, // ConflictingUpdateOperators
  11_000 // DuplicateKey
])

/**
 * Whether an error of the driver is about the server or the way to it. A duplicate key or a command that the server
 * does not understand is not: trying again would not help.
 */
export const isUnavailable = (error: unknown): boolean =>
  isMongoError(error) && !(typeof error.code === "number" && askedWrongly.has(error.code))

export const tryUse = <A>(operation: string, f: () => Promise<A>): Effect.Effect<A, StoreUnavailable> =>
  Effect.tryPromise({ try: f, catch: (cause) => cause }).pipe(
    Effect.catch((cause) =>
      isUnavailable(cause) ? Effect.fail(new StoreUnavailable({ operation, cause })) : Effect.die(cause)
    )
  )

const reasonOf = (error: unknown): string => {
  if (error instanceof SchemaProblem) return error.message
  return error instanceof Error ? error.message : String(error)
}

export const featuresOf = async (db: Db): Promise<Features> => {
  const hello = await db.command({ hello: 1 })
  const build: unknown = await db
    .admin()
    .command({ buildInfo: 1 })
    .catch(() => ({}))
  const sharded = hello["msg"] === "isdbgrid"
  const replicated = typeof hello["setName"] === "string" || sharded
  const text = (name: string): string | undefined => {
    const value: unknown =
      build instanceof Object ? Object.getOwnPropertyDescriptor(build, name)?.value : undefined
    return typeof value === "string" ? value : undefined
  }
  const isForeign = build instanceof Object && "ferretdb" in build
  return {
    mongodb: !isForeign,
    version: text("version") ?? "unknown",
    transactions: replicated && !isForeign,
    changeStreams: replicated && !isForeign,
    sharded
  }
}

/** What an operator should know of a server that cannot do everything. */
const lacksOf = ({ changeStreams, transactions }: Features): ReadonlyArray<string> => [
  ...(transactions
    ? []
    : [
        "the database's server has no transactions: services cannot write their data and an event in one; a replica set can"
      ]),
  ...(changeStreams
    ? []
    : ["the database's server has no change streams: hubs ask it for what others changed"])
]

/** How often the server is asked for its time, in milliseconds. Clocks that never jump drift a second a day. */
const askTimeEvery = 30_000

interface Time {
  readonly server: number
  readonly here: number
}

export const timeOf = async (db: Db): Promise<Time> => {
  const before = performance.now()
  const hello = await db.command({ hello: 1 })
  const after = performance.now()
  const local: unknown = hello["localTime"]
  return { server: local instanceof Date ? local.getTime() : Date.now(), here: (before + after) / 2 }
}

/** The server's clock, from one answer on; it is asked again as long as the scope is open. */
export const clockOf = (db: Db, time: Time): Effect.Effect<() => number, never, Scope.Scope> =>
  Effect.gen(function* () {
    let known = time
    const ask = Effect.promise(() =>
      timeOf(db).then(
        (found) => void (known = found),
        () => {}
      )
    )
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(askTimeEvery), ask)))
    return () => Math.round(known.server + performance.now() - known.here)
  })

/** Makes what has to be there before anything else, and answers the id of this life of the store. */
type Prepare = (db: Db, newHistory: string) => Promise<string>

const make = (
  { client: more, url, ...given }: Options,
  prepare: Prepare
): Effect.Effect<MongoDatabase["Service"], CannotConnect, Ids | Scope.Scope> =>
  Effect.gen(function* () {
    const options = { ...Settings.mongo, ...given }
    const ids = yield* Ids
    const refuse = (error: unknown) =>
      new CannotConnect({ url: withoutSecrets(url), reason: reasonOf(error) })
    const client = yield* Effect.try({
      try: () =>
        new MongoClient(url, {
          appName: "event-hub",
          ...more,
          serverSelectionTimeoutMS: options.serverSelectionTimeoutMs,
          connectTimeoutMS: options.serverSelectionTimeoutMs,
          socketTimeoutMS: options.socketTimeoutMs,
          waitQueueTimeoutMS: options.socketTimeoutMs,
          maxPoolSize: options.maxPoolSize,
          retryWrites: true,
          retryReads: true,
          writeConcern: { w: "majority", journal: true, wtimeoutMS: options.socketTimeoutMs },
          readConcern: { level: "majority" },
          readPreference: "primary",
          // What a client says is kept as it said it, and nothing that it did not say is.
          ignoreUndefined: true,
          serializeFunctions: false
        }),
      catch: refuse
    })
    yield* Effect.addFinalizer(() => Effect.promise(() => client.close().catch(() => {})))
    const db = client.db(client.options.dbName === "test" && !/\/test(\?|$)/.test(url) ? "prom" : undefined)
    const { features, history, time } = yield* Effect.tryPromise({
      try: async () => {
        const features = await featuresOf(db)
        const history = await prepare(db, ids.next())
        return { features, history, time: await timeOf(db) }
      },
      catch: refuse
    })
    for (const lack of lacksOf(features)) yield* Effect.logInfo(lack)
    const now = yield* clockOf(db, time)
    return MongoDatabase.of({
      client,
      db,
      history,
      features,
      use: (operation, f) => tryUse(operation, () => f(db)),
      now
    })
  })

export const layer = (options: Options): Layer.Layer<MongoDatabase, CannotConnect, Ids> =>
  Layer.effect(MongoDatabase, make(options, migrate))

/**
 * A database that belongs to others, who have an outbox in it: the hub's collections are not made there, and its
 * `history` is no one's.
 */
export const layerOfOthers = (options: Options): Layer.Layer<MongoDatabase, CannotConnect, Ids> =>
  Layer.effect(
    MongoDatabase,
    make(options, (_db, newHistory) => Promise.resolve(newHistory))
  )

/** What the server cannot do, for whoever asks how the hub is. */
export const layerLacks: Layer.Layer<never, never, MongoDatabase> = Layer.effect(
  StoreLacks,
  Effect.map(MongoDatabase, ({ features }) => lacksOf(features))
)
