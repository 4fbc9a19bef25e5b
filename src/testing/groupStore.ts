/** What every GroupStore promises, as tests: run them against your own backend. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
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
          const { lastUsedAt, ...kept } = again
          expect(first).toMatchObject(kept)
          expect(lastUsedAt).toBeGreaterThan(first.lastUsedAt)
          expect(yield* store.list).toEqual([again])
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

    describe("setPaused", () => {
      const pauses = (store: GroupStore["Service"]) =>
        Effect.map(store.list, (all) => all.map((one) => [one.group, one.pattern, one.paused]))

      test("is of the group: of all its patterns, and of those that come later", (store) =>
        Effect.gen(function* () {
          expect((yield* register(store, "billing")).paused).toBe(false)
          yield* register(store, "billing", { pattern: "invoices.*" })
          yield* register(store, "audit")
          expect(yield* store.setPaused("billing", true)).toBe(true)
          const later = yield* register(store, "billing", { pattern: "x" })
          const joined = yield* register(store, "billing")
          expect([later.paused, joined.paused]).toEqual([true, true])
          expect(yield* pauses(store)).toEqual([
            ["audit", "orders.**", false],
            ["billing", "invoices.*", true],
            ["billing", "orders.**", true],
            ["billing", "x", true]
          ])
          expect(yield* store.setPaused("billing", false)).toBe(true)
          expect((yield* pauses(store)).some(([, , paused]) => paused)).toBe(false)
        }))

      test("may be called again, is no use, and says when there is no group", (store) =>
        Effect.gen(function* () {
          const { lastUsedAt } = yield* register(store, "billing")
          yield* advance(20)
          expect(yield* store.setPaused("billing", true)).toBe(true)
          expect(yield* store.setPaused("billing", true)).toBe(true)
          expect(yield* store.list).toMatchObject([{ paused: true, lastUsedAt }])
          expect(yield* store.setPaused("nobody", true)).toBe(false)
          expect((yield* store.list).length).toBe(1)
        }))

      test("ends with the group", (store) =>
        Effect.gen(function* () {
          yield* register(store, "billing")
          yield* store.setPaused("billing", true)
          yield* store.remove("billing")
          expect((yield* register(store, "billing")).paused).toBe(false)
        }))
    })

    describe("when a group was last used", () => {
      const uses = (store: GroupStore["Service"]) =>
        Effect.map(
          store.list,
          (all) => new Map(all.map((one) => [`${one.group} ${one.pattern}`, one.lastUsedAt]))
        )

      test("is now for whoever registers or joins, in all patterns of the group", (store) =>
        Effect.gen(function* () {
          const first = yield* register(store, "billing")
          expect(first.lastUsedAt).toBe(first.registeredAt)
          yield* register(store, "audit")
          yield* advance(20)
          const second = yield* register(store, "billing", { pattern: "invoices.*" })
          expect(second.lastUsedAt).toBeGreaterThan(first.lastUsedAt)
          const once = yield* uses(store)
          expect(once.get("billing orders.**")).toBe(second.lastUsedAt)
          yield* advance(20)
          const joined = yield* register(store, "billing")
          expect(joined).toMatchObject({ registeredAt: first.registeredAt })
          const twice = yield* uses(store)
          expect(twice.get("billing orders.**")).toBe(joined.lastUsedAt)
          expect(twice.get("billing invoices.*")).toBe(joined.lastUsedAt)
          expect(joined.lastUsedAt).toBeGreaterThan(second.lastUsedAt)
          expect(twice.get("audit orders.**")).toBe(once.get("audit orders.**"))
        }))

      test("is not changed by one who is refused, nor by what is delivered", (store) =>
        Effect.gen(function* () {
          const { lastUsedAt } = yield* register(store, "billing", { wanted: { maxAttempts: 5 } })
          yield* advance(20)
          yield* Effect.flip(register(store, "billing", { wanted: { maxAttempts: 6 } }))
          yield* store.modify({ group: "billing", topic: "t" }, (state) => [
            0,
            state ?? Group.initial("g", 1)
          ])
          expect(yield* store.list).toMatchObject([{ lastUsedAt }])
        }))

      test("is now for groups that are touched, and unknown ones are ignored", (store) =>
        Effect.gen(function* () {
          for (const group of ["a", "b", "c"]) yield* register(store, group)
          yield* register(store, "a", { pattern: "x" })
          const before = yield* uses(store)
          yield* advance(20)
          yield* store.touch(["a", "nobody", "c"])
          const after = yield* uses(store)
          expect([...after.keys()]).toEqual([...before.keys()])
          const moved = [...after].filter(([name, at]) => at > before.get(name)!).map(([name]) => name)
          expect(moved).toEqual(["a orders.**", "a x", "c orders.**"])
          expect(new Set(moved.map((name) => after.get(name))).size).toBe(1)
          yield* store.touch([])
          expect(yield* uses(store)).toEqual(after)
        }))
    })

    describe("remove", () => {
      test("with a condition only what was last used before a time", (store) =>
        Effect.gen(function* () {
          const { lastUsedAt } = yield* register(store, "billing", { positions: new Map([["orders.a", 3]]) })
          yield* register(store, "billing", { pattern: "x" })
          const at = { group: "billing", topic: "orders.a" }
          const used = (yield* store.list)[0]!.lastUsedAt
          expect(used).toBeGreaterThanOrEqual(lastUsedAt)
          expect(yield* store.remove("billing", { unusedSince: used })).toBe(false)
          expect((yield* store.list).length).toBe(2)
          expect((yield* store.read(at))?.floor).toBe(3)
          expect(yield* store.remove("billing", { unusedSince: used + 1 })).toBe(true)
          expect(yield* store.list).toEqual([])
          expect(yield* store.read(at)).toBeUndefined()
          expect(yield* store.remove("billing", { unusedSince: used + 1 })).toBe(false)
        }))

      test("leaves a group alone that was touched since", (store) =>
        Effect.gen(function* () {
          const { lastUsedAt } = yield* register(store, "billing")
          yield* advance(20)
          yield* store.touch(["billing"])
          expect(yield* store.remove("billing", { unusedSince: lastUsedAt + 1 })).toBe(false)
          expect((yield* store.list).length).toBe(1)
        }))

      test("with a condition is atomic: who joins at the same moment has a group afterwards", (store) =>
        Effect.gen(function* () {
          for (let i = 0; i < 20; i++) {
            const { lastUsedAt } = yield* register(store, "billing")
            yield* advance(2)
            const condition = { unusedSince: lastUsedAt + 1 }
            const join = register(store, "billing")
            const remove = store.remove("billing", condition)
            yield* Effect.all(i % 2 === 0 ? [join, remove, remove] : [remove, join, remove], {
              concurrency: "unbounded",
              discard: true
            })
            expect((yield* store.list).map((one) => one.group)).toEqual(["billing"])
          }
        }))

      test("takes nothing of other groups, whatever their names begin with", (store) =>
        Effect.gen(function* () {
          yield* register(store, "a", { positions: new Map([["t", 1]]) })
          yield* register(store, "aa", { positions: new Map([["t", 2]]) })
          expect(yield* store.remove("a")).toBe(true)
          expect((yield* store.list).map((one) => one.group)).toEqual(["aa"])
          expect((yield* store.cursors("t")).map((one) => [one.group, one.state.floor])).toEqual([["aa", 2]])
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
              retriesFirst: 0,
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

      test("keeps a large state that changes a little, again and again", (store) =>
        Effect.gen(function* () {
          const at = { group: "billing", topic: "orders.a" }
          yield* register(store, "billing")
          const claim = { member: "m", limit: 1_000, retriesFirst: 0, mode: "shared", options } as const
          const candidates = Array.from({ length: 1_000 }, (_, i) => ({ seq: i + 1, key: `k${i % 70}` }))
          const first = yield* store.modify(at, (_, now) => {
            const { state } = Group.claim(Group.initial("g", 0), {
              ...claim,
              now,
              candidates,
              window: 10_000
            })
            return [state, state]
          })
          let expected = first
          for (let seq = 1; seq <= 400; seq++) {
            const answer = { seq, member: "m" }
            const change = (state: Group.GroupState): Group.GroupState => {
              if (seq % 3 !== 0) return Group.ack(state, [answer]).state
              const refusal = { ...answer, mode: "fail", reason: `no ${seq}`, random: 0.5 } as const
              return Group.nack(state, [refusal], {
                now: 5,
                maxAttempts: seq % 2,
                backoff: Settings.groups.backoff
              }).state
            }
            expected = change(expected)
            yield* store.modify(at, (state) => [undefined, change(state!)])
          }
          expect(yield* store.read(at)).toEqual(expected)
          expect((yield* store.cursors("orders.a"))[0]!.state).toEqual(expected)
          expect((yield* store.topicsOf("billing"))[0]!.state).toEqual(expected)
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

      test("pages the states of a group: each once, in the order of the topics", (store) =>
        Effect.gen(function* () {
          const topics = ["a", "a.b", "b", "c", "d.a", "e"]
          const begun = topics.filter((_, i) => i % 2 === 0)
          yield* register(store, "paged", { positions: new Map(begun.map((topic) => [topic, 1])) })
          yield* register(store, "other", { positions: new Map([["c.c", 1]]) })
          for (const topic of topics) {
            yield* store.modify({ group: "paged", topic }, (state) => [0, state ?? Group.initial("g", 1)])
          }
          const found: Array<string> = []
          for (;;) {
            const after = found.at(-1)
            const page = yield* store.topicsOf("paged", {
              limit: 2,
              ...(after === undefined ? {} : { after })
            })
            expect(page.every(({ group, state }) => group === "paged" && state.floor === 1)).toBe(true)
            if (page.length === 0) break
            found.push(...page.map(({ topic }) => topic))
          }
          expect(found).toEqual(topics)
          expect((yield* store.topicsOf("paged", { after: "b", limit: 9 })).length).toBe(3)
          expect(yield* store.topicsOf("nobody", { limit: 9 })).toEqual([])
        }))

      test("holds every part of a state", (store) =>
        Effect.gen(function* () {
          const entry = {
            attempt: 2,
            unanswered: 1,
            member: "m.1",
            since: 12.5,
            reason: "it's '$bad'\u0000",
            letter: undefined
          }
          const state: Group.GroupState = {
            generation: "g",
            floor: 3,
            next: 20,
            inFlight: new Map([[7, { ...entry, key: "$k", deadline: 1234.5 }]]),
            waiting: new Map([
              [2, { ...entry, key: undefined, reason: "", letter: 4, notBefore: 99 }],
              [8, { ...entry, key: undefined, notBefore: 99 }]
            ]),
            dying: new Map([[10, { ...entry, key: "" }]]),
            deferred: new Map([
              ["$k", { seqs: [11, 12], from: 15, unlisted: 3 }],
              ["k.2", { seqs: [13], from: undefined, unlisted: 0 }]
            ]),
            redrive: {
              plans: [
                { next: 5, upTo: 9, filter: { ids: ["a"], key: "$k", reason: "no", since: 1, until: 2 } },
                { next: 6, upTo: 6, filter: { letters: [6] } }
              ],
              letters: [
                [1, 2],
                [4, 4]
              ]
            },
            pace: [
              { at: 1, done: 2 },
              { at: 10_001, done: 9 }
            ]
          }
          yield* register(store, "billing")
          yield* store.modify({ group: "billing", topic: "t" }, () => [0, state])
          expect(yield* store.read({ group: "billing", topic: "t" })).toEqual(state)
        }))
    })
  })
}
