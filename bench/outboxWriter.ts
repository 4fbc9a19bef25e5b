/** The application of outboxSqlite.ts, in a thread: a transaction for each record, so many a second. */
import { DatabaseSync } from "node:sqlite"
import { workerData } from "node:worker_threads"
import { createOutbox } from "../src/layers/sqlite/createOutbox.ts"
import { sharedNow } from "./figures.ts"
import { payload, sleep } from "./Peer.ts"

const { committedAt, path, perSecond } = workerData as {
  readonly path: string
  readonly committedAt: Float64Array
  readonly perSecond: number
}

const db = new DatabaseSync(path)
const outbox = createOutbox(db)
const begin = sharedNow()
for (let n = 0; n < committedAt.length;) {
  const due = Math.min(committedAt.length, Math.floor(((sharedNow() - begin) / 1000) * perSecond))
  while (n < due) {
    const event = { topic: "t.a", payload: { ...payload, payload: { ...payload.payload, n } } }
    outbox.transaction(() => outbox.add(event))
    committedAt[n++] = sharedNow()
  }
  await sleep(1)
}
db.close()
