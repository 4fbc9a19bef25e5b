/**
 * Chance that can be repeated: numbers that follow from a seed and from what they are about. Whoever is asked first
 * changes nothing, so that a run over another store, or in several processes, meets the same fate.
 */

/** In [0, 1). */
export type Chance = (...about: ReadonlyArray<string | number>) => number

/** FNV-1a over the words (http://www.isthe.com/chongo/tech/comp/fnv/), mixed as in MurmurHash3's finalizer. */
export const chance =
  (seed: number): Chance =>
  (...about) => {
    let hash = (0x811c9dc5 ^ seed) | 0
    for (const word of about) {
      for (const unit of `${word}\n`) hash = Math.imul(hash ^ unit.charCodeAt(0), 0x01000193)
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
    return ((hash ^ (hash >>> 16)) >>> 0) / 0x1_0000_0000
  }

/** `TEST_SEED`, to repeat what happened, or a new one. It belongs where it can be read when the test fails. */
export const newSeed = (): number => {
  const given = Number(process.env["TEST_SEED"])
  return Number.isSafeInteger(given) && given > 0 ? given : 1 + Math.floor(Math.random() * 999_999)
}
