import { Layer } from "effect"
import { TestClock } from "effect/testing"
import * as SqliteGroupStore from "../../../src/layers/sqlite/SqliteGroupStore.ts"
import { groupStoreSuite } from "../../../src/testing/groupStore.ts"
import { database } from "./temporary.ts"

groupStoreSuite("sqlite", Layer.provide(SqliteGroupStore.layer, database("thread")), {
  advance: TestClock.adjust
})
