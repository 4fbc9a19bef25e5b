/**
 * Every default in one place, with its unit. Whoever runs a hub can set each of them (docs/configuration.md);
 * whoever embeds its parts hands over the ones that differ.
 */
import type { EventLimits } from "./Event.ts"
import type { GroupOptions } from "./Group.ts"
import { type Quotas, unlimited } from "./Quota.ts"
import type { RetentionRule } from "./Retention.ts"
import type { RetryPolicy } from "./Retry.ts"
import { parentBasedAlwaysOn, type Sampler } from "./Sampling.ts"

const KiB = 1024
const MiB = 1024 * KiB
const second = 1_000
const minute = 60 * second
const hour = 60 * minute

export interface Limits extends EventLimits {
  /** Bytes of one WebSocket frame from a client. */
  readonly maxFrameBytes: number
  readonly maxMessagesPerFrame: number
  readonly maxSubscriptionsPerConnection: number
  readonly maxConnections: number
  /** The most unacknowledged events a group member may ask for. */
  readonly maxCredit: number
  /** Ids in one ACK. */
  readonly maxAckIds: number
  /** The longest acknowledgement time-out, EXTEND and NACK delay, in milliseconds. */
  readonly maxAckTimeoutMs: number
  /** Bytes that may wait for one connection before it counts as slow. */
  readonly maxOutboundBytes: number
  /** How much may be sent in a second; of connections, of subjects, and on topics. */
  readonly quotas: Quotas
}

export const limits: Limits = {
  maxPayloadBytes: 256 * KiB,
  maxFrameBytes: 1 * MiB,
  maxMessagesPerFrame: 1_000,
  maxSubscriptionsPerConnection: 1_000,
  maxConnections: 10_000,
  maxCredit: 10_000,
  maxAckIds: 10_000,
  maxJsonDepth: 128,
  maxAckTimeoutMs: 12 * hour,
  maxOutboundBytes: 4 * MiB,
  maxNameLength: 256,
  maxHeaders: 64,
  maxHeadersLength: 16 * KiB,
  maxTags: 64,
  quotas: unlimited
}

export interface RateLimiterSettings {
  /** Token buckets that are remembered, at most. */
  readonly maxBuckets: number
}

export const rateLimiter: RateLimiterSettings = { maxBuckets: 100_000 }

export interface GatewaySettings {
  /** How long a connection may take until its first AUTH. */
  readonly authTimeoutMs: number
  readonly heartbeatMs: number
  /** Pings without an answer after which a connection counts as dead. */
  readonly maxMissedPongs: number
  /** Messages that cannot be understood, within `badMessageWindowMs`, after which a connection is closed. */
  readonly maxBadMessages: number
  readonly badMessageWindowMs: number
  /** How long a stopping hub waits for acknowledgements that are under way. */
  readonly drainMs: number
  /** The time over which the clients of a stopping hub are told to come back. */
  readonly reconnectSpreadMs: number
  /** Events, and bytes of them, that wait for the store when connections that publish are not read any more. */
  readonly pauseAtEvents: number
  readonly pauseAtBytes: number
  /** Bytes that connections may have sent without an accepted AUTH, together, beyond a token and some KiB of each. */
  readonly maxAnonymousBytes: number
  /** How much longer the answer to each further refused AUTH from an address takes, and at most. */
  readonly authDelayMs: number
  readonly maxAuthDelayMs: number
  /** Addresses whose refused AUTHs are remembered. */
  readonly maxAuthAddresses: number
}

export const gateway: GatewaySettings = {
  authTimeoutMs: 10 * second,
  heartbeatMs: 25 * second,
  maxMissedPongs: 2,
  maxBadMessages: 10,
  badMessageWindowMs: 1 * minute,
  drainMs: 2 * second,
  reconnectSpreadMs: 5 * second,
  pauseAtEvents: 1_024,
  pauseAtBytes: 32 * MiB,
  maxAnonymousBytes: 16 * MiB,
  authDelayMs: 250,
  maxAuthDelayMs: 5 * second,
  maxAuthAddresses: 10_000
}

export interface GroupSettings extends GroupOptions {
  /** Unacknowledged events a member takes at once, unless it says otherwise. */
  readonly credit: number
  /** Events of a topic that a group may have begun and not finished, before it takes no new ones. */
  readonly window: number
  /** Events that may soon be delivered again, kept in memory; of all groups of a hub. */
  readonly cacheBytes: number
  /** How often a hub looks for itself at what others did to its groups, in milliseconds, beside being told. */
  readonly refreshMs: number
  /** How long a hub that stops tries to store what its members leave behind, in milliseconds. */
  readonly departMs: number
  readonly backoff: Omit<RetryPolicy, "maxAttempts">
}

export const groups: GroupSettings = {
  credit: 100,
  ackTimeoutMs: 30 * second,
  maxAttempts: 10,
  keyOrdered: false,
  window: 10_000,
  cacheBytes: 32 * MiB,
  refreshMs: 5 * second,
  departMs: 1 * second,
  backoff: { baseMs: 1 * second, maxMs: 1 * minute }
}

export interface AppenderSettings {
  /** Events, and bytes of them, that are committed in one transaction of the store. */
  readonly maxBatchEvents: number
  readonly maxBatchBytes: number
  /** Events that may wait for the store before publishers are told to come back later. */
  readonly maxQueuedEvents: number
}

export const appender: AppenderSettings = {
  maxBatchEvents: 512,
  maxBatchBytes: 1 * MiB,
  maxQueuedEvents: 50_000
}

export interface ArchiveSettings {
  /** Bytes of one line of an import. */
  readonly maxLineBytes: number
  /** Bad lines that an import names; the others are counted. */
  readonly maxBadLines: number
  /** Events of one publish over HTTP. */
  readonly maxPublishEvents: number
}

export const archive: ArchiveSettings = {
  maxLineBytes: 1 * MiB,
  maxBadLines: 100,
  maxPublishEvents: 1_000
}

export interface OpsSettings {
  /** Connections of the ops server; those that ask for nothing make room for others. */
  readonly maxConnections: number
  /** How long the head of a request may take to come. */
  readonly headersTimeoutMs: number
  /** How long a body may take to come; that of an import, how long it may stand still. */
  readonly bodyTimeoutMs: number
}

export const ops: OpsSettings = {
  maxConnections: 1_000,
  headersTimeoutMs: 10 * second,
  bodyTimeoutMs: 30 * second
}

export interface DrainerSettings {
  /** Records claimed at once. */
  readonly batchSize: number
  /** How long a claim holds. */
  readonly leaseMs: number
  /** The longest wait between two looks at the outbox when nothing wakes the drainer. */
  readonly intervalMs: number
  readonly retry: RetryPolicy
  /** How long records that were sent are kept, for people to look at. */
  readonly keepSentMs: number
}

export const drainer: DrainerSettings = {
  batchSize: 100,
  leaseMs: 30 * second,
  intervalMs: 250,
  retry: { baseMs: 500, maxMs: 5 * minute, maxAttempts: 20 },
  keepSentMs: 24 * hour
}

export interface AuthSettings {
  /** How far the clocks of the hub and of the issuer of tokens may be apart. */
  readonly clockToleranceMs: number
  /** Tokens that were issued longer ago are refused, whatever their expiry; none: no such bound. */
  readonly maxTokenAgeMs: number | undefined
  readonly maxTokenBytes: number
  /** What the header `typ` of a token may be, in any case; a token without one passes (RFC 8725, section 3.11). */
  readonly types: ReadonlyArray<string>
  /** How long before its token expires a connection is told. */
  readonly expiryWarningMs: number
}

export const auth: AuthSettings = {
  clockToleranceMs: 5 * second,
  maxTokenAgeMs: undefined,
  maxTokenBytes: 16 * KiB,
  types: ["JWT", "at+jwt"],
  expiryWarningMs: 1 * minute
}

export interface JwksSettings {
  /** Keys are asked for again after this time, while the known ones are used on. */
  readonly freshMs: number
  /** Keys that nobody could confirm for so long are not used any more: one of them may have been taken back. */
  readonly staleMs: number
  /** Between two requests, whatever came of the first. */
  readonly cooldownMs: number
  readonly timeoutMs: number
  /** Bytes of an answer. */
  readonly maxBytes: number
}

export const jwks: JwksSettings = {
  freshMs: 10 * minute,
  staleMs: 24 * hour,
  cooldownMs: 1 * second,
  timeoutMs: 5 * second,
  maxBytes: 256 * KiB
}

export interface RevocationSettings {
  /** The time between two looks at what was revoked elsewhere. */
  readonly intervalMs: number
  /** A hub that could not look for so long takes no new tokens. */
  readonly staleMs: number
  /** Revocations of tokens and subjects that are kept. */
  readonly maxEntries: number
}

export const revocations: RevocationSettings = {
  intervalMs: 500,
  staleMs: 5 * second,
  maxEntries: 100_000
}

export interface FileSettings {
  /** The time between two looks at the files of the configuration. */
  readonly intervalMs: number
  /** How long a look may take. */
  readonly timeoutMs: number
  /** Bytes of a policy file. */
  readonly maxPolicyBytes: number
}

export const files: FileSettings = {
  intervalMs: 1 * second,
  timeoutMs: 5 * second,
  maxPolicyBytes: 1 * MiB
}

/** RFC 7518, section 3.2: a key of the same size as the hash, 256 bits for HS256. */
export const minSecretBytes = 32

/** A token that is known by heart is guessed as fast as a hub answers: 128 bits take for ever, a word does not. */
export const minStaticTokenBytes = 16

export interface RetentionSettings {
  /** Events younger than this are never trimmed, so that a retry with the same id is still recognised. */
  readonly minAgeMs: number
  /** What is kept for how long; the first rule that matches a topic decides. */
  readonly rules: ReadonlyArray<RetentionRule>
  /** The time between two looks at what may go; none: only when somebody asks for one. */
  readonly intervalMs: number | undefined
  /** Groups without a member for this long are told to whoever runs the hub. */
  readonly unusedGroupMs: number
  /** Groups without a member for this long are removed; none: never. */
  readonly expireGroupMs: number | undefined
  /** After a start no group is removed for so long, since members come back first; or for `expireGroupMs`, if shorter. */
  readonly expireGraceMs: number
}

export const retention: RetentionSettings = {
  minAgeMs: 24 * hour,
  rules: [],
  intervalMs: 1 * minute,
  unusedGroupMs: 7 * 24 * hour,
  expireGroupMs: undefined,
  expireGraceMs: 1 * hour
}

export interface DedupeSettings {
  /** How long an event that was handled is remembered; longer than a group may bring it again (domain/Horizon). */
  readonly keepMs: number
  /** How long a run holds unless it is renewed; then another may take it over. */
  readonly leaseMs: number
  /** The longest wait of an event that is handled elsewhere at the moment, until it comes again. */
  readonly maxDelayMs: number
}

export const dedupe: DedupeSettings = {
  keepMs: 7 * 24 * hour,
  leaseMs: 30 * second,
  maxDelayMs: 5 * second
}

export interface MongoSettings {
  /** How long an operation looks for a server that can do it. */
  readonly serverSelectionTimeoutMs: number
  /** How long an operation waits for its answer. */
  readonly socketTimeoutMs: number
  /** Connections to each server, at most. */
  readonly maxPoolSize: number
}

export const mongo: MongoSettings = {
  serverSelectionTimeoutMs: 5 * second,
  socketTimeoutMs: 15 * second,
  maxPoolSize: 20
}

export interface RemoteSettings {
  /** Events that are sent to a remote hub and not answered, at most. */
  readonly maxInFlight: number
  /** Events that may wait for a remote hub before those who bring more are told to come back later. */
  readonly maxQueuedEvents: number
  /** How long a batch waits for a remote hub; the leases of its records have to be longer. */
  readonly answerTimeoutMs: number
}

export const remote: RemoteSettings = {
  maxInFlight: 256,
  maxQueuedEvents: 10_000,
  answerTimeoutMs: 10 * second
}

export interface StandingSettings {
  /** The time between two looks at who is behind, however many ask, in milliseconds. */
  readonly refreshMs: number
  /** How long what was found out is kept when nobody looks, in milliseconds. */
  readonly keepMs: number
  /** How often all of it is found out anew where hubs share a store, beside being told, in milliseconds. */
  readonly renewMs: number
  /** Topics that are looked at. */
  readonly maxTopics: number
  /** Topics whose growth is measured; those that grew longest ago give way. */
  readonly growthTopics: number
  /** The time between two events of the hub's own live topics, in milliseconds. */
  readonly tickMs: number
}

export const standing: StandingSettings = {
  refreshMs: 1 * second,
  keepMs: 30 * second,
  renewMs: 1 * minute,
  maxTopics: 200_000,
  growthTopics: 10_000,
  tickMs: 1 * second
}

export interface TraceSettings {
  readonly protocol: "http/json" | "http/protobuf"
  readonly serviceName: string
  readonly sampler: Sampler
  /** Spans that wait for the receiver; more are dropped. */
  readonly maxQueuedSpans: number
  /** Spans in one request. */
  readonly maxBatchSpans: number
  /** The longest wait of a span until it is sent. */
  readonly delayMs: number
  /** How long a request may take. */
  readonly timeoutMs: number
}

/** The defaults of the OpenTelemetry specification. */
export const traces: TraceSettings = {
  protocol: "http/protobuf",
  serviceName: "event-hub",
  sampler: parentBasedAlwaysOn,
  maxQueuedSpans: 2_048,
  maxBatchSpans: 512,
  delayMs: 5 * second,
  timeoutMs: 10 * second
}
