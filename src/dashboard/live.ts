/**
 * What comes by itself: the connection to the gateway, its subscriptions, and the figures that the hub tells once
 * a second. Nothing is polled.
 */
import type { Client } from "../client/Client.ts"
import type { WireEvent } from "../protocol/Messages.ts"
import { say } from "./dialog.ts"
import { hubNow } from "./dom.ts"

interface Latency {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

/** `$hub.stats`; `null` is what nobody knows at the moment. */
export interface Stats {
  readonly at: number
  readonly hub: string
  readonly startedAt: number
  readonly ready: boolean
  readonly connections: number
  readonly outboundBytes: number
  readonly totals: Readonly<Record<string, number>>
  readonly latency: {
    /** From the frame of a publish to its answer. */
    readonly publish: Latency | null
    readonly commit: Latency | null
    readonly delivery: Latency | null
  }
  readonly outbox: {
    readonly pending: number
    readonly dead: number
    readonly oldestAgeMs: number
    readonly paused: boolean
  } | null
  readonly pending: number | null
  readonly topics: number | null
  readonly groups: number | null
  readonly loopDelayMs: number | null
  readonly rssBytes: number | null
}

/** `$hub.topic.<topic>`. */
export interface TopicTick {
  readonly topic: string
  readonly head: number
  readonly floor: number
  readonly storedAt: number
  readonly eventsPerSecond: number
}

/** `$hub.group.<group>.<topic>`. */
export interface GroupTick {
  readonly group: string
  readonly topic: string
  readonly seq: number
  readonly head: number
  readonly pending: number
  readonly inFlight: number
  readonly lagMs: number
}

/** Where the gateway is: on the host that the page came from, at the port that it names. */
export const gatewayUrl = (): string => {
  const port = document.querySelector<HTMLMetaElement>('meta[name="event-hub-ws-port"]')?.content ?? ""
  const url = new URL(location.href)
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:"
  url.port = port
  url.pathname = "/"
  url.search = url.hash = ""
  return url.href
}

let client: Client | undefined

/** Subscriptions that leave: a pattern has one at a time. */
const leaving = new Map<string, Promise<unknown>>()

interface FollowOptions {
  readonly from?: { readonly after: number }
  readonly history?: string
}

/**
 * Hands over what comes until it is aborted. Nobody waits for it: where the gateway cannot be reached the page stays
 * as it was loaded. What the hub refuses or ends is said.
 */
export const follow = <T>(
  pattern: string,
  signal: AbortSignal,
  handle: (payload: T, event: WireEvent) => void,
  options: FollowOptions = {}
): void => {
  const fail = (error: unknown) => {
    if (!signal.aborted)
      say(`${pattern} is not live: ${error instanceof Error ? error.message : String(error)}`)
  }
  const begin = (now: Client) => {
    const subscription = now.subscribe(
      pattern,
      // The hub makes what is in its own topics.
      (event: WireEvent) => handle(event.payload as T, event),
      { ...options, onEnd: fail, onGap: () => {} }
    )
    signal.addEventListener("abort", () => {
      const left = subscription.unsubscribe().catch(() => {})
      leaving.set(pattern, left)
      void left.then(() => leaving.delete(pattern))
    })
    subscription.ready.catch(fail)
  }
  void Promise.resolve(leaving.get(pattern)).then(() => {
    if (!signal.aborted && client !== undefined) begin(client)
  })
}

// --- once a second -------------------------------------------------------------------------------------------

/** What charts show. */
const windowMs = 5 * 60_000

let samples: Array<Stats> = []
let watchers = new Set<(stats: Stats) => void>()

/** Of the last five minutes, the oldest first. */
export const recent = (): ReadonlyArray<Stats> => samples

/** Tells the last figures at once, and all that follow. */
export const onStats = (signal: AbortSignal, watch: (stats: Stats) => void): void => {
  const last = samples.at(-1)
  if (last !== undefined) watch(last)
  watchers.add(watch)
  signal.addEventListener("abort", () => watchers.delete(watch))
}

/** From here on, with this client; `mayFollow` says whether it has the right to the figures. */
export const begin = (now: Client, signal: AbortSignal, mayFollow: Promise<boolean>): void => {
  client = now
  samples = []
  watchers = new Set()
  const take = (stats: Stats) => {
    // Counters of another process begin anew.
    if (samples.at(-1)?.startedAt !== stats.startedAt) samples = []
    samples.push(stats)
    while ((samples[0]?.at ?? Infinity) < stats.at - windowMs) samples.shift()
    for (const watch of watchers) watch(stats)
  }
  void mayFollow.then((may) => {
    if (may) follow<Stats>("$hub.stats", signal, take)
  })
}

/** Calls once for many calls: after `ms`, and not more often. */
export const throttled = (ms: number, signal: AbortSignal, run: () => unknown): (() => void) => {
  let timer: ReturnType<typeof setTimeout> | undefined
  signal.addEventListener("abort", () => clearTimeout(timer))
  return () => {
    timer ??= setTimeout(() => {
      timer = undefined
      if (!signal.aborted) void run()
    }, ms)
  }
}

/** When something began that lasts so long. */
export const since = (ms: number): number | undefined => (ms > 0 ? hubNow() - ms : undefined)
