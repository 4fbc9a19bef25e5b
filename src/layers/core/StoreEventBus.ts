/** The EventBus over the parts of this hub: what the gateway does for sockets, for programs in the process. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Event from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { Appender } from "../../services/Appender.ts"
import {
  EventBus,
  type Handled,
  Poison,
  type Publishable,
  type Published,
  type Received,
  Release,
  type Trimmed
} from "../../services/EventBus.ts"
import type { AppendResult } from "../../services/EventStore.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { type Answer, type GroupEvent, GroupDelivery } from "../../services/GroupDelivery.ts"
import { GroupNotFound } from "../../services/GroupStore.ts"
import { Ids } from "../../services/Ids.ts"
import { LiveFeed } from "../../services/LiveFeed.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { appendTraced } from "./tracedEntries.ts"
import { parentOf, withTraceparent } from "./traceparent.ts"

/** Events a follower may have waiting, before the feed leaves what comes to the store. */
const followAhead = 1_000

/** What was handled is not to be handled again because the store was away: it is answered as long as it takes. */
const patience = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("500 millis")])

/** How long a consumer that stops waits for its goodbye to be durable. */
const leaveTimeout = "5 seconds"

const published = (result: AppendResult): Result.Result<Published, Event.InvalidEvent | StoreUnavailable> => {
  if (result._tag === "Appended") {
    const { duplicate, id, seq, storedAt, topic } = result
    return Result.succeed({ topic, id, seq, storedAt, duplicate })
  }
  return result.reason === "too_large"
    ? Result.fail(new Event.InvalidEvent({ reason: "it is too large for the store" }))
    : Result.fail(new StoreUnavailable({ operation: "EventBus.publish", cause: new Error(result.reason) }))
}

/** What a handler's end says about the event. */
const answerOf = ({ attempt, record }: GroupEvent, exit: Exit.Exit<void, unknown>): Answer => {
  const about = { topic: record.topic, ids: [record.id], attempt }
  if (Exit.isSuccess(exit)) return { _tag: "Ack", ...about }
  const error = Cause.squash(exit.cause)
  if (error instanceof Poison) return { _tag: "Nack", ...about, mode: "poison", reason: error.reason }
  const reason = error instanceof Error ? error.message : String(error)
  return error instanceof Release
    ? { _tag: "Nack", ...about, mode: "release", reason, delayMs: error.delayMs }
    : { _tag: "Nack", ...about, mode: "fail", reason }
}

const make = Effect.fnUntraced(function* (limits: Event.EventLimits = Settings.limits) {
  const appender = yield* Appender
  const feed = yield* LiveFeed
  const groups = yield* GroupDelivery
  const ids = yield* Ids
  const traces = yield* EventTraces

  const encode = (event: Publishable, now: number): Effect.Effect<Event.EventRecord, Event.EventError> =>
    Effect.suspend(() => {
      const whole = { ...event, id: event.id ?? ids.next(), ts: event.ts ?? now }
      return withTraceparent(whole).pipe(
        Effect.flatMap((traced) => Event.accept(traced, limits)),
        // An event whose own headers are all that it may have goes without a trace.
        Effect.catch(() => Event.accept(whole, limits))
      )
    })

  return EventBus.of({
    publish: (events) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const records = yield* Effect.forEach(events, (event) => encode(event, now))
        const results = yield* appendTraced(traces, "publish", records, appender.append)
        return yield* Effect.forEach(results, (result) => Effect.fromResult(published(result)))
      }),

    subscribe: ({ from = "new", history, pattern }) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const queue = yield* Queue.unbounded<Received | Trimmed>()
          const subscription = yield* feed.subscribe({
            pattern: yield* Topic.pattern(pattern),
            from,
            history,
            sink: {
              deliver: ({ records }) => {
                if (Queue.sizeUnsafe(queue) >= followAhead) return false
                for (const record of records) {
                  Queue.offerUnsafe(queue, { _tag: "Received", event: Event.decode(record) })
                }
                return true
              },
              gap: (gap) => {
                Queue.offerUnsafe(queue, { _tag: "Trimmed", ...gap })
              }
            }
          })
          subscription.start()
          return Stream.fromEffectRepeat(
            Effect.tap(Queue.takeAll(queue), () => Effect.sync(subscription.resume))
          ).pipe(Stream.flattenIterable)
        })
      ),

    consume: ({ concurrency = 16, from = "new", group, options = {}, pattern }, handler) =>
      Effect.scoped(
        Effect.gen(function* () {
          const queue = yield* Queue.unbounded<GroupEvent>()
          const ended = yield* Deferred.make<never, GroupNotFound>()
          const member = yield* groups.join({
            pattern: yield* Topic.pattern(pattern),
            group,
            wanted: options,
            from,
            history: undefined,
            credit: concurrency,
            sink: {
              deliver: (events) => {
                for (const event of events) Queue.offerUnsafe(queue, event)
              },
              gap: () => {},
              end: () => {
                Deferred.doneUnsafe(ended, Effect.fail(new GroupNotFound({ group })))
              }
            }
          })
          // Handlers that are interrupted did not fail: their events go back without counting an attempt.
          yield* Effect.addFinalizer(() =>
            member.leave.pipe(Effect.timeoutOption(leaveTimeout), Effect.ignore)
          )
          const handle = Effect.flatMap(Queue.take(queue), (delivery) => {
            const event: Handled = { ...Event.decode(delivery.record), attempt: delivery.attempt }
            const parent = parentOf(event)
            return Effect.exit(handler(event)).pipe(
              Effect.withSpan("EventBus.handle", {
                kind: "consumer",
                attributes: { topic: event.topic, seq: event.seq, attempt: event.attempt },
                ...(parent === undefined ? {} : { parent })
              }),
              Effect.flatMap((exit) =>
                Effect.callback<void, StoreUnavailable>((resume) => {
                  member.answer(answerOf(delivery, exit), (outcomes) =>
                    resume("_tag" in outcomes ? Effect.fail(outcomes) : Effect.void)
                  )
                }).pipe(Effect.retry(patience), Effect.orDie)
              )
            )
          })
          member.start()
          const workers = Effect.forEach(
            Array.from({ length: concurrency }, (_, i) => i),
            () => Effect.forever(handle),
            { concurrency: "unbounded", discard: true }
          )
          return yield* Effect.raceFirst(Effect.andThen(workers, Effect.never), Deferred.await(ended))
        })
      )
  })
})

export const layer = (
  limits?: Event.EventLimits
): Layer.Layer<EventBus, never, Appender | LiveFeed | GroupDelivery | Ids> =>
  Layer.effect(EventBus, make(limits))
