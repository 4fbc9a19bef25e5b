/** A group at work in two hubs over the same stores: they share its events, and each makes good what the other leaves. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, PubSub, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../../../src/layers/memory/MemoryGroupStore.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { EventStore, type Growth } from "../../../src/services/EventStore.ts"
import type { GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { type GroupChange, GroupStore } from "../../../src/services/GroupStore.ts"
import { Ids } from "../../../src/services/Ids.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import { record } from "../../../src/testing/eventStore.ts"
import { Consumer, type Wanted } from "./Consumer.ts"
import { ackTimeoutMs, dispatcher, settled } from "./groupsAtWork.ts"

const refreshMs = 400

/** Two hubs, of which the second can lose its way to the store, and hints that can be kept from both. */
class Hubs {
  readonly #contexts: ReadonlyArray<Context.Context<GroupDelivery | Appender>>
  readonly groups: GroupStore["Service"]
  readonly #broken: Set<number>

  constructor(
    contexts: ReadonlyArray<Context.Context<GroupDelivery | Appender>>,
    groups: GroupStore["Service"],
    broken: Set<number>
  ) {
    this.#contexts = contexts
    this.groups = groups
    this.#broken = broken
  }

  /** Joins in one of them; `lose` takes the member away without a word, and its hub's store with it. */
  join(hub: number, wanted: Wanted = {}) {
    const consumer = new Consumer(wanted)
    return Effect.gen({ self: this }, function* () {
      const scope = yield* Scope.make()
      const member = yield* consumer.join.pipe(Scope.provide(scope), Effect.provide(this.#contexts[hub]!))
      member.start()
      yield* settled
      const lose = Effect.suspend(() => {
        this.#broken.add(hub)
        return Scope.close(scope, Exit.void)
      })
      return { consumer, lose }
    })
  }

  publish(hub: number, ...ids: ReadonlyArray<string>) {
    return Effect.andThen(
      Context.get(this.#contexts[hub]!, Appender).append(ids.map((id) => record("a", id))),
      settled
    )
  }
}

const make = (isTold: boolean) =>
  Effect.gen(function* () {
    const events = yield* EventStore
    const groups = yield* GroupStore
    const broken = new Set<number>()
    const grown = yield* PubSub.unbounded<ReadonlyArray<Growth>>()
    const changed = yield* PubSub.unbounded<ReadonlyArray<GroupChange>>()
    const tell = (change: GroupChange) => (isTold ? PubSub.publish(changed, [change]) : Effect.void)
    const contexts = yield* Effect.forEach([0, 1], (hub) => {
      const guard = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.suspend((): Effect.Effect<A, E | StoreUnavailable> =>
          broken.has(hub)
            ? Effect.fail(new StoreUnavailable({ operation: "GroupStore", cause: "gone" }))
            : effect
        )
      const stores = Layer.mergeAll(
        Layer.succeed(EventStore, {
          ...events,
          append: (batch) =>
            Effect.tap(events.append(batch), (results) =>
              PubSub.publish(
                grown,
                results.flatMap((result) =>
                  result._tag === "Appended" ? [{ topic: result.topic, head: result.seq }] : []
                )
              )
            ),
          changes: Stream.fromPubSub(grown)
        }),
        Layer.succeed(GroupStore, {
          ...groups,
          exclusive: false,
          modify: (at, f) => guard(Effect.tap(groups.modify(at, f), () => tell(at))),
          setPaused: (group, paused) =>
            Effect.tap(groups.setPaused(group, paused), () => tell({ group, topic: undefined })),
          remove: (group, condition) =>
            Effect.tap(groups.remove(group, condition), () => tell({ group, topic: undefined })),
          changes: Stream.fromPubSub(changed)
        })
      )
      const layer = dispatcher({ refreshMs }).pipe(
        Layer.provideMerge(GroupCommitAppender.layer()),
        Layer.provide(stores)
      )
      return Layer.build(Layer.fresh(layer))
    })
    const told: GroupStore["Service"] = {
      ...groups,
      setPaused: (group, paused) =>
        Effect.tap(groups.setPaused(group, paused), () => tell({ group, topic: undefined })),
      remove: (group) => Effect.tap(groups.remove(group), () => tell({ group, topic: undefined }))
    }
    return new Hubs(contexts, told, broken)
  })

const stores = Layer.mergeAll(MemoryEventStore.layer(), MemoryGroupStore.layer).pipe(
  Layer.provideMerge(RandomIds.layerTest())
)

const all = Array.from({ length: 20 }, (_, i) => `${i + 1}`)

describe.each([
  { how: "that tell each other", isTold: true },
  { how: "that look for themselves", isTold: false }
])("GroupDispatcher, in two hubs $how", ({ isTold }) => {
  const test = (
    title: string,
    run: (hubs: Hubs) => Effect.Effect<void, unknown, Scope.Scope | EventStore | GroupStore | Ids>
  ) => it.effect(title, () => Effect.flatMap(make(isTold), run).pipe(Effect.scoped, Effect.provide(stores)))

  test("each event goes to one member of either, and is done once", (hubs) =>
    Effect.gen(function* () {
      const one = yield* hubs.join(0, { credit: 3 })
      const two = yield* hubs.join(1, { credit: 3 })
      for (const { consumer } of [one, two]) {
        consumer.handle = ({ record: { id, topic } }) =>
          consumer.member.answer({ _tag: "Ack", topic, ids: [id] }, () => {})
      }
      for (const [i, id] of all.entries()) yield* hubs.publish(i % 2, id)
      yield* TestClock.adjust(refreshMs)
      expect([...one.consumer.ids, ...two.consumer.ids].toSorted()).toEqual(all.toSorted())
      expect(yield* hubs.groups.read({ group: "g", topic: "a" })).toMatchObject({ floor: all.length })
    }))

  test("what a member had whose hub is gone comes to the other one's after its time", (hubs) =>
    Effect.gen(function* () {
      const one = yield* hubs.join(0)
      yield* hubs.publish(0, "1", "2")
      expect(one.consumer.story).toEqual(["1#1", "2#1"])
      const two = yield* hubs.join(1)
      yield* one.lose
      yield* TestClock.adjust(ackTimeoutMs - 100)
      expect(two.consumer.story).toEqual([])
      yield* TestClock.adjust(refreshMs + 100)
      expect(two.consumer.story).toEqual(["1#2", "2#2"])
    }))

  test("what a member hands back in one comes to a member in the other", (hubs) =>
    Effect.gen(function* () {
      const one = yield* hubs.join(0)
      yield* hubs.publish(0, "1")
      const two = yield* hubs.join(1)
      yield* one.consumer.member.leave
      yield* TestClock.adjust(refreshMs)
      expect(two.consumer.story).toEqual(["1#1"])
    }))

  test("a group that is paused, or removed, in one is so in the other", (hubs) =>
    Effect.gen(function* () {
      const one = yield* hubs.join(0)
      const two = yield* hubs.join(1)
      yield* hubs.groups.setPaused("g", true)
      yield* TestClock.adjust(refreshMs)
      yield* hubs.publish(0, "1")
      expect([...one.consumer.ids, ...two.consumer.ids]).toEqual([])
      yield* hubs.groups.setPaused("g", false)
      yield* TestClock.adjust(refreshMs)
      expect([...one.consumer.ids, ...two.consumer.ids]).toEqual(["1"])
      yield* hubs.groups.remove("g")
      yield* TestClock.adjust(refreshMs)
      expect([one.consumer.ends, two.consumer.ends]).toEqual([["removed"], ["removed"]])
    }))
})
