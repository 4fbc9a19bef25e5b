/** Consumer groups in memory. One process, one step: `modify` cannot be interfered with. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { conflicts, type GroupState, initial, type Registration } from "../../domain/Group.ts"
import { type GroupCursor, GroupNotFound, GroupStore } from "../../services/GroupStore.ts"

interface Group {
  readonly registrations: Map<string, Registration>
  readonly states: Map<string, GroupState>
}

/** What is of the group stands in each of its registrations. */
const update = (group: Group, changed: Partial<Pick<Registration, "paused" | "lastUsedAt">>): void => {
  for (const [pattern, registration] of group.registrations) {
    group.registrations.set(pattern, { ...registration, ...changed })
  }
}

const byName = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

export const make = Effect.fnUntraced(function* () {
  const clock = yield* Clock.Clock
  const groups = new Map<string, Group>()
  const sorted = () => [...groups].sort(([a], [b]) => byName(a, b))

  return GroupStore.of({
    exclusive: true,
    register: ({ defaults, generation, group: name, history, pattern, positions, wanted }) =>
      Effect.suspend(() => {
        const group = groups.get(name) ?? { registrations: new Map(), states: new Map() }
        const [first] = group.registrations.values()
        if (first !== undefined) {
          const agreed = conflicts(first, wanted)
          if (Result.isFailure(agreed)) return Effect.fail(agreed.failure)
        }
        const now = clock.currentTimeMillisUnsafe()
        groups.set(name, group)
        if (!group.registrations.has(pattern)) {
          group.registrations.set(pattern, {
            group: name,
            pattern,
            options: first?.options ?? { ...defaults, ...wanted },
            registeredAt: now,
            history,
            paused: first?.paused ?? false,
            lastUsedAt: now
          })
          for (const [topic, floor] of positions) {
            if (!group.states.has(topic)) group.states.set(topic, initial(generation, floor))
          }
        }
        update(group, { lastUsedAt: now })
        return Effect.succeed(group.registrations.get(pattern)!)
      }),
    list: Effect.sync(() =>
      sorted().flatMap(([, group]) =>
        [...group.registrations.values()].sort((a, b) => byName(a.pattern, b.pattern))
      )
    ),
    setPaused: (name, paused) =>
      Effect.sync(() => {
        const group = groups.get(name)
        if (group !== undefined) update(group, { paused })
        return group !== undefined
      }),
    touch: (names) =>
      Effect.sync(() => {
        const lastUsedAt = clock.currentTimeMillisUnsafe()
        for (const name of names) {
          const group = groups.get(name)
          if (group !== undefined) update(group, { lastUsedAt })
        }
      }),
    remove: (name, { unusedSince } = { unusedSince: Infinity }) =>
      Effect.sync(() => {
        const [first] = groups.get(name)?.registrations.values() ?? []
        return first !== undefined && first.lastUsedAt < unusedSince && groups.delete(name)
      }),
    modify: (at, f) =>
      Effect.suspend(() => {
        const group = groups.get(at.group)
        if (group === undefined) return Effect.fail(new GroupNotFound({ group: at.group }))
        const [answer, state] = f(group.states.get(at.topic), clock.currentTimeMillisUnsafe())
        group.states.set(at.topic, state)
        return Effect.succeed(answer)
      }),
    read: ({ group, topic }) => Effect.sync(() => groups.get(group)?.states.get(topic)),
    cursors: (topic) =>
      Effect.sync(() =>
        sorted().flatMap(([group, { states }]): ReadonlyArray<GroupCursor> => {
          const state = states.get(topic)
          return state === undefined ? [] : [{ group, topic, state }]
        })
      ),
    topicsOf: (group, page) =>
      Effect.sync(() =>
        [...(groups.get(group)?.states ?? [])]
          .map(([topic, state]) => ({ group, topic, state }))
          .filter(({ topic }) => page?.after === undefined || topic > page.after)
          .sort((a, b) => byName(a.topic, b.topic))
          .slice(0, page?.limit)
      ),

    changes: Stream.empty
  })
})

export const layer: Layer.Layer<GroupStore> = Layer.effect(GroupStore, make())
