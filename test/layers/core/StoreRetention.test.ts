/** Retention at work: what goes and what stays over real stores, and what a pass does when a store does not answer. */
import { describe, expect } from "@effect/vitest"
import { Effect, Fiber, Metric, Result } from "effect"
import * as Event from "../../../src/domain/Event.ts"
import * as Group from "../../../src/domain/Group.ts"
import * as GroupRedrive from "../../../src/domain/GroupRedrive.ts"
import * as metrics from "../../../src/layers/core/metrics.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import { record } from "../../../src/testing/eventStore.ts"
import {
  acknowledge,
  day,
  everywhere,
  floorOf,
  pass,
  publish,
  register,
  second,
  troubled
} from "./retentionScene.ts"

describe("what goes", () => {
  everywhere("is what is older than the rule's age", { rules: "a.**: age=2d" }, (scene) =>
    Effect.gen(function* () {
      for (let i = 0; i < 5; i++) {
        yield* publish(scene, "a.b", 2)
        yield* pass(day)
      }
      const report = yield* scene.retention.run
      // Stored 5, 4, 3, 2 and 1 days ago: exactly two days are not older than two days.
      expect(yield* floorOf(scene, "a.b")).toBe(6)
      expect(report).toMatchObject({
        topics: 1,
        topicsTrimmed: 1,
        eventsForgotten: 6,
        topicsHeldBack: 0,
        trimmed: [{ topic: "a.b", forgotten: 6, floor: 6 }],
        problem: undefined
      })
      expect(yield* scene.retention.run).toMatchObject({ topics: 1, topicsTrimmed: 0, trimmed: [] })
    })
  )

  everywhere("is what is not among the last of the rule's count", { rules: "a: count=3" }, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 10)
      yield* scene.retention.run
      expect(yield* floorOf(scene, "a")).toBe(7)
      yield* publish(scene, "a", 2)
      yield* scene.retention.run
      expect(yield* floorOf(scene, "a")).toBe(9)
    })
  )

  everywhere("is what either of both lets go", { rules: "a: age=1h count=4" }, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 10)
      yield* scene.retention.run
      expect(yield* floorOf(scene, "a")).toBe(6)
      yield* pass(day)
      yield* publish(scene, "a", 1)
      yield* scene.retention.run
      expect(yield* floorOf(scene, "a")).toBe(10)
    })
  )

  everywhere(
    "is never younger than the least age, however much there is",
    { rules: "a: count=1", minAgeMs: day },
    (scene) =>
      Effect.gen(function* () {
        yield* publish(scene, "a", 5)
        yield* pass(day - 1)
        yield* publish(scene, "a", 5)
        yield* scene.retention.run
        expect(yield* floorOf(scene, "a")).toBe(0)
        yield* pass(1)
        yield* scene.retention.run
        expect(yield* floorOf(scene, "a")).toBe(5)
      })
  )

  everywhere("goes by when it was stored, not by the clocks of publishers", { rules: "a: age=1d" }, (scene) =>
    Effect.gen(function* () {
      const clocks = [Date.UTC(1970), Date.UTC(2999), Date.UTC(1970)]
      yield* scene.events.append(clocks.map((ts, i) => record("a", `${i}`, null, { ts })))
      yield* scene.retention.run
      expect(yield* floorOf(scene, "a")).toBe(0)
      yield* pass(day + 1)
      yield* scene.retention.run
      expect(yield* floorOf(scene, "a")).toBe(2)
    })
  )

  everywhere("is decided by the first rule that matches", { rules: "a.keep: keep; a.*: count=1" }, (scene) =>
    Effect.gen(function* () {
      for (const topic of ["a.keep", "a.b", "other"]) yield* publish(scene, topic, 3)
      expect(yield* scene.retention.run).toMatchObject({ topics: 1, topicsTrimmed: 1 })
      expect(yield* Effect.forEach(["a.keep", "a.b", "other"], (topic) => floorOf(scene, topic))).toEqual([
        0, 2, 0
      ])
    })
  )

  everywhere("of the hub's own topics only by rules that name them", { rules: "**: count=1" }, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 3)
      yield* publish(scene, "$dead.g.a", 3)
      yield* scene.retention.run
      expect([yield* floorOf(scene, "a"), yield* floorOf(scene, "$dead.g.a")]).toEqual([2, 0])
    })
  )

  everywhere("is found in any number of topics", { rules: "a.**: count=1; **: count=2" }, (scene) =>
    Effect.gen(function* () {
      const topics = Array.from({ length: 1_200 }, (_, i) => (i % 2 === 0 ? `a.${i}` : `b.${i}`))
      yield* scene.events.append(topics.flatMap((topic) => ["1", "2", "3"].map((id) => record(topic, id))))
      const report = yield* scene.retention.run
      expect(report).toMatchObject({ topics: 1_200, topicsTrimmed: 1_200, eventsForgotten: 1_800 })
      expect(report.trimmed).toHaveLength(1_000)
      for (const topic of topics) expect(yield* floorOf(scene, topic)).toBe(topic.startsWith("a") ? 2 : 1)
    })
  )
})

describe("what stays", () => {
  everywhere("is the last event, and the head with it", { rules: "a: age=1s" }, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 3)
      yield* pass(day)
      yield* scene.retention.run
      expect(yield* scene.events.head("a")).toMatchObject({ head: 3, floor: 2 })
      yield* publish(scene, "a")
      expect(yield* scene.events.head("a")).toMatchObject({ head: 4 })
    })
  )

  everywhere("is the latest of each key", { rules: "a: count=1" }, (scene) =>
    Effect.gen(function* () {
      yield* scene.events.append([
        record("a", "1", "old", { key: "x" }),
        record("a", "2", "new", { key: "x" }),
        record("a", "3", 3)
      ])
      yield* scene.retention.run
      expect(yield* floorOf(scene, "a")).toBe(2)
      const latest = yield* scene.events.latestOf({ topic: "a", keys: ["x"] })
      expect(Event.decode(latest.get("x")!)).toMatchObject({ seq: 2, payload: "new" })
    })
  )

  everywhere("is what a group has not acknowledged", { rules: "a.*: count=1" }, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a.b", 10)
      yield* publish(scene, "a.c", 10)
      yield* register(scene, "slow", "a.b", { "a.b": 4 })
      yield* register(scene, "slower", "**", { "a.b": 2, "a.c": 10 })
      const report = yield* scene.retention.run
      expect([yield* floorOf(scene, "a.b"), yield* floorOf(scene, "a.c")]).toEqual([2, 9])
      expect(report).toMatchObject({
        topicsTrimmed: 2,
        topicsHeldBack: 1,
        heldBack: [{ topic: "a.b", group: "slower", events: 7 }]
      })

      yield* acknowledge(scene, "slower", "a.b", 10)
      expect((yield* scene.retention.run).heldBack).toEqual([{ topic: "a.b", group: "slow", events: 5 }])
      expect(yield* floorOf(scene, "a.b")).toBe(4)
      yield* scene.groups.remove("slow")
      expect((yield* scene.retention.run).heldBack).toEqual([])
      expect(yield* floorOf(scene, "a.b")).toBe(9)
    })
  )

  everywhere("is all of a topic that a registered group has not met", { rules: "a.*: count=1" }, (scene) =>
    Effect.gen(function* () {
      yield* register(scene, "g", "a.**")
      yield* register(scene, "other", "b.**")
      yield* publish(scene, "a.b", 10)
      expect((yield* scene.retention.run).heldBack).toEqual([{ topic: "a.b", group: "g", events: 9 }])
      expect(yield* floorOf(scene, "a.b")).toBe(0)
    })
  )

  everywhere("is not for groups that the rule ignores", { rules: "a: count=1 groups=ignore" }, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 10)
      yield* register(scene, "behind", "a", { a: 2 })
      yield* register(scene, "unmet", "*")
      expect(yield* scene.retention.run).toMatchObject({ eventsForgotten: 9, heldBack: [] })
      expect(yield* floorOf(scene, "a")).toBe(9)
      expect((yield* scene.groups.read({ group: "behind", topic: "a" }))?.floor).toBe(2)
    })
  )

  everywhere(
    "are dead letters that a group is about to take back, whatever the rule says of groups",
    { rules: "$dead.**: age=30d groups=ignore" },
    (scene) =>
      Effect.gen(function* () {
        const letters = "$dead.g.orders.eu"
        yield* publish(scene, letters, 10)
        yield* register(scene, "g", "orders.**", { "orders.eu": 3 })
        const at = { group: "g", topic: "orders.eu" }
        yield* scene.groups.modify(at, (state) => [
          undefined,
          Result.getOrThrow(
            GroupRedrive.plan(state ?? Group.initial("g", 3), { next: 5, upTo: 8, filter: {} })
          )
        ])
        yield* pass(31 * day)
        expect((yield* scene.retention.run).heldBack).toEqual([{ topic: letters, group: "g", events: 5 }])
        expect(yield* floorOf(scene, letters)).toBe(4)
        yield* acknowledge(scene, "g", "orders.eu", 3)
        expect((yield* scene.retention.run).heldBack).toEqual([])
        expect(yield* floorOf(scene, letters)).toBe(9)
      })
  )

  everywhere("is everything where there is no rule", {}, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 10)
      yield* pass(1_000 * day)
      expect(yield* scene.retention.run).toMatchObject({ topics: 0, eventsForgotten: 0 })
      expect(yield* floorOf(scene, "a")).toBe(0)
    })
  )
})

describe("a pass", () => {
  troubled(
    "goes in steps, so that a group that goes back meanwhile keeps the rest",
    { rules: "a: count=1" },
    (scene, { count, groups, next }) =>
      Effect.gen(function* () {
        yield* publish(scene, "a", 10_000)
        yield* register(scene, "g", "a", { a: 10_000 })
        next("EventStore.trim", (_, run) =>
          Effect.tap(run, () => groups.modify({ group: "g", topic: "a" }, () => [0, Group.initial("g2", 0)]))
        )
        const report = yield* scene.retention.run
        const floor = (yield* floorOf(scene, "a"))!
        expect(count("EventStore.trim")).toBe(1)
        expect(floor).toBeLessThan(5_000)
        expect(report.heldBack).toEqual([{ topic: "a", group: "g", events: 9_999 - floor }])
      })
  )

  troubled(
    "does not read groups for topics where nothing goes",
    { rules: "a: age=1d; b: count=5" },
    (scene, { count }) =>
      Effect.gen(function* () {
        yield* publish(scene, "a", 10)
        yield* publish(scene, "b", 5)
        yield* scene.retention.run
        expect(count("GroupStore.cursors")).toBe(0)
        expect(count("EventStore.trim")).toBe(0)
      })
  )

  troubled(
    "asks for nothing, and blames no group, where all is younger than the least age",
    { rules: "a: count=1", minAgeMs: day },
    (scene, { count }) =>
      Effect.gen(function* () {
        yield* publish(scene, "a", 5)
        yield* register(scene, "g", "a")
        expect(yield* scene.retention.run).toMatchObject({ topics: 1, topicsHeldBack: 0 })
        expect(count("EventStore.trim")).toBe(0)
      })
  )

  troubled(
    "that a store ends says so, and what it had done stays",
    { rules: "*: count=1" },
    (scene, { next }) =>
      Effect.gen(function* () {
        expect(yield* scene.retention.lastRun).toBeUndefined()
        for (const topic of ["a", "b"]) yield* publish(scene, topic, 5)
        next("GroupStore.cursors", (_, run) => run, "fail")
        const error = yield* Effect.flip(scene.retention.run)
        expect(error).toBeInstanceOf(StoreUnavailable)
        expect(yield* scene.retention.lastRun).toMatchObject({
          eventsForgotten: 4,
          trimmed: [{ topic: "a" }],
          problem: error.message
        })
        expect(yield* scene.retention.run).toMatchObject({ eventsForgotten: 4, trimmed: [{ topic: "b" }] })
        expect(yield* scene.retention.lastRun).toMatchObject({ problem: undefined })
      })
  )

  troubled("waits for the one before", { rules: "a: count=1" }, (scene, { calls, setPace }) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 5)
      setPace((operation) => (operation === "EventStore.topics" ? [10, 10] : [0, 0]))
      const fiber = yield* Effect.forkChild(Effect.all([scene.retention.run, scene.retention.run]), {
        startImmediately: true
      })
      const other = yield* Effect.forkChild(scene.retention.run, { startImmediately: true })
      yield* pass(100)
      yield* Fiber.join(fiber)
      yield* Fiber.join(other)
      const operations = calls.map(({ operation }) => operation).filter((name) => name.startsWith("Event"))
      expect(operations.filter((name) => name === "EventStore.topics")).toHaveLength(3)
      expect(operations.filter((name) => name === "EventStore.trim")).toHaveLength(1)
    })
  )

  troubled("counts what it forgets", { rules: "a: count=1" }, (scene) =>
    Effect.gen(function* () {
      const before = (yield* Metric.value(metrics.trimmed)).count
      yield* publish(scene, "a", 8)
      yield* scene.retention.run
      expect((yield* Metric.value(metrics.trimmed)).count - before).toBe(7)
    })
  )
})

describe("by itself", () => {
  const wanted = { rules: "a: count=1", intervalMs: 60 * second }

  troubled("it looks soon after the start, and then in its interval", wanted, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 5)
      yield* pass(5 * second)
      expect(yield* floorOf(scene, "a")).toBe(4)
      yield* publish(scene, "a", 5)
      yield* pass(59 * second)
      expect(yield* floorOf(scene, "a")).toBe(4)
      yield* pass(second)
      expect(yield* floorOf(scene, "a")).toBe(9)
    })
  )

  troubled("it does nothing where there is no interval", { rules: "a: count=1" }, (scene) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 5)
      yield* pass(day)
      expect(yield* floorOf(scene, "a")).toBe(0)
      expect(yield* scene.retention.lastRun).toBeUndefined()
    })
  )

  troubled(
    "it survives an outage: one line for each problem, and it goes on",
    wanted,
    (scene, { setOutage }) =>
      Effect.gen(function* () {
        yield* publish(scene, "a", 5)
        setOutage("GroupStore")
        yield* pass(5 * second + 3 * 60 * second)
        expect(scene.logged.map((line) => line.includes("retention cannot"))).toEqual([true])
        setOutage("EventStore.topics")
        yield* pass(3 * 60 * second)
        expect(scene.logged).toHaveLength(2)
        expect(yield* floorOf(scene, "a")).toBe(0)
        setOutage(undefined)
        yield* pass(60 * second)
        expect(yield* floorOf(scene, "a")).toBe(4)
        setOutage("EventStore.topics")
        yield* pass(60 * second)
        expect(scene.logged).toHaveLength(3)
      })
  )

  troubled("it survives a bug of a store", wanted, (scene, { next }) =>
    Effect.gen(function* () {
      yield* publish(scene, "a", 5)
      next("EventStore.topics", () => Effect.die(new Error("a bug")))
      yield* pass(5 * second)
      expect(scene.logged).toHaveLength(1)
      expect(scene.logged[0]).toContain("a bug")
      yield* pass(60 * second)
      expect(yield* floorOf(scene, "a")).toBe(4)
    })
  )
})
