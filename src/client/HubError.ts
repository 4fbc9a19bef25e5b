/** What can go wrong for a client, with a code to switch over. */
import type { ErrorCode } from "../protocol/Codes.ts"

/** The hub's codes, and those of the client itself. */
export type ClientErrorCode =
  | ErrorCode
  /** No answer in time. A publish may still have happened: give it an id, and repeat it with the same. */
  | "timeout"
  /** The client was closed, or the hub closed it for good. */
  | "closed"
  /** Too much waits to be sent while there is no connection. */
  | "queue_full"

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
