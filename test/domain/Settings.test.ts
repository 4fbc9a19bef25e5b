/** The defaults: the numbers that the protocol and the design promise, and that they fit one another. */
import { describe, expect, it } from "@effect/vitest"
import { retryHorizonMs } from "../../src/domain/Horizon.ts"
import { unlimited } from "../../src/domain/Quota.ts"
import * as Retry from "../../src/domain/Retry.ts"
import * as Settings from "../../src/domain/Settings.ts"

const { appender, auth, dedupe, drainer, gateway, groups, limits, retention } = Settings

describe("Settings", () => {
  it("hold what clients were promised", () => {
    expect(limits).toMatchObject({
      maxPayloadBytes: 262_144,
      maxFrameBytes: 1_048_576,
      maxMessagesPerFrame: 1_000,
      maxConnections: 10_000,
      maxCredit: 10_000,
      maxAckIds: 10_000
    })
    expect(groups).toMatchObject({
      credit: 100,
      ackTimeoutMs: 30_000,
      maxAttempts: 10,
      keyOrdered: false,
      window: 10_000
    })
    expect(gateway).toMatchObject({ authTimeoutMs: 10_000, heartbeatMs: 25_000, maxMissedPongs: 2 })
    expect(gateway).toMatchObject({ maxBadMessages: 10, badMessageWindowMs: 60_000 })
  })

  it("keep the first design's drainer, and its tolerance for clocks", () => {
    expect(drainer).toMatchObject({ batchSize: 100, leaseMs: 30_000, intervalMs: 250 })
    expect(auth.clockToleranceMs).toBe(5_000)
  })

  it("limit no rates until somebody says so", () => {
    expect(limits.quotas).toEqual(unlimited)
  })

  it("ask for secrets of 256 bits, as RFC 7518 does for HS256", () => {
    expect(Settings.minSecretBytes * 8).toBe(256)
  })

  it("leave room in a frame for the largest event", () => {
    const around = limits.maxHeadersLength + limits.maxTags * limits.maxNameLength + 5 * limits.maxNameLength
    // JSON writes a character as six bytes at most.
    expect(limits.maxPayloadBytes + 6 * around).toBeLessThan(limits.maxFrameBytes)
  })

  it("let a batch of the appender hold at least one of the largest events", () => {
    expect(appender.maxBatchBytes).toBeGreaterThanOrEqual(limits.maxPayloadBytes)
    expect(appender.maxQueuedEvents).toBeGreaterThan(appender.maxBatchEvents)
    // Publishers are held before any is refused, and half of what they are held at is more than one batch.
    expect(gateway.pauseAtEvents).toBeLessThan(appender.maxQueuedEvents)
    expect(gateway.pauseAtEvents / 2).toBeGreaterThanOrEqual(appender.maxBatchEvents)
    expect(gateway.pauseAtBytes / 2).toBeGreaterThan(appender.maxBatchBytes)
  })

  it("keep events for longer than any retry may take, so that a late one is recognised", () => {
    const { retry } = drainer
    const longest = Array.from({ length: retry.maxAttempts }, (_, i) => Retry.delayMs(retry, i + 1, 1))
    const horizon = longest.reduce((sum, delay) => sum + delay + drainer.leaseMs, 0)
    expect(horizon).toBeLessThan(retention.minAgeMs)
    expect(limits.maxAckTimeoutMs).toBeLessThan(retention.minAgeMs)
  })

  it("remember what was handled for longer than a group may bring it again", () => {
    expect(dedupe.keepMs).toBeGreaterThan(100 * retryHorizonMs(groups, groups.backoff))
    // What is handled elsewhere is asked about again before the run there could be taken over, and not all the time.
    expect(dedupe.maxDelayMs).toBeLessThan(dedupe.leaseMs)
  })

  it("let nothing go and remove no group by themselves", () => {
    expect(retention).toMatchObject({
      minAgeMs: 86_400_000,
      rules: [],
      intervalMs: 60_000,
      unusedGroupMs: 604_800_000,
      expireGroupMs: undefined
    })
  })

  it("let a member have its default credit and time-out, and the window hold more than one member's credit", () => {
    expect(groups.credit).toBeLessThanOrEqual(limits.maxCredit)
    expect(groups.ackTimeoutMs).toBeLessThanOrEqual(limits.maxAckTimeoutMs)
    expect(groups.window).toBeGreaterThan(groups.credit)
  })

  it("are whole and positive, but for the switches", () => {
    const numbers = [
      limits,
      gateway,
      groups,
      groups.backoff,
      appender,
      drainer,
      drainer.retry,
      auth,
      retention,
      dedupe
    ].flatMap((settings) => Object.entries(settings).filter(([, value]) => typeof value === "number"))
    expect(numbers.length).toBeGreaterThan(30)
    expect(numbers.filter(([, value]) => !Number.isSafeInteger(value) || Number(value) <= 0)).toEqual([])
  })
})
