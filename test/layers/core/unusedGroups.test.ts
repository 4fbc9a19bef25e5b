/** Groups that nobody uses: who is told, who is removed, and who never is. */
import { describe, expect } from "@effect/vitest"
import { Effect } from "effect"
import {
  day,
  everywhere,
  floorOf,
  pass,
  publish,
  register,
  type Scene,
  second,
  troubled
} from "./retentionScene.ts"

const hour = 3_600_000

/** The groups that each warning names. */
const named = ({ logged }: Scene, about: string): ReadonlyArray<unknown> =>
  logged
    .filter((line) => line.includes(about))
    .map((line) => (JSON.parse(line) as { readonly groups: ReadonlyArray<string> }).groups)

const told = (scene: Scene) => named(scene, "have had no member")
const removed = (scene: Scene) => named(scene, "were removed")

const groupsOf = ({ groups }: Scene) => Effect.map(groups.list, (all) => all.map(({ group }) => group))

describe("a group without members", () => {
  everywhere("is told after seven days, once a day, with others in one line", {}, (scene) =>
    Effect.gen(function* () {
      yield* register(scene, "b", "x")
      yield* register(scene, "a", "x")
      yield* register(scene, "a", "y")
      yield* pass(day)
      yield* register(scene, "c", "x")
      yield* pass(6 * day)
      expect((yield* scene.retention.run).unused).toEqual([])
      yield* pass(1)
      const { groupsUnused, unused } = yield* scene.retention.run
      expect([groupsUnused, unused]).toEqual([
        2,
        [
          { group: "a", lastUsedAt: 0 },
          { group: "b", lastUsedAt: 0 }
        ]
      ])
      yield* scene.retention.run
      expect(told(scene)).toEqual([["a", "b"]])

      yield* pass(day - 1)
      yield* scene.retention.run
      expect(told(scene)).toHaveLength(1)
      yield* pass(1)
      expect((yield* scene.retention.run).groupsUnused).toBe(3)
      expect(told(scene)).toEqual([
        ["a", "b"],
        ["a", "b", "c"]
      ])
      expect(yield* groupsOf(scene)).toEqual(["a", "a", "b", "c"])
    })
  )

  everywhere("that is told and used again is told anew", { unusedGroupMs: hour }, (scene) =>
    Effect.gen(function* () {
      yield* register(scene, "a", "x")
      yield* pass(2 * hour)
      yield* scene.retention.run
      yield* register(scene, "a", "x")
      expect((yield* scene.retention.run).unused).toEqual([])
      yield* pass(2 * hour)
      yield* scene.retention.run
      expect(told(scene)).toEqual([["a"], ["a"]])
    })
  )

  everywhere("stays for ever, unless groups are said to expire", {}, (scene) =>
    Effect.gen(function* () {
      yield* register(scene, "a", "x")
      yield* pass(10_000 * day)
      expect((yield* scene.retention.run).expired).toEqual([])
      expect(yield* groupsOf(scene)).toEqual(["a"])
    })
  )

  everywhere(
    "expires where that is said, with its positions, and holds nothing back any more",
    { expireGroupMs: 30 * day, rules: "t: count=1" },
    (scene) =>
      Effect.gen(function* () {
        yield* register(scene, "a", "t")
        yield* publish(scene, "t", 5)
        yield* pass(30 * day)
        expect(yield* scene.retention.run).toMatchObject({ groupsUnused: 1, expired: [], topicsHeldBack: 1 })
        yield* pass(1)
        expect(yield* scene.retention.run).toMatchObject({
          groupsUnused: 0,
          groupsExpired: 1,
          expired: [{ group: "a", lastUsedAt: 0 }],
          topicsHeldBack: 0,
          eventsForgotten: 4
        })
        expect(removed(scene)).toEqual([["a"]])
        expect(yield* groupsOf(scene)).toEqual([])
        expect(yield* floorOf(scene, "t")).toBe(4)
      })
  )

  troubled(
    "does not expire right after a start: its members come back first",
    { expireGroupMs: 2 * hour, expireGraceMs: hour },
    (scene) =>
      Effect.gen(function* () {
        yield* register(scene, "a", "x")
        yield* pass(day)
        const retention = yield* scene.restarted
        yield* pass(hour - 1)
        expect(yield* retention.run).toMatchObject({ groupsExpired: 0 })
        yield* pass(1)
        expect(yield* retention.run).toMatchObject({ groupsExpired: 1 })
      })
  )

  troubled(
    "expires soon after a start where groups expire soon",
    { expireGroupMs: second, expireGraceMs: hour },
    (scene) =>
      Effect.gen(function* () {
        yield* register(scene, "a", "x")
        yield* pass(day)
        const retention = yield* scene.restarted
        expect(yield* retention.run).toMatchObject({ groupsExpired: 0 })
        yield* pass(second)
        expect(yield* retention.run).toMatchObject({ groupsExpired: 1 })
      })
  )
})

describe("a group with members", () => {
  const wanted = { unusedGroupMs: hour, expireGroupMs: 2 * hour }

  everywhere("is used, whether or not it is looked at", wanted, (scene) =>
    Effect.gen(function* () {
      yield* register(scene, "a", "x")
      yield* register(scene, "b", "x")
      scene.active.add("a").add("nobody")
      yield* pass(day)
      const report = yield* scene.retention.run
      expect(report.expired.map(({ group }) => group)).toEqual(["b"])
      expect(report.unused).toEqual([])
      expect(yield* scene.groups.list).toMatchObject([{ group: "a", lastUsedAt: day }])
      scene.active.clear()
      yield* pass(2 * hour)
      expect(yield* scene.retention.run).toMatchObject({ groupsUnused: 1, groupsExpired: 0 })
      yield* pass(1)
      expect(yield* scene.retention.run).toMatchObject({ groupsUnused: 0, groupsExpired: 1 })
    })
  )

  troubled("that comes at the moment it would expire stays", wanted, (scene, { next }) =>
    Effect.gen(function* () {
      yield* register(scene, "a", "x")
      yield* pass(day)
      next("GroupStore.remove", (_, run) => Effect.andThen(register(scene, "a", "x"), run))
      expect(yield* scene.retention.run).toMatchObject({ groupsExpired: 0 })
      expect(yield* groupsOf(scene)).toEqual(["a"])
    })
  )

  troubled("that comes while the groups are read is not told", wanted, (scene, { next }) =>
    Effect.gen(function* () {
      yield* register(scene, "a", "x")
      yield* pass(day)
      next("GroupStore.list", (_, run) => Effect.tap(run, () => Effect.sync(() => scene.active.add("a"))))
      expect(yield* scene.retention.run).toMatchObject({ groupsUnused: 0, groupsExpired: 0 })
      expect(scene.logged).toEqual([])
    })
  )

  troubled(
    "is marked as used in every look of the hub",
    { ...wanted, intervalMs: 60 * second },
    (scene, { groups }) =>
      Effect.gen(function* () {
        yield* register(scene, "a", "x")
        scene.active.add("a")
        yield* pass(5 * second)
        expect(yield* groups.list).toMatchObject([{ lastUsedAt: 5 * second }])
        yield* pass(60 * second)
        expect(yield* groups.list).toMatchObject([{ lastUsedAt: 65 * second }])
      })
  )
})
