/**
 * What holds for a consumer group in random lives of a hub: members come, answer, refuse, forget and go, the
 * stores take their time and fail, and the hub dies and starts again over the same stores.
 */
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, References, Result, Scope } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import * as DeadLetter from "../../../src/domain/DeadLetter.ts"
import * as Event from "../../../src/domain/Event.ts"
import type * as Group from "../../../src/domain/Group.ts"
import * as GroupRedrive from "../../../src/domain/GroupRedrive.ts"
import * as Ranges from "../../../src/domain/Ranges.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as GroupDispatcher from "../../../src/layers/core/GroupDispatcher.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { type Answer, GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { record } from "../../../src/testing/eventStore.ts"
import { Consumer } from "./Consumer.ts"
import * as TestStores from "./TestStores.ts"
import { type Fault, Trouble } from "./TestStores.ts"

const topics = ["a.x", "a.y"] as const

type Step =
  | { readonly _tag: "Publish"; readonly topic: string; readonly keys: ReadonlyArray<string> }
  | { readonly _tag: "PublishElsewhere"; readonly topic: string; readonly keys: ReadonlyArray<string> }
  | { readonly _tag: "Join" }
  | { readonly _tag: "Go"; readonly member: number; readonly graceful: boolean }
  | { readonly _tag: "Ack"; readonly member: number; readonly count: number; readonly last: boolean }
  | { readonly _tag: "Nack"; readonly member: number; readonly mode: "fail" | "release" | "poison" }
  | { readonly _tag: "Extend"; readonly member: number }
  | { readonly _tag: "Pause"; readonly member: number; readonly paused: boolean }
  | { readonly _tag: "PauseGroup"; readonly paused: boolean }
  | { readonly _tag: "Redrive"; readonly topic: string; readonly key: string | undefined }
  | { readonly _tag: "Fail"; readonly operation: string; readonly faults: ReadonlyArray<Fault> }
  | { readonly _tag: "Restart"; readonly crash: boolean }
  | { readonly _tag: "Wait"; readonly ms: number }

const topic = fc.constantFrom(...topics)
const keys = fc.array(fc.constantFrom("", "k", "l"), { minLength: 1, maxLength: 4 })
const member = fc.nat(3)
const tagged = <T extends Step["_tag"], A>(tag: T, fields: { [K in keyof A]: fc.Arbitrary<A[K]> }) =>
  fc.record({ _tag: fc.constant(tag), ...fields }) as fc.Arbitrary<{ readonly _tag: T } & A>

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: tagged("Publish", { topic, keys }) },
  { weight: 1, arbitrary: tagged("PublishElsewhere", { topic, keys }) },
  { weight: 3, arbitrary: tagged("Join", {}) },
  { weight: 2, arbitrary: tagged("Go", { member, graceful: fc.boolean() }) },
  {
    weight: 8,
    arbitrary: tagged("Ack", { member, count: fc.integer({ min: 1, max: 4 }), last: fc.boolean() })
  },
  {
    weight: 3,
    arbitrary: tagged("Nack", { member, mode: fc.constantFrom("fail", "release", "poison") })
  },
  { weight: 1, arbitrary: tagged("Extend", { member }) },
  { weight: 1, arbitrary: tagged("Pause", { member, paused: fc.boolean() }) },
  { weight: 1, arbitrary: tagged("PauseGroup", { paused: fc.boolean() }) },
  { weight: 2, arbitrary: tagged("Redrive", { topic, key: fc.constantFrom(undefined, "k") }) },
  {
    weight: 2,
    arbitrary: tagged("Fail", {
      operation: fc.constantFrom("GroupStore.modify", "EventStore.append", "EventStore.read"),
      faults: fc.array(fc.constantFrom<Fault>("fail", "fail after"), { minLength: 1, maxLength: 2 })
    })
  },
  { weight: 1, arbitrary: tagged("Restart", { crash: fc.boolean() }) },
  { weight: 10, arbitrary: tagged("Wait", { ms: fc.oneof(fc.nat(10), fc.nat(150)) }) }
)

const life = fc.record({
  steps: fc.array(step, { minLength: 10, maxLength: 80 }),
  paces: fc.array(fc.tuple(fc.nat(3), fc.nat(3)), { minLength: 1, maxLength: 10 }),
  credit: fc.integer({ min: 1, max: 5 }),
  maxAttempts: fc.integer({ min: 1, max: 6 }),
  keyOrdered: fc.boolean(),
  window: fc.constantFrom(3, 10_000)
})

type Life = typeof life extends fc.Arbitrary<infer A> ? A : never

/** What became of the events, as members and publishers know it. */
class Ledger {
  /** Acknowledged, and told so. */
  readonly acked = new Set<string>()
  /** Acknowledgements that nobody knows the fate of, by event. */
  readonly unsure = new Map<string, number>()
  readonly broken: Array<string> = []
  readonly #maxAttempts: number
  readonly #firsts = new Map<string, number>()

  constructor(maxAttempts: number) {
    this.#maxAttempts = maxAttempts
  }

  /** A member of the group that does nothing by itself. */
  consumer(
    credit: number,
    options: { readonly keyOrdered: boolean; readonly maxAttempts: number }
  ): Consumer {
    const consumer = new Consumer({ pattern: "a.*", from: "start", credit, options })
    consumer.handle = ({ attempt, record }) => {
      const { id, key, seq, topic } = record
      if (this.acked.has(id)) this.broken.push(`${id} came after it was acknowledged`)
      if (attempt > this.#maxAttempts) this.broken.push(`${id} came for the ${attempt}th time`)
      // Back from the dead letters, it takes no place in the log.
      const isRedriven = Event.decode(record).headers?.[DeadLetter.headers.letter] !== undefined
      if (options.keyOrdered && key !== undefined && attempt === 1 && !isRedriven) {
        const before = this.#firsts.get(`${topic} ${key}`) ?? 0
        if (seq < before) this.broken.push(`${id} of key ${key} came after ${before}`)
        this.#firsts.set(`${topic} ${key}`, Math.max(before, seq))
      }
    }
    return consumer
  }

  ack(consumer: Consumer, topic: string, ids: ReadonlyArray<string>): void {
    for (const id of ids) this.unsure.set(id, (this.unsure.get(id) ?? 0) + 1)
    consumer.member.answer({ _tag: "Ack", topic, ids }, (outcomes) => {
      if ("_tag" in outcomes) return
      ids.forEach((id, i) => {
        this.unsure.set(id, this.unsure.get(id)! - 1)
        if (outcomes[i] !== "stale") this.acked.add(id)
      })
    })
  }
}

const ackTimeoutMs = 100

const live = ({ credit, keyOrdered, maxAttempts, paces, steps, window }: Life) =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    const ledger = new Ledger(maxAttempts)
    let made = 0
    let called = 0
    trouble.setPace(() => paces[called++ % paces.length]!)

    interface Hub {
      readonly context: Context.Context<GroupDelivery | Appender>
      readonly scope: Scope.Closeable
      readonly members: Array<{ readonly consumer: Consumer; readonly scope: Scope.Closeable }>
    }

    const start = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const layer = GroupDispatcher.layer({
        ...Settings.groups,
        ackTimeoutMs,
        window,
        // The time that the stores take does not pass while a hub stops.
        departMs: 0,
        backoff: { baseMs: 20, maxMs: 100 }
      }).pipe(Layer.provideMerge(GroupCommitAppender.layer()))
      const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
      return { context, scope, members: [] } satisfies Hub as Hub
    })

    const stop = ({ members, scope }: Hub) =>
      Effect.gen(function* () {
        const closed = yield* Effect.forkChild(
          Effect.gen(function* () {
            for (const one of members) yield* Scope.close(one.scope, Exit.void)
            yield* Scope.close(scope, Exit.void)
          })
        )
        while (closed.pollUnsafe() === undefined) yield* TestClock.adjust(10)
      })

    const join = (hub: Hub, more: Partial<{ readonly credit: number }> = {}) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const consumer = ledger.consumer(more.credit ?? credit, { keyOrdered, maxAttempts })
        const joining = consumer.join.pipe(
          Effect.tap((member) =>
            Effect.sync(() => {
              hub.members.push({ consumer, scope })
              member.start()
            })
          ),
          Scope.provide(scope),
          Effect.provide(hub.context)
        )
        yield* Effect.forkIn(Effect.exit(joining), hub.scope)
        return consumer
      })

    const make = (topic: string, keys: ReadonlyArray<string>) =>
      keys.map((key) => record(topic, `${++made}`, null, key === "" ? {} : { key }))

    const refresh = ({ context, scope }: Hub) =>
      Effect.forkIn(Effect.exit(Context.get(context, GroupDelivery).refresh("g")), scope)

    let hub = yield* start

    const perform = (one: Step): Effect.Effect<unknown, unknown, TestStores.TestStores> => {
      switch (one._tag) {
        case "Publish": {
          const appender = Context.get(hub.context, Appender)
          for (const event of make(one.topic, one.keys)) appender.offer(event, () => {})
          return Effect.void
        }
        case "PublishElsewhere":
          return trouble.log.append(make(one.topic, one.keys)).pipe(
            Effect.andThen(trouble.log.head(one.topic)),
            Effect.flatMap((info) => trouble.announce([{ topic: one.topic, head: info!.head }]))
          )
        case "Join":
          return join(hub)
        case "Fail":
          return Effect.sync(() => trouble.next(one.operation, ...one.faults))
        case "Wait":
          return TestClock.adjust(one.ms)
        case "Restart":
          return Effect.gen(function* () {
            if (one.crash) trouble.setOutage("GroupStore")
            yield* stop(hub)
            trouble.setOutage(undefined)
            hub = yield* start
          })
        case "Go": {
          const [found] = hub.members.splice(one.member, 1)
          if (found === undefined) return Effect.void
          const goodbye = one.graceful ? found.consumer.member.leave : Effect.void
          const going = Effect.andThen(Effect.ignore(goodbye), Scope.close(found.scope, Exit.void))
          return Effect.forkIn(going, hub.scope)
        }
        case "Pause":
          return Effect.sync(() => hub.members[one.member]?.consumer.member.setPaused(one.paused))
        case "PauseGroup":
          return Effect.andThen(trouble.groups.setPaused("g", one.paused), refresh(hub))
        case "Redrive":
          return Effect.gen(function* () {
            const dead = yield* trouble.log.head(DeadLetter.deadLetterTopic("g", one.topic))
            if (dead === undefined) return
            const filter = one.key === undefined ? {} : { key: one.key }
            yield* trouble.groups.modify({ group: "g", topic: one.topic }, (state) => [
              undefined,
              Result.getOrThrow(GroupRedrive.plan(state!, { next: 1, upTo: dead.head, filter }))
            ])
            yield* refresh(hub)
          })
        case "Ack":
        case "Nack":
        case "Extend":
          return Effect.sync(() => {
            const consumer = hub.members[one.member]?.consumer
            const held = (consumer?.deliveries ?? []).filter(
              ({ record }) => consumer!.member.holds(record.topic, record.id) && !ledger.acked.has(record.id)
            )
            if (consumer === undefined || held.length === 0) return
            if (one._tag === "Ack") {
              const which = one.last ? held.slice(-one.count) : held.slice(0, one.count)
              for (const { record } of which) ledger.ack(consumer, record.topic, [record.id])
              return
            }
            const { id, topic } = held[0]!.record
            const about = { topic, ids: [id] }
            const answer: Answer =
              one._tag === "Extend"
                ? { _tag: "Extend", ...about }
                : { _tag: "Nack", ...about, mode: one.mode, reason: "no luck" }
            consumer.member.answer(answer, () => {})
          })
      }
    }

    for (const one of steps) {
      yield* perform(one)
      const states = new Map<string, Group.GroupState | undefined>()
      for (const topic of topics) states.set(topic, yield* trouble.groups.read({ group: "g", topic }))
      for (const { consumer } of hub.members) {
        const open = consumer.deliveries.filter(
          ({ attempt, record: { id, seq, topic } }) =>
            consumer.member.holds(topic, id) && states.get(topic)?.inFlight.get(seq)?.attempt === attempt
        )
        const ids = new Set(open.map(({ record }) => record.id))
        expect(ids.size, "deliveries of a member").toBeLessThanOrEqual(credit)
      }
    }

    // Peace: everybody goes, and one that does its work comes.
    trouble.setPace(() => [0, 0])
    yield* stop(hub)
    yield* trouble.groups.setPaused("g", false)
    hub = yield* start
    const worker = yield* join(hub, { credit: 3 })
    const handle = worker.handle
    worker.handle = (event) => {
      handle(event)
      ledger.ack(worker, event.record.topic, [event.record.id])
    }
    for (let i = 0; i < 50; i++) yield* TestClock.adjust(250)

    expect(ledger.broken).toEqual([])
    const registered = (yield* trouble.groups.list).length > 0
    expect(registered).toBe(true)
    for (const topic of topics) {
      const stored = yield* trouble.log.read({ topic, after: 0, limit: 10_000 })
      const state = yield* trouble.groups.read({ group: "g", topic })
      if (stored.length > 0) expect(state, `${topic}`).toMatchObject({ floor: stored.length })
      for (const entries of [state?.inFlight, state?.waiting, state?.dying, state?.deferred]) {
        expect(entries?.size ?? 0).toBe(0)
      }
      const dead = yield* trouble.log.read({
        topic: DeadLetter.deadLetterTopic("g", topic),
        after: 0,
        limit: 10_000
      })
      const deaths = dead.map((letter) => ({ letter: letter.seq, ...DeadLetter.deathOf(letter)! }))
      expect(new Set(deaths.map(({ id, redrives }) => `${id} ${redrives}`)).size).toBe(deaths.length)
      expect(state?.redrive.plans ?? []).toEqual([])
      // Whoever came back and died again has another letter.
      const buried = deaths
        .filter(({ letter }) => !Ranges.has(state!.redrive.letters, letter))
        .map(({ id }) => id)
      expect(new Set(buried).size).toBe(buried.length)
      for (const { id } of stored) {
        const isBuried = buried.includes(id)
        if (ledger.acked.has(id)) expect(isBuried, `${id} was acknowledged, and is dead`).toBe(false)
        else if ((ledger.unsure.get(id) ?? 0) === 0) expect(isBuried, `${id} is lost`).toBe(true)
      }
    }
    yield* stop(hub)
  })

describe("GroupDispatcher, whatever happens", () => {
  it("brings every event to an end: acknowledged and never again, or dead once", () =>
    fc.assert(
      fc.asyncProperty(life, (lived) =>
        live(lived).pipe(
          Effect.scoped,
          Effect.provide(TestStores.layer()),
          // The stores fail on purpose.
          Effect.provideService(References.MinimumLogLevel, "None"),
          Effect.provide(TestClock.layer()),
          Effect.runPromise
        )
      ),
      { numRuns: 1_000 }
    ))
})
