import { Clock, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryOutboxStore from "../../../src/layers/memory/MemoryOutboxStore.ts"
import { outboxStoreSuite } from "../../../src/testing/outboxStore.ts"

outboxStoreSuite("memory", Layer.provide(MemoryOutboxStore.layer(), RandomIds.layer), {
  advance: TestClock.adjust,
  now: Clock.currentTimeMillis
})
