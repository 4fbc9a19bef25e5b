/** Ids nobody can guess or meet twice, and ids a test can repeat. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SecureRandom from "effect/crypto/SecureRandom"
import { Ids } from "../../services/Ids.ts"

/** Asking for random bytes costs more than all else that an id does: it is done for so many bytes at once. */
const poolBytes = 16 * 1024

/** Random bytes, each given out once, and kept no longer than that. */
const pooled = (): ((size: number) => Uint8Array) => {
  let pool: Uint8Array = new Uint8Array(0)
  let used = 0
  return (size) => {
    if (used + size > pool.length) {
      pool = SecureRandom.randomBytesUnsafe(Math.max(size, poolBytes))
      used = 0
    }
    const bytes = pool.slice(used, used + size)
    pool.fill(0, used, used + size)
    used += size
    return bytes
  }
}

/** UUIDv7 (RFC 9562): in the order of their making within a process, which keeps indexes over them compact. */
export const layer: Layer.Layer<Ids> = Layer.sync(Ids, () => {
  const uuid = SecureRandom.make(pooled()).uuidV7()
  return Ids.of({ next: () => Effect.runSync(uuid) })
})

/** `<prefix>-1`, `<prefix>-2`, …: for tests that compare or replay. */
export const layerTest = (prefix = "id"): Layer.Layer<Ids> =>
  Layer.sync(Ids, () => {
    let made = 0
    return Ids.of({ next: () => `${prefix}-${++made}` })
  })
