/** The numbers of a hub's configuration: how much, how many, how long. Each has its default in domain/Settings. */
import * as Result from "effect/Result"
import { retryHorizonMs } from "../domain/Horizon.ts"
import * as Quota from "../domain/Quota.ts"
import * as Rules from "../domain/Retention.ts"
import * as Defaults from "../domain/Settings.ts"
import { grouped, parseIntIn, type Reader, Wrong } from "./environment.ts"

export interface HubLimits {
  readonly limits: Defaults.Limits
  readonly rateLimiter: Defaults.RateLimiterSettings
  readonly gateway: Defaults.GatewaySettings
  readonly groups: Defaults.GroupSettings
  readonly appender: Defaults.AppenderSettings
  readonly drainer: Defaults.DrainerSettings
  readonly retention: Defaults.RetentionSettings
  readonly standing: Defaults.StandingSettings
  readonly archive: Defaults.ArchiveSettings
  readonly ops: Defaults.OpsSettings
}

const int32 = 2_147_483_647
const hour = 3_600_000
const day = 24 * hour
const MiB = 1024 * 1024

const parseRules = (text: string): ReadonlyArray<Rules.RetentionRule> | Wrong =>
  Result.match(Rules.parseRules(text), {
    onFailure: ({ message }) => new Wrong(message),
    onSuccess: (rules) => rules
  })

const parseQuotas = (text: string): ReadonlyArray<Quota.TopicQuota> | Wrong =>
  Result.match(Quota.parseQuotas(text), {
    onFailure: ({ message }) => new Wrong(message),
    onSuccess: (rules) => rules
  })

const readQuotas = (read: Reader): Quota.Quotas => {
  const rate = (name: string, what: string, who: string) => {
    const perSecond = read.optionalInt(`${name}_PER_SECOND`, `${what} ${who} may send in a second.`, [
      1,
      int32
    ])
    const burst = read.optionalInt(`${name}_BURST`, `${what} it may send at once; the rate, unless set.`, [
      1,
      int32
    ])
    if (perSecond !== undefined) return { perSecond, burst: burst ?? perSecond }
    if (burst !== undefined) read.wrong(`${name}_BURST`, `has no effect without ${name}_PER_SECOND`)
    return undefined
  }
  const subject = "a subject (`sub`)"
  return {
    connection: {
      messages: rate("LIMIT_MESSAGES", "Messages", "a connection"),
      bytes: rate("LIMIT_BYTES", "Bytes", "a connection")
    },
    subject: {
      messages: rate("LIMIT_SUBJECT_MESSAGES", "Messages", `${subject}, on all its connections,`),
      bytes: rate("LIMIT_SUBJECT_BYTES", "Bytes", `${subject}, on all its connections,`)
    },
    topics: read.parsed<ReadonlyArray<Quota.TopicQuota>>(
      "LIMIT_TOPICS",
      "How much may be published on topics, such as `orders.**: 500/s burst=1000; logs.*: 1MB/s shared`: [operations](operations.md#limits).",
      "no limit",
      parseQuotas,
      []
    )
  }
}

const readRetention = (
  read: Reader,
  drainer: Defaults.DrainerSettings,
  groups: Defaults.GroupSettings
): Defaults.RetentionSettings => {
  const { retention: r } = Defaults
  const rules = read.parsed(
    "RETENTION",
    "What is kept for how long, such as `orders.**: age=7d count=1000000; **: age=90d`: [retention](retention.md).",
    "everything, for ever",
    parseRules,
    r.rules
  )
  const minAgeMs = read.int(
    "RETENTION_MIN_AGE_MS",
    "Events younger than this are never trimmed. Less than 24 hours is meant for tests.",
    [1, 3_650 * day],
    r.minAgeMs
  )
  const intervalMs = read.int(
    "RETENTION_INTERVAL_MS",
    "The time between two looks at what may be trimmed.",
    [10, day],
    r.intervalMs ?? 60_000
  )
  const unusedGroupMs = read.int(
    "GROUP_UNUSED_MS",
    "A group without a member for this long is named in the log.",
    [1, 3_650 * day],
    r.unusedGroupMs
  )
  const expireGroupMs = read.parsed<number | undefined>(
    "GROUP_EXPIRE_MS",
    "A group without a member for this long is removed, with its positions.",
    "never",
    parseIntIn([1, 3_650 * day]),
    undefined
  )
  const early = Rules.belowLeastAge(rules, minAgeMs)
  if (early !== undefined) {
    const least = Rules.formatDuration(minAgeMs)
    read.wrong(
      "RETENTION",
      `'${Rules.formatRule(early)}' would trim events younger than ${least}; keep them for longer, or lower RETENTION_MIN_AGE_MS, which below 24 hours is meant for tests`
    )
  }
  // Without a rule nothing is trimmed, and no retry can come too late.
  if (rules.length > 0 || minAgeMs !== r.minAgeMs) {
    const outboxMs = retryHorizonMs(
      { ackTimeoutMs: drainer.leaseMs, maxAttempts: drainer.retry.maxAttempts },
      drainer.retry
    )
    const groupMs = retryHorizonMs(groups, groups.backoff)
    if (minAgeMs < outboxMs) {
      read.wrong(
        "RETENTION_MIN_AGE_MS",
        `must not be less than ${grouped(outboxMs)}: for so long an outbox record may be tried, and its event has to be recognised; raise it, or lower OUTBOX_MAX_ATTEMPTS, OUTBOX_LEASE_MS or OUTBOX_RETRY_MAX_MS`
      )
    }
    if (minAgeMs < groupMs) {
      read.wrong(
        "RETENTION_MIN_AGE_MS",
        `must not be less than ${grouped(groupMs)}: for so long a group may retry an event; raise it, or lower GROUP_MAX_ATTEMPTS, GROUP_ACK_TIMEOUT_MS or GROUP_RETRY_MAX_MS`
      )
    }
  }
  if (expireGroupMs !== undefined && expireGroupMs < 3 * intervalMs) {
    read.wrong(
      "GROUP_EXPIRE_MS",
      "must be at least three times RETENTION_INTERVAL_MS, since that is how often groups with members are marked as used"
    )
  }
  return { ...r, rules, minAgeMs, intervalMs, unusedGroupMs, expireGroupMs }
}

const readArchive = (read: Reader, limits: Defaults.Limits): Defaults.ArchiveSettings => {
  const { archive: a } = Defaults
  const archive: Defaults.ArchiveSettings = {
    maxLineBytes: read.int(
      "LIMIT_LINE_BYTES",
      "Bytes of one line of an import; an event with all there is about it.",
      [1_024, 64 * MiB],
      Math.max(a.maxLineBytes, 2 * limits.maxPayloadBytes)
    ),
    maxBadLines: read.int(
      "LIMIT_BAD_LINES",
      "Bad lines that an import names; the others are counted.",
      [0, 10_000],
      a.maxBadLines
    ),
    maxPublishEvents: read.int(
      "LIMIT_PUBLISH_EVENTS",
      "Events of one publish over HTTP; its body has at most LIMIT_FRAME_BYTES.",
      [1, 10_000],
      a.maxPublishEvents
    )
  }
  if (archive.maxLineBytes < limits.maxPayloadBytes) {
    read.wrong("LIMIT_LINE_BYTES", "must not be less than LIMIT_PAYLOAD_BYTES")
  }
  return archive
}

const readStanding = (read: Reader): Defaults.StandingSettings => {
  const { standing: s } = Defaults
  return {
    tickMs: read.int(
      "HUB_LIVE_MS",
      "The time between two events of the hub's own live topics, `$hub.…`; they are made while somebody listens.",
      [100, hour],
      s.tickMs
    ),
    refreshMs: read.int(
      "HUB_STANDING_MS",
      "The time between two looks at which groups are behind, however many ask.",
      [0, hour],
      s.refreshMs
    ),
    keepMs: read.int(
      "HUB_STANDING_KEEP_MS",
      "How long what was found is kept in memory when nobody looks.",
      [1_000, day],
      s.keepMs
    ),
    renewMs: read.int(
      "HUB_STANDING_RENEW_MS",
      "How often all of it is looked up anew while somebody looks, beside being told of changes; where hubs share a store.",
      [1_000, day],
      s.renewMs
    ),
    maxTopics: read.int(
      "LIMIT_STANDING_TOPICS",
      "Topics that are looked at for it; the log tells when there are more.",
      [1, 10_000_000],
      s.maxTopics
    ),
    growthTopics: read.int(
      "LIMIT_GROWTH_TOPICS",
      "Topics whose growth is measured; those that grew longest ago give way.",
      [1, 10_000_000],
      s.growthTopics
    )
  }
}

const readOps = (read: Reader): Defaults.OpsSettings => {
  const { ops: o } = Defaults
  return {
    maxConnections: read.int(
      "LIMIT_OPS_CONNECTIONS",
      "Connections to the ops server, and a tenth of them of one address; those that ask for nothing make room for others.",
      [1, 1_000_000],
      o.maxConnections
    ),
    headersTimeoutMs: read.int(
      "LIMIT_OPS_HEADERS_MS",
      "How long the head of a request to the ops server may take to come.",
      [100, hour],
      o.headersTimeoutMs
    ),
    bodyTimeoutMs: read.int(
      "LIMIT_OPS_BODY_MS",
      "How long its body may take to come; that of an import, how long it may stand still.",
      [100, hour],
      o.bodyTimeoutMs
    )
  }
}

export const readLimits = (read: Reader): HubLimits => {
  const { limits: l, gateway: g, groups: c, appender: a, drainer: d } = Defaults

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
    maxJsonDepth: read.int(
      "LIMIT_JSON_DEPTH",
      "Objects and arrays within each other, in a message or a body.",
      [8, 1_000],
      l.maxJsonDepth
    ),
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
    quotas: readQuotas(read)
  }
  const rateLimiter: Defaults.RateLimiterSettings = {
    maxBuckets: read.int(
      "LIMIT_BUCKETS",
      "Connections, subjects and topics whose rates are remembered; beyond, those that used least are forgotten.",
      [1_000, 10_000_000],
      Defaults.rateLimiter.maxBuckets
    )
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
    ),
    pauseAtEvents: read.int(
      "LIMIT_PAUSE_EVENTS",
      "Events that wait for the store when connections that publish are not read any more, until half of them are left.",
      [1, 10_000_000],
      g.pauseAtEvents
    ),
    pauseAtBytes: read.int(
      "LIMIT_PAUSE_BYTES",
      "Bytes of them; of those that came by connections.",
      [64 * 1024, 16_384 * MiB],
      g.pauseAtBytes
    ),
    maxAnonymousBytes: read.int(
      "LIMIT_ANONYMOUS_BYTES",
      "Bytes that connections whose AUTH is not accepted yet may have sent, together, beyond a token and 8 KiB of each.",
      [0, 16_384 * MiB],
      g.maxAnonymousBytes
    ),
    authDelayMs: read.int(
      "LIMIT_AUTH_DELAY_MS",
      "How much longer the answer to each further refused token from an address takes; 0: all are answered at once.",
      [0, 60_000],
      g.authDelayMs
    ),
    maxAuthDelayMs: read.int(
      "LIMIT_AUTH_DELAY_MAX_MS",
      "The longest such wait.",
      [0, hour],
      g.maxAuthDelayMs
    ),
    maxAuthAddresses: read.int(
      "LIMIT_AUTH_ADDRESSES",
      "Addresses whose refused tokens are remembered; beyond, those that were refused longest ago are forgotten.",
      [100, 10_000_000],
      g.maxAuthAddresses
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
      "Events of a topic that a group may have begun and not finished before it takes no new ones.",
      [16, 100_000],
      c.window
    ),
    cacheBytes: read.int(
      "GROUP_CACHE_BYTES",
      "Memory for events that may soon be delivered again, of all groups; 0 reads them from the log.",
      [0, 4_294_967_296],
      c.cacheBytes
    ),
    refreshMs: read.int(
      "GROUP_REFRESH_MS",
      "How often a hub looks for itself at what others did to its groups, beside being told; where hubs share a store.",
      [100, hour],
      c.refreshMs
    ),
    departMs: read.int(
      "GROUP_DEPART_MS",
      "How long a hub that stops tries to store what its members leave; others wait for the time-out of what it could not.",
      [0, 60_000],
      c.departMs
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
    limits,
    rateLimiter,
    gateway,
    groups,
    appender,
    drainer,
    retention: readRetention(read, drainer, groups),
    standing: readStanding(read),
    archive: readArchive(read, limits),
    ops: readOps(read)
  }
}
