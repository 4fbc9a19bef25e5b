/** A hub's consumer groups over stores in memory, and what their tests do again and again. */
import { it } from "@effect/vitest"
import { Effect, Exit, Layer, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as DeadLetter from "../../../src/domain/DeadLetter.ts"
import * as Event from "../../../src/domain/Event.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as GroupDispatcher from "../../../src/layers/core/GroupDispatcher.ts"
import { Appender } from "../../../src/services/Appender.ts"
import type { GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { record } from "../../../src/testing/eventStore.ts"
import { join, type Wanted } from "./Consumer.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

export const ackTimeoutMs = 1_000

/** With a random number of a half, the first retry waits 50 ms, the second 100 ms. */
export const settings: Settings.GroupSettings = {
  ...Settings.groups,
  ackTimeoutMs,
  maxAttempts: 4,
  backoff: { baseMs: 100, maxMs: 10_000 }
}

const half = Layer.succeed(Random.Random, { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 1 })

export const dispatcher = (more: Partial<Settings.GroupSettings> = {}) =>
  GroupDispatcher.layer({ ...settings, ...more }).pipe(Layer.provide(half))

const layer = (more?: Partial<Settings.GroupSettings>) =>
  dispatcher(more).pipe(
    Layer.provideMerge(GroupCommitAppender.layer()),
    Layer.provideMerge(TestStores.layer())
  )

export const test = <E>(
  title: string,
  run: (
    trouble: Trouble["Service"]
  ) => Effect.Effect<void, E, Scope.Scope | GroupDelivery | Appender | TestStores.TestStores>,
  more?: Partial<Settings.GroupSettings>
) => it.effect(title, () => Effect.flatMap(Trouble, run).pipe(Effect.scoped, Effect.provide(layer(more))))

export const publish = (topic: string, ...ids: ReadonlyArray<string>) =>
  Appender.use((appender) => appender.append(ids.map((id) => record(topic, id))))

export const publishElsewhere = (topic: string, ...ids: ReadonlyArray<string>) =>
  Trouble.use(({ log }) => log.append(ids.map((id) => record(topic, id))))

export const stateOf = (topic = "a", group = "g") =>
  Effect.flatMap(
    Trouble.use(({ groups }) => groups.read({ group, topic })),
    (state) => (state === undefined ? Effect.die("the group has not met the topic") : Effect.succeed(state))
  )

export const deadLetters = (topic = "a", group = "g") =>
  Effect.map(
    Trouble.use(({ log }) =>
      log.read({ topic: DeadLetter.deadLetterTopic(group, topic), after: 0, limit: 100 })
    ),
    (stored) => stored.map(Event.decode)
  )

export const settled = TestClock.adjust(10)

/** Joins in a scope of its own: `disconnect` closes it without a goodbye. */
export const joinApart = (wanted: Wanted = {}) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const consumer = yield* join(wanted).pipe(Scope.provide(scope))
    return { consumer, disconnect: Scope.close(scope, Exit.void) }
  })
