/** What is kept beside the records of the outbox agrees with them, after any history: counts, and who is done. */
import { DatabaseSync } from "node:sqlite"
import { Result } from "effect"
import fc from "fast-check"
import { expect, it } from "vitest"
import { acceptEvent } from "../../../src/domain/Event.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import {
  addRecord,
  type ClaimRef,
  outboxCommands,
  outboxStats
} from "../../../src/layers/sqlite/outboxCommands.ts"
import { unpackRecords } from "../../../src/layers/sqlite/packedAppend.ts"
import { migrate } from "../../../src/layers/sqlite/schema.ts"
import { prepare } from "../../../src/layers/sqlite/statements.ts"

const step = fc.oneof(
  fc.record({
    _tag: fc.constant("add" as const),
    id: fc.integer({ min: 1, max: 12 }),
    key: fc.option(fc.constantFrom("a", "b"), { nil: undefined }),
    waits: fc.boolean()
  }),
  fc.record({
    _tag: fc.constant("claim" as const),
    limit: fc.integer({ min: 1, max: 5 }),
    whileHolding: fc.boolean()
  }),
  fc.record({
    _tag: fc.constantFrom("sent" as const, "retry" as const, "dead" as const, "release" as const)
  }),
  fc.record({ _tag: fc.constantFrom("expire" as const, "redrive" as const, "purge" as const) })
)

it("whatever happens to the records", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.boolean(), (steps, rollBack) => {
      const db = new DatabaseSync(":memory:")
      migrate(db, "a life")
      const statements = prepare(db)
      const outbox = outboxCommands(statements)
      const held: Array<ClaimRef> = []
      let now = 0
      for (const one of steps) {
        now += 10
        const claims = held.splice(0, 2)
        if (one._tag === "add") {
          const event = {
            topic: "t",
            id: String(one.id),
            ts: now,
            payload: 1,
            ...(one.key && { key: one.key })
          }
          const record = Result.getOrThrow(acceptEvent(event, Settings.limits))
          if (rollBack) db.exec("SAVEPOINT s")
          addRecord(statements, record, { now, notBefore: one.waits ? now + 25 : undefined })
          if (rollBack && one.id % 2 === 0) db.exec("ROLLBACK TO s")
          if (rollBack) db.exec("RELEASE s")
        } else if (one._tag === "claim") {
          const token = `token-${now}`
          const { limit, whileHolding } = one
          const claimed = outbox.claimBatch({ limit, leaseMs: 30, worker: "w", token, now, whileHolding })
          unpackRecords(claimed.records).forEach(({ key, topic }, i) =>
            held.push({ position: claimed.positions[i]!, topic, key, token })
          )
        } else if (one._tag === "sent") {
          const sent = claims.map(({ position, token }) => ({ token, positions: [position] }))
          outbox.markSent({ claims: sent, now })
        } else if (one._tag === "release") outbox.release({ claims })
        else if (one._tag === "expire") outbox.requeueExpired({ maxAttempts: 3, error: "late", now })
        else if (one._tag === "redrive") outbox.redrive({ which: "all", now })
        else if (one._tag === "purge") outbox.purge({ sentBefore: now - 20, limit: 2 })
        else {
          const retryInMs = one._tag === "retry" ? 15 : undefined
          outbox.fail({ claims: claims.map((claim) => ({ ...claim, error: "no", retryInMs })), now })
        }
      }
      const counted = db
        .prepare("SELECT state, count(*) AS n FROM outbox GROUP BY state ORDER BY state")
        .all()
      const kept = db.prepare("SELECT state, n FROM outbox_counts WHERE n <> 0 ORDER BY state").all()
      expect(kept).toEqual(counted)
      // The index of lines takes a record for open as long as it has no time at which it was done.
      const muddled = "SELECT count(*) AS n FROM outbox WHERE (done_at IS NULL) = (state IN ('sent', 'dead'))"
      expect(db.prepare(muddled).get()).toEqual({ n: 0 })
      const oldest = db
        .prepare("SELECT min(added_at) AS at FROM outbox WHERE state NOT IN ('sent', 'dead')")
        .get()
      expect(outboxStats(statements).oldestAddedAt ?? null).toBe(oldest?.["at"])
      db.close()
    }),
    { numRuns: 200 }
  )
})
