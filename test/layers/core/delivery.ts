/** What delivers, for the suites of the stores. */
import { Layer } from "effect"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as GroupDispatcher from "../../../src/layers/core/GroupDispatcher.ts"
import * as StoreGroupAdmin from "../../../src/layers/core/StoreGroupAdmin.ts"
import type { GroupDeliveryCapabilities } from "../../../src/testing/groupDelivery.ts"

export const delivery: GroupDeliveryCapabilities["delivery"] = (settings) =>
  StoreGroupAdmin.layer().pipe(
    Layer.provideMerge(GroupDispatcher.layer(settings)),
    Layer.provideMerge(GroupCommitAppender.layer())
  )
