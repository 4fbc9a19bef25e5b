/** Consumer groups in an SQLite file: a row per group and topic, written by compare and set. */
import { Clock, Effect, Layer, Result } from "effect"
import {
  conflicts,
  decodeState,
  encodeState,
  type GroupOptions,
  type GroupState,
  initial,
  type Registration
} from "../../domain/Group.ts"
import { type GroupCursor, GroupNotFound, GroupStore } from "../../services/GroupStore.ts"
import type { RegistrationRow } from "./groupCommands.ts"
import { SqliteDatabase } from "./SqliteDatabase.ts"
import type { Statements } from "./statements.ts"

interface Revised {
  readonly revision: number
  readonly state: GroupState
}

const decodeRow = (row: { readonly state: string }): GroupState => Result.getOrThrow(decodeState(row.state))

const registrationOf = (group: string, row: RegistrationRow): Registration => ({
  group,
  pattern: row.pattern,
  options: JSON.parse(row.options) as GroupOptions,
  registeredAt: row.registered_at,
  history: row.history
})

const make = Effect.gen(function* () {
  const db = yield* SqliteDatabase
  const clock = yield* Clock.Clock

  /** What was last read or written. Nobody else writes to the file's groups, so it is true. */
  const cached = new Map<string, Revised>()
  const keyOf = (at: { readonly group: string; readonly topic: string }) => `${at.group} ${at.topic}`

  const load = (statements: Statements, group: string, topic: string): Revised | undefined => {
    const row = statements.get<{ readonly revision: number; readonly state: string }>("state", group, topic)
    return row === undefined ? undefined : { revision: row.revision, state: decodeRow(row) }
  }

  const registered = (group: string) =>
    db.read("GroupStore.register", (statements) => statements.all<RegistrationRow>("registrationsOf", group))

  return GroupStore.of({
    exclusive: true,

    register: ({ defaults, generation, group, history, pattern, positions, wanted }) =>
      Effect.gen(function* () {
        let rows = yield* registered(group)
        for (;;) {
          const first = rows[0] === undefined ? undefined : registrationOf(group, rows[0])
          if (first !== undefined) yield* Effect.fromResult(conflicts(first, wanted))
          const existing = rows.find((row) => row.pattern === pattern)
          if (existing !== undefined) return registrationOf(group, existing)
          rows = yield* db.write("groups", "register", {
            group,
            pattern,
            options: rows[0]?.options ?? JSON.stringify({ ...defaults, ...wanted }),
            seen: rows[0]?.options,
            now: clock.currentTimeMillisUnsafe(),
            history,
            states: Array.from(
              positions,
              ([topic, floor]) => [topic, encodeState(initial(generation, floor))] as const
            )
          })
        }
      }),

    list: db.read("GroupStore.list", (statements) =>
      statements
        .all<RegistrationRow & { readonly name: string }>("registrations")
        .map((row) => registrationOf(row.name, row))
    ),

    remove: (group) =>
      Effect.tap(db.write("groups", "remove", { group }), () =>
        Effect.sync(() => {
          for (const key of cached.keys()) if (key.startsWith(`${group} `)) cached.delete(key)
        })
      ),

    modify: (at, f) =>
      Effect.gen(function* () {
        const key = keyOf(at)
        for (;;) {
          const before =
            cached.get(key) ??
            (yield* db.read("GroupStore.modify", (statements) => load(statements, at.group, at.topic)))
          const [answer, state] = f(before?.state, clock.currentTimeMillisUnsafe())
          if (before !== undefined && state === before.state) return answer
          const revision = before?.revision ?? 0
          const saved = yield* db.write("groups", "save", { ...at, revision, state: encodeState(state) })
          if (saved === "saved") {
            cached.set(key, { revision: revision + 1, state })
            return answer
          }
          cached.delete(key)
          if (saved === "no_group") return yield* new GroupNotFound({ group: at.group })
        }
      }),

    read: (at) => db.read("GroupStore.read", (statements) => load(statements, at.group, at.topic)?.state),

    cursors: (topic) =>
      db.read("GroupStore.cursors", (statements) =>
        statements
          .all<{ readonly group_name: string; readonly state: string }>("statesOfTopic", topic)
          .map((row): GroupCursor => ({ group: row.group_name, topic, state: decodeRow(row) }))
      ),

    topicsOf: (group) =>
      db.read("GroupStore.topicsOf", (statements) =>
        statements
          .all<{ readonly topic: string; readonly state: string }>("statesOfGroup", group)
          .map((row): GroupCursor => ({ group, topic: row.topic, state: decodeRow(row) }))
      )
  })
})

export const layer: Layer.Layer<GroupStore, never, SqliteDatabase> = Layer.effect(GroupStore, make)
