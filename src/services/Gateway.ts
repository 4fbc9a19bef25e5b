/** The way in for clients: where it listens, who is connected, and how it is closed. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Claims } from "../domain/Claims.ts"

/** The port is taken, or this machine has no such address. */
export class CannotListen extends Schema.TaggedError<CannotListen>()("CannotListen", {
  host: Schema.String,
  port: Schema.Int,
  reason: Schema.String
}) {
  override get message() {
    return `cannot listen on ${this.host}:${this.port}: ${this.reason}`
  }
}

export interface ConnectionInfo {
  readonly id: string
  /** None before AUTH. */
  readonly sub: string | undefined
  readonly openedAt: number
  readonly subscriptions: number
  /** Bytes that wait for the client to read. */
  readonly outboundBytes: number
  /** Topics in which its live subscriptions are behind. */
  readonly behind: number
  /** Events that it was given, live and in groups. */
  readonly delivered: number
  /** Since when it takes no more events than it was given, because too much waits to be read; none: it does. */
  readonly slowSince: number | undefined
}

export class Gateway extends Context.Service<
  Gateway,
  {
    /** `ws://host:port`. */
    readonly url: string
    readonly connections: () => ReadonlyArray<ConnectionInfo>
    /** The claims of every connection that has said who it is. */
    readonly sessions: () => ReadonlyArray<Claims>
    /** It takes no new connections any more. */
    readonly isDraining: () => boolean
    /**
     * Takes no new connections, tells every client when to come back, waits a bounded time for answers that
     * are under way, and closes the connections. Calling it again does nothing.
     */
    readonly drain: Effect.Effect<void>
  }
>()("event-hub/services/Gateway") {}
