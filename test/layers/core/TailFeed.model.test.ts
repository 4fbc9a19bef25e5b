/**
 * What holds for live subscribers in random lives of a hub: others publish, subscribe, stop reading and leave
 * at any moment, another hub appends to the same log, and the store takes its time.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import * as Topic from "../../../src/domain/Topic.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as TailFeed from "../../../src/layers/core/TailFeed.ts"
import type { From } from "../../../src/protocol/Messages.ts"
import { Appender } from "../../../src/services/Appender.ts"
import type { EventStore } from "../../../src/services/EventStore.ts"
import type { LiveFeed } from "../../../src/services/LiveFeed.ts"
import { record } from "../../../src/testing/eventStore.ts"
import { Follower } from "./Follower.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

const topics = ["a.x", "a.y", "a.x.z", "b"] as const

type Step =
  | { readonly _tag: "Publish"; readonly topic: string; readonly count: number }
  | {
      readonly _tag: "PublishElsewhere"
      readonly topic: string
      readonly count: number
      readonly told: boolean
    }
  | { readonly _tag: "Republish"; readonly topic: string }
  | { readonly _tag: "Trim"; readonly topic: string; readonly keep: number }
  | { readonly _tag: "Subscribe"; readonly pattern: string; readonly from: From }
  | { readonly _tag: "Refuse"; readonly follower: number }
  | { readonly _tag: "Resume"; readonly follower: number }
  | { readonly _tag: "Leave"; readonly follower: number }
  | { readonly _tag: "Fail"; readonly operation: string; readonly fault: "fail" | "fail after" }
  | { readonly _tag: "Wait"; readonly ms: number }

const topic = fc.constantFrom(...topics)
const count = fc.integer({ min: 1, max: 5 })
const follower = fc.nat(5)

const from: fc.Arbitrary<From> = fc.oneof(
  fc.constantFrom<From>("new", "start"),
  fc.record({ time: fc.nat(200) }),
  fc.record(
    { topics: fc.dictionary(topic, fc.nat(3)), rest: fc.constantFrom("new", "start") },
    { requiredKeys: ["topics"] }
  )
)

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ _tag: fc.constant("Publish"), topic, count }) },
  {
    weight: 3,
    arbitrary: fc.record({ _tag: fc.constant("PublishElsewhere"), topic, count, told: fc.boolean() })
  },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Republish"), topic }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Trim"), topic, keep: fc.nat(4) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      _tag: fc.constant("Subscribe"),
      pattern: fc.constantFrom("a.*", "a.**", "**", ...topics),
      from
    })
  },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Refuse"), follower }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Resume"), follower }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Leave"), follower }) },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constant("Fail"),
      operation: fc.constantFrom("EventStore.append", "EventStore.read", "EventStore.head"),
      fault: fc.constantFrom("fail", "fail after")
    })
  },
  { weight: 8, arbitrary: fc.record({ _tag: fc.constant("Wait"), ms: fc.nat(6) }) }
)

const life = fc.record({
  steps: fc.array(step, { minLength: 10, maxLength: 80 }),
  paces: fc.array(fc.tuple(fc.nat(4), fc.nat(4)), { minLength: 1, maxLength: 12 })
})

interface Running {
  readonly follower: Follower
  readonly scope: Scope.Closeable
}

/** Everything from the first position on came once and in order, and what did not come was told as a gap. */
const expectComplete = ({ follower, scope }: Running, log: EventStore["Service"]) =>
  Effect.gen(function* () {
    const { from = "new", pattern } = follower.follow
    const { subscription } = follower
    expect(follower.strays).toEqual([])
    if (subscription === undefined) return
    for (const name of topics) {
      if (!Topic.matches(pattern, name)) continue
      const items = follower.items.filter((item) => item.topic === name)
      const stored = yield* log.read({ topic: name, after: 0, limit: 10_000 })
      const info = yield* log.head(name)
      if (info === undefined) {
        expect(items).toEqual([])
        continue
      }
      const [first] = items
      if (first === undefined && scope.state._tag === "Closed") continue
      const begin = first === undefined ? info.head : "seq" in first ? first.seq - 1 : first.from - 1
      const known = subscription.heads.get(name) ?? 0
      const given = typeof from === "object" && "topics" in from ? from.topics[name] : undefined
      if (given !== undefined) expect(begin, `${name} begins behind ${given}`).toBe(given)
      else if (typeof from === "object" && "time" in from) {
        const before = stored.find(({ seq }) => seq === begin)
        if (begin > 0 && begin <= known && before !== undefined)
          expect(before.storedAt).toBeLessThan(from.time)
      } else if (from === "new" || (typeof from === "object" && "topics" in from && from.rest === "new")) {
        expect(begin, `${name} begins behind its head`).toBe(known)
      } else expect(begin, `${name} begins at its start`).toBeLessThanOrEqual(info.floor)
      let position = begin
      for (const item of items) {
        if ("seq" in item) {
          expect(item.seq, `${name} goes on behind ${position}`).toBe(position + 1)
          const original = stored.find(({ seq }) => seq === item.seq)
          if (original !== undefined) expect(item).toEqual(original)
          position = item.seq
        } else {
          expect(item.from, `a gap of ${name} begins behind ${position}`).toBe(position + 1)
          expect(item.to).toBeLessThanOrEqual(info.floor)
          position = item.to
        }
      }
      if (scope.state._tag === "Open") expect(position, `${name} was read to its end`).toBe(info.head)
    }
    if (scope.state._tag === "Open") expect(subscription.behind()).toBe(0)
  })

const live = ({ paces, steps }: typeof life extends fc.Arbitrary<infer A> ? A : never) =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const appender = yield* Appender
    const all: Array<Running> = []
    let made = 0
    let called = 0
    trouble.setPace((operation) =>
      operation === "EventStore.history" ? [0, 0] : paces[called++ % paces.length]!
    )
    const make = (topic: string, count: number) =>
      Array.from({ length: count }, () => record(topic, `${++made}`))

    const perform = (one: Step): Effect.Effect<unknown, unknown, Scope.Scope | LiveFeed> => {
      switch (one._tag) {
        case "Publish":
          return Effect.forkScoped(Effect.ignore(appender.append(make(one.topic, one.count))))
        case "PublishElsewhere": {
          const { count, told, topic } = one
          return trouble.log.append(make(topic, count)).pipe(
            Effect.andThen(trouble.log.head(topic)),
            Effect.flatMap((info) => (told ? trouble.announce([{ topic, head: info!.head }]) : Effect.void))
          )
        }
        case "Republish":
          return Effect.flatMap(trouble.log.read({ topic: one.topic, after: 0, limit: 1_000 }), (stored) =>
            Effect.forkScoped(Effect.ignore(appender.append(stored.slice(-1))))
          )
        case "Trim":
          return Effect.flatMap(trouble.log.head(one.topic), (info) =>
            trouble.log.trim({ topic: one.topic, upTo: (info?.head ?? 0) - one.keep })
          )
        case "Subscribe":
          return Effect.gen(function* () {
            const follower = new Follower(one)
            const scope = yield* Scope.make()
            yield* Effect.forkScoped(Scope.provide(follower.subscribe, scope))
            all.push({ follower, scope })
          })
        case "Refuse":
        case "Resume": {
          const found = all[one.follower]?.follower
          if (found === undefined) return Effect.void
          found.takes = () => one._tag === "Resume"
          return Effect.sync(() => one._tag === "Resume" && found.subscription?.resume())
        }
        case "Leave": {
          const found = all[one.follower]
          return found === undefined ? Effect.void : Scope.close(found.scope, Exit.void)
        }
        case "Fail":
          return Effect.sync(() => trouble.next(one.operation, one.fault))
        case "Wait":
          return TestClock.adjust(one.ms)
      }
    }

    for (const one of steps) yield* perform(one)
    trouble.setPace(() => [0, 0])
    for (const { follower } of all) {
      follower.takes = () => true
      follower.subscription?.resume()
    }
    yield* TestClock.adjust("1 minute")
    // Growth that nobody told of is found when somebody tells.
    for (const name of topics) {
      const info = yield* trouble.log.head(name)
      if (info !== undefined) yield* trouble.announce([{ topic: name, head: info.head }])
    }
    yield* TestClock.adjust("1 minute")
    for (const one of all) yield* expectComplete(one, trouble.log)
    for (const { scope } of all) yield* Scope.close(scope, Exit.void)
  })

const layer = TailFeed.layer.pipe(
  Layer.provideMerge(GroupCommitAppender.layer()),
  Layer.provideMerge(TestStores.layer())
)

describe("TailFeed, whatever happens", () => {
  it("gives every event once, in order, without a hole that was not told", () =>
    fc.assert(
      fc.asyncProperty(life, (lived) =>
        live(lived).pipe(
          Effect.scoped,
          Effect.provide(layer),
          Effect.provide(TestClock.layer()),
          Effect.runPromise
        )
      ),
      { numRuns: 300 }
    ))

  it.effect(
    "loses nothing to hundreds of subscribers from the start while others publish at full speed",
    () =>
      Effect.gen(function* () {
        const appender = yield* Appender
        const { setPace } = yield* Trouble
        const total = 1_000
        let called = 0
        setPace((operation) => (operation === "EventStore.append" ? [0, 1] : [called++ % 3, called % 5]))
        const publishing = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: total }, (_, i) => i),
            (i) => appender.append([record("a", `${i}`)]),
            { concurrency: 4, discard: true }
          )
        )
        const followers: Array<Follower> = []
        for (let i = 0; i < 200; i++) {
          const follower = new Follower({ pattern: i % 2 === 0 ? "a" : "**", from: "start" })
          followers.push(follower)
          yield* Effect.forkScoped(follower.subscribe)
          yield* TestClock.adjust(1)
        }
        while (publishing.pollUnsafe() === undefined) yield* TestClock.adjust(10)
        yield* Fiber.join(publishing)
        yield* TestClock.adjust(1_000)
        const expected = Array.from({ length: total }, (_, i) => i + 1)
        for (const follower of followers) expect(follower.seqs("a")).toEqual(expected)
      }).pipe(Effect.provide(layer))
  )
})
