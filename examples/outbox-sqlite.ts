/**
 * A service with its own table in the hub's SQLite file: the order and its event are committed together, or not at
 * all. No hub has to run at that moment; whichever comes up next on the file brings the events into the log.
 *
 *     npm start                                        # in one terminal
 *     npm run example examples/outbox-sqlite.ts        # in another
 *
 * Takes the file as its argument, `./data/hub.db` unless given.
 */
import { mkdirSync } from "node:fs"
import { dirname } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { createOutbox } from "event-hub/sqlite"

const path = process.argv[2] ?? "./data/hub.db"
mkdirSync(dirname(path), { recursive: true })
const db = new DatabaseSync(path)
const outbox = createOutbox(db)
db.exec(
  "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, paid INTEGER NOT NULL) STRICT"
)

const placeOrder = (item: string, paid: number): number =>
  outbox.transaction(() => {
    const { lastInsertRowid } = db.prepare("INSERT INTO orders (item, paid) VALUES (?, ?)").run(item, paid)
    const order = { id: Number(lastInsertRowid), item, paid }
    outbox.add({ topic: "orders.created", key: String(order.id), type: "order.created", payload: order })
    if (paid <= 0) throw new Error("nobody paid for it")
    return order.id
  })

for (const [item, paid] of [
  ["a kettle", 40],
  ["a ghost", 0],
  ["a lamp", 25]
] as const) {
  try {
    console.log(`order ${placeOrder(item, paid)} for ${item} is placed`)
  } catch (error) {
    console.log(
      `no order and no event for ${item}: ${error instanceof Error ? error.message : String(error)}`
    )
  }
}

const waiting = db.prepare("SELECT count(*) AS n FROM outbox WHERE state <> 'sent'").get()
console.log(`${String(waiting?.["n"])} events wait for the hub`)
db.close()
