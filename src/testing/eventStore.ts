/**
 * What every EventStore promises, as tests: run them against your own backend.
 *
 *     eventStoreSuite("MyEventStore", MyEventStore.layerTest, { … })
 *
 * Each test gets a store of its own: the layer is built anew and must then be empty.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type { EventRecord } from "../domain/Event.ts"
import * as Event from "../domain/Event.ts"
import * as Settings from "../domain/Settings.ts"
import * as Topic from "../domain/Topic.ts"
import { type Appended, type AppendResult, EventStore } from "../services/EventStore.ts"

export interface EventStoreCapabilities {
  /** Lets time pass for the store: `TestClock.adjust` where it reads Effect's Clock, else a real sleep. */
  readonly advance: (millis: number) => Effect.Effect<void>
  /** The longest body, in characters, that the layer under test accepts; a longer one is refused. */
  readonly maxRecordLength: number
  /** The retention's least age of the layer under test, in milliseconds. */
  readonly minAgeMs: number
  /** Scales the tests with many events: 1 for a backend in this machine. */
  readonly effort?: number
}

/** An event, encoded as the hub does it. */
export const record = (
  topic: string,
  id: string,
  payload: unknown = null,
  more: Partial<Event.NewEvent> = {}
): EventRecord =>
  Result.getOrThrow(Event.encodeEvent({ id, topic, ts: 1, payload, ...more }, Settings.limits))

export const records = (topic: string, count: number, from = 1): ReadonlyArray<EventRecord> =>
  Array.from({ length: count }, (_, i) => record(topic, `e${i + from}`, { n: i + from }))

const pattern = (name: string): Topic.Pattern => Result.getOrThrow(Topic.parsePattern(name))

const appended = (result: AppendResult | undefined): Appended => {
  if (result?._tag !== "Appended") throw new Error(`not appended: ${JSON.stringify(result)}`)
  return result
}

export const eventStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<EventStore, E>,
  capabilities: EventStoreCapabilities
): void => {
  const { advance, effort = 1 } = capabilities
  const test = (title: string, run: (store: EventStore["Service"]) => Effect.Effect<void, unknown>) =>
    it.effect(title, () => Effect.flatMap(EventStore, run).pipe(Effect.provide(layer)))

  const readAll = (store: EventStore["Service"], topic: string) =>
    Effect.gen(function* () {
      const all: Array<Event.StoredRecord> = []
      for (;;) {
        const more = yield* store.read({ topic, after: all.at(-1)?.seq ?? 0, limit: 100 })
        if (more.length === 0) return all
        all.push(...more)
      }
    })

  describe(`${name}: EventStore`, () => {
    describe("append", () => {
      test("numbers the events of a topic 1, 2, 3, … and answers in their order", (store) =>
        Effect.gen(function* () {
          const first = yield* store.append(records("a.b", 3))
          const second = yield* store.append(records("a.b", 2, 4))
          expect([...first, ...second].map((result) => appended(result).seq)).toEqual([1, 2, 3, 4, 5])
          expect((yield* readAll(store, "a.b")).map((stored) => stored.id)).toEqual([
            "e1",
            "e2",
            "e3",
            "e4",
            "e5"
          ])
        }))

      test("keeps topics apart, and takes them in one batch", (store) =>
        Effect.gen(function* () {
          const results = yield* store.append([record("a", "1"), record("b", "1"), record("a", "2")])
          expect(results.map((result) => [result.topic, appended(result).seq])).toEqual([
            ["a", 1],
            ["b", 1],
            ["a", 2]
          ])
        }))

      test("answers an id it holds with the first result, in the same batch and later", (store) =>
        Effect.gen(function* () {
          const [first, again] = yield* store.append([record("a", "x", 1), record("a", "x", 2)])
          yield* advance(5)
          const [later, other] = yield* store.append([record("a", "x", 3), record("a", "y", 4)])
          const { seq, storedAt } = appended(first)
          expect(appended(first).duplicate).toBe(false)
          expect(appended(again)).toMatchObject({ seq, storedAt, duplicate: true })
          expect(appended(later)).toMatchObject({ seq, storedAt, duplicate: true })
          expect(appended(other)).toMatchObject({ seq: 2, duplicate: false })
          const stored = yield* readAll(store, "a")
          expect(stored.map((item) => Event.decode(item).payload)).toEqual([1, 4])
        }))

      test("takes the same id in different topics for different events", (store) =>
        Effect.gen(function* () {
          const results = yield* store.append([record("a", "x"), record("b", "x")])
          expect(results.map((result) => appended(result).duplicate)).toEqual([false, false])
        }))

      test("stores nothing behind a refused event of the same topic, and everything of other topics", (store) =>
        Effect.gen(function* () {
          const big = record("a", "big", "x", { headers: { h: "y" } })
          const tooBig = { ...big, body: `${big.body}${" ".repeat(capabilities.maxRecordLength)}` }
          const results = yield* store.append([
            record("a", "1"),
            tooBig,
            record("b", "1"),
            record("a", "2"),
            record("b", "2")
          ])
          expect(results.map((result) => (result._tag === "Appended" ? result.seq : result.reason))).toEqual([
            1,
            "too_large",
            1,
            "behind_refused",
            2
          ])
          expect((yield* readAll(store, "a")).map((stored) => stored.id)).toEqual(["1"])
          const retried = yield* store.append([record("a", "2")])
          expect(appended(retried[0]).seq).toBe(2)
        }))

      test("stays dense and loses nothing when many append to one topic at once", (store) =>
        Effect.gen(function* () {
          const writers = 8
          const each = Math.ceil(50 * effort)
          const results = yield* Effect.forEach(
            Array.from({ length: writers }, (_, writer) => writer),
            (writer) =>
              Effect.forEach(
                Array.from({ length: each }, (_, i) => i),
                (i) => store.append([record("a", `${writer}-${i}`), record(`b.${writer}`, `${i}`)])
              ),
            { concurrency: "unbounded" }
          )
          const seqs = results.flat(2).filter((result) => result.topic === "a")
          expect(seqs.map((result) => appended(result).seq).sort((a, b) => a - b)).toEqual(
            Array.from({ length: writers * each }, (_, i) => i + 1)
          )
          const stored = yield* readAll(store, "a")
          expect(stored.map((item) => item.seq)).toEqual(
            Array.from({ length: writers * each }, (_, i) => i + 1)
          )
          for (let writer = 0; writer < writers; writer++) {
            const own = stored.filter((item) => item.id.startsWith(`${writer}-`)).map((item) => item.id)
            expect(own).toEqual(Array.from({ length: each }, (_, i) => `${writer}-${i}`))
          }
        }))

      test("a reader that follows while others write never skips", (store) =>
        Effect.gen(function* () {
          const total = Math.ceil(200 * effort)
          const seen: Array<number> = []
          const read = Effect.gen(function* () {
            while (seen.length < total) {
              const more = yield* store.read({ topic: "a", after: seen.length, limit: 7 })
              for (const item of more) seen.push(item.seq)
              yield* Effect.yieldNow
            }
          })
          const write = Effect.forEach(
            records("a", total),
            (item) => Effect.andThen(store.append([item]), Effect.yieldNow),
            { concurrency: 4, discard: true }
          )
          yield* Effect.all([read, write], { concurrency: "unbounded" })
          expect(seen).toEqual(Array.from({ length: total }, (_, i) => i + 1))
        }))

      test("gives every event a time that never decreases", (store) =>
        Effect.gen(function* () {
          yield* store.append(records("a", 3))
          yield* advance(20)
          yield* store.append(records("a", 3, 4))
          const times = (yield* readAll(store, "a")).map((stored) => stored.storedAt)
          expect(times).toEqual([...times].sort((a, b) => a - b))
          expect(times[3]! - times[0]!).toBeGreaterThanOrEqual(20)
        }))

      test("takes an empty batch", (store) =>
        Effect.gen(function* () {
          expect(yield* store.append([])).toEqual([])
        }))
    })

    describe("read", () => {
      test("gives back exactly what was given, whatever it holds", (store) =>
        Effect.gen(function* () {
          const payloads: ReadonlyArray<unknown> = [
            "$set",
            { $set: { "a.b": 1 }, "": 0, $where: "1", "a.b.c": { $x: ["$y"] } },
            JSON.parse('{"__proto__":{"a":1},"constructor":2}'),
            "\u0000\u0001\ud83d\ude00\ud800 é ￿",
            [1e308, -0.5, 9007199254740991, true, null, [], {}],
            "'; DROP TABLE events; --",
            "x".repeat(20_000)
          ]
          const events = payloads.map((payload, i) =>
            record("a", `${i} '"$\u0000é😀`, payload, {
              key: `$k.${i}\u0000😀`,
              type: "$t",
              headers: { "$h.x": "$v", traceparent: "00-1-2-01" },
              tags: ["$a", "b.c"],
              caused_by: "$c",
              sid: "s"
            })
          )
          yield* store.append(events)
          const stored = yield* readAll(store, "a")
          expect(stored.map(({ body, id, key, topic }) => ({ body, id, key, topic }))).toEqual(
            events.map(({ body, id, key, topic }) => ({ body, id, key, topic }))
          )
          expect(stored.map((item) => JSON.stringify(Event.decode(item).payload))).toEqual(
            payloads.map((payload) => JSON.stringify(payload))
          )
          const found = yield* store.find({ topic: "a", ids: events.map((item) => item.id) })
          expect([...found.values()]).toEqual(events.map((_, i) => i + 1))
          const keys = events.map((item) => item.key!)
          expect([...(yield* store.latestOf({ topic: "a", keys })).keys()].sort()).toEqual([...keys].sort())
        }))

      test("begins behind the position, and ends at the limit", (store) =>
        Effect.gen(function* () {
          yield* store.append(records("a", 10))
          const part = yield* store.read({ topic: "a", after: 3, limit: 4 })
          expect(part.map((stored) => stored.seq)).toEqual([4, 5, 6, 7])
          expect(yield* store.read({ topic: "a", after: 10, limit: 4 })).toEqual([])
          expect(yield* store.read({ topic: "a", after: 99, limit: 4 })).toEqual([])
          expect(yield* store.read({ topic: "nothing", after: 0, limit: 4 })).toEqual([])
        }))

      test("keeps to the bytes, but answers one event at least", (store) =>
        Effect.gen(function* () {
          yield* store.append(records("a", 10))
          const [first] = yield* store.read({ topic: "a", after: 0, limit: 1 })
          const size = first!.body.length
          const few = yield* store.read({ topic: "a", after: 0, limit: 10, maxBytes: size * 3 })
          expect(few.length).toBeGreaterThanOrEqual(2)
          expect(few.length).toBeLessThanOrEqual(3)
          expect((yield* store.read({ topic: "a", after: 0, limit: 10, maxBytes: 1 })).length).toBe(1)
        }))

      test("gives the same as lines, for whoever passes them on", (store) =>
        Effect.gen(function* () {
          const payloads = ["\u0000\n\r\u2028 é😀\ud800", { 'a"b': "\\" }, null, 1e-7, "x".repeat(5_000), []]
          yield* store.append([
            ...payloads.map((payload, i) => record("a", `${i} '"\n`, payload, { key: `k${i}`, tags: ["é"] })),
            ...records("a", 30)
          ])
          const text = (bytes: Uint8Array | undefined) =>
            new TextDecoder("utf-8", { fatal: true }).decode(bytes)
          const stored = yield* readAll(store, "a")
          const all = yield* store.readLines({ topic: "a", after: 0, limit: 100, maxBytes: 1e6 })
          expect(text(all?.bytes)).toBe(stored.map((item) => `${Event.toJson(item)}\n`).join(""))
          expect(all).toMatchObject({ count: 36, first: 1, last: 36 })
          for (const maxBytes of [1, 700, 6_000]) {
            let joined = ""
            let after = 0
            for (;;) {
              const lines = yield* store.readLines({ topic: "a", after, limit: 7, maxBytes })
              if (lines === undefined) break
              expect(lines.first).toBe(after + 1)
              expect(lines.last - lines.first + 1).toBe(lines.count)
              expect(lines.count).toBeLessThanOrEqual(7)
              const own = stored.slice(lines.first - 1, lines.last)
              const size = own.reduce((sum, { body }) => sum + body.length, 0)
              if (lines.count > 1) expect(size).toBeLessThanOrEqual(maxBytes)
              joined += text(lines.bytes)
              after = lines.last
            }
            expect(joined).toBe(text(all?.bytes))
          }
          for (const range of [
            { topic: "a", after: 36, limit: 5 },
            { topic: "a", after: 99, limit: 5 },
            { topic: "nothing", after: 0, limit: 5 }
          ]) {
            expect(yield* store.readLines({ ...range, maxBytes: 1_000 })).toBeUndefined()
          }
          yield* advance(capabilities.minAgeMs + 10)
          yield* store.trim({ topic: "a", upTo: 34 })
          expect(yield* store.readLines({ topic: "a", after: 3, limit: 5, maxBytes: 1e6 })).toMatchObject({
            count: 2,
            first: 35,
            last: 36
          })
        }))

      test("finds the position of a time", (store) =>
        Effect.gen(function* () {
          for (let i = 1; i <= 5; i++) {
            yield* store.append([record("a", `${i}`), record("a", `${i}b`)])
            yield* advance(10)
          }
          const stored = yield* readAll(store, "a")
          for (const item of stored) {
            const expected = stored.find((other) => other.storedAt >= item.storedAt)!.seq - 1
            expect(yield* store.readTime({ topic: "a", time: item.storedAt })).toBe(expected)
          }
          const last = stored.at(-1)!
          expect(yield* store.readTime({ topic: "a", time: last.storedAt + 1 })).toBe(10)
          expect(yield* store.readTime({ topic: "a", time: 0 })).toBe(0)
          expect(yield* store.readTime({ topic: "nothing", time: 0 })).toBe(0)
        }))
    })

    describe("head and topics", () => {
      test("knows each topic's last seq", (store) =>
        Effect.gen(function* () {
          expect(yield* store.head("a")).toBeUndefined()
          yield* store.append(records("a", 3))
          const stored = yield* readAll(store, "a")
          expect(yield* store.head("a")).toEqual({
            topic: "a",
            head: 3,
            floor: 0,
            storedAt: stored.at(-1)!.storedAt
          })
        }))

      test("lists the topics of a pattern by name, in pages, without the hub's own", (store) =>
        Effect.gen(function* () {
          const names = ["b.1", "a.2", "a.1", "a.1.x", "$dead.g.a.1", "c"]
          yield* store.append(names.map((topic) => record(topic, "1")))
          const list = (name: string) =>
            Effect.map(store.topics({ pattern: pattern(name), limit: 100 }), (page) =>
              page.items.map((item) => item.topic)
            )
          expect(yield* list("**")).toEqual(["a.1", "a.1.x", "a.2", "b.1", "c"])
          expect(yield* list("a.*")).toEqual(["a.1", "a.2"])
          expect(yield* list("$dead.g.**")).toEqual(["$dead.g.a.1"])
          expect(yield* list("a.1")).toEqual(["a.1"])
          expect(yield* list("nothing.**")).toEqual([])
          const paged: Array<string> = []
          let after: string | undefined
          do {
            const page = yield* store.topics({
              pattern: pattern("**"),
              limit: 2,
              ...(after === undefined ? {} : { after })
            })
            expect(page.items.length).toBeLessThanOrEqual(2)
            paged.push(...page.items.map((item) => item.topic))
            after = page.next
          } while (after !== undefined)
          expect(paged).toEqual(["a.1", "a.1.x", "a.2", "b.1", "c"])
        }))

      test("has one history for its whole life", (store) =>
        Effect.gen(function* () {
          const history = yield* store.history
          expect(history.length).toBeGreaterThan(0)
          yield* store.append(records("a", 1))
          expect(yield* store.history).toBe(history)
        }))
    })

    describe("latest by key", () => {
      const put = (key: string, id: string, payload: unknown) => record("a", id, payload, { key })

      test("holds the last event of each key, until its payload is null", (store) =>
        Effect.gen(function* () {
          yield* store.append([put("x", "1", 1), put("y", "2", 2), put("x", "3", 3), record("a", "4", 4)])
          const latest = yield* store.latestOf({ topic: "a", keys: ["x", "y", "z"] })
          expect([...latest].map(([key, item]) => [key, item.seq])).toEqual([
            ["x", 3],
            ["y", 2]
          ])
          expect(Event.decode(latest.get("x")!).payload).toBe(3)
          yield* store.append([put("x", "5", null)])
          expect([...(yield* store.latestOf({ topic: "a", keys: ["x", "y"] })).keys()]).toEqual(["y"])
          yield* store.append([put("x", "6", 6)])
          expect((yield* store.latestOf({ topic: "a", keys: ["x"] })).get("x")!.seq).toBe(6)
        }))

      test("is not moved by a duplicate", (store) =>
        Effect.gen(function* () {
          yield* store.append([put("x", "1", 1), put("x", "2", 2)])
          yield* store.append([put("x", "1", 1)])
          expect((yield* store.latestOf({ topic: "a", keys: ["x"] })).get("x")!.seq).toBe(2)
        }))

      test("pages over the keys", (store) =>
        Effect.gen(function* () {
          yield* store.append(Array.from({ length: 7 }, (_, i) => put(`k${i}`, `${i}`, i)))
          const keys: Array<string> = []
          let after: string | undefined
          do {
            const page = yield* store.latestByKey({
              topic: "a",
              limit: 3,
              ...(after === undefined ? {} : { after })
            })
            keys.push(...page.items.map((item) => item.key!))
            after = page.next
          } while (after !== undefined)
          expect(keys).toEqual(["k0", "k1", "k2", "k3", "k4", "k5", "k6"])
          expect(yield* store.latestByKey({ topic: "nothing", limit: 3 })).toEqual({
            items: [],
            next: undefined
          })
        }))
    })

    describe("trim", () => {
      test("forgets what is old enough, never the last event, and never lowers the head", (store) =>
        Effect.gen(function* () {
          yield* store.append(records("a", 5))
          expect(yield* store.trim({ topic: "a", upTo: 3 })).toBe(0)
          yield* advance(capabilities.minAgeMs + 10)
          expect(yield* store.trim({ topic: "a", upTo: 3 })).toBe(3)
          expect(yield* store.trim({ topic: "a", upTo: 2 })).toBe(3)
          expect((yield* store.read({ topic: "a", after: 0, limit: 10 })).map((item) => item.seq)).toEqual([
            4, 5
          ])
          expect(yield* store.trim({ topic: "a", upTo: 99 })).toBe(4)
          expect(yield* store.head("a")).toMatchObject({ head: 5, floor: 4 })
          const [next] = yield* store.append([record("a", "e6")])
          expect(appended(next).seq).toBe(6)
          expect(yield* store.trim({ topic: "nothing", upTo: 3 })).toBe(0)
        }))

      test("does not touch what is younger than the least age", (store) =>
        Effect.gen(function* () {
          yield* store.append(records("a", 2))
          yield* advance(capabilities.minAgeMs + 10)
          yield* store.append(records("a", 3, 3))
          expect(yield* store.trim({ topic: "a", upTo: 5 })).toBe(2)
        }))

      test("counts the age from when an event was stored, whatever its publisher's clock says", (store) =>
        Effect.gen(function* () {
          const clocks = [Date.UTC(1970), Date.UTC(2999), -8.64e15, Date.UTC(1970)]
          yield* store.append(clocks.map((ts, i) => record("a", `${i}`, null, { ts })))
          expect(yield* store.trim({ topic: "a", upTo: 4 })).toBe(0)
          expect(yield* store.readTime({ topic: "a", time: (yield* store.head("a"))!.storedAt })).toBe(0)
          yield* advance(capabilities.minAgeMs + 10)
          yield* store.append([record("a", "late", null, { ts: Date.UTC(1970) })])
          expect(yield* store.trim({ topic: "a", upTo: 5 })).toBe(4)
          expect((yield* readAll(store, "a")).map((item) => item.id)).toEqual(["late"])
        }))

      test("forgets any number at once, also while others append", (store) =>
        Effect.gen(function* () {
          const total = Math.ceil(2_500 * effort)
          yield* store.append(records("a", total))
          yield* advance(capabilities.minAgeMs + 10)
          const [floor] = yield* Effect.all(
            [
              store.trim({ topic: "a", upTo: total - 7 }),
              Effect.forEach(records("a", 50, total + 1), (item) => store.append([item]), { concurrency: 5 })
            ],
            { concurrency: "unbounded" }
          )
          expect(floor).toBe(total - 7)
          const left = yield* readAll(store, "a")
          expect(left.map((item) => item.seq)).toEqual(Array.from({ length: 57 }, (_, i) => total - 6 + i))
          expect(yield* store.find({ topic: "a", ids: ["e1", `e${total}`] })).toEqual(
            new Map([[`e${total}`, total]])
          )
        }))

      test("forgets the id with the event: it may be used again", (store) =>
        Effect.gen(function* () {
          yield* store.append(records("a", 2))
          yield* advance(capabilities.minAgeMs + 10)
          yield* store.trim({ topic: "a", upTo: 1 })
          const [again] = yield* store.append([record("a", "e1")])
          expect(appended(again)).toMatchObject({ seq: 3, duplicate: false })
        }))

      test("keeps the latest of each key", (store) =>
        Effect.gen(function* () {
          yield* store.append([
            record("a", "1", "old", { key: "x" }),
            record("a", "2", "new", { key: "x" }),
            record("a", "3", "y", { key: "y" }),
            record("a", "4", "last")
          ])
          yield* advance(capabilities.minAgeMs + 10)
          expect(yield* store.trim({ topic: "a", upTo: 4 })).toBe(3)
          const latest = yield* store.latestOf({ topic: "a", keys: ["x", "y"] })
          expect(Event.decode(latest.get("x")!)).toMatchObject({ seq: 2, id: "2", payload: "new" })
          expect(Event.decode(latest.get("y")!)).toMatchObject({ seq: 3, id: "3", payload: "y" })
          yield* store.append([record("a", "5", null, { key: "x" })])
          expect([...(yield* store.latestOf({ topic: "a", keys: ["x", "y"] })).keys()]).toEqual(["y"])
        }))
    })

    describe("restore", () => {
      const events = records("a", 3).map((item, i) => ({ ...item, storedAt: 100 + i }))

      test("fills an absent topic with its seqs and times, and appends go on behind", (store) =>
        Effect.gen(function* () {
          yield* advance(200)
          yield* store.restore({ topic: "a", firstSeq: 41, events })
          expect((yield* readAll(store, "a")).map((item) => [item.seq, item.storedAt, item.id])).toEqual([
            [41, 100, "e1"],
            [42, 101, "e2"],
            [43, 102, "e3"]
          ])
          expect(yield* store.head("a")).toMatchObject({ head: 43, floor: 40 })
          const [again, next] = yield* store.append([record("a", "e2"), record("a", "new")])
          expect(appended(again)).toMatchObject({ seq: 42, duplicate: true })
          expect(appended(next).seq).toBe(44)
        }))

      test("does not touch a topic that exists", (store) =>
        Effect.gen(function* () {
          yield* store.append([record("a", "mine")])
          const failed = yield* Effect.flip(store.restore({ topic: "a", firstSeq: 41, events }))
          expect(failed).toMatchObject({ _tag: "TopicExists", topic: "a" })
          expect((yield* readAll(store, "a")).map((item) => item.id)).toEqual(["mine"])
        }))

      test("keeps an id once, and times in order and not in the future", (store) =>
        Effect.gen(function* () {
          yield* advance(200)
          const times = [150, 100, 8.64e15, 120]
          const given = records("a", 4).map((item, i) => ({ ...item, storedAt: times[i]! }))
          yield* store.restore({ topic: "a", firstSeq: 7, events: [given[0]!, ...given] })
          const [next] = yield* store.append([record("a", "new")])
          const stored = yield* readAll(store, "a")
          expect(stored.map((item) => [item.seq, item.id])).toEqual([
            [7, "e1"],
            [8, "e2"],
            [9, "e3"],
            [10, "e4"],
            [11, "new"]
          ])
          const kept = stored.map((item) => item.storedAt)
          expect(kept.slice(0, 2)).toEqual([150, 150])
          expect(kept).toEqual([...kept].sort((a, b) => a - b))
          expect(kept[3]).toBeLessThanOrEqual(appended(next).storedAt)
          expect(kept[3]).toBeLessThan(8e15)
        }))

      test("goes on by append: what comes back keeps its time, what is new has the store's", (store) =>
        Effect.gen(function* () {
          yield* advance(500)
          yield* store.restore({ topic: "a", firstSeq: 41, events })
          const [four, five] = records("a", 2, 4)
          const more = yield* store.append([
            { ...four!, firstStoredAt: 300 },
            { ...record("b", "other"), firstStoredAt: 10 },
            { ...record("a", "e2"), firstStoredAt: 1 },
            { ...five!, firstStoredAt: 200 }
          ])
          expect(
            more.map(appended).map(({ duplicate, seq, storedAt }) => [seq, storedAt, duplicate])
          ).toEqual([
            [44, 300, false],
            [1, 10, false],
            [42, 101, true],
            [45, 300, false]
          ])
          const [later] = yield* store.append([
            record("a", "new"),
            { ...record("a", "x"), firstStoredAt: 8e15 }
          ])
          expect(appended(later).storedAt).toBeGreaterThanOrEqual(500)
          const stored = yield* readAll(store, "a")
          expect(stored.map((item) => item.seq)).toEqual([41, 42, 43, 44, 45, 46, 47])
          expect(stored.map((item) => item.storedAt).slice(3, 5)).toEqual([300, 300])
          expect(stored.at(-1)!.storedAt).toBeLessThan(8e15)
          expect(stored.map((item) => item.body)).toEqual(
            [...records("a", 5), record("a", "new"), record("a", "x")].map((item) => item.body)
          )
          expect(yield* store.readTime({ topic: "a", time: 300 })).toBe(43)
          expect(yield* store.head("a")).toMatchObject({ head: 47, floor: 40 })
        }))

      test("of two at once one fills the topic", (store) =>
        Effect.gen(function* () {
          const outcomes = yield* Effect.forEach(
            [41, 51],
            (firstSeq) => Effect.result(store.restore({ topic: "a", firstSeq, events })),
            { concurrency: 2 }
          )
          expect(outcomes.filter(Result.isSuccess)).toHaveLength(1)
          expect((yield* readAll(store, "a")).map((item) => item.id)).toEqual(["e1", "e2", "e3"])
        }))

      const value = (key: string, seq: number, payload: unknown): Event.StoredRecord => ({
        ...record("a", `old-${key}`, payload, { key }),
        seq,
        storedAt: seq
      })

      test("puts down the last events of keys that were trimmed, and nothing over a later one", (store) =>
        Effect.gen(function* () {
          yield* advance(500)
          const keyed = [
            record("a", "e1", 1, { key: "mine" }),
            record("a", "e2", 2),
            record("a", "e3", 3, { key: "here" })
          ].map((item, i) => ({ ...item, storedAt: 100 + i }))
          yield* store.restore({ topic: "a", firstSeq: 41, events: keyed })
          const values = [
            value("mine", 3, "old"),
            value("x", 40, "x"),
            value("y", 41, "no"),
            value("z", 9, "z")
          ]
          yield* store.restoreLatest({ topic: "a", records: values })
          yield* store.restoreLatest({ topic: "a", records: [value("x", 39, "older"), value("z", 9, "z")] })
          yield* store.restoreLatest({ topic: "nothing", records: values })
          const latest = () =>
            Effect.map(store.latestByKey({ topic: "a", limit: 10 }), ({ items }) =>
              items.map((item) => [item.key, item.seq, item.storedAt, Event.decode(item).payload])
            )
          expect(yield* latest()).toEqual([
            ["here", 43, 102, 3],
            ["mine", 41, 100, 1],
            ["x", 40, 40, "x"],
            ["z", 9, 9, "z"]
          ])
          expect((yield* store.latestOf({ topic: "a", keys: ["x"] })).get("x")).toEqual(value("x", 40, "x"))
          yield* store.append([record("a", "e4", null, { key: "x" }), record("a", "e5", 5, { key: "z" })])
          expect((yield* latest()).map(([key, seq]) => [key, seq])).toEqual([
            ["here", 43],
            ["mine", 41],
            ["z", 45]
          ])
          expect(yield* store.head("nothing")).toBeUndefined()
        }))

      test("brings no key back that was deleted later, whether it was asked for before or not", (store) =>
        Effect.gen(function* () {
          yield* advance(500)
          const [gone, put, other] = [
            record("a", "e1", null, { key: "gone" }),
            record("a", "e2", null, { key: "again" }),
            record("a", "e3", 3, { key: "again" })
          ]
          const first = { ...gone!, storedAt: 100 }
          yield* store.restore({ topic: "a", firstSeq: 41, events: [first] })
          yield* store.append([put!, other!, record("a", "e4", null, { key: "later" })])
          const values = ["gone", "again", "later", "kept"].map((key, i) => value(key, 31 + i, key))
          const latest = Effect.map(store.latestByKey({ topic: "a", limit: 10 }), ({ items }) =>
            items.map(({ key, seq }) => [key, seq])
          )
          const expected = [
            ["again", 43],
            ["kept", 34]
          ]
          yield* store.restoreLatest({ topic: "a", records: values })
          expect(yield* latest).toEqual(expected)
          yield* store.restoreLatest({ topic: "a", records: values })
          expect(yield* latest).toEqual(expected)
        }))
    })
  })
}
