/** The Inspector over any stores. */
import { Clock, Effect, Layer } from "effect"
import { deadLetterTopic } from "../../domain/DeadLetter.ts"
import * as Event from "../../domain/Event.ts"
import * as Group from "../../domain/Group.ts"
import * as Lag from "../../domain/Lag.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { EventStore } from "../../services/EventStore.ts"
import { GroupStore } from "../../services/GroupStore.ts"
import { type Cursor, GroupNotOnTopic, Inspector, TopicNotFound } from "../../services/Inspector.ts"

const markOf = (record: Event.StoredRecord): Lag.Mark => {
  const { id, seq, storedAt, ts } = Event.decode(record)
  return { seq, id, ts, storedAt }
}

const make = Effect.fnUntraced(function* (settings: Settings.GroupSettings = Settings.groups) {
  const store = yield* EventStore
  const groups = yield* GroupStore

  const headOf = (topic: string) =>
    Effect.flatMap(store.head(topic), (info) =>
      info === undefined ? Effect.fail(new TopicNotFound({ topic })) : Effect.succeed(info)
    )

  /** The first event at or behind a seq. */
  const firstFrom = (topic: string, seq: number) =>
    Effect.map(store.read({ topic, after: Math.max(0, seq - 1), limit: 1 }), (records) => records[0])

  const exactly = (topic: string, seq: number) =>
    Effect.map(firstFrom(topic, seq), (record) => (record?.seq === seq ? record : undefined))

  /** As a group begins on a topic that it takes and has not met. */
  const unmetState = (group: string, topic: string) =>
    Effect.flatMap(groups.list, (registrations) =>
      registrations.some((one) => one.group === group && Topic.matches(one.pattern, topic))
        ? Effect.succeed(Group.initial("", 0))
        : Effect.fail(new GroupNotOnTopic({ group, topic }))
    )

  return Inspector.of({
    cursors: (topic) =>
      Effect.gen(function* () {
        // States before the head: what is appended in between makes a group look behind, never done.
        const met = yield* groups.cursors(topic)
        const { head } = yield* headOf(topic)
        const others = (yield* groups.list).filter(
          ({ group, pattern }) =>
            Topic.matches(pattern, topic) && !met.some((cursor) => cursor.group === group)
        )
        const unmet = [...new Set(others.map(({ group }) => group))].map((group) => ({
          group,
          state: Group.initial("", 0)
        }))
        return yield* Effect.forEach([...met, ...unmet], ({ group, state }) =>
          Effect.map(exactly(topic, state.floor), (record): Cursor => {
            const last = record === undefined ? undefined : markOf(record)
            return {
              group,
              seq: state.floor,
              lastId: last?.id ?? null,
              lastTs: last?.ts ?? null,
              pending: Group.pending(state, head),
              inFlight: state.inFlight.size
            }
          })
        )
      }),

    lag: ({ group, topic }) =>
      Effect.gen(function* () {
        const met = yield* groups.read({ group, topic })
        const { head } = yield* headOf(topic)
        const state = met ?? (yield* unmetState(group, topic))
        const oldest = Group.oldestUnacked(state, head)
        const [cursor, tail, unacked, dead] = yield* Effect.all([
          exactly(topic, state.floor),
          exactly(topic, head),
          oldest === undefined ? Effect.succeed(undefined) : firstFrom(topic, oldest),
          store.head(deadLetterTopic(group, topic))
        ])
        return Lag.lag({
          topic,
          group,
          state,
          cursor: cursor === undefined ? undefined : markOf(cursor),
          tail: tail === undefined ? undefined : markOf(tail),
          oldestStoredAt: unacked?.storedAt,
          dead: dead === undefined ? 0 : dead.head - dead.floor,
          window: settings.window,
          now: yield* Clock.currentTimeMillis
        })
      }),

    latestOf: ({ keys, topic }) =>
      Effect.gen(function* () {
        yield* headOf(topic)
        const latest = yield* store.latestOf({ topic, keys })
        return new Map(Array.from(latest, ([key, record]) => [key, Event.decode(record)]))
      }),

    latestByKey: (page) =>
      Effect.gen(function* () {
        const { head } = yield* headOf(page.topic)
        const { items, next } = yield* store.latestByKey(page)
        return { items: items.map(Event.decode), seq: head, next }
      })
  })
})

export const layer = (
  settings?: Settings.GroupSettings
): Layer.Layer<Inspector, never, EventStore | GroupStore> => Layer.effect(Inspector, make(settings))
