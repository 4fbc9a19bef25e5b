/**
 * Events that are delivered more than once, and handled once: exactly once where the handler writes to a
 * database of yours, once per lease where it does something elsewhere. It runs by itself, with a hub in memory,
 * and ends.
 *
 *     npm run example examples/once-only-consumer.ts
 */
import { DatabaseSync } from "node:sqlite"
import { Effect, type Layer, Queue } from "effect"
import { EventBus, type Handled, Settings } from "event-hub"
import { exactlyOncePromise } from "event-hub/core"
import { Hub, MemoryHub } from "event-hub/hub"
import { createDedupe } from "event-hub/sqlite"

interface Payment {
  readonly from: string
  readonly to: string
  readonly amount: number
}

/** How long the group may deliver an event is compared with how long it is remembered. */
const group = { ackTimeoutMs: 30_000, maxAttempts: 5 }

// The application's own database and connection; a table beside its own remembers what was handled.
const db = new DatabaseSync(":memory:")
db.exec("CREATE TABLE balances (account TEXT PRIMARY KEY, amount INTEGER NOT NULL) STRICT")
const add = db.prepare(
  "INSERT INTO balances VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
)
const dedupe = createDedupe(db, { group })

// One transaction: the mark, and whatever the handler writes. The first time something fails in its middle.
let failures = 1
const book = dedupe.exactlyOnce({
  consumer: "bookkeeping",
  handler: ({ payload }: Handled) => {
    const { amount, from, to } = payload as Payment
    add.run(from, -amount)
    if (failures-- > 0) throw new Error("the power went")
    add.run(to, amount)
  }
})

// What happens elsewhere cannot be rolled back: it gets the event's id, so that the other side knows a repeat.
const tell = exactlyOncePromise({
  store: dedupe.store,
  consumer: "bank",
  group,
  handler: async ({ id }: Handled) => `the bank was told of ${id}`
})

const program = Effect.gen(function* () {
  const bus = yield* EventBus
  const answers = yield* Queue.unbounded<string>()
  const deliveries: Array<Handled> = []

  yield* bus
    .consume({ pattern: "payments", group: "bookkeeping", options: group, from: "start" }, (event) => {
      deliveries.push(event)
      const said = (what: string) => Queue.offer(answers, `delivery ${event.attempt}: ${what}`)
      return Effect.try({ try: () => book(event), catch: (error) => error }).pipe(
        Effect.tapError((error) => said(String(error))),
        Effect.flatMap(said),
        Effect.asVoid
      )
    })
    .pipe(Effect.forkScoped)

  const payload: Payment = { from: "ann", to: "bob", amount: 40 }
  yield* bus.publish([{ topic: "payments", id: "payment-1", payload }])
  for (const line of yield* Queue.takeN(answers, 2)) console.log(line)
  return deliveries[0]!
})

const hub: Layer.Layer<Hub.Bus> = Hub.bus(MemoryHub.stores(), Settings)

const event = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(hub)))

// As after a crash between COMMIT and the acknowledgement: the hub delivers it once more.
console.log(`one delivery more: ${book(event)}`)
for (const { account, amount } of db.prepare("SELECT account, amount FROM balances ORDER BY account").all()) {
  console.log(`${String(account)} has ${String(amount)}`)
}

console.log(await tell(event))
console.log((await tell(event)) ?? "the bank is not told again")
db.close()
