/** The hub for property tests: what goes by itself in it, and what only when a test says so. */
import { expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { TestClock } from "effect/testing"
import * as Rules from "../../src/domain/Retention.ts"
import * as Settings from "../../src/domain/Settings.ts"
import * as TestHub from "../../src/hub/TestHub.ts"
import { EventBus } from "../../src/services/EventBus.ts"
import { EventStore } from "../../src/services/EventStore.ts"
import { Retention } from "../../src/services/Retention.ts"

const retention = {
  ...Settings.retention,
  rules: Result.getOrThrow(Rules.parseRules("a: age=1d count=2"))
}

/** Days of the test's clock go by: nobody has to look at an empty outbox four times in each of their seconds. */
const drainer = { ...Settings.drainer, intervalMs: 3_600_000 }

const publish = EventBus.use(({ publish }) =>
  publish(Array.from({ length: 5 }, (_, i) => ({ topic: "a", id: `${i}`, payload: i })))
)

const floor = EventStore.use((store) => Effect.map(store.head("a"), (info) => info?.floor))

it.effect("retention works when a test runs it", () =>
  Effect.gen(function* () {
    yield* publish
    yield* TestClock.adjust("1 day")
    const { lastRun, run } = yield* Retention
    expect(yield* lastRun).toBeUndefined()
    expect(yield* run).toMatchObject({ eventsForgotten: 3 })
    expect(yield* floor).toBe(3)
  }).pipe(Effect.provide(TestHub.layer({ drainer, retention: { ...retention, intervalMs: undefined } })))
)

it.effect("retention does nothing by itself unless an interval is given", () =>
  Effect.gen(function* () {
    yield* TestClock.adjust("1 day")
    expect(yield* Retention.use(({ lastRun }) => lastRun)).toBeUndefined()
  }).pipe(Effect.provide(TestHub.layer({ drainer })))
)

it.effect("retention works in its interval, where one is given", () =>
  Effect.gen(function* () {
    yield* publish
    yield* TestClock.adjust("1 hour")
    expect(yield* floor).toBe(3)
  }).pipe(Effect.provide(TestHub.layer({ retention: { ...retention, minAgeMs: 0 } })))
)
