import { Layer } from "effect"
import { TestClock } from "effect/testing"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import { eventStoreSuite } from "../../../src/testing/eventStore.ts"

eventStoreSuite(
  "memory",
  Layer.provide(
    MemoryEventStore.layer({ maxRecordLength: 100_000, retention: { minAgeMs: 1_000 } }),
    RandomIds.layer
  ),
  { advance: TestClock.adjust, maxRecordLength: 100_000, minAgeMs: 1_000 }
)
