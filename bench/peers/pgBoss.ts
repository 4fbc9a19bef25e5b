/** pg-boss: jobs in a PostgreSQL (PG_URL), fetched in batches, each batch completed by one statement. */
import { randomUUID } from "node:crypto"
import PgBoss from "pg-boss"
import { type DurableSession, payload, type Peer, sleep } from "../Peer.ts"

const url = process.env["PG_URL"] ?? ""
const queue = "q"

export const pgBoss: Peer<DurableSession> = {
  name: "pg-boss (PG_URL)",
  missing: () => (url === "" ? "set PG_URL to the URL of a PostgreSQL" : undefined),
  start: async () => {
    const schema = `bench_${randomUUID().slice(0, 8)}`
    const boss = new PgBoss({ connectionString: url, schema, max: 20, supervise: false, schedule: false })
    await boss.start()
    await boss.createQueue(queue)
    let open = true
    let loop: Promise<void> = Promise.resolve()
    return {
      publish: () => boss.send(queue, payload),
      consume: (onAcked) => {
        loop = (async () => {
          while (open) {
            const ids = (await boss.fetch(queue, { batchSize: 200 })).map(({ id }) => id)
            if (ids.length === 0) await sleep(5)
            else {
              await boss.complete(queue, ids)
              for (let i = 0; i < ids.length; i++) onAcked()
            }
          }
        })()
        return Promise.resolve()
      },
      close: async () => {
        open = false
        await loop
        await boss.getDb().executeSql(`DROP SCHEMA ${schema} CASCADE`, [])
        await boss.stop({ graceful: false })
      }
    }
  }
}
