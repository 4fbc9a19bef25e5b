/**
 * Every statement that the SQLite layer runs again and again, in one place, so that a test can ask the planner
 * about each of them: none reads a table from end to end.
 */

/** A record's columns, as people see it. */
const columns =
  "position, topic, id, key, tombstone, body, added_at, state, not_before, attempts, worker, lease_until, last_error"

/** A registration's columns, beside the name of its group. */
const registration = "pattern, options, registered_at, history, paused, last_used_at"

/** Whoever had the record has it no more. */
const free = "token = NULL, worker = NULL, lease_until = NULL"

/** The claim still holds. */
const held = "position = ? AND state = 'claimed' AND token = ?"

export const sql = {
  // meta
  meta: "SELECT value FROM hub_meta WHERE name = ?",
  setMeta:
    "INSERT INTO hub_meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",

  // revocations
  addRevocation:
    "INSERT INTO hub_revocations (id, entry, until) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
  removeRevocation: "DELETE FROM hub_revocations WHERE id = ?",
  revocationsAfter: "SELECT entry FROM hub_revocations WHERE id > ? ORDER BY id LIMIT ?",
  pruneRevocations: "DELETE FROM hub_revocations WHERE until < ?",

  // topics
  topic: "SELECT id, name, head, floor, stored_at FROM topics WHERE name = ?",
  addTopic: "INSERT INTO topics (name, head, floor, stored_at) VALUES (?, ?, ?, 0) RETURNING id",
  growTopic: "UPDATE topics SET head = ?, stored_at = ? WHERE id = ?",
  setFloor: "UPDATE topics SET floor = ? WHERE id = ?",
  topicsAfter:
    "SELECT name, head, floor, stored_at FROM topics WHERE name > ? AND name < ? ORDER BY name LIMIT ?",

  // events
  addEvent:
    "INSERT INTO events (topic_id, seq, stored_at, id, key, tombstone, body) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (topic_id, id) DO NOTHING",
  eventById: "SELECT seq, stored_at FROM events WHERE topic_id = ? AND id = ?",
  eventsAfter:
    "SELECT seq, stored_at, id, key, tombstone, body FROM events WHERE topic_id = ? AND seq > ? ORDER BY seq LIMIT ?",
  // The size of a text is in its row's header: its pages are not read.
  bodySizes:
    "SELECT sum(octet_length(body)) AS bytes FROM events WHERE topic_id = ? AND seq > ? AND seq <= ?",
  // As domain/Event.toJson. What is aggregated comes in the order that the subquery gives it.
  linesAfter: `SELECT count(*) AS count, min(seq) AS first, max(seq) AS last,
      CAST(group_concat('{"seq":' || seq || ',"storedAt":' || stored_at || ',' || substr(body, 2) || char(10), '') AS BLOB) AS bytes
    FROM (SELECT seq, stored_at, body FROM events WHERE topic_id = ? AND seq > ? AND seq <= ? ORDER BY seq)`,
  storedAt: "SELECT stored_at FROM events WHERE topic_id = ? AND seq = ?",
  forgetEvents: "DELETE FROM events WHERE topic_id = ? AND seq <= ?",

  // latest by key
  setLatest:
    "INSERT INTO latest (topic_id, key, seq) VALUES (?, ?, ?) ON CONFLICT (topic_id, key) DO UPDATE SET seq = excluded.seq, stored_at = NULL, id = NULL, body = NULL",
  restoreLatest:
    "INSERT INTO latest (topic_id, key, seq, stored_at, id, body) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (topic_id, key) DO UPDATE SET seq = excluded.seq, stored_at = excluded.stored_at, id = excluded.id, body = excluded.body WHERE excluded.seq > latest.seq",
  deletedKeys: "SELECT key FROM events WHERE topic_id = ? AND seq > ? AND tombstone = 1 AND key IS NOT NULL",
  dropLatest: "DELETE FROM latest WHERE topic_id = ? AND key = ?",
  // CROSS JOIN fixes the order: from the few events that go to the rows of their keys, never the other way.
  keepLatest: `UPDATE latest SET stored_at = e.stored_at, id = e.id, body = e.body
    FROM (SELECT topic_id, key, seq, stored_at, id, body FROM events
          WHERE topic_id = ? AND seq <= ? AND key IS NOT NULL) AS e
    WHERE latest.topic_id = e.topic_id AND latest.key = e.key AND latest.seq = e.seq`,
  latestOf: `SELECT l.key, l.seq, coalesce(e.stored_at, l.stored_at) AS stored_at, coalesce(e.id, l.id) AS id,
      coalesce(e.body, l.body) AS body
    FROM latest AS l LEFT JOIN events AS e ON e.topic_id = l.topic_id AND e.seq = l.seq
    WHERE l.topic_id = ? AND l.key = ?`,
  latestAfter: `SELECT l.key, l.seq, coalesce(e.stored_at, l.stored_at) AS stored_at, coalesce(e.id, l.id) AS id,
      coalesce(e.body, l.body) AS body
    FROM latest AS l LEFT JOIN events AS e ON e.topic_id = l.topic_id AND e.seq = l.seq
    WHERE l.topic_id = ? AND l.key > ? ORDER BY l.key LIMIT ?`,

  // groups
  registrations: `SELECT name, ${registration} FROM groups ORDER BY name, pattern`,
  registrationsOf: `SELECT ${registration} FROM groups WHERE name = ? ORDER BY pattern`,
  addRegistration:
    "INSERT INTO groups (name, pattern, options, registered_at, history, paused, last_used_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
  setPaused: "UPDATE groups SET paused = ? WHERE name = ?",
  setUsed: "UPDATE groups SET last_used_at = ? WHERE name = ?",
  removeRegistrations: "DELETE FROM groups WHERE name = ?",
  isRegistered: "SELECT 1 FROM groups WHERE name = ? LIMIT 1",
  addState: "INSERT INTO group_states (group_name, topic, revision) VALUES (?, ?, 1) ON CONFLICT DO NOTHING",
  reviseState:
    "UPDATE group_states SET revision = revision + 1 WHERE group_name = ? AND topic = ? AND revision = ?",
  revision: "SELECT revision FROM group_states WHERE group_name = ? AND topic = ?",
  groupsOfTopic: "SELECT group_name FROM group_states WHERE topic = ? ORDER BY group_name",
  partsOfGroup:
    "SELECT topic, part FROM group_parts WHERE group_name = ? AND topic > ? ORDER BY topic, revision",
  removeStates: "DELETE FROM group_states WHERE group_name = ?",
  addPart: "INSERT INTO group_parts (group_name, topic, revision, part) VALUES (?, ?, ?, ?)",
  parts: "SELECT part FROM group_parts WHERE group_name = ? AND topic = ? ORDER BY revision",
  removePartsBefore: "DELETE FROM group_parts WHERE group_name = ? AND topic = ? AND revision < ?",
  removeParts: "DELETE FROM group_parts WHERE group_name = ?",

  // outbox
  addRecord:
    "INSERT INTO outbox (topic, id, key, tombstone, body, added_at, state, not_before) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (topic, id) DO NOTHING",
  wakeDue:
    "UPDATE outbox SET state = 'pending', not_before = NULL WHERE state = 'waiting' AND not_before <= ?",
  anyPending: "SELECT 1 FROM outbox WHERE state = 'pending' LIMIT 1",
  pendingAfter:
    "SELECT position, topic, id, key, tombstone, body, added_at, attempts FROM outbox WHERE state = 'pending' AND position > ? ORDER BY position LIMIT ?",
  openBetween:
    "SELECT worker FROM outbox WHERE topic = ? AND key = ? AND key IS NOT NULL AND done_at IS NULL AND position > ? AND position < ? ORDER BY position LIMIT 1",
  blockLine: `UPDATE outbox SET state = 'blocked' WHERE position IN (
    SELECT position FROM outbox
    WHERE topic = ? AND key = ? AND key IS NOT NULL AND done_at IS NULL AND position BETWEEN ? AND ?
      AND state = 'pending')`,
  claim:
    "UPDATE outbox SET state = 'claimed', token = ?, worker = ?, lease_until = ?, attempts = attempts + 1 WHERE position BETWEEN ? AND ?",
  // `+state`: the positions say which rows, and not the index that this writes to.
  markSent: `UPDATE outbox SET state = 'sent', done_at = ?, ${free}
    WHERE position BETWEEN ? AND ? AND +state = 'claimed' AND token = ?`,
  tryMarks: "SAVEPOINT marks",
  undoMarks: "ROLLBACK TO marks",
  keepMarks: "RELEASE marks",
  keyedBetween: "SELECT topic, key FROM outbox WHERE position BETWEEN ? AND ? AND key IS NOT NULL",
  markWaiting: `UPDATE outbox SET state = 'waiting', not_before = ?, last_error = ?, ${free} WHERE ${held}`,
  markDead: `UPDATE outbox SET state = 'dead', done_at = ?, last_error = ?, ${free} WHERE ${held}`,
  markReleased: `UPDATE outbox SET state = 'pending', attempts = attempts - 1, ${free} WHERE ${held}`,
  markPutOff: `UPDATE outbox SET state = 'waiting', not_before = ?, attempts = attempts - 1, ${free} WHERE ${held}`,
  anyBlocked: "SELECT 1 FROM outbox WHERE state = 'blocked' LIMIT 1",
  anyBlockedOf: "SELECT 1 FROM outbox WHERE topic = ? AND key = ? AND state = 'blocked' LIMIT 1",
  unblock: `UPDATE outbox SET state = 'pending' WHERE position IN (
    SELECT position FROM outbox WHERE topic = ? AND key = ? AND state = 'blocked'
    ORDER BY position LIMIT ?)`,
  expired: "SELECT position, topic, key, attempts FROM outbox WHERE state = 'claimed' AND lease_until <= ?",
  anyClaimed: "SELECT 1 FROM outbox WHERE state = 'claimed' LIMIT 1",
  endLeases: "UPDATE outbox SET lease_until = 0 WHERE state = 'claimed'",
  expire: `UPDATE outbox SET state = ?, done_at = ?, last_error = ?, ${free} WHERE position = ?`,
  outboxCounts: "SELECT state, n FROM outbox_counts",
  addToCount: "UPDATE outbox_counts SET n = n + ? WHERE state = ?",
  oldestInState: "SELECT added_at FROM outbox WHERE state = ? ORDER BY position LIMIT 1",
  listState: `SELECT ${columns} FROM outbox WHERE state = ? AND position > ? ORDER BY position LIMIT ?`,
  allDead: "SELECT count(*) AS n FROM outbox WHERE state = 'dead'",
  deadRecords: "SELECT position FROM outbox WHERE state = 'dead' ORDER BY position",
  deadRecord: "SELECT position FROM outbox WHERE topic = ? AND id = ? AND state = 'dead'",
  takeRecord: "DELETE FROM outbox WHERE position = ? RETURNING topic, id, key, tombstone, body, last_error",
  redriveRecord:
    "INSERT INTO outbox (topic, id, key, tombstone, body, added_at, state, last_error) VALUES (?, ?, ?, ?, ?, ?, 'pending', ?)",
  sentBefore: "SELECT count(*) AS n FROM outbox WHERE state = 'sent' AND done_at < ?",
  purge:
    "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox WHERE state = 'sent' AND done_at < ? LIMIT ?)"
} as const
