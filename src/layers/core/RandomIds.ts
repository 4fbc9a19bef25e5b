/** Ids nobody can guess or meet twice, and ids a test can repeat. */
import { Layer } from "effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import { Ids } from "../../services/Ids.ts"

/** UUIDv7 (RFC 9562): in the order of their making within a process, which keeps indexes over them compact. */
export const layer: Layer.Layer<Ids> = Layer.sync(Ids, () =>
  Ids.of({ next: () => SecureRandom.uuidV7Unsafe() })
)

/** `<prefix>-1`, `<prefix>-2`, …: for tests that compare or replay. */
export const layerTest = (prefix = "id"): Layer.Layer<Ids> =>
  Layer.sync(Ids, () => {
    let made = 0
    return Ids.of({ next: () => `${prefix}-${++made}` })
  })
