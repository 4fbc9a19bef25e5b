/** Error and close codes are closed sets, and each close code tells a client what PROTOCOL.md says. */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  type AfterClose,
  afterClose,
  CloseCode,
  type ErrorCode,
  errorCodes,
  isRetryable
} from "../../src/protocol/Codes.ts"

/** The compiler wants every code here, and nothing else. */
const answers: Record<CloseCode, AfterClose> = {
  1000: "stop",
  // From a hub; a client that goes away itself does not ask.
  1001: "reconnect",
  1009: "stop",
  1012: "reconnect",
  1013: "reconnect",
  4001: "reconnect",
  4002: "reconnect",
  4101: "renew",
  4102: "renew",
  4103: "renew",
  4201: "wait",
  4202: "wait",
  4400: "stop",
  4401: "stop",
  4403: "stop"
}

const retryable: Record<ErrorCode, boolean> = {
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
}

const codes = Object.values(CloseCode)

describe("Codes", () => {
  it("hold the close codes of the table, each once", () => {
    expect(codes.map(String).toSorted()).toEqual(Object.keys(answers).toSorted())
  })

  it.each(codes)("say what a client does after %i", (code) => {
    expect(afterClose(code)).toBe(answers[code])
  })

  it("have a client come back after any code it does not know", () => {
    const known = new Set<number>(codes)
    fc.assert(
      fc.property(
        fc.integer({ min: 1000, max: 4999 }).filter((code) => !known.has(code)),
        (code) => {
          expect(afterClose(code)).toBe("reconnect")
        }
      )
    )
    expect(afterClose(1006)).toBe("reconnect")
  })

  it("may be sent by a server: none of them is reserved by RFC 6455, section 7.4", () => {
    const reserved = [1004, 1005, 1006, 1015]
    const isOpen = (code: number) =>
      (code >= 1000 && code < 1016 && !reserved.includes(code)) || (code >= 4000 && code < 5000)
    expect(codes.filter((code) => !isOpen(code))).toEqual([])
  })

  it("hold the error codes of the table, each once, and say which of them may pass later", () => {
    expect(errorCodes.toSorted()).toEqual(Object.keys(retryable).toSorted())
    expect(Object.fromEntries(errorCodes.map((code) => [code, isRetryable(code)]))).toEqual(retryable)
  })
})
