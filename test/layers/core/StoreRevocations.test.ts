/** What is refused after a revocation, who hears of it, and what a hub knows of others' when its store is away. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Claims } from "../../../src/domain/Claims.ts"
import * as Policy from "../../../src/domain/Policy.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as StoreRevocations from "../../../src/layers/core/StoreRevocations.ts"
import * as MemoryRevocationStore from "../../../src/layers/memory/MemoryRevocationStore.ts"
import { Revocations } from "../../../src/services/Revocations.ts"
import { RevocationStore } from "../../../src/services/RevocationStore.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"

const { intervalMs, staleMs } = Settings.revocations

const claims = (more: Partial<Claims> = {}): Claims => ({
  sub: "alice",
  expiresAt: Infinity,
  issuedAt: 1_000,
  tokenId: "t1",
  policy: Policy.none,
  ...more
})

const away = new StoreUnavailable({ operation: "RevocationStore.version", cause: new Error("away") })

/** A store that can be away, slow, and that counts what it is asked. */
const troubled = Effect.map(MemoryRevocationStore.make, (store) => {
  const trouble = {
    isAway: false,
    isStuck: false,
    isBroken: false,
    lists: 0,
    versions: 0,
    prunes: 0,
    onList: Effect.void
  }
  const when = <A>(effect: Effect.Effect<A, StoreUnavailable>) =>
    Effect.suspend(() => {
      if (trouble.isBroken) return Effect.die(new Error("a bug"))
      return trouble.isStuck ? Effect.never : trouble.isAway ? Effect.fail(away) : effect
    })
  return {
    trouble,
    store: RevocationStore.of({
      ...store,
      add: (entry) => when(store.add(entry)),
      prune: (before) =>
        Effect.suspend(() => {
          trouble.prunes++
          return when(store.prune(before))
        }),
      version: when(
        Effect.suspend(() => {
          trouble.versions++
          return store.version
        })
      ),
      list: (page) =>
        when(
          Effect.suspend(() => {
            trouble.lists++
            return Effect.andThen(trouble.onList, store.list(page))
          })
        )
    })
  }
})

/** A hub of this store. */
const hub = (store: RevocationStore["Service"], options?: StoreRevocations.Options) =>
  Effect.map(
    Layer.build(
      Layer.fresh(
        StoreRevocations.layer(options).pipe(
          Layer.provide([Layer.succeed(RevocationStore, store), RandomIds.layer])
        )
      )
    ),
    Context.get(Revocations)
  )

const alone = (options?: StoreRevocations.Options) =>
  Effect.flatMap(MemoryRevocationStore.make, (store) => hub(store, options))

const token = { _tag: "Token", tokenId: "t1" } as const

const fill = (store: RevocationStore["Service"], size: number, prefix: string) =>
  Effect.forEach(
    Array.from({ length: size }, (_, i) => i),
    (i) => {
      const what = { _tag: "Token", tokenId: `many${i}` } as const
      return store.add({ id: `${prefix}-${String(i).padStart(6, "0")}`, what, revokedAt: 1, by: "olga" })
    },
    { discard: true }
  )

describe("StoreRevocations", () => {
  it.effect("refuse nothing before something is revoked", () =>
    Effect.gen(function* () {
      const { isRevoked } = yield* alone()
      expect(isRevoked(claims())).toBe(false)
      expect(isRevoked(claims({ issuedAt: undefined, tokenId: undefined }))).toBe(false)
    })
  )

  it.effect("refuse what was revoked as soon as that is answered", () =>
    Effect.gen(function* () {
      const { isRevoked, revoke } = yield* alone()
      yield* revoke(token)
      expect(isRevoked(claims())).toBe(true)
      expect(isRevoked(claims({ tokenId: "t2" }))).toBe(false)
      yield* revoke({ _tag: "Subject", sub: "bob", issuedBefore: 1_000 })
      expect(isRevoked(claims({ sub: "bob", tokenId: "t2", issuedAt: 999 }))).toBe(true)
    })
  )

  it.effect("tell whoever has a session, each of them, after they are in force", () =>
    Effect.gen(function* () {
      const { changes, isRevoked, revoke } = yield* alone()
      const seen: Array<boolean> = []
      const listen = Effect.forkChild(
        changes.pipe(
          Stream.take(1),
          Stream.runForEach(() => Effect.sync(() => seen.push(isRevoked(claims()))))
        ),
        { startImmediately: true }
      )
      const sessions = [yield* listen, yield* listen]
      yield* Effect.yieldNow
      yield* revoke(token)
      yield* Fiber.joinAll(sessions)
      expect(seen).toEqual([true, true])
    })
  )

  it.effect("know what was revoked before they were there", () =>
    Effect.gen(function* () {
      const store = yield* MemoryRevocationStore.make
      yield* (yield* hub(store)).revoke(token)
      expect((yield* hub(store)).isRevoked(claims())).toBe(true)
    })
  )

  it.effect("hear of what another hub revokes, and takes back, with the next look; of nothing else", () =>
    Effect.gen(function* () {
      const { store, trouble } = yield* troubled
      const [one, other] = [yield* hub(store), yield* hub(store)]
      let heard = 0
      yield* Effect.forkScoped(
        Stream.runForEach(other.changes, () => Effect.sync(() => heard++)),
        { startImmediately: true }
      )
      yield* Effect.yieldNow
      const { id } = yield* one.revoke(token)
      expect(other.isRevoked(claims())).toBe(false)
      yield* TestClock.adjust(intervalMs)
      expect([other.isRevoked(claims()), heard]).toEqual([true, 1])
      const { lists, versions } = trouble
      yield* TestClock.adjust(20 * intervalMs)
      // Two hubs, a small read each.
      expect(trouble.lists).toBe(lists)
      expect(trouble.versions).toBe(versions + 40)
      expect(heard).toBe(1)
      expect(yield* one.remove(id)).toBe(true)
      expect(one.isRevoked(claims())).toBe(false)
      yield* TestClock.adjust(intervalMs)
      expect([other.isRevoked(claims()), heard]).toEqual([false, 2])
      expect(yield* one.remove(id)).toBe(false)
    })
  )

  it.effect("do not lose what is revoked while the others are read", () =>
    Effect.gen(function* () {
      const { store, trouble } = yield* troubled
      const [one, other] = [yield* hub(store), yield* hub(store)]
      yield* one.revoke({ _tag: "Token", tokenId: "before" })
      // Between the version and the entries, which come as they were then.
      trouble.onList = Effect.suspend(() => {
        trouble.onList = Effect.sleep(intervalMs / 10)
        return trouble.onList
      })
      yield* TestClock.adjust(intervalMs)
      const revoked = yield* Effect.forkChild(other.revoke(token), { startImmediately: true })
      yield* TestClock.adjust(intervalMs / 5)
      yield* Fiber.join(revoked)
      expect(other.isRevoked(claims())).toBe(true)
      yield* TestClock.adjust(3 * intervalMs)
      expect(other.isRevoked(claims())).toBe(true)
      expect(one.isRevoked(claims())).toBe(true)
    })
  )

  it.effect("read any number of entries", () =>
    Effect.gen(function* () {
      const store = yield* MemoryRevocationStore.make
      for (let i = 0; i < 2_500; i++) {
        const what = { _tag: "Token", tokenId: `t${i}` } as const
        yield* store.add({ id: `id-${i}`, what, revokedAt: 1, by: "olga" })
      }
      const { isRevoked } = yield* hub(store)
      for (const i of [0, 999, 1_000, 2_499]) expect(isRevoked(claims({ tokenId: `t${i}` }))).toBe(true)
      expect(isRevoked(claims({ tokenId: "t2500" }))).toBe(false)
    })
  )

  it.effect.each(["isAway", "isStuck", "isBroken"] as const)(
    "know that they do not know while the store is away (%s), and keep what they knew",
    (how) =>
      Effect.gen(function* () {
        const { store, trouble } = yield* troubled
        const { isCurrent, isRevoked, revoke } = yield* hub(store)
        yield* revoke(token)
        yield* TestClock.adjust(10 * staleMs)
        expect(isCurrent()).toBe(true)
        trouble[how] = true
        yield* TestClock.adjust(staleMs - intervalMs)
        expect(isCurrent()).toBe(true)
        yield* TestClock.adjust(2 * intervalMs)
        expect([isCurrent(), isRevoked(claims())]).toEqual([false, true])
        trouble[how] = false
        // A look that is stuck is given up after a while.
        yield* TestClock.adjust(staleMs + intervalMs)
        expect([isCurrent(), isRevoked(claims())]).toEqual([true, true])
      })
  )

  it.effect("fail when the store is away at their start, and when it does not take a revocation", () =>
    Effect.gen(function* () {
      const { store, trouble } = yield* troubled
      const { isRevoked, revoke } = yield* hub(store)
      trouble.isAway = true
      expect(yield* Effect.flip(revoke(token))).toBe(away)
      expect(isRevoked(claims())).toBe(false)
      expect(yield* Effect.flip(hub(store))).toBe(away)
    })
  )

  it.effect("are forgotten when every token that they are about has had its time", () =>
    Effect.gen(function* () {
      const store = yield* MemoryRevocationStore.make
      const tokens = { clockToleranceMs: 5_000, maxTokenAgeMs: 3_600_000 }
      const { list, revoke } = yield* hub(store, { tokens })
      yield* TestClock.adjust(1_000)
      yield* revoke({ _tag: "Subject", sub: "alice", issuedBefore: 1_000 }, { by: "olga", reason: "left" })
      yield* revoke(token, { expiresAt: 20_000 })
      const { items } = yield* list()
      expect(items).toMatchObject([
        { by: "olga", reason: "left", revokedAt: 1_000, until: 1_000 + 3_600_000 + 10_000 },
        { until: 25_000 }
      ])
      yield* TestClock.adjust("1 hour")
      expect((yield* list()).items).toEqual(items.slice(0, 1))
      yield* TestClock.adjust("1 hour")
      expect((yield* list()).items).toEqual([])
    })
  )

  it.effect("are looked at again after a bug in the store, and pruned again", () =>
    Effect.gen(function* () {
      const { store, trouble } = yield* troubled
      const options = { settings: { ...Settings.revocations, intervalMs: 4_000 } }
      const [one, other] = [yield* hub(store, options), yield* hub(store, options)]
      trouble.isBroken = true
      yield* TestClock.adjust("1 hour")
      trouble.isBroken = false
      yield* one.revoke(token)
      yield* TestClock.adjust(4_000)
      expect([other.isRevoked(claims()), other.isCurrent()]).toEqual([true, true])
      const { prunes } = trouble
      yield* TestClock.adjust("1 hour")
      expect(trouble.prunes).toBe(prunes + 2)
    })
  )

  it.effect("are known at another hub within a second, as it is configured without being told", () =>
    Effect.gen(function* () {
      // Between two looks, and a turn of the gateway: it closes connections as soon as it hears.
      expect(intervalMs).toBeLessThanOrEqual(500)
      const store = yield* MemoryRevocationStore.make
      const [one, other] = [yield* hub(store), yield* hub(store)]
      let heardAt = 0
      let now = 0
      yield* Effect.forkScoped(
        Stream.runForEach(other.changes, () => Effect.sync(() => (heardAt = now))),
        { startImmediately: true }
      )
      yield* TestClock.adjust(1)
      yield* one.revoke(token)
      for (; heardAt === 0 && now < 2 * intervalMs; now++) yield* TestClock.adjust(1)
      expect(other.isRevoked(claims())).toBe(true)
      expect(heardAt).toBeLessThanOrEqual(intervalMs)
    })
  )

  describe("when there are many", () => {
    const readMs = 200
    const many = 8_000
    const staleMs = 1_000
    const settings = { ...Settings.revocations, staleMs }

    /** Each page takes a while, so that all of them take longer than what counts as out of touch. */
    const slow = Effect.fnUntraced(function* (prefix: "0" | "z") {
      const { store, trouble } = yield* troubled
      yield* fill(store, many, prefix)
      const [one, other] = [yield* hub(store, { settings }), yield* hub(store, { settings })]
      trouble.onList = Effect.sleep(readMs)
      expect((many / 1_000) * readMs).toBeGreaterThan(staleMs)
      return { one, other, trouble }
    })

    it.effect("stay current while they are read, and what is new does not wait for the rest", () =>
      Effect.gen(function* () {
        const { one, other } = yield* slow("0")
        yield* one.revoke(token)
        yield* TestClock.adjust(intervalMs + readMs)
        expect(other.isRevoked(claims())).toBe(true)
        for (let ms = 0; ms < 6 * staleMs; ms += readMs) {
          yield* TestClock.adjust(readMs)
          expect([ms, other.isCurrent()]).toEqual([ms, true])
          if (ms === 2 * readMs) yield* one.revoke({ _tag: "Token", tokenId: "t2" })
          // While the others are still read.
          if (ms === 2 * readMs + intervalMs + 2 * readMs - 100) {
            expect(other.isRevoked(claims({ tokenId: "t2" }))).toBe(true)
          }
        }
      })
    )

    it.effect("are added to meanwhile, at once and for good", () =>
      Effect.gen(function* () {
        const { one, other } = yield* slow("z")
        yield* one.revoke(token)
        yield* TestClock.adjust(intervalMs + 4 * readMs)
        const { revokedAt } = yield* other.revoke({ _tag: "Token", tokenId: "t2" })
        expect(revokedAt).toBe(intervalMs + 4 * readMs)
        // Its place among the others was read before.
        for (let ms = 0; ms < 6 * staleMs; ms += readMs) {
          yield* TestClock.adjust(readMs)
          expect([ms, other.isRevoked(claims({ tokenId: "t2" }))]).toEqual([ms, true])
        }
        expect(other.isRevoked(claims())).toBe(true)
        expect(one.isRevoked(claims({ tokenId: "t2" }))).toBe(true)
      })
    )

    it.effect("do not stay current when the store stops in the middle", () =>
      Effect.gen(function* () {
        const { one, other, trouble } = yield* slow("0")
        yield* one.revoke(token)
        yield* TestClock.adjust(intervalMs + 4 * readMs)
        trouble.isStuck = true
        yield* TestClock.adjust(2 * staleMs + 2 * intervalMs)
        expect(other.isCurrent()).toBe(false)
      })
    )

    it.effect("are no more than are allowed, besides what stands for all of them", () =>
      Effect.gen(function* () {
        const { isRevoked, remove, revoke } = yield* alone({
          settings: { ...Settings.revocations, maxEntries: 2 }
        })
        const [first] = [
          yield* revoke(token),
          yield* revoke({ _tag: "Subject", sub: "bob", issuedBefore: 1 })
        ]
        const another = { _tag: "Token", tokenId: "t2" } as const
        expect(yield* Effect.flip(revoke(another))).toMatchObject({ _tag: "TooManyRevocations", limit: 2 })
        expect(isRevoked(claims({ tokenId: "t2" }))).toBe(false)
        yield* revoke({ _tag: "IssuedBefore", issuedBefore: 500 })
        expect(isRevoked(claims({ issuedAt: 499, tokenId: "t3" }))).toBe(true)
        expect(yield* remove(first.id)).toBe(true)
        expect((yield* Effect.flip(revoke(another)))._tag).toBe("TooManyRevocations")
      })
    )
  })

  it.effect("stay for good where they may be about a token that has no age", () =>
    Effect.gen(function* () {
      const tokens = { clockToleranceMs: 5_000, maxTokenAgeMs: 3_600_000, hasAgeless: true }
      const settings = { ...Settings.revocations, intervalMs: 60_000 }
      const { isRevoked, list, revoke } = yield* alone({ settings, tokens })
      yield* TestClock.adjust(1_000)
      yield* revoke({ _tag: "Subject", sub: "alice", issuedBefore: 1_000 })
      yield* revoke({ _tag: "IssuedBefore", issuedBefore: 500 })
      yield* revoke(token)
      expect((yield* list()).items.map(({ until }) => until !== undefined)).toEqual([false, false, true])
      yield* TestClock.adjust("1 day")
      expect(isRevoked(claims({ issuedAt: undefined, tokenId: undefined }))).toBe(true)
    })
  )
})
