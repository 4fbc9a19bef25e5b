/**
 * Runs a hub as its process: from the environment to the ready line, until the process is told to stop.
 *
 * What stops a start is said in one line on standard error, before anything on disk was touched.
 */
import { createServer } from "node:net"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as MongoDatabase from "../layers/mongo/MongoDatabase.ts"
import type * as SqliteDatabase from "../layers/sqlite/SqliteDatabase.ts"
import { type CannotUseFile, ConfigFiles } from "../services/ConfigFiles.ts"
import { CannotListen, Gateway } from "../services/Gateway.ts"
import { Ops } from "../services/Ops.ts"
import type { StoreUnavailable } from "../services/StoreUnavailable.ts"
import * as EmbeddedHub from "./EmbeddedHub.ts"
import type * as Hub from "./Hub.ts"
import * as HubConfig from "./HubConfig.ts"
import * as Log from "./Log.ts"
import * as MemoryHub from "./MemoryHub.ts"
import { nameOf } from "./outboxes.ts"
import * as Tokens from "./Tokens.ts"

/** The hub could not start; the message is for whoever runs it. */
export class CannotStart extends Schema.TaggedError<CannotStart>()("CannotStart", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)

/** A taken port is found out before the store is opened: a start that fails leaves no trace. */
const probe = (host: string, port: number): Effect.Effect<void, CannotListen> =>
  port === 0
    ? Effect.void
    : Effect.callback((resume) => {
        const server = createServer()
        server.once("error", (error: NodeJS.ErrnoException) => {
          const reason = error.code === "EADDRINUSE" ? "the port is in use" : (error.code ?? error.message)
          resume(Effect.fail(new CannotListen({ host, port, reason })))
        })
        server.listen({ host, port, exclusive: true }, () => server.close(() => resume(Effect.void)))
      })

type AnyHub = Layer.Layer<
  Hub.Hub,
  CannotListen | CannotUseFile | StoreUnavailable | SqliteDatabase.CannotOpen | MongoDatabase.CannotConnect
>

const layerOf = (
  settings: HubConfig.HubSettings,
  verifier: Effect.Success<ReturnType<typeof Tokens.make>>["verifier"]
): Effect.Effect<AnyHub> => {
  const { store } = settings
  if (store._tag === "Memory") return Effect.succeed(MemoryHub.layer(verifier, settings))
  if (store._tag === "Sqlite") return Effect.succeed(EmbeddedHub.layer(store.path, verifier, settings))
  // Who has no MongoDB does not pay for its driver.
  return Effect.map(
    Effect.promise(() => import("./MongoHub.ts")),
    (MongoHub) => MongoHub.layer(store.url, verifier, settings)
  )
}

const announce = (
  settings: HubConfig.HubSettings,
  urls: { ws: string; ops: string },
  devToken: string | undefined
) =>
  Effect.gen(function* () {
    const { log, store } = settings
    const stored = nameOf(store)
    const page = devToken === undefined ? urls.ops : `${urls.ops}/#token=${devToken}`
    if (log === "json") {
      yield* Effect.logInfo("ready", { ...urls, store: stored, pid: process.pid })
      if (devToken !== undefined)
        yield* Effect.logWarning("no tokens are configured", { token: devToken, page })
      return
    }
    say(`event-hub is ready\n\n  gateway  ${urls.ws}\n  ops      ${urls.ops}\n  store    ${stored}\n`)
    if (devToken === undefined) return
    say(
      "No tokens are configured, so this run has a secret of its own and listens on loopback only.\n" +
        "Set JWT_SECRET, JWT_JWKS_URL or STATIC_TOKEN to change that.\n\n" +
        `  token    ${devToken}\n  page     ${page}\n`
    )
  })

/**
 * SIGHUP: what the hub is configured by is looked at anew. It is heard from the start to the end of the process, which
 * it would end otherwise; what is asked for before there is anything to look at is done as soon as there is.
 */
const listenToHangUps = () => {
  let isAsked = false
  let reload = (): void => {
    isAsked = true
  }
  process.on("SIGHUP", () => reload())

  return (files: ConfigFiles["Service"]) =>
    Effect.gen(function* () {
      const run = yield* FiberSet.makeRuntime()
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          reload = () => void run(files.reload)
          if (isAsked) reload()
        }),
        () =>
          Effect.sync(() => {
            reload = () => {}
          })
      )
    })
}

const start = (env: Readonly<Record<string, string | undefined>>) =>
  Effect.gen(function* () {
    const reloadOnHangUp = listenToHangUps()
    const read = HubConfig.read(env)
    if (Result.isFailure(read))
      return yield* new CannotStart({ reason: HubConfig.formatProblems(read.failure) })
    const { settings, warnings } = read.success

    yield* Effect.gen(function* () {
      for (const warning of warnings) yield* Effect.logWarning(warning)
      yield* probe(settings.host, settings.wsPort)
      yield* probe(settings.host, settings.opsPort)
      const { devToken, verifier } = yield* Tokens.make(settings)
      const hub = yield* Layer.build(yield* layerOf(settings, verifier))
      const gateway = Context.get(hub, Gateway)
      yield* reloadOnHangUp(Context.get(hub, ConfigFiles))
      yield* announce(settings, { ws: gateway.url, ops: Context.get(hub, Ops).url }, devToken)

      // The ops server is still there while the gateway drains, and says that the hub is not ready any more.
      yield* Effect.never.pipe(
        Effect.onInterrupt(() => Effect.andThen(Effect.logInfo("stopping"), gateway.drain))
      )
    }).pipe(
      Effect.scoped,
      Effect.onInterrupt(() => Effect.logInfo("stopped")),
      Effect.provide(Log.layer(settings.log, say))
    )
  })

/** Ends with an interruption when the process is told to stop. */
export const serve = (env: Readonly<Record<string, string | undefined>>): Effect.Effect<never, CannotStart> =>
  start(env).pipe(
    Effect.mapError((error) =>
      error._tag === "CannotStart" ? error : new CannotStart({ reason: error.message })
    ),
    Effect.andThen(Effect.never)
  )
