/**
 * Consumer groups at work over the stores under test: a hub's delivery that can be killed in the middle of whatever
 * it does and built again, members that can be lost with all they have, and an eye on every call of a store.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as DeadLetter from "../domain/DeadLetter.ts"
import * as Event from "../domain/Event.ts"
import type { EventRecord } from "../domain/Event.ts"
import type { GroupConflict, GroupOptions, GroupState, Outcome } from "../domain/Group.ts"
import * as Settings from "../domain/Settings.ts"
import * as Topic from "../domain/Topic.ts"
import type { EndReason, From } from "../protocol/Messages.ts"
import { Appender } from "../services/Appender.ts"
import { EventStore } from "../services/EventStore.ts"
import { GroupAdmin } from "../services/GroupAdmin.ts"
import { type Answer, GroupDelivery, type GroupEvent, type Member } from "../services/GroupDelivery.ts"
import { GroupStore } from "../services/GroupStore.ts"
import type { Ids } from "../services/Ids.ts"
import type { UnrecoverablePosition } from "../services/LiveFeed.ts"
import type { StoreUnavailable } from "../services/StoreUnavailable.ts"

export type Stores = EventStore | GroupStore | Ids

export interface GroupDeliveryCapabilities {
  /** What delivers, over the stores under test: the hub's own, or yours. */
  readonly delivery: (
    settings: Settings.GroupSettings
  ) => Layer.Layer<Appender | GroupDelivery | GroupAdmin, never, Stores>
  /**
   * Lets time pass, for the stores and for the delivery: `TestClock.adjust` where the stores read Effect's Clock,
   * else a real sleep and then `TestClock.adjust`.
   */
  readonly advance: (millis: number) => Effect.Effect<void>
  /**
   * Scales the tests in which each event waits for the one before: 1 where a write costs nothing, and about 0.02
   * where it waits for a disk.
   */
  readonly pace?: number
  /**
   * The tests may run side by side: where stores share nothing, not even a server, most of their time is waiting. Not
   * unless it is said.
   */
  readonly concurrent?: boolean
}

/** Nothing times out by itself, and what was refused comes again soon. */
const settings: Settings.GroupSettings = {
  ...Settings.groups,
  ackTimeoutMs: 600_000,
  maxAttempts: 20,
  backoff: { baseMs: 10, maxMs: 100 }
}

/**
 * The same in real time, over stores that hubs share: what a hub had that was killed is free after it. Long enough for
 * whoever is alive.
 */
const sharedTimeoutMs = 5_000

/** What the parts of the suite are made with. */
export interface Suite {
  /** In the test's time. */
  readonly test: (title: string, run: Run) => void
  /** In real time: for work that never rests. */
  readonly live: (title: string, run: Run) => void
  readonly pace: number
}

export type Run = (lab: Lab) => Effect.Effect<void, unknown, Scope.Scope>

export const pattern = (name: string): Topic.Pattern => Result.getOrThrow(Topic.parsePattern(name))

// --- members ---------------------------------------------------------------------------------------------------

export interface Wanted {
  readonly pattern?: string
  readonly group?: string
  readonly from?: From
  readonly history?: string
  readonly credit?: number
  readonly options?: Partial<GroupOptions>
}

/** A member that writes down what it gets, and answers when a test says so. */
export class TestMember {
  readonly wanted: Wanted
  readonly deliveries: Array<GroupEvent> = []
  readonly gaps: Array<{ readonly topic: string; readonly from: number; readonly to: number }> = []
  readonly ends: Array<EndReason> = []
  /** What it does with events at once. */
  handle: (events: ReadonlyArray<GroupEvent>) => void = () => {}
  /** It is gone, or its hub is: it hears and says nothing any more. */
  isLost = false
  readonly #scope: Scope.Closeable
  #member: Member | undefined

  constructor(wanted: Wanted, scope: Scope.Closeable) {
    this.wanted = wanted
    this.#scope = scope
  }

  readonly join: Effect.Effect<
    void,
    GroupConflict | UnrecoverablePosition | StoreUnavailable,
    GroupDelivery
  > = Effect.suspend(() => {
    const {
      credit = 100,
      from = "start",
      group = "g",
      history,
      options = {},
      pattern: name = "a"
    } = this.wanted
    return GroupDelivery.use((delivery) =>
      delivery.join({
        pattern: pattern(name),
        group,
        wanted: options,
        from,
        history,
        credit,
        sink: {
          deliver: (events) => {
            if (this.isLost) return
            this.deliveries.push(...events)
            this.handle(events)
          },
          gap: (gap) => this.gaps.push(gap),
          end: (reason) => this.ends.push(reason)
        }
      })
    ).pipe(
      Scope.provide(this.#scope),
      Effect.map((member) => {
        this.#member = member
        member.start()
      })
    )
  })

  get member(): Member {
    if (this.#member === undefined) throw new Error("it has not joined")
    return this.#member
  }

  /** `id#attempt` of everything that came, in its order. */
  get story(): ReadonlyArray<string> {
    return this.deliveries.map(({ attempt, record }) => `${record.id}#${attempt}`)
  }

  get ids(): ReadonlyArray<string> {
    return this.deliveries.map(({ record }) => record.id)
  }

  /** What it has in hand. */
  get held(): ReadonlyArray<string> {
    const held = this.deliveries.filter(({ record }) => this.member.holds(record.topic, record.id))
    return [...new Set(held.map(({ record }) => record.id))]
  }

  answer(answer: Answer): Effect.Effect<ReadonlyArray<Outcome>, StoreUnavailable> {
    return Effect.callback((resume) => {
      this.member.answer(answer, (outcomes) =>
        resume("_tag" in outcomes ? Effect.fail(outcomes) : Effect.succeed(outcomes))
      )
    })
  }

  get #topic(): string {
    return this.wanted.pattern ?? "a"
  }

  ack(...ids: ReadonlyArray<string>) {
    return this.answer({ _tag: "Ack", topic: this.#topic, ids })
  }

  nack(id: string, more: Partial<Extract<Answer, { readonly _tag: "Nack" }>> = {}) {
    return this.answer({
      _tag: "Nack",
      topic: this.#topic,
      ids: [id],
      mode: "fail",
      reason: "no luck",
      ...more
    })
  }

  extend(id: string, byMs: number) {
    return this.answer({ _tag: "Extend", topic: this.#topic, ids: [id], byMs })
  }

  get leave() {
    return this.member.leave
  }

  /** It is gone without a goodbye, with all it has. */
  readonly disconnect: Effect.Effect<void> = Effect.suspend(() => {
    this.isLost = true
    return Scope.close(this.#scope, Exit.void)
  })
}

// --- stores, watched ---------------------------------------------------------------------------------------------

/** A change of a group's state that was made durable. */
export interface Change {
  readonly before: GroupState | undefined
  readonly after: GroupState
}

/** One hub's way to the stores. */
interface Way {
  /** Its hub is killed: what was asked for may still be done, and nobody hears of it. */
  isShut: boolean
  /** Calls under way. */
  open: number
  /** Calls that began. */
  calls: number
}

const watched = <S extends object>(service: S, way: Way, instead: Partial<S> = {}): S => {
  const watch = <A, E>(call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      if (way.isShut) return Effect.never
      way.open++
      way.calls++
      return Effect.exit(call).pipe(
        Effect.ensuring(Effect.sync(() => way.open--)),
        Effect.flatMap((exit) => (way.isShut ? Effect.never : exit))
      )
    })
  const members = (Object.entries({ ...service, ...instead }) as ReadonlyArray<[string, unknown]>).map(
    ([name, value]) => {
      if (Effect.isEffect(value)) return [name, watch(value as Effect.Effect<unknown, unknown>)]
      if (typeof value !== "function") return [name, value]
      return [name, (...args: ReadonlyArray<unknown>) => watch(value(...args))]
    }
  )
  return Object.fromEntries(members) as S
}

// --- the delivery ------------------------------------------------------------------------------------------------

/** One life of a hub's delivery. */
export interface Life {
  readonly appender: Appender["Service"]
  readonly delivery: GroupDelivery["Service"]
  readonly admin: GroupAdmin["Service"]
  readonly join: (
    wanted?: Wanted,
    handle?: (member: TestMember) => (events: ReadonlyArray<GroupEvent>) => void
  ) => Effect.Effect<TestMember, GroupConflict | UnrecoverablePosition | StoreUnavailable>
  /** Appends through the hub, as its publishers do. */
  readonly publish: (records: ReadonlyArray<EventRecord>) => Effect.Effect<void, unknown>
  /** The end as by SIGKILL: nothing is done any more, whatever was under way, and nobody hears of anything. */
  readonly kill: Effect.Effect<void>
}

/** Events that are appended at once. */
const batchSize = 1_000

/** So many turns without a call of a store mean that nothing will happen before time passes. */
const quietTurns = 3

/** How long the stores get, in real milliseconds, before anybody looks again. */
const turnMs = 1

/** A test that waits for longer, in real time, waits for what will not come. */
const patienceMs = 280_000

/** In real time, whichever clock a test has. */
const realTurn: Effect.Effect<void> = Effect.callback((resume) => {
  const timer = setTimeout(() => resume(Effect.void), turnMs)
  return Effect.sync(() => clearTimeout(timer))
})

export class Lab {
  /** The stores themselves, beside any hub. */
  readonly log: EventStore["Service"]
  readonly groups: GroupStore["Service"]
  /** What hubs did to the states of groups. */
  onChange: (change: Change) => void = () => {}
  /** A dead letter is durable. */
  onBuried: (id: string) => void = () => {}
  /** What comes before dead letters are appended, and between that and the hub's hearing of it. */
  beforeLetters: Effect.Effect<void> = Effect.void
  afterLetters: Effect.Effect<void> = Effect.void
  /** Dead letters that were appended although they stood there. */
  lettersAgain = 0
  readonly #context: Context.Context<Stores>
  readonly #capabilities: GroupDeliveryCapabilities
  readonly #advance: (millis: number) => Effect.Effect<void>
  readonly #settings: Settings.GroupSettings
  readonly #lives = new Set<Life>()
  readonly #ways = new Set<Way>()

  /** `live`: time passes by itself. */
  constructor(context: Context.Context<Stores>, capabilities: GroupDeliveryCapabilities, live: boolean) {
    this.log = Context.get(context, EventStore)
    this.groups = Context.get(context, GroupStore)
    this.#context = context
    this.#capabilities = capabilities
    this.#advance = live ? () => Effect.void : capabilities.advance
    this.#settings =
      live && !this.groups.exclusive ? { ...settings, ackTimeoutMs: sharedTimeoutMs } : settings
  }

  // --- time ----------------------------------------------------------------------------------------------------

  /** The stores get time for what is under way; then time passes. */
  readonly turn = (millis: number): Effect.Effect<void> =>
    Effect.andThen(realTurn, millis > 0 ? this.#advance(millis) : Effect.void)

  /** Lets time pass until something holds. */
  until<E = never>(
    what: () => string,
    holds: Effect.Effect<boolean, E> | (() => boolean),
    stepMs = 5
  ): Effect.Effect<void, E> {
    const isSo = Effect.isEffect(holds) ? holds : Effect.sync(holds)
    return Effect.gen({ self: this }, function* () {
      const end = performance.now() + patienceMs
      while (!(yield* isSo)) {
        if (performance.now() > end) return yield* Effect.die(new Error(`waited in vain: ${what()}`))
        yield* this.turn(stepMs)
      }
    })
  }

  /** Whatever can happen before time passes has happened. */
  readonly settled: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    let quiet = 0
    let known = -1
    while (quiet < quietTurns) {
      yield* this.turn(0)
      const calls = [...this.#ways].reduce((sum, way) => sum + way.calls, 0)
      const isOpen = [...this.#ways].some((way) => way.open > 0)
      quiet = isOpen || calls !== known ? 0 : quiet + 1
      known = calls
    }
  })

  /** Time passes, in steps, and what follows from it happens. */
  pass(millis: number, stepMs = 10): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      for (let left = millis; left > 0; left -= stepMs) {
        yield* this.#advance(Math.min(stepMs, left))
        yield* this.settled
      }
    })
  }

  // --- lives ---------------------------------------------------------------------------------------------------

  /** A hub begins to deliver, over whatever the ones before it left. */
  readonly start = (more: Partial<Settings.GroupSettings> = {}): Effect.Effect<Life> =>
    Effect.gen({ self: this }, function* () {
      const way: Way = { isShut: false, open: 0, calls: 0 }
      const scope = yield* Scope.make()
      const members = new Set<TestMember>()
      const stores = this.#context.pipe(
        Context.add(EventStore, watched(this.log, way, { append: this.#append })),
        Context.add(GroupStore, watched(this.groups, way, { modify: this.#modify }))
      )
      const context = yield* Layer.fresh(this.#capabilities.delivery({ ...this.#settings, ...more })).pipe(
        Layer.provide(Layer.succeedContext(stores)),
        Layer.buildWithScope(scope)
      )
      const appender = Context.get(context, Appender)
      this.#ways.add(way)

      const join: Life["join"] = (wanted = {}, handle = () => () => {}) =>
        Effect.gen(function* () {
          const member = new TestMember(wanted, yield* Scope.make())
          member.handle = handle(member)
          members.add(member)
          yield* Effect.provide(member.join, context)
          return member
        })

      const publish: Life["publish"] = (records) =>
        Effect.gen(function* () {
          for (let i = 0; i < records.length; i += batchSize)
            yield* appender.append(records.slice(i, i + batchSize))
        })

      const kill = Effect.suspend(() => {
        if (way.isShut) return Effect.void
        way.isShut = true
        this.#ways.delete(way)
        this.#lives.delete(life)
        for (const member of members) member.isLost = true
        const end = Effect.andThen(
          Effect.forEach(members, (member) => member.disconnect, { discard: true }),
          Scope.close(scope, Exit.void)
        )
        // What waits for an end of work under way, with a limit, waits in the test's time.
        const ended = Effect.flatMap(Effect.forkDetach(end), (ended) =>
          this.until(
            () => "the end of a hub",
            () => ended.pollUnsafe() !== undefined,
            100
          )
        )
        // Nobody else can know that the members of this hub are gone: what they had is free after its time-out.
        return this.groups.exclusive
          ? ended
          : Effect.andThen(ended, this.#advance(this.#settings.ackTimeoutMs + 1))
      })

      const life: Life = {
        appender,
        delivery: Context.get(context, GroupDelivery),
        admin: Context.get(context, GroupAdmin),
        join,
        publish,
        kill
      }
      this.#lives.add(life)
      return life
    })

  readonly #append: EventStore["Service"]["append"] = (records) =>
    records.some(({ topic }) => DeadLetter.isDeadLetterTopic(topic))
      ? Effect.suspend(() => this.beforeLetters).pipe(
          Effect.andThen(this.log.append(records)),
          Effect.tap((results) =>
            Effect.sync(() => {
              results.forEach((result, i) => {
                if (result._tag !== "Appended" || !DeadLetter.isDeadLetterTopic(result.topic)) return
                if (result.duplicate) this.lettersAgain++
                else
                  this.onBuried(Event.decode({ ...records[i]!, ...result }).headers![DeadLetter.headers.id]!)
              })
            })
          ),
          Effect.tap(() => this.afterLetters)
        )
      : this.log.append(records)

  readonly #modify: GroupStore["Service"]["modify"] = (at, f) =>
    Effect.suspend(() => {
      let change: Change | undefined
      return this.groups
        .modify(at, (before, now) => {
          const [answer, after] = f(before, now)
          change = { before, after }
          return [answer, after]
        })
        .pipe(
          Effect.tap(() =>
            Effect.sync(() => {
              if (change !== undefined && change.after !== change.before) this.onChange(change)
            })
          )
        )
    })

  readonly end: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.#lives], (life) => life.kill, { discard: true })
  )

  // --- what a test looks at --------------------------------------------------------------------------------------

  readonly stateOf = (topic = "a", group = "g"): Effect.Effect<GroupState, StoreUnavailable> =>
    Effect.flatMap(this.groups.read({ group, topic }), (state) =>
      state === undefined ? Effect.die(new Error(`'${group}' has not met '${topic}'`)) : Effect.succeed(state)
    )

  /** All that a topic holds. */
  readonly all = (topic: string): Effect.Effect<ReadonlyArray<Event.StoredRecord>, StoreUnavailable> =>
    Effect.gen({ self: this }, function* () {
      const all: Array<Event.StoredRecord> = []
      for (;;) {
        const more = yield* this.log.read({ topic, after: all.at(-1)?.seq ?? 0, limit: batchSize })
        if (more.length === 0) return all
        all.push(...more)
      }
    })

  readonly deadLetters = (
    topic = "a",
    group = "g"
  ): Effect.Effect<ReadonlyArray<Event.Event>, StoreUnavailable> =>
    Effect.map(this.all(DeadLetter.deadLetterTopic(group, topic)), (letters) => letters.map(Event.decode))

  /** The group has nothing left to do in these topics: everything is acknowledged, or stands in the dead letters. */
  readonly isDone = (topics: ReadonlyArray<string>, group = "g"): Effect.Effect<boolean, StoreUnavailable> =>
    Effect.gen({ self: this }, function* () {
      for (const topic of topics) {
        const state = yield* this.groups.read({ group, topic })
        const head = (yield* this.log.head(topic))?.head ?? 0
        if (state === undefined || state.floor !== head || state.redrive.plans.length > 0) return false
        const { deferred, dying, inFlight, waiting } = state
        if ([deferred, dying, inFlight, waiting].some((place) => place.size > 0)) return false
      }
      return true
    })
}

export const makeLab = (capabilities: GroupDeliveryCapabilities, live: boolean) =>
  Effect.acquireRelease(
    Effect.map(Effect.context<Stores>(), (context) => new Lab(context, capabilities, live)),
    (lab) => lab.end
  )
