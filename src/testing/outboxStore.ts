/** What every OutboxStore promises, as tests: run them against your own backend. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type { StateName } from "../domain/Outbox.ts"
import { type OutboxClaim, type OutboxEvent, OutboxStore } from "../services/OutboxStore.ts"

export interface OutboxStoreCapabilities {
  /** Lets time pass for the store: `TestClock.adjust` where it reads Effect's Clock, else a real sleep. */
  readonly advance: (millis: number) => Effect.Effect<void>
  /** Now, by the store's clock, for records with a time of their own. */
  readonly now: Effect.Effect<number>
}

type Store = OutboxStore["Service"]

export const outboxStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<OutboxStore, E>,
  { advance, now }: OutboxStoreCapabilities
): void => {
  const test = (title: string, run: (store: Store) => Effect.Effect<void, unknown>) =>
    it.effect(title, () => Effect.flatMap(OutboxStore, run).pipe(Effect.provide(layer)))

  const add = (store: Store, id: string, more: Partial<OutboxEvent> = {}) =>
    store.add({ topic: "orders.created", payload: { id }, id, ...more })

  const addAll = (store: Store, ids: ReadonlyArray<string>, more: Partial<OutboxEvent> = {}) =>
    Effect.forEach(ids, (id) => add(store, id, more), { discard: true })

  const claim = (store: Store, more: { limit?: number; leaseMs?: number; worker?: string } = {}) =>
    store.claimBatch({ limit: 100, leaseMs: 50, worker: "w1", ...more })

  const idsOf = (claims: ReadonlyArray<OutboxClaim>) => claims.map((one) => one.event.id)

  const states = (store: Store) =>
    Effect.map(store.list({ limit: 1_000 }), (page) =>
      Object.fromEntries(page.items.map((item): [string, StateName] => [item.id, item.state]))
    )

  const retry = (claims: ReadonlyArray<OutboxClaim>, retryInMs: number | undefined) =>
    claims.map((one) => ({ claim: one, error: "no luck", retryInMs }))

  describe(`${name}: OutboxStore`, () => {
    describe("add", () => {
      test("keeps the event as it was given", (store) =>
        Effect.gen(function* () {
          const event = {
            id: "1 '$\u0000😀",
            topic: "orders.created",
            ts: 5,
            key: "$k.1",
            type: "t",
            headers: { $a: "b" },
            payload: { $set: { "a.b": "$x" } }
          }
          expect(yield* store.add(event)).toBe(event.id)
          const [claimed] = yield* claim(store)
          const { payload, ...rest } = event
          expect(JSON.parse(claimed!.event.body)).toEqual({ ...rest, payload })
          expect(claimed!.event).toMatchObject({ id: event.id, topic: event.topic, key: event.key })
          expect(claimed!.attempts).toBe(1)
          const [entry] = (yield* store.list({ limit: 1 })).items
          expect(claimed!.addedAt).toBe(entry!.addedAt)
        }))

      test("makes an id and a time where there is none", (store) =>
        Effect.gen(function* () {
          const id = yield* store.add({ topic: "a", payload: 1 })
          const [claimed] = yield* claim(store)
          expect(id.length).toBeGreaterThan(0)
          expect(claimed!.event.id).toBe(id)
          expect(Math.abs(JSON.parse(claimed!.event.body).ts - (yield* now))).toBeLessThan(60_000)
        }))

      test("takes the same (topic, id) once", (store) =>
        Effect.gen(function* () {
          yield* add(store, "1", { payload: "first" })
          yield* add(store, "1", { payload: "second" })
          yield* add(store, "1", { topic: "other" })
          const claimed = yield* claim(store)
          expect(claimed.map((one) => [one.event.topic, JSON.parse(one.event.body).payload])).toEqual([
            ["orders.created", "first"],
            ["other", { id: "1" }]
          ])
          yield* store.markSent(claimed)
          yield* add(store, "1")
          expect(yield* claim(store)).toEqual([])
        }))

      test("refuses what the log would refuse, before anything is written", (store) =>
        Effect.gen(function* () {
          const errors = yield* Effect.all([
            Effect.flip(add(store, "1", { topic: "a..b" })),
            Effect.flip(add(store, "1", { payload: "x".repeat(300_000) })),
            Effect.flip(add(store, "")),
            Effect.flip(add(store, "1", { payload: 1n })),
            Effect.flip(add(store, "1", { topic: "$sys.x" }))
          ])
          expect(errors.map((error) => error._tag)).toEqual([
            "InvalidTopic",
            "PayloadTooLarge",
            "InvalidEvent",
            "InvalidEvent",
            "InvalidTopic"
          ])
          expect((yield* store.list({ limit: 10 })).items).toEqual([])
        }))
    })

    describe("claimBatch", () => {
      test("gives what is due, oldest first, up to the limit, each to one", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["1", "2", "3", "4", "5"])
          expect(idsOf(yield* claim(store, { limit: 2 }))).toEqual(["1", "2"])
          expect(idsOf(yield* claim(store, { limit: 2, worker: "w2" }))).toEqual(["3", "4"])
          expect(idsOf(yield* claim(store, { limit: 2, worker: "w3" }))).toEqual(["5"])
          expect(yield* claim(store)).toEqual([])
          const entry = (yield* store.list({ limit: 1 })).items[0]!
          expect(entry).toMatchObject({ id: "1", state: "Claimed", worker: "w1", attempts: 1 })
          expect(entry.leaseUntil).toBeGreaterThan(entry.addedAt)
        }))

      test("never gives a record to two, however many ask at once", (store) =>
        Effect.gen(function* () {
          yield* addAll(
            store,
            Array.from({ length: 60 }, (_, i) => `${i}`)
          )
          const batches = yield* Effect.all(
            Array.from({ length: 12 }, (_, i) => claim(store, { limit: 7, worker: `w${i}` })),
            { concurrency: "unbounded" }
          )
          const ids = batches.flatMap(idsOf)
          expect(new Set(ids).size).toBe(ids.length)
          expect(ids.length).toBe(60)
        }))

      test("waits for a record's time", (store) =>
        Effect.gen(function* () {
          const at = (yield* now) + 200
          yield* store.add({ topic: "a", id: "later", payload: 1 }, { notBefore: at })
          yield* add(store, "now")
          expect(idsOf(yield* claim(store))).toEqual(["now"])
          expect((yield* store.list({ limit: 1 })).items[0]).toMatchObject({
            state: "Pending",
            notBefore: at
          })
          yield* advance(250)
          expect(idsOf(yield* claim(store))).toEqual(["later"])
        }))

      test("gives nothing while paused", (store) =>
        Effect.gen(function* () {
          yield* add(store, "1")
          yield* store.setPaused(true)
          expect(yield* claim(store)).toEqual([])
          expect((yield* store.stats).paused).toBe(true)
          yield* store.setPaused(false)
          expect(idsOf(yield* claim(store))).toEqual(["1"])
          expect((yield* store.stats).paused).toBe(false)
        }))
    })

    describe("order per key", () => {
      test("a batch holds a key's records in their order", (store) =>
        Effect.gen(function* () {
          yield* add(store, "a1", { key: "a" })
          yield* add(store, "b1", { key: "b" })
          yield* add(store, "a2", { key: "a" })
          yield* add(store, "a3", { key: "a" })
          expect(idsOf(yield* claim(store))).toEqual(["a1", "b1", "a2", "a3"])
        }))

      test("two workers never hold records of one key; others flow past", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2", "a3"], { key: "a" })
          yield* add(store, "b1", { key: "b" })
          yield* add(store, "n1")
          const first = yield* claim(store, { limit: 1 })
          expect(idsOf(first)).toEqual(["a1"])
          expect(idsOf(yield* claim(store, { worker: "w2" }))).toEqual(["b1", "n1"])
          expect(yield* states(store)).toMatchObject({ a1: "Claimed", a2: "Blocked", a3: "Blocked" })
          yield* store.markSent(first)
          expect(idsOf(yield* claim(store, { worker: "w2" }))).toEqual(["a2", "a3"])
        }))

      test("and neither does one that asks again while it holds some", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2", "a3"], { key: "a" })
          yield* add(store, "b1", { key: "b" })
          const first = yield* claim(store, { limit: 1 })
          const more = yield* store.claimBatch({ limit: 100, leaseMs: 50, worker: "w1", whileHolding: true })
          expect(idsOf(more)).toEqual(["b1"])
          yield* store.markSent(more)
          yield* store.markSent(first)
          expect(idsOf(yield* claim(store))).toEqual(["a2", "a3"])
        }))

      test("what stands behind a record that waits for its retry lets others pass, also while the worker holds some", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2"], { key: "a" })
          yield* addAll(store, ["b1", "b2"], { key: "b" })
          yield* addAll(store, ["n1", "n2"])
          const beside = { limit: 2, leaseMs: 50, worker: "w1", whileHolding: true }
          const [a1] = yield* claim(store, { limit: 1 })
          yield* store.fail(retry([a1!], 200))
          const [b1] = yield* claim(store, { limit: 1 })
          expect(b1!.event.id).toBe("b1")
          const more = [...(yield* store.claimBatch(beside)), ...(yield* store.claimBatch(beside))]
          // What is hidden behind those of the worker may come later, but never them.
          expect(["n1", "n2"]).toEqual(expect.arrayContaining(idsOf(more)))
          yield* store.markSent([...more, b1!])
          expect(idsOf(yield* claim(store))).toEqual(["b2", ...["n1", "n2"].slice(more.length)])
          yield* advance(250)
          const again = yield* claim(store)
          expect(idsOf(again)).toEqual(["a1"])
          yield* store.markSent(again)
          expect(idsOf(yield* claim(store))).toEqual(["a2"])
        }))

      test("the same key in another topic is another line", (store) =>
        Effect.gen(function* () {
          yield* add(store, "a1", { key: "a" })
          yield* claim(store)
          yield* add(store, "a2", { key: "a", topic: "other" })
          expect(idsOf(yield* claim(store, { worker: "w2" }))).toEqual(["a2"])
        }))

      test("successors wait for a record that failed, and go on when it is done", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2"], { key: "a" })
          const [head, next] = yield* claim(store)
          yield* store.fail(retry([head!], 200))
          yield* store.release([next!])
          expect(yield* claim(store)).toEqual([])
          yield* advance(250)
          const again = yield* claim(store)
          expect(again.map((one) => [one.event.id, one.attempts])).toEqual([["a1", 2]])
          expect(yield* claim(store)).toEqual([])
          yield* store.markSent(again)
          expect((yield* claim(store)).map((one) => [one.event.id, one.attempts])).toEqual([["a2", 1]])
        }))

      test("a dead record gives up its place", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2"], { key: "a" })
          const [head] = yield* claim(store, { limit: 1 })
          expect(yield* claim(store)).toEqual([])
          yield* store.fail(retry([head!], undefined))
          expect(idsOf(yield* claim(store))).toEqual(["a2"])
          expect(yield* store.redrive("all")).toBe(1)
          expect(yield* claim(store)).toEqual([])
          yield* advance(60)
          yield* store.requeueExpired({ maxAttempts: 9 })
          const successor = yield* claim(store)
          expect(idsOf(successor)).toEqual(["a2"])
          yield* store.markSent(successor)
          expect(idsOf(yield* claim(store))).toEqual(["a1"])
        }))

      test("a record behind one that another worker still holds waits, also when the head of the line is free", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2", "a3"], { key: "a" })
          const [a1, a2, a3] = yield* claim(store)
          // The first worker fails the head and gives the rest back, one by one; others come in between.
          yield* store.fail(retry([a1!], 0))
          const head = yield* claim(store, { limit: 1 })
          expect(idsOf(head)).toEqual(["a1"])
          yield* store.release([a2!])
          expect(yield* claim(store)).toEqual([])
          yield* store.release([a3!])
          yield* store.release(head)
          const next = idsOf(yield* claim(store))
          expect(["a1", "a2", "a3"].slice(0, next.length)).toEqual(next)
          expect(next).toContain("a1")
        }))

      test("holds with many workers, limits and failures", (store) =>
        Effect.gen(function* () {
          const keys = ["a", "b", "c"]
          const each = 20
          for (let i = 0; i < each; i++) for (const key of keys) yield* add(store, `${key}${i}`, { key })
          const done = new Map(keys.map((key): [string, Array<string>] => [key, []]))
          let turn = 0
          let left = keys.length * each
          const worker = (id: number) =>
            Effect.gen(function* () {
              while (left > 0) {
                turn++
                const claims = yield* claim(store, { limit: 1 + ((turn + id) % 7), worker: `w${id}` })
                const failed = new Set<string>()
                for (const one of claims) {
                  const key = one.event.key!
                  if (failed.has(key)) {
                    yield* store.release([one])
                  } else if ((turn + id) % 5 === 0) {
                    failed.add(key)
                    yield* store.fail(retry([one], 0))
                  } else {
                    done.get(key)!.push(one.event.id)
                    left--
                    yield* store.markSent([one])
                  }
                }
                yield* Effect.yieldNow
              }
            })
          yield* Effect.all(
            Array.from({ length: 8 }, (_, i) => worker(i)),
            { concurrency: "unbounded" }
          )
          for (const key of keys) {
            expect(done.get(key)).toEqual(Array.from({ length: each }, (_, i) => `${key}${i}`))
          }
        }))
    })

    describe("leases", () => {
      test("end, and are taken back with the attempt counted", (store) =>
        Effect.gen(function* () {
          yield* add(store, "1")
          const [stale] = yield* claim(store, { leaseMs: 50 })
          expect(yield* store.requeueExpired({ maxAttempts: 3 })).toEqual({ requeued: 0, dead: 0 })
          yield* advance(100)
          expect(yield* store.requeueExpired({ maxAttempts: 3 })).toEqual({ requeued: 1, dead: 0 })
          const [fresh] = yield* claim(store, { worker: "w2" })
          expect(fresh!.attempts).toBe(2)
          const settled = yield* store.markSent([stale!])
          expect(settled).toMatchObject({ marked: 0, lost: [{ event: { id: "1" } }] })
          expect(yield* states(store)).toEqual({ "1": "Claimed" })
          expect((yield* store.fail(retry([stale!], 0))).marked).toBe(0)
          expect((yield* store.release([stale!])).marked).toBe(0)
          expect((yield* store.markSent([fresh!])).marked).toBe(1)
        }))

      test("that ended, but were not taken over, still count", (store) =>
        Effect.gen(function* () {
          yield* add(store, "1")
          const claims = yield* claim(store, { leaseMs: 50 })
          yield* advance(100)
          expect(yield* store.markSent(claims)).toEqual({ marked: 1, lost: [] })
          expect(yield* states(store)).toEqual({ "1": "Sent" })
        }))

      test("that end with the last attempt leave a dead record", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2"], { key: "a" })
          yield* claim(store, { limit: 1, leaseMs: 50 })
          yield* claim(store)
          yield* advance(100)
          expect(yield* store.requeueExpired({ maxAttempts: 1 })).toEqual({ requeued: 0, dead: 1 })
          expect((yield* store.list({ limit: 1, state: "Dead" })).items[0]).toMatchObject({
            id: "a1",
            lastError: "the lease ran out"
          })
          expect(idsOf(yield* claim(store))).toEqual(["a2"])
        }))
    })

    describe("settling", () => {
      test("marks what is held, names what is lost, and does both in one go", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["1", "2", "3"])
          const claims = yield* claim(store)
          yield* store.markSent([claims[1]!])
          const settled = yield* store.markSent(claims)
          expect(settled.marked).toBe(2)
          expect(idsOf(settled.lost)).toEqual(["2"])
          expect(yield* states(store)).toEqual({ "1": "Sent", "2": "Sent", "3": "Sent" })
          expect(yield* store.markSent([])).toEqual({ marked: 0, lost: [] })
        }))

      test("marks claims of several batches at once, in any order, and lets their lines go on", (store) =>
        Effect.gen(function* () {
          yield* add(store, "a1", { key: "a" })
          yield* addAll(store, ["1", "2", "3", "4"])
          yield* add(store, "b1", { key: "b" })
          const first = yield* claim(store, { limit: 3 })
          const second = yield* claim(store, { limit: 3 })
          expect(idsOf([...first, ...second])).toEqual(["a1", "1", "2", "3", "4", "b1"])
          yield* add(store, "a2", { key: "a" })
          yield* add(store, "b2", { key: "b" })
          expect(yield* claim(store)).toEqual([])
          yield* store.markSent([first[1]!])
          const swapped = { ...second[1]!, token: first[0]!.token }
          const settled = yield* store.markSent([second[2]!, ...first.toReversed(), second[0]!])
          expect(settled.marked).toBe(4)
          expect(idsOf(settled.lost)).toEqual(["1"])
          expect(yield* store.markSent([swapped, { ...swapped, token: "nobody's" }])).toMatchObject({
            marked: 0
          })
          expect(yield* states(store)).toMatchObject({ a1: "Sent", "3": "Sent", "4": "Claimed", b1: "Sent" })
          expect(idsOf(yield* claim(store))).toEqual(["a2", "b2"])
          expect((yield* store.markSent([second[1]!])).marked).toBe(1)
        }))

      test("a failed attempt waits, keeps its error, and counts", (store) =>
        Effect.gen(function* () {
          yield* add(store, "1")
          yield* store.fail(retry(yield* claim(store), 100))
          expect(yield* claim(store)).toEqual([])
          expect((yield* store.list({ limit: 1 })).items[0]).toMatchObject({
            state: "Pending",
            attempts: 1,
            lastError: "no luck"
          })
          yield* advance(150)
          expect((yield* claim(store))[0]!.attempts).toBe(2)
        }))

      test("a released claim does not count", (store) =>
        Effect.gen(function* () {
          yield* add(store, "1")
          yield* store.release(yield* claim(store))
          expect((yield* claim(store))[0]!.attempts).toBe(1)
        }))

      test("a claim that is released for later waits without counting, and holds up its key alone", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["a1", "a2"], { key: "a" })
          yield* add(store, "b1", { key: "b" })
          const [a1] = yield* claim(store, { limit: 1 })
          expect((yield* store.release([a1!], { retryInMs: 100 })).marked).toBe(1)
          expect((yield* store.release([a1!], { retryInMs: 100 })).marked).toBe(0)
          expect(idsOf(yield* claim(store))).toEqual(["b1"])
          expect(yield* states(store)).toMatchObject({ a1: "Pending", a2: "Blocked" })
          yield* advance(150)
          const again = yield* claim(store)
          expect(again.map((one) => [one.event.id, one.attempts])).toEqual([["a1", 1]])
          yield* store.markSent(again)
          expect(idsOf(yield* claim(store))).toEqual(["a2"])
        }))
    })

    describe("for people", () => {
      test("counts by state and knows the oldest", (store) =>
        Effect.gen(function* () {
          expect((yield* store.stats).oldestAddedAt).toBeUndefined()
          yield* add(store, "1")
          yield* advance(20)
          yield* addAll(store, ["a1", "a2"], { key: "a" })
          yield* add(store, "dead")
          const [first, a1, a2, dead] = yield* claim(store)
          yield* store.markSent([first!])
          yield* store.fail(retry([dead!], undefined))
          yield* store.fail(retry([a1!], 10_000))
          yield* store.release([a2!])
          yield* claim(store)
          const stats = yield* store.stats
          expect(stats.counts).toEqual({ Pending: 1, Blocked: 1, Claimed: 0, Sent: 1, Dead: 1 })
          const entries = (yield* store.list({ limit: 10 })).items
          expect(stats.oldestAddedAt).toBe(entries.find((entry) => entry.id === "a1")!.addedAt)
        }))

      test("lists in pages, also by state", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["1", "2", "3", "4", "5"])
          yield* store.markSent(yield* claim(store, { limit: 2 }))
          const seen: Array<string> = []
          let after: string | undefined
          do {
            const page = yield* store.list({ limit: 2, ...(after === undefined ? {} : { after }) })
            seen.push(...page.items.map((item) => item.id))
            after = page.next
          } while (after !== undefined)
          expect(seen).toEqual(["1", "2", "3", "4", "5"])
          expect((yield* store.list({ limit: 9, state: "Sent" })).items.map((item) => item.id)).toEqual([
            "1",
            "2"
          ])
          const first = yield* store.list({ limit: 1, state: "Sent" })
          const second = yield* store.list({ limit: 1, state: "Sent", after: first.next! })
          expect([first, second].map(({ items, next }) => [items[0]!.id, next === undefined])).toEqual([
            ["1", false],
            ["2", true]
          ])
          expect(yield* store.list({ limit: 1, state: "Dead" })).toEqual({ items: [], next: undefined })
        }))

      test("a page goes on where the one before ended, whatever happens to records meanwhile", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["1", "2", "3", "4"])
          const [one, two] = yield* claim(store, { limit: 2 })
          const first = yield* store.list({ limit: 2 })
          yield* store.markSent([one!])
          yield* store.fail(retry([two!], undefined))
          yield* advance(5)
          yield* store.purge({ olderThanMs: 1 })
          yield* add(store, "5")
          const rest = yield* store.list({ limit: 10, after: first.next! })
          expect(rest.items.map(({ id }) => id)).toEqual(["3", "4", "5"])
          // A position that no page ever named is no reason to fail.
          for (const after of ["", "nowhere", "-1", "1e999"]) yield* store.list({ limit: 1, after })
        }))

      test("redrives dead records, those or all, with new attempts, and nothing else", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["1", "2", "3"])
          const claims = yield* claim(store)
          yield* store.fail(retry(claims.slice(0, 2), undefined))
          const topic = "orders.created"
          expect(
            yield* store.redrive([
              { topic, id: "2" },
              { topic, id: "3" },
              { topic, id: "nothing" }
            ])
          ).toBe(1)
          expect(yield* states(store)).toEqual({ "1": "Dead", "2": "Pending", "3": "Claimed" })
          expect(yield* store.redrive("all")).toBe(1)
          const again = yield* claim(store)
          expect(again.map((one) => [one.event.id, one.attempts])).toEqual([
            ["2", 1],
            ["1", 1]
          ])
        }))

      test("says in a dry run how many dead records would go back to work, and changes nothing", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["1", "2", "3"])
          const claims = yield* claim(store)
          yield* store.fail(retry(claims.slice(0, 2), undefined))
          const dryRun = { dryRun: true }
          const topic = "orders.created"
          const some = ["2", "2", "3", "nothing"].map((id) => ({ topic, id }))
          expect(yield* store.redrive(some, dryRun)).toBe(1)
          expect(yield* store.redrive([...some, { topic: "other", id: "1" }], dryRun)).toBe(1)
          expect(yield* store.redrive([], dryRun)).toBe(0)
          expect(yield* store.redrive("all", dryRun)).toBe(2)
          expect(yield* states(store)).toEqual({ "1": "Dead", "2": "Dead", "3": "Claimed" })
          expect(yield* claim(store)).toEqual([])
          expect(yield* store.redrive(some)).toBe(1)
          expect(yield* store.redrive("all", dryRun)).toBe(1)
        }))

      test("says in a dry run how many records a purge would delete, and deletes none", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["1", "2", "dead", "pending"])
          const [first, second, dead] = yield* claim(store, { limit: 3 })
          yield* store.markSent([first!, second!])
          yield* store.fail(retry([dead!], undefined))
          expect(yield* store.purge({ olderThanMs: 100, dryRun: true })).toBe(0)
          yield* advance(200)
          expect(yield* store.purge({ olderThanMs: 100, dryRun: true })).toBe(2)
          expect(yield* store.purge({ olderThanMs: 10_000, dryRun: true })).toBe(0)
          expect(yield* states(store)).toEqual({ "1": "Sent", "2": "Sent", dead: "Dead", pending: "Pending" })
          expect(yield* store.purge({ olderThanMs: 100 })).toBe(2)
        }))

      test("purges what was sent long ago, and nothing else", (store) =>
        Effect.gen(function* () {
          yield* addAll(store, ["sent", "dead", "pending"])
          const [sent, dead] = yield* claim(store, { limit: 2 })
          yield* store.markSent([sent!])
          yield* store.fail(retry([dead!], undefined))
          expect(yield* store.purge({ olderThanMs: 100 })).toBe(0)
          yield* advance(200)
          expect(yield* store.purge({ olderThanMs: 100 })).toBe(1)
          expect(yield* states(store)).toEqual({ dead: "Dead", pending: "Pending" })
        }))
    })
  })
}
