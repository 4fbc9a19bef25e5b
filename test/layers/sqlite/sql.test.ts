/** The planner's word for every statement: each is a look-up, none reads a table from end to end or sorts. */
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "vitest"
import { migrate } from "../../../src/layers/sqlite/schema.ts"
import { sql } from "../../../src/layers/sqlite/sql.ts"

const db = new DatabaseSync(":memory:")
migrate(db, "a life")

/** Steps of the plan, without the `MULTI-INDEX OR` and subquery lines that only group others. */
const planOf = (statement: string): ReadonlyArray<string> => {
  const parameters = Array.from(statement.matchAll(/\?/g), () => null)
  return db
    .prepare(`EXPLAIN QUERY PLAN ${statement}`)
    .all(...parameters)
    .map((row) => String(row["detail"]))
}

/** The registrations of all groups are meant to be read as a whole, and so are the six counts. */
const readsAll: Readonly<Record<string, ReadonlyArray<string>>> = {
  registrations: ["SCAN groups"],
  outboxCounts: ["SCAN outbox_counts"]
}

describe("every statement", () => {
  it.each(Object.entries(sql))("%s", (name, statement) => {
    const plan = planOf(statement)
    expect(plan.filter((step) => step.includes("TEMP B-TREE"))).toEqual([])
    // The rows of a subquery that is itself a look-up may be gone through.
    const scans = plan.filter(
      (step) => step.startsWith("SCAN ") && !/^SCAN (?:e|\(subquery|CONSTANT)/.test(step)
    )
    expect(scans).toEqual(readsAll[name] ?? [])
  })

  it("a statement without an index would be seen", () => {
    expect(planOf("SELECT 1 FROM outbox WHERE worker = ?")).toEqual(["SCAN outbox"])
    expect(planOf("SELECT 1 FROM outbox WHERE state = ? ORDER BY added_at")).toContain(
      "USE TEMP B-TREE FOR ORDER BY"
    )
  })
})

it("the claim reads ready records in their order from the index, and stops at its limit", () => {
  expect(planOf(sql.pendingAfter)).toEqual([
    "SEARCH outbox USING INDEX outbox_by_state (state=? AND position>?)"
  ])
})

it("claims and marks go to their records, and not through the index that they write to", () => {
  for (const statement of [sql.claim, sql.markSent, sql.keyedBetween]) {
    expect(planOf(statement)).toEqual(["SEARCH outbox USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"])
  }
})

it("what stands before a record in its line is one look-up", () => {
  expect(planOf(sql.openBetween)).toEqual([
    "SEARCH outbox USING INDEX outbox_lines (topic=? AND key=? AND position>? AND position<?)"
  ])
})

it("what waits behind a record that is done is one look-up, however long its line is", () => {
  expect(planOf(sql.unblock)).toContain(
    "SEARCH outbox USING COVERING INDEX outbox_blocked (topic=? AND key=?)"
  )
})
