/**
 * Every error code and close code of the wire protocol, in one place.
 *
 * Both are closed unions: a client can switch over them and the compiler says when one is missing.
 * An error code says what was wrong with one message; a close code says what to do after the connection ended.
 */

/** The subprotocol of version 1. A client that offers it gets arrays of messages in one frame. */
export const SUBPROTOCOL = "event-hub.v1"

/**
 * What each error code means for whoever sent the message. `true`: the same message may succeed when it is
 * sent again later; `false`: it will be refused again until something about it changes.
 */
const retryable = {
  bad_request: false,
  no_token: false,
  jwt_invalid: false,
  token_expired: false,
  forbidden: false,
  invalid_topic: false,
  invalid_pattern: false,
  payload_too_large: false,
  rate_limited: true,
  too_many_subscriptions: false,
  already_subscribed: false,
  not_subscribed: false,
  group_conflict: false,
  unrecoverable_position: false,
  unavailable: true,
  internal: true
} as const

export type ErrorCode = keyof typeof retryable

// Pure, so that a bundle of the client leaves it and the table out.
export const errorCodes: ReadonlyArray<ErrorCode> = /* @__PURE__ */ Object.keys(retryable) as Array<ErrorCode>

export const isRetryable = (code: ErrorCode): boolean => retryable[code]

/** Numbers below 4000 are those of RFC 6455, section 7.4.1, and the IANA registry it opened. */
export const CloseCode = {
  normal: 1000,
  goingAway: 1001,
  frameTooBig: 1009,
  restart: 1012,
  overloaded: 1013,
  heartbeatLost: 4001,
  slowConsumer: 4002,
  tokenExpired: 4101,
  revoked: 4102,
  authTimeout: 4103,
  rateLimited: 4201,
  tooManyConnections: 4202,
  badFrames: 4400,
  tokenRefused: 4401,
  originRefused: 4403
} as const

export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode]

/** What a client does after a close. */
export type AfterClose =
  /** Open a new connection after the back-off, and take up every subscription where it stood. */
  | "reconnect"
  /** Get a new token first; stop if it is the same as the one that was refused. */
  | "renew"
  /** Wait as long as the hub said, then reconnect. */
  | "wait"
  /** Do not come back by itself: a person has to change something. */
  | "stop"

/** By number, and not by the names above, which every page would have to load with its client. */
const after: { readonly [Code in CloseCode]?: AfterClose } = {
  // Normal; a frame that was too big, and ten that were bad; a token and an origin that were refused.
  1000: "stop",
  1009: "stop",
  4400: "stop",
  4401: "stop",
  4403: "stop",
  // The token expired or was revoked, or came too late.
  4101: "renew",
  4102: "renew",
  4103: "renew",
  // Too much was sent, or there are too many connections.
  4201: "wait",
  4202: "wait"
}

/**
 * What the number says. Codes that this version does not know are those of a network that failed (1006 above
 * all) or of a newer hub: both are answered by a reconnect with back-off.
 */
export const afterClose = (code: number): AfterClose => after[code as CloseCode] ?? "reconnect"
