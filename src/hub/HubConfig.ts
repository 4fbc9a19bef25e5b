/**
 * The configuration of a hub: every environment variable, what it means, what it may be, and its default.
 *
 * One table gives the reading of the environment, the messages about what is wrong in it, and
 * docs/configuration.md. An empty value is as good as none.
 */
import { Redacted, Result } from "effect"
import * as Defaults from "../domain/Settings.ts"

export type Store = { readonly _tag: "Memory" } | { readonly _tag: "Sqlite"; readonly path: string }

export type Keys =
  | { readonly _tag: "Secret"; readonly secret: Redacted.Redacted }
  | { readonly _tag: "Jwks"; readonly url: URL }

/** Who may come in. `Random`: nothing is configured; a secret for this run, and loopback only. */
export type Auth =
  | { readonly _tag: "Random" }
  | { readonly _tag: "Keys"; readonly keys: Keys }
  /** One token is known by heart; others, if at all, by the keys. */
  | { readonly _tag: "Static"; readonly token: Redacted.Redacted; readonly keys: Keys | undefined }

export type LogFormat = "pretty" | "json"

export interface HubSettings {
  readonly store: Store
  readonly host: string
  /** 0 picks a free one. */
  readonly wsPort: number
  readonly opsPort: number
  readonly origins: ReadonlyArray<string> | undefined
  readonly auth: Auth
  readonly audience: string | undefined
  readonly issuer: string | undefined
  readonly tokens: Defaults.AuthSettings
  readonly log: LogFormat
  readonly limits: Defaults.Limits
  readonly gateway: Defaults.GatewaySettings
  readonly groups: Defaults.GroupSettings
  readonly appender: Defaults.AppenderSettings
  readonly drainer: Defaults.DrainerSettings
}

export interface Variable {
  readonly name: string
  readonly about: string
  /** As docs show it. */
  readonly fallback: string
}

/** A variable that was not understood, or contradicts another one. */
export interface Problem {
  readonly name: string
  readonly problem: string
}

interface Reader {
  readonly text: (name: string, about: string, shown?: string) => string | undefined
  readonly int: (
    name: string,
    about: string,
    range: readonly [min: number, max: number],
    fallback: number
  ) => number
  readonly optionalInt: (
    name: string,
    about: string,
    range: readonly [min: number, max: number]
  ) => number | undefined
  readonly parsed: <A>(
    name: string,
    about: string,
    shown: string,
    parse: (text: string) => A | Wrong,
    fallback: A
  ) => A
  readonly wrong: (name: string, problem: string) => void
}

class Wrong {
  readonly problem: string
  constructor(problem: string) {
    this.problem = problem
  }
}

const grouped = (n: number): string => n.toString().replaceAll(/(?<=\d)(?=(?:\d{3})+$)/g, ",")

const parseIntIn =
  ([min, max]: readonly [number, number]) =>
  (text: string): number | Wrong => {
    const n = /^\d{1,15}$/.test(text) ? Number(text) : NaN
    return n >= min && n <= max
      ? n
      : new Wrong(`must be a whole number from ${grouped(min)} to ${grouped(max)}`)
  }

const readerOf = (
  env: Readonly<Record<string, string | undefined>>,
  variables: Array<Variable>,
  problems: Array<Problem>
): Reader => {
  const wrong = (name: string, problem: string) => void problems.push({ name, problem })
  const given = (name: string): string | undefined => {
    const value = env[name]
    return value === undefined || value.trim() === "" ? undefined : value.trim()
  }
  const parsed: Reader["parsed"] = (name, about, shown, parse, fallback) => {
    variables.push({ name, about, fallback: shown })
    const text = given(name)
    if (text === undefined) return fallback
    const value = parse(text)
    if (!(value instanceof Wrong)) return value
    wrong(name, value.problem)
    return fallback
  }
  return {
    parsed,
    wrong,
    text: (name, about, shown = "–") =>
      parsed<string | undefined>(name, about, shown, (text) => text, undefined),
    int: (name, about, range, fallback) =>
      parsed(name, about, grouped(fallback), parseIntIn(range), fallback),
    optionalInt: (name, about, range) =>
      parsed<number | undefined>(name, about, "no limit", parseIntIn(range), undefined)
  }
}

const parseStore = (text: string): Store | Wrong => {
  if (text === "memory:") return { _tag: "Memory" }
  if (text.startsWith("sqlite:")) {
    const path = text.slice("sqlite:".length)
    return path === "" || path === ":memory:"
      ? new Wrong("names no file: write sqlite:<path>, or memory: for a hub that forgets")
      : { _tag: "Sqlite", path }
  }
  return /^mongodb(?:\+srv)?:\/\//.test(text) ? noMongo : new Wrong("must be sqlite:<path> or memory:")
}

const noMongo = new Wrong(
  "asks for MongoDB, which is not available in this version; use HUB_STORE=sqlite:<path> or memory:"
)

export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host)

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

const parseSecret = (text: string): Redacted.Redacted | Wrong => {
  const bytes = new TextEncoder().encode(text).length
  return bytes < Defaults.minSecretBytes
    ? new Wrong(
        `must have at least ${Defaults.minSecretBytes} bytes (RFC 7518, section 3.2), it has ${bytes}`
      )
    : Redacted.make(text)
}

const parseJwksUrl = (text: string): URL | Wrong => {
  if (!URL.canParse(text)) return new Wrong("must be a URL")
  const url = new URL(text)
  return url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url.hostname))
    ? url
    : new Wrong("must be an https: URL (http: only on loopback)")
}

const int32 = 2_147_483_647
const hour = 3_600_000
const day = 24 * hour
const MiB = 1024 * 1024

const readAll = (read: Reader): HubSettings => {
  const { limits: l, gateway: g, groups: c, appender: a, drainer: d, auth: t } = Defaults

  const hubStore = read.parsed<Store | undefined>(
    "HUB_STORE",
    "Where events are kept: `sqlite:<path>`, or `memory:` for a hub that forgets everything when it ends.",
    "`sqlite:./data/hub.db`",
    parseStore,
    undefined
  )
  const mongoUrl = read.text(
    "MONGO_URL",
    "A MongoDB, where HUB_STORE is not set. Not available in this version."
  )
  if (mongoUrl !== undefined && hubStore === undefined) read.wrong("MONGO_URL", noMongo.problem)

  const host = read.parsed(
    "HUB_HOST",
    "The address both ports listen on. Anything but loopback needs JWT_SECRET, JWT_JWKS_URL or STATIC_TOKEN.",
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

  const secret = read.parsed<Redacted.Redacted | undefined>(
    "JWT_SECRET",
    `Verifies tokens signed with HS256. At least ${Defaults.minSecretBytes} bytes.`,
    "–",
    parseSecret,
    undefined
  )
  const jwks = read.parsed<URL | undefined>(
    "JWT_JWKS_URL",
    "The public keys of an issuer of tokens (RS, PS, ES, EdDSA). Wins over JWT_SECRET.",
    "–",
    parseJwksUrl,
    undefined
  )
  const audience = read.text("JWT_AUD", "The `aud` a token must have.", "any")
  const issuer = read.text("JWT_ISS", "The `iss` a token must have.", "any")
  const clockToleranceMs = read.int(
    "JWT_CLOCK_TOLERANCE_MS",
    "How far the clocks of the hub and of the issuer may be apart.",
    [0, hour],
    t.clockToleranceMs
  )
  const staticToken = read.text(
    "STATIC_TOKEN",
    "One token for machines in a closed network: publishes and subscribes everywhere, never admin."
  )

  const keys: Keys | undefined =
    jwks !== undefined
      ? { _tag: "Jwks", url: jwks }
      : secret !== undefined
        ? { _tag: "Secret", secret }
        : undefined
  const auth: Auth =
    staticToken !== undefined
      ? { _tag: "Static", token: Redacted.make(staticToken), keys }
      : keys !== undefined
        ? { _tag: "Keys", keys }
        : { _tag: "Random" }
  if (auth._tag === "Random" && !isLoopback(host)) {
    read.wrong("HUB_HOST", "is not loopback, so JWT_SECRET, JWT_JWKS_URL or STATIC_TOKEN must be set")
  }

  const log = read.parsed<LogFormat>(
    "HUB_LOG",
    "`pretty` for people, `json` for machines: one object a line.",
    "`pretty`",
    (text) => (text === "pretty" || text === "json" ? text : new Wrong("must be pretty or json")),
    "pretty"
  )

  const drainer: Defaults.DrainerSettings = {
    batchSize: read.int("OUTBOX_BATCH_SIZE", "Outbox records claimed at once.", [1, 10_000], d.batchSize),
    leaseMs: read.int("OUTBOX_LEASE_MS", "How long a claim holds.", [1_000, hour], d.leaseMs),
    intervalMs: read.int(
      "OUTBOX_INTERVAL_MS",
      "The longest wait between two looks at the outbox when nothing wakes the drainer.",
      [10, hour],
      d.intervalMs
    ),
    retry: {
      baseMs: read.int(
        "OUTBOX_RETRY_BASE_MS",
        "The first back-off of a refused record.",
        [1, hour],
        d.retry.baseMs
      ),
      maxMs: read.int("OUTBOX_RETRY_MAX_MS", "The longest back-off.", [1, day], d.retry.maxMs),
      maxAttempts: read.int(
        "OUTBOX_MAX_ATTEMPTS",
        "Attempts until a record is dead.",
        [1, 1_000],
        d.retry.maxAttempts
      )
    },
    keepSentMs: read.int(
      "OUTBOX_KEEP_SENT_MS",
      "How long sent records are kept to be looked at.",
      [0, 365 * day],
      d.keepSentMs
    )
  }

  const perSecond = (name: string, burstName: string, what: string) => {
    const rate = read.optionalInt(name, `${what} a connection may send in a second.`, [1, int32])
    const burst = read.optionalInt(burstName, `${what} it may send at once; the rate, unless set.`, [
      1,
      int32
    ])
    if (rate === undefined && burst !== undefined) read.wrong(burstName, `has no effect without ${name}`)
    return rate === undefined ? undefined : { perSecond: rate, burst: burst ?? rate }
  }
  const limits: Defaults.Limits = {
    maxPayloadBytes: read.int(
      "LIMIT_PAYLOAD_BYTES",
      "Bytes of one payload as JSON.",
      [1, 8 * MiB],
      l.maxPayloadBytes
    ),
    maxFrameBytes: read.int(
      "LIMIT_FRAME_BYTES",
      "Bytes of one WebSocket frame of a client.",
      [1_024, 64 * MiB],
      l.maxFrameBytes
    ),
    maxMessagesPerFrame: l.maxMessagesPerFrame,
    maxSubscriptionsPerConnection: read.int(
      "LIMIT_SUBSCRIPTIONS",
      "Subscriptions of one connection.",
      [1, 100_000],
      l.maxSubscriptionsPerConnection
    ),
    maxConnections: read.int(
      "LIMIT_CONNECTIONS",
      "Connections to this hub.",
      [1, 1_000_000],
      l.maxConnections
    ),
    maxCredit: read.int(
      "LIMIT_CREDIT",
      "The most unacknowledged events a group member may ask for.",
      [1, 100_000],
      l.maxCredit
    ),
    maxAckIds: read.int("LIMIT_ACK_IDS", "Ids in one ACK.", [1, 100_000], l.maxAckIds),
    maxAckTimeoutMs: read.int(
      "LIMIT_ACK_TIMEOUT_MS",
      "The longest acknowledgement time-out, EXTEND and NACK delay.",
      [1_000, 7 * day],
      l.maxAckTimeoutMs
    ),
    maxOutboundBytes: read.int(
      "LIMIT_OUTBOUND_BYTES",
      "Bytes that may wait for one connection before it counts as slow.",
      [64 * 1024, 1_024 * MiB],
      l.maxOutboundBytes
    ),
    maxNameLength: read.int(
      "LIMIT_NAME_LENGTH",
      "Characters of an id, key, type, sid or caused_by.",
      [16, 1_024],
      l.maxNameLength
    ),
    maxHeaders: read.int("LIMIT_HEADERS", "Headers of an event.", [0, 1_000], l.maxHeaders),
    maxHeadersLength: read.int(
      "LIMIT_HEADERS_LENGTH",
      "Characters of all headers of an event.",
      [0, MiB],
      l.maxHeadersLength
    ),
    maxTags: read.int("LIMIT_TAGS", "Tags of an event.", [0, 1_000], l.maxTags),
    messages: perSecond("LIMIT_MESSAGES_PER_SECOND", "LIMIT_MESSAGES_BURST", "Messages"),
    bytes: perSecond("LIMIT_BYTES_PER_SECOND", "LIMIT_BYTES_BURST", "Bytes")
  }
  if (limits.maxFrameBytes < limits.maxPayloadBytes) {
    read.wrong("LIMIT_FRAME_BYTES", "must not be less than LIMIT_PAYLOAD_BYTES")
  }
  const appender: Defaults.AppenderSettings = {
    maxBatchEvents: read.int(
      "LIMIT_BATCH_EVENTS",
      "Events committed in one transaction.",
      [1, 10_000],
      a.maxBatchEvents
    ),
    maxBatchBytes: read.int("LIMIT_BATCH_BYTES", "Bytes of them.", [1_024, 64 * MiB], a.maxBatchBytes),
    maxQueuedEvents: read.int(
      "LIMIT_QUEUED_EVENTS",
      "Events that may wait for the store; beyond, publishers get `unavailable`.",
      [1, 10_000_000],
      a.maxQueuedEvents
    )
  }
  const gateway: Defaults.GatewaySettings = {
    authTimeoutMs: read.int(
      "LIMIT_AUTH_MS",
      "How long a connection may take until its first AUTH.",
      [100, hour],
      g.authTimeoutMs
    ),
    heartbeatMs: read.int(
      "HUB_HEARTBEAT_MS",
      "The time between two pings to a client.",
      [100, hour],
      g.heartbeatMs
    ),
    maxMissedPongs: g.maxMissedPongs,
    maxBadMessages: read.int(
      "LIMIT_BAD_MESSAGES",
      "Malformed messages in a minute after which a connection is closed.",
      [1, 10_000],
      g.maxBadMessages
    ),
    badMessageWindowMs: g.badMessageWindowMs,
    drainMs: read.int(
      "HUB_DRAIN_MS",
      "How long a stopping hub waits for acknowledgements.",
      [0, 2_500],
      g.drainMs
    ),
    reconnectSpreadMs: read.int(
      "HUB_RECONNECT_SPREAD_MS",
      "The time over which the clients of a stopping hub come back.",
      [0, hour],
      g.reconnectSpreadMs
    )
  }
  const groups: Defaults.GroupSettings = {
    credit: read.int(
      "GROUP_CREDIT",
      "Unacknowledged events of a member that does not say.",
      [1, 100_000],
      c.credit
    ),
    ackTimeoutMs: read.int(
      "GROUP_ACK_TIMEOUT_MS",
      "Acknowledgement time-out of a group that does not say.",
      [100, 7 * day],
      c.ackTimeoutMs
    ),
    maxAttempts: read.int(
      "GROUP_MAX_ATTEMPTS",
      "Attempts until an event is a dead letter, for a group that does not say.",
      [1, 1_000],
      c.maxAttempts
    ),
    keyOrdered: c.keyOrdered,
    window: read.int(
      "GROUP_WINDOW",
      "How far a group may be ahead of its oldest unacknowledged event.",
      [16, 100_000],
      c.window
    ),
    backoff: {
      baseMs: read.int(
        "GROUP_RETRY_BASE_MS",
        "The first back-off after a NACK.",
        [1, hour],
        c.backoff.baseMs
      ),
      maxMs: read.int("GROUP_RETRY_MAX_MS", "The longest back-off.", [1, day], c.backoff.maxMs)
    }
  }
  if (groups.credit > limits.maxCredit) read.wrong("GROUP_CREDIT", "must not be more than LIMIT_CREDIT")
  if (groups.ackTimeoutMs > limits.maxAckTimeoutMs) {
    read.wrong("GROUP_ACK_TIMEOUT_MS", "must not be more than LIMIT_ACK_TIMEOUT_MS")
  }

  return {
    store: hubStore ?? { _tag: "Sqlite", path: "./data/hub.db" },
    host,
    wsPort,
    opsPort,
    origins,
    auth,
    audience,
    issuer,
    tokens: { clockToleranceMs },
    log,
    limits,
    gateway,
    groups,
    appender,
    drainer
  }
}

/** Names that other parts of event-hub read. */
const elsewhere = new Set(["HUB_URL", "HUB_OPS_URL", "HUB_TOKEN"])

/** What Kubernetes puts into the environment of a pod beside a service named `hub`. */
const injected = /^HUB_(?:SERVICE_|PORT)/

/** A name with one of these that nobody knows stops the start: it is a setting somebody believes in. */
const ours = /^(?:HUB|JWT)_/
/** Names that other programs may use as well. */
const maybeOurs = /^(?:OUTBOX|LIMIT|GROUP)_/

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
  const settings = readAll(readerOf(env, variables, problems))
  const known = new Set(variables.map(({ name }) => name))
  const warnings: Array<string> = []
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value.trim() === "" || known.has(name) || elsewhere.has(name)) continue
    if (ours.test(name) && !injected.test(name)) problems.push({ name, problem: "is no setting of the hub" })
    else if (maybeOurs.test(name)) warnings.push(`${name} is no setting of the hub and has no effect`)
  }
  if (problems.length > 0) return Result.fail(problems)
  const { auth } = settings
  if (auth._tag !== "Random" && auth.keys?._tag === "Jwks" && (env["JWT_SECRET"] ?? "").trim() !== "") {
    warnings.push("JWT_SECRET has no effect: JWT_JWKS_URL wins")
  }
  return Result.succeed({ settings, warnings })
}

/** Every variable, in the order of the documentation. */
export const variables = (): ReadonlyArray<Variable> => {
  const found: Array<Variable> = []
  readAll(readerOf({}, found, []))
  return found
}

/** All of it in one line. */
export const formatProblems = (problems: ReadonlyArray<Problem>): string =>
  `the configuration is wrong: ${problems.map(({ name, problem }) => `${name} ${problem}`).join("; ")}`
