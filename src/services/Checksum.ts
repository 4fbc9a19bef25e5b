/** Checksums of bytes that come in pieces. */
import * as Context from "effect/Context"

export interface Sum {
  readonly add: (bytes: Uint8Array) => void
  /** Of all that was added, as hexadecimal digits. Ends it. */
  readonly hex: () => string
}

export class Checksum extends Context.Service<
  Checksum,
  {
    /** A new SHA-256 (FIPS 180-4). */
    readonly sha256: () => Sum
  }
>()("event-hub/services/Checksum") {}
