/**
 * The messages of the wire protocol, version 1, as types.
 *
 * A frame is a WebSocket text frame that holds one message, or an array of up to 1,000 of them.
 * These types are what is left after `Decode.ts` has checked a frame: nothing in them is unchecked but the
 * grammar of topics and patterns, which has an error code of its own.
 */
import type { ErrorCode } from "./Codes.ts"

/** Chosen by the client, echoed in the one `OK` or `ERR` that answers it. */
export type Ref = string | number

export interface PublishOptions {
  /** Unique per topic; the same id again is answered with the first result. Made by the hub when it is absent. */
  readonly id?: string
  readonly type?: string
  /** Orders events in `keyOrdered` groups, and names the value in latest-by-key. */
  readonly key?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly tags?: ReadonlyArray<string>
  readonly caused_by?: string
  readonly sid?: string
  /** The publisher's time in milliseconds since 1970, for information. The hub's time when it is absent. */
  readonly ts?: number
}

/** Where a subscription begins. */
export type From =
  | "new"
  | "start"
  /** The first event to come is `after + 1`. A concrete topic only. */
  | { readonly after: number }
  /** The first event stored at or after this time (milliseconds since 1970). */
  | { readonly time: number }
  /** The seq last seen per topic; topics that are not listed begin as `rest` says. */
  | { readonly topics: Readonly<Record<string, number>>; readonly rest?: "start" | "new" }

export interface LiveOptions {
  readonly from?: From
  /** The history that the positions in `from` belong to. */
  readonly history?: string
  /** What becomes of a reader that is too slow: read on from the store, or be closed with 4002. */
  readonly overflow?: "catchup" | "close"
}

export interface GroupOptions {
  readonly from?: From
  readonly history?: string
  /** How many unacknowledged events this member takes at once, over all topics of the subscription. */
  readonly credit?: number
  readonly ackTimeoutMs?: number
  readonly maxAttempts?: number
  readonly keyOrdered?: boolean
}

export interface Auth {
  readonly op: "AUTH"
  readonly ref?: Ref
  readonly token: string
}

export interface Publish {
  readonly op: "PUBLISH"
  readonly ref?: Ref
  readonly topic: string
  readonly payload: unknown
  readonly opts?: PublishOptions
}

export interface Subscribe {
  readonly op: "SUBSCRIBE"
  readonly ref?: Ref
  /** A pattern. */
  readonly topic: string
  readonly group?: string
  readonly opts?: LiveOptions & GroupOptions
}

export interface Unsubscribe {
  readonly op: "UNSUBSCRIBE"
  readonly ref?: Ref
  readonly topic: string
  readonly group?: string
}

export interface Ack {
  readonly op: "ACK"
  readonly ref?: Ref
  /** The concrete topic of the events. */
  readonly topic: string
  readonly group: string
  readonly ids: ReadonlyArray<string>
  readonly attempt?: number
}

/** `fail` counts an attempt and backs off, `release` does not count, `poison` goes to the dead letters at once. */
export type NackMode = "fail" | "release" | "poison"

export interface Nack {
  readonly op: "NACK"
  readonly ref?: Ref
  readonly topic: string
  readonly group: string
  readonly id: string
  readonly attempt?: number
  readonly reason?: string
  readonly mode?: NackMode
  /** Takes the place of the back-off. */
  readonly delayMs?: number
}

export interface Extend {
  readonly op: "EXTEND"
  readonly ref?: Ref
  readonly topic: string
  readonly group: string
  readonly id: string
  readonly attempt?: number
  readonly byMs?: number
}

export interface Ping {
  readonly op: "PING"
  readonly ref?: Ref
}

export type ClientMessage = Auth | Publish | Subscribe | Unsubscribe | Ack | Nack | Extend | Ping

/** An event as it goes over the wire. */
export interface WireEvent<P = unknown> {
  readonly id: string
  readonly topic: string
  /** 1, 2, 3, … without a hole within its topic. */
  readonly seq: number
  /** The publisher's time in milliseconds since 1970, for information. */
  readonly ts: number
  /** The hub's time; it never decreases within a topic. */
  readonly storedAt: number
  readonly payload: P
  readonly type?: string
  readonly key?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly tags?: ReadonlyArray<string>
  readonly caused_by?: string
  readonly sid?: string
}

/** How a group's event came: which delivery of it this is, and until when it has to be answered. */
export interface DeliveryContext {
  /** 1 for the first delivery. */
  readonly attempt: number
  readonly redelivered: boolean
  /** Milliseconds since 1970, the hub's clock. */
  readonly deadline: number
}

/** What the hub allows on a connection; part of the answer to AUTH. */
export interface ConnectionLimits {
  readonly maxFrameBytes: number
  readonly maxPayloadBytes: number
  readonly maxMessagesPerFrame: number
  readonly maxSubscriptions: number
  readonly maxCredit: number
  readonly maxAckIds: number
}

export interface Ok {
  readonly op: "OK"
  readonly ref?: Ref
  /** The fields that the request's row in PROTOCOL.md names. */
  readonly [field: string]: unknown
}

export interface Err {
  readonly op: "ERR"
  readonly ref?: Ref
  readonly code: ErrorCode
  readonly msg: string
  readonly retryable: boolean
  readonly retryAfterMs?: number
  /** The policy rule that decided, for those who may know it. */
  readonly rule?: string
}

export interface EventMessage<P = unknown> {
  readonly op: "EVENT"
  /** The pattern as it was subscribed. */
  readonly sub: string
  readonly topic: string
  readonly group?: string
  readonly event: WireEvent<P>
  readonly ctx?: DeliveryContext
}

/** These positions, both included, will not come. */
export interface Gap {
  readonly op: "GAP"
  readonly sub: string
  readonly topic: string
  readonly group?: string
  readonly from: number
  readonly to: number
  readonly reason: "trimmed"
}

/** Why the hub ended a subscription. */
export type EndReason = "revoked" | "removed" | "history_changed" | "unavailable"

export interface End {
  readonly op: "END"
  readonly sub: string
  readonly group?: string
  readonly reason: EndReason
}

/** The hub closes soon. Each client gets its own slot. */
export interface Drain {
  readonly op: "DRAIN"
  readonly retryAfterMs: number
}

/** The token of the connection expires soon: time for an AUTH with a newer one. Once for each token. */
export interface Expiring {
  readonly op: "EXPIRING"
  /** Milliseconds since 1970, as in the answer to AUTH. */
  readonly expiresAt: number
  /** The hub closes the connection after this long, unless a newer token comes. */
  readonly closesInMs: number
}

export type HubMessage = Ok | Err | EventMessage | Gap | End | Drain | Expiring
