/** The contract, and what only a store with many hubs over it can get wrong. */
import { createServer, connect, type Socket } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import { expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Metric, Schedule, Scope, Stream } from "effect"
import * as Event from "../../../src/domain/Event.ts"
import * as Topic from "../../../src/domain/Topic.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MongoDatabase from "../../../src/layers/mongo/MongoDatabase.ts"
import * as MongoEventStore from "../../../src/layers/mongo/MongoEventStore.ts"
import { collection } from "../../../src/layers/mongo/schema.ts"
import { streamFailures } from "../../../src/layers/mongo/topicChanges.ts"
import { type AppendResult, EventStore } from "../../../src/services/EventStore.ts"
import { eventStoreSuite, record, records } from "../../../src/testing/eventStore.ts"
import { describeMongo, dropDatabase, urlOfNewDatabase } from "../../support/mongo.ts"
import { watchedDatabase } from "./shards.ts"

type Store = EventStore["Service"]
type Database = MongoDatabase.MongoDatabase["Service"]

/** The server's time goes on by itself. */
const sleep = (millis: number) => Effect.promise(() => delay(millis))

const seqOf = (result: AppendResult | undefined): number => {
  if (result?._tag !== "Appended") throw new Error(`not appended: ${JSON.stringify(result)}`)
  return result.seq
}

const readAll = (store: Store, topic: string) =>
  Effect.gen(function* () {
    const all: Array<Event.StoredRecord> = []
    for (;;) {
      const more = yield* store.read({ topic, after: all.at(-1)?.seq ?? 0, limit: 100 })
      if (more.length === 0) return all
      all.push(...more)
    }
  })

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

describeMongo("MongoEventStore", (url) => {
  eventStoreSuite(
    "mongo",
    MongoEventStore.layer({ maxRecordLength: 100_000, retention: { minAgeMs: 1_000 } }).pipe(
      Layer.provide([watchedDatabase(url), RandomIds.layer])
    ),
    { advance: sleep, maxRecordLength: 100_000, minAgeMs: 1_000 }
  )

  /** A database, and as many hubs' stores over it as a test asks for, each with a connection of its own. */
  const makeHubs = Effect.gen(function* () {
    const own = urlOfNewDatabase(url)
    yield* Effect.addFinalizer(() => Effect.promise(() => dropDatabase(own)))
    const scope = yield* Scope.Scope
    return (
      options: Partial<MongoEventStore.Options> = {},
      wrap: (database: Database) => Database = (database) => database,
      connection: Omit<MongoDatabase.Options, "url"> & { readonly url?: (url: string) => string } = {}
    ) =>
      Effect.gen(function* () {
        const { url: through = (url: string) => url, ...client } = connection
        const ids = yield* Layer.buildWithScope(RandomIds.layer, scope)
        const base = Context.get(
          yield* MongoDatabase.layer({ ...client, url: through(own) }).pipe(
            Layer.provide(RandomIds.layer),
            Layer.buildWithScope(scope)
          ),
          MongoDatabase.MongoDatabase
        )
        const layer = MongoEventStore.layer({ retention: { minAgeMs: 0 }, ...options }).pipe(
          Layer.provide([Layer.succeed(MongoDatabase.MongoDatabase, wrap(base)), Layer.succeedContext(ids)])
        )
        const store = Context.get(yield* Layer.buildWithScope(layer, scope), EventStore)
        return { store, db: base.db, client: base.client }
      })
  })

  /** Holds up what comes after an insert of events: the writer is paused before it looks at the floor. */
  const pausing =
    (inserted: () => Promise<void>) =>
    (base: Database): Database => {
      const paused = new Proxy(base.db, {
        get: (db, name) => {
          if (name !== "collection") return Reflect.get(db, name)
          return (of: string) => {
            const found = db.collection(of)
            if (of !== "events") return found
            return new Proxy(found, {
              get: (events, method) => {
                const value: unknown = Reflect.get(events, method)
                if (typeof value !== "function") return value
                if (method !== "insertMany") return value.bind(events)
                return async (...args: ReadonlyArray<unknown>) => {
                  const result: unknown = await Reflect.apply(value, events, args)
                  await inserted()
                  return result
                }
              }
            })
          }
        }
      })
      return { ...base, db: paused, use: (operation, f) => MongoDatabase.tryUse(operation, () => f(paused)) }
    }

  const pausedHub = Effect.gen(function* () {
    const reached = yield* Deferred.make<void>()
    const gate = yield* Deferred.make<void>()
    let armed = false
    return {
      wrap: pausing(async () => {
        if (!armed) return
        armed = false
        await Effect.runPromise(Effect.andThen(Deferred.succeed(reached, undefined), Deferred.await(gate)))
      }),
      arm: () => void (armed = true),
      reached: Deferred.await(reached),
      goOn: Deferred.succeed(gate, undefined)
    }
  })

  it.live("two hubs that append to one topic at once leave it dense, in order, and no reader skips", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const stores = [(yield* hub()).store, (yield* hub()).store, (yield* hub()).store]
      const each = 40
      const total = 2 * each * 3
      const seen: Array<Event.StoredRecord> = []
      const follow = Effect.gen(function* () {
        while (seen.length < total) {
          seen.push(...(yield* stores[2]!.read({ topic: "a", after: seen.length, limit: 50 })))
        }
      })
      const write = (writer: number) =>
        Effect.forEach(upTo(each), (i) =>
          stores[writer]!.append([1, 2, 3].map((part) => record("a", `${writer}-${i}-${part}`)))
        )
      const [, ...answers] = yield* Effect.all([follow, write(0), write(1)], { concurrency: "unbounded" })
      expect(seen.map(({ seq }) => seq)).toEqual(upTo(total))
      expect(new Set(seen.map(({ id }) => id)).size).toBe(total)
      const times = seen.map(({ storedAt }) => storedAt)
      expect(times).toEqual([...times].sort((a, b) => a - b))
      for (const [writer, results] of answers.entries()) {
        const own = seen.filter(({ id }) => id.startsWith(`${writer}-`))
        expect(own.map(({ id }) => id)).toEqual(
          upTo(each).flatMap((i) => [1, 2, 3].map((p) => `${writer}-${i}-${p}`))
        )
        expect(results.flat().map(seqOf)).toEqual(own.map(({ seq }) => seq))
      }
      expect(yield* stores[2]!.head("a")).toMatchObject({ head: total, storedAt: times.at(-1) })
    })
  )

  it.live("the same events from two hubs at once are in the log once, and both are told where", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const [one, other] = [(yield* hub()).store, (yield* hub()).store]
      const batches = upTo(30).map((i) => [...records("a", 5, i * 5 - 4), ...records("b", 2, i * 2 - 1)])
      const write = (store: Store) => Effect.forEach(batches, (batch) => store.append(batch))
      const [first, second] = yield* Effect.all([write(one), write(other)], { concurrency: "unbounded" })
      const places = (results: ReadonlyArray<ReadonlyArray<AppendResult>>) =>
        results.flat().map((result) => [result.topic, result.id, seqOf(result)])
      expect(places(first)).toEqual(places(second))
      const fresh = [...first.flat(), ...second.flat()].filter(
        (result) => result._tag === "Appended" && !result.duplicate
      )
      expect(fresh.length).toBe(30 * 7)
      for (const [topic, count] of [
        ["a", 150],
        ["b", 60]
      ] as const) {
        const all = yield* readAll(one, topic)
        expect(all.map(({ id, seq }) => [id, seq])).toEqual(upTo(count).map((n) => [`e${n}`, n]))
      }
    })
  )

  it.live("a writer that is paused before it looks at the floor appends again what was trimmed past", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const paused = yield* pausedHub
      const slow = (yield* hub({}, paused.wrap)).store
      const { store } = yield* hub()
      yield* slow.append(records("a", 2))
      paused.arm()
      const late = yield* Effect.forkChild(slow.append(["x", "y", "z"].map((id) => record("a", id))))
      yield* paused.reached
      yield* store.append(records("a", 5, 3))
      yield* sleep(5)
      expect(yield* store.trim({ topic: "a", upTo: 9 })).toBe(9)
      yield* store.append(records("a", 2, 8))
      yield* paused.goOn
      expect((yield* Fiber.join(late)).map(seqOf)).toEqual([13, 14, 15])
      expect((yield* readAll(store, "a")).map(({ id }) => id)).toEqual(["e7", "e8", "e9", "x", "y", "z"])
    })
  )

  it.live("a writer that has not heard of a trim fills no seq below the floor", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const paused = yield* pausedHub
      const slow = (yield* hub({}, paused.wrap)).store
      const { db, store } = yield* hub()
      yield* slow.append(records("a", 2))
      yield* store.append(records("a", 8, 3))
      yield* sleep(5)
      expect(yield* store.trim({ topic: "a", upTo: 5 })).toBe(5)
      paused.arm()
      // Seqs 3, 4, 5 are free again, and 6 is not.
      const ids = ["v", "w", "x"]
      const late = yield* Effect.forkChild(slow.append(ids.map((id) => record("a", id))))
      yield* paused.reached
      const sunk = collection(db, "events").countDocuments({ topic: "a", id: { $in: ids } })
      expect(yield* Effect.promise(() => sunk)).toBe(3)
      expect((yield* store.read({ topic: "a", after: 2, limit: 10 })).map(({ seq }) => seq)).toEqual([
        6, 7, 8, 9, 10
      ])
      expect(yield* store.find({ topic: "a", ids })).toEqual(new Map())
      expect(yield* store.head("a")).toMatchObject({ head: 10, floor: 5 })
      // Another hub is given one of them: what stands below the floor is no first result.
      expect((yield* store.append([record("a", "w")])).map(seqOf)).toEqual([11])
      yield* paused.goOn
      const results = yield* Fiber.join(late)
      expect(results.map(seqOf)).toEqual([12, 11, 13])
      expect((yield* readAll(store, "a")).map(({ id, seq }) => [id, seq]).slice(5)).toEqual([
        ["w", 11],
        ["v", 12],
        ["x", 13]
      ])
    })
  )

  it.live("a batch whose first events sink and whose next collides keeps its order", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const slow = (yield* hub()).store
      const { store } = yield* hub()
      yield* slow.append(records("a", 2))
      yield* store.append(records("a", 8, 3))
      yield* sleep(5)
      yield* store.trim({ topic: "a", upTo: 4 })
      const results = yield* slow.append(["u", "v", "w", "x"].map((id) => record("a", id)))
      expect(results.map(seqOf)).toEqual([11, 12, 13, 14])
      expect((yield* readAll(store, "a")).map(({ id }) => id).slice(-4)).toEqual(["u", "v", "w", "x"])
    })
  )

  it.live("while three hubs append and one trims behind a reader, what was answered is what is read", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const stores = [(yield* hub()).store, (yield* hub()).store, (yield* hub()).store]
      const reader = (yield* hub()).store
      const seen = new Map<number, string>()
      let writing = 3
      const follow = Effect.gen(function* () {
        for (;;) {
          const isLast = writing === 0
          const more = yield* reader.read({ topic: "a", after: seen.size, limit: 30 })
          for (const { id, seq } of more) {
            expect(seq).toBe(seen.size + 1)
            seen.set(seq, id)
          }
          if (isLast && more.length === 0) return
          // What was trimmed was read before, so that nothing may be missing.
          yield* reader.trim({ topic: "a", upTo: seen.size - 1 })
        }
      })
      const write = (writer: number) =>
        Effect.gen(function* () {
          const results: Array<AppendResult> = []
          for (const i of upTo(40)) {
            const batch = upTo(1 + ((i * 7 + writer) % 5)).map((n) => record("a", `${writer}-${i}-${n}`))
            results.push(...(yield* stores[writer]!.append(batch)))
            // The others get ahead, and the floor passes what this hub knows.
            if (i % (3 + writer) === 0) yield* sleep(20 * writer)
          }
          writing--
          return results
        })
      const [, ...answers] = yield* Effect.all([follow, write(0), write(1), write(2)], {
        concurrency: "unbounded"
      })
      for (const result of answers.flat()) expect(seen.get(seqOf(result))).toBe(result.id)
    })
  )

  it.live("knows events of a hub that died before it told how far the topic reaches", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const { db, store } = yield* hub()
      yield* store.append(records("a", 2))
      const [last] = (yield* readAll(store, "a")).slice(-1)
      yield* Effect.promise(() =>
        collection(db, "events").insertMany(
          upTo(40).map((n) => ({
            _id: { topic: "a", seq: 2 + n },
            topic: "a",
            id: `lost${n}`,
            body: last!.body,
            storedAt: last!.storedAt + n
          }))
        )
      )
      const info = { topic: "a", head: 42, floor: 0, storedAt: last!.storedAt + 40 }
      expect(yield* store.head("a")).toEqual(info)
      const pattern = yield* Topic.pattern("**")
      expect((yield* store.topics({ pattern, limit: 10 })).items).toEqual([info])
      // Its time is ahead of this hub's, and the times of a topic never decrease.
      expect((yield* store.append([record("a", "next")])).map(seqOf)).toEqual([43])
      expect((yield* store.head("a"))!.storedAt).toBeGreaterThanOrEqual(info.storedAt)
      expect(yield* store.readTime({ topic: "a", time: info.storedAt - 10 })).toBe(31)
    })
  )

  it.live("a trim that died before it deleted is finished by the next", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const { db, store } = yield* hub()
      yield* store.append(records("a", 10))
      yield* Effect.promise(() => collection(db, "topics").updateOne({ _id: "a" }, { $set: { floor: 7 } }))
      expect((yield* readAll(store, "a")).map(({ seq }) => seq)).toEqual([8, 9, 10])
      expect(yield* store.find({ topic: "a", ids: ["e7", "e8"] })).toEqual(new Map([["e8", 8]]))
      expect((yield* store.append([record("a", "e7")])).map(seqOf)).toEqual([11])
      expect(yield* store.trim({ topic: "a", upTo: 1 })).toBe(7)
      expect(yield* Effect.promise(() => collection(db, "events").countDocuments({ topic: "a" }))).toBe(4)
    })
  )

  it.live("keeps strings that look like expressions as they are, also as the latest of a key", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const { store } = yield* hub()
      const hostile: ReadonlyArray<readonly [key: string, payload: unknown]> = [
        ["$key", "$payload"],
        ["a.b.$c", { $set: { "a.b": "$$NOW" }, "x.y": "$$ROOT" }],
        ["$$ROOT", ["$literal", { $literal: "$$REMOVE" }]],
        ["__proto__", { "": "" }]
      ]
      const events = hostile.map(([key, payload], i) => record("a", `$id.${i}`, payload, { key }))
      yield* store.append([...events, record("a", "last")])
      yield* sleep(5)
      expect(yield* store.trim({ topic: "a", upTo: 99 })).toBe(events.length)
      const latest = yield* store.latestOf({ topic: "a", keys: hostile.map(([key]) => key) })
      expect([...latest.values()].map(({ body, id, key }) => ({ body, id, key }))).toEqual(
        events.map(({ body, id, key }) => ({ body, id, key }))
      )
      const page = yield* store.latestByKey({ topic: "a", limit: 10 })
      expect(page.items.map(({ body }) => body).sort()).toEqual(events.map(({ body }) => body).sort())
    })
  )

  it.live("two hubs that bring the latest events up at once agree, and appending does it by itself", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const { store } = yield* hub()
      const other = (yield* hub()).store
      const keyed = upTo(600).map((n) => record("a", `e${n}`, n % 7 === 0 ? null : n, { key: `k${n % 50}` }))
      yield* store.append(keyed)
      const all = { topic: "a", limit: 100 }
      const [one, two] = yield* Effect.all([store.latestByKey(all), other.latestByKey(all)], {
        concurrency: 2
      })
      const expected = new Map(keyed.map((item, i) => [item.key!, { seq: i + 1, gone: item.tombstone }]))
      const left = [...expected].filter(([, { gone }]) => !gone).map(([key, { seq }]) => [key, seq])
      for (const page of [one, two]) {
        expect(page.items.map(({ key, seq }) => [key, seq])).toEqual(
          left.sort(([a], [b]) => (a! < b! ? -1 : 1))
        )
      }
      const eager = yield* hub({ maxLatestLag: 10 })
      yield* eager.store.append(upTo(20).map((n) => record("b", `${n}`, n, { key: "k" })))
      const latestTo = Effect.promise(() => collection(eager.db, "topics").findOne({ _id: "b" }))
      while ((yield* latestTo)?.latestTo !== 20) yield* sleep(5)
    })
  )

  it.live("a batch costs a constant number of commands", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const { client, store } = yield* hub({}, undefined, { client: { monitorCommands: true } })
      const commands: Array<string> = []
      client.on("commandStarted", ({ commandName }) => commands.push(commandName))
      const counted = (events: ReadonlyArray<Event.EventRecord>) =>
        Effect.map(store.append(events), () => commands.splice(0).sort())
      yield* counted(records("a", 1))
      expect(yield* counted(records("a", 500, 2))).toEqual(["findAndModify", "insert"])
      const topics = upTo(30).map((n) => `b.${n}`)
      yield* counted(topics.map((topic) => record(topic, "1")))
      expect(yield* counted(topics.map((topic) => record(topic, "2")))).toEqual([
        "find",
        ...topics.map(() => "insert"),
        "update"
      ])
      // What the log holds already: the insert that says so, the ids, the topic, and its end.
      expect(yield* counted(records("a", 500, 2))).toEqual(["find", "find", "find", "insert"])
    })
  )

  it.live("a restore that died is not there, and the next who meets its topic clears it away", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const { db, store } = yield* hub({ patienceMs: 200 })
      const dead = (topic: string, until: Date) =>
        Effect.promise(async () => {
          await collection(db, "events").insertMany(
            records(topic, 5).map(({ body, id }, i) => ({
              _id: { topic, seq: 41 + i },
              topic,
              id,
              body,
              storedAt: 100
            }))
          )
          await collection(db, "topics").insertOne({
            _id: topic,
            head: 0,
            storedAt: 0,
            floor: 0,
            latestTo: 0,
            trimmedTo: 0,
            grownAt: new Date(0),
            restoring: { token: "dead", until, from: 41, to: 60 }
          })
        })
      yield* dead("a", new Date(0))
      yield* dead("b", new Date(0))
      yield* dead("c", new Date(Date.now() + 3_600_000))
      for (const topic of ["a", "b", "c"]) {
        expect(yield* store.head(topic)).toBeUndefined()
        expect(yield* store.read({ topic, after: 40, limit: 10 })).toEqual([])
        expect(yield* store.find({ topic, ids: ["e1"] })).toEqual(new Map())
        expect(yield* store.readTime({ topic, time: 0 })).toBe(0)
        expect(yield* store.trim({ topic, upTo: 99 })).toBe(0)
      }
      expect((yield* store.topics({ pattern: yield* Topic.pattern("**"), limit: 9 })).items).toEqual([])
      expect((yield* store.append(records("a", 2))).map(seqOf)).toEqual([1, 2])
      const events = records("b", 3).map((item) => ({ ...item, storedAt: 7 }))
      yield* store.restore({ topic: "b", firstSeq: 1, events })
      expect((yield* readAll(store, "b")).map(({ seq }) => seq)).toEqual([1, 2, 3])
      // Whoever restores this one is alive.
      expect(yield* Effect.flip(store.append(records("c", 1)))).toMatchObject({ _tag: "StoreUnavailable" })
      const [open, refused] = yield* store.append([record("a", "x"), record("c", "x")])
      expect(seqOf(open)).toBe(3)
      expect(refused).toMatchObject({ _tag: "NotAppended", reason: "unavailable" })
      const again = store.restore({ topic: "c", firstSeq: 1, events: [{ ...record("c", "1"), storedAt: 1 }] })
      expect(yield* Effect.flip(again)).toMatchObject({ _tag: "StoreUnavailable" })
    })
  )

  it.live("a restore and appends at the same moment: one of them is first, and nothing is lost", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const [one, other] = [(yield* hub()).store, (yield* hub()).store]
      yield* Effect.forEach(upTo(20), (n) =>
        Effect.gen(function* () {
          const topic = `t${n}`
          const firstSeq = n % 2 === 0 ? 1 : 41
          const old = upTo(20).map((i) => ({ ...record(topic, `old${i}`), storedAt: i }))
          const news = upTo(5).map((i) => record(topic, `new${i}`))
          const wait = Effect.promise(() => delay((n % 5) * 2))
          const [restored, results] = yield* Effect.all(
            [
              Effect.andThen(wait, Effect.exit(one.restore({ topic, firstSeq, events: old }))),
              other.append(news)
            ],
            { concurrency: "unbounded" }
          )
          const all = (yield* readAll(one, topic)).map(({ id, seq }) => [id, seq])
          if (Exit.isSuccess(restored)) {
            const ids = [...old, ...news].map(({ id }) => id)
            expect(all).toEqual(ids.map((id, i) => [id, firstSeq + i]))
          } else {
            expect(Cause.squash(restored.cause)).toMatchObject({ _tag: "TopicExists" })
            expect(all).toEqual(news.map(({ id }, i) => [id, i + 1]))
          }
          expect(results.map(seqOf)).toEqual(all.slice(-5).map(([, seq]) => seq))
        })
      )
    })
  )

  const tellsOthers = (title: string, wrap: (database: Database) => Database) =>
    it.live(title, () =>
      Effect.gen(function* () {
        const hub = yield* makeHubs
        const { store } = yield* hub({}, wrap)
        const other = (yield* hub()).store
        const heads = new Map<string, number>()
        const listening = yield* Effect.forkChild(
          Stream.runForEach(store.changes, (grown) =>
            Effect.sync(() => {
              for (const { head, topic } of grown) heads.set(topic, head)
            })
          ),
          { startImmediately: true }
        )
        for (const n of upTo(5)) {
          yield* other.append([record("a", `${n}`), record(`b.${n}`, "1")])
          while (heads.get("a") !== n || heads.get(`b.${n}`) !== 1) yield* sleep(2)
        }
        // What this hub appends by itself is no news to it.
        yield* store.append([record("mine", "1")])
        yield* other.append([record("a", "6")])
        while (heads.get("a") !== 6) yield* sleep(2)
        expect(heads.has("mine")).toBe(false)
        yield* Fiber.interrupt(listening)
      })
    )

  tellsOthers("tells what another hub appended", (base) => base)

  /** A database of this name has no stream, on any server. */
  const failing = (base: Database): Database => ({
    ...base,
    features: { ...base.features, changeStreams: true },
    db: base.client.db("$none")
  })

  tellsOthers("tells it also where the change stream fails", failing)

  it.live("counts the failures of a change stream", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const before = (yield* Metric.value(streamFailures)).count
      const { store } = yield* hub({ retryStreamMs: 20 }, failing)
      const listening = yield* Effect.forkChild(Stream.runDrain(store.changes), { startImmediately: true })
      while ((yield* Metric.value(streamFailures)).count < before + 2) yield* sleep(5)
      yield* Fiber.interrupt(listening)
    })
  )

  /** A way to the server that can be cut. */
  const makeWire = Effect.gen(function* () {
    const { hostname, port } = new URL(url)
    const sockets = new Set<Socket>()
    let isCut = false
    const server = createServer((near) => {
      if (isCut) return near.destroy()
      const far = connect(Number(port), hostname)
      for (const [from, to] of [
        [near, far],
        [far, near]
      ] as const) {
        sockets.add(from)
        from.on("error", () => {})
        from.on("close", () => to.destroy())
        from.pipe(to)
      }
    })
    yield* Effect.acquireRelease(
      Effect.promise(() => new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening))),
      () =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          server.close()
        })
    )
    const address = server.address()
    if (address === null || typeof address === "string") throw new Error("the proxy has no port")
    return {
      through: (own: string) => own.replace(`${hostname}:${port}`, `127.0.0.1:${address.port}`),
      cut: () => {
        isCut = true
        for (const socket of sockets) socket.destroy()
        sockets.clear()
      },
      mend: () => void (isCut = false)
    }
  })

  it.live("fails with StoreUnavailable while the server is away, and goes on when it is back", () =>
    Effect.gen(function* () {
      const hub = yield* makeHubs
      const wire = yield* makeWire
      const { store } = yield* hub({}, undefined, {
        url: wire.through,
        serverSelectionTimeoutMs: 500,
        socketTimeoutMs: 1_000
      })
      yield* store.append(records("a", 3))
      wire.cut()
      // Each ends by itself: this test has no time-out of its own but the runner's.
      const failures = yield* Effect.all(
        [
          Effect.flip(store.append(records("a", 2, 4))),
          Effect.flip(store.read({ topic: "a", after: 0, limit: 1 })),
          Effect.flip(store.head("a")),
          Effect.flip(store.trim({ topic: "a", upTo: 1 }))
        ],
        { concurrency: "unbounded" }
      )
      expect(failures.map((failure) => failure._tag)).toEqual(failures.map(() => "StoreUnavailable"))
      wire.mend()
      // The driver looks for the server at times of its own.
      const again = store.append(records("a", 4, 2)).pipe(Effect.retry({ schedule: Schedule.spaced(20) }))
      expect((yield* again).map(seqOf)).toEqual([2, 3, 4, 5])
      expect((yield* readAll(store, "a")).map(({ id }) => id)).toEqual(["e1", "e2", "e3", "e4", "e5"])
    })
  )
})
