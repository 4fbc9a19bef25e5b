/** Consumer groups over MongoDB. The time of deliveries is the test's; the store's own is the server's. */
import { Clock, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { MongoDatabase } from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoEventStore from "../../../src/layers/mongo/MongoEventStore.ts"
import * as MongoGroupStore from "../../../src/layers/mongo/MongoGroupStore.ts"
import { groupDeliverySuite } from "../../../src/testing/groupDelivery.ts"
import { database, describeMongo } from "../../support/mongo.ts"
import { delivery } from "../core/delivery.ts"

/** Deadlines and back-offs pass when the test lets them. */
const inTestTime = Layer.effect(
  MongoDatabase,
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    return MongoDatabase.of({ ...(yield* MongoDatabase), now: () => clock.currentTimeMillisUnsafe() })
  })
)

describeMongo("groups over MongoDB", (url) => {
  groupDeliverySuite(
    "mongo",
    Layer.mergeAll(MongoEventStore.layer({ retention: { minAgeMs: 0 } }), MongoGroupStore.layer()).pipe(
      Layer.provide(Layer.provide(inTestTime, database(url))),
      Layer.provideMerge(RandomIds.layer)
    ),
    { delivery, advance: TestClock.adjust, pace: 0.02 }
  )
})
