/**
 * One group goes on from another position in one topic, and what that means in events.
 *
 * Nearly all of it stands in the group's state. Only which events of busy keys were passed over, where there are more
 * than the state lists, has to be looked up in the log; that is counted before the state is changed, and holds as
 * long as the state still says the same of those events.
 */
import * as Effect from "effect/Effect"
import * as Group from "../../domain/Group.ts"
import * as GroupView from "../../domain/GroupView.ts"
import type { EventStore, TopicInfo } from "../../services/EventStore.ts"
import { GroupBusy, InvalidSeek, type SeekTarget, type Sought } from "../../services/GroupAdmin.ts"
import type { GroupNotFound, GroupStore } from "../../services/GroupStore.ts"
import { TopicNotFound } from "../../services/Inspector.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"

/** One look into the log: events, and bytes of them. */
const page = { limit: 1_000, maxBytes: 1024 * 1024 }

/** How often it is counted again, since the group went on. */
const maxTries = 10

/**
 * The state with nothing in it behind the end of the topic. A group stands there only when the store was put back to
 * an earlier time: what it had acknowledged there does not exist.
 */
const upTo = (state: Group.GroupState, head: number): Group.GroupState => {
  if (state.next - 1 <= head) return state
  const within = <A>(entries: ReadonlyMap<number, A>) => new Map([...entries].filter(([seq]) => seq <= head))
  const deferred = [...state.deferred].flatMap(
    ([key, { from, seqs, unlisted }]): ReadonlyArray<readonly [string, Group.Deferred]> => {
      const isWithin = from !== undefined && from <= head
      const rest = seqs.filter((seq) => seq <= head)
      if (rest.length === 0 && !isWithin) return []
      return [
        [key, { seqs: rest, from: isWithin ? from : undefined, unlisted: isWithin ? unlisted : 0 }] as const
      ]
    }
  )
  return {
    ...state,
    floor: Math.min(state.floor, head),
    next: head + 1,
    inFlight: within(state.inFlight),
    waiting: within(state.waiting),
    dying: within(state.dying),
    deferred: new Map(deferred)
  }
}

/** From where the events of a key are not listed, of the keys where that is before a position. */
const unlistedKeys = (state: Group.GroupState, floor: number): ReadonlyMap<string, number> => {
  const keys = new Map<string, number>()
  for (const [key, { from }] of state.deferred) if (from !== undefined && from <= floor) keys.set(key, from)
  return keys
}

const isSame = (a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): boolean =>
  a.size === b.size && [...a].every(([key, from]) => b.get(key) === from)

/** Where the target is in a topic: a floor between what can be read and the end. */
const floorOf = (
  store: EventStore["Service"],
  to: SeekTarget,
  { floor, head, topic }: TopicInfo
): Effect.Effect<number, InvalidSeek | StoreUnavailable> => {
  if (to === "start") return Effect.succeed(floor)
  if (to === "end") return Effect.succeed(head)
  if ("time" in to) {
    return Effect.map(store.readTime({ topic, time: to.time }), (position) => Math.max(floor, position))
  }
  return to.seq <= head
    ? Effect.succeed(Math.max(floor, to.seq))
    : Effect.fail(new InvalidSeek({ reason: `'${topic}' ends at ${head}, before ${to.seq}` }))
}

export interface SeekTopic {
  readonly group: string
  readonly topic: string
  readonly to: SeekTarget
  readonly dryRun: boolean
  readonly newGeneration: () => string
}

export const seekTopic = (
  store: EventStore["Service"],
  groups: GroupStore["Service"],
  { dryRun, group, newGeneration, to, topic }: SeekTopic
): Effect.Effect<Sought, GroupNotFound | TopicNotFound | InvalidSeek | GroupBusy | StoreUnavailable> => {
  const at = { group, topic }

  /** How many events up to the floor were passed over and are not listed. */
  const count = (state: Group.GroupState, floor: number) =>
    Effect.gen(function* () {
      const range = GroupView.unlistedUpTo(state, floor)
      if (range === undefined) return undefined
      let unlisted = 0
      let after = range.from - 1
      while (after < range.to) {
        const records = yield* store.read({ topic, after, ...page })
        for (const record of records) {
          if (record.seq <= range.to && GroupView.isUnlisted(state, record)) unlisted++
        }
        const last = records.at(-1)
        if (last === undefined) break
        after = last.seq
      }
      return { keys: unlistedKeys(state, floor), unlisted }
    })

  return Effect.gen(function* () {
    for (let tries = 0; tries < maxTries; tries++) {
      // The state before the head: one that is behind the head then stands where nothing is.
      const before = (yield* groups.read(at)) ?? Group.initial("", 0)
      const info = yield* store.head(topic)
      if (info === undefined) return yield* new TopicNotFound({ topic })
      const floor = yield* floorOf(store, to, info)
      const isLost = before.next - 1 > info.head
      /** What the group still has to do with: neither what was trimmed, nor what does not exist. */
      const visible = (state: Group.GroupState) =>
        Group.skipTrimmed(isLost ? upTo(state, info.head) : state, info.floor)
      const counted = yield* count(visible(before), floor)
      const effect = (state: Group.GroupState): Sought => ({
        topic,
        from: state.floor,
        to: floor,
        ...GroupView.seekEffect(visible(state), floor, counted?.unlisted)
      })
      if (dryRun) return effect(before)
      const generation = newGeneration()
      const sought = yield* groups.modify(at, (met) => {
        const state = met ?? Group.initial(generation, 0)
        const now = visible(state)
        const holds =
          GroupView.unlistedUpTo(now, floor) === undefined
            ? counted === undefined
            : counted !== undefined && isSame(counted.keys, unlistedKeys(now, floor))
        return holds ? [effect(state), Group.seek(state, { generation, floor })] : [undefined, state]
      })
      if (sought !== undefined) return sought
    }
    return yield* new GroupBusy(at)
  })
}
