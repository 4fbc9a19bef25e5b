/** The GroupAdmin over any stores. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as DeadLetter from "../../domain/DeadLetter.ts"
import * as Event from "../../domain/Event.ts"
import * as Group from "../../domain/Group.ts"
import * as GroupRedrive from "../../domain/GroupRedrive.ts"
import * as GroupView from "../../domain/GroupView.ts"
import * as Letters from "../../domain/Letters.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { EventStore, type TopicInfo } from "../../services/EventStore.ts"
import {
  type At,
  type BlockedPlace,
  type DeadLetterInfo,
  ForeignHistory,
  type Forgotten,
  GroupAdmin,
  type GroupInfo,
  type GroupPosition,
  InvalidSeek,
  KeyNotBlocked,
  type SeekTarget,
  type Sought
} from "../../services/GroupAdmin.ts"
import { GroupDelivery } from "../../services/GroupDelivery.ts"
import { GroupNotFound, GroupStore } from "../../services/GroupStore.ts"
import { Ids } from "../../services/Ids.ts"
import { GroupNotOnTopic, TopicNotFound } from "../../services/Inspector.ts"
import type { Page } from "../../services/Page.ts"
import { seekTopic } from "./groupSeek.ts"

/** Topics of one look into the store. */
const topicsPerPage = 1_000

/** Letters, and bytes of them, of one look into the log. */
const look = { limit: 500, maxBytes: 1024 * 1024 }

/** Letters that are read for one page at most, and bytes of those that are in it. */
const maxLooked = 10_000
const maxPageBytes = 4 * 1024 * 1024

type Settled = Pick<Settings.RetentionSettings, "unusedGroupMs">

type Registrations = readonly [Group.Registration, ...ReadonlyArray<Group.Registration>]

const isRegistered = (all: ReadonlyArray<Group.Registration>): all is Registrations => all.length > 0

/** What the group takes. Only checked names are registered. */
const patternsOf = (registrations: Registrations): ReadonlyArray<Topic.Pattern> =>
  registrations.map(({ pattern }) => Result.getOrThrow(Topic.parsePattern(pattern)))

const byTopic = (a: TopicInfo, b: TopicInfo): number => (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0)

const isBehind = (one: BlockedPlace, other: BlockedPlace): boolean =>
  one.since > other.since || (one.since === other.since && one.seq > other.seq)

const seekProblem = (to: SeekTarget, topic: Topic.Pattern | undefined): string | undefined => {
  if (typeof to === "string") return undefined
  if ("time" in to) return Number.isFinite(to.time) ? undefined : "the time is no finite number"
  if (!Number.isSafeInteger(to.seq) || to.seq < 0) return "a seq is a whole number, 0 for the first event"
  return topic?.concrete === true ? undefined : "a seq is one of a topic: name that, without wildcards"
}

const make = Effect.fnUntraced(function* ({ unusedGroupMs }: Settled = Settings.retention) {
  const store = yield* EventStore
  const groups = yield* GroupStore
  const delivery = yield* GroupDelivery
  const ids = yield* Ids

  // --- who there is, and where ---------------------------------------------------------------------------------

  const registrationsOf = (group: string) =>
    Effect.flatMap(groups.list, (all) => {
      const own = all.filter((one) => one.group === group)
      return isRegistered(own) ? Effect.succeed(own) : Effect.fail(new GroupNotFound({ group }))
    })

  const describe = Effect.gen(function* () {
    const history = yield* store.history
    const now = yield* Clock.currentTimeMillis
    const active = new Set(delivery.activeGroups())
    return (registrations: Registrations): GroupInfo => {
      const [{ group, lastUsedAt, options, paused }] = registrations
      return {
        group,
        patterns: registrations.map(({ pattern }) => pattern),
        options,
        registeredAt: Math.min(...registrations.map(({ registeredAt }) => registeredAt)),
        lastUsedAt,
        paused,
        sameHistory: registrations.every((one) => one.history === history),
        unused: !active.has(group) && lastUsedAt < now - unusedGroupMs,
        active: active.has(group)
      }
    }
  })

  /** Topics that one of the patterns matches, in the order of their names. */
  const topicsOf = (patterns: ReadonlyArray<Topic.Pattern>, after: string | undefined, limit: number) =>
    Effect.gen(function* () {
      const found = new Map<string, TopicInfo>()
      /** Up to here nothing is missing. */
      let known: string | undefined
      for (const pattern of patterns) {
        const { items, next } = yield* store.topics({
          pattern,
          limit,
          ...(after === undefined ? {} : { after })
        })
        for (const info of items) found.set(info.topic, info)
        if (next !== undefined && (known === undefined || next < known)) known = next
      }
      const all = [...found.values()]
        .filter(({ topic }) => known === undefined || topic <= known)
        .sort(byTopic)
      const items = all.slice(0, limit)
      return { items, next: all.length > limit ? items.at(-1)?.topic : known } satisfies Page<TopicInfo>
    })

  /** Fails unless the group takes the topic and there is one. */
  const check = ({ group, topic }: At) =>
    Effect.gen(function* () {
      const registrations = yield* registrationsOf(group)
      if (!registrations.some(({ pattern }) => Topic.matches(pattern, topic))) {
        return yield* new GroupNotOnTopic({ group, topic })
      }
      if ((yield* store.head(topic)) === undefined) return yield* new TopicNotFound({ topic })
      return registrations
    })

  /** Members that are here go on by what was changed, also by what was changed before it failed. */
  const thenRefresh = <A, E, R>(group: string, change: Effect.Effect<A, E, R>) =>
    Effect.onExit(change, () => delivery.refresh(group))

  const setPaused = (group: string, paused: boolean) =>
    thenRefresh(
      group,
      Effect.flatMap(groups.setPaused(group, paused), (found) =>
        found ? Effect.void : Effect.fail(new GroupNotFound({ group }))
      )
    )

  // --- seek ----------------------------------------------------------------------------------------------------

  /** The topics that a seek is about; those of a pattern in pages. */
  const eachTopic = <A, E, R>(
    registrations: Registrations,
    wanted: Topic.Pattern | undefined,
    f: (topic: string) => Effect.Effect<A, E, R>
  ) =>
    Effect.gen(function* () {
      const own = patternsOf(registrations)
      const answers: Array<A> = []
      let after: string | undefined
      do {
        const page = yield* topicsOf(wanted === undefined ? own : [wanted], after, topicsPerPage)
        for (const { topic } of page.items) {
          if (own.some((pattern) => Topic.matches(pattern, topic))) answers.push(yield* f(topic))
        }
        after = page.next
      } while (after !== undefined)
      return answers
    })

  // --- dead letters --------------------------------------------------------------------------------------------

  const checkFilter = (filter: Group.RedriveFilter | undefined) =>
    Effect.fromResult(Letters.checkFilter(filter ?? {}))

  /** Where letters can stand that match; nothing when there are none. */
  const rangeOf = ({ group, topic }: At, filter: Group.RedriveFilter) =>
    Effect.map(store.head(DeadLetter.deadLetterTopic(group, topic)), (info) =>
      info === undefined ? undefined : Letters.rangeOf(filter, { from: info.floor + 1, to: info.head })
    )

  /**
   * Goes through the letters that match a filter, in pages, until there are no more or `f` has seen enough. Answers
   * the last position it looked at.
   */
  const eachLetter = (
    { group, topic }: At,
    filter: Group.RedriveFilter,
    range: { readonly from: number; readonly to: number; readonly most: number },
    f: (letter: Event.StoredRecord, death: DeadLetter.Death) => boolean
  ) =>
    Effect.gen(function* () {
      const letters = DeadLetter.deadLetterTopic(group, topic)
      const to = Math.min(range.to, range.from + range.most - 1)
      let at = range.from - 1
      while (at < to) {
        const records = yield* store.read({ topic: letters, after: at, ...look })
        if (records.length === 0) return to
        for (const record of records) {
          if (record.seq > to) return to
          at = record.seq
          const death = DeadLetter.deathOf(record)
          if (death !== undefined && DeadLetter.isAskedFor(filter, record, death) && !f(record, death))
            return at
        }
      }
      return at
    })

  return GroupAdmin.of({
    list: ({ after, limit }) =>
      Effect.gen(function* () {
        const byGroup = Map.groupBy(yield* groups.list, ({ group }) => group)
        const names = [...byGroup.keys()].filter((name) => after === undefined || name > after).sort()
        const info = yield* describe
        const items = names.slice(0, limit).flatMap((name) => {
          const own = byGroup.get(name) ?? []
          return isRegistered(own) ? [info(own)] : []
        })
        return { items, next: names.length > limit ? items.at(-1)?.group : undefined }
      }),

    get: (group) =>
      Effect.gen(function* () {
        const registrations = yield* registrationsOf(group)
        return (yield* describe)(registrations)
      }),

    positions: ({ after, group, limit }) =>
      Effect.gen(function* () {
        const registrations = yield* registrationsOf(group)
        const { items, next } = yield* topicsOf(patternsOf(registrations), after, limit)
        const positions = yield* Effect.forEach(items, ({ head, topic }) =>
          Effect.map(groups.read({ group, topic }), (met): GroupPosition => {
            const state = met ?? Group.initial("", 0)
            const pending = GroupView.pending(state, head)
            return { topic, seq: state.floor, head, pending, inFlight: state.inFlight.size }
          })
        )
        return { items: positions, next }
      }),

    seek: ({ dryRun = false, group, to, topic: wanted }) =>
      Effect.gen(function* () {
        const reason = seekProblem(to, wanted)
        if (reason !== undefined) return yield* new InvalidSeek({ reason })
        const registrations = yield* registrationsOf(group)
        const own = patternsOf(registrations)
        if (wanted !== undefined && !own.some((pattern) => Topic.overlaps(pattern, wanted))) {
          return yield* new GroupNotOnTopic({ group, topic: wanted.name })
        }
        const history = yield* store.history
        if (!registrations.some((one) => one.history === history)) return yield* new ForeignHistory({ group })
        const one = (topic: string) =>
          seekTopic(store, groups, { group, topic, to, dryRun, newGeneration: ids.next })
        const all: Effect.Effect<
          ReadonlyArray<Sought>,
          Effect.Error<ReturnType<typeof one>>
        > = wanted?.concrete === true
          ? Effect.map(one(wanted.name), (sought) => [sought])
          : eachTopic(registrations, wanted, one)
        return yield* dryRun ? all : thenRefresh(group, all)
      }),

    pause: (group) => setPaused(group, true),
    resume: (group) => setPaused(group, false),
    remove: (group, { dryRun = false } = {}) =>
      Effect.gen(function* () {
        yield* registrationsOf(group)
        const states = (yield* groups.topicsOf(group)).map(({ state }) => state)
        const forgotten: Forgotten = {
          positions: states.length,
          inFlight: states.reduce((sum, { inFlight }) => sum + inFlight.size, 0),
          waiting: states.reduce((sum, { waiting }) => sum + waiting.size, 0)
        }
        if (dryRun) return forgotten
        const found = yield* thenRefresh(group, groups.remove(group))
        return found ? forgotten : yield* new GroupNotFound({ group })
      }),

    blockedKeys: ({ after, group, limit, topic }) =>
      Effect.gen(function* () {
        const [{ options }] = yield* check({ group, topic })
        const state = yield* groups.read({ group, topic })
        if (!options.keyOrdered || state === undefined) return { total: 0, keys: [], next: undefined }
        const now = yield* Clock.currentTimeMillis
        const all = GroupView.blockedKeys(state)
        const rest = after === undefined ? all : all.filter((one) => isBehind(one, after))
        const keys = rest.slice(0, limit).map((one) => ({ ...one, ageMs: Math.max(0, now - one.since) }))
        const last = keys.at(-1)
        const next =
          rest.length > limit && last !== undefined ? { since: last.since, seq: last.seq } : undefined
        return { total: all.length, keys, next }
      }),

    releaseKey: ({ dryRun = false, group, key, mode, topic }) =>
      Effect.gen(function* () {
        const refused = (reason: string) => new KeyNotBlocked({ group, topic, key, reason })
        const [{ options }] = yield* check({ group, topic })
        if (!options.keyOrdered)
          return yield* refused("the group is not key-ordered, no key waits for another event")
        if (mode === "dead-letter" && DeadLetter.isDeadLetterTopic(topic)) {
          return yield* refused("dead letters are never given up again; retry it, or seek behind it")
        }
        const generation = ids.next()
        const release = (
          met: Group.GroupState | undefined,
          now: number
        ): readonly [number | KeyNotBlocked, Group.GroupState] => {
          const state = met ?? Group.initial(generation, 0)
          const blocked = GroupView.blockedKeys(state).find((one) => one.key === key)
          if (blocked === undefined) return [refused("none of its events has failed and waits"), state]
          if (blocked.state === "dying") return [refused("its event goes to the dead letters already"), state]
          if (blocked.state === "inFlight" && mode === "retry") {
            return [refused("its event is with a member at the moment"), state]
          }
          const released = Group.releaseKey(state, { key, mode, now })
          return [released.seq ?? refused("none of its events waits"), released.state]
        }
        const look = Effect.map(
          Effect.all([groups.read({ group, topic }), Clock.currentTimeMillis]),
          ([met, now]) => release(met, now)[0]
        )
        const answer = yield* dryRun ? look : thenRefresh(group, groups.modify({ group, topic }, release))
        return typeof answer === "number" ? answer : yield* answer
      }),

    deadLetters: ({ after, filter: asked, group, limit, topic }) =>
      Effect.gen(function* () {
        const filter = yield* checkFilter(asked)
        const within = yield* rangeOf({ group, topic }, filter)
        // Letters outlive their group; without any, it is worth saying that there is no such group.
        if (within === undefined) {
          yield* check({ group, topic })
          return { items: [], next: undefined }
        }
        const state = (yield* groups.read({ group, topic })) ?? Group.initial("", 0)
        const items: Array<DeadLetterInfo> = []
        let bytes = 0
        const from = Math.max(within.from, (after ?? 0) + 1)
        const last = yield* eachLetter(
          { group, topic },
          filter,
          { from, to: within.to, most: maxLooked },
          (letter, death) => {
            bytes += letter.body.length
            items.push({
              letter: letter.seq,
              status: Letters.statusOf(state, letter, death),
              diedAt: letter.storedAt,
              death,
              event: Event.decode(letter)
            })
            return items.length < limit && bytes < maxPageBytes
          }
        )
        return { items, next: last < within.to ? last : undefined }
      }),

    redrive: ({ dryRun = false, filter: asked, group, topic }) =>
      Effect.gen(function* () {
        const filter = yield* checkFilter(asked)
        yield* check({ group, topic })
        const within = yield* rangeOf({ group, topic }, filter)
        if (within === undefined) return { matched: 0 }
        const state = (yield* groups.read({ group, topic })) ?? Group.initial("", 0)
        let matched = 0
        yield* eachLetter({ group, topic }, filter, { ...within, most: Infinity }, (letter, death) => {
          if (Letters.statusOf(state, letter, death) === "dead") matched++
          return true
        })
        if (dryRun || matched === 0) return { matched }
        const generation = ids.next()
        const plan = groups.modify({ group, topic }, (met) => {
          const state = met ?? Group.initial(generation, 0)
          const planned = GroupRedrive.plan(state, { next: within.from, upTo: within.to, filter })
          return [planned, Result.getOrElse(planned, () => state)]
        })
        yield* Effect.fromResult(yield* thenRefresh(group, plan))
        return { matched }
      })
  })
})

export const layer = (
  settings?: Settled
): Layer.Layer<GroupAdmin, never, EventStore | GroupStore | GroupDelivery | Ids> =>
  Layer.effect(GroupAdmin, make(settings))
