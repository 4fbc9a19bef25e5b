import { Layer } from "effect"
import { TestClock } from "effect/testing"
import * as SqliteEventStore from "../../../src/layers/sqlite/SqliteEventStore.ts"
import { eventStoreSuite } from "../../../src/testing/eventStore.ts"
import { database } from "./temporary.ts"

for (const writer of ["thread", "inline"] as const) {
  eventStoreSuite(
    `sqlite (${writer})`,
    SqliteEventStore.layer({ maxRecordLength: 100_000, retention: { minAgeMs: 1_000 } }).pipe(
      Layer.provide(database(writer))
    ),
    { advance: TestClock.adjust, maxRecordLength: 100_000, minAgeMs: 1_000 }
  )
}
