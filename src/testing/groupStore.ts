/** What every GroupStore promises, as tests: run them against your own backend. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import * as Group from "../domain/Group.ts"
import * as Settings from "../domain/Settings.ts"
import { GroupStore } from "../services/GroupStore.ts"

export interface GroupStoreCapabilities {
  /** Lets time pass for the store: `TestClock.adjust` where it reads Effect's Clock, else a real sleep. */
  readonly advance: (millis: number) => Effect.Effect<void>
}

const options: Group.GroupOptions = Settings.groups

export const groupStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<GroupStore, E>,
  { advance }: GroupStoreCapabilities
): void => {
  const test = (title: string, run: (store: GroupStore["Service"]) => Effect.Effect<void, unknown>) =>
    it.effect(title, () => Effect.flatMap(GroupStore, run).pipe(Effect.provide(layer)))

  const register = (
    store: GroupStore["Service"],
    group: string,
    more: Partial<Parameters<GroupStore["Service"]["register"]>[0]> = {}
  ) =>
    store.register({
      group,
      pattern: "orders.**",
      wanted: {},
      defaults: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered: false },
      history: "h1",
      generation: "g1",
      positions: new Map(),
      ...more
    })

  describe(`${name}: GroupStore`, () => {
    describe("register", () => {
      test("keeps what was registered first", (store) =>
        Effect.gen(function* () {
          const first = yield* register(store, "billing", { wanted: { maxAttempts: 5 } })
          expect(first).toMatchObject({
            group: "billing",
            pattern: "orders.**",
            options: { ackTimeoutMs: 1_000, maxAttempts: 5, keyOrdered: false },
            history: "h1"
          })
          yield* advance(20)
          const again = yield* register(store, "billing", {
            defaults: { ackTimeoutMs: 7, maxAttempts: 7, keyOrdered: true },
            history: "h2",
            generation: "g2"
          })
          expect(again).toEqual(first)
          expect(yield* store.list).toEqual([first])
        }))

      test("refuses other options, and says which differ", (store) =>
        Effect.gen(function* () {
          yield* register(store, "billing", { wanted: { keyOrdered: true } })
          const conflict = yield* Effect.flip(
            register(store, "billing", { wanted: { keyOrdered: false, ackTimeoutMs: 1_000, maxAttempts: 9 } })
          )
          expect(conflict).toMatchObject({ _tag: "GroupConflict", differs: ["maxAttempts", "keyOrdered"] })
        }))

      test("adds patterns to a group, all with the options of the first", (store) =>
        Effect.gen(function* () {
          yield* register(store, "billing", { wanted: { maxAttempts: 5 } })
          const second = yield* register(store, "billing", { pattern: "invoices.*" })
          expect(second.options.maxAttempts).toBe(5)
          const conflict = yield* Effect.flip(
            register(store, "billing", { pattern: "x", wanted: { maxAttempts: 6 } })
          )
          expect(conflict._tag).toBe("GroupConflict")
          yield* register(store, "audit")
          expect((yield* store.list).map((item) => [item.group, item.pattern])).toEqual([
            ["audit", "orders.**"],
            ["billing", "invoices.*"],
            ["billing", "orders.**"]
          ])
        }))

      test("sets the positions of topics that the group has not met, and of no others", (store) =>
        Effect.gen(function* () {
          yield* register(store, "billing", {
            positions: new Map([
              ["orders.a", 5],
              ["orders.b", 0]
            ])
          })
          yield* register(store, "billing", {
            pattern: "**",
            generation: "g2",
            positions: new Map([
              ["orders.a", 99],
              ["orders.c", 7]
            ])
          })
          const states = yield* store.topicsOf("billing")
          expect(
            states.map(({ state, topic }) => [topic, state.floor, state.next, state.generation])
          ).toEqual([
            ["orders.a", 5, 6, "g1"],
            ["orders.b", 0, 1, "g1"],
            ["orders.c", 7, 8, "g2"]
          ])
          expect(yield* store.read({ group: "billing", topic: "orders.x" })).toBeUndefined()
        }))

      test("is atomic: of many at once, one registers", (store) =>
        Effect.gen(function* () {
          const all = yield* Effect.all(
            Array.from({ length: 10 }, (_, i) =>
              Effect.result(register(store, "billing", { wanted: { maxAttempts: i + 1 } }))
            ),
            { concurrency: "unbounded" }
          )
          expect(all.filter((one) => one._tag === "Success").length).toBe(1)
          expect((yield* store.list).length).toBe(1)
        }))
    })

    describe("modify", () => {
      test("gives the state and the store's time, and keeps what it is given", (store) =>
        Effect.gen(function* () {
          yield* register(store, "billing", { positions: new Map([["orders.a", 3]]) })
          const at = { group: "billing", topic: "orders.a" }
          const before = yield* store.modify(at, (state, now) => [[state?.floor, now] as const, state!])
          yield* advance(20)
          const claimed = yield* store.modify(at, (state, now) => {
            const claim = Group.claim(state!, {
              now,
              member: "m1",
              limit: 10,
              mode: "shared",
              candidates: [
                { seq: 4, key: "k$.😀" },
                { seq: 5, key: undefined }
              ],
              options,
              window: 10
            })
            return [{ ...claim, now }, claim.state]
          })
          expect(before[0]).toBe(3)
          expect(claimed.now - before[1]).toBeGreaterThanOrEqual(20)
          expect(claimed.deliveries.length).toBe(2)
          expect(yield* store.read(at)).toEqual(claimed.state)
          expect(yield* store.modify(at, (state) => [state, state!])).toEqual(claimed.state)
        }))

      test("gives nothing for a topic the group has not met, and makes its state", (store) =>
        Effect.gen(function* () {
          yield* register(store, "billing")
          const at = { group: "billing", topic: "orders.new" }
          const met = yield* store.modify(at, (state) => [state, state ?? Group.initial("g9", 0)])
          expect(met).toBeUndefined()
          expect(yield* store.read(at)).toEqual(Group.initial("g9", 0))
        }))

      test("fails for a group that is not registered, or was removed", (store) =>
        Effect.gen(function* () {
          const at = { group: "billing", topic: "orders.a" }
          const touch = store.modify(at, (state) => [0, state ?? Group.initial("g", 0)])
          expect(yield* Effect.flip(touch)).toMatchObject({ _tag: "GroupNotFound", group: "billing" })
          yield* register(store, "billing")
          yield* touch
          expect(yield* store.remove("billing")).toBe(true)
          expect(yield* store.remove("billing")).toBe(false)
          expect((yield* Effect.flip(touch))._tag).toBe("GroupNotFound")
          expect(yield* store.list).toEqual([])
          expect(yield* store.topicsOf("billing")).toEqual([])
          yield* register(store, "billing")
          expect(yield* store.read(at)).toBeUndefined()
        }))

      test("loses no change when many modify at once", (store) =>
        Effect.gen(function* () {
          yield* register(store, "billing", { positions: new Map([["orders.a", 0]]) })
          const at = { group: "billing", topic: "orders.a" }
          yield* Effect.forEach(
            Array.from({ length: 100 }, (_, i) => i),
            () =>
              store.modify(at, (state) => [
                undefined,
                { ...state!, floor: state!.floor + 1, next: state!.next + 1 }
              ]),
            { concurrency: "unbounded", discard: true }
          )
          expect((yield* store.read(at))!.floor).toBe(100)
        }))

      test("keeps states of different topics and groups apart", (store) =>
        Effect.gen(function* () {
          yield* register(store, "a", { positions: new Map([["t", 1]]) })
          yield* register(store, "b", { positions: new Map([["t", 2]]) })
          yield* store.modify({ group: "a", topic: "u" }, (state) => [0, state ?? Group.initial("g", 9)])
          const floors = (yield* store.cursors("t")).map(({ group, state, topic }) => [
            group,
            topic,
            state.floor
          ])
          expect(floors).toEqual([
            ["a", "t", 1],
            ["b", "t", 2]
          ])
          expect((yield* store.topicsOf("a")).map(({ state, topic }) => [topic, state.floor])).toEqual([
            ["t", 1],
            ["u", 9]
          ])
        }))

      test("holds every part of a state", (store) =>
        Effect.gen(function* () {
          const entry = { attempt: 2, unanswered: 1, member: "m.1" }
          const state: Group.GroupState = {
            generation: "g",
            floor: 3,
            next: 20,
            acked: [
              [5, 6],
              [9, 9]
            ],
            inFlight: new Map([[7, { ...entry, key: "$k", deadline: 1234.5 }]]),
            waiting: new Map([[8, { ...entry, key: undefined, notBefore: 99 }]]),
            dying: new Map([[10, { ...entry, key: "", reason: "it's '$bad'\u0000" }]]),
            deferred: new Map([["$k", [11, 12]]])
          }
          yield* register(store, "billing")
          yield* store.modify({ group: "billing", topic: "t" }, () => [0, state])
          expect(yield* store.read({ group: "billing", topic: "t" })).toEqual(state)
        }))
    })
  })
}
