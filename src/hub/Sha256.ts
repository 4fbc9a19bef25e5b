/** Checksums by the platform's cryptography. */
import { createHash } from "node:crypto"
import * as Layer from "effect/Layer"
import { Checksum } from "../services/Checksum.ts"

export const layer: Layer.Layer<Checksum> = Layer.succeed(Checksum, {
  sha256: () => {
    const hash = createHash("sha256")
    return { add: (bytes) => void hash.update(bytes), hex: () => hash.digest("hex") }
  }
})
