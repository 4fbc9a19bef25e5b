import { Layer } from "effect"
import { TestClock } from "effect/testing"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../../../src/layers/memory/MemoryGroupStore.ts"
import { groupDeliverySuite } from "../../../src/testing/groupDelivery.ts"
import { delivery } from "../core/delivery.ts"

groupDeliverySuite(
  "memory",
  Layer.mergeAll(MemoryEventStore.layer({ retention: { minAgeMs: 0 } }), MemoryGroupStore.layer).pipe(
    Layer.provideMerge(RandomIds.layer)
  ),
  { delivery, advance: TestClock.adjust, concurrent: true }
)
