/**
 * GroupDelivery over any stores: keeps the groups that have members here, a runner for each of their topics,
 * and wakes the runners when there is something to do.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { Position, StoredRecord } from "../../domain/Event.ts"
import type { Registration } from "../../domain/Group.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { Appender } from "../../services/Appender.ts"
import { EventStore, type Growth } from "../../services/EventStore.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { GroupDelivery, type Member, type Membership } from "../../services/GroupDelivery.ts"
import { type GroupChange, GroupStore } from "../../services/GroupStore.ts"
import { Ids } from "../../services/Ids.ts"
import { UnrecoverablePosition } from "../../services/LiveFeed.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { endMember, type GroupMember } from "./groupMember.ts"
import { type Environment, GroupRunner, type RunningGroup } from "./GroupRunner.ts"
import * as metrics from "./metrics.ts"
import { RecordCache } from "./RecordCache.ts"
import { positionsOf } from "./positions.ts"

const make = Effect.fnUntraced(function* (settings: Settings.GroupSettings = Settings.groups) {
  const store = yield* EventStore
  const groupStore = yield* GroupStore
  const appender = yield* Appender
  const ids = yield* Ids
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const fork = yield* FiberSet.makeRuntime()
  const groups = new Map<string, RunningGroup>()
  const live = new Set<string>()
  let runnersByTopic = new Map<string, ReadonlyArray<GroupRunner>>()
  let draining = false

  const forget = (group: RunningGroup): void => {
    if (group.members.size > 0 || [...group.runners.values()].some((runner) => !runner.isIdle)) return
    for (const runner of group.runners.values()) runner.stop()
    // A late answer of a member that is gone may have woken what had been forgotten before.
    if (groups.get(group.name) !== group) return
    groups.delete(group.name)
    runnersByTopic = new Map()
  }

  /** The group was removed: its members are told, and who joins a group of its name joins another one. */
  const dismiss = (group: RunningGroup): void => {
    group.isRemoved = true
    for (const member of group.members) endMember(member, "removed")
    if (groups.get(group.name) !== group) return
    groups.delete(group.name)
    runnersByTopic = new Map()
  }

  const recorder = yield* metrics.recorder
  const environment: Environment = {
    store,
    groups: groupStore,
    appender,
    settings,
    clock,
    random,
    recorder,
    sent: recorder.histogram(metrics.storedToSent, { path: "group" }),
    traces: yield* EventTraces,
    cache: new RecordCache(settings.cacheBytes),
    newGeneration: ids.next,
    fork: (effect) => fork(effect),
    isLive: (member) => live.has(member),
    isDraining: () => draining,
    onIdle: forget,
    onRemoved: dismiss
  }

  const runnerOf = (group: RunningGroup, topic: string): GroupRunner => {
    let runner = group.runners.get(topic)
    if (runner === undefined) {
      runner = new GroupRunner(environment, group, topic)
      group.runners.set(topic, runner)
      runnersByTopic.delete(topic)
    }
    return runner
  }

  /** The groups at work that take this topic. Remembered, since it is asked for every event. */
  const runnersOf = (topic: string): ReadonlyArray<GroupRunner> => {
    let runners = runnersByTopic.get(topic)
    if (runners === undefined) {
      runners = [...groups.values()]
        .filter((group) => [...group.members].some((member) => member.matches(topic)))
        .map((group) => runnerOf(group, topic))
      runnersByTopic.set(topic, runners)
    }
    return runners
  }

  const committed = (records: ReadonlyArray<StoredRecord>): void => {
    if (groups.size === 0) return
    const grown = new Set<GroupRunner>()
    for (const record of records) {
      for (const runner of runnersOf(record.topic)) {
        runner.committed(record)
        grown.add(runner)
      }
    }
    for (const runner of grown) runner.wake()
  }

  const grown = (topics: ReadonlyArray<Growth>): void => {
    for (const { head, topic } of topics) for (const runner of runnersOf(topic)) runner.grewTo(head)
  }

  yield* appender.onCommitted(committed)
  yield* appender.onGrown(grown)
  yield* store.changes.pipe(
    Stream.runForEach((topics) => Effect.sync(() => grown(topics))),
    Effect.forkScoped
  )

  /** Looks at what became of these groups: paused, removed, or at work in another hub. */
  const refresh = (names: Iterable<string>): Effect.Effect<void, StoreUnavailable> =>
    Effect.gen(function* () {
      const known = [...names].filter((name) => groups.has(name))
      if (known.length === 0) return
      const registrations = new Map((yield* groupStore.list).map((one) => [one.group, one]))
      for (const name of known) {
        const group = groups.get(name)
        if (group === undefined) continue
        const registration = registrations.get(name)
        if (registration === undefined) dismiss(group)
        else group.isPaused = registration.paused
        for (const runner of group.runners.values()) runner.wake()
      }
    })

  const changedElsewhere = (changes: ReadonlyArray<GroupChange>) => {
    const whole = new Set<string>()
    for (const { group, topic } of changes) {
      if (topic === undefined) whole.add(group)
      else groups.get(group)?.runners.get(topic)?.wake()
    }
    return Effect.ignore(refresh(whole))
  }

  yield* groupStore.changes.pipe(Stream.runForEach(changedElsewhere), Effect.forkScoped)
  if (!groupStore.exclusive) {
    const look = Effect.suspend(() => Effect.ignore(refresh(groups.keys())))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(settings.refreshMs), look)))
  }

  /** Every topic of the pattern, with its last seq. */
  const headsOf = (pattern: Topic.Pattern): Effect.Effect<ReadonlyMap<string, Position>, StoreUnavailable> =>
    Effect.gen(function* () {
      const heads = new Map<string, Position>()
      let after: string | undefined
      do {
        const page = yield* store.topics({ pattern, limit: 1_000, ...(after === undefined ? {} : { after }) })
        for (const { head, topic } of page.items) heads.set(topic, head)
        after = page.next
      } while (after !== undefined)
      return heads
    })

  const register = ({ from, group, history, pattern, wanted }: Membership) =>
    Effect.gen(function* () {
      const current = yield* store.history
      if (history !== undefined && history !== current) {
        return yield* new UnrecoverablePosition({ reason: "it belongs to another history of the store" })
      }
      const known = (yield* groupStore.list).some(
        (one) => one.group === group && one.pattern === pattern.name
      )
      const positions = known
        ? new Map<string, Position>()
        : yield* positionsOf(store, yield* headsOf(pattern), from, pattern)
      const registration = yield* groupStore.register({
        group,
        pattern: pattern.name,
        wanted,
        defaults: settings,
        history: current,
        generation: ids.next(),
        positions
      })
      if (registration.history !== current) {
        const reason = `group '${group}' was registered in another history of the store; remove it to begin anew`
        return yield* new UnrecoverablePosition({ reason })
      }
      return registration
    })

  const enter = ({ group: name, options, paused }: Registration, member: GroupMember): RunningGroup => {
    const group: RunningGroup = groups.get(name) ?? {
      name,
      options,
      isPaused: paused,
      isRemoved: false,
      members: new Set(),
      runners: new Map(),
      starved: new Set()
    }
    groups.set(name, group)
    group.members.add(member)
    live.add(member.id)
    runnersByTopic = new Map()
    return group
  }

  /** Everything that is left to do when a member goes, in each topic in which it has something. */
  const depart = (group: RunningGroup, member: GroupMember, graceful: boolean): Effect.Effect<void> =>
    Effect.suspend(() => {
      member.isClosed = true
      live.delete(member.id)
      group.members.delete(member)
      runnersByTopic = new Map()
      const waits = [...member.held.keys()].map((topic) => {
        const done = Deferred.makeUnsafe<void>()
        runnerOf(group, topic).depart({
          member,
          graceful,
          done: () => Deferred.doneUnsafe(done, Effect.void)
        })
        return Deferred.await(done)
      })
      // Others may take what it leaves, or what it held up.
      for (const runner of group.runners.values()) runner.wake()
      forget(group)
      return Effect.all(waits, { discard: true })
    })

  /** Rounds that began before the hub was told to stop still hand something out. */
  const roundsUnderWay = Effect.sync(() =>
    [...groups.values()].every((group) => [...group.runners.values()].every((runner) => !runner.isHandingOut))
  ).pipe(
    Effect.repeat({ until: (isDone) => isDone, schedule: Schedule.spaced("5 millis") }),
    Effect.timeoutOption("1 second"),
    Effect.asVoid
  )

  const areDeparted = (): boolean =>
    [...groups.values()].every(
      ({ members, runners }) => members.size > 0 || [...runners.values()].every((runner) => runner.isIdle)
    )

  /**
   * What the last members leave behind is stored before this hub is gone: else others would wait for its time-out. Nobody
   * else waits for it when a connection closes, and where other hubs change the same state a round takes several tries.
   * In true time, whatever the clock of a test says.
   */
  const departures = Effect.sync(areDeparted).pipe(
    Effect.repeat({ until: (areDone) => areDone, schedule: Schedule.spaced("5 millis") }),
    Effect.timeoutOption(settings.departMs),
    Effect.provideService(Clock.Clock, Clock.Clock.defaultValue()),
    Effect.asVoid
  )

  // Added last, so it runs before the fibers of the runners are interrupted.
  yield* Effect.addFinalizer(() => departures)

  const inFlight = (): number => {
    let open = 0
    for (const group of groups.values()) for (const member of group.members) open += member.inFlight
    return open
  }
  yield* recorder.gauge(metrics.groupInFlight, inFlight)
  yield* recorder.gauge(metrics.groupMembers, () => live.size)

  return GroupDelivery.of({
    join: (membership) =>
      Effect.gen(function* () {
        const { credit, pattern, sink } = membership
        const registration = yield* register(membership)
        const matched = new Map<string, boolean>()
        const member: GroupMember = {
          id: ids.next(),
          credit,
          sink,
          matches: (topic) => {
            let answer = matched.get(topic)
            if (answer === undefined) {
              answer = Topic.matches(pattern, topic)
              matched.set(topic, answer)
            }
            return answer
          },
          isStarted: false,
          isPaused: false,
          isClosed: false,
          inFlight: 0,
          reserved: 0,
          holdFor: undefined,
          held: new Map()
        }
        let left = false
        const group = yield* Effect.acquireRelease(
          Effect.sync(() => enter(registration, member)),
          (entered) => (left ? Effect.void : Effect.sync(() => fork(depart(entered, member, false))))
        )
        const heads = yield* headsOf(pattern)
        for (const [topic, head] of heads) runnerOf(group, topic).grewTo(head)
        const wakeOwn = () => {
          for (const runner of group.runners.values()) if (member.matches(runner.topic)) runner.wake()
        }
        return {
          start: () => {
            member.isStarted = true
            wakeOwn()
          },
          holds: (topic, id) => member.held.get(topic)?.has(id) === true,
          setPaused: (paused) => {
            const resumed = member.isPaused && !paused
            member.isPaused = paused
            if (resumed) wakeOwn()
          },
          answer: (answer, done) => {
            if (!member.matches(answer.topic)) return done(answer.ids.map(() => "stale"))
            runnerOf(group, answer.topic).answer(member, answer, done)
          },
          leave: Effect.suspend(() => {
            if (left) return Effect.void
            left = true
            return depart(group, member, true)
          })
        } satisfies Member
      }),
    drain: Effect.suspend(() => {
      draining = true
      return roundsUnderWay
    }),
    refresh: (name) => refresh([name]),
    activeGroups: () =>
      [...groups.values()].filter(({ members }) => members.size > 0).map(({ name }) => name),
    members: (name) => groups.get(name)?.members.size ?? 0,
    inFlight
  })
})

export const layer = (
  settings?: Settings.GroupSettings
): Layer.Layer<GroupDelivery, never, EventStore | GroupStore | Appender | Ids> =>
  Layer.effect(GroupDelivery, make(settings))
