/** The hub's own live topics: what is told when, and to whom. Time is the test's. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Metric, Result, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Event from "../../../src/domain/Event.ts"
import * as Group from "../../../src/domain/Group.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Topic from "../../../src/domain/Topic.ts"
import * as TestHub from "../../../src/hub/TestHub.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as metrics from "../../../src/layers/core/metrics.ts"
import * as OwnTopics from "../../../src/layers/core/OwnTopics.ts"
import * as PartVitals from "../../../src/layers/core/PartVitals.ts"
import * as StoreStanding from "../../../src/layers/core/StoreStanding.ts"
import * as WatchedGroupStore from "../../../src/layers/core/WatchedGroupStore.ts"
import type { From } from "../../../src/protocol/Messages.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { EventBus } from "../../../src/services/EventBus.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { LiveFeed } from "../../../src/services/LiveFeed.ts"
import { Vitals } from "../../../src/services/Vitals.ts"
import { records } from "../../../src/testing/eventStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

/** A subscriber that remembers what it took, and can be told to take nothing. */
const follow = (
  pattern: string,
  more: { readonly from?: From; readonly history?: string; readonly start?: boolean } = {}
) =>
  Effect.gen(function* () {
    const feed = yield* LiveFeed
    const taken: Array<Event.Event> = []
    const state = { takes: true, offers: 0 }
    const live = yield* feed.subscribe({
      pattern: Result.getOrThrow(Topic.parsePattern(pattern)),
      from: more.from ?? "new",
      history: more.history,
      sink: {
        deliver: ({ records }) => {
          state.offers++
          if (state.takes) taken.push(...records.map(Event.decode))
          return state.takes
        },
        gap: () => expect.unreachable("there is no past, and no gap in it")
      }
    })
    if (more.start !== false) live.start()
    return { ...live, taken, state }
  })

const publish = (topic: string, ...ids: ReadonlyArray<string>) =>
  EventBus.use(({ publish }) => publish(ids.map((id) => ({ topic, id, payload: id }))))

const register = (group: string, pattern: string) =>
  GroupStore.use(({ register }) =>
    register({
      group,
      pattern,
      wanted: {},
      defaults: Settings.groups,
      history: "h",
      generation: "g",
      positions: new Map()
    })
  )

const acknowledge = (group: string, topic: string, floor: number) =>
  GroupStore.use(({ modify }) =>
    modify({ group, topic }, () => [undefined, Group.initial("g", floor)] as const)
  )

const test = (
  title: string,
  run: Effect.Effect<void, unknown, Layer.Success<ReturnType<typeof TestHub.layer>> | Scope.Scope>
) => it.effect(title, () => Effect.provide(run, TestHub.layer()))

/** Over stores that are late, or away. There is no log to follow. */
const troubledHub = OwnTopics.layer().pipe(
  Layer.provideMerge(StoreStanding.layer()),
  Layer.provideMerge(GroupCommitAppender.layer()),
  Layer.provideMerge(WatchedGroupStore.layer),
  Layer.provideMerge(
    Layer.succeed(LiveFeed, { history: Effect.die("no log"), subscribe: () => Effect.die("no log") })
  ),
  Layer.provideMerge(PartVitals.layer),
  Layer.provideMerge(TestStores.layer())
)

const troubled = (
  title: string,
  run: Effect.Effect<void, unknown, Layer.Success<typeof troubledHub> | Scope.Scope>
) => it.effect(title, () => Effect.provide(run, troubledHub))

const append = (topic: string, count: number, from?: number) =>
  Appender.use(({ append }) => append(records(topic, count, from)))

/** Whatever goes on by itself comes to its end, for this moment. */
const settle = Effect.repeat(Effect.yieldNow, { times: 500 })

const tick = Effect.andThen(TestClock.adjust("1 second"), settle)

describe("$hub.stats", () => {
  test(
    "is told at once, and then once a second",
    Effect.gen(function* () {
      const { taken } = yield* follow("$hub.stats")
      yield* settle
      expect(taken.length).toBe(1)
      for (let n = 0; n < 3; n++) yield* tick
      expect(taken.map(({ topic }) => topic)).toEqual(Array(4).fill("$hub.stats"))
      const seqs = taken.map(({ seq }) => seq)
      expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b))
    })
  )

  test(
    "holds the figures of the hub",
    Effect.gen(function* () {
      const { attach } = yield* Vitals
      yield* attach({
        connections: () =>
          [3, 4].map((outboundBytes) => ({
            id: `c${outboundBytes}`,
            sub: "s",
            openedAt: 0,
            subscriptions: 0,
            outboundBytes,
            behind: 0,
            delivered: 0,
            slowSince: undefined
          })),
        isDraining: () => true,
        process: Effect.succeed(() => ({ loopDelayMs: 5, rssBytes: 6 }))
      })
      yield* register("g", "a.*")
      yield* publish("a.x", "1", "2")
      const { taken } = yield* follow("$hub.*")
      yield* settle
      yield* tick
      expect(taken.at(-1)?.payload).toMatchObject({
        at: 1_000,
        ready: false,
        connections: 2,
        outboundBytes: 7,
        pending: 2,
        inFlight: 0,
        topics: 1,
        groups: 1,
        loopDelayMs: 5,
        rssBytes: 6,
        outbox: { pending: 0, dead: 0, oldestAgeMs: 0, paused: false }
      })
    })
  )

  test(
    "comes to those that join later at once, as it was told last",
    Effect.gen(function* () {
      const first = yield* follow("$hub.stats")
      yield* tick
      const second = yield* follow("$hub.**")
      expect(second.taken).toEqual([first.taken.at(-1)])
    })
  )

  test(
    "is none of long ago, whatever else was listened to meanwhile",
    Effect.gen(function* () {
      yield* follow("$hub.topic.**")
      yield* Effect.scoped(Effect.andThen(follow("$hub.stats"), tick))
      yield* TestClock.adjust("1 hour")
      const { taken } = yield* follow("$hub.stats")
      expect(taken).toEqual([])
      yield* tick
      expect(taken.length).toBe(1)
    })
  )

  test(
    "is told at once, too, while others listen to something else",
    Effect.gen(function* () {
      yield* follow("$hub.topic.**")
      yield* tick
      const { taken } = yield* follow("$hub.stats")
      yield* settle
      expect(taken.length).toBe(1)
      yield* tick
      expect(taken.length).toBe(2)
    })
  )

  test(
    "is not made while nobody listens",
    Effect.gen(function* () {
      const { taken } = yield* Effect.scoped(Effect.tap(follow("$hub.stats"), () => tick))
      const before = taken.length
      yield* TestClock.adjust("1 minute")
      expect(taken.length).toBe(before)
      const again = yield* follow("$hub.stats", { start: false })
      expect(again.taken).toEqual([])
      again.start()
      yield* settle
      expect(again.taken.length).toBe(1)
      expect(again.taken[0]!.seq).toBeGreaterThan(taken.at(-1)!.seq)
    })
  )
})

describe("$hub.topic.<topic>", () => {
  test(
    "tells of topics that grew since the last tick, once each",
    Effect.gen(function* () {
      yield* publish("a.before", "1")
      const { taken } = yield* follow("$hub.topic.a.*")
      yield* tick
      expect(taken).toEqual([])
      yield* publish("a.x", "1", "2")
      yield* publish("a.y", "1")
      yield* publish("a.x", "3")
      yield* publish("b.x", "1")
      yield* tick
      expect(taken.map(({ payload }) => payload)).toMatchObject([
        { topic: "a.x", head: 3, floor: 0, storedAt: 1_000 },
        { topic: "a.y", head: 1 }
      ])
      expect(taken[0]).toMatchObject({ topic: "$hub.topic.a.x", storedAt: 2_000 })
      yield* tick
      expect(taken.length).toBe(2)
    })
  )

  test(
    "tells of the largest changes first when there are too many, and of the others after",
    Effect.gen(function* () {
      const { taken } = yield* follow("$hub.topic.**")
      const name = (n: number) => `t.${String(n).padStart(4, "0")}`
      yield* EventBus.use(({ publish }) =>
        publish(Array.from({ length: 1_200 }, (_, n) => ({ topic: name(n), id: "1", payload: 1 })))
      )
      yield* publish(name(1_150), "2", "3")
      yield* tick
      expect(taken.length).toBe(1_000)
      expect(taken[0]!.payload).toMatchObject({ topic: name(1_150), head: 3 })
      yield* tick
      expect(taken.length).toBe(1_200)
      expect(new Set(taken.map(({ topic }) => topic)).size).toBe(1_200)
    })
  )
})

describe("$hub.group.<group>.<topic>", () => {
  test(
    "tells how far a group is, when that changed",
    Effect.gen(function* () {
      yield* register("g", "a.*")
      yield* publish("a.x", "1", "2")
      const { taken } = yield* follow("$hub.group.g.**")
      yield* tick
      expect(taken).toEqual([])
      yield* publish("a.x", "3")
      yield* tick
      const place = { group: "g", topic: "a.x", seq: 0, head: 3, pending: 3, inFlight: 0 }
      expect(taken.map(({ payload, topic }) => [topic, payload])).toEqual([
        ["$hub.group.g.a.x", { ...place, lagMs: 2_000 }]
      ])
      yield* acknowledge("g", "a.x", 3)
      yield* tick
      expect(taken.at(-1)?.payload).toEqual({ ...place, seq: 3, pending: 0, lagMs: 0 })
      yield* tick
      expect(taken.length).toBe(2)
    })
  )

  test(
    "leaves nothing out that changed after it was subscribed",
    Effect.gen(function* () {
      yield* register("g", "**")
      const { start, taken } = yield* follow("$hub.group.**", { start: false })
      yield* publish("a", "1")
      start()
      yield* tick
      expect(taken.map(({ topic }) => topic)).toEqual(["$hub.group.g.a"])
    })
  )
})

describe("a subscriber", () => {
  test(
    "gets what comes, wherever it wants to begin and whatever history it had",
    Effect.gen(function* () {
      const froms: ReadonlyArray<From> = [
        "new",
        "start",
        { after: 9_999_999 },
        { time: 0 },
        { topics: { "$hub.stats": 9_999_999 }, rest: "start" }
      ]
      for (const from of froms) {
        const { heads, taken } = yield* follow("$hub.stats", { from, history: "another" })
        expect(heads.size).toBe(0)
        yield* tick
        expect(taken.length).toBeGreaterThan(0)
      }
    })
  )

  test(
    "that takes nothing misses ticks, and gets the newest of each topic when it does again",
    Effect.gen(function* () {
      const slow = yield* follow("$hub.**")
      const quick = yield* follow("$hub.**")
      yield* tick
      const before = slow.taken.length
      slow.state.takes = false
      for (const id of ["1", "2", "3"]) {
        yield* publish("a", id)
        yield* publish(`b${id}`, id)
        yield* tick
      }
      expect(slow.taken.length).toBe(before)
      // It was asked once, and not again before it said so.
      const { offers } = slow.state
      yield* tick
      expect(slow.state.offers).toBe(offers)
      expect(slow.behind()).toBe(5)
      slow.state.takes = true
      slow.resume()
      const newest = new Map(quick.taken.map((event) => [event.topic, event]))
      const late = slow.taken.slice(before)
      expect(late.map(({ topic }) => topic).sort()).toEqual(
        ["$hub.stats", "$hub.topic.a", "$hub.topic.b1", "$hub.topic.b2", "$hub.topic.b3"].sort()
      )
      for (const event of late) expect(event).toEqual(newest.get(event.topic))
      expect(slow.behind()).toBe(0)
      yield* tick
      expect(slow.taken.at(-1)).toEqual(quick.taken.at(-1))
    })
  )

  test(
    "of the log gets nothing of it",
    Effect.gen(function* () {
      const log = yield* follow("**")
      yield* follow("$hub.**")
      yield* publish("a", "1")
      yield* tick
      expect(log.taken.map(({ topic }) => topic)).toEqual(["a"])
      const store = yield* EventStore
      const pattern = Result.getOrThrow(Topic.parsePattern("$hub.**"))
      expect((yield* store.topics({ pattern, limit: 10 })).items).toEqual([])
    })
  )

  test(
    "in the process gets them by the EventBus",
    Effect.gen(function* () {
      const { subscribe } = yield* EventBus
      const [first] = yield* Stream.runCollect(Stream.take(subscribe({ pattern: "$hub.stats" }), 1))
      expect(first).toMatchObject({ _tag: "Received", event: { topic: "$hub.stats" } })
    })
  )
})

describe("while the store is late or away", () => {
  const unknown = { pending: null, inFlight: null, topics: null, groups: null }
  const known = { pending: 3, inFlight: 0, topics: 1, groups: 1 }

  const scene = Effect.gen(function* () {
    yield* register("g", "**")
    yield* append("a", 3)
    const { taken } = yield* follow("$hub.stats")
    yield* settle
    return { last: () => taken.at(-1)?.payload, trouble: yield* Trouble }
  })

  troubled(
    "$hub.stats knows no sums before they are counted, and is not ready when that takes long",
    Effect.gen(function* () {
      const late = (operation: string) => [operation === "GroupStore.list" ? 10_000 : 0, 0] as const
      yield* Trouble.use(({ setPace }) => Effect.sync(() => setPace(late)))
      const { last, trouble } = yield* scene
      for (let n = 0; n < 3; n++) yield* tick
      expect(last()).toMatchObject({ ready: true, ...unknown })
      for (let n = 0; n < 5; n++) yield* tick
      expect(last()).toMatchObject({ ready: false, ...unknown })
      // It was asked once, by all these ticks.
      expect(trouble.count("GroupStore.list")).toBe(1)
      trouble.setPace(() => [0, 0])
      for (let n = 0; n < 4; n++) yield* tick
      expect(last()).toMatchObject({ ready: true, ...known })
    })
  )

  troubled(
    "$hub.stats tells what it knew for some seconds, and then neither that nor that it is ready",
    Effect.gen(function* () {
      const { last, trouble } = yield* scene
      yield* tick
      expect(last()).toMatchObject({ ready: true, ...known })
      trouble.next("GroupStore.list", "hang")
      for (let n = 0; n < 4; n++) yield* tick
      expect(last()).toMatchObject({ ready: true, ...known })
      for (let n = 0; n < 5; n++) yield* tick
      expect(last()).toMatchObject({ ready: false, ...unknown })
    })
  )

  troubled(
    "$hub.stats is not ready while it fails",
    Effect.gen(function* () {
      const { last, trouble } = yield* scene
      trouble.setOutage("GroupStore")
      for (let n = 0; n < 2; n++) yield* tick
      expect(last()).toMatchObject({ ready: false, ...unknown })
      trouble.setOutage(undefined)
      for (let n = 0; n < 2; n++) yield* tick
      expect(last()).toMatchObject({ ready: true, ...known })
    })
  )

  troubled(
    "$hub.stats waits for nothing of topics and groups, which are not asked for again meanwhile",
    Effect.gen(function* () {
      const { taken } = yield* follow("$hub.**")
      const trouble = yield* Trouble
      yield* tick
      const before = taken.length
      trouble.next("EventStore.head", "hang")
      yield* append("a", 1)
      for (let n = 0; n < 5; n++) {
        yield* tick
        yield* append("a", 1, n + 2)
      }
      expect(taken.slice(before).map(({ topic }) => topic)).toEqual(Array(5).fill("$hub.stats"))
      expect(trouble.count("EventStore.head")).toBe(1)
    })
  )

  troubled(
    "nothing is lost of what is committed while it is looked up",
    Effect.gen(function* () {
      const { taken } = yield* follow("$hub.topic.**")
      const trouble = yield* Trouble
      const appender = yield* Appender
      yield* settle
      trouble.next("EventStore.head", (_args, run) =>
        Effect.tap(run, () => appender.append(records("a", 1, 2)))
      )
      yield* append("a", 1)
      yield* tick
      expect(taken.map(({ payload }) => payload)).toMatchObject([{ topic: "a", head: 1 }])
      yield* tick
      expect(taken.map(({ payload }) => payload)).toMatchObject([{ head: 1 }, { topic: "a", head: 2 }])
    })
  )

  troubled(
    "it holds up nobody who comes when those it was asked for have left",
    Effect.gen(function* () {
      const trouble = yield* Trouble
      trouble.next("EventStore.head", "hang")
      const left = yield* Effect.scoped(
        Effect.gen(function* () {
          const { taken } = yield* follow("$hub.topic.**")
          yield* append("a", 1)
          yield* tick
          return taken
        })
      )
      expect(trouble.count("EventStore.head")).toBe(1)
      yield* tick
      const { taken } = yield* follow("$hub.topic.**")
      yield* append("b", 1)
      yield* tick
      expect(left).toEqual([])
      expect(taken.map(({ payload }) => payload)).toMatchObject([{ topic: "b", head: 1 }])
    })
  )

  troubled(
    "what could not be looked up comes with a later tick",
    Effect.gen(function* () {
      const { taken } = yield* follow("$hub.topic.**")
      const trouble = yield* Trouble
      yield* settle
      trouble.next("EventStore.head", "fail")
      yield* append("a", 2)
      yield* tick
      expect(taken).toEqual([])
      yield* tick
      expect(taken.map(({ payload }) => payload)).toMatchObject([{ topic: "a", head: 2 }])
    })
  )
})

describe("a tick", () => {
  test(
    "of many topics for many patterns is handed out in parts, in order",
    Effect.gen(function* () {
      const patterns = Array.from({ length: 40 }, (_, n) => `$hub.topic.${n % 2 === 0 ? "t" : "*"}.n${n}.**`)
      for (const pattern of patterns) yield* follow(pattern)
      const { state, taken } = yield* follow("$hub.topic.t.*")
      yield* EventBus.use(({ publish }) =>
        publish(Array.from({ length: 500 }, (_, n) => ({ topic: `t.${n}`, id: "1", payload: 1 })))
      )
      yield* tick
      expect(taken.map(({ topic }) => topic)).toEqual(
        Array.from({ length: 500 }, (_, n) => `$hub.topic.t.${n}`)
      )
      expect(state.offers).toBeGreaterThan(5)
    })
  )

  it.effect("reads what is counted and timed, under all labels, and asks no gauge", () =>
    Effect.gen(function* () {
      const recorder = yield* metrics.recorder
      let asked = 0
      yield* recorder.gauge(metrics.ready, () => ++asked)
      recorder.add(metrics.errorsSent, 2, { code: "forbidden" })
      const { taken } = yield* follow("$hub.stats")
      yield* tick
      recorder.add(metrics.errorsSent, 3, { code: "bad_request" })
      recorder.observe(metrics.storedToSent, 0.04, { path: "live" })
      recorder.observe(metrics.storedToSent, 20, { path: "group" })
      yield* tick
      yield* tick
      const payloads = taken.map(({ payload }) => payload)
      expect(payloads.at(-2)).toMatchObject({
        totals: { errors: 5 },
        latency: { delivery: { max: 20 }, publish: null }
      })
      expect(payloads.at(-1)).toMatchObject({ totals: { errors: 5 }, latency: { delivery: null } })
      expect(asked).toBe(0)
    }).pipe(
      Effect.provide(TestHub.layer()),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.scoped
    )
  )
})
