/** Revocations in a MongoDB: one connection, several, and a hub that dies in the middle of a change. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger } from "effect"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MongoDatabase from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoRevocationStore from "../../../src/layers/mongo/MongoRevocationStore.ts"
import { collection } from "../../../src/layers/mongo/schema.ts"
import { RevocationStore } from "../../../src/services/RevocationStore.ts"
import { revocationStoreSuite } from "../../../src/testing/revocationStore.ts"
import { database, describeMongo, dropDatabase, urlOfNewDatabase } from "../../support/mongo.ts"

const store = Layer.provide(MongoRevocationStore.layer, RandomIds.layer)

describeMongo("MongoRevocationStore", (url) => {
  const connection = (own: string) =>
    Effect.map(
      Layer.build(
        Layer.fresh(
          store.pipe(Layer.provide(MongoDatabase.layer({ url: own })), Layer.provide(RandomIds.layer))
        )
      ),
      Context.get(RevocationStore)
    )

  revocationStoreSuite("mongo", Layer.provide(store, database(url)), {
    beside: (n) =>
      Effect.gen(function* () {
        const own = urlOfNewDatabase(url)
        yield* Effect.addFinalizer(() => Effect.promise(() => dropDatabase(own)))
        return yield* Effect.forEach(Array.from({ length: n }), () => connection(own))
      })
  })

  describe("MongoRevocationStore", () => {
    const test = (
      title: string,
      run: Effect.Effect<void, unknown, RevocationStore | MongoDatabase.MongoDatabase>
    ) =>
      it.effect(title, () =>
        run.pipe(
          Effect.provide(Layer.provideMerge(store, database(url, { client: { monitorCommands: true } })))
        )
      )

    test(
      "a look at what did not change is one command",
      Effect.gen(function* () {
        const { client } = yield* MongoDatabase.MongoDatabase
        const { version } = yield* RevocationStore
        const sent: Array<string> = []
        client.on("commandStarted", ({ commandName }) => void sent.push(commandName))
        yield* version
        yield* version
        expect(sent.filter((name) => name !== "hello")).toEqual(["find", "find"])
      })
    )

    /** As a hub leaves it that died before its change was done. */
    const leaveMark = (agoMs: number) =>
      Effect.gen(function* () {
        const { db, now } = yield* MongoDatabase.MongoDatabase
        yield* Effect.promise(() =>
          collection(db, "revocation_changes").updateOne(
            { _id: "revocations" },
            { $push: { marks: { mark: "of the dead", at: now() - agoMs } } }
          )
        )
      })

    test(
      "as long as a change may be under way no version stands twice, so that everybody reads on",
      Effect.gen(function* () {
        const { add, version } = yield* RevocationStore
        const entry = { id: "1", what: { _tag: "Token", tokenId: "t" }, revokedAt: 1, by: "o" } as const
        yield* add(entry)
        yield* leaveMark(0)
        const seen = [yield* version, yield* version]
        // Another change that comes to its end does not hide it.
        yield* add({ ...entry, id: "2" })
        seen.push(yield* version, yield* version)
        expect(new Set(seen).size).toBe(4)
      })
    )

    test(
      "a mark that is older than any write is taken away, behind a version that nobody has seen",
      Effect.gen(function* () {
        const { add, version } = yield* RevocationStore
        yield* add({ id: "1", what: { _tag: "Token", tokenId: "t" }, revokedAt: 1, by: "o" })
        const before = yield* version
        yield* leaveMark(MongoRevocationStore.markMs + 1)
        const seen = [before, yield* version, yield* version]
        expect(new Set(seen).size).toBe(3)
        expect(yield* version).toBe(seen[2])
      })
    )

    test(
      "an entry that cannot be read is told of once, and the others are there",
      Effect.gen(function* () {
        const { db } = yield* MongoDatabase.MongoDatabase
        const { add, list } = yield* RevocationStore
        const what = { _tag: "Token", tokenId: "t" } as const
        yield* Effect.forEach(["1", "3"], (id) => add({ id, what, revokedAt: 1, by: "o" }))
        yield* Effect.promise(() =>
          db.collection<{ _id: string }>("revocations").insertOne({ _id: "2", what: null } as { _id: string })
        )
        const lines: Array<string> = []
        const logger = Logger.make(
          ({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`)
        )
        const pages = Effect.gen(function* () {
          const first = yield* list({ limit: 2 })
          const second = yield* list({ limit: 2, after: first.next! })
          return [...first.items, ...second.items].map(({ id }) => id)
        }).pipe(Effect.provide(Logger.layer([logger])))
        expect(yield* pages).toEqual(["1", "3"])
        expect(yield* pages).toEqual(["1", "3"])
        expect(lines).toEqual([expect.stringMatching(/^Error a revocation cannot be read/)])
      })
    )

    test(
      "what is over by a hub's clock stays until it is over by the server's",
      Effect.gen(function* () {
        const { now } = yield* MongoDatabase.MongoDatabase
        const { add, list, prune } = yield* RevocationStore
        const what = { _tag: "Token", tokenId: "t" } as const
        yield* add({ id: "1", what, revokedAt: 1, by: "o", until: now() + 60_000 })
        yield* add({ id: "2", what, revokedAt: 1, by: "o", until: now() - 60_000 })
        expect(yield* prune(now() + 3_600_000)).toBe(1)
        expect((yield* list()).items.map(({ id }) => id)).toEqual(["1"])
      })
    )
  })
})
