/** The Archive over real stores: what goes out comes back, whole or in pieces, and whoever looks sees what is there. */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Queue, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import * as Selections from "../../../src/domain/Archive.ts"
import * as Event from "../../../src/domain/Event.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Sha256 from "../../../src/hub/Sha256.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as StoreArchive from "../../../src/layers/core/StoreArchive.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import * as MongoEventStore from "../../../src/layers/mongo/MongoEventStore.ts"
import * as SqliteEventStore from "../../../src/layers/sqlite/SqliteEventStore.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { Archive, type ImportReport } from "../../../src/services/Archive.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { record, records } from "../../../src/testing/eventStore.ts"
import { database as mongoDatabase, describeMongo } from "../../support/mongo.ts"
import { database as sqliteDatabase } from "../sqlite/temporary.ts"
import * as TestStores from "./TestStores.ts"

const retention = { minAgeMs: 0 }

/** One hub's part: a store, and what works on it. */
type Hub = EventStore | Appender | Archive

const over = <E, R>(store: Layer.Layer<EventStore, E, R>): Layer.Layer<Hub, E, R> =>
  StoreArchive.layer({ archive: { ...Settings.archive, maxBadLines: 3, maxLineBytes: 10_000 } }).pipe(
    Layer.provide(Sha256.layer),
    Layer.provideMerge(GroupCommitAppender.layer()),
    Layer.provideMerge(store)
  )

const memory = over(MemoryEventStore.layer({ retention }).pipe(Layer.provide(RandomIds.layer)))
const sqlite = over(SqliteEventStore.layer({ retention }).pipe(Layer.provide(sqliteDatabase("thread"))))

interface Side {
  readonly store: EventStore["Service"]
  readonly appender: Appender["Service"]
  readonly archive: Archive["Service"]
}

/** A hub with a store of its own. */
const fresh = <E>(layer: Layer.Layer<Hub, E>) =>
  Effect.map(Layer.build(Layer.fresh(layer)), (context): Side => ({
    store: Context.get(context, EventStore),
    appender: Context.get(context, Appender),
    archive: Context.get(context, Archive)
  }))

const select = (topic = "**", from?: string, to?: string) =>
  Result.getOrThrow(Selections.parseSelection({ topic, from, to }))

const everything = () => true

const exported = (
  { archive }: Side,
  selection = select(),
  isVisible: (topic: string) => boolean = everything
) =>
  Effect.gen(function* () {
    const { bytes } = yield* archive.export({ selection, isVisible })
    const pieces = yield* Stream.runCollect(bytes)
    return new TextDecoder().decode(Buffer.concat(pieces))
  })

const streamOf = (text: string, size = 1_000) => {
  const bytes = new TextEncoder().encode(text)
  const pieces: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size))
  return Stream.fromIterable(pieces)
}

const imported = (
  { archive }: Side,
  text: string,
  options: {
    readonly dryRun?: boolean
    readonly strict?: boolean
    readonly mayWrite?: (topic: string) => boolean
    readonly size?: number
  } = {}
) =>
  archive.import({
    bytes: streamOf(text, options.size),
    mayWrite: options.mayWrite ?? everything,
    dryRun: options.dryRun ?? false,
    strict: options.strict ?? false
  })

/** What a file says beside when and where it was made. */
const withoutHeader = (text: string): string => text.slice(text.indexOf("\n") + 1)

const linesOf = (text: string): ReadonlyArray<string> => text.trimEnd().split("\n")

const done: ImportReport = {
  dryRun: false,
  complete: true,
  missing: null,
  lines: 0,
  topics: 0,
  restored: 0,
  appended: 0,
  duplicates: 0,
  latest: 0,
  bad: 0,
  badLines: []
}

/** Topics of every kind: many small ones, a long one, dead letters, one that was trimmed and lives in its keys. */
const fill = ({ store }: Side, pass: (millis: number) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    yield* pass(1_000)
    for (let i = 0; i < 20; i++) yield* store.append(records(`many.t${i}`, (i % 5) + 1))
    yield* store.append(records("long", 2_500))
    yield* store.append([
      record(
        "$dead.g.many.t1",
        "e1:gen",
        { n: 1 },
        { headers: { "dead-reason": "x".repeat(200), "dead-seq": "1" } }
      )
    ])
    const keyed = (from: number, count: number, keys: number) =>
      Array.from({ length: count }, (_, i) =>
        record("trimmed", `k${from + i}`, (from + i) % 11 === 0 ? null : { at: from + i, "é\n": "\u0000" }, {
          key: `key-${(from + i) % keys}`,
          type: "t",
          tags: ["a", "é"],
          caused_by: "c",
          sid: "s",
          headers: { traceparent: "00-1-2-01" }
        })
      )
    yield* store.append(keyed(1, 300, 250))
    yield* pass(50)
    yield* store.append(keyed(301, 100, 10))
    yield* pass(50)
    yield* store.trim({ topic: "trimmed", upTo: 310 })
    yield* pass(1_000)
  })

/** All that a store holds. */
const contents = ({ store }: Side) =>
  Effect.gen(function* () {
    const found: Array<unknown> = []
    for (const pattern of ["**", "$dead.**"]) {
      const { items } = yield* store.topics({ pattern: select(pattern).pattern, limit: 1_000 })
      for (const info of items) {
        const { topic } = info
        const events = yield* store.read({ topic, after: 0, limit: 10_000 })
        const latest = yield* store.latestByKey({ topic, limit: 10_000 })
        found.push(info, events, latest.items)
      }
    }
    return found
  })

const suite = <E>(name: string, layer: Layer.Layer<Hub, E>, pass: (millis: number) => Effect.Effect<void>) =>
  describe(name, () => {
    it.effect("what was exported, and is imported elsewhere, is the same again", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* fill(one, pass)
        const files = [yield* exported(one), yield* exported(one, select("$dead.**"))]
        expect(linesOf(files[0]!).filter((line) => line.startsWith('{"latest"'))).not.toEqual([])
        const other = yield* fresh(layer)
        yield* pass(5_000)
        for (const [i, file] of files.entries()) {
          const { events, latest, topics } = JSON.parse(linesOf(file).at(-1)!) as Selections.Trailer
          const same = { ...done, lines: linesOf(file).length, topics, latest }
          const dry = yield* imported(other, file, { dryRun: true, size: 70_000 })
          expect(dry).toEqual({ ...same, dryRun: true, restored: events })
          const report = yield* imported(other, file, { size: i === 0 ? 997 : 7 })
          expect(report).toEqual({ ...same, restored: events })
        }
        expect(yield* contents(other)).toEqual(yield* contents(one))
        expect(withoutHeader(yield* exported(other))).toBe(withoutHeader(files[0]!))
        expect(withoutHeader(yield* exported(other, select("$dead.**")))).toBe(withoutHeader(files[1]!))
        const again = yield* imported(other, files[0]!)
        const { events, latest } = JSON.parse(linesOf(files[0]!).at(-1)!) as Selections.Trailer
        expect(again).toMatchObject({ complete: true, restored: 0, appended: 0, latest: 0 })
        expect(again.duplicates).toBe(events + latest)
        expect(yield* contents(other)).toEqual(yield* contents(one))
      })
    )

    it.effect("what was cut off, anywhere, goes on when it is sent again", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* fill(one, pass)
        const file = yield* exported(one)
        yield* pass(5_000)
        for (const part of [0.13, 0.987, 0.9999]) {
          const other = yield* fresh(layer)
          yield* pass(1)
          const cut = yield* imported(other, file.slice(0, Math.floor(file.length * part)))
          expect(cut).toMatchObject({ complete: false, missing: expect.stringMatching(/cut off/) as string })
          const whole = yield* imported(other, file)
          expect(whole).toMatchObject({ complete: true, appended: 0, bad: 0 })
          expect(withoutHeader(yield* exported(other))).toBe(withoutHeader(file))
        }
      })
    )

    it.effect("what another import of the same file brings meanwhile is not appended anew", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* pass(1_000)
        yield* one.store.append(records("a", 1_200))
        const file = yield* exported(one)
        yield* pass(1_000)
        const upTo = (seq: number) =>
          linesOf(file)
            .slice(0, seq + 1)
            .join("\n")
        for (const [before, meanwhile] of [
          [300, 500],
          [500, 800],
          [700, 1_000]
        ] as const) {
          const other = yield* fresh(layer)
          yield* pass(1)
          yield* imported(other, upTo(before))
          let isFirst = true
          // It looks where the log ends, and there the log goes on.
          const head = (topic: string) =>
            Effect.gen(function* () {
              const found = yield* other.store.head(topic)
              if (isFirst) {
                isFirst = false
                yield* Effect.orDie(imported(other, upTo(meanwhile)))
              }
              return found
            })
          const store = Layer.succeed(EventStore, { ...other.store, head })
          const { archive } = yield* fresh(over(store))
          const report = yield* imported({ ...other, archive }, file)
          expect(report).toMatchObject({ complete: true, appended: 0, bad: 0 })
          expect(withoutHeader(yield* exported(other))).toBe(withoutHeader(file))
        }
      })
    )

    it.effect("a topic that exists keeps what it has, and the rest is appended behind it", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* pass(1_000)
        yield* one.store.append(records("a", 5))
        const file = yield* exported(one)
        const other = yield* fresh(layer)
        yield* pass(1_000)
        yield* other.store.append([record("a", "mine"), record("a", "e2", "mine, too")])
        const expected = { ...done, lines: 7, topics: 1, appended: 4, duplicates: 1 }
        expect(yield* imported(other, file, { dryRun: true })).toEqual({ ...expected, dryRun: true })
        expect(yield* imported(other, file)).toEqual(expected)
        const stored = yield* other.store.read({ topic: "a", after: 0, limit: 10 })
        expect(stored.map(({ id, seq }) => [id, seq])).toEqual([
          ["mine", 1],
          ["e2", 2],
          ["e1", 3],
          ["e3", 4],
          ["e4", 5],
          ["e5", 6]
        ])
        const times = (yield* one.store.read({ topic: "a", after: 0, limit: 10 })).map(
          ({ storedAt }) => storedAt
        )
        expect(stored[2]!.storedAt).toBeGreaterThan(times[0]!)
        expect(yield* imported(other, file)).toEqual({ ...expected, appended: 0, duplicates: 5 })
      })
    )

    it.effect("a publisher who writes meanwhile loses nothing, and neither does the file", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* pass(1_000)
        yield* one.store.append(records("a", 3_000))
        const file = yield* exported(one)
        const other = yield* fresh(layer)
        yield* pass(1_000)
        const half = file.slice(0, file.length >> 1)
        const bytes = Stream.concat(
          streamOf(half),
          Stream.unwrap(
            Effect.as(other.appender.append([record("a", "published")]), streamOf(file.slice(half.length)))
          )
        )
        const report = yield* other.archive.import({
          bytes,
          mayWrite: everything,
          dryRun: false,
          strict: false
        })
        expect(report).toMatchObject({ complete: true, duplicates: 0, bad: 0 })
        expect(report.restored).toBeGreaterThan(0)
        expect(report.appended).toBeGreaterThan(0)
        expect(report.restored + report.appended).toBe(3_000)
        const stored = yield* other.store.read({ topic: "a", after: 0, limit: 10_000 })
        expect(stored.map(({ seq }) => seq)).toEqual(Array.from({ length: 3_001 }, (_, i) => i + 1))
        expect(stored.filter(({ id }) => id !== "published").map(({ id }) => id)).toEqual(
          records("a", 3_000).map(({ id }) => id)
        )
      })
    )

    it.effect("last events of keys are taken where a topic has none of the key", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* pass(1_000)
        const of = (id: string, key: string, payload: unknown) => record("a", id, payload, { key })
        yield* one.store.append([
          of("1", "x", "old"),
          of("2", "y", "old"),
          record("a", "3"),
          record("a", "4")
        ])
        yield* pass(10)
        yield* one.store.trim({ topic: "a", upTo: 2 })
        const file = yield* exported(one)
        expect(linesOf(file).map((line) => line.slice(0, 10))).toEqual([
          '{"format":',
          '{"seq":3,"',
          '{"latest":',
          '{"latest":',
          '{"seq":4,"',
          '{"end":tru'
        ])
        const other = yield* fresh(layer)
        yield* other.store.append([of("mine", "x", "mine")])
        const report = yield* imported(other, file)
        expect(report).toMatchObject({ complete: true, appended: 3, duplicates: 1, latest: 0 })
        const latest = yield* other.store.latestOf({ topic: "a", keys: ["x", "y"] })
        expect([...latest.values()].map((item) => Event.decode(item).payload)).toEqual(["mine", "old"])
      })
    )

    it.effect("a file of this very store brings nothing back that was trimmed since", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* pass(1_000)
        const keyed = Array.from({ length: 700 }, (_, i) => record("a", `e${i}`, i, { key: `k${i % 7}` }))
        yield* one.store.append([...keyed, ...records("b", 3)])
        yield* pass(50)
        yield* one.store.trim({ topic: "a", upTo: 20 })
        const file = yield* exported(one)
        const { events, latest } = JSON.parse(linesOf(file).at(-1)!) as Selections.Trailer
        yield* one.store.append([record("a", "later", null, { key: "k1" })])
        yield* pass(50)
        yield* one.store.trim({ topic: "a", upTo: 650 })
        const before = yield* contents(one)
        const nothing = { ...done, lines: linesOf(file).length, topics: 2, duplicates: events + latest }
        expect(yield* imported(one, file, { dryRun: true })).toEqual({ ...nothing, dryRun: true })
        expect(yield* imported(one, file)).toEqual(nothing)
        expect(yield* imported(one, file.slice(0, file.length >> 1))).toMatchObject({ appended: 0 })
        expect(yield* contents(one)).toEqual(before)
      })
    )

    it.effect("a range, or some topics, are what was asked for and may be seen", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* pass(1_000)
        for (let i = 1; i <= 6; i++) {
          yield* one.store.append([record("a", `e${i}`, i, { key: "k" }), record("b.c", `e${i}`, i)])
          yield* pass(10)
        }
        const times = (yield* one.store.read({ topic: "a", after: 0, limit: 10 })).map(
          ({ storedAt }) => storedAt
        )
        const at = (i: number) => `@${times[i]}`
        const ids = (topic: string, from?: string, to?: string) =>
          Effect.map(exported(one, select(topic, from, to)), (file) =>
            linesOf(file)
              .slice(1, -1)
              .map((line) => {
                const { id, topic } = JSON.parse(line) as Event.Event
                return `${topic} ${id}`
              })
          )
        expect(yield* ids("a", "3", "4")).toEqual(["a e3", "a e4"])
        expect(yield* ids("a", "5", "99")).toEqual(["a e5", "a e6"])
        expect(yield* ids("a", "7")).toEqual([])
        expect(yield* ids("a", undefined, "0")).toEqual([])
        expect(yield* ids("*", at(1), at(3))).toEqual(["a e2", "a e3"])
        expect(yield* ids("**", at(4))).toEqual(["a e5", "a e6", "b.c e5", "b.c e6"])
        expect(yield* ids("**", undefined, at(1))).toEqual(["a e1", "b.c e1"])
        const hidden = yield* exported(one, select(), (topic) => topic !== "a")
        expect(hidden).not.toContain('"a"')
        expect(JSON.parse(linesOf(hidden).at(-1)!)).toMatchObject({ events: 6, topics: 1 })
        yield* pass(10)
        yield* one.store.trim({ topic: "a", upTo: 3 })
        expect(yield* ids("a", "2", "5")).toEqual(["a e4", "a e5"])
      })
    )

    it.effect("pages hold the same events in either direction, whatever their size", () =>
      Effect.gen(function* () {
        const one = yield* fresh(layer)
        yield* pass(1_000)
        yield* one.store.append([
          ...records("a", 70),
          ...records("b", 3),
          ...records("c.d", 45),
          ...records("h", 9)
        ])
        yield* pass(10)
        yield* one.store.trim({ topic: "c.d", upTo: 5 })
        const all = (order: "asc" | "desc", limit: number, selection: Selections.Selection) =>
          Effect.gen(function* () {
            const found: Array<string> = []
            let after: Selections.Cursor | undefined
            do {
              const isVisible = (topic: string) => topic !== "h"
              const page = yield* one.archive.page({ selection, isVisible, order, limit, after })
              expect(page.records.length).toBeLessThanOrEqual(limit)
              for (const { seq, topic } of page.records) found.push(`${topic} ${seq}`)
              after = page.next
            } while (after !== undefined)
            return found
          })
        const range = (topic: string, from: number, to: number) =>
          Array.from({ length: to - from + 1 }, (_, i) => `${topic} ${from + i}`)
        const whole = [range("a", 1, 70), range("b", 1, 3), range("c.d", 6, 45)]
        for (const limit of [1, 3, 40, 73, 1_000]) {
          expect(yield* all("asc", limit, select())).toEqual(whole.flat())
          expect(yield* all("desc", limit, select())).toEqual(whole.flatMap((part) => part.toReversed()))
          expect(yield* all("desc", limit, select("a", "5", "60"))).toEqual(range("a", 5, 60).toReversed())
          expect(yield* all("asc", limit, select("c.d", "2", "8"))).toEqual(range("c.d", 6, 8))
          expect(yield* all("desc", limit, select("c.d", "2", "8"))).toEqual(range("c.d", 6, 8).toReversed())
        }
        expect(yield* all("asc", 5, select("nothing.**"))).toEqual([])
      })
    )
  })

describe("a page", () => {
  it.effect("names no topic that may not be seen, however many there are of them", () =>
    Effect.gen(function* () {
      const { archive, store } = yield* fresh(memory)
      const names = (prefix: string, count: number) =>
        Array.from({ length: count }, (_, i) => record(`${prefix}.${String(i).padStart(4, "0")}`, "e"))
      yield* TestClock.adjust(1_000)
      yield* store.append([...names("a", 1_200), ...names("b", 1_100), ...names("c", 1_200)])
      yield* TestClock.adjust(1_000)
      yield* store.append([record("z", "e")])
      const isVisible = (topic: string) => topic.startsWith("b") || topic === "z"
      const selection = select("**", "@2000")
      for (const order of ["asc", "desc"] as const) {
        const cursors: Array<Selections.Cursor> = []
        const found: Array<string> = []
        for (;;) {
          const after = cursors.at(-1)
          const page = yield* archive.page({ selection, isVisible, order, limit: 10, after })
          found.push(...page.records.map(({ topic }) => topic))
          if (page.next === undefined) break
          cursors.push(page.next)
        }
        expect(cursors.map(({ topic }) => topic)).toEqual(["b.0999"])
        expect(found).toEqual(["z"])
      }
    })
  )

  it.effect("that an event fills goes on with the next topic, in either direction", () =>
    Effect.gen(function* () {
      const { archive, store } = yield* fresh(memory)
      const large = {
        ...record("a", "large"),
        body: JSON.stringify({ payload: "x".repeat(5 * 1024 * 1024) })
      }
      yield* store.append([large, record("b", "small")])
      for (const order of ["asc", "desc"] as const) {
        const page = { selection: select(), isVisible: everything, order, limit: 10 }
        const first = yield* archive.page(page)
        expect([first.records.map(({ id }) => id), first.next]).toEqual([["large"], { topic: "a", seq: 1 }])
        const second = yield* archive.page({ ...page, after: first.next })
        expect([second.records.map(({ id }) => id), second.next]).toEqual([["small"], undefined])
      }
    })
  )

  it.effect("holds nothing of another topic, though its cursor names it", () =>
    Effect.gen(function* () {
      const { archive, store } = yield* fresh(memory)
      yield* store.append([...records("a", 3), ...records("b", 1)])
      const after = { topic: "a", seq: 1 }
      const page = { selection: select("b"), isVisible: everything, order: "asc", limit: 10, after } as const
      expect((yield* archive.page(page)).records.map(({ topic }) => topic)).toEqual(["b"])
    })
  )
})

suite("memory", memory, (millis) => TestClock.adjust(millis))
suite("sqlite", sqlite, (millis) => TestClock.adjust(millis))
describeMongo("mongo", (url) => {
  suite(
    "its log",
    over(
      MongoEventStore.layer({ retention }).pipe(
        Layer.provide(mongoDatabase(url)),
        Layer.provide(RandomIds.layer)
      )
    ),
    // The server's time goes on by itself.
    (millis) => TestClock.withLive(Effect.sleep(Math.min(millis, 60)))
  )
})

describe("an import", () => {
  const header = Selections.headerLine({ history: "h", exportedAt: 1, selection: select() })
  const line = (id: string, seq: number, topic = "a") =>
    Selections.eventLine({ ...record(topic, id, { n: seq }), seq, storedAt: seq })
  const fileOf = (...lines: ReadonlyArray<string>) => header + lines.join("")
  const keyed = (id: string, seq: number, key: string): Event.StoredRecord => ({
    ...record("a", id, id, { key }),
    seq,
    storedAt: seq
  })

  // As an export is during which 3 to 8 were trimmed.
  const withHole = () => {
    const before = Selections.eventLine(keyed("old-x", 1, "x")) + Selections.eventLine(keyed("y", 2, "y"))
    const behind = line("e9", 9)
    const latest = Selections.latestLine(keyed("new-x", 5, "x")) + Selections.latestLine(keyed("z", 6, "z"))
    return { begin: before + behind, rest: latest + Selections.eventLine(keyed("e10", 10, "z")) }
  }
  const idsByKey = ({ store }: Side) =>
    Effect.map(store.latestByKey({ topic: "a", limit: 10 }), ({ items }) => items.map(({ id }) => id))

  it.effect("takes last events of keys also behind a hole, over what stood before it", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      const { begin, rest } = withHole()
      const file = fileOf(begin, rest)
      const expected = { restored: 2, appended: 4, duplicates: 0, latest: 0, bad: 0 }
      expect(yield* imported(hub, file, { dryRun: true })).toMatchObject(expected)
      expect(yield* imported(hub, file)).toMatchObject(expected)
      const stored = yield* hub.store.read({ topic: "a", after: 0, limit: 10 })
      expect(stored.map(({ id, storedAt }) => [id, storedAt])).toEqual([
        ["old-x", 1],
        ["y", 2],
        ["e9", 9],
        ["new-x", 9],
        ["z", 9],
        ["e10", 10]
      ])
      expect(yield* idsByKey(hub)).toEqual(["new-x", "y", "e10"])
      expect(yield* imported(hub, file)).toMatchObject({ restored: 0, appended: 0, latest: 0, duplicates: 6 })
      expect(yield* idsByKey(hub)).toEqual(["new-x", "y", "e10"])
    })
  )

  it.effect("takes them also when it was cut off there, and is sent again", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      const { begin, rest } = withHole()
      expect(yield* imported(hub, fileOf(begin))).toMatchObject({ restored: 2, appended: 1 })
      expect(yield* imported(hub, fileOf(begin, rest))).toMatchObject({ appended: 3, duplicates: 3 })
      expect(yield* idsByKey(hub)).toEqual(["new-x", "y", "e10"])
    })
  )

  it.effect("knows a file to be whole though it leaves out a last event that is too long here", () =>
    Effect.gen(function* () {
      const one = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      yield* one.store.append([
        record("a", "long", "x".repeat(20_000), { key: "k" }),
        record("a", "short", 1, { key: "l" }),
        record("a", "last", 2)
      ])
      yield* one.store.trim({ topic: "a", upTo: 2 })
      const file = yield* exported(one)
      const other = yield* fresh(memory)
      const report = yield* imported(other, file)
      expect(report).toMatchObject({ complete: true, missing: null, restored: 1, latest: 1, bad: 1 })
      const less = yield* imported(other, linesOf(file).toSpliced(1, 1).join("\n"))
      expect(less).toMatchObject({
        complete: false,
        missing: expect.stringMatching(/counts 1 events/) as string
      })
    })
  )

  it.effect("appends no more at once than may wait for the store", () =>
    Effect.gen(function* () {
      const small = { ...Settings.appender, maxQueuedEvents: 7 }
      const hub = yield* fresh(
        StoreArchive.layer({ appender: small }).pipe(
          Layer.provide(Sha256.layer),
          Layer.provideMerge(GroupCommitAppender.layer(small)),
          Layer.provideMerge(MemoryEventStore.layer({ retention }).pipe(Layer.provide(RandomIds.layer)))
        )
      )
      yield* hub.store.append(["a", "b", "c"].map((topic) => record(topic, "mine")))
      const lines = Array.from({ length: 300 }, (_, i) => line(`e${i}`, i + 1, "abc"[Math.floor(i / 100)]))
      expect(yield* imported(hub, fileOf(...lines), { size: 100_000 })).toMatchObject({
        appended: 300,
        bad: 0
      })
    })
  )

  it.effect("reports bad lines, names the first of them, and takes the others", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      const file = fileOf(
        line("e1", 1),
        "no json\n",
        line("e2", 2),
        `${"x".repeat(20_000)}\n`,
        line("e1", 1, "secret"),
        line("e3", 3),
        '{"seq":4}\n',
        line("e4", 4)
      )
      const report = yield* imported(hub, file, { mayWrite: (topic) => topic !== "secret" })
      expect(report).toEqual({
        ...done,
        complete: false,
        missing: "its last line is missing: the file is cut off",
        lines: 9,
        topics: 3,
        restored: 4,
        bad: 4,
        badLines: [
          { line: 3, reason: "it is no JSON object" },
          { line: 5, reason: "it is longer than 10000 bytes" },
          { line: 6, reason: "no right to administrate 'secret'" }
        ]
      })
      expect(yield* hub.store.head("secret")).toBeUndefined()
      expect(yield* hub.store.head("a")).toMatchObject({ head: 4 })
    })
  )

  it.effect("ends at the first bad line when it is strict, with all that stands before it", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      const report = yield* imported(hub, fileOf(line("e1", 1), "bad\n", line("e2", 2)), { strict: true })
      expect(report).toMatchObject({
        complete: false,
        missing: "it was stopped at line 3: it is no JSON object",
        restored: 1,
        bad: 1
      })
      expect(yield* hub.store.head("a")).toMatchObject({ head: 1 })
    })
  )

  it.effect("of something else is refused before anything is stored", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      for (const [text, reason] of [
        ["", /nothing in it/],
        ["hello", /does not say "format"/],
        [line("e1", 1), /does not say "format"/],
        ['{"format":"event-hub/export","version":7}\n', /has version 7/],
        ["\u0000\n", /does not say/]
      ] as const) {
        const failed = yield* Effect.flip(imported(hub, text))
        expect(failed).toMatchObject({
          _tag: "NotAnExport",
          message: expect.stringMatching(reason) as string
        })
      }
      expect(yield* hub.store.head("a")).toBeUndefined()
    })
  )

  it.effect("knows a file that was changed, or does not hold what it says", () =>
    Effect.gen(function* () {
      const one = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      yield* one.store.append(records("a", 3))
      const file = yield* exported(one)
      const missing = (text: string) =>
        Effect.map(imported(one, text, { dryRun: true }), (report) => report.missing)
      expect(yield* missing(file)).toBeNull()
      expect(yield* missing(file.replace('"n":2', '"n":7'))).toMatch(/checksum differs/)
      expect(yield* missing(linesOf(file).toSpliced(2, 1).join("\n"))).toMatch(
        /counts 3 events, and there are 2/
      )
      expect(yield* missing(`${file}${line("late", 9)}`)).toMatch(/checksum differs/)
      expect(yield* missing(file.replace('"events":3', '"events":4'))).toMatch(/counts 4 events/)
      // Another time and place: the same events have the same checksum.
      expect(yield* missing(file.replace(/"exportedAt":\d+/, '"exportedAt":5'))).toBeNull()
    })
  )

  it.effect("takes as far as they go bytes that fail, and says why they did", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      const bytes = Stream.concat(streamOf(fileOf(line("e1", 1), line("e2", 2))), Stream.fail("it burnt"))
      const report = yield* hub.archive.import({ bytes, mayWrite: everything, dryRun: false, strict: false })
      expect(report).toMatchObject({
        complete: false,
        missing: "it cannot be read to its end: it burnt",
        restored: 2
      })
      const nothing = { bytes: Stream.fail("it burnt"), mayWrite: everything, dryRun: false, strict: false }
      const failed = yield* Effect.flip(hub.archive.import(nothing))
      expect(failed.message).toBe("it cannot be read to its end: it burnt")
    })
  )

  it.effect("takes lines in any order of topics and seqs, and loses none", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.record({
              topic: fc.constantFrom("a", "b", "c"),
              seq: fc.integer({ min: 1, max: 9 }),
              id: fc.nat(6)
            }),
            { maxLength: 30 }
          ),
          fc.array(fc.record({ topic: fc.constantFrom("a", "b"), id: fc.nat(6) }), { maxLength: 5 }),
          (events, before) =>
            Effect.gen(function* () {
              const hub = yield* fresh(memory)
              yield* hub.store.append(before.map(({ id, topic }) => record(topic, `e${id}`)))
              const file = fileOf(...events.map(({ id, seq, topic }) => line(`e${id}`, seq, topic)))
              const report = yield* imported(hub, file)
              expect(report.restored + report.appended + report.duplicates).toBeLessThanOrEqual(events.length)
              const wanted = new Set([...events, ...before].map(({ id, topic }) => `${topic} e${id}`))
              const { items } = yield* hub.store.topics({ pattern: select().pattern, limit: 10 })
              const found: Array<string> = []
              for (const { floor, topic } of items) {
                const stored = yield* hub.store.read({ topic, after: 0, limit: 100 })
                expect(stored.map(({ seq }) => seq)).toEqual(stored.map((_, i) => floor + i + 1))
                for (const { id } of stored) found.push(`${topic} ${id}`)
              }
              expect(found.sort()).toEqual([...wanted].sort())
              const again = yield* imported(hub, file)
              expect([again.restored, again.appended]).toEqual([0, 0])
            }).pipe(Effect.scoped, Effect.runPromise)
        ),
        { numRuns: 60 }
      )
    )
  )

  it.effect("tells how far it is, time and again", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      yield* TestClock.adjust(10_000)
      const seen: Array<ImportReport> = []
      const lines = Array.from({ length: 3_000 }, (_, i) => line(`e${i}`, i + 1))
      const report = yield* hub.archive.import({
        bytes: streamOf(fileOf(...lines)),
        mayWrite: everything,
        dryRun: false,
        strict: false,
        onProgress: (progress) => seen.push(progress)
      })
      expect(seen.length).toBeGreaterThan(2)
      const restored = seen.map((progress) => progress.restored)
      expect(restored).toEqual([...restored].sort((a, b) => a - b))
      expect(restored[0]).toBeLessThan(3_000)
      expect(report.restored).toBe(3_000)
    })
  )

  it.effect("is heard of by those who follow the log", () =>
    Effect.gen(function* () {
      const hub = yield* fresh(memory)
      yield* TestClock.adjust(1_000)
      const heard: Array<string> = []
      yield* hub.appender.onGrown((topics) => {
        for (const { head, topic } of topics) heard.push(`${topic} to ${head}`)
      })
      yield* hub.appender.onCommitted((stored) => {
        for (const { seq, topic } of stored) heard.push(`${topic} ${seq}`)
      })
      yield* imported(hub, fileOf(line("e5", 5), line("e6", 6)))
      yield* imported(hub, fileOf(line("e5", 5), line("e6", 6), line("e7", 7)))
      expect(heard).toContain("a to 6")
      expect(heard).toContain("a 7")
    })
  )

  it.effect("waits for a store that does not answer, and gives up after a while", () =>
    Effect.gen(function* () {
      const { archive, trouble } = yield* Effect.all({ archive: Archive, trouble: TestStores.Trouble })
      const lines = fileOf(line("e1", 1), line("e2", 2), line("e1", 1, "b"))
      const run = archive.import({
        bytes: streamOf(lines),
        mayWrite: everything,
        dryRun: false,
        strict: false
      })
      yield* TestClock.adjust(1_000)
      trouble.setOutage("EventStore.restore")
      const waiting = yield* Effect.forkChild(run)
      yield* TestClock.adjust(5_000)
      trouble.setOutage(undefined)
      yield* TestClock.adjust(5_000)
      expect(yield* Fiber.join(waiting)).toMatchObject({ restored: 3 })
      trouble.setOutage("EventStore")
      const failing = yield* Effect.forkChild(Effect.exit(run))
      yield* TestClock.adjust("2 minutes")
      expect(Exit.isFailure(yield* Fiber.join(failing))).toBe(true)
    }).pipe(
      Effect.scoped,
      Effect.provide(over(TestStores.layer()).pipe(Layer.provideMerge(TestStores.layer())))
    )
  )
})

describe("an export", () => {
  const scene = over(TestStores.layer()).pipe(Layer.provideMerge(TestStores.layer()))

  it.effect("that nobody reads any more reads nothing any more", () =>
    Effect.gen(function* () {
      const { archive, trouble } = yield* Effect.all({ archive: Archive, trouble: TestStores.Trouble })
      yield* trouble.log.append(records("a", 50_000))
      const { bytes } = yield* archive.export({ selection: select(), isVisible: everything })
      const room = yield* Queue.bounded<Uint8Array>(1)
      const reader = yield* Effect.forkChild(Stream.runForEach(bytes, (piece) => Queue.offer(room, piece)))
      const settle = Effect.repeat(Effect.yieldNow, { times: 500 })
      yield* settle
      const before = trouble.count("EventStore.readLines")
      expect(before).toBeGreaterThan(0)
      expect(before).toBeLessThan(10)
      yield* settle
      expect(trouble.count("EventStore.readLines")).toBe(before)
      yield* Queue.take(room)
      yield* Queue.take(room)
      yield* settle
      const later = trouble.count("EventStore.readLines")
      expect(later).toBeGreaterThan(before)
      expect(later).toBeLessThan(before + 10)
      yield* Fiber.interrupt(reader)
      yield* Queue.clear(room)
      yield* settle
      expect(trouble.count("EventStore.readLines")).toBe(later)
    }).pipe(Effect.scoped, Effect.provide(scene))
  )

  it.effect("that meets a failure has no last line", () =>
    Effect.gen(function* () {
      const { archive, trouble } = yield* Effect.all({ archive: Archive, trouble: TestStores.Trouble })
      yield* trouble.log.append(records("a", 5_000))
      const { bytes } = yield* archive.export({ selection: select(), isVisible: everything })
      let text = ""
      const decoder = new TextDecoder()
      const exit = yield* Stream.runForEach(bytes, (piece) =>
        Effect.sync(() => {
          text += decoder.decode(piece, { stream: true })
          if (text.length > 200_000) trouble.setOutage("EventStore.readLines")
        })
      ).pipe(Effect.exit)
      expect(exit._tag).toBe("Failure")
      expect(text).not.toContain('"end":true')
    }).pipe(Effect.scoped, Effect.provide(scene))
  )

  it.effect.each([
    // Between two looks of the store: nothing is found where there was something.
    { upTo: 60, isEmpty: true },
    // All that there was at first, while more comes behind it.
    { upTo: 130, isEmpty: false }
  ])("goes on behind what is trimmed as it begins to read: %o", ({ isEmpty, upTo }) =>
    Effect.gen(function* () {
      const { archive, trouble } = yield* Effect.all({ archive: Archive, trouble: TestStores.Trouble })
      yield* TestClock.adjust(1_000)
      const events = Array.from({ length: 150 }, (_, i) => record("a", `e${i}`, i, { key: `k${i}` }))
      yield* trouble.log.append(events.slice(0, 100))
      trouble.next("EventStore.readLines", (_, run) =>
        Effect.gen(function* () {
          yield* trouble.log.append(events.slice(100))
          yield* trouble.log.trim({ topic: "a", upTo })
          return isEmpty ? undefined : yield* run
        })
      )
      const { bytes } = yield* archive.export({ selection: select(), isVisible: everything })
      const text = new TextDecoder().decode(Buffer.concat(yield* Stream.runCollect(bytes)))
      expect(JSON.parse(linesOf(text).at(-1)!)).toMatchObject({ events: 150 - upTo, latest: upTo, topics: 1 })
    }).pipe(Effect.scoped, Effect.provide(scene))
  )

  it.effect("keeps the last events of keys that are trimmed on the way", () =>
    Effect.gen(function* () {
      const { archive, trouble } = yield* Effect.all({ archive: Archive, trouble: TestStores.Trouble })
      yield* TestClock.adjust(1_000)
      const keyed = Array.from({ length: 2_000 }, (_, i) => record("a", `e${i}`, i, { key: `k${i}` }))
      yield* trouble.log.append(keyed)
      yield* TestClock.adjust(1_000)
      const { bytes } = yield* archive.export({ selection: select(), isVisible: everything })
      let text = ""
      let isTrimmed = false
      yield* Stream.runForEach(bytes, (piece) =>
        Effect.suspend(() => {
          text += new TextDecoder().decode(piece)
          if (isTrimmed || text.length < 30_000) return Effect.void
          isTrimmed = true
          return Effect.asVoid(trouble.log.trim({ topic: "a", upTo: 1_900 }))
        })
      )
      const other = yield* fresh(memory)
      yield* imported(other, text)
      const { items } = yield* other.store.latestByKey({ topic: "a", limit: 3_000 })
      expect(items.map(({ id }) => id).sort()).toEqual(keyed.map(({ id }) => id).sort())
    }).pipe(Effect.scoped, Effect.provide(scene))
  )
})
