/** What the Inspector asks of the stores: the same at any number of events, and no more than it answers. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { deadLetterTopic } from "../../../src/domain/DeadLetter.ts"
import * as Group from "../../../src/domain/Group.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as StoreInspector from "../../../src/layers/core/StoreInspector.ts"
import { Inspector } from "../../../src/services/Inspector.ts"
import { record } from "../../../src/testing/eventStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

const layer = StoreInspector.layer().pipe(Layer.provideMerge(TestStores.layer()))

const topic = "orders"

const entry = {
  attempt: 1,
  unanswered: 0,
  member: "m",
  key: undefined,
  since: 0,
  reason: "",
  letter: undefined
} satisfies Group.Entry

/** A group that has acknowledged everything up to `floor`. */
const reach = (trouble: Trouble["Service"], group: string, floor: number) =>
  trouble.groups.modify({ group, topic }, () => [undefined, Group.initial("g", floor)])

const register = (
  { groups, log }: Trouble["Service"],
  group: string,
  more: { readonly pattern?: string; readonly history?: string; readonly keyOrdered?: boolean } = {}
) =>
  Effect.flatMap(log.history, (history) =>
    groups.register({
      group,
      pattern: more.pattern ?? topic,
      wanted: more.keyOrdered === undefined ? {} : { keyOrdered: more.keyOrdered },
      defaults: Settings.groups,
      history: more.history ?? history,
      generation: "g",
      positions: new Map()
    })
  )

const append = ({ log }: Trouble["Service"], from: number, to: number, keys: number) =>
  log.append(
    Array.from({ length: to - from + 1 }, (_, i) =>
      record(topic, `id-${from + i}`, from + i, { key: `key-${(from + i) % keys}` })
    )
  )

describe("the calls that it makes to the stores", () => {
  /** What one question leads to, with everything that could grow with the topic. */
  const asked = <A, E>(events: number, question: (inspector: Inspector["Service"]) => Effect.Effect<A, E>) =>
    Effect.gen(function* () {
      const trouble = yield* Trouble
      for (let seq = 1; seq <= events; seq += 1_000) {
        yield* append(trouble, seq, Math.min(events, seq + 999), 50)
      }
      // Far behind, at the end, with something acknowledged out of order, and never there.
      for (const group of ["behind", "done", "scattered", "unmet"]) yield* register(trouble, group)
      yield* reach(trouble, "behind", 1)
      yield* reach(trouble, "done", events)
      yield* trouble.groups.modify({ group: "scattered", topic }, () => [
        undefined,
        {
          ...Group.initial("g", 2),
          next: events + 1,
          waiting: new Map([3, events].map((seq) => [seq, { ...entry, notBefore: 0 }]))
        }
      ])
      const before = trouble.calls.length
      yield* question(yield* Inspector)
      return trouble.calls.slice(before).map(({ args, operation }) => {
        const [range] = args as ReadonlyArray<{ readonly limit?: number } | undefined>
        return range?.limit === undefined ? operation : `${operation} limit ${range.limit}`
      })
    }).pipe(Effect.provide(Layer.fresh(layer)))

  const questions = {
    "/lag of a group far behind": (inspector) => inspector.lag({ topic, group: "behind" }),
    "/lag of a group at the end": (inspector) => inspector.lag({ topic, group: "done" }),
    "/lag of a group with a hole": (inspector) => inspector.lag({ topic, group: "scattered" }),
    "/lag of a group that was never there": (inspector) => inspector.lag({ topic, group: "unmet" }),
    "/cursors": (inspector) => inspector.cursors({ topic, limit: 100 }),
    "/latest-by-key of one": (inspector) => inspector.latestOf({ topic, keys: ["key-7"] }),
    "/latest-by-key of several": (inspector) => inspector.latestOf({ topic, keys: ["key-7", "key-8", "x"] }),
    "/latest-by-key, a page": (inspector) => inspector.latestByKey({ topic, limit: 10 })
  } satisfies Record<string, (inspector: Inspector["Service"]) => Effect.Effect<unknown, unknown>>

  for (const [name, question] of Object.entries<
    (inspector: Inspector["Service"]) => Effect.Effect<unknown, unknown>
  >(questions)) {
    it.effect(`${name}: the same for 10 events as for 20,000, and no read of more than is answered`, () =>
      Effect.gen(function* () {
        const few = yield* asked(10, question)
        const many = yield* asked(20_000, question)
        expect(many).toEqual(few)
        expect(few.length).toBeGreaterThan(0)
        expect(few.length).toBeLessThanOrEqual(10)
        for (const call of few.filter((one) => one.split(" ")[0] === "EventStore.read")) {
          expect(call).toBe("EventStore.read limit 1")
        }
      })
    )
  }
})

it.effect("a group that goes on while it is looked at is never shown as done", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* register(trouble, "busy")
    yield* append(trouble, 1, 1, 1)
    yield* reach(trouble, "busy", 0)
    /** Between any two calls of the question, more comes in than the group gets done. */
    const meanwhile =
      (seq: number) => (_args: ReadonlyArray<unknown>, run: Effect.Effect<unknown, unknown>) =>
        Effect.gen(function* () {
          const answer = yield* run
          yield* append(trouble, seq + 1, seq + 3, 1)
          yield* reach(trouble, "busy", seq + 2)
          return answer
        })
    const read = ["GroupStore.read", "GroupStore.cursors", "EventStore.head"]
    read.forEach((operation, i) => trouble.next(operation, meanwhile(1 + 3 * i)))
    expect(yield* inspector.lag({ topic, group: "busy" })).not.toMatchObject({ pending: 0 })
    read.forEach((operation, i) => trouble.next(operation, meanwhile(20 + 3 * i)))
    const [cursor] = (yield* inspector.cursors({ topic, limit: 100 })).items
    expect(cursor?.pending).toBeGreaterThan(0)
  }).pipe(Effect.provide(layer))
)

it.effect("dead letters that were trimmed are not counted any more", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* register(trouble, "g")
    yield* append(trouble, 1, 5, 1)
    yield* reach(trouble, "g", 5)
    const letters = deadLetterTopic("g", topic)
    yield* trouble.log.append([1, 2, 3].map((n) => record(letters, `dead-${n}`)))
    expect((yield* inspector.lag({ topic, group: "g" })).dead).toBe(3)
    yield* trouble.log.trim({ topic: letters, upTo: 2 })
    expect((yield* inspector.lag({ topic, group: "g" })).dead).toBe(1)
  }).pipe(Effect.provide(layer))
)

it.effect("dead letters that came back are not dead any more", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* register(trouble, "g")
    yield* append(trouble, 1, 5, 1)
    yield* trouble.log.append([1, 2, 3, 4].map((n) => record(deadLetterTopic("g", topic), `dead-${n}`)))
    yield* trouble.groups.modify({ group: "g", topic }, () => [
      undefined,
      {
        ...Group.initial("g", 5),
        waiting: new Map([[3, { ...entry, letter: 3, notBefore: 0 }]]),
        redrive: { plans: [], letters: [[2, 3]] }
      }
    ])
    expect(yield* inspector.lag({ topic, group: "g" })).toMatchObject({
      dead: 2,
      redriven: 1,
      waiting: 1,
      pending: 0
    })
  }).pipe(Effect.provide(layer))
)

describe("why a group is stalled", () => {
  const stalled = (group: string) =>
    Effect.gen(function* () {
      const inspector = yield* Inspector
      return (yield* inspector.lag({ topic, group })).stalled
    })

  it.effect("somebody paused it, until somebody lets it go on", () =>
    Effect.gen(function* () {
      const trouble = yield* Trouble
      yield* register(trouble, "g")
      yield* append(trouble, 1, 5, 1)
      expect(yield* stalled("g")).toBeNull()
      yield* trouble.groups.setPaused("g", true)
      expect(yield* stalled("g")).toBe("paused")
      yield* trouble.groups.setPaused("g", false)
      expect(yield* stalled("g")).toBeNull()
    }).pipe(Effect.provide(layer))
  )

  it.effect("the store was put back, or is another one; a pattern of this life is enough", () =>
    Effect.gen(function* () {
      const trouble = yield* Trouble
      yield* register(trouble, "foreign", { history: "another" })
      yield* register(trouble, "ahead")
      yield* append(trouble, 1, 5, 1)
      yield* reach(trouble, "ahead", 6)
      expect([yield* stalled("foreign"), yield* stalled("ahead")]).toEqual(["history", "history"])
      yield* append(trouble, 6, 6, 1)
      expect(yield* stalled("ahead")).toBeNull()
      yield* register(trouble, "foreign", { pattern: "elsewhere" })
      expect(yield* stalled("foreign")).toBe("history")
      yield* register(trouble, "foreign", { pattern: "**" })
      expect(yield* stalled("foreign")).toBeNull()
    }).pipe(Effect.provide(layer))
  )
})

it.effect("how fast events come in, and when a group has caught up", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* register(trouble, "g")
    yield* append(trouble, 1, 50, 1)
    const lag = inspector.lag({ topic, group: "g" })
    // A new topic is measured over its life.
    yield* TestClock.adjust(10_000)
    expect(yield* lag).toMatchObject({ arrivalPerSecond: 5, ratePerSecond: null, catchUpMs: null })
    yield* trouble.groups.modify({ group: "g", topic }, () => [
      undefined,
      { ...Group.initial("g", 30), pace: [{ at: 0, done: 0 }] }
    ])
    expect(yield* lag).toMatchObject({ arrivalPerSecond: 5, ratePerSecond: 3, catchUpMs: null })
    yield* TestClock.adjust(20_001)
    yield* append(trouble, 51, 80, 1)
    expect(yield* lag).toMatchObject({ arrivalPerSecond: 1, pending: 50 })
    yield* trouble.groups.modify({ group: "g", topic }, () => [
      undefined,
      { ...Group.initial("g", 70), pace: [{ at: 20_001, done: 40 }] }
    ])
    expect(yield* lag).toMatchObject({ arrivalPerSecond: 1, ratePerSecond: 3, pending: 10, catchUpMs: 5_000 })
    yield* TestClock.adjust(60_000)
    expect(yield* lag).toMatchObject({ arrivalPerSecond: 0 })
  }).pipe(Effect.provide(layer))
)

it.effect("keys are blocked only in a group that keeps their order", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* append(trouble, 1, 5, 1)
    yield* register(trouble, "ordered", { keyOrdered: true })
    yield* register(trouble, "free")
    for (const group of ["ordered", "free"]) {
      yield* trouble.groups.modify({ group, topic }, () => [
        undefined,
        {
          ...Group.initial("g", 0),
          next: 6,
          waiting: new Map([[1, { ...entry, key: "key-0", notBefore: 0 }]]),
          deferred: new Map([["key-0", { seqs: [2], from: 3, unlisted: 3 }]])
        }
      ])
    }
    expect(yield* inspector.lag({ topic, group: "ordered" })).toMatchObject({ blockedKeys: 1, deferred: 4 })
    expect(yield* inspector.lag({ topic, group: "free" })).toMatchObject({ blockedKeys: 0 })
  }).pipe(Effect.provide(layer))
)

it.effect("a cursor at an event that was trimmed has its seq, and no event", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* register(trouble, "g")
    yield* append(trouble, 1, 5, 1)
    yield* reach(trouble, "g", 2)
    yield* trouble.log.trim({ topic, upTo: 3 })
    expect(yield* inspector.cursors({ topic, limit: 100 })).toMatchObject({
      items: [{ seq: 2, lastId: null, lastTs: null, pending: 3 }]
    })
    expect(yield* inspector.lag({ topic, group: "g" })).toMatchObject({ lastCursor: null, pending: 3 })
  }).pipe(Effect.provide(layer))
)

it.effect(
  "cursors come in pages by the name of the group, met or not, and only those of a page are looked up",
  () =>
    Effect.gen(function* () {
      const trouble = yield* Trouble
      const inspector = yield* Inspector
      yield* append(trouble, 1, 5, 1)
      for (const group of ["d", "b", "a", "c", "e"]) yield* register(trouble, group)
      for (const group of ["d", "a"]) yield* reach(trouble, group, 2)
      let reads = 0
      const pages: Array<ReadonlyArray<string>> = []
      let after: string | undefined
      do {
        for (let i = 0; i < 2; i++) {
          trouble.next("EventStore.read", (_args, run) => Effect.tap(run, () => Effect.sync(() => reads++)))
        }
        const page = yield* inspector.cursors({ topic, limit: 2, ...(after === undefined ? {} : { after }) })
        pages.push(page.items.map(({ group, seq }) => `${group}${seq}`))
        after = page.next
      } while (after !== undefined)
      expect(pages).toEqual([["a2", "b0"], ["c0", "d2"], ["e0"]])
      expect(reads).toBe(5)
      expect(yield* inspector.cursors({ topic, limit: 2, after: "e" })).toEqual({
        items: [],
        next: undefined
      })
    }).pipe(Effect.provide(layer))
)

it.effect("a page of keys tells the seq from before it was read, so that nothing is between them", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* append(trouble, 1, 3, 3)
    trouble.next("EventStore.latestByKey", (_args, run) => Effect.andThen(append(trouble, 4, 4, 3), run))
    const { items, seq } = yield* inspector.latestByKey({ topic, limit: 10 })
    expect(seq).toBe(3)
    expect(items.map((event) => event.seq)).toContain(4)
  }).pipe(Effect.provide(layer))
)

it.effect("a store that does not answer is told as that", () =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const inspector = yield* Inspector
    yield* append(trouble, 1, 3, 3)
    trouble.setOutage("EventStore")
    expect(yield* Effect.flip(inspector.cursors({ topic, limit: 1 }))).toMatchObject({
      _tag: "StoreUnavailable"
    })
    expect(yield* Effect.flip(inspector.lag({ topic, group: "g" }))).toMatchObject({
      _tag: "StoreUnavailable"
    })
  }).pipe(Effect.provide(layer))
)
