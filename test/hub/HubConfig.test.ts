/** The environment as a configuration: defaults, everything that is wrong at once, nothing unknown. */
import { readFileSync } from "node:fs"
import { Redacted, Result } from "effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { retryHorizonMs } from "../../src/domain/Horizon.ts"
import * as Retention from "../../src/domain/Retention.ts"
import * as Settings from "../../src/domain/Settings.ts"
import type { Problem } from "../../src/hub/environment.ts"
import * as HubConfig from "../../src/hub/HubConfig.ts"

type Env = Readonly<Record<string, string>>

const settingsOf = (env: Env): HubConfig.HubSettings => Result.getOrThrow(HubConfig.read(env)).settings
const warningsOf = (env: Env): ReadonlyArray<string> => Result.getOrThrow(HubConfig.read(env)).warnings
const problemsOf = (env: Env): ReadonlyArray<Problem> =>
  Result.match(HubConfig.read(env), { onFailure: (problems) => problems, onSuccess: () => [] })
const namesOf = (env: Env): ReadonlyArray<string> => problemsOf(env).map(({ name }) => name)

const secret = "s".repeat(32)

describe("an empty environment", () => {
  it("gives the defaults of domain/Settings", () => {
    expect(settingsOf({})).toEqual({
      store: { _tag: "Sqlite", path: "./data/hub.db" },
      mongo: Settings.mongo,
      host: "127.0.0.1",
      wsPort: 8090,
      opsPort: 8082,
      origins: undefined,
      auth: { _tag: "Random" },
      audience: undefined,
      issuer: undefined,
      tokens: Settings.auth,
      jwks: Settings.jwks,
      revocations: Settings.revocations,
      policy: undefined,
      files: Settings.files,
      tls: undefined,
      trustProxy: false,
      log: "pretty",
      limits: Settings.limits,
      rateLimiter: Settings.rateLimiter,
      gateway: Settings.gateway,
      groups: Settings.groups,
      appender: Settings.appender,
      drainer: Settings.drainer,
      retention: Settings.retention,
      standing: Settings.standing,
      archive: Settings.archive,
      ops: Settings.ops,
      outboxSources: []
    })
  })

  it("is the same as one of empty values", () => {
    const empty = Object.fromEntries(HubConfig.variables().map(({ name }) => [name, " "]))
    expect(settingsOf(empty)).toEqual(settingsOf({}))
    expect(warningsOf({ ...empty, HUB_TYPO: "" })).toEqual([])
  })
})

describe("HUB_STORE", () => {
  it.each([
    ["memory:", { _tag: "Memory" }],
    ["sqlite:x.db", { _tag: "Sqlite", path: "x.db" }],
    ["sqlite:/a b/x.db", { _tag: "Sqlite", path: "/a b/x.db" }]
  ])("takes %s", (text, store) => {
    expect(settingsOf({ HUB_STORE: text }).store).toEqual(store)
  })

  it.each(["sqlite:", "sqlite::memory:", "memory", "x.db", "mongodb://h/d", "mongodb+srv://h/d"])(
    "refuses %s",
    (text) => {
      expect(namesOf({ HUB_STORE: text })).toEqual(["HUB_STORE"])
    }
  )

  it("wins over MONGO_URL, which alone makes the hub one of many over a MongoDB", () => {
    expect(settingsOf({ HUB_STORE: "memory:", MONGO_URL: "mongodb://h/d" }).store).toEqual({ _tag: "Memory" })
    for (const url of ["mongodb://h/d", "mongodb+srv://u:p@h/d?w=1", "mongodb://a,b:27018/?replicaSet=r"]) {
      const { store } = settingsOf({ MONGO_URL: url })
      expect(store).toMatchObject({ _tag: "Mongo" })
      expect(store._tag === "Mongo" && Redacted.value(store.url)).toBe(url)
      expect(JSON.stringify(store)).not.toContain("//")
    }
    for (const url of ["mongodb://", "mongo://h", "h:27017"]) {
      expect(namesOf({ MONGO_URL: url })).toEqual(["MONGO_URL"])
    }
  })
})

describe("who may come in", () => {
  it("a secret has 32 bytes or more, counted as UTF-8", () => {
    expect(namesOf({ JWT_SECRET: "s".repeat(31) })).toEqual(["JWT_SECRET"])
    expect(namesOf({ JWT_SECRET: "é".repeat(16) })).toEqual([])
    const { auth } = settingsOf({ JWT_SECRET: secret })
    expect(auth).toMatchObject({ _tag: "Keys", keys: { _tag: "Secrets" } })
    expect(JSON.stringify(auth)).not.toContain(secret)
  })

  it("secrets that were before verify as well, and are of no use alone", () => {
    const older = ["o".repeat(32), "p".repeat(64)]
    const { auth } = settingsOf({ JWT_SECRET: secret, JWT_PREVIOUS_SECRETS: older.join("\n ") })
    const keys = auth._tag === "Keys" ? auth.keys : undefined
    expect(keys?._tag === "Secrets" && keys.secrets.map(Redacted.value)).toEqual([secret, ...older])
    expect(JSON.stringify(auth)).not.toContain(older[0])
    expect(namesOf({ JWT_PREVIOUS_SECRETS: older[0]! })).toEqual(["JWT_PREVIOUS_SECRETS"])
    expect(problemsOf({ JWT_SECRET: secret, JWT_PREVIOUS_SECRETS: `${older[0]} short` })).toEqual([
      {
        name: "JWT_PREVIOUS_SECRETS",
        problem: "number 2 must have at least 32 bytes (RFC 7518, section 3.2), it has 5"
      }
    ])
  })

  it("the keys of an issuer win over JWT_SECRET, and say so", () => {
    for (const [env, keys] of [
      [
        { JWT_JWKS_URL: "https://issuer.example/keys" },
        { _tag: "JwksUrl", url: new URL("https://issuer.example/keys") }
      ],
      [{ JWT_JWKS_FILE: "/etc/keys.json" }, { _tag: "JwksFile", path: "/etc/keys.json" }]
    ] as const) {
      expect(settingsOf({ ...env, JWT_SECRET: secret }).auth).toEqual({ _tag: "Keys", keys })
      expect(warningsOf({ ...env, JWT_AUD: "hub", JWT_SECRET: secret })).toEqual([
        "JWT_SECRET has no effect: the keys of the issuer win"
      ])
      expect(warningsOf(env)).toEqual([expect.stringMatching(/meant for another service: set JWT_AUD$/)])
    }
    expect(namesOf({ JWT_JWKS_URL: "https://issuer.example/keys", JWT_JWKS_FILE: "keys.json" })).toEqual([
      "JWT_JWKS_FILE"
    ])
  })

  it("a certificate and its key come together", () => {
    expect(namesOf({ TLS_CERT: "cert.pem" })).toEqual(["TLS_CERT"])
    expect(namesOf({ TLS_KEY: "key.pem" })).toEqual(["TLS_KEY"])
    expect(settingsOf({ TLS_CERT: "cert.pem", TLS_KEY: "key.pem" }).tls).toEqual({
      certificate: "cert.pem",
      key: "key.pem"
    })
  })

  it("a hub that others can reach without TLS says what to do", () => {
    const open = { HUB_HOST: "0.0.0.0", JWT_SECRET: secret }
    expect(warningsOf(open)).toEqual([expect.stringMatching(/set TLS_CERT and TLS_KEY, or TRUST_PROXY=true/)])
    expect(warningsOf({ ...open, TRUST_PROXY: "true" })).toEqual([])
    expect(warningsOf({ ...open, TLS_CERT: "c", TLS_KEY: "k" })).toEqual([])
    expect(namesOf({ TRUST_PROXY: "yes" })).toEqual(["TRUST_PROXY"])
  })

  it("types of tokens are a list", () => {
    expect(settingsOf({ JWT_TYP: "at+jwt, JWT" }).tokens.types).toEqual(["at+jwt", "JWT"])
    expect(namesOf({ JWT_TYP: "a b" })).toEqual(["JWT_TYP"])
  })

  it("keys come over TLS, or from this machine", () => {
    expect(namesOf({ JWT_JWKS_URL: "http://issuer.example/keys" })).toEqual(["JWT_JWKS_URL"])
    expect(namesOf({ JWT_JWKS_URL: "keys" })).toEqual(["JWT_JWKS_URL"])
    expect(namesOf({ JWT_JWKS_URL: "https://user:word@issuer.example/keys" })).toEqual(["JWT_JWKS_URL"])
    expect(namesOf({ JWT_JWKS_URL: "http://127.0.0.1:1/keys" })).toEqual([])
  })

  it("STATIC_TOKEN stands beside the keys", () => {
    const token = "0123456789abcdef"
    const { auth } = settingsOf({ STATIC_TOKEN: token, JWT_SECRET: secret })
    expect(auth._tag === "Static" && [Redacted.value(auth.token), auth.keys?._tag]).toEqual([
      token,
      "Secrets"
    ])
  })

  it("STATIC_TOKEN is none that can be guessed, and who sets one is told how to make it", () => {
    expect(problemsOf({ STATIC_TOKEN: "0123456789abcde" })).toMatchObject([
      {
        name: "STATIC_TOKEN",
        problem: expect.stringMatching(/at least 16 bytes, it has 15.*openssl rand -hex 16/)
      }
    ])
    expect(namesOf({ STATIC_TOKEN: "€".repeat(6) })).toEqual([])
  })

  it.each(["0.0.0.0", "::", "192.168.1.7", "hub.example", "128.0.0.1", "127.0.0.1.example"])(
    "nobody configured means nobody from outside: %s is refused",
    (host) => {
      expect(namesOf({ HUB_HOST: host })).toEqual(["HUB_HOST"])
      expect(namesOf({ HUB_HOST: host, JWT_SECRET: secret })).toEqual([])
    }
  )

  it.each(["127.0.0.1", "127.1.2.3", "::1", "localhost"])("%s is loopback", (host) => {
    expect(settingsOf({ HUB_HOST: host }).host).toBe(host)
  })

  it.each(["http://x", "a b", "x/y", "user@x"])("%s is no host", (host) => {
    expect(namesOf({ HUB_HOST: host, JWT_SECRET: secret })).toEqual(["HUB_HOST"])
  })

  it("HUB_ORIGINS is a list of origins, and nothing more than origins", () => {
    expect(settingsOf({ HUB_ORIGINS: "https://a.example, http://b.example:8080" }).origins).toEqual([
      "https://a.example",
      "http://b.example:8080"
    ])
    for (const bad of ["a.example", "https://a.example/", "https://a.example/x", "*"]) {
      expect(namesOf({ HUB_ORIGINS: bad })).toEqual(["HUB_ORIGINS"])
    }
  })
})

describe("numbers", () => {
  it.each(["-1", "1.5", "1e3", "0x10", "ten", "9".repeat(16), "NaN", "Infinity"])("%s is no port", (text) => {
    expect(namesOf({ WS_PORT: text })).toEqual(["WS_PORT"])
  })

  it("two servers cannot share a port, unless both ask for a free one", () => {
    expect(namesOf({ WS_PORT: "9000", OPS_PORT: "9000" })).toEqual(["OPS_PORT"])
    expect(namesOf({ WS_PORT: "0", OPS_PORT: "0" })).toEqual([])
  })

  it("limits that contradict each other are refused", () => {
    expect(namesOf({ LIMIT_FRAME_BYTES: "2000", LIMIT_PAYLOAD_BYTES: "4000" })).toEqual(["LIMIT_FRAME_BYTES"])
    expect(namesOf({ GROUP_CREDIT: "20", LIMIT_CREDIT: "10" })).toEqual(["GROUP_CREDIT"])
    expect(namesOf({ LIMIT_MESSAGES_BURST: "10" })).toEqual(["LIMIT_MESSAGES_BURST"])
  })

  it("quotas of subjects and topics are read, and what is wrong in them is named", () => {
    const { limits, rateLimiter } = settingsOf({
      LIMIT_SUBJECT_MESSAGES_PER_SECOND: "7",
      LIMIT_SUBJECT_BYTES_PER_SECOND: "8",
      LIMIT_TOPICS: "orders.**: 500/s burst=1000; logs.*: 1MB/s shared",
      LIMIT_BUCKETS: "2000"
    })
    expect(limits.quotas.subject).toEqual({
      messages: { perSecond: 7, burst: 7 },
      bytes: { perSecond: 8, burst: 8 }
    })
    expect(limits.quotas.topics).toMatchObject([
      { events: { perSecond: 500, burst: 1_000 }, shared: false },
      { bytes: { perSecond: 1_000_000, burst: 1_000_000 }, shared: true }
    ])
    expect(rateLimiter).toEqual({ maxBuckets: 2_000 })
    expect(problemsOf({ LIMIT_TOPICS: "orders.**" })).toEqual([
      {
        name: "LIMIT_TOPICS",
        problem: "rule 1 (character 1): 'orders.**' ends in no ':'; write a rule as '<pattern>: <rates>'"
      }
    ])
    expect(namesOf({ LIMIT_SUBJECT_BYTES_BURST: "9" })).toEqual(["LIMIT_SUBJECT_BYTES_BURST"])
  })

  it("a rate has its burst from the rate, unless that is set", () => {
    expect(settingsOf({ LIMIT_MESSAGES_PER_SECOND: "5" }).limits.quotas.connection.messages).toEqual({
      perSecond: 5,
      burst: 5
    })
    expect(
      settingsOf({ LIMIT_BYTES_PER_SECOND: "5", LIMIT_BYTES_BURST: "9" }).limits.quotas.connection.bytes
    ).toEqual({
      perSecond: 5,
      burst: 9
    })
  })
})

describe("retention", () => {
  const messageOf = (env: Env): string => HubConfig.formatProblems(problemsOf(env))
  /** The shortest retries there are. */
  const hasty = {
    OUTBOX_MAX_ATTEMPTS: "1",
    OUTBOX_LEASE_MS: "1000",
    GROUP_MAX_ATTEMPTS: "1",
    GROUP_ACK_TIMEOUT_MS: "100"
  }

  it("is read", () => {
    const { retention } = settingsOf({
      RETENTION: "orders.**: age=7d; **: age=90d",
      RETENTION_INTERVAL_MS: "5000",
      GROUP_UNUSED_MS: "1000",
      GROUP_EXPIRE_MS: "15000"
    })
    expect(retention).toEqual({
      ...Settings.retention,
      rules: Result.getOrThrow(Retention.parseRules("orders.**: age=7d; **: age=90d")),
      intervalMs: 5_000,
      unusedGroupMs: 1_000,
      expireGroupMs: 15_000
    })
  })

  it("that is wrong stops the start, and the line says where and what to do", () => {
    expect(messageOf({ RETENTION: "a: age=7d; b: count=many" })).toBe(
      "the configuration is wrong: RETENTION rule 2 (character 21): 'many' is no count; write a whole number from 1 on, such as 1000"
    )
  })

  it("lets nothing go before the least age, which can be lowered", () => {
    const message = messageOf({ RETENTION: "a: age=7d; b: age=23h" })
    expect(message).toContain("RETENTION 'b: age=23h' would trim events younger than 1d; ")
    expect(message).toContain("lower RETENTION_MIN_AGE_MS")
    expect(namesOf({ RETENTION: "a: age=24h" })).toEqual([])
    expect(namesOf({ RETENTION: "a: age=23h", RETENTION_MIN_AGE_MS: "82800000" })).toEqual([])
    expect(namesOf({ RETENTION: "a: count=1", RETENTION_MIN_AGE_MS: "1000", ...hasty })).toEqual([])
  })

  it("lets nothing go as long as the outbox or a group may try again", () => {
    const { drainer, groups } = Settings
    const outboxMs = retryHorizonMs(
      { ackTimeoutMs: drainer.leaseMs, maxAttempts: drainer.retry.maxAttempts },
      drainer.retry
    )
    expect(namesOf({ RETENTION_MIN_AGE_MS: `${outboxMs}` })).toEqual([])
    const early = messageOf({ RETENTION_MIN_AGE_MS: `${outboxMs - 1}` })
    expect(early).toContain("RETENTION_MIN_AGE_MS must not be less than 3,811,500")
    expect(early).toContain("OUTBOX_MAX_ATTEMPTS")

    const groupMs = retryHorizonMs(groups, groups.backoff)
    const fast = { OUTBOX_MAX_ATTEMPTS: "1" }
    expect(namesOf({ ...fast, RETENTION_MIN_AGE_MS: `${groupMs}` })).toEqual([])
    expect(messageOf({ ...fast, RETENTION_MIN_AGE_MS: `${groupMs - 1}` })).toContain("GROUP_MAX_ATTEMPTS")

    // What may be tried for longer than a day asks for more than the default, where anything goes at all.
    const slow = { OUTBOX_MAX_ATTEMPTS: "1000" }
    expect(namesOf(slow)).toEqual([])
    expect(namesOf({ ...slow, RETENTION: "a: age=90d" })).toEqual(["RETENTION_MIN_AGE_MS"])
    expect(namesOf({ ...slow, RETENTION: "a: age=90d", RETENTION_MIN_AGE_MS: "864000000" })).toEqual([])
  })

  it("does not let groups expire between two looks at who is there", () => {
    expect(namesOf({ GROUP_EXPIRE_MS: "180000" })).toEqual([])
    expect(namesOf({ GROUP_EXPIRE_MS: "179999" })).toEqual(["GROUP_EXPIRE_MS"])
  })
})

describe("names", () => {
  it("that look like settings and are none stop the start", () => {
    expect(namesOf({ HUB_PROT: "1", JWT_SECERT: "x" })).toEqual(["HUB_PROT", "JWT_SECERT"])
  })

  it("that others may use are only warned about", () => {
    expect(warningsOf({ OUTBOX_URL: "x", GROUP_ID: "7", LIMIT_FOO: "1", RETENTION_DAYS: "7" })).toHaveLength(
      4
    )
  })

  it("that Kubernetes injects, and those of the other verbs, are let through", () => {
    expect(
      warningsOf({
        HUB_SERVICE_HOST: "10.0.0.1",
        HUB_PORT: "tcp://x",
        HUB_PORT_80_TCP_ADDR: "10.0.0.1",
        HUB_URL: "ws://x",
        HUB_OPS_URL: "http://x",
        HUB_TOKEN: "x",
        PATH: "/bin",
        JWTISH: "x"
      })
    ).toEqual([])
  })
})

it("whatever the environment holds, reading it ends, and names each wrong variable once, in one line", () => {
  const name = fc.constantFrom(
    ...HubConfig.variables().map((variable) => variable.name),
    "HUB_X",
    "JWT_Y",
    "LIMIT_Z"
  )
  const value = fc.oneof(
    fc.string(),
    fc.constantFrom(
      "0",
      "1",
      "memory:",
      "sqlite:x",
      "a: age=1d",
      "a: age=1ms; b: count=",
      "pretty",
      "0.0.0.0",
      secret,
      "https://a.example"
    )
  )
  fc.assert(
    fc.property(fc.dictionary(name, value, { noNullPrototype: true }), (env) => {
      const problems = problemsOf(env)
      for (const problem of problems)
        expect(
          Object.keys({
            ...env,
            HUB_HOST: 1,
            OPS_PORT: 1,
            LIMIT_FRAME_BYTES: 1,
            GROUP_CREDIT: 1,
            GROUP_ACK_TIMEOUT_MS: 1,
            JWT_JWKS_STALE_MS: 1,
            RETENTION_MIN_AGE_MS: 1
          })
        ).toContain(problem.name)
      expect(HubConfig.formatProblems(problems)).not.toContain("\n")
    })
  )
})

it("docs/configuration.md names every variable with its default", () => {
  const text = readFileSync(new URL("../../docs/configuration.md", import.meta.url), "utf8").replaceAll(
    / +/g,
    " "
  )
  for (const { about, fallback, name } of HubConfig.variables()) {
    expect(text).toContain(`| \`${name}\` | ${fallback} | ${about} |`)
  }
})
