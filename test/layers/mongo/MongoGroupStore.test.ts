/** Consumer groups in a MongoDB: what every store promises, several hubs over one database, and what is sent. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import * as Group from "../../../src/domain/Group.ts"
import { encodeState } from "../../../src/domain/GroupEncoding.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import { MongoDatabase } from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoGroupStore from "../../../src/layers/mongo/MongoGroupStore.ts"
import { collection } from "../../../src/layers/mongo/schema.ts"
import { type GroupChange, GroupStore } from "../../../src/services/GroupStore.ts"
import { groupStoreSuite } from "../../../src/testing/groupStore.ts"
import { database, describeMongo } from "../../support/mongo.ts"

/** Servers count in whole milliseconds. */
const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

const advance = (millis: number) => Effect.promise(() => sleep(millis + 1))

const at = { group: "billing", topic: "orders.a" }

const registration = {
  group: "billing",
  pattern: "orders.**",
  wanted: {},
  defaults: Settings.groups,
  history: "h",
  generation: "g1",
  positions: new Map<string, number>()
}

const more = (state: Group.GroupState | undefined): readonly [number, Group.GroupState] => {
  const before = state ?? Group.initial("g", 0)
  return [before.floor, { ...before, floor: before.floor + 1, next: before.next + 1 }]
}

/** Events that were refused, each for a reason of its own. */
const refused = (count: number, reason = (n: number) => `no ${n}`): Group.GroupState => {
  const seqs = Array.from({ length: count }, (_, i) => i + 1)
  const { state } = Group.claim(Group.initial("g", 0), {
    now: 0,
    member: "m",
    limit: count,
    retriesFirst: 0,
    mode: "shared",
    candidates: seqs.map((seq) => ({ seq, key: `key ${seq % 100}` })),
    options: Settings.groups,
    window: 2 * count
  })
  const refusals = seqs.map((seq) => ({ seq, member: "m", mode: "fail" as const, reason: "", random: 0.5 }))
  const after = Group.nack(state, refusals, {
    now: 1,
    maxAttempts: 10,
    backoff: Settings.groups.backoff
  }).state
  return {
    ...after,
    waiting: new Map(Array.from(after.waiting, ([seq, entry]) => [seq, { ...entry, reason: reason(seq) }]))
  }
}

describeMongo("MongoGroupStore", (url) => {
  groupStoreSuite("mongo", Layer.provide(MongoGroupStore.layer(), [database(url), RandomIds.layer]), {
    advance
  })

  /** Another hub over the database. */
  const hub = (options?: Partial<MongoGroupStore.Options>) =>
    Effect.map(
      Layer.build(Layer.fresh(Layer.provide(MongoGroupStore.layer(options), RandomIds.layer))),
      Context.get(GroupStore)
    )

  const test = (
    title: string,
    run: (database: MongoDatabase["Service"]) => Effect.Effect<void, unknown, MongoDatabase>
  ) =>
    it.effect(title, () =>
      Effect.flatMap(MongoDatabase, run).pipe(
        Effect.scoped,
        Effect.provide(database(url, { client: { monitorCommands: true } }))
      )
    )

  const hubs = (count: number) => Effect.forEach(Array.from({ length: count }), () => hub())

  /** The commands that something sends, without those that only look after the connection. */
  const sent = <A, E, R>({ client }: MongoDatabase["Service"], effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const names: Array<string> = []
      const note = ({ commandName }: { readonly commandName: string }) => void names.push(commandName)
      client.on("commandStarted", note)
      const answer = yield* effect
      client.off("commandStarted", note)
      return [answer, names.filter((name) => name !== "hello")] as const
    })

  describe("several hubs", () => {
    test("change one state at once, and no change is lost", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const stores = yield* hubs(2)
          yield* stores[0]!.register(registration)
          const changes = stores.flatMap((store) => Array.from({ length: 200 }, () => store.modify(at, more)))
          const floors = yield* Effect.all(changes, { concurrency: "unbounded" })
          // Each saw a state of its own, and none twice.
          expect(floors.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 400 }, (_, i) => i))
          for (const store of stores) expect((yield* store.read(at))!.floor).toBe(400)
        })
      ))

    test("hear of what others change, each time, and not of what they change themselves", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const [one, other] = yield* hubs(2)
          yield* one!.register(registration)
          const heard: Array<ReadonlyArray<GroupChange>> = [[], []]
          for (const [i, store] of [one!, other!].entries()) {
            const note = (changes: ReadonlyArray<GroupChange>) =>
              Effect.sync(() => void (heard[i] = [...heard[i]!, ...changes]))
            yield* Effect.forkScoped(Stream.runForEach(store.changes, note))
          }
          yield* advance(50)
          const state = { group: at.group, topic: at.topic }
          const hears = (i: number, count: number) =>
            Effect.promise(async () => {
              while (heard[i]!.filter(({ topic }) => topic === at.topic).length < count) await sleep(5)
            })
          for (let n = 1; n <= 3; n++) {
            yield* one!.modify(at, more)
            yield* hears(1, n)
          }
          expect(heard[0]!.filter(({ topic }) => topic === at.topic)).toEqual([])
          yield* other!.modify(at, more)
          yield* hears(0, 1)
          expect(heard[0]!.filter(({ topic }) => topic === at.topic)).toEqual([state])
          yield* one!.setPaused(at.group, true)
          const hearsOfGroup = Effect.promise(async () => {
            while (!heard[1]!.some(({ topic }) => topic === undefined)) await sleep(5)
          })
          yield* hearsOfGroup
        })
      ))

    test("change a state that none of them keeps", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const stores = yield* Effect.all([hub({ cacheBytes: 0 }), hub({ cacheBytes: 0 })])
          yield* stores[0].register(registration)
          const changes = stores.flatMap((store) => Array.from({ length: 30 }, () => store.modify(at, more)))
          yield* Effect.all(changes, { concurrency: "unbounded" })
          expect((yield* stores[1].read(at))!.floor).toBe(60)
        })
      ))

    test("make one state at once", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const stores = yield* hubs(4)
          for (let n = 0; n < 10; n++) {
            const group = `group ${n}`
            yield* stores[0]!.register({ ...registration, group })
            const floors = yield* Effect.forEach(stores, (store) => store.modify({ ...at, group }, more), {
              concurrency: "unbounded"
            })
            expect(floors.toSorted()).toEqual([0, 1, 2, 3])
          }
        })
      ))

    test("register at once: one decides about the options, and every pattern stands", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const stores = yield* hubs(4)
          const all = yield* Effect.forEach(
            Array.from({ length: 20 }, (_, i) => i),
            (i) =>
              stores[i % 4]!.register({
                ...registration,
                pattern: `p${i}`,
                positions: new Map([
                  ["orders.a", i + 1],
                  [`orders.${i}`, i]
                ])
              }),
            { concurrency: "unbounded" }
          )
          const listed = yield* stores[0]!.list
          expect(listed.map(({ pattern }) => pattern)).toEqual(all.map(({ pattern }) => pattern).toSorted())
          const states = yield* stores[1]!.topicsOf("billing")
          expect(states.length).toBe(21)
          const first = states.find(({ topic }) => topic === "orders.a")!.state.floor
          expect(states.find(({ topic }) => topic === `orders.${first - 1}`)!.state.floor).toBe(first - 1)
        })
      ))

    test("notice that another removed the group, and that it is there again in another life", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const [one, other] = yield* hubs(2)
          yield* one!.register(registration)
          yield* one!.modify(at, more)
          yield* one!.modify(at, more)
          expect(yield* other!.remove("billing")).toBe(true)
          expect((yield* Effect.flip(one!.modify(at, (state) => [0, state!])))._tag).toBe("GroupNotFound")
          yield* other!.register({ ...registration, positions: new Map([["orders.a", 70]]) })
          expect(yield* one!.modify(at, more)).toBe(70)
        })
      ))

    test("answer a state as it is now, even to those who change nothing", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const [one, other] = yield* hubs(2)
          yield* one!.register(registration)
          yield* one!.modify(at, more)
          yield* other!.modify(at, more)
          expect(yield* one!.modify(at, (state) => [state!.floor, state!])).toBe(2)
          yield* other!.remove("billing")
          yield* other!.register(registration)
          expect(yield* one!.read(at)).toBeUndefined()
        })
      ))
  })

  describe("what is interrupted", () => {
    test("a removal leaves nothing that the next life sees, and the next who comes by finishes it", ({
      db
    }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const [one, other] = yield* hubs(2)
          const states = Effect.promise(() => collection(db, "group_states").countDocuments({}))
          const interrupted = Effect.promise(() =>
            collection(db, "groups").updateOne({ _id: "billing" }, { $set: { removedAt: new Date() } })
          )
          yield* one!.register(registration)
          yield* one!.modify(at, more)
          yield* interrupted
          expect(yield* other!.read(at)).toBeUndefined()
          expect(yield* other!.cursors(at.topic)).toEqual([])
          expect(yield* other!.topicsOf(at.group)).toEqual([])
          expect(yield* other!.setPaused(at.group, true)).toBe(false)
          expect((yield* Effect.flip(other!.modify(at, more)))._tag).toBe("GroupNotFound")
          expect(yield* other!.list).toEqual([])
          expect(yield* states).toBe(0)
          yield* one!.register(registration)
          yield* one!.modify(at, more)
          yield* interrupted
          yield* other!.register(registration)
          expect(yield* states).toBe(0)
          yield* other!.modify(at, more)
          yield* interrupted
          expect(yield* one!.remove("billing")).toBe(false)
          expect(yield* states).toBe(0)
        })
      ))

    test("a state of another life is none, and gives way", ({ db }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const store = yield* hub()
          yield* Effect.promise(() =>
            collection(db, "group_states").insertOne({
              _id: { topic: at.topic, group: at.group },
              ...at,
              life: "an earlier one",
              revision: "r",
              whole: encodeState(Group.initial("g", 99)),
              changes: [],
              changedAt: new Date(0),
              by: "another"
            })
          )
          yield* store.register({ ...registration, positions: new Map([["orders.a", 5]]) })
          expect(yield* store.read(at)).toEqual(Group.initial("g1", 5))
          expect((yield* store.cursors(at.topic)).map(({ state }) => state.floor)).toEqual([5])
          expect((yield* store.topicsOf(at.group)).map(({ state }) => state.floor)).toEqual([5])
          expect(yield* store.modify(at, more)).toBe(5)
          expect(yield* store.modify(at, more)).toBe(6)
          expect(yield* (yield* hub()).read(at)).toEqual(Group.initial("g1", 7))
        })
      ))

    test("positions count before they are states, the first of a topic, and no more than a state", ({ db }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const store = yield* hub()
          yield* store.register(registration)
          yield* store.modify({ ...at, topic: "orders.met" }, more)
          const positions = [
            ["orders.a", 3],
            ["orders.a", 4],
            ["orders.met", 9]
          ] as const
          yield* Effect.promise(() =>
            collection(db, "groups").updateOne(
              { _id: "billing" },
              {
                $set: {
                  positions: positions.map(([topic, floor]) => ({ topic, floor, generation: "g" }))
                }
              }
            )
          )
          const check = Effect.gen(function* () {
            expect((yield* store.read(at))?.floor).toBe(3)
            expect((yield* store.cursors(at.topic)).map(({ state }) => state.floor)).toEqual([3])
            expect((yield* store.topicsOf(at.group)).map(({ state }) => state.floor)).toEqual([3, 1])
          })
          yield* check
          yield* store.register(registration)
          yield* check
          const group = yield* Effect.promise(() => collection(db, "groups").findOne({ _id: "billing" }))
          expect(group?.positions).toEqual([])
          expect(yield* store.modify(at, more)).toBe(3)
        })
      ))
  })

  describe("what is sent", () => {
    test("one command for a change of a state that is known, whole or not, and for none", (database) =>
      Effect.scoped(
        Effect.gen(function* () {
          const store = yield* hub()
          yield* store.register(registration)
          yield* store.modify(at, more)
          for (let n = 0; n < 100; n++) {
            expect((yield* sent(database, store.modify(at, more)))[1]).toEqual(["update"])
          }
          const [, unchanged] = yield* sent(
            database,
            store.modify(at, (state) => [0, state!])
          )
          expect(unchanged).toEqual(["find"])
        })
      ))

    test("one command to touch any number of groups", (database) =>
      Effect.scoped(
        Effect.gen(function* () {
          const store = yield* hub()
          const names = Array.from({ length: 500 }, (_, i) => `group ${i}`)
          yield* store.register({ ...registration, group: names[7]! })
          expect((yield* sent(database, store.touch(names)))[1]).toEqual(["update"])
        })
      ))

    test("what changed, however much waits; now and then the whole", ({ db }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const [store, other] = yield* hubs(2)
          yield* store!.register(registration)
          yield* store!.modify(at, () => [0, refused(2_000)])
          const find = Effect.promise(() =>
            collection(db, "group_states").findOne({ _id: { topic: at.topic, group: at.group } })
          )
          const { whole } = (yield* find)!
          expect(whole.length).toBeGreaterThan(80_000)
          for (let n = 0; n < 5; n++) yield* store!.modify(at, more)
          const small = (yield* find)!
          expect(small.whole).toBe(whole)
          expect(small.changes.length).toBe(5)
          expect(Math.max(...small.changes.map(({ length }) => length))).toBeLessThan(500)
          yield* store!.modify({ ...at, topic: "small" }, more)
          let wholes = 0
          for (let n = 0; n < 100; n++) {
            yield* store!.modify({ ...at, topic: "small" }, more)
            const state = yield* Effect.promise(() =>
              collection(db, "group_states").findOne({ _id: { topic: "small", group: at.group } })
            )
            const length = state!.changes.reduce((sum, part) => sum + part.length, 0)
            expect(length).toBeLessThanOrEqual(4_096)
            if (length === 0) wholes++
          }
          expect(wholes).toBeGreaterThan(1)
          expect((yield* other!.read({ ...at, topic: "small" }))!.floor).toBe(101)
          expect(yield* other!.read(at)).toEqual(yield* store!.modify(at, (state) => [state, state!]))
        })
      ))
  })

  describe("sizes", () => {
    test("10,000 events wait", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const [store, other] = yield* hubs(2)
          yield* store!.register(registration)
          yield* store!.modify(at, () => [0, refused(10_000, (n) => `${n} `.padEnd(60, "x"))])
          for (let n = 0; n < 20; n++) yield* (n % 2 === 0 ? store : other)!.modify(at, more)
          const state = (yield* other!.read(at))!
          expect([state.floor, state.waiting.size]).toEqual([20, 10_000])
        })
      ))

    test("a state that does not fit into a document is refused, and nothing changes", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const store = yield* hub()
          yield* store.register(registration)
          yield* store.modify(at, more)
          const large = refused(4_000, (n) => `${n} `.padEnd(1_400, "€"))
          const error = yield* Effect.flip(store.modify(at, () => [0, large]))
          expect(error).toMatchObject({
            _tag: "StoreUnavailable",
            operation: "GroupStore.modify",
            cause: {
              _tag: "DocumentTooLarge",
              message: expect.stringContaining("state of group 'billing' on 'orders.a'") as string
            }
          })
          expect(yield* store.modify(at, more)).toBe(1)
        })
      ))

    test("changes that do not fit beside the whole become one", ({ db }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const [store, other] = yield* hubs(2)
          yield* store!.register(registration)
          const reason = (sign: string) => (n: number) => `${n} `.padEnd(9_000, sign)
          yield* store!.modify(at, () => [0, refused(1_000, reason("x"))])
          const next = refused(1_000, reason("y"))
          yield* store!.modify(at, () => [0, next])
          const found = yield* Effect.promise(() => collection(db, "group_states").findOne({}))
          expect(found?.changes).toEqual([])
          expect(yield* other!.read(at)).toEqual(next)
        })
      ))

    test("a group begins on thousands of topics, and its document stays small", ({ db }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const store = yield* hub()
          const positions = new Map(Array.from({ length: 3_000 }, (_, i) => [`orders.${i}`, i]))
          yield* store.register({ ...registration, positions })
          yield* store.register({ ...registration, pattern: "x", positions })
          const group = yield* Effect.promise(() => collection(db, "groups").findOne({ _id: "billing" }))
          expect(group?.positions).toEqual([])
          expect((yield* store.topicsOf("billing")).length).toBe(3_000)
          expect((yield* store.read({ ...at, topic: "orders.2999" }))?.floor).toBe(2_999)
          const tooMany = new Map(
            Array.from({ length: 60_000 }, (_, i) => [`orders.${i}`.padEnd(200, "x"), i])
          )
          const error = yield* Effect.flip(
            store.register({ ...registration, group: "large", positions: tooMany })
          )
          expect(error).toMatchObject({ _tag: "StoreUnavailable", cause: { _tag: "DocumentTooLarge" } })
          expect((yield* store.list).map((one) => one.group)).toEqual(["billing", "billing"])
        })
      ))
  })
})
