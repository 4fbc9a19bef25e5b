/**
 * The tables of a hub in an SQLite file, and how a file gets to the version this code knows.
 *
 * An application may keep its own tables in the same file, so that its writes and the outbox share one
 * transaction. The schema version therefore lives in a table of ours, not in `user_version`.
 *
 * Plain code without Effect: applications run it through `createOutbox`, and the writer's thread runs it, too.
 */
import type { DatabaseSync } from "node:sqlite"

/** Each step brings a file from the version before it to its own; a step that was released never changes. */
const migrations: ReadonlyArray<{ readonly version: number; readonly sql: string }> = [
  {
    version: 1,
    sql: `
      CREATE TABLE topics (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        stored_at INTEGER NOT NULL
      ) STRICT;

      CREATE TABLE events (
        topic_id INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        stored_at INTEGER NOT NULL,
        id TEXT NOT NULL,
        key TEXT,
        tombstone INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (topic_id, seq)
      ) STRICT, WITHOUT ROWID;
      CREATE UNIQUE INDEX events_by_id ON events (topic_id, id);

      -- The event itself stands in events; only when it is trimmed there, a copy is kept here.
      CREATE TABLE latest (
        topic_id INTEGER NOT NULL,
        key TEXT NOT NULL,
        seq INTEGER NOT NULL,
        stored_at INTEGER,
        id TEXT,
        body TEXT,
        PRIMARY KEY (topic_id, key)
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE groups (
        name TEXT NOT NULL,
        pattern TEXT NOT NULL,
        options TEXT NOT NULL,
        registered_at INTEGER NOT NULL,
        history TEXT NOT NULL,
        -- Of the group: the same in all its rows.
        paused INTEGER NOT NULL,
        last_used_at INTEGER NOT NULL,
        PRIMARY KEY (name, pattern)
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE group_states (
        group_name TEXT NOT NULL,
        topic TEXT NOT NULL,
        revision INTEGER NOT NULL,
        PRIMARY KEY (group_name, topic)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX group_states_by_topic ON group_states (topic, group_name);

      -- The first part of a state is all of it as it was once, the others are what changed since.
      CREATE TABLE group_parts (
        group_name TEXT NOT NULL,
        topic TEXT NOT NULL,
        revision INTEGER NOT NULL,
        part TEXT NOT NULL,
        PRIMARY KEY (group_name, topic, revision)
      ) STRICT, WITHOUT ROWID;

      -- Positions are given inside the adding transaction, and writers exclude each other: their order is the
      -- order of the commits.
      CREATE TABLE outbox (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        id TEXT NOT NULL,
        key TEXT,
        tombstone INTEGER NOT NULL,
        body TEXT NOT NULL,
        added_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        not_before INTEGER,
        attempts INTEGER NOT NULL DEFAULT 0,
        token TEXT,
        worker TEXT,
        lease_until INTEGER,
        done_at INTEGER,
        last_error TEXT,
        UNIQUE (topic, id)
      ) STRICT;
      CREATE INDEX outbox_by_state ON outbox (state, position);
      CREATE INDEX outbox_waiting ON outbox (not_before) WHERE state = 'waiting';
      CREATE INDEX outbox_claimed ON outbox (lease_until) WHERE state = 'claimed';
      CREATE INDEX outbox_sent ON outbox (done_at) WHERE state = 'sent';
      -- By what changes once in a record's life: an index that names the state would be rewritten by every claim.
      CREATE INDEX outbox_lines ON outbox (topic, key, position) WHERE key IS NOT NULL AND done_at IS NULL;
      CREATE INDEX outbox_blocked ON outbox (topic, key, position) WHERE state = 'blocked';

      -- How many there are of each state: kept as they change, whoever changes them, since counting an index costs
      -- as much as there is in it.
      CREATE TABLE outbox_counts (
        state TEXT NOT NULL PRIMARY KEY,
        n INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
      INSERT INTO outbox_counts (state, n)
        VALUES ('pending', 0), ('waiting', 0), ('blocked', 0), ('claimed', 0), ('sent', 0), ('dead', 0);
      CREATE TRIGGER outbox_added AFTER INSERT ON outbox BEGIN
        UPDATE outbox_counts SET n = n + 1 WHERE state = NEW.state;
      END;
      CREATE TRIGGER outbox_moved AFTER UPDATE OF state ON outbox WHEN NEW.state <> OLD.state BEGIN
        UPDATE outbox_counts SET n = n + 1 WHERE state = NEW.state;
        UPDATE outbox_counts SET n = n - 1 WHERE state = OLD.state;
      END;
      CREATE TRIGGER outbox_gone AFTER DELETE ON outbox BEGIN
        UPDATE outbox_counts SET n = n - 1 WHERE state = OLD.state;
      END;
    `
  },
  {
    version: 2,
    // Only the writer moves records, many at a time, and counts them itself: the trigger was half of a drain's work.
    sql: "DROP TRIGGER outbox_moved"
  },
  {
    version: 3,
    sql: `
      CREATE TABLE hub_revocations (
        id TEXT NOT NULL PRIMARY KEY,
        entry TEXT NOT NULL,
        until REAL
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX hub_revocations_by_end ON hub_revocations (until) WHERE until IS NOT NULL;
    `
  }
]

export const version = migrations.at(-1)!.version

/** What is wrong with a file, in words for whoever runs the hub. */
export class SchemaProblem extends Error {}

const hasTable = (db: DatabaseSync, name: string): boolean =>
  db.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?").get(name) !== undefined

/** The schema version of a file; 0 when no hub has used it. */
export const versionOf = (db: DatabaseSync): number => {
  if (!hasTable(db, "hub_meta")) return 0
  const row = db.prepare("SELECT value FROM hub_meta WHERE name = 'schema_version'").get()
  return Number(row?.["value"] ?? 0)
}

/** Fails when this code must not touch the file. Reads only. */
export const check = (db: DatabaseSync): void => {
  const found = versionOf(db)
  if (found > version) {
    throw new SchemaProblem(
      `it was written by a newer version (schema ${found}, this one knows ${version}); update event-hub`
    )
  }
  if (found > 0) return
  const taken = [
    "topics",
    "events",
    "latest",
    "groups",
    "group_states",
    "group_parts",
    "outbox",
    "outbox_counts",
    "hub_revocations"
  ].filter((name) => hasTable(db, name))
  if (taken.length > 0) {
    throw new SchemaProblem(
      `it has a table '${taken[0]}' that is not the hub's; rename that table or choose another file`
    )
  }
}

/** Brings the file to this version. `history` names its life when this is its first hub. */
export const migrate = (db: DatabaseSync, history: string): void => {
  if (versionOf(db) === version) return
  db.exec("BEGIN IMMEDIATE")
  try {
    check(db)
    const from = versionOf(db)
    if (from === 0) {
      db.exec(
        "CREATE TABLE hub_meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID"
      )
      db.prepare("INSERT INTO hub_meta (name, value) VALUES ('history', ?)").run(history)
    }
    for (const migration of migrations) if (migration.version > from) db.exec(migration.sql)
    db.prepare(
      "INSERT INTO hub_meta (name, value) VALUES ('schema_version', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    ).run(String(version))
    db.exec("COMMIT")
  } catch (error) {
    if (db.isTransaction) db.exec("ROLLBACK")
    throw error
  }
}

/** Every connection of the hub, and `createOutbox` for those of applications that ask for it. */
export const connectionPragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"
