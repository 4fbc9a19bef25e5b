import { Layer } from "effect"
import { TestClock } from "effect/testing"
import * as SqliteEventStore from "../../../src/layers/sqlite/SqliteEventStore.ts"
import * as SqliteGroupStore from "../../../src/layers/sqlite/SqliteGroupStore.ts"
import { groupDeliverySuite } from "../../../src/testing/groupDelivery.ts"
import { delivery } from "../core/delivery.ts"
import { database } from "./temporary.ts"

groupDeliverySuite(
  "sqlite",
  Layer.mergeAll(SqliteEventStore.layer({ retention: { minAgeMs: 0 } }), SqliteGroupStore.layer).pipe(
    Layer.provideMerge(database("thread"))
  ),
  { delivery, advance: TestClock.adjust, pace: 0.02, concurrent: true }
)
