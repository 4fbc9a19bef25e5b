/** A database of its own on the server that TEST_MONGO_URL names, gone when the test is. */
import { randomBytes } from "node:crypto"
import { MongoClient } from "mongodb"
import { describe } from "@effect/vitest"
import { Effect, Layer, References } from "effect"
import * as RandomIds from "../../src/layers/core/RandomIds.ts"
import * as MongoDatabase from "../../src/layers/mongo/MongoDatabase.ts"

export const mongoUrl = process.env["TEST_MONGO_URL"]

/** Tests that need a MongoDB; without one they are skipped, and say what is missing. */
export const describeMongo = (name: string, tests: (url: string) => void): void => {
  describe.skipIf(mongoUrl === undefined)(
    mongoUrl === undefined ? `${name} (set TEST_MONGO_URL to the URL of a MongoDB to run these)` : name,
    () => {
      tests(mongoUrl ?? "mongodb://127.0.0.1:1/none")
    }
  )
}

/** The same server, and a database that nobody else has. */
export const urlOfNewDatabase = (url: string): string => {
  const [, before, after = ""] = /^(mongodb(?:\+srv)?:\/\/[^/?]+)\/?[^?]*(\?.*)?$/.exec(url) ?? []
  if (before === undefined) throw new Error(`TEST_MONGO_URL is no URL of a MongoDB: ${url}`)
  return `${before}/test_${randomBytes(6).toString("hex")}${after}`
}

export const dropDatabase = async (url: string): Promise<void> => {
  const client = new MongoClient(url, { serverSelectionTimeoutMS: 5_000 })
  try {
    await client.db().dropDatabase()
  } finally {
    await client.close()
  }
}

/** A database that is made with the layer and dropped with it. */
export const database = (
  url: string,
  options: Omit<MongoDatabase.Options, "url"> = {}
): Layer.Layer<MongoDatabase.MongoDatabase> =>
  Layer.unwrap(
    Effect.gen(function* () {
      const own = urlOfNewDatabase(url)
      yield* Effect.addFinalizer(() => Effect.promise(() => dropDatabase(own)))
      return MongoDatabase.layer({ ...options, url: own })
    })
  ).pipe(
    Layer.provide(RandomIds.layer),
    // What the server cannot do is known.
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "Warn")),
    Layer.orDie
  )
