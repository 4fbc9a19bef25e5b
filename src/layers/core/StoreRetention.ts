/**
 * Retention over any stores: goes through the topics of each rule, asks domain/Retention what may go, and trims it
 * in steps, so that nobody who appends or reads meanwhile waits for long.
 *
 * What groups need is read right before each step. A group that is registered, or goes back, at that moment loses no
 * more than the step had decided on, and is told so by a gap.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import * as DeadLetter from "../../domain/DeadLetter.ts"
import * as GroupRedrive from "../../domain/GroupRedrive.ts"
import * as Rules from "../../domain/Retention.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { EventStore, type TopicInfo } from "../../services/EventStore.ts"
import { GroupDelivery } from "../../services/GroupDelivery.ts"
import { GroupStore } from "../../services/GroupStore.ts"
import { type HeldBack, Retention, type RetentionReport } from "../../services/Retention.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as metrics from "./metrics.ts"
import { type GroupUse, lookAtGroups, maxListed } from "./unusedGroups.ts"

/** After a start the hub finds its work first: what an outbox had begun to send is sent again and recognised. */
const firstLook = 5_000

const topicsPerPage = 500

/** Events that one step forgets. */
const eventsPerStep = 2_000

/** A report while it is made: the lists hold the first entries, the figures count all. */
const makeReport = (startedAt: number) => {
  const trimmed: Array<RetentionReport["trimmed"][number]> = []
  const heldBack: Array<HeldBack> = []
  let topics = 0
  let topicsTrimmed = 0
  let eventsForgotten = 0
  let topicsHeldBack = 0
  return {
    addTopic: () => void topics++,
    addTrimmed: (topic: string, forgotten: number, floor: number) => {
      topicsTrimmed++
      eventsForgotten += forgotten
      if (trimmed.length < maxListed) trimmed.push({ topic, forgotten, floor })
    },
    addHeldBack: (entry: HeldBack) => {
      topicsHeldBack++
      if (heldBack.length < maxListed) heldBack.push(entry)
    },
    end: (groups: GroupUse, endedAt: number, problem: string | undefined) => ({
      startedAt,
      endedAt,
      topics,
      topicsTrimmed,
      eventsForgotten,
      topicsHeldBack,
      trimmed,
      heldBack,
      groupsUnused: groups.unused.length,
      groupsExpired: groups.expired.length,
      unused: groups.unused.slice(0, maxListed),
      expired: groups.expired.slice(0, maxListed),
      problem
    })
  }
}

type Report = ReturnType<typeof makeReport>

type Registered = Effect.Effect<
  ReadonlyArray<{ readonly group: string; readonly pattern: Topic.Pattern }>,
  StoreUnavailable
>

const make = Effect.fnUntraced(function* (settings: Settings.RetentionSettings = Settings.retention) {
  const { intervalMs, minAgeMs, rules } = settings
  const store = yield* EventStore
  const groups = yield* GroupStore
  const delivery = yield* GroupDelivery
  const recorder = yield* metrics.recorder
  const clock = yield* Clock.Clock
  const turn = yield* Semaphore.make(1)
  const look = lookAtGroups(groups, delivery, settings, clock)
  let lastRun: RetentionReport | undefined

  /** The last event that was stored before a time. */
  const lastBefore = ({ head, storedAt, topic }: TopicInfo, time: number) =>
    storedAt < time ? Effect.succeed(head) : store.readTime({ topic, time })

  /** What the rule alone says about a topic. */
  const factsOf = (rule: Rules.RetentionRule, info: TopicInfo, now: number) =>
    Effect.gen(function* () {
      const { floor, head } = info
      const byAge = rule.ageMs === undefined ? 0 : yield* lastBefore(info, now - rule.ageMs)
      const facts: Rules.TopicFacts = { rule, head, floor, byAge, byLeastAge: head }
      if (rule.count === undefined || Rules.wanted(facts) === floor) return facts
      return { ...facts, byLeastAge: yield* lastBefore(info, now - minAgeMs + 1) }
    })

  const registered = Effect.map(groups.list, (registrations) =>
    registrations.flatMap(({ group, pattern }) =>
      Result.match(Topic.parsePattern(pattern), {
        onFailure: () => [],
        onSuccess: (parsed) => [{ group, pattern: parsed }]
      })
    )
  )

  /** The group that has acknowledged least. One that has not met the topic needs all of it. */
  const leastGroup = (topic: string, registrations: Registered) =>
    Effect.gen(function* () {
      const all = yield* registrations
      const cursors = yield* groups.cursors(topic)
      const met = new Set(cursors.map(({ group }) => group))
      const unmet = all.filter(({ group, pattern }) => !met.has(group) && Topic.matches(pattern, topic))
      return Rules.leastOf([
        ...cursors.map(({ group, state }) => ({ group, position: state.floor })),
        ...unmet.map(({ group }) => ({ group, position: 0 }))
      ])
    })

  /** Of a topic of dead letters: those that its group is about to take back. */
  const neededLetters = (name: string) =>
    Effect.gen(function* () {
      const group = name.split(".")[1]
      const topic = DeadLetter.originalsOf(name)
      if (group === undefined || topic === undefined) return undefined
      const state = yield* groups.read({ group, topic })
      const first = state === undefined ? undefined : GroupRedrive.firstNeeded(state)
      return first === undefined ? undefined : { group, position: first - 1 }
    })

  const trimTopic = (rule: Rules.RetentionRule, info: TopicInfo, registrations: Registered, report: Report) =>
    Effect.gen(function* () {
      const { topic } = info
      const facts = yield* factsOf(rule, info, clock.currentTimeMillisUnsafe())
      const goal = Rules.wanted(facts)
      let floor = info.floor
      while (floor < goal) {
        const { heldBackBy, upTo } = Rules.decide({
          ...facts,
          floor,
          leastGroup: rule.groups === "ignore" ? undefined : yield* leastGroup(topic, registrations),
          letters: yield* neededLetters(topic)
        })
        if (upTo === floor && heldBackBy !== undefined) {
          report.addHeldBack({ topic, group: heldBackBy, events: goal - floor })
        }
        const reached =
          upTo === floor ? floor : yield* store.trim({ topic, upTo: Math.min(upTo, floor + eventsPerStep) })
        if (reached <= floor) break
        recorder.add(metrics.trimmed, reached - floor)
        floor = reached
        yield* Effect.yieldNow
      }
      if (floor > info.floor) report.addTrimmed(topic, floor - info.floor, floor)
    })

  /** Each topic by the first rule that matches it. */
  const trimAll = (report: Report) =>
    Effect.gen(function* () {
      for (const rule of rules) {
        if (Rules.isKeep(rule)) continue
        let after: string | undefined
        do {
          const page = yield* store.topics({
            pattern: rule.pattern,
            limit: topicsPerPage,
            ...(after === undefined ? {} : { after })
          })
          // After the page: who registers from now on has a position in each of its topics.
          const registrations = yield* Effect.cached(registered)
          for (const info of page.items) {
            if (Rules.ruleFor(rules, info.topic) !== rule) continue
            report.addTopic()
            yield* trimTopic(rule, info, registrations, report)
            yield* Effect.yieldNow
          }
          after = page.next
        } while (after !== undefined)
      }
    })

  const pass = Effect.suspend(() => {
    const report = makeReport(clock.currentTimeMillisUnsafe())
    let used: GroupUse = { unused: [], expired: [] }
    const end = (problem?: string) =>
      Effect.sync(() => (lastRun = report.end(used, clock.currentTimeMillisUnsafe(), problem)))
    return Effect.gen(function* () {
      // First, so that a group that expires holds nothing back in this pass.
      used = yield* look
      yield* trimAll(report)
      return yield* end()
    }).pipe(Effect.tapError((error) => end(error.message)))
  })

  const run = turn.withPermits(1)(pass)

  let problem: string | undefined
  const note = (message: string, error: StoreUnavailable | Cause.Cause<never>) =>
    Effect.suspend(() => {
      const isNew = problem !== message
      problem = message
      return isNew ? Effect.logWarning("retention cannot do its work; it tries again", error) : Effect.void
    })

  /** What goes wrong in one pass does not end the others, whatever it is. */
  const round = run.pipe(
    Effect.tap(() => Effect.sync(() => (problem = undefined))),
    Effect.catch((error) => note(error.message, error)),
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : note(Cause.pretty(cause), cause)
    )
  )

  if (intervalMs !== undefined) {
    yield* Effect.sleep(Math.min(intervalMs, firstLook)).pipe(
      Effect.andThen(Effect.forever(Effect.andThen(round, Effect.sleep(intervalMs)))),
      Effect.forkScoped
    )
  }

  return Retention.of({ run, lastRun: Effect.sync(() => lastRun) })
})

export const layer = (
  settings?: Settings.RetentionSettings
): Layer.Layer<Retention, never, EventStore | GroupStore | GroupDelivery> =>
  Layer.effect(Retention, make(settings))
