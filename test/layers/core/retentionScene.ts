/** Retention over stores in memory or in a file, with members of groups that a test names, and what was logged. */
import { it } from "@effect/vitest"
import { Context, Effect, Layer, Result, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Group from "../../../src/domain/Group.ts"
import * as Rules from "../../../src/domain/Retention.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Log from "../../../src/hub/Log.ts"
import * as StoreRetention from "../../../src/layers/core/StoreRetention.ts"
import * as SqliteEventStore from "../../../src/layers/sqlite/SqliteEventStore.ts"
import * as SqliteGroupStore from "../../../src/layers/sqlite/SqliteGroupStore.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { Retention } from "../../../src/services/Retention.ts"
import { record } from "../../../src/testing/eventStore.ts"
import { database } from "../sqlite/temporary.ts"
import * as TestStores from "./TestStores.ts"

export const second = 1_000
export const day = 86_400_000

export interface Scene {
  readonly retention: Retention["Service"]
  readonly events: EventStore["Service"]
  readonly groups: GroupStore["Service"]
  /** Groups that have members here. */
  readonly active: Set<string>
  /** What was logged, as JSON. */
  readonly logged: ReadonlyArray<string>
  /** Retention of a hub that starts now, over the same stores. */
  readonly restarted: Effect.Effect<Retention["Service"], never, Scope.Scope>
}

export interface Wanted extends Partial<Omit<Settings.RetentionSettings, "rules">> {
  readonly rules?: string
}

/** Nothing goes by itself, and events of any age may, unless a test says otherwise. */
const settingsOf = ({ rules = "", ...more }: Wanted): Settings.RetentionSettings => ({
  ...Settings.retention,
  minAgeMs: 0,
  intervalMs: undefined,
  ...more,
  rules: Result.getOrThrow(Rules.parseRules(rules))
})

const noDelivery = Effect.die("no test of retention delivers anything")

const delivery = (active: ReadonlySet<string>) =>
  Layer.succeed(GroupDelivery, {
    join: () => noDelivery,
    drain: noDelivery,
    refresh: () => noDelivery,
    activeGroups: () => [...active],
    members: () => 0,
    inFlight: () => 0
  })

const retention = <R, E>(
  stores: Layer.Layer<EventStore | GroupStore | R, E>,
  wanted: Wanted,
  run: (scene: Scene) => Effect.Effect<void, unknown, EventStore | GroupStore | R | Scope.Scope>
) => {
  const active = new Set<string>()
  const logged: Array<string> = []
  const layer = StoreRetention.layer(settingsOf(wanted)).pipe(Layer.provide(delivery(active)))
  const log = Log.layer("json", (line) => void logged.push(line))
  return Effect.gen(function* () {
    const services = yield* Effect.context<EventStore | GroupStore>()
    const restarted = Layer.build(Layer.fresh(layer)).pipe(
      Effect.map((context) => Context.get(context, Retention)),
      Effect.provideContext(services)
    )
    yield* run({
      retention: yield* restarted,
      events: yield* EventStore,
      groups: yield* GroupStore,
      active,
      logged,
      restarted
    })
  }).pipe(Effect.scoped, Effect.provide(Layer.merge(stores, log)))
}

const sqlite = (minAgeMs: number) =>
  Layer.mergeAll(SqliteEventStore.layer({ retention: { minAgeMs } }), SqliteGroupStore.layer).pipe(
    Layer.provide(database("thread"))
  )

/** The same test over each kind of stores. */
export const everywhere = (
  title: string,
  wanted: Wanted,
  run: (scene: Scene) => Effect.Effect<void, unknown, Scope.Scope>
): void => {
  const { minAgeMs = 0 } = wanted
  const memory = TestStores.layer({ retention: { minAgeMs } })
  it.effect(`${title} (memory)`, () => retention(memory, wanted, run))
  it.effect(`${title} (sqlite)`, () => retention(sqlite(minAgeMs), wanted, run))
}

/** A test over stores that do what it says. */
export const troubled = (
  title: string,
  wanted: Wanted,
  run: (
    scene: Scene,
    trouble: TestStores.Trouble["Service"]
  ) => Effect.Effect<void, unknown, Scope.Scope | TestStores.TestStores>
): void => {
  it.effect(title, () =>
    retention(TestStores.layer({ retention: { minAgeMs: wanted.minAgeMs ?? 0 } }), wanted, (scene) =>
      TestStores.Trouble.use((trouble) => run(scene, trouble))
    )
  )
}

/** So many events, the ids of which go on from those that are there. */
export const publish = ({ events }: Scene, topic: string, count = 1) =>
  Effect.gen(function* () {
    const head = (yield* events.head(topic))?.head ?? 0
    yield* events.append(
      Array.from({ length: count }, (_, i) => record(topic, `${head + i + 1}`, { n: head + i + 1 }))
    )
  })

export const floorOf = ({ events }: Scene, topic: string) =>
  Effect.map(events.head(topic), (info) => info?.floor)

/** A group that has acknowledged the topic up to a position, or has not met it. */
export const register = (
  { groups }: Scene,
  group: string,
  pattern: string,
  positions: Readonly<Record<string, number>> = {}
) =>
  groups.register({
    group,
    pattern,
    wanted: {},
    defaults: Settings.groups,
    history: "h",
    generation: "g",
    positions: new Map(Object.entries(positions))
  })

export const acknowledge = ({ groups }: Scene, group: string, topic: string, upTo: number) =>
  groups.modify({ group, topic }, () => [undefined, Group.initial("g", upTo)])

export const pass = (millis: number) => TestClock.adjust(millis)
