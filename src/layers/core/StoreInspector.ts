/** The Inspector over any stores. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { deadLetterTopic } from "../../domain/DeadLetter.ts"
import * as Event from "../../domain/Event.ts"
import * as Group from "../../domain/Group.ts"
import * as GroupView from "../../domain/GroupView.ts"
import * as Lag from "../../domain/Lag.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { EventStore, type TopicInfo } from "../../services/EventStore.ts"
import { GroupStore } from "../../services/GroupStore.ts"
import { type Cursor, GroupNotOnTopic, Inspector, TopicNotFound } from "../../services/Inspector.ts"

const markOf = (record: Event.StoredRecord): Lag.Mark => {
  const { id, seq, storedAt, ts } = Event.decode(record)
  return { seq, id, ts, storedAt }
}

const byGroup = (a: { readonly group: string }, b: { readonly group: string }): number =>
  a.group < b.group ? -1 : a.group > b.group ? 1 : 0

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

  /** The group as far as it concerns a topic. Whether it takes that is known by its patterns, or by its state. */
  const registrationsOf = (group: string, topic: string, isMet: boolean) =>
    Effect.flatMap(groups.list, (all) => {
      const own = all.filter((one) => one.group === group)
      const matching = own.filter(({ pattern }) => Topic.matches(pattern, topic))
      const [first, ...others] = matching.length > 0 || !isMet ? matching : own
      return first === undefined
        ? Effect.fail(new GroupNotOnTopic({ group, topic }))
        : Effect.succeed([first, ...others] as const)
    })

  /** What was stored lately. Only a topic that has not lost an event yet can be new. */
  const arrivalsOf = ({ floor, head, topic }: TopicInfo, now: number) =>
    Effect.gen(function* () {
      const position = yield* store.readTime({ topic, time: now - Lag.arrivalWindowMs })
      const first = position === 0 && floor === 0 ? yield* exactly(topic, 1) : undefined
      return { events: Math.max(0, head - position), bornAt: first?.storedAt } satisfies Lag.Arrivals
    })

  return Inspector.of({
    cursors: ({ after, limit, topic }) =>
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
        const all = [...met, ...unmet]
          .filter(({ group }) => after === undefined || group > after)
          .sort(byGroup)
        const page = all.slice(0, limit)
        const items = yield* Effect.forEach(page, ({ group, state }) =>
          Effect.map(exactly(topic, state.floor), (record): Cursor => {
            const last = record === undefined ? undefined : markOf(record)
            return {
              group,
              seq: state.floor,
              lastId: last?.id ?? null,
              lastTs: last?.ts ?? null,
              pending: GroupView.pending(state, head),
              inFlight: state.inFlight.size
            }
          })
        )
        return { items, next: all.length > limit ? page.at(-1)?.group : undefined }
      }),

    lag: ({ group, topic }) =>
      Effect.gen(function* () {
        const met = yield* groups.read({ group, topic })
        const info = yield* headOf(topic)
        const { head } = info
        const registrations = yield* registrationsOf(group, topic, met !== undefined)
        const history = yield* store.history
        const [{ options, paused }] = registrations
        // As a group begins on a topic that it takes and has not met.
        const state = met ?? Group.initial("", 0)
        const oldest = GroupView.oldestUnacked(state, head)
        const now = yield* Clock.currentTimeMillis
        const [cursor, tail, unacked, letters, arrivals] = yield* Effect.all([
          exactly(topic, state.floor),
          exactly(topic, head),
          oldest === undefined ? Effect.succeed(undefined) : firstFrom(topic, oldest),
          store.head(deadLetterTopic(group, topic)),
          arrivalsOf(info, now)
        ])
        return Lag.lag({
          topic,
          group,
          state,
          keyOrdered: options.keyOrdered,
          paused,
          sameHistory: registrations.some((one) => one.history === history),
          cursor: cursor === undefined ? undefined : markOf(cursor),
          head,
          tail: tail === undefined ? undefined : markOf(tail),
          oldestStoredAt: unacked?.storedAt,
          letters,
          arrivals,
          window: settings.window,
          now
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
        const history = yield* store.history
        const { head } = yield* headOf(page.topic)
        const { items, next } = yield* store.latestByKey(page)
        return { items: items.map(Event.decode), seq: head, history, next }
      })
  })
})

export const layer = (
  settings?: Settings.GroupSettings
): Layer.Layer<Inspector, never, EventStore | GroupStore> => Layer.effect(Inspector, make(settings))
