/**
 * The configuration of a hub: every environment variable, what it means, what it may be, and its default.
 *
 * One table gives the reading of the environment, the messages about what is wrong in it, and
 * docs/configuration.md. An empty value is as good as none.
 */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Defaults from "../domain/Settings.ts"
import type { Receiver } from "../layers/otlp/Receiver.ts"
import { authVariables, type HubAuth, isLoopback, readAuth } from "./HubAuth.ts"
import { parseIntIn, type Problem, type Reader, readerOf, type Variable, Wrong } from "./environment.ts"
import { type HubLimits, readLimits } from "./HubLimits.ts"
import { readTraces } from "./HubTraces.ts"
import { defaultCollection, type OutboxPlace, parseSources, type SourceSettings } from "./HubSources.ts"

export type Store =
  | { readonly _tag: "Memory" }
  | { readonly _tag: "Sqlite"; readonly path: string }
  | { readonly _tag: "Mongo"; readonly url: Redacted.Redacted }

export type LogFormat = "pretty" | "json"

export interface HubSettings extends HubLimits, HubAuth {
  readonly store: Store
  readonly mongo: Defaults.MongoSettings
  readonly host: string
  /** 0 picks a free one. */
  readonly wsPort: number
  readonly opsPort: number
  readonly origins: ReadonlyArray<string> | undefined
  readonly log: LogFormat
  /** The outboxes it drains besides its own. */
  readonly outboxSources: ReadonlyArray<SourceSettings>
  /** Where the spans of traced events go; none: no traces. */
  readonly traces: Receiver | undefined
}

const parseStore = (text: string): Store | Wrong => {
  if (text === "memory:") return { _tag: "Memory" }
  if (text.startsWith("sqlite:")) {
    const path = text.slice("sqlite:".length)
    return path === "" || path === ":memory:"
      ? new Wrong("names no file: write sqlite:<path>, or memory: for a hub that forgets")
      : { _tag: "Sqlite", path }
  }
  return /^mongodb(?:\+srv)?:\/\//.test(text)
    ? new Wrong("is not the place for the URL of a MongoDB: write it into MONGO_URL, and leave HUB_STORE out")
    : new Wrong("must be sqlite:<path> or memory:")
}

const parseMongoUrl = (text: string): Store | Wrong =>
  /^mongodb(?:\+srv)?:\/\/./.test(text)
    ? { _tag: "Mongo", url: Redacted.make(text) }
    : new Wrong("must be a URL such as mongodb://host:27017/database")

const parseHost = (text: string): string | Wrong =>
  URL.canParse(`http://${text.includes(":") ? `[${text}]` : text}`) && !/[/@?#\s]/.test(text)
    ? text
    : new Wrong("must be an address or a host name, without a port")

const parseOrigins = (text: string): ReadonlyArray<string> | Wrong => {
  const origins = text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "")
  const bad = origins.find((origin) => !URL.canParse(origin) || new URL(origin).origin !== origin)
  return bad === undefined
    ? origins
    : new Wrong(`must be a comma-separated list of origins such as https://app.example.com; '${bad}' is none`)
}

/** The outbox of the hub's own store. That of a hub in memory nobody else can have. */
const ownOutbox = (store: Store): OutboxPlace | undefined => {
  if (store._tag === "Memory") return undefined
  return store._tag === "Sqlite" ? store : { ...store, collection: defaultCollection }
}

const readSources = (read: Reader, store: Store): ReadonlyArray<SourceSettings> => {
  const { problems, sources } = read.parsed(
    "OUTBOX_SOURCES",
    "Outboxes to drain besides the hub's own, separated by whitespace, such as `shop=mongodb://db1:27017/shop#outbox billing=sqlite:/var/lib/billing.db`: [operations](operations.md#outboxes-elsewhere).",
    "–",
    (text) => parseSources(text, ownOutbox(store)),
    { problems: [], sources: [] }
  )
  for (const problem of problems) read.wrong("OUTBOX_SOURCES", problem)
  return sources
}

/** `lenient`: what is wrong in its variables stops nothing. */
const readAll = (read: Reader, lenient: Reader): HubSettings => {
  const hubStore = read.parsed<Store | undefined>(
    "HUB_STORE",
    "Where events are kept: `sqlite:<path>`, or `memory:` for a hub that forgets everything when it ends.",
    "`sqlite:./data/hub.db`",
    parseStore,
    undefined
  )
  const mongoStore = read.parsed<Store | undefined>(
    "MONGO_URL",
    "A MongoDB, where HUB_STORE is not set: any number of hubs share it. The database is `prom` unless the path names one.",
    "–",
    parseMongoUrl,
    undefined
  )
  const mongo: Defaults.MongoSettings = {
    serverSelectionTimeoutMs: read.int(
      "MONGO_SERVER_SELECTION_TIMEOUT_MS",
      "How long an operation looks for a server of the MongoDB that can do it.",
      [100, 600_000],
      Defaults.mongo.serverSelectionTimeoutMs
    ),
    socketTimeoutMs: read.int(
      "MONGO_SOCKET_TIMEOUT_MS",
      "How long an operation waits for the MongoDB's answer.",
      [100, 600_000],
      Defaults.mongo.socketTimeoutMs
    ),
    maxPoolSize: read.int(
      "MONGO_POOL_SIZE",
      "Connections to each server of the MongoDB, at most.",
      [1, 1_000],
      Defaults.mongo.maxPoolSize
    )
  }

  const host = read.parsed(
    "HUB_HOST",
    "The address both ports listen on. Anything but loopback needs JWT_SECRET, JWT_JWKS_URL, JWT_JWKS_FILE or STATIC_TOKEN.",
    "`127.0.0.1`",
    parseHost,
    "127.0.0.1"
  )
  const port = (name: string, about: string, fallback: number) =>
    read.parsed(name, about, `${fallback}`, parseIntIn([0, 65_535]), fallback)
  const wsPort = port(
    "WS_PORT",
    "The WebSocket gateway. 0 picks a free port; the `ready` line names it.",
    8090
  )
  const opsPort = port("OPS_PORT", "The ops HTTP server and its page. 0 picks a free port.", 8082)
  if (wsPort === opsPort && wsPort !== 0) read.wrong("OPS_PORT", "must be another port than WS_PORT")

  const origins = read.parsed<ReadonlyArray<string> | undefined>(
    "HUB_ORIGINS",
    "Web origins that may connect, separated by commas.",
    "the hub's own host, and loopback",
    parseOrigins,
    undefined
  )

  const access = readAuth(read)
  if (access.auth._tag === "Random" && !isLoopback(host)) {
    read.wrong("HUB_HOST", `is not loopback, so ${authVariables} must be set`)
  }

  const log = read.parsed<LogFormat>(
    "HUB_LOG",
    "`pretty` for people, `json` for machines: one object a line.",
    "`pretty`",
    (text) => (text === "pretty" || text === "json" ? text : new Wrong("must be pretty or json")),
    "pretty"
  )

  const store: Store = hubStore ?? mongoStore ?? { _tag: "Sqlite", path: "./data/hub.db" }
  return {
    store,
    mongo,
    host,
    wsPort,
    opsPort,
    origins,
    ...access,
    log,
    ...readLimits(read),
    outboxSources: readSources(read, store),
    traces: readTraces(lenient)
  }
}

/** Names that other parts of event-hub read. */
const elsewhere = new Set(["HUB_URL", "HUB_OPS_URL", "HUB_TOKEN"])

/** What Kubernetes puts into the environment of a pod beside a service named `hub`. */
const injected = /^HUB_(?:SERVICE_|PORT)/

/** A name with one of these that nobody knows stops the start: it is a setting somebody believes in. */
const ours = /^(?:HUB|JWT)_/
/** Names that other programs may use as well. */
const maybeOurs = /^(?:OUTBOX|LIMIT|GROUP|RETENTION|OTEL)_/

export interface Configuration {
  readonly settings: HubSettings
  /** What whoever runs the hub should know. */
  readonly warnings: ReadonlyArray<string>
}

/** Reads the environment: everything that is wrong in it at once, or the settings. */
export const read = (
  env: Readonly<Record<string, string | undefined>>
): Result.Result<Configuration, ReadonlyArray<Problem>> => {
  const variables: Array<Variable> = []
  const problems: Array<Problem> = []
  const told: Array<Problem> = []
  const settings = readAll(readerOf(env, variables, problems), readerOf(env, variables, told))
  const known = new Set(variables.map(({ name }) => name))
  const warnings = told.map(({ name, problem }) => `${name} ${problem}`)
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value.trim() === "" || known.has(name) || elsewhere.has(name)) continue
    if (ours.test(name) && !injected.test(name)) problems.push({ name, problem: "is no setting of the hub" })
    else if (maybeOurs.test(name)) warnings.push(`${name} is no setting of the hub and has no effect`)
  }
  if (problems.length > 0) return Result.fail(problems)
  const { auth, host, tls, trustProxy } = settings
  const byJwks = auth._tag !== "Random" && auth.keys !== undefined && auth.keys._tag !== "Secrets"
  if (byJwks && (env["JWT_SECRET"] ?? "").trim() !== "") {
    warnings.push("JWT_SECRET has no effect: the keys of the issuer win")
  }
  // RFC 8725, section 3.9: an issuer has tokens for others, too.
  if (byJwks && settings.audience === undefined) {
    warnings.push("any token of the issuer is taken, also one that is meant for another service: set JWT_AUD")
  }
  if (!isLoopback(host) && tls === undefined && !trustProxy) {
    warnings.push(
      "tokens and events go over the network as they are: set TLS_CERT and TLS_KEY, or TRUST_PROXY=true behind a proxy that speaks TLS"
    )
  }
  return Result.succeed({ settings, warnings })
}

/** Every variable, in the order of the documentation. */
export const variables = (): ReadonlyArray<Variable> => {
  const found: Array<Variable> = []
  readAll(readerOf({}, found, []), readerOf({}, found, []))
  return found
}

/** All of it in one line. */
export const formatProblems = (problems: ReadonlyArray<Problem>): string =>
  `the configuration is wrong: ${problems.map(({ name, problem }) => `${name} ${problem}`).join("; ")}`
