/** Revocations of one hub, forgotten when it stops: the model of the other backends. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Entry } from "../../domain/Revocation.ts"
import { RevocationStore } from "../../services/RevocationStore.ts"

/** Entries of a page, unless the caller says otherwise. */
const defaultLimit = 1_000

export const make = Effect.sync(() => {
  const entries = new Map<string, Entry>()
  let version = 0

  return RevocationStore.of({
    add: (entry) =>
      Effect.sync(() => {
        if (entries.has(entry.id)) return
        entries.set(entry.id, entry)
        version++
      }),
    remove: (id) =>
      Effect.sync(() => {
        const isRemoved = entries.delete(id)
        if (isRemoved) version++
        return isRemoved
      }),
    list: ({ after = "", limit = defaultLimit } = {}) =>
      Effect.sync(() => {
        const rest = [...entries.values()]
          .filter(({ id }) => id > after)
          .sort((a, b) => (a.id < b.id ? -1 : 1))
        const items = rest.slice(0, limit)
        return { items, next: rest.length > limit ? items.at(-1)?.id : undefined }
      }),
    version: Effect.sync(() => String(version)),
    prune: (before) =>
      Effect.sync(() => {
        let pruned = 0
        for (const { id, until = Infinity } of entries.values()) {
          if (until < before && entries.delete(id)) pruned++
        }
        if (pruned > 0) version++
        return pruned
      })
  })
})

export const layer: Layer.Layer<RevocationStore> = Layer.effect(RevocationStore, make)
