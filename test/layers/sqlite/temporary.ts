/** Database files that live as long as a test. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as SqliteDatabase from "../../../src/layers/sqlite/SqliteDatabase.ts"

/** A path in a new directory, which goes with the scope. */
export const temporaryPath = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "event-hub-test-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
).pipe(Effect.map((directory) => join(directory, "hub.db")))

/** A new database each time the layer is built. */
export const database = (writer: "thread" | "inline") =>
  Layer.unwrap(Effect.map(temporaryPath, (path) => SqliteDatabase.layer({ path, writer }))).pipe(
    Layer.provideMerge(RandomIds.layer)
  )
