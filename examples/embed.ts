/**
 * The hub's services inside a program of your own: publish, add to the outbox, and consume with acknowledgements,
 * without a server. The stores are in memory here; `EmbeddedHub.stores(path)` puts a file in their place.
 *
 *     npm run example examples/embed.ts
 */
import { Effect, type Layer, Queue } from "effect"
import { EventBus, OutboxStore, Settings } from "event-hub"
import { Hub, MemoryHub } from "event-hub/hub"

const program = Effect.gen(function* () {
  const bus = yield* EventBus
  const outbox = yield* OutboxStore
  const handled = yield* Queue.unbounded<string>()

  // A member of the group `mailer`: an event is acknowledged when its handler succeeds.
  yield* bus
    .consume({ pattern: "orders.**", group: "mailer", from: "start" }, (event) =>
      Effect.asVoid(Queue.offer(handled, `${event.topic} #${event.seq}: ${JSON.stringify(event.payload)}`))
    )
    .pipe(Effect.forkScoped)

  const [published] = yield* bus.publish([{ topic: "orders.created", payload: { item: "a kettle" } }])
  console.log(`published as #${published?.seq}`)
  yield* outbox.add({ topic: "orders.paid", payload: { amount: 40 } })

  for (const line of yield* Queue.takeN(handled, 2)) console.log(`handled ${line}`)
})

const hub: Layer.Layer<Hub.Bus> = Hub.bus(MemoryHub.stores(), Settings)

await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(hub)))
