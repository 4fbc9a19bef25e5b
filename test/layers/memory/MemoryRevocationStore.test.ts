/** Revocations in memory. */
import * as MemoryRevocationStore from "../../../src/layers/memory/MemoryRevocationStore.ts"
import { revocationStoreSuite } from "../../../src/testing/revocationStore.ts"

revocationStoreSuite("memory", MemoryRevocationStore.layer)
