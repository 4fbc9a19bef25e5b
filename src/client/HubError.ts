/** What can go wrong for a client, with a code to switch over. */
import type { ErrorCode } from "../protocol/Codes.ts"
import type { Issue } from "./topics.ts"

/** The hub's codes, and those of the client itself. */
export type ClientErrorCode =
  | ErrorCode
  /** No answer in time. A publish may still have happened: give it an id, and repeat it with the same. */
  | "timeout"
  /** The client was closed, or the hub closed it for good. */
  | "closed"
  /** Too much waits to be sent while there is no connection. */
  | "queue_full"
  /** The delivery was answered before, or is not this client's any more: its event may come again. */
  | "stale"
  /** Events that were asked for are not retained any more, and nobody took the gap. */
  | "gap"

export class HubError extends Error {
  override readonly name = "HubError"
  readonly code: ClientErrorCode
  /** The same may succeed later. */
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined

  constructor(code: ClientErrorCode, message: string, retryable = false, retryAfterMs?: number) {
    super(message)
    this.code = code
    this.retryable = retryable
    this.retryAfterMs = retryAfterMs
  }
}

const inWords = ({ message, path = [] }: Issue): string =>
  [...path.map((step) => String(typeof step === "object" ? step.key : step)), message].join(": ")

/** A payload that the schema of its topic refuses. */
export class InvalidPayload extends Error {
  override readonly name = "InvalidPayload"
  readonly topic: string
  readonly issues: ReadonlyArray<Issue>

  constructor(topic: string, issues: ReadonlyArray<Issue>) {
    super(`invalid payload of '${topic}': ${issues.map(inWords).join("; ")}`)
    this.topic = topic
    this.issues = issues
  }
}
