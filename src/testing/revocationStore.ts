/** What every RevocationStore promises, as tests: run them against your own backend. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Entry } from "../domain/Revocation.ts"
import { RevocationStore } from "../services/RevocationStore.ts"

type Store = RevocationStore["Service"]

export interface RevocationStoreCapabilities {
  /** Stores over the same entries that share nothing else; none: only one process can have them. */
  readonly beside?: (n: number) => Effect.Effect<ReadonlyArray<Store>, unknown, Scope.Scope>
}

const entry = (n: number, more: Partial<Entry> = {}): Entry => ({
  id: `id-${String(n).padStart(5, "0")}`,
  what: { _tag: "Token", tokenId: `token-${n}` },
  revokedAt: 1_700_000_000_000 + n,
  by: "olga",
  ...more
})

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

const idsOf = (entries: ReadonlyArray<Entry>): ReadonlyArray<string> => entries.map(({ id }) => id)

/** `layer` has a new store each time it is built. */
export const revocationStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<RevocationStore, E>,
  { beside }: RevocationStoreCapabilities = {}
): void => {
  const test = (title: string, run: (store: Store) => Effect.Effect<void, unknown, Scope.Scope>) =>
    it.effect(title, () => Effect.flatMap(RevocationStore, run).pipe(Effect.scoped, Effect.provide(layer)))

  const all = (store: Store, limit = 7) =>
    Effect.gen(function* () {
      const entries: Array<Entry> = []
      let after: string | undefined
      do {
        const page = yield* store.list({ after, limit })
        expect(page.items.length).toBeLessThanOrEqual(limit)
        entries.push(...page.items)
        after = page.next
      } while (after !== undefined)
      return entries
    })

  describe(`${name}: RevocationStore`, () => {
    test("has nothing at first", (store) =>
      Effect.gen(function* () {
        expect(yield* store.list()).toEqual({ items: [], next: undefined })
        expect(yield* store.remove("unheard of")).toBe(false)
        expect(yield* store.prune(Number.MAX_SAFE_INTEGER)).toBe(0)
      }))

    test("keeps entries as they were given, whatever they say", (store) =>
      Effect.gen(function* () {
        const strings = ["'", '"', "$set", "$$NOW", "a.b", "%", "\\", "😀", "a\u0000b", "__proto__"]
        const entries = strings.flatMap((text, i): ReadonlyArray<Entry> => [
          entry(3 * i, { what: { _tag: "Token", tokenId: text }, by: text, reason: text }),
          entry(3 * i + 1, { what: { _tag: "Subject", sub: text, issuedBefore: 1_700_000_000_000.5 } }),
          entry(3 * i + 2, { what: { _tag: "IssuedBefore", issuedBefore: 0 }, until: 1_700_000_000_000.25 })
        ])
        yield* Effect.forEach(entries, store.add)
        expect(yield* all(store)).toEqual(entries)
      }))

    test("lists by ids, page by page, whenever they were added", (store) =>
      Effect.gen(function* () {
        const entries = upTo(30).map((n) => entry(n))
        yield* Effect.forEach(entries.toReversed(), store.add)
        for (const limit of [1, 29, 30, 31]) expect(yield* all(store, limit)).toEqual(entries)
        expect(idsOf((yield* store.list({ after: entry(28).id })).items)).toEqual(
          idsOf([entry(29), entry(30)])
        )
      }))

    test("adds an id once", (store) =>
      Effect.gen(function* () {
        yield* store.add(entry(1))
        yield* store.add(entry(1, { by: "somebody else" }))
        expect(yield* all(store)).toEqual([entry(1)])
      }))

    test("removes what is there", (store) =>
      Effect.gen(function* () {
        yield* Effect.forEach([entry(1), entry(2)], store.add)
        expect(yield* store.remove(entry(1).id)).toBe(true)
        expect(yield* store.remove(entry(1).id)).toBe(false)
        expect(yield* all(store)).toEqual([entry(2)])
        yield* store.add(entry(1))
        expect(yield* all(store)).toEqual([entry(1), entry(2)])
      }))

    test("forgets what ended before a time, and nothing that has no end", (store) =>
      Effect.gen(function* () {
        const entries = [entry(1, { until: 1_000 }), entry(2, { until: 2_000.5 }), entry(3)]
        yield* Effect.forEach(entries, store.add)
        expect(yield* store.prune(1_000)).toBe(0)
        expect(yield* store.prune(2_000)).toBe(1)
        expect(yield* all(store)).toEqual(entries.slice(1))
        expect(yield* store.prune(Number.MAX_SAFE_INTEGER)).toBe(1)
        expect(yield* all(store)).toEqual([entry(3)])
      }))

    test("has the same version as long as nothing changes, and another after each change", (store) =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        const expectAnother = Effect.gen(function* () {
          const version = yield* store.version
          expect(seen).not.toContain(version)
          seen.push(version)
          yield* all(store)
          expect(yield* store.version).toBe(version)
        })
        yield* expectAnother
        yield* store.add(entry(1))
        yield* expectAnother
        yield* store.add(entry(2))
        yield* expectAnother
        yield* store.remove(entry(1).id)
        yield* expectAnother
        yield* store.add(entry(1))
        yield* expectAnother
        yield* store.remove(entry(2).id)
        yield* expectAnother
      }))

    /** A hub's way to look: what it knows by a version has to be all, whenever that version is the one that stands. */
    const follow = (store: Store, looks: number) =>
      Effect.gen(function* () {
        let version: string | undefined
        let known: ReadonlyArray<Entry> = []
        for (let i = 0; i < looks; i++) {
          const now = yield* store.version
          if (now !== version) {
            known = yield* all(store, 1_000)
            version = now
          }
          yield* Effect.yieldNow
        }
        return { version, known }
      })

    const expectNothingMissed = (writers: ReadonlyArray<Store>, lookers: ReadonlyArray<Store>) =>
      Effect.gen(function* () {
        const write = Effect.forEach(
          writers,
          (store, i) =>
            Effect.forEach(upTo(12), (n) =>
              Effect.gen(function* () {
                yield* store.add(entry(100 * i + n))
                if (n % 3 === 0) yield* store.remove(entry(100 * i + n).id)
              })
            ),
          { concurrency: "unbounded", discard: true }
        )
        const look = Effect.forEach(lookers, (store) => follow(store, 40), { concurrency: "unbounded" })
        const [followed] = yield* Effect.all([look, write], { concurrency: "unbounded" })
        const left = writers.flatMap((_, i) =>
          upTo(12)
            .filter((n) => n % 3 !== 0)
            .map((n) => entry(100 * i + n))
        )
        expect(yield* all(lookers[0]!)).toEqual(left)
        const now = yield* lookers[0]!.version
        for (const { known, version } of followed) if (version === now) expect(known).toEqual(left)
        for (const store of lookers) expect((yield* follow(store, 2)).known).toEqual(left)
      })

    test("says so when anything changed, however many write at once", (store) =>
      expectNothingMissed([store, store, store], [store, store]))

    if (beside !== undefined) {
      it.effect("several processes hear of each other's changes, and miss none", () =>
        Effect.scoped(
          Effect.gen(function* () {
            const stores = yield* beside(4)
            yield* expectNothingMissed(stores, stores)
            const version = yield* stores[0]!.version
            expect(yield* stores[1]!.version).toBe(version)
            expect(yield* stores[2]!.remove(entry(1).id)).toBe(true)
            expect(yield* stores[1]!.version).not.toBe(version)
          })
        )
      )
    }
  })
}
