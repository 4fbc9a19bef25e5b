/** Consumer groups in memory. One process, one step: `modify` cannot be interfered with. */
import { Clock, Effect, Layer, Result } from "effect"
import { conflicts, type GroupState, initial, type Registration } from "../../domain/Group.ts"
import { type GroupCursor, GroupNotFound, GroupStore } from "../../services/GroupStore.ts"

interface Group {
  readonly registrations: Map<string, Registration>
  readonly states: Map<string, GroupState>
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
        const existing = group.registrations.get(pattern)
        if (existing !== undefined) return Effect.succeed(existing)
        const registration: Registration = {
          group: name,
          pattern,
          options: first?.options ?? { ...defaults, ...wanted },
          registeredAt: clock.currentTimeMillisUnsafe(),
          history
        }
        groups.set(name, group)
        group.registrations.set(pattern, registration)
        for (const [topic, floor] of positions) {
          if (!group.states.has(topic)) group.states.set(topic, initial(generation, floor))
        }
        return Effect.succeed(registration)
      }),
    list: Effect.sync(() =>
      sorted().flatMap(([, group]) =>
        [...group.registrations.values()].sort((a, b) => byName(a.pattern, b.pattern))
      )
    ),
    remove: (group) => Effect.sync(() => groups.delete(group)),
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
    topicsOf: (group) =>
      Effect.sync(() =>
        [...(groups.get(group)?.states ?? [])]
          .map(([topic, state]) => ({ group, topic, state }))
          .sort((a, b) => byName(a.topic, b.topic))
      )
  })
})

export const layer: Layer.Layer<GroupStore> = Layer.effect(GroupStore, make())
