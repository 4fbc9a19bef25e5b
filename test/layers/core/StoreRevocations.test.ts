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
  const trouble = { isAway: false, isStuck: false, lists: 0, versions: 0, onList: Effect.void }
  const when = <A>(effect: Effect.Effect<A, StoreUnavailable>) =>
    Effect.suspend(() => (trouble.isStuck ? Effect.never : trouble.isAway ? Effect.fail(away) : effect))
  return {
    trouble,
    store: RevocationStore.of({
      ...store,
      add: (entry) => when(store.add(entry)),
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

  it.effect.each(["isAway", "isStuck"] as const)(
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
})
