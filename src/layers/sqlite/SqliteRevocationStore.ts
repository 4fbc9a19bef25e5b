/** Revocations in an SQLite file. Only one hub has it, so its version is a number that the writer counts up. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Entry } from "../../domain/Revocation.ts"
import { RevocationStore } from "../../services/RevocationStore.ts"
import { versionName } from "./revocationCommands.ts"
import { SqliteDatabase } from "./SqliteDatabase.ts"

/** Entries of a page, unless the caller says otherwise. */
const defaultLimit = 1_000

const make = Effect.gen(function* () {
  const db = yield* SqliteDatabase

  return RevocationStore.of({
    add: (entry) =>
      db.write("revocations", "add", { id: entry.id, entry: JSON.stringify(entry), until: entry.until }),
    remove: (id) => db.write("revocations", "remove", { id }),
    list: ({ after = "", limit = defaultLimit } = {}) =>
      db.read("RevocationStore.list", (statements) => {
        const rows = statements.all<{ readonly entry: string }>("revocationsAfter", after, limit + 1)
        const items = rows.slice(0, limit).map(({ entry }) => JSON.parse(entry) as Entry)
        return { items, next: rows.length > limit ? items.at(-1)?.id : undefined }
      }),
    version: db.read(
      "RevocationStore.version",
      (statements) => statements.get<{ readonly value: string }>("meta", versionName)?.value ?? "0"
    ),
    prune: (before) => db.write("revocations", "prune", { before })
  })
})

export const layer: Layer.Layer<RevocationStore, never, SqliteDatabase> = Layer.effect(RevocationStore, make)
