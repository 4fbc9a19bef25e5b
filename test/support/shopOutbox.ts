/**
 * The outbox of a service in an SQLite file, with a record in every state: no drainer has to be brought to a failure
 * for that. What is pending waits for a time that does not come.
 */
import { DatabaseSync } from "node:sqlite"
import { createOutbox } from "../../src/layers/sqlite/createOutbox.ts"

export interface ShopRecord {
  readonly id: string
  readonly state: "waiting" | "blocked" | "claimed" | "sent" | "dead"
  readonly topic?: string
  readonly key?: string
  readonly payload?: unknown
  /** Instead of an event. */
  readonly body?: string
  readonly error?: string
}

/** Long ago for a test, and not for a drainer, which purges what is older. */
const hourAgo = Date.now() - 3_600_000

/** Later than any test. */
export const never = Date.now() + 86_400_000

export interface ShopOutbox {
  readonly add: (records: ReadonlyArray<ShopRecord>) => void
  readonly close: () => void
}

/** Makes the file. Records are added when the hub has opened it, which begins by ending the leases in it. */
export const shopOutbox = (path: string): ShopOutbox => {
  const db = new DatabaseSync(path, { timeout: 5_000 })
  createOutbox(db)
  return {
    add: (records) => {
      const insert = db.prepare(
        `INSERT INTO outbox (topic, id, key, tombstone, body, added_at, state, not_before, attempts, token, worker,
          lease_until, done_at, last_error) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
      )
      records.forEach(({ body, error, id, key, payload = id, state, topic = "orders.made" }, i) => {
        const event = { id, topic, ts: 1, ...(key === undefined ? {} : { key }), payload }
        const isClaimed = state === "claimed"
        const isDone = state === "sent" || state === "dead"
        insert.run(
          topic,
          id,
          key ?? null,
          body ?? JSON.stringify(event),
          1_000 + i,
          state,
          state === "waiting" ? never : null,
          isDone || isClaimed ? 1 : 0,
          isClaimed ? "token" : null,
          isClaimed ? "w1" : null,
          isClaimed ? never : null,
          isDone ? hourAgo : null,
          error ?? null
        )
      })
    },
    close: () => db.close()
  }
}
