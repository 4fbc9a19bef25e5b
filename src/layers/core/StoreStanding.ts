/**
 * Standing over any stores: a table of all places, made when somebody looks, kept up to date while somebody does, and
 * let go when nobody has for a while.
 *
 * Making it reads every topic and every state, in parts with others in between. Bringing it up to date reads only
 * what changed: this hub's own changes are heard of as they happen, those of others by what the stores tell, which
 * is a hint; so where hubs share a store, the table is made anew now and then.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Exit from "effect/Exit"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { LRUCache } from "lru-cache"
import * as Group from "../../domain/Group.ts"
import * as Settings from "../../domain/Settings.ts"
import type * as Topic from "../../domain/Topic.ts"
import { Appender } from "../../services/Appender.ts"
import { EventStore, type Growth } from "../../services/EventStore.ts"
import { type GroupChange, GroupStore } from "../../services/GroupStore.ts"
import { GroupWrites } from "../../services/GroupWrites.ts"
import { type Place, type PlaceWithLag, Standing } from "../../services/Standing.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { GrowthMeter } from "./GrowthMeter.ts"
import { type Figures, StandingTable } from "./StandingTable.ts"

/** Topics of one look into the stores, and states. */
const topicsPerPage = 1_000
const statesPerPage = 500

/** Times of oldest events that are remembered. */
const rememberedTimes = 10_000

/** Looks into a store at once, for the ages of oldest events and for states. */
const atOnce = 8

/** Places whose change is not told yet, at most; beyond, the next one is not noted. */
const maxNoted = 100_000

const patternsOf = ["**", "$dead.**"].map((name): Topic.Pattern => ({
  _tag: "Pattern",
  name,
  segments: name.split("."),
  concrete: false
}))

const figuresOf = (state: Group.GroupState): Figures => ({
  floor: state.floor,
  done: Group.doneCount(state),
  inFlight: state.inFlight.size
})

/** What changed and is not in the table yet. */
interface Dirty {
  readonly heads: Map<string, number>
  /** By group and topic, which hold no space. */
  readonly states: Map<string, { readonly group: string; readonly topic: string }>
  /** Groups that may not be what they were. */
  readonly groups: Set<string>
}

interface Made {
  readonly table: StandingTable
  readonly dirty: Dirty
  readonly madeAt: number
  readonly scope: Scope.Closeable
  freshAt: number
}

/** Places that changed, with what was pending when they were told last. */
type Noted = Map<string, Change>

interface Change {
  readonly group: string
  readonly topic: string
  readonly before: number
}

/** Changes that are looked at in one go. */
const stride = 4_000

/**
 * Takes out the places that changed most; those that are no more are let go. Each is taken and looked up in one turn:
 * what changes after that is noted again.
 */
function* takeLargest(
  noted: Noted,
  placeOf: (change: Change) => Place | undefined,
  limit: number
): Generator<void, ReadonlyArray<readonly [change: Change, place: Place]>> {
  const sizes: Array<readonly [by: number, key: string]> = []
  let done = 0
  for (const [key, change] of noted) {
    const place = placeOf(change)
    if (place === undefined) noted.delete(key)
    else sizes.push([Math.abs(place.pending - change.before), key])
    if (++done % stride === 0) yield
  }
  const largest = sizes.length <= limit ? sizes : sizes.sort(([a], [b]) => b - a).slice(0, limit)
  return largest.flatMap(([, key]) => {
    const change = noted.get(key)
    const place = change === undefined ? undefined : placeOf(change)
    noted.delete(key)
    return change === undefined || place === undefined ? [] : [[change, place] as const]
  })
}

const keyOf = ({ group, topic }: Pick<Change, "group" | "topic">): string => `${group} ${topic}`

const standing = Effect.fnUntraced(function* (settings: Settings.StandingSettings = Settings.standing) {
  const store = yield* EventStore
  const groups = yield* GroupStore
  const writes = yield* GroupWrites
  const appender = yield* Appender
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime<never, unknown, StoreUnavailable>()
  const turn = yield* Semaphore.make(1)
  const growth = new GrowthMeter(settings.growthTopics)
  const watches = new Set<Noted>()
  const times = new LRUCache<string, number>({ max: rememberedTimes, ttl: settings.keepMs })
  let made: Made | undefined
  /** One that was let go while somebody followed it: what is not as it was there is a change. */
  let last: StandingTable | undefined
  /** A renewal that has not begun. */
  let waiting: Deferred.Deferred<StandingTable, StoreUnavailable> | undefined
  let lookedAt = 0
  let isKept = false

  const now = () => clock.currentTimeMillisUnsafe()

  yield* appender.onCommitted((records) => {
    const at = now()
    for (const { body, topic } of records) growth.add(topic, 1, body.length, at)
  })

  /** Runs what stops now and then, with others in between. */
  const inParts = <A>(parts: Generator<void, A>): Effect.Effect<A> =>
    Effect.gen(function* () {
      for (;;) {
        const { done, value } = parts.next()
        if (done === true) return value
        yield* Effect.yieldNow
      }
    })

  const note = (group: string, topic: string, before: number): void => {
    const key = keyOf({ group, topic })
    for (const noted of watches) {
      if (noted.size < maxNoted && !noted.has(key)) noted.set(key, { group, topic, before })
    }
  }

  // --- making it ---------------------------------------------------------------------------------------------

  /** Hears of changes from here on: what the looks that follow may miss. */
  const listen = (dirty: Dirty): Effect.Effect<void, never, Scope.Scope> =>
    Effect.gen(function* () {
      const grown = (topics: Iterable<Growth>) => {
        for (const { head, topic } of topics) {
          if (head > (dirty.heads.get(topic) ?? 0)) dirty.heads.set(topic, head)
        }
      }
      const moved = ({ group, topic }: GroupChange) => {
        if (topic === undefined) dirty.groups.add(group)
        else dirty.states.set(`${group} ${topic}`, { group, topic })
      }
      yield* appender.onCommitted((records) => {
        for (const { seq, topic } of records) {
          if (seq > (dirty.heads.get(topic) ?? 0)) dirty.heads.set(topic, seq)
        }
      })
      yield* appender.onGrown(grown)
      yield* writes.onWritten(moved)
      yield* Stream.runForEach(store.changes, (topics) => Effect.sync(() => grown(topics))).pipe(
        Effect.forkScoped
      )
      yield* Stream.runForEach(groups.changes, (changes) => Effect.sync(() => changes.forEach(moved))).pipe(
        Effect.forkScoped
      )
    })

  const readTopics = (table: StandingTable) =>
    Effect.forEach(
      patternsOf,
      (pattern) =>
        Effect.gen(function* () {
          let after: string | undefined
          do {
            const page = yield* store.topics({
              pattern,
              limit: topicsPerPage,
              ...(after === undefined ? {} : { after })
            })
            yield* inParts(table.grow(page.items.map(({ head, topic }) => [topic, head] as const)))
            after = page.next
            yield* Effect.yieldNow
          } while (after !== undefined)
        }),
      { discard: true }
    )

  const readStates = (table: StandingTable, group: string) =>
    Effect.gen(function* () {
      let after: string | undefined
      for (;;) {
        const page = { limit: statesPerPage, ...(after === undefined ? {} : { after }) }
        const cursors = yield* groups.topicsOf(group, page)
        for (const { state, topic } of cursors) table.put(group, topic, figuresOf(state))
        yield* Effect.yieldNow
        if (cursors.length < statesPerPage) return
        after = cursors.at(-1)!.topic
      }
    })

  const readAll = (table: StandingTable, added: ReadonlyArray<string>) =>
    added.length === 0
      ? Effect.void
      : Effect.forEach(added, (group) => readStates(table, group), { discard: true }).pipe(
          Effect.andThen(inParts(table.recount(added)))
        )

  const build = Effect.gen(function* () {
    const scope = yield* Scope.make()
    const dirty: Dirty = { heads: new Map(), states: new Map(), groups: new Set() }
    let isMade = false
    // What is found while it is made is no change.
    const table = new StandingTable(settings.maxTopics, (group, topic, before) => {
      if (isMade) note(group, topic, before)
    })
    yield* listen(dirty).pipe(Scope.provide(scope))
    return yield* Effect.gen(function* () {
      yield* readTopics(table)
      yield* readAll(table, yield* inParts(table.register(yield* groups.list)))
      isMade = true
      const at = now()
      return { table, dirty, scope, madeAt: at, freshAt: at } satisfies Made
    }).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
  })

  // --- keeping it up to date ---------------------------------------------------------------------------------

  const readDirty = (table: StandingTable, dirty: Dirty) =>
    Effect.suspend(() => {
      const states = [...dirty.states]
      dirty.states.clear()
      return Effect.forEach(
        states,
        ([, { group, topic }]) =>
          table.hasGroup(group)
            ? Effect.map(groups.read({ group, topic }), (state) => {
                if (state !== undefined) table.move(group, topic, figuresOf(state))
              })
            : Effect.void,
        { concurrency: atOnce, discard: true }
      ).pipe(
        // Nothing is forgotten because a store did not answer.
        Effect.onError(() =>
          Effect.sync(() => {
            for (const [key, at] of states) dirty.states.set(key, at)
          })
        )
      )
    })

  const bringUpToDate = ({ dirty, table }: Made): Effect.Effect<void, StoreUnavailable> =>
    Effect.gen(function* () {
      // Before the list is read: what is told after that may not be in it.
      const renewed = new Set(dirty.groups)
      dirty.groups.clear()
      const registrations = yield* Effect.onError(groups.list, () =>
        Effect.sync(() => {
          for (const group of renewed) dirty.groups.add(group)
        })
      )
      const added = yield* inParts(table.register(registrations, renewed))
      // A group without its states would be one that has everything to do. Some may have been read, and look as if
      // they had always been so: all of their places count as changed.
      yield* Effect.onError(readAll(table, added), () =>
        Effect.andThen(inParts(table.recount(added)), Effect.sync(letGo))
      )
      const heads = [...dirty.heads]
      dirty.heads.clear()
      yield* inParts(table.grow(heads))
      yield* readDirty(table, dirty)
    })

  const letGo = (): void => {
    const old = made
    made = undefined
    if (watches.size > 0) last = old?.table
    if (old !== undefined) fork(Scope.close(old.scope, Exit.void))
  }

  /** Lets go of the table when nobody has looked for a while. */
  const keep = Effect.gen(function* () {
    isKept = true
    do {
      yield* Effect.sleep(settings.keepMs)
    } while (watches.size > 0 || now() - lookedAt < settings.keepMs)
    // In the same turn as the look: whoever comes next makes another one.
    isKept = false
    letGo()
  })

  const make = Effect.gen(function* () {
    const before = made
    const after = yield* build
    made = after
    if (!isKept) fork(keep)
    const known = before?.table ?? last
    last = undefined
    if (known !== undefined && watches.size > 0) yield* inParts(after.table.compare(known))
    if (before !== undefined) yield* Scope.close(before.scope, Exit.void)
    if (after.table.leftOut > 0) {
      yield* Effect.logWarning("there are more topics than it is looked at who is behind in", {
        looked: settings.maxTopics,
        leftOut: after.table.leftOut
      })
    }
    return after
  })

  const renew: Effect.Effect<StandingTable, StoreUnavailable> = turn.withPermits(1)(
    Effect.gen(function* () {
      // Who comes from here on may need what is written from here on.
      waiting = undefined
      lookedAt = now()
      const known = made
      if (known === undefined || (!groups.exclusive && lookedAt - known.madeAt >= settings.renewMs)) {
        return (yield* make).table
      }
      if (Math.abs(lookedAt - known.freshAt) >= settings.refreshMs) {
        yield* bringUpToDate(known)
        known.freshAt = lookedAt
      }
      return known.table
    })
  )

  /**
   * What was begun after it was asked for. Whoever asked may go away: what was begun for all goes on to its end. However
   * many ask while one is at work, one more waits for its turn.
   */
  const fresh = Effect.suspend(() => {
    if (waiting !== undefined) return Deferred.await(waiting)
    const answer = Deferred.makeUnsafe<StandingTable, StoreUnavailable>()
    waiting = answer
    fork(renew).addObserver((exit) => {
      if (waiting === answer) waiting = undefined
      Deferred.doneUnsafe(answer, exit)
    })
    return Deferred.await(answer)
  })

  // --- looking -----------------------------------------------------------------------------------------------

  const oldestAt = ({ seq, topic }: Place): Effect.Effect<number | undefined, StoreUnavailable> =>
    Effect.suspend(() => {
      const key = `${topic}:${seq}`
      const known = times.get(key)
      if (known !== undefined) return Effect.succeed(known)
      return Effect.map(store.read({ topic, after: seq, limit: 1 }), ([record]) => {
        if (record !== undefined) times.set(key, record.storedAt)
        return record?.storedAt
      })
    })

  const withLags = (
    places: ReadonlyArray<Place>
  ): Effect.Effect<ReadonlyArray<PlaceWithLag>, StoreUnavailable> =>
    Effect.forEach(
      places,
      (place) =>
        place.pending === 0
          ? Effect.succeed({ ...place, lagMs: 0 })
          : Effect.map(oldestAt(place), (at) => ({
              ...place,
              lagMs: at === undefined ? 0 : Math.max(0, now() - at)
            })),
      { concurrency: atOnce }
    )

  return Standing.of({
    totals: Effect.map(fresh, (table) => table.totals()),
    groups: Effect.map(fresh, (table) => table.groups()),
    growthOf: (topic) => growth.of(topic, now()),

    behind: ({ limit, show }) =>
      Effect.gen(function* () {
        const table = yield* fresh
        return yield* withLags(yield* inParts(table.worst(limit, show)))
      }),

    growing: ({ limit, show }) =>
      Effect.gen(function* () {
        const growing = [...growth.all(now())].sort(([, a], [, b]) => b.eventsPerSecond - a.eventsPerSecond)
        const shown: typeof growing = []
        for (const one of growing) {
          if (shown.length === limit) break
          if (show(one[0])) shown.push(one)
        }
        const found = yield* Effect.forEach(
          shown,
          ([topic, { bytesPerSecond, eventsPerSecond }]) =>
            Effect.map(store.head(topic), (info) =>
              info === undefined ? [] : [{ topic, eventsPerSecond, bytesPerSecond, head: info.head }]
            ),
          { concurrency: atOnce }
        )
        return found.flat()
      }),

    watch: Effect.gen(function* () {
      const noted: Noted = new Map()
      yield* Effect.acquireRelease(
        Effect.sync(() => void watches.add(noted)),
        () => Effect.sync(() => void watches.delete(noted))
      )
      // From here on nothing changes that is not noted; some of what is noted may be from just before.
      yield* fresh
      return {
        take: (limit) =>
          Effect.gen(function* () {
            const table = yield* fresh
            // Another table may take the place of this one meanwhile.
            const placeOf = ({ group, topic }: Change) => (made?.table ?? table).place(group, topic)
            const taken = yield* inParts(takeLargest(noted, placeOf, limit))
            return yield* withLags(taken.map(([, place]) => place)).pipe(
              Effect.onError(() =>
                Effect.sync(() => {
                  for (const [change] of taken) noted.set(keyOf(change), change)
                })
              )
            )
          })
      }
    })
  })
})

export const layer = (
  settings?: Settings.StandingSettings
): Layer.Layer<Standing, never, Appender | EventStore | GroupStore | GroupWrites> =>
  Layer.effect(Standing, standing(settings))
