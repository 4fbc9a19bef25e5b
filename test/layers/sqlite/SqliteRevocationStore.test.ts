/** Revocations in an SQLite file: by the writer's thread, and after the file was opened again. */
import { expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as SqliteDatabase from "../../../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteRevocationStore from "../../../src/layers/sqlite/SqliteRevocationStore.ts"
import { RevocationStore } from "../../../src/services/RevocationStore.ts"
import { revocationStoreSuite } from "../../../src/testing/revocationStore.ts"
import { database, temporaryPath } from "./temporary.ts"

revocationStoreSuite("sqlite", Layer.provide(SqliteRevocationStore.layer, database("inline")))
revocationStoreSuite("sqlite, thread", Layer.provide(SqliteRevocationStore.layer, database("thread")))

it.effect("revocations are there when the file is opened again, with their version", () =>
  Effect.gen(function* () {
    const path = yield* temporaryPath
    const use = <A, E>(run: (store: RevocationStore["Service"]) => Effect.Effect<A, E>) =>
      Effect.flatMap(RevocationStore, run).pipe(
        Effect.provide(
          Layer.fresh(
            SqliteRevocationStore.layer.pipe(
              Layer.provide(SqliteDatabase.layer({ path, writer: "inline" })),
              Layer.provide(RandomIds.layer)
            )
          )
        )
      )
    const entry = { id: "1", what: { _tag: "Token", tokenId: "t" }, revokedAt: 1, by: "olga" } as const
    const version = yield* use((store) => Effect.andThen(store.add(entry), store.version))
    expect(yield* use(({ version }) => version)).toBe(version)
    expect(yield* use(({ list }) => list())).toMatchObject({ items: [entry] })
  }).pipe(Effect.scoped)
)
