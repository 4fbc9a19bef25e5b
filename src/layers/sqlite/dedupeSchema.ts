/**
 * The table of what was handled, in a database of the application's.
 *
 * It stands beside the application's own tables, so that a mark and what the handler wrote share one
 * transaction; whether a hub uses the same file does not matter. It has a version of its own for that reason,
 * in a table of its own.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite"
import * as Schema from "effect/Schema"

/**
 * Each step brings a database from the version before it to its own; a step that was released never changes.
 */
const migrations: ReadonlyArray<{ readonly version: number; readonly sql: string }> = [
  {
    version: 1,
    sql: `
      -- A row without done_at is a run that holds until lease_until; run tells it from all others.
      CREATE TABLE hub_dedupe (
        consumer TEXT NOT NULL,
        topic TEXT NOT NULL,
        id TEXT NOT NULL,
        run TEXT NOT NULL,
        lease_until INTEGER NOT NULL,
        done_at INTEGER,
        PRIMARY KEY (consumer, topic, id)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX hub_dedupe_done ON hub_dedupe (done_at) WHERE done_at IS NOT NULL;
    `
  }
]

export const dedupeVersion = migrations.at(-1)!.version

/** The database cannot remember what was handled. Nothing in it was changed. */
export class CannotRemember extends Schema.TaggedError<CannotRemember>()("CannotRemember", {
  reason: Schema.String
}) {
  override get message() {
    return `cannot keep in this database what was handled: ${this.reason}`
  }
}

/**
 * A statement that answers rows as objects of plain numbers, however the application has set up its connection.
 */
export const plain = (db: DatabaseSync, sql: string): StatementSync => {
  const statement = db.prepare(sql)
  statement.setReadBigInts(false)
  statement.setReturnArrays(false)
  return statement
}

/** The first column of the first row. */
const valueOf = (db: DatabaseSync, sql: string, ...args: ReadonlyArray<SQLInputValue>): unknown =>
  Object.values(plain(db, sql).get(...args) ?? {})[0]

const hasTable = (db: DatabaseSync, name: string): boolean =>
  valueOf(db, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", name) !== undefined

/** The version of the table, 0 when there is none yet. Fails when this code must not touch it. */
const versionOf = (db: DatabaseSync): number => {
  if (!hasTable(db, "hub_dedupe_meta")) {
    if (!hasTable(db, "hub_dedupe")) return 0
    throw new CannotRemember({
      reason:
        "it has a table 'hub_dedupe' that is not event-hub's; rename that table or choose another database"
    })
  }
  const found = Number(valueOf(db, "SELECT value FROM hub_dedupe_meta WHERE name = 'schema_version'"))
  if (found > dedupeVersion) {
    throw new CannotRemember({
      reason: `a newer version wrote it (schema ${found}, this one knows ${dedupeVersion}); update event-hub`
    })
  }
  return found
}

const migrate = (db: DatabaseSync): void => {
  if (versionOf(db) === dedupeVersion) return
  db.exec("BEGIN IMMEDIATE")
  try {
    const from = versionOf(db)
    if (from === 0) {
      db.exec(
        "CREATE TABLE hub_dedupe_meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID"
      )
    }
    for (const migration of migrations) if (migration.version > from) db.exec(migration.sql)
    db.prepare(
      "INSERT INTO hub_dedupe_meta (name, value) VALUES ('schema_version', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    ).run(String(dedupeVersion))
    db.exec("COMMIT")
  } catch (error) {
    if (db.isTransaction) db.exec("ROLLBACK")
    throw error
  }
}

/** `PRAGMA synchronous`: 0 is OFF, 1 is NORMAL, 2 is FULL. */
const full = 2

/**
 * Prepares a connection: the table is there, writes wait for others that write to the file, and commits are
 * durable. What was handled is acknowledged to the hub, and does not come again: it must not be lost with the
 * power. The journal is left as it is, and a stricter setting, too.
 */
export const prepareDedupe = (db: DatabaseSync, busyTimeoutMs: number): void => {
  if (db.isTransaction) {
    throw new CannotRemember({ reason: "a transaction is open on its connection; prepare it once, before" })
  }
  if (valueOf(db, "PRAGMA journal_mode") === "off") {
    throw new CannotRemember({
      reason: "its journal_mode is OFF, and nothing can be rolled back; use WAL or DELETE"
    })
  }
  db.exec(`PRAGMA busy_timeout = ${Math.trunc(busyTimeoutMs)}`)
  if (Number(valueOf(db, "PRAGMA synchronous")) < full) {
    db.exec("PRAGMA synchronous = FULL")
  }
  migrate(db)
}
