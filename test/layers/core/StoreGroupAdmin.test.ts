/** What operators ask of consumer groups and do with them, on every store. Members are at work in their own tests. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { TestClock } from "effect/testing"
import { deadLetter, deadLetterTopic } from "../../../src/domain/DeadLetter.ts"
import * as Group from "../../../src/domain/Group.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Topic from "../../../src/domain/Topic.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as StoreGroupAdmin from "../../../src/layers/core/StoreGroupAdmin.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../../../src/layers/memory/MemoryGroupStore.ts"
import * as SqliteEventStore from "../../../src/layers/sqlite/SqliteEventStore.ts"
import * as SqliteGroupStore from "../../../src/layers/sqlite/SqliteGroupStore.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { type BlockedPlace, GroupAdmin } from "../../../src/services/GroupAdmin.ts"
import { GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import type { Ids } from "../../../src/services/Ids.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import { record, records } from "../../../src/testing/eventStore.ts"
import { database } from "../sqlite/temporary.ts"

const retention = { minAgeMs: 0 }

const stores = {
  memory: Layer.mergeAll(MemoryEventStore.layer({ retention }), MemoryGroupStore.layer).pipe(
    Layer.provideMerge(RandomIds.layerTest())
  ),
  sqlite: Layer.mergeAll(SqliteEventStore.layer({ retention }), SqliteGroupStore.layer).pipe(
    Layer.provideMerge(database("thread"))
  )
}

const day = 24 * 60 * 60 * 1_000

const pattern = (name: string): Topic.Pattern => Result.getOrThrow(Topic.parsePattern(name))

const entry = {
  attempt: 1,
  unanswered: 0,
  member: "m",
  key: undefined,
  since: 0,
  reason: "",
  letter: undefined
} satisfies Group.Entry

interface Scene {
  readonly admin: GroupAdmin["Service"]
  readonly store: EventStore["Service"]
  readonly groups: GroupStore["Service"]
  /** Groups whose members were told of a change. */
  readonly refreshed: ReadonlyArray<string>
  readonly register: (
    group: string,
    pattern: string,
    more?: { readonly keyOrdered?: boolean; readonly history?: string; readonly at?: Record<string, number> }
  ) => Effect.Effect<void>
  readonly set: (group: string, topic: string, state: Group.GroupState) => Effect.Effect<void>
  /** Letters of events that group `g` gave up on topic `orders`, one for each that is given. */
  readonly bury: (
    ...deaths: ReadonlyArray<{ readonly seq: number; readonly reason?: string; readonly redrives?: number }>
  ) => Effect.Effect<void>
}

const suite = <E>(name: string, layer: Layer.Layer<EventStore | GroupStore | Ids, E>): void => {
  const test = (title: string, run: (scene: Scene) => Effect.Effect<void, unknown>) =>
    it.effect(title, () => {
      const refreshed: Array<string> = []
      const delivery = Layer.mock(GroupDelivery, {
        refresh: (group) => Effect.sync(() => void refreshed.push(group)),
        activeGroups: () => ["active"],
        members: () => 0,
        inFlight: () => 0
      })
      return Effect.gen(function* () {
        const admin = yield* GroupAdmin
        const store = yield* EventStore
        const groups = yield* GroupStore
        const history = yield* store.history
        const scene: Scene = {
          admin,
          store,
          groups,
          refreshed,
          register: (group, pattern, more = {}) =>
            groups
              .register({
                group,
                pattern,
                wanted: more.keyOrdered === undefined ? {} : { keyOrdered: more.keyOrdered },
                defaults: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered: false },
                history: more.history ?? history,
                generation: "g1",
                positions: new Map(Object.entries(more.at ?? {}))
              })
              .pipe(Effect.asVoid, Effect.orDie),
          set: (group, topic, state) =>
            Effect.orDie(groups.modify({ group, topic }, () => [undefined, state])),
          bury: (...deaths) =>
            Effect.forEach(deaths, ({ reason = "no", redrives = 0, seq }) =>
              Effect.flatMap(store.read({ topic: "orders", after: seq - 1, limit: 1 }), ([original]) =>
                store.append([
                  deadLetter({
                    record: original!,
                    group: "g",
                    generation: "g1",
                    attempts: 3,
                    reason,
                    redrives
                  })
                ])
              )
            ).pipe(Effect.asVoid, Effect.orDie)
        }
        yield* run(scene)
      }).pipe(
        Effect.provide(StoreGroupAdmin.layer().pipe(Layer.provide(delivery), Layer.provideMerge(layer)))
      )
    })

  const failure = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.map(Effect.flip(effect), (error) => (error as { readonly _tag: string })._tag)

  describe(`GroupAdmin on ${name}`, () => {
    describe("list and get", () => {
      test("a group with its patterns, options and times", ({ admin, register }) =>
        Effect.gen(function* () {
          yield* TestClock.adjust(100)
          yield* register("active", "orders.*", { keyOrdered: true })
          yield* TestClock.adjust(100)
          yield* register("active", "invoices")
          const info = {
            group: "active",
            patterns: ["invoices", "orders.*"],
            options: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered: true },
            registeredAt: 100,
            lastUsedAt: 200,
            paused: false,
            sameHistory: true,
            unused: false,
            active: true
          }
          expect(yield* admin.get("active")).toEqual(info)
          expect(yield* admin.list({ limit: 10 })).toEqual({ items: [info], next: undefined })
          expect(yield* failure(admin.get("nobody"))).toBe("GroupNotFound")
        }))

      test("pages by name, each group once", ({ admin, register }) =>
        Effect.gen(function* () {
          for (const group of ["c", "a", "e", "b", "d"]) {
            yield* register(group, "orders")
            yield* register(group, "invoices")
          }
          const found: Array<ReadonlyArray<string>> = []
          let after: string | undefined
          do {
            const page = yield* admin.list({ limit: 2, ...(after === undefined ? {} : { after }) })
            found.push(page.items.map(({ group }) => group))
            after = page.next
          } while (after !== undefined)
          expect(found).toEqual([["a", "b"], ["c", "d"], ["e"]])
        }))

      test("says which are unused, and which belong to another life of the store", ({ admin, register }) =>
        Effect.gen(function* () {
          yield* register("active", "a")
          yield* register("foreign", "a", { history: "another" })
          yield* register("idle", "a")
          const flags = Effect.map(admin.list({ limit: 10 }), ({ items }) =>
            items.map(({ group, sameHistory, unused }) => [group, sameHistory, unused])
          )
          yield* TestClock.adjust(7 * day)
          expect(yield* flags).toEqual([
            ["active", true, false],
            ["foreign", false, false],
            ["idle", true, false]
          ])
          yield* TestClock.adjust(1)
          expect(yield* flags).toEqual([
            ["active", true, false],
            ["foreign", false, true],
            ["idle", true, true]
          ])
        }))

      test("positions: topics of all patterns, met or not, in pages", ({ admin, register, set, store }) =>
        Effect.gen(function* () {
          for (const topic of ["a.1", "a.2", "a.3", "b.1", "b.2", "c.1"]) {
            yield* store.append(records(topic, 5))
          }
          yield* register("g", "a.*")
          yield* register("g", "*.1")
          yield* register("g", "b.9")
          yield* set("g", "a.2", {
            ...Group.initial("g1", 2),
            next: 5,
            inFlight: new Map([[3, { ...entry, deadline: 9 }]])
          })
          const found: Array<ReadonlyArray<unknown>> = []
          let after: string | undefined
          do {
            const page = yield* admin.positions({
              group: "g",
              limit: 2,
              ...(after === undefined ? {} : { after })
            })
            found.push(page.items.map((one) => [one.topic, one.seq, one.pending, one.inFlight, one.head]))
            after = page.next
          } while (after !== undefined)
          expect(found).toEqual([
            [
              ["a.1", 0, 5, 0, 5],
              ["a.2", 2, 2, 1, 5]
            ],
            [
              ["a.3", 0, 5, 0, 5],
              ["b.1", 0, 5, 0, 5]
            ],
            [["c.1", 0, 5, 0, 5]]
          ])
          expect(yield* failure(admin.positions({ group: "nobody", limit: 2 }))).toBe("GroupNotFound")
        }))
    })

    describe("seek", () => {
      const ten = ({ register, set, store }: Scene) =>
        Effect.gen(function* () {
          for (let n = 1; n <= 10; n++) {
            yield* store.append(records("orders", 1, n))
            yield* TestClock.adjust(100)
          }
          yield* register("g", "orders")
          // 1 to 3 and 5 are acknowledged.
          yield* set("g", "orders", {
            ...Group.initial("g1", 3),
            next: 6,
            inFlight: new Map([[4, { ...entry, deadline: 9 }]])
          })
        })

      test("to a seq, and the dry run says the same and changes nothing", (scene) =>
        Effect.gen(function* () {
          const { admin, groups, refreshed } = scene
          yield* ten(scene)
          const at = { group: "g", topic: "orders" }
          const before = yield* groups.read(at)
          const request = { group: "g", topic: pattern("orders"), to: { seq: 7 } }
          const sought = [{ topic: "orders", from: 3, to: 7, again: 0, skipped: 3 }]
          expect(yield* admin.seek({ ...request, dryRun: true })).toEqual(sought)
          expect([yield* groups.read(at), refreshed]).toEqual([before, []])
          expect(yield* admin.seek(request)).toEqual(sought)
          expect(refreshed).toEqual(["g"])
          const after = yield* groups.read(at)
          expect(after).toMatchObject({ floor: 7, next: 8 })
          expect([after?.inFlight.size, after?.generation === "g1"]).toEqual([0, false])
        }))

      test("to the start, a time and the end; each seek is a life of its own", (scene) =>
        Effect.gen(function* () {
          const { admin, groups } = scene
          yield* ten(scene)
          const generations = new Set<string | undefined>()
          const seek = (to: "start" | "end" | { readonly time: number }) =>
            Effect.gen(function* () {
              const [sought] = yield* admin.seek({ group: "g", to })
              generations.add((yield* groups.read({ group: "g", topic: "orders" }))?.generation)
              return sought
            })
          expect(yield* seek("start")).toMatchObject({ from: 3, to: 0, again: 4, skipped: 0 })
          expect(yield* seek({ time: 400 })).toMatchObject({ from: 0, to: 4, again: 0, skipped: 4 })
          expect(yield* seek({ time: 401 })).toMatchObject({ from: 4, to: 5, again: 0, skipped: 1 })
          expect(yield* seek({ time: 99_999 })).toMatchObject({ from: 5, to: 10, skipped: 5 })
          expect(yield* seek({ time: -5 })).toMatchObject({ from: 10, to: 0, again: 10, skipped: 0 })
          expect(yield* seek("end")).toMatchObject({ from: 0, to: 10, again: 0, skipped: 10 })
          expect(generations.size).toBe(6)
        }))

      test("before what can be read is the first that can be; a seq behind the end is none", (scene) =>
        Effect.gen(function* () {
          const { admin, store } = scene
          yield* ten(scene)
          yield* store.trim({ topic: "orders", upTo: 5 })
          const seek = (to: { readonly seq: number } | "start") =>
            admin.seek({ group: "g", topic: pattern("orders"), to })
          expect(yield* seek({ seq: 2 })).toEqual([{ topic: "orders", from: 3, to: 5, again: 0, skipped: 0 }])
          expect(yield* seek("start")).toMatchObject([{ from: 5, to: 5 }])
          expect(yield* seek({ seq: 10 })).toMatchObject([{ from: 5, to: 10, skipped: 5 }])
          const error = yield* Effect.flip(seek({ seq: 11 }))
          expect(error).toMatchObject({ _tag: "InvalidSeek" })
          expect((error as Error).message).toContain("'orders' ends at 10, before 11")
        }))

      test("all topics of a group, or those of a pattern, met or not", ({ admin, register, set, store }) =>
        Effect.gen(function* () {
          for (const topic of ["a.1", "a.2", "b.1", "c.1"]) yield* store.append(records(topic, 5))
          yield* register("g", "a.*")
          yield* register("g", "*.1")
          yield* set("g", "a.1", Group.initial("g1", 2))
          const dry = { group: "g", dryRun: true } as const
          const shown = (
            all: ReadonlyArray<{ readonly topic: string; readonly from: number; readonly to: number }>
          ) => all.map(({ from, to, topic }) => [topic, from, to])
          expect(shown(yield* admin.seek({ ...dry, to: "end" }))).toEqual([
            ["a.1", 2, 5],
            ["a.2", 0, 5],
            ["b.1", 0, 5],
            ["c.1", 0, 5]
          ])
          expect(shown(yield* admin.seek({ ...dry, to: "end", topic: pattern("a.**") }))).toEqual([
            ["a.1", 2, 5],
            ["a.2", 0, 5]
          ])
          expect(shown(yield* admin.seek({ ...dry, to: "end", topic: pattern("**") }))).toHaveLength(4)
          expect(yield* admin.seek({ group: "g", to: "end", topic: pattern("*.1") })).toHaveLength(3)
          const { items } = yield* admin.positions({ group: "g", limit: 10 })
          expect(items.map(({ seq, topic }) => [topic, seq])).toEqual([
            ["a.1", 5],
            ["a.2", 0],
            ["b.1", 5],
            ["c.1", 5]
          ])
        }))

      test("counts what came back from the dead letters by its place in the log", (scene) =>
        Effect.gen(function* () {
          const { admin, groups } = scene
          yield* ten(scene)
          const redriven = (letter: number) => ({ ...entry, letter, notBefore: 0 })
          yield* scene.set("g", "orders", {
            ...Group.initial("g1", 8),
            waiting: new Map([
              [2, redriven(1)],
              [6, redriven(2)]
            ]),
            redrive: { plans: [], letters: [[1, 2]] }
          })
          expect(yield* admin.seek({ group: "g", to: { time: 400 } })).toMatchObject([{ to: 4, again: 4 }])
          const after = yield* groups.read({ group: "g", topic: "orders" })
          expect([...after!.waiting.keys()]).toEqual([2])
          expect(after!.redrive.letters).toEqual([[1, 1]])
        }))

      test("refuses what makes no sense, before anything is changed", (scene) =>
        Effect.gen(function* () {
          const { admin, refreshed, register } = scene
          yield* ten(scene)
          yield* register("foreign", "orders", { history: "another" })
          const seek = (request: Partial<Parameters<typeof admin.seek>[0]>) =>
            failure(admin.seek({ group: "g", to: "end", ...request }))
          expect(yield* seek({ group: "nobody" })).toBe("GroupNotFound")
          expect(yield* seek({ topic: pattern("invoices") })).toBe("GroupNotOnTopic")
          expect(yield* seek({ topic: pattern("invoices.*") })).toBe("GroupNotOnTopic")
          expect(yield* seek({ to: { seq: 1 } })).toBe("InvalidSeek")
          for (const seq of [-1, 1.5, Number.NaN, Infinity]) {
            expect(yield* seek({ to: { seq }, topic: pattern("orders") })).toBe("InvalidSeek")
          }
          expect(yield* seek({ to: { seq: 1 }, topic: pattern("orders.**") })).toBe("InvalidSeek")
          expect(yield* seek({ to: { time: Number.NaN } })).toBe("InvalidSeek")
          expect(yield* seek({ group: "foreign" })).toBe("ForeignHistory")
          yield* register("g", "later")
          expect(yield* seek({ topic: pattern("later") })).toBe("TopicNotFound")
          expect(refreshed.filter((group) => group !== "g")).toEqual([])
        }))
    })

    describe("pause, resume and remove", () => {
      test("are told to the members that are here", ({ admin, groups, refreshed, register }) =>
        Effect.gen(function* () {
          yield* register("g", "orders", { at: { orders: 3 } })
          yield* admin.pause("g")
          yield* admin.pause("g")
          expect((yield* admin.get("g")).paused).toBe(true)
          yield* admin.resume("g")
          expect((yield* admin.get("g")).paused).toBe(false)
          yield* admin.remove("g")
          expect(yield* groups.list).toEqual([])
          expect(yield* groups.read({ group: "g", topic: "orders" })).toBeUndefined()
          expect(refreshed).toEqual(["g", "g", "g", "g"])
          for (const change of [admin.pause, admin.resume]) {
            expect(yield* failure(change("g"))).toBe("GroupNotFound")
          }
          for (const dryRun of [true, false]) {
            expect(yield* failure(admin.remove("g", { dryRun }))).toBe("GroupNotFound")
          }
        }))

      test("remove says what goes with the group; a dry run says it, and nothing goes", (scene) =>
        Effect.gen(function* () {
          const { admin, groups, refreshed, register, set } = scene
          yield* register("g", "orders", { at: { orders: 3, others: 0 } })
          yield* set("g", "orders", {
            ...Group.initial("g1", 0),
            next: 6,
            inFlight: new Map([
              [1, { ...entry, deadline: 9_999 }],
              [2, { ...entry, deadline: 9_999 }]
            ]),
            waiting: new Map([[3, { ...entry, notBefore: 5_000, reason: "no" }]])
          })
          const { positions } = yield* admin.remove("g", { dryRun: true })
          expect(positions).toBe((yield* groups.topicsOf("g")).length)
          const forgotten = { positions, inFlight: 2, waiting: 1 }
          expect(yield* admin.remove("g", { dryRun: true })).toEqual(forgotten)
          expect((yield* groups.read({ group: "g", topic: "orders" }))?.inFlight.size).toBe(2)
          expect(refreshed).toEqual([])
          expect(yield* admin.remove("g")).toEqual(forgotten)
          expect(yield* groups.list).toEqual([])
        }))
    })

    describe("blocked keys", () => {
      const blocked: Group.GroupState = {
        ...Group.initial("g1", 0),
        next: 10,
        inFlight: new Map([
          [1, { ...entry, key: "busy", deadline: 9_999 }],
          [2, { ...entry, key: "again", attempt: 2, since: 40, deadline: 9_999 }]
        ]),
        waiting: new Map([[3, { ...entry, key: "waits", since: 10, notBefore: 5_000, reason: "no" }]]),
        dying: new Map([[4, { ...entry, key: "dies", since: 20 }]]),
        deferred: new Map([["waits", { seqs: [5], from: 6, unlisted: 2 }]])
      }
      const at = { group: "g", topic: "orders" }

      const scenery = ({ register, set, store }: Scene) =>
        Effect.gen(function* () {
          yield* store.append(records("orders", 10))
          yield* register("g", "orders", { keyOrdered: true })
          yield* set("g", "orders", blocked)
          yield* TestClock.adjust(100)
        })

      test("the longest blocked first, with their ages", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const all = yield* scene.admin.blockedKeys({ ...at, limit: 10 })
          expect(
            all.keys.map(({ ageMs, behind, key, seq, state }) => [key, seq, state, ageMs, behind])
          ).toEqual([
            ["waits", 3, "waiting", 90, 3],
            ["dies", 4, "dying", 80, 0],
            ["again", 2, "inFlight", 60, 0]
          ])
          const some = yield* scene.admin.blockedKeys({ ...at, limit: 1 })
          expect([some.total, some.keys.map(({ key }) => key)]).toEqual([3, ["waits"]])
          const pages: Array<ReadonlyArray<string>> = []
          let after: BlockedPlace | undefined
          do {
            const page = yield* scene.admin.blockedKeys({
              ...at,
              limit: 2,
              ...(after === undefined ? {} : { after })
            })
            expect(page.total).toBe(3)
            pages.push(page.keys.map(({ key }) => key))
            after = page.next
          } while (after !== undefined)
          expect(pages).toEqual([["waits", "dies"], ["again"]])
        }))

      test("none in a group without order, or on a topic that it has not met", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const { admin, register, set, store } = scene
          yield* register("free", "orders")
          yield* set("free", "orders", blocked)
          yield* store.append(records("fresh", 1))
          yield* register("g", "fresh")
          const none = { total: 0, keys: [], next: undefined }
          expect(yield* admin.blockedKeys({ group: "free", topic: "orders", limit: 10 })).toEqual(none)
          expect(yield* admin.blockedKeys({ group: "g", topic: "fresh", limit: 10 })).toEqual(none)
          expect(yield* failure(admin.blockedKeys({ group: "g", topic: "else", limit: 1 }))).toBe(
            "GroupNotOnTopic"
          )
          expect(yield* failure(admin.blockedKeys({ group: "no", topic: "orders", limit: 1 }))).toBe(
            "GroupNotFound"
          )
        }))

      test("retry: comes again at once", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const { admin, groups, refreshed } = scene
          expect(yield* admin.releaseKey({ ...at, key: "waits", mode: "retry" })).toBe(3)
          expect((yield* groups.read(at))?.waiting.get(3)).toMatchObject({ notBefore: 100, attempt: 1 })
          expect(refreshed).toEqual(["g"])
        }))

      test("in a dry run answers or refuses the same, and changes nothing", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const { admin, groups, refreshed } = scene
          const before = yield* groups.read(at)
          const dry = (key: string, mode: "retry" | "dead-letter") =>
            admin.releaseKey({ ...at, key, mode, dryRun: true })
          expect(yield* dry("waits", "retry")).toBe(3)
          expect(yield* dry("waits", "dead-letter")).toBe(3)
          expect(yield* dry("again", "dead-letter")).toBe(2)
          expect(yield* failure(dry("again", "retry"))).toBe("KeyNotBlocked")
          expect(yield* failure(dry("dies", "dead-letter"))).toBe("KeyNotBlocked")
          expect(yield* failure(dry("nobody", "retry"))).toBe("KeyNotBlocked")
          expect(yield* groups.read(at)).toEqual(before)
          expect(refreshed).toEqual([])
        }))

      test("dead-letter: given up, whoever has it", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const { admin, groups } = scene
          expect(yield* admin.releaseKey({ ...at, key: "waits", mode: "dead-letter" })).toBe(3)
          expect(yield* admin.releaseKey({ ...at, key: "again", mode: "dead-letter" })).toBe(2)
          const after = yield* groups.read(at)
          expect([...after!.dying.keys()].sort()).toEqual([2, 3, 4])
          expect(after!.dying.get(3)?.reason).toMatch(/operator.*no/)
        }))

      test("refuses what cannot be released, and changes nothing", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const { admin, groups, register, store } = scene
          const before = yield* groups.read(at)
          const reason = (key: string, mode: "retry" | "dead-letter", where = at) =>
            Effect.map(Effect.flip(admin.releaseKey({ ...where, key, mode })), (error) =>
              error._tag === "KeyNotBlocked" ? error.reason : error._tag
            )
          expect(yield* reason("busy", "retry")).toMatch(/none of its events has failed/)
          expect(yield* reason("busy", "dead-letter")).toMatch(/none of its events has failed/)
          expect(yield* reason("nobody", "retry")).toMatch(/none of its events has failed/)
          expect(yield* reason("again", "retry")).toMatch(/with a member/)
          expect(yield* reason("dies", "dead-letter")).toMatch(/dead letters already/)
          yield* register("free", "orders")
          expect(yield* reason("waits", "retry", { group: "free", topic: "orders" })).toMatch(
            /not key-ordered/
          )
          expect(yield* reason("waits", "retry", { group: "no", topic: "orders" })).toBe("GroupNotFound")
          const letters = deadLetterTopic("x", "orders")
          yield* store.append([record(letters, "e1")])
          yield* register("g", letters)
          expect(yield* reason("waits", "dead-letter", { group: "g", topic: letters })).toMatch(
            /never given up/
          )
          expect(yield* groups.read(at)).toEqual(before)
        }))
    })

    describe("dead letters", () => {
      const at = { group: "g", topic: "orders" }

      const scenery = ({ register, set, store }: Scene) =>
        Effect.gen(function* () {
          yield* store.append(
            Array.from({ length: 6 }, (_, i) =>
              record("orders", `e${i + 1}`, { n: i + 1 }, { key: i % 2 === 0 ? "odd" : "even", type: "t" })
            )
          )
          yield* register("g", "orders")
          yield* set("g", "orders", Group.initial("g1", 6))
        })

      test("say where they come from and what they hold", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          yield* TestClock.adjust(50)
          yield* scene.bury({ seq: 2, reason: "it timed out" })
          expect(yield* scene.admin.deadLetters({ ...at, limit: 10 })).toEqual({
            items: [
              {
                letter: 1,
                status: "dead",
                diedAt: 50,
                death: {
                  group: "g",
                  topic: "orders",
                  seq: 2,
                  id: "e2",
                  storedAt: 0,
                  attempts: 3,
                  reason: "it timed out",
                  redrives: 0
                },
                event: expect.objectContaining({
                  topic: "$dead.g.orders",
                  seq: 1,
                  key: "even",
                  type: "t",
                  payload: { n: 2 }
                }) as unknown
              }
            ],
            next: undefined
          })
        }))

      test("page by position, filtered", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          for (const seq of [1, 2, 3, 4, 5, 6]) {
            yield* scene.bury({ seq, reason: seq < 4 ? "timed out" : "poison" })
            yield* TestClock.adjust(10)
          }
          const letters = (filter: Group.RedriveFilter, limit = 10) =>
            Effect.gen(function* () {
              const pages: Array<ReadonlyArray<number>> = []
              let after: number | undefined
              do {
                const page = yield* scene.admin.deadLetters({
                  ...at,
                  filter,
                  limit,
                  ...(after === undefined ? {} : { after })
                })
                pages.push(page.items.map(({ letter }) => letter))
                after = page.next
              } while (after !== undefined)
              return pages
            })
          expect(yield* letters({}, 4)).toEqual([
            [1, 2, 3, 4],
            [5, 6]
          ])
          expect(yield* letters({ key: "even" })).toEqual([[2, 4, 6]])
          expect(yield* letters({ reason: "timed" })).toEqual([[1, 2, 3]])
          expect(yield* letters({ letters: [5, 2, 99] })).toEqual([[2, 5]])
          expect(yield* letters({ letters: [99] })).toEqual([[]])
          expect(yield* letters({ ids: ["e3", "e4"], key: "odd" })).toEqual([[3]])
          expect(yield* letters({ since: 20, until: 40 })).toEqual([[3, 4]])
          yield* scene.store.trim({ topic: deadLetterTopic("g", "orders"), upTo: 2 })
          expect((yield* letters({})).flat()).toEqual([3, 4, 5, 6])
        }))

      test("dead, on their way, or back", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          // The second death of 1, and one after a seek to before it.
          yield* scene.bury(
            { seq: 1 },
            { seq: 2 },
            { seq: 3 },
            { seq: 4 },
            { seq: 5 },
            { seq: 1, redrives: 1 }
          )
          const statuses = Effect.map(scene.admin.deadLetters({ ...at, limit: 10 }), ({ items }) =>
            items.map(({ status }) => status)
          )
          const set = (state: Partial<Group.GroupState>) =>
            scene.set("g", "orders", { ...Group.initial("g1", 6), ...state })
          expect(yield* statuses).toEqual(["dead", "dead", "dead", "dead", "dead", "dead"])
          yield* set({
            waiting: new Map([[1, { ...entry, letter: 6, notBefore: 0 }]]),
            inFlight: new Map([[2, { ...entry, letter: 2, deadline: 9 }]]),
            redrive: {
              plans: [{ next: 3, upTo: 4, filter: { ids: ["e4"] } }],
              letters: [
                [1, 2],
                [5, 6]
              ]
            }
          })
          // 1 came back once and died again; 6 is that death, and is on its way.
          expect(yield* statuses).toEqual([
            "redriven",
            "redriving",
            "dead",
            "redriving",
            "redriven",
            "redriving"
          ])
          // Somebody went back to behind 2: the log brings 5 again, which had been asked back, and those that had not.
          yield* set({ floor: 2, next: 3, redrive: { plans: [], letters: [[5, 5]] } })
          expect(yield* statuses).toEqual(["dead", "dead", "dead", "dead", "redriving", "dead"])
        }))

      test("outlive their group; without any, and without the group, there is nothing", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const { admin } = scene
          expect(yield* admin.deadLetters({ ...at, limit: 10 })).toEqual({ items: [], next: undefined })
          yield* scene.bury({ seq: 2 })
          yield* admin.remove("g")
          expect((yield* admin.deadLetters({ ...at, limit: 10 })).items).toMatchObject([{ status: "dead" }])
          expect(yield* failure(admin.deadLetters({ group: "no", topic: "orders", limit: 1 }))).toBe(
            "GroupNotFound"
          )
          yield* scene.register("no", "orders")
          expect(yield* failure(admin.deadLetters({ group: "no", topic: "else", limit: 1 }))).toBe(
            "GroupNotOnTopic"
          )
          expect(yield* failure(admin.redrive(at))).toBe("GroupNotFound")
        }))

      test("come back as planned, and are counted once", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const { admin, groups, refreshed } = scene
          expect(yield* admin.redrive(at)).toEqual({ matched: 0 })
          yield* scene.bury({ seq: 1 }, { seq: 2 }, { seq: 3 }, { seq: 4 }, { seq: 5 })
          yield* scene.set("g", "orders", {
            ...Group.initial("g1", 6),
            redrive: { plans: [], letters: [[1, 1]] }
          })
          expect(yield* admin.redrive({ ...at, dryRun: true })).toEqual({ matched: 4 })
          expect((yield* groups.read(at))?.redrive.plans).toEqual([])
          expect(refreshed).toEqual([])

          expect(yield* admin.redrive({ ...at, filter: { letters: [2, 4] } })).toEqual({ matched: 2 })
          expect((yield* groups.read(at))?.redrive.plans).toEqual([
            { next: 2, upTo: 4, filter: { letters: [2, 4] } }
          ])
          expect(refreshed).toEqual(["g"])

          // What was asked for once is not asked for again.
          expect(yield* admin.redrive({ ...at, filter: { letters: [2, 4] } })).toEqual({ matched: 0 })
          expect(yield* admin.redrive(at)).toEqual({ matched: 2 })
          expect((yield* groups.read(at))?.redrive.plans).toEqual([{ next: 1, upTo: 5, filter: {} }])
          expect(yield* admin.redrive(at)).toEqual({ matched: 0 })
          expect((yield* groups.read(at))?.redrive.plans.length).toBe(1)
        }))

      test("begin behind what was trimmed, and end with those that stand there now", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          yield* scene.bury({ seq: 1 }, { seq: 2 }, { seq: 3 })
          yield* scene.store.trim({ topic: deadLetterTopic("g", "orders"), upTo: 1 })
          expect(yield* scene.admin.redrive({ ...at, filter: { key: "odd" } })).toEqual({ matched: 1 })
          yield* scene.bury({ seq: 5 })
          expect((yield* scene.groups.read(at))?.redrive.plans).toEqual([
            { next: 2, upTo: 3, filter: { key: "odd" } }
          ])
        }))

      test("a group that has not met the topic gets them as well", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          yield* scene.bury({ seq: 1 })
          yield* scene.admin.remove("g")
          yield* scene.register("g", "orders")
          expect(yield* scene.admin.redrive(at)).toEqual({ matched: 1 })
          expect(yield* scene.groups.read(at)).toMatchObject({
            floor: 0,
            redrive: { plans: [{ next: 1, upTo: 1 }] }
          })
        }))

      test("are counted in pages, however many there are", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          const [original] = yield* scene.store.read({ topic: "orders", after: 0, limit: 1 })
          const letters = Array.from({ length: 12_000 }, (_, i) =>
            deadLetter({
              record: { ...original!, id: `x${i}`, seq: i + 1 },
              group: "g",
              generation: "g1",
              attempts: 1,
              reason: i % 1_000 === 999 ? "rare" : "common",
              redrives: 0
            })
          )
          for (let i = 0; i < letters.length; i += 2_000) {
            yield* scene.store.append(letters.slice(i, i + 2_000))
          }
          const { admin } = scene
          expect(yield* admin.redrive({ ...at, dryRun: true })).toEqual({ matched: 12_000 })
          expect(yield* admin.redrive({ ...at, filter: { reason: "rare" }, dryRun: true })).toEqual({
            matched: 12
          })
          const one = { ...at, filter: { reason: "rare" }, limit: 100 }
          const first = yield* admin.deadLetters(one)
          expect([first.items.length, first.next]).toEqual([10, 10_000])
          const second = yield* admin.deadLetters({ ...one, after: first.next! })
          expect([second.items.length, second.next]).toEqual([2, undefined])
        }))

      test("wrong filters are refused, and too many plans", (scene) =>
        Effect.gen(function* () {
          yield* scenery(scene)
          yield* scene.bury({ seq: 1 }, { seq: 2 })
          const { admin } = scene
          for (const filter of [{ letters: [0] }, { ids: [] }, { reason: "" }, { since: 5, until: 5 }]) {
            expect(yield* failure(admin.redrive({ ...at, filter }))).toBe("InvalidFilter")
            expect(yield* failure(admin.deadLetters({ ...at, filter, limit: 1 }))).toBe("InvalidFilter")
          }
          const plan = { next: 2, upTo: 2, filter: { key: "x" } }
          const full = { plans: Array.from({ length: 100 }, () => plan), letters: [] }
          yield* scene.set("g", "orders", { ...Group.initial("g1", 6), redrive: full })
          expect(yield* failure(admin.redrive({ ...at, filter: { key: "even" } }))).toBe("RedriveRefused")
          expect((yield* scene.groups.read(at))?.redrive.plans.length).toBe(100)
        }))
    })
  })
}

for (const [name, layer] of Object.entries(stores)) suite(name, layer)

describe("GroupAdmin", () => {
  it.effect("tells members of what was changed before the store failed", () => {
    const refreshed: Array<string> = []
    const failing = Layer.effect(
      GroupStore,
      Effect.map(MemoryGroupStore.make(), (store) =>
        GroupStore.of({
          ...store,
          modify: (at, f) =>
            at.topic === "b"
              ? Effect.fail(
                  new StoreUnavailable({ operation: "GroupStore.modify", cause: "the test wants it" })
                )
              : store.modify(at, f)
        })
      )
    )
    const delivery = Layer.mock(GroupDelivery, {
      refresh: (group) => Effect.sync(() => void refreshed.push(group)),
      activeGroups: () => [],
      members: () => 0,
      inFlight: () => 0
    })
    return Effect.gen(function* () {
      const admin = yield* GroupAdmin
      const store = yield* EventStore
      const groups = yield* GroupStore
      for (const topic of ["a", "b", "c"]) yield* store.append(records(topic, 3))
      yield* groups.register({
        group: "g",
        pattern: "**",
        wanted: {},
        defaults: Settings.groups,
        history: yield* store.history,
        generation: "g1",
        positions: new Map()
      })
      expect(yield* Effect.flip(admin.seek({ group: "g", to: "end" }))).toMatchObject({
        _tag: "StoreUnavailable"
      })
      expect(refreshed).toEqual(["g"])
      const { items } = yield* admin.positions({ group: "g", limit: 10 })
      expect(items.map(({ seq, topic }) => [topic, seq])).toEqual([
        ["a", 3],
        ["b", 0],
        ["c", 0]
      ])
    }).pipe(
      Effect.provide(
        StoreGroupAdmin.layer().pipe(
          Layer.provide(delivery),
          Layer.provideMerge(Layer.mergeAll(MemoryEventStore.layer(), failing)),
          Layer.provideMerge(RandomIds.layerTest())
        )
      )
    )
  })
})
