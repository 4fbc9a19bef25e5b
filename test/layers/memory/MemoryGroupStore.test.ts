import { TestClock } from "effect/testing"
import * as MemoryGroupStore from "../../../src/layers/memory/MemoryGroupStore.ts"
import { groupStoreSuite } from "../../../src/testing/groupStore.ts"

groupStoreSuite("memory", MemoryGroupStore.layer, { advance: TestClock.adjust })
