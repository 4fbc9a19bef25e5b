/**
 * A consumer as a process of its own, which kills itself at a named step: for test/e2e/exactlyOnce.test.ts.
 *
 * Its effects are rows in a database of its own, without any key that would hide a repeated one. `FORM` is
 * `transaction` or `lease`; `DIE_AT` a step, which is passed `DIE_AFTER` times before it is the last. It says
 * on its standard output what it does. When `HOLD` is set it leaves the group in the middle of its first
 * handler, which ends when somebody writes to its standard input.
 */
import { once } from "node:events"
import { DatabaseSync } from "node:sqlite"
import { WebSocket } from "ws"
import { PromClient, type WebSocketConstructor, type WireEvent } from "../../src/client/index.ts"
import { exactlyOncePromise } from "../../src/layers/core/exactlyOnce.ts"
import { createDedupe } from "../../src/layers/sqlite/createDedupe.ts"

const {
  APP_DB = "",
  DIE_AFTER = "0",
  DIE_AT,
  FORM,
  HOLD,
  HUB_TOKEN = "",
  HUB_URL = "",
  LEASE_MS = "30000",
  MAX_ATTEMPTS = "100"
} = process.env

let left = Number(DIE_AFTER)

const reached = (step: string): void => {
  if (step !== DIE_AT || left-- > 0) return
  process.kill(process.pid, "SIGKILL")
  // Whatever the signal takes: nothing comes after this step.
  for (;;);
}

/** Knows when an ACK has left the process. */
class WatchedWebSocket extends WebSocket {
  override send(data: string): void {
    super.send(data, () => {
      if (data.includes('"op":"ACK"')) reached("after the ACK was sent")
    })
  }
}

const say = (what: string): void => void process.stdout.write(`${what}\n`)

const db = new DatabaseSync(APP_DB)
db.exec("PRAGMA journal_mode = WAL")
const group = { maxAttempts: Number(MAX_ATTEMPTS), ackTimeoutMs: 30_000 }
const dedupe = createDedupe(db, { group, busyTimeoutMs: 60_000 })

const begun = db.prepare("INSERT INTO runs (id, at, lease_until) VALUES (?, ?, ?)")
const lease = db.prepare("SELECT lease_until FROM hub_dedupe WHERE id = ?")
const part = db.prepare("INSERT INTO effects (id, part) VALUES (?, ?)")
const total = db.prepare("UPDATE totals SET n = n + ?")

const write = ({ id, payload }: WireEvent<number>): void => {
  part.run(id, 1)
  reached("in the middle of the writes")
  part.run(id, 2)
  total.run(payload)
}

const inTransaction = (): ((event: WireEvent<number>) => void) => {
  const handle = dedupe.exactlyOnce({
    consumer: "app",
    handler: (event: WireEvent<number>) => {
      reached("after the mark was inserted")
      reached(`at ${event.id}`)
      write(event)
      reached("before COMMIT")
    }
  })
  return (event) => {
    reached("before begin")
    say(`${handle(event)} ${event.id}`)
    reached("after COMMIT")
  }
}

const underLease = (): ((event: WireEvent<number>) => Promise<void>) => {
  const handle = exactlyOncePromise({
    store: dedupe.store,
    consumer: "app",
    leaseMs: Number(LEASE_MS),
    delayMs: 200,
    group,
    handler: async (event: WireEvent<number>) => {
      begun.run(event.id, Date.now(), Number(lease.get(event.id)?.["lease_until"]))
      say(`begun ${event.id}`)
      reached("in the handler")
      if (HOLD !== undefined) {
        void client.unsubscribe("jobs.**", "app")
        await once(process.stdin, "data")
      }
      write(event)
      reached("after the effect")
      return true
    }
  })
  return async (event) => {
    reached("before begin")
    say(`${(await handle(event)) === undefined ? "duplicate" : "handled"} ${event.id}`)
    reached("after it was completed")
  }
}

const client = new PromClient(HUB_URL, HUB_TOKEN, {
  WebSocket: WatchedWebSocket satisfies WebSocketConstructor,
  onError: (error) => say(`refused ${error instanceof Error ? error.message : String(error)}`)
})
await client.subscribe<number>("jobs.**", "app", FORM === "lease" ? underLease() : inTransaction(), {
  ...group,
  from: "start",
  credit: 4,
  concurrency: 1
})
process.once("SIGTERM", () => void client.close().then(() => process.exit(0)))
say("subscribed")
