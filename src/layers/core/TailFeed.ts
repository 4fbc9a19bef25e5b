/**
 * The LiveFeed: subscribers at the end of a topic get what was just committed, from memory; those that are
 * behind read the store until they meet the end, and then join the others.
 *
 * The end of each topic moves on without a hole. A batch that begins further on, because another hub appended
 * in between, is not taken: the hole is read from the store, in order. So "at the end" means, for a subscriber,
 * that it has had everything, and nothing twice, and no bookkeeping per event and subscriber is needed for it.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Position, StoredRecord } from "../../domain/Event.ts"
import * as Topic from "../../domain/Topic.ts"
import type { From } from "../../protocol/Messages.ts"
import { Appender } from "../../services/Appender.ts"
import { EventStore, type Growth } from "../../services/EventStore.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { type LiveBatch, LiveFeed, type LiveSink, UnrecoverablePosition } from "../../services/LiveFeed.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as metrics from "./metrics.ts"
import { positionsOf } from "./positions.ts"

/** One look into the store for a subscriber that is behind. */
const chunk = { limit: 512, maxBytes: 512 * 1024 }

/** A subscriber that is behind waits for the store as long as it takes. */
const patience = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

/** The end of a topic as its subscribers know it. */
interface Tail {
  seq: number
  /** A hole is being read; what is committed meanwhile will be found there. */
  reading: boolean
  grew: boolean
}

/** Everybody who follows the same pattern. */
interface Feed {
  readonly pattern: Topic.Pattern
  readonly subscribers: Set<Subscriber>
  readonly ready: Deferred.Deferred<void, StoreUnavailable>
  isReady: boolean
  /** Who uses it, or waits for it to be ready. */
  users: number
  /** Topics that grew before the feed knew its topics. */
  readonly grew: Set<string>
  /** What was committed and is not handed out yet. */
  pending: Array<StoredRecord>
}

/** A topic in which a subscriber is not at the end: it has had everything up to `position`. */
interface Behind {
  position: Position
  /** It has read further than the end that the feed knows, and waits for the feed to come by. */
  readonly isAhead: boolean
  /** It began at the start: what was trimmed before is no gap. */
  readonly fromStart: boolean
}

interface Subscriber {
  readonly feed: Feed
  readonly sink: LiveSink
  readonly behind: Map<string, Behind>
  /** It takes nothing at the moment. */
  paused: boolean
  catchingUp: boolean
  closed: boolean
}

const topicOf = (name: string): Topic.Topic => ({ _tag: "Topic", name, segments: name.split(".") })

const make = Effect.gen(function* () {
  const store = yield* EventStore
  const appender = yield* Appender
  const recorder = yield* metrics.recorder
  const clock = yield* Clock.Clock
  const traces = yield* EventTraces
  const sent = recorder.histogram(metrics.storedToSent, { path: "live" })
  const pauses = recorder.counter(metrics.livePauses)
  const fork = yield* FiberSet.makeRuntime()
  const feeds = new Map<string, Feed>()
  const tails = new Map<string, Tail>()
  /** The feeds whose patterns have wildcards; any other one is found by its name, however many there are. */
  const wildFeeds = new Set<Feed>()
  let wildFeedsByTopic = new Map<string, ReadonlyArray<Feed>>()

  const wildFeedsOf = (name: string): ReadonlyArray<Feed> => {
    let found = wildFeedsByTopic.get(name)
    if (found === undefined) {
      const topic = topicOf(name)
      found = [...wildFeeds].filter(({ pattern }) => Topic.matches(pattern, topic))
      wildFeedsByTopic.set(name, found)
    }
    return found
  }

  const feedsOf = (name: string): ReadonlyArray<Feed> => {
    const own = feeds.get(name)
    if (wildFeeds.size === 0) return own === undefined ? [] : [own]
    const wild = wildFeedsOf(name)
    return own === undefined ? wild : [own, ...wild]
  }

  /** Topics whose end is known. */
  const tailsOf = (pattern: Topic.Pattern): ReadonlyArray<string> => {
    if (pattern.concrete) return tails.has(pattern.name) ? [pattern.name] : []
    return [...tails.keys()].filter((name) => Topic.matches(pattern, topicOf(name)))
  }

  // --- handing out -------------------------------------------------------------------------------------------

  /** The subscriber misses a record: it will read it from the store. */
  const miss = (subscriber: Subscriber, records: ReadonlyArray<StoredRecord>): void => {
    for (const { seq, topic } of records) {
      const behind = subscriber.behind.get(topic)
      if (behind === undefined) {
        subscriber.behind.set(topic, { position: seq - 1, isAhead: false, fromStart: false })
      } else if (behind.isAhead && seq > behind.position) {
        subscriber.behind.set(topic, { position: behind.position, isAhead: false, fromStart: false })
      }
    }
  }

  /** The part of a batch whose topics the subscriber is at the end of. */
  const atTheEnd = (subscriber: Subscriber, records: ReadonlyArray<StoredRecord>) =>
    records.filter(({ seq, topic }) => {
      const behind = subscriber.behind.get(topic)
      if (behind === undefined) return true
      if (!behind.isAhead || seq <= behind.position) return false
      subscriber.behind.delete(topic)
      return true
    })

  /** Whether it got all of it. */
  const hand = (subscriber: Subscriber, batch: LiveBatch): boolean => {
    if (subscriber.paused) {
      miss(subscriber, batch.records)
      return false
    }
    const part = subscriber.behind.size === 0 ? batch.records : atTheEnd(subscriber, batch.records)
    if (part.length === 0) return false
    const own = part === batch.records ? batch : { ...batch, records: part, shared: new Map() }
    if (subscriber.sink.deliver(own)) return own === batch
    pause(subscriber)
    miss(subscriber, part)
    return false
  }

  const pause = (subscriber: Subscriber): void => {
    subscriber.paused = true
    pauses.count++
  }

  /** Nobody is at the end of the topic any more: everybody reads on from where they are, or from here. */
  const fallBehind = (topic: string, position: Position): void => {
    for (const feed of feedsOf(topic)) {
      for (const subscriber of feed.subscribers) {
        const behind = subscriber.behind.get(topic)
        if (behind === undefined || behind.isAhead) {
          const { position: own } = behind ?? { position }
          subscriber.behind.set(topic, { position: own, isAhead: false, fromStart: false })
        }
        catchUp(subscriber)
      }
    }
  }

  const handOut = (touched: Iterable<Feed>): void => {
    for (const feed of touched) {
      const records = feed.pending
      if (records.length === 0) continue
      feed.pending = []
      const batch: LiveBatch = { pattern: feed.pattern, records, shared: new Map() }
      let deliveries = 0
      for (const subscriber of feed.subscribers) if (hand(subscriber, batch)) deliveries++
      if (deliveries > 0) told(records, deliveries)
    }
  }

  /** What was new has gone to everybody at the end: once for all of them, however many they are. */
  const told = (records: ReadonlyArray<StoredRecord>, deliveries: number): void => {
    const now = clock.currentTimeMillisUnsafe()
    for (const record of records) {
      const tookMs = Math.max(0, now - record.storedAt)
      sent.observe(tookMs / 1000, deliveries)
      traces?.delivered({ record, tookMs, deliveries })
    }
  }

  /** The topic's end moves by one record. */
  const advance = (tail: Tail, record: StoredRecord, touched: Set<Feed>): void => {
    tail.seq = record.seq
    for (const feed of feedsOf(record.topic)) {
      feed.pending.push(record)
      touched.add(feed)
    }
  }

  // --- following the log -------------------------------------------------------------------------------------

  const readHole = (topic: string, tail: Tail): Effect.Effect<void> =>
    Effect.gen(function* () {
      for (;;) {
        tail.grew = false
        const records = yield* store
          .read({ topic, after: tail.seq, ...chunk })
          .pipe(Effect.retry(patience), Effect.orDie)
        // Nobody followed the topic for a while: whoever does now has another end of it.
        if (tails.get(topic) !== tail) return
        const [first] = records
        // A part of the hole was trimmed: each subscriber finds that out, and tells it, by itself.
        if (first !== undefined && first.seq > tail.seq + 1) fallBehind(topic, tail.seq)
        const touched = new Set<Feed>()
        for (const record of records) advance(tail, record, touched)
        handOut(touched)
        if (records.length === 0 && !tail.grew) {
          // In the same turn as the look at `grew`: what is committed next has to see it.
          tail.reading = false
          return
        }
      }
    }).pipe(Effect.onError(() => Effect.sync(() => (tail.reading = false))))

  const read = (topic: string, tail: Tail): void => {
    tail.grew = true
    if (tail.reading) return
    tail.reading = true
    fork(readHole(topic, tail))
  }

  /** The end of a topic that somebody follows; nothing while it is being found out, or when nobody does. */
  const tailOf = (topic: string): Tail | undefined => {
    const known = tails.get(topic)
    if (known !== undefined) return known
    const interested = feedsOf(topic)
    if (interested.length === 0) return undefined
    if (!interested.some((feed) => feed.isReady)) {
      for (const feed of interested) feed.grew.add(topic)
      return undefined
    }
    // A feed that is ready knows every topic that existed then: this one was born after.
    const born = { seq: 0, reading: false, grew: false }
    tails.set(topic, born)
    return born
  }

  const committed = (records: ReadonlyArray<StoredRecord>): void => {
    if (feeds.size === 0) return
    const touched = new Set<Feed>()
    for (const record of records) {
      const tail = tailOf(record.topic)
      if (tail === undefined) continue
      if (tail.reading) tail.grew = true
      else if (record.seq === tail.seq + 1) advance(tail, record, touched)
      else if (record.seq > tail.seq) read(record.topic, tail)
    }
    handOut(touched)
  }

  const grown = (topics: ReadonlyArray<Growth>): void => {
    for (const { head, topic } of topics) {
      const tail = tailOf(topic)
      if (tail !== undefined && head > tail.seq) read(topic, tail)
    }
  }

  yield* appender.onCommitted(committed)
  yield* appender.onGrown(grown)
  yield* store.changes.pipe(
    Stream.runForEach((topics) => Effect.sync(() => grown(topics))),
    Effect.forkScoped
  )

  yield* recorder.gauge(metrics.liveSubscriptions, () => {
    let open = 0
    for (const { subscribers } of feeds.values()) open += subscribers.size
    return open
  })

  // --- catching up -------------------------------------------------------------------------------------------

  const nextBehind = (subscriber: Subscriber): readonly [string, Behind] | undefined => {
    for (const entry of subscriber.behind) if (!entry[1].isAhead) return entry
    return undefined
  }

  /** Takes one chunk of a topic. False: the subscriber takes no more. */
  const catchUpWith = (
    subscriber: Subscriber,
    topic: string,
    behind: Behind,
    records: ReadonlyArray<StoredRecord>
  ): void => {
    const end = tails.get(topic)?.seq ?? 0
    const first = records[0]
    if (first === undefined) {
      // The end may have moved on since the store looked.
      if (behind.position < end) return
      subscriber.behind.delete(topic)
      if (behind.position > end) subscriber.behind.set(topic, { ...behind, isAhead: true })
      return
    }
    if (first.seq > behind.position + 1 && !behind.fromStart) {
      subscriber.sink.gap({ topic, from: behind.position + 1, to: first.seq - 1 })
    }
    // What was trimmed is told once, also when the sink takes nothing now.
    const position = first.seq - 1
    const batch: LiveBatch = { pattern: subscriber.feed.pattern, records, shared: new Map() }
    if (!subscriber.sink.deliver(batch)) {
      pause(subscriber)
      subscriber.behind.set(topic, { position, isAhead: false, fromStart: behind.fromStart })
      return
    }
    const reached = records.at(-1)!.seq
    // Behind the others of the same subscriber, so that no topic waits for another one's whole past.
    subscriber.behind.delete(topic)
    if (reached === end) return
    subscriber.behind.set(topic, { position: reached, isAhead: reached > end, fromStart: false })
  }

  const catchUp = (subscriber: Subscriber): void => {
    if (subscriber.catchingUp || subscriber.paused || subscriber.closed) return
    if (nextBehind(subscriber) === undefined) return
    subscriber.catchingUp = true
    fork(
      Effect.gen(function* () {
        for (;;) {
          const next = subscriber.paused || subscriber.closed ? undefined : nextBehind(subscriber)
          if (next === undefined) return
          const [topic, behind] = next
          const records = yield* store
            .read({ topic, after: behind.position, ...chunk })
            .pipe(Effect.retry(patience), Effect.orDie)
          if (subscriber.paused || subscriber.closed) return
          catchUpWith(subscriber, topic, behind, records)
        }
      }).pipe(
        Effect.ensuring(
          Effect.sync(() => {
            subscriber.catchingUp = false
            // It may have been resumed between the last look and here.
            catchUp(subscriber)
          })
        )
      )
    )
  }

  // --- subscribing -------------------------------------------------------------------------------------------

  /** Learns where every topic of the pattern ends. What grows meanwhile is read when this is done. */
  const prepare = (feed: Feed): Effect.Effect<void, StoreUnavailable> =>
    Effect.gen(function* () {
      let after: string | undefined
      do {
        const page = yield* store.topics({
          pattern: feed.pattern,
          limit: 1_000,
          ...(after === undefined ? {} : { after })
        })
        // Whoever waited for it has left: nobody would move these ends on.
        if (feed.users === 0) return
        for (const { head, topic } of page.items) {
          if (tails.has(topic)) continue
          tails.set(topic, { seq: head, reading: false, grew: false })
          // Others follow it without having heard of it: they have nothing of it yet.
          fallBehind(topic, 0)
        }
        after = page.next
      } while (after !== undefined)
      feed.isReady = true
      for (const topic of feed.grew) {
        const tail = tailOf(topic)
        if (tail !== undefined) read(topic, tail)
      }
      feed.grew.clear()
    })

  const leave = (feed: Feed): void => {
    feed.users--
    if (feed.users > 0) return
    feeds.delete(feed.pattern.name)
    if (wildFeeds.delete(feed)) wildFeedsByTopic = new Map()
    // An end that nobody moves on would be a wrong one for the next who asks.
    for (const topic of tailsOf(feed.pattern)) if (feedsOf(topic).length === 0) tails.delete(topic)
  }

  const join = (pattern: Topic.Pattern): Effect.Effect<Feed, StoreUnavailable, Scope.Scope> =>
    Effect.gen(function* () {
      const feed = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const existing = feeds.get(pattern.name)
          if (existing !== undefined) {
            existing.users++
            return existing
          }
          const created: Feed = {
            pattern,
            subscribers: new Set(),
            ready: Deferred.makeUnsafe(),
            isReady: false,
            users: 1,
            grew: new Set(),
            pending: []
          }
          feeds.set(pattern.name, created)
          if (!pattern.concrete) {
            wildFeeds.add(created)
            wildFeedsByTopic = new Map()
          }
          fork(Deferred.into(prepare(created), created.ready))
          return created
        }),
        (feed) => Effect.sync(() => leave(feed))
      )
      yield* Deferred.await(feed.ready)
      return feed
    })

  const headsOf = ({ pattern }: Feed): ReadonlyMap<string, Position> =>
    new Map(tailsOf(pattern).map((topic) => [topic, tails.get(topic)!.seq]))

  return LiveFeed.of({
    history: store.history,
    subscribe: ({ from, history, pattern, sink }) =>
      Effect.gen(function* () {
        if (history !== undefined && history !== (yield* store.history)) {
          return yield* new UnrecoverablePosition({ reason: "it belongs to another history of the store" })
        }
        const feed = yield* join(pattern)
        const subscriber: Subscriber = {
          feed,
          sink,
          behind: new Map(),
          paused: true,
          catchingUp: false,
          closed: false
        }
        // From here on nothing is missed, and what is older is looked up.
        const heads = headsOf(feed)
        yield* Effect.acquireRelease(
          Effect.sync(() => feed.subscribers.add(subscriber)),
          () =>
            Effect.sync(() => {
              subscriber.closed = true
              feed.subscribers.delete(subscriber)
            })
        )
        const positions = yield* positionsOf(store, heads, from, pattern)
        for (const [topic, position] of positions) {
          if (position === heads.get(topic)) continue
          subscriber.behind.set(topic, { position, isAhead: false, fromStart: startsAt(from, topic) })
        }
        return {
          heads,
          start: () => {
            subscriber.paused = false
            catchUp(subscriber)
          },
          resume: () => {
            if (!subscriber.paused) return
            subscriber.paused = false
            catchUp(subscriber)
          },
          behind: () => [...subscriber.behind.values()].filter(({ isAhead }) => !isAhead).length
        }
      })
  })
})

/** Whether a topic is read from whatever its beginning is by now, and not from a position somebody had. */
const startsAt = (from: From, topic: string): boolean =>
  from === "start" ||
  (typeof from === "object" && "topics" in from && !Object.hasOwn(from.topics, topic) && from.rest !== "new")

export const layer: Layer.Layer<LiveFeed, never, EventStore | Appender> = Layer.effect(LiveFeed, make)
