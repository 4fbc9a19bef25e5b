/**
 * Consumer groups in an SQLite file: a state per group and topic, written by compare and set.
 *
 * A state is written as what changed, and as a whole when the changes have become longer than that: what a round
 * costs follows from what happened in it, however much waits.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import {
  conflicts,
  type GroupOptions,
  type GroupState,
  initial,
  type Registration
} from "../../domain/Group.ts"
import { decodeChanges, decodeState, encodeChange, encodeState } from "../../domain/GroupEncoding.ts"
import { type GroupCursor, GroupNotFound, GroupStore } from "../../services/GroupStore.ts"
import type { RegistrationRow } from "./groupCommands.ts"
import { SqliteDatabase } from "./SqliteDatabase.ts"
import type { Statements } from "./statements.ts"

interface Revised {
  readonly revision: number
  readonly state: GroupState
  /** Characters of the whole as it was written last, and of the changes since. */
  readonly whole: number
  readonly changes: number
}

/** So long may changes become, however short the whole is. */
const minChanges = 4_096

interface PartRow {
  readonly topic: string
  readonly part: string
}

const decoded = (whole: string, changes: ReadonlyArray<string>): GroupState =>
  Result.getOrThrow(Result.flatMap(decodeState(whole), (before) => decodeChanges(before, changes)))

const registrationOf = (group: string, row: RegistrationRow): Registration => ({
  group,
  pattern: row.pattern,
  options: JSON.parse(row.options) as GroupOptions,
  registeredAt: row.registered_at,
  history: row.history,
  paused: row.paused === 1,
  lastUsedAt: row.last_used_at
})

const make = Effect.gen(function* () {
  const db = yield* SqliteDatabase
  const clock = yield* Clock.Clock

  /** What was last read or written. Nobody else writes to the file's groups, so it is true. */
  const cached = new Map<string, Revised>()
  const keyOf = (at: { readonly group: string; readonly topic: string }) => `${at.group} ${at.topic}`

  const load = (statements: Statements, group: string, topic: string): Revised | undefined => {
    const row = statements.get<{ readonly revision: number }>("revision", group, topic)
    if (row === undefined) return undefined
    const [whole, ...changes] = statements
      .all<{ readonly part: string }>("parts", group, topic)
      .map(({ part }) => part)
    return {
      revision: row.revision,
      state: decoded(whole!, changes),
      whole: whole!.length,
      changes: changes.reduce((sum, { length }) => sum + length, 0)
    }
  }

  const stateOf = (statements: Statements, group: string, topic: string): GroupState | undefined =>
    (cached.get(keyOf({ group, topic })) ?? load(statements, group, topic))?.state

  /** The states of a group in one look, since there may be one for each topic that there is. */
  const statesOf = (statements: Statements, group: string, after: string, limit: number) => {
    const found: Array<GroupCursor> = []
    let topic: string | undefined
    let parts: Array<string> = []
    /** Where a group has only begun, its states are the same; and none ever changes. */
    let last: { readonly text: string; readonly state: GroupState } | undefined
    const decode = (whole: string, changes: ReadonlyArray<string>): GroupState => {
      if (changes.length > 0) return decoded(whole, changes)
      if (last?.text !== whole) last = { text: whole, state: decoded(whole, changes) }
      return last.state
    }
    const close = (): void => {
      if (topic === undefined) return
      const [whole, ...changes] = parts
      const state = cached.get(keyOf({ group, topic }))?.state ?? decode(whole!, changes)
      found.push({ group, topic, state })
    }
    for (const row of statements.each<PartRow>("partsOfGroup", group, after)) {
      if (row.topic === topic) {
        parts.push(row.part)
        continue
      }
      close()
      topic = undefined
      if (found.length >= limit) break
      topic = row.topic
      parts = [row.part]
    }
    close()
    return found
  }

  /** How a state is written after that. */
  const partOf = (
    before: Revised | undefined,
    state: GroupState
  ): Omit<Revised, "state"> & { readonly part: string } => {
    const revision = (before?.revision ?? 0) + 1
    if (before !== undefined) {
      const part = encodeChange(before.state, state)
      const changes = before.changes + part.length
      if (changes <= Math.max(minChanges, before.whole))
        return { revision, part, whole: before.whole, changes }
    }
    const part = encodeState(state)
    return { revision, part, whole: part.length, changes: 0 }
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
          const answer = yield* db.write("groups", "register", {
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
          rows = answer.rows
          const registration = rows.find((row) => row.pattern === pattern)
          if (!answer.changed && registration !== undefined) return registrationOf(group, registration)
        }
      }),

    list: db.read("GroupStore.list", (statements) =>
      statements
        .all<RegistrationRow & { readonly name: string }>("registrations")
        .map((row) => registrationOf(row.name, row))
    ),

    setPaused: (group, paused) => db.write("groups", "setPaused", { group, paused }),

    touch: (groups) =>
      groups.length === 0
        ? Effect.void
        : Effect.suspend(() => db.write("groups", "touch", { groups, now: clock.currentTimeMillisUnsafe() })),

    remove: (group, condition) =>
      Effect.tap(db.write("groups", "remove", { group, unusedSince: condition?.unusedSince }), (removed) =>
        Effect.sync(() => {
          if (!removed) return
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
          if (before !== undefined && state === before.state) {
            cached.set(key, before)
            return answer
          }
          const { part, ...written } = partOf(before, state)
          // Whether it was written is not known before it is answered.
          cached.delete(key)
          const saved = yield* db.write("groups", "save", {
            ...at,
            revision: before?.revision ?? 0,
            part,
            whole: written.changes === 0
          })
          if (saved === "saved") {
            cached.set(key, { ...written, state })
            return answer
          }
          if (saved === "no_group") return yield* new GroupNotFound({ group: at.group })
        }
      }),

    read: (at) => db.read("GroupStore.read", (statements) => stateOf(statements, at.group, at.topic)),

    cursors: (topic) =>
      db.read("GroupStore.cursors", (statements) =>
        statements
          .all<{ readonly group_name: string }>("groupsOfTopic", topic)
          .map(({ group_name: group }): GroupCursor => ({
            group,
            topic,
            state: stateOf(statements, group, topic)!
          }))
      ),

    topicsOf: (group, page) =>
      db.read("GroupStore.topicsOf", (statements) =>
        statesOf(statements, group, page?.after ?? "", page?.limit ?? Infinity)
      ),

    changes: Stream.empty
  })
})

export const layer: Layer.Layer<GroupStore, never, SqliteDatabase> = Layer.effect(GroupStore, make)
