/**
 * The LiveFeed with the hub's own live topics beside those of the log: `$hub.stats`, `$hub.topic.<topic>`,
 * `$hub.group.<group>.<topic>`. They are made at regular ticks while somebody listens, and stored nowhere.
 *
 * There is no past of them: where a subscriber wants to begin means nothing, it gets what comes. One that does not
 * keep up misses ticks, and gets the newest of each topic that it missed when it takes events again.
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Event from "../../domain/Event.ts"
import * as OwnTopics from "../../domain/OwnTopics.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { Appender } from "../../services/Appender.ts"
import { EventStore, type Growth } from "../../services/EventStore.ts"
import { Ids } from "../../services/Ids.ts"
import { type LiveBatch, LiveFeed, type LiveSink } from "../../services/LiveFeed.ts"
import { Standing, type StandingWatch } from "../../services/Standing.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import type { Vitals } from "../../services/Vitals.ts"
import { hubStats, type Sampler } from "./hubStats.ts"

/** Topics, and places of groups, that one tick tells of. */
const maxPerTick = 1_000

/** Topics that one subscriber can have missed; beyond, it misses what was missed first. */
const maxMissed = 10_000

/** Topics whose growth is not told yet, at most; beyond, the next one is not noted. */
const maxGrown = 100_000

/** Looks into the store at once. */
const atOnce = 8

/** How often a record is held against a pattern in one go. */
const stride = 4_000

/** The hub's own events have to fit, however long the names in them are. */
const unlimited: Event.EventLimits = {
  maxPayloadBytes: Infinity,
  maxNameLength: Infinity,
  maxHeaders: Infinity,
  maxHeadersLength: Infinity,
  maxTags: Infinity,
  maxJsonDepth: Infinity
}

interface Subscriber {
  readonly sink: LiveSink
  /** It takes nothing at the moment. */
  isPaused: boolean
  isClosed: boolean
  /** The newest of each topic that it did not take, in the order in which they were missed. */
  readonly missed: Map<string, Event.StoredRecord>
}

/** Everybody who follows the same pattern. */
interface Feed {
  readonly pattern: Topic.Pattern
  readonly subscribers: Set<Subscriber>
}

/** How far each topic grew that is not told yet, and how far it was told. */
type Grown = Map<string, { readonly from: number; head: number }>

/** What is looked at while somebody follows what comes of it. */
interface Sources {
  stats: Sampler | undefined
  grown: Grown | undefined
  places: StandingWatch | undefined
}

type SourceName = keyof Sources

/** A source that somebody uses. */
interface Opened {
  users: number
  readonly scope: Scope.Closeable
  readonly ready: Deferred.Deferred<void, StoreUnavailable>
}

/** An event to be. */
interface Told {
  readonly name: string
  readonly payload: object
}

const topicOf = (name: string): Topic.Topic => ({ _tag: "Topic", name, segments: name.split(".") })

/** What of the sources a pattern is about. */
const wantedBy = (pattern: Topic.Pattern): ReadonlyArray<SourceName> => {
  const found: Array<SourceName> = []
  if (Topic.overlaps(pattern, OwnTopics.statsTopic)) found.push("stats")
  if (Topic.overlaps(pattern, OwnTopics.topicTopic("**"))) found.push("grown")
  if (Topic.overlaps(pattern, OwnTopics.groupTopic("*", "**"))) found.push("places")
  return found
}

const make = Effect.fnUntraced(function* ({ tickMs }: Settings.StandingSettings = Settings.standing) {
  const log = yield* LiveFeed
  const store = yield* EventStore
  const appender = yield* Appender
  const standing = yield* Standing
  const ids = yield* Ids
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime()
  const makeSampler = yield* hubStats
  const feeds = new Map<string, Feed>()
  /** The feeds whose patterns have wildcards; any other one is found by its name, however many there are. */
  const wildFeeds = new Set<Feed>()
  const sources: Sources = { stats: undefined, grown: undefined, places: undefined }
  const opened = new Map<SourceName, Opened>()
  let lastSeq = 0
  let lastStats: Event.StoredRecord | undefined
  let isTicking = false
  /** The next tick is not to be waited for. */
  const hurry = yield* Queue.sliding<void>(1)

  // --- what is told ------------------------------------------------------------------------------------------

  const record = ({ name, payload }: Told, seq: number, at: number): Event.StoredRecord => ({
    ...Result.getOrThrow(Event.encodeEvent({ id: ids.next(), topic: name, ts: at, payload }, unlimited)),
    seq,
    storedAt: at
  })

  const recordsOf = (told: ReadonlyArray<Told>): ReadonlyArray<Event.StoredRecord> => {
    if (told.length === 0) return []
    const at = clock.currentTimeMillisUnsafe()
    const seq = Math.max(lastSeq + 1, at)
    lastSeq = seq
    return told.map((one) => record(one, seq, at))
  }

  const takeGrown = Effect.gen(function* () {
    const { grown } = sources
    if (grown === undefined) return []
    const all = [...grown]
    const largest =
      all.length <= maxPerTick
        ? all
        : all.sort(([, a], [, b]) => b.head - b.from - (a.head - a.from)).slice(0, maxPerTick)
    // Before the store is asked: what is committed from here on is noted again.
    for (const [topic] of largest) grown.delete(topic)
    const putBack = Effect.sync(() => {
      for (const [topic, { from, head }] of largest) {
        const noted = grown.get(topic)
        grown.set(topic, {
          from: Math.min(from, noted?.from ?? from),
          head: Math.max(head, noted?.head ?? head)
        })
      }
    })
    const infos = yield* Effect.forEach(largest, ([topic]) => store.head(topic), {
      concurrency: atOnce
    }).pipe(Effect.onError(() => putBack))
    return infos.flatMap((info) => {
      if (info === undefined) return []
      const { eventsPerSecond } = standing.growthOf(info.topic)
      return [{ name: OwnTopics.topicTopic(info.topic), payload: { ...info, eventsPerSecond } }]
    })
  })

  const takePlaces = Effect.suspend(() => sources.places?.take(maxPerTick) ?? Effect.succeed([])).pipe(
    Effect.map((places) =>
      places.map((place) => ({ name: OwnTopics.groupTopic(place.group, place.topic), payload: place }))
    )
  )

  const tellStats = Effect.gen(function* () {
    const { stats } = sources
    if (stats === undefined) return
    const told = recordsOf([{ name: OwnTopics.statsTopic, payload: yield* stats }])
    // Who listened may have left meanwhile.
    if (sources.stats === stats) lastStats = told[0]
    handOut(told)
  })

  /** What could not be read stays for the next time. */
  const tellChanges = Effect.gen(function* () {
    const grown: ReadonlyArray<Told> = yield* Effect.orElseSucceed(takeGrown, () => [])
    yield* handOutInParts(recordsOf(grown))
    const places: ReadonlyArray<Told> = yield* Effect.orElseSucceed(takePlaces, () => [])
    yield* handOutInParts(recordsOf(places))
  })

  // --- handing out -------------------------------------------------------------------------------------------

  const miss = ({ missed }: Subscriber, records: ReadonlyArray<Event.StoredRecord>): void => {
    for (const one of records) {
      missed.delete(one.topic)
      missed.set(one.topic, one)
    }
    for (const oldest of missed.keys()) {
      if (missed.size <= maxMissed) return
      missed.delete(oldest)
    }
  }

  const hand = (subscriber: Subscriber, batch: LiveBatch): void => {
    if (subscriber.isPaused) return miss(subscriber, batch.records)
    if (subscriber.sink.deliver(batch)) return
    subscriber.isPaused = true
    miss(subscriber, batch.records)
  }

  /** A few at a time, with others in between. */
  const handOutInParts = (told: ReadonlyArray<Event.StoredRecord>) =>
    Effect.gen(function* () {
      let from = 0
      while (from < told.length) {
        if (from > 0) yield* Effect.yieldNow
        const to = from + Math.max(1, Math.floor(stride / (1 + wildFeeds.size)))
        handOut(told.slice(from, to))
        from = to
      }
    })

  const handOut = (told: ReadonlyArray<Event.StoredRecord>): void => {
    const taken = new Map<Feed, Array<Event.StoredRecord>>()
    const take = (feed: Feed, one: Event.StoredRecord) => {
      const records = taken.get(feed)
      if (records === undefined) taken.set(feed, [one])
      else records.push(one)
    }
    for (const one of told) {
      const own = feeds.get(one.topic)
      if (own !== undefined) take(own, one)
      if (wildFeeds.size === 0) continue
      const topic = topicOf(one.topic)
      for (const feed of wildFeeds) if (Topic.matches(feed.pattern, topic)) take(feed, one)
    }
    for (const [{ pattern, subscribers }, records] of taken) {
      const batch: LiveBatch = { pattern, records, shared: new Map() }
      for (const subscriber of subscribers) hand(subscriber, batch)
    }
  }

  const resume = (pattern: Topic.Pattern, subscriber: Subscriber): void => {
    if (!subscriber.isPaused || subscriber.isClosed) return
    subscriber.isPaused = false
    const records = [...subscriber.missed.values()]
    if (records.length === 0) return
    subscriber.missed.clear()
    hand(subscriber, { pattern, records, shared: new Map() })
  }

  // --- while somebody listens --------------------------------------------------------------------------------

  /** Whatever goes wrong with one is no reason not to make the next. */
  const logged = Effect.catchCause((cause: Cause.Cause<never>) =>
    Effect.logError("the hub could not tell of itself", cause)
  )

  const ticking = Effect.gen(function* () {
    let isBusy = false
    const changes = Effect.ensuring(
      logged(tellChanges),
      Effect.sync(() => void (isBusy = false))
    )
    for (;;) {
      yield* logged(tellStats)
      // A store that is slow holds up no figures of the hub, and is not asked again before it answered.
      if (!isBusy) {
        isBusy = true
        yield* Effect.forkScoped(changes)
      }
      yield* Effect.timeoutOption(Queue.take(hurry), tickMs)
      if (feeds.size === 0) break
    }
    // In the same turn as the look: whoever comes next begins anew.
    isTicking = false
    lastStats = undefined
  }).pipe(Effect.scoped)

  const followGrowth = Effect.gen(function* () {
    const grown: Grown = new Map()
    const note = (topic: string, from: number, head: number): void => {
      const known = grown.get(topic)
      if (known !== undefined) known.head = Math.max(known.head, head)
      else if (grown.size < maxGrown) grown.set(topic, { from, head })
    }
    const noteAll = (topics: ReadonlyArray<Growth>): void => {
      for (const { head, topic } of topics) note(topic, head - 1, head)
    }
    yield* appender.onCommitted((records) => {
      for (const { seq, topic } of records) note(topic, seq - 1, seq)
    })
    yield* appender.onGrown(noteAll)
    yield* Stream.runForEach(store.changes, (topics) => Effect.sync(() => noteAll(topics))).pipe(
      Effect.forkScoped
    )
    return grown
  })

  /** Each answers how it takes its place. */
  const opening: Readonly<Record<SourceName, Effect.Effect<() => void, StoreUnavailable, Scope.Scope>>> = {
    stats: Effect.map(makeSampler, (stats) => () => void (sources.stats = stats)),
    grown: Effect.map(followGrowth, (grown) => () => void (sources.grown = grown)),
    places: Effect.map(standing.watch, (places) => () => void (sources.places = places))
  }

  const close = (name: SourceName, source: Opened) =>
    Effect.suspend(() => {
      if (--source.users > 0) return Effect.void
      opened.delete(name)
      sources[name] = undefined
      if (name === "stats") lastStats = undefined
      return Scope.close(source.scope, Exit.void)
    })

  /** A source is opened by the first who uses it, and closed by the last. All wait until it stands. */
  const use = (name: SourceName): Effect.Effect<void, StoreUnavailable, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const known = opened.get(name)
        if (known !== undefined) {
          known.users++
          return known
        }
        const scope = Scope.makeUnsafe()
        const ready = Deferred.makeUnsafe<void, StoreUnavailable>()
        const source: Opened = { users: 1, scope, ready }
        opened.set(name, source)
        const open = Effect.map(opening[name], (takePlace) => {
          // Whoever wanted it may have left, and another one have come.
          if (opened.get(name) === source) takePlace()
        })
        fork(Deferred.into(Scope.provide(open, scope), ready))
        return source
      }),
      (source) => close(name, source)
    ).pipe(Effect.flatMap(({ ready }) => Deferred.await(ready)))

  const join = (pattern: Topic.Pattern, subscriber: Subscriber) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const feed = feeds.get(pattern.name) ?? { pattern, subscribers: new Set() }
        feeds.set(pattern.name, feed)
        if (!pattern.concrete) wildFeeds.add(feed)
        feed.subscribers.add(subscriber)
        return feed
      }),
      (feed) =>
        Effect.sync(() => {
          subscriber.isClosed = true
          feed.subscribers.delete(subscriber)
          if (feed.subscribers.size > 0) return
          feeds.delete(pattern.name)
          wildFeeds.delete(feed)
        })
    )

  const subscribe = (pattern: Topic.Pattern, sink: LiveSink) =>
    Effect.gen(function* () {
      yield* Effect.forEach(wantedBy(pattern), use, { discard: true })
      const subscriber: Subscriber = { sink, isPaused: true, isClosed: false, missed: new Map() }
      yield* join(pattern, subscriber)
      return {
        heads: new Map<string, number>(),
        start: () => {
          if (lastStats !== undefined && Topic.matches(pattern, topicOf(lastStats.topic))) {
            miss(subscriber, [lastStats])
          }
          resume(pattern, subscriber)
          if (isTicking) {
            // Those for whom it ticks follow something else, or just left.
            const isFirst = lastStats === undefined && Topic.overlaps(pattern, OwnTopics.statsTopic)
            if (isFirst) Queue.offerUnsafe(hurry, undefined)
            return
          }
          isTicking = true
          fork(ticking)
        },
        resume: () => resume(pattern, subscriber),
        behind: () => subscriber.missed.size
      }
    })

  return LiveFeed.of({
    history: log.history,
    subscribe: (subscription) =>
      OwnTopics.isLive(subscription.pattern.name)
        ? subscribe(subscription.pattern, subscription.sink)
        : log.subscribe(subscription)
  })
})

export const layer = (
  settings?: Settings.StandingSettings
): Layer.Layer<LiveFeed, never, Appender | EventStore | Ids | LiveFeed | Standing | Vitals> =>
  Layer.effect(LiveFeed, make(settings))
