import { Clock, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as SqliteOutboxStore from "../../../src/layers/sqlite/SqliteOutboxStore.ts"
import { outboxStoreSuite } from "../../../src/testing/outboxStore.ts"
import { database } from "./temporary.ts"

outboxStoreSuite("sqlite", Layer.provide(SqliteOutboxStore.layer(), database("thread")), {
  advance: TestClock.adjust,
  now: Clock.currentTimeMillis
})
