/**
 * The client for programs built with Effect: publishes are effects, live subscriptions are streams, handlers of a group
 * are effects that run as fibers, errors are tagged, and a scope closes the client.
 *
 * It is a thin cover over `createClient`. What is interrupted here is given back to the hub: a publish that was not
 * sent, a subscription, and the events whose handlers had not ended.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { NackMode, WireEvent } from "../protocol/Messages.ts"
import { decodeTraceparent, encodeTraceparent, traceparentHeader } from "../protocol/Traceparent.ts"
import { type CommonOptions, createClient } from "./Client.ts"
import type { ConnectionState, Welcome } from "./Connection.ts"
import type * as Group from "./GroupSubscription.ts"
import * as Errors from "./HubError.ts"
import type { LiveItem, LiveSubscriptionOptions, Position } from "./LiveSubscription.ts"
import { refusalOf } from "./Nack.ts"
import type { Published, PublishRequest } from "./Publisher.ts"
import type { AnyTopics, Issue, PatternOf, PublishPayload, ReceivedPayload, TopicOf } from "./topics.ts"

/** The hub refused, or did not answer: `HubError` of the client, for `catchTag`. */
export class HubError extends Data.TaggedError("HubError")<{
  readonly code: Errors.ClientErrorCode
  readonly message: string
  /** The same may succeed later. */
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined
}> {}

/** A payload that the schema of its topic refuses: `InvalidPayload` of the client, for `catchTag`. */
export class InvalidPayload extends Data.TaggedError("InvalidPayload")<{
  readonly topic: string
  readonly issues: ReadonlyArray<Issue>
  readonly message: string
}> {}

type Token = string | Redacted.Redacted

/** What `createClient` takes, in terms of Effect. */
export type Options<T extends AnyTopics = AnyTopics, R = never> = CommonOptions & {
  readonly url: string
  /** What `defineTopics` made: gives payloads their types, and refuses those that come and do not fit. */
  readonly topics?: T
  /** Payloads are looked at before they are published, too. */
  readonly validatePublish?: boolean
  /**
   * What belongs to no call: a handler or `getToken` that failed, an `InvalidPayload` or a gap in a group. Logged
   * as a warning by default.
   */
  readonly onError?: (cause: Cause.Cause<unknown>) => Effect.Effect<unknown, never, R>
} & (
    | { readonly token: Token; readonly getToken?: undefined }
    /** Run on every connection, before a token ends, and when the hub wants a new one. */
    | { readonly getToken: Effect.Effect<Token, unknown, R>; readonly token?: undefined }
  )

export type SubscribeOptions = Omit<LiveSubscriptionOptions, "signal" | "onGap" | "onInvalid" | "onEnd">

export type ConsumeOptions = Omit<Group.ConsumeOptions, "signal" | "onGap" | "onEnd">

/** A live subscription that stands. */
export interface Live<P = unknown> {
  /** Its events and gaps; to be run once. Ends when the client is closed. */
  readonly items: Stream.Stream<LiveItem<P>, HubError>
  /** Where it stands: options for another one, which goes on behind it. An item counts when the next one is asked for. */
  readonly position: Effect.Effect<Position>
}

export interface NackOptions {
  readonly mode?: NackMode
  /** Not delivered again before; takes the place of the back-off. */
  readonly delay?: Duration.Input
  /** Stands in the dead letter. */
  readonly reason?: string
}

/** What a handler may know of a delivery, and do with it before it ends. */
export interface Delivery {
  /** 1 for the first delivery. */
  readonly attempt: number
  readonly redelivered: boolean
  /** Milliseconds since 1970, the hub's clock. */
  readonly deadline: Effect.Effect<number>
  /** Answers before the handler ends; how it ends means nothing then. */
  readonly ack: Effect.Effect<void, HubError>
  readonly nack: (options?: NackOptions) => Effect.Effect<void, HubError>
  /** It takes so much longer, from now on. What takes long is extended anyway, up to `extendForMs`. */
  readonly extend: (by: Duration.Input) => Effect.Effect<void, HubError>
}

/** What handlers need of a program: a scope and a span each has of its own. */
export type Needs<R> = Exclude<Exclude<R, Scope.Scope>, Tracer.ParentSpan>

export interface Client<T extends AnyTopics = AnyTopics> {
  readonly state: Effect.Effect<ConnectionState>
  /** The state there is, and each that follows, of which a slow reader gets the last 16; ends with `closed`. */
  readonly states: Stream.Stream<ConnectionState>
  /** Ends when the client is connected; the first of the others connects, too. */
  readonly connect: Effect.Effect<Welcome, HubError>
  /**
   * Ends when the event is durable. Interrupted, it is taken back where it was not sent; one that was may have happened.
   * Inside a span it has one of its own, which the event hands on to whoever handles it.
   */
  readonly publish: <const N extends string>(
    topic: N & TopicOf<T, N>,
    payload: PublishPayload<T, N>,
    options?: Omit<PublishRequest, "signal">
  ) => Effect.Effect<Published, HubError | InvalidPayload>
  /** Subscribes when it is run, and unsubscribes when it ends. Ends when the client is closed. */
  readonly subscribe: <const P extends string>(
    pattern: P & PatternOf<T, P>,
    options?: SubscribeOptions
  ) => Stream.Stream<LiveItem<ReceivedPayload<T, P>>, HubError>
  /** The same for who wants to know when it stands, and where; the scope unsubscribes. */
  readonly live: <const P extends string>(
    pattern: P & PatternOf<T, P>,
    options?: SubscribeOptions
  ) => Effect.Effect<Live<ReceivedPayload<T, P>>, HubError, Scope.Scope>
  /**
   * Runs the handler for a share of the events, `concurrency` at a time, until it is interrupted or the client is
   * closed; fails when the hub ends it.
   *
   * An event is acknowledged when its handler succeeds. One that fails or dies refuses it and is told `onError`;
   * its error may say how, by `nack` (see `Nack`). A handler whose delivery is lost is interrupted, and so are all when
   * this is: their events go back to the group, and no attempt is counted for the latter.
   */
  readonly consume: <const P extends string, A, E, R>(
    pattern: P & PatternOf<T, P>,
    group: string,
    handler: (event: WireEvent<ReceivedPayload<T, P>>, delivery: Delivery) => Effect.Effect<A, E, R>,
    options?: ConsumeOptions
  ) => Effect.Effect<void, HubError, Needs<R>>
}

/** The client of a hub whose topics have no types. With `defineTopics` make a service of your own of `make`. */
export class EventHubClient extends Context.Service<EventHubClient, Client>()(
  "event-hub/client/effect/EventHubClient"
) {}

/** What a program can act on, by tag; nothing for what is a bug, or a program's own error. */
const taggedOf = (error: unknown): HubError | InvalidPayload | undefined => {
  if (error instanceof Errors.HubError) {
    const { code, message, retryable, retryAfterMs } = error
    return new HubError({ code, message, retryable, retryAfterMs })
  }
  if (error instanceof Errors.InvalidPayload) {
    const { issues, message, topic } = error
    return new InvalidPayload({ topic, issues, message })
  }
  return undefined
}

const request = <A>(run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, HubError | InvalidPayload> =>
  Effect.tryPromise({ try: run, catch: (error) => error }).pipe(
    Effect.catch((error) => {
      const tagged = taggedOf(error)
      return tagged ? Effect.fail(tagged) : Effect.die(error)
    })
  )

/** Where no payload is looked at. */
const ask = <A>(run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, HubError> =>
  Effect.catchTag(request(run), "InvalidPayload", Effect.die)

const textOf = (token: Token): string => (Redacted.isRedacted(token) ? Redacted.value(token) : token)

/** What stands in the dead letter; errors of Effect often have a name and no message. */
const reasonOf = (error: unknown): string =>
  (error instanceof Error ? error.message || error.name : String(error)).slice(0, 1_000)

/** An event that says itself where it belongs is left alone. */
const traced = <A, E>(
  topic: string,
  options: PublishRequest,
  publish: (options: PublishRequest) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.flatMap(Effect.option(Effect.currentParentSpan), (around) =>
    Option.isNone(around)
      ? publish(options)
      : Effect.flatMap(Effect.orDie(Effect.currentSpan), (span) =>
          publish({
            ...options,
            headers: { [traceparentHeader]: encodeTraceparent(span), ...options.headers }
          })
        ).pipe(Effect.withSpan("EventHubClient.publish", { kind: "producer", attributes: { topic } }))
  )

const handling = <A, E, R>(
  { headers, seq, topic }: WireEvent,
  attempt: number,
  handler: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Needs<R>> => {
  const parent = decodeTraceparent(headers?.[traceparentHeader] ?? "")
  return Effect.withSpan(Effect.scoped(handler), "EventHubClient.handle", {
    kind: "consumer",
    attributes: { topic, seq, attempt },
    ...(parent && { parent: Tracer.externalSpan(parent) })
  })
}

const deliveryOf = (delivery: Group.Delivery): Delivery => ({
  attempt: delivery.attempt,
  redelivered: delivery.redelivered,
  deadline: Effect.sync(() => delivery.deadline),
  ack: ask(() => delivery.ack()),
  nack: ({ delay, mode, reason } = {}) =>
    ask(() =>
      delivery.nack({ mode, reason, delayMs: delay === undefined ? undefined : Duration.toMillis(delay) })
    ),
  extend: (by) => ask(() => delivery.extend(Duration.toMillis(by)))
})

/** Says goodbye, and waits until the hub has heard it. Without an answer the connection, or its end, says it. */
const leave = (subscription: { readonly unsubscribe: () => Promise<void> }): Effect.Effect<void> =>
  Effect.ignore(Effect.tryPromise(() => subscription.unsubscribe()))

/** A client that is closed with the scope: handlers that run and publishes under way get `closeTimeoutMs` to end. */
export const make = Effect.fnUntraced(function* <const T extends AnyTopics = AnyTopics, R = never>({
  getToken,
  onError = (cause) => Effect.logWarning("the client of the hub met an error", cause),
  token,
  ...options
}: Options<T, R>): Effect.fn.Return<Client<T>, never, R | Scope.Scope> {
  const fibers = yield* FiberSet.make()
  const run = yield* FiberSet.runtime(fibers)<R>()
  const runPromise = yield* FiberSet.runtimePromise(fibers)<R>()
  const report = (cause: Cause.Cause<unknown>, about: Readonly<Record<string, unknown>> = {}): void =>
    void run(Effect.annotateLogs(onError(cause), about))

  const client = yield* Effect.acquireRelease(
    Effect.sync(() =>
      createClient<T>({
        ...options,
        ...(getToken
          ? { getToken: () => runPromise(Effect.map(getToken, textOf)) }
          : { token: textOf(token) })
      })
    ),
    (client) => Effect.promise(() => client.close())
  )
  const refuse = (delivery: Group.Delivery, cause: Cause.Cause<unknown>): void => {
    // Nobody waits for it any more: there is nothing to answer, and it did not fail.
    if (delivery.signal.aborted && Cause.hasInterruptsOnly(cause)) return
    const error = Cause.squash(cause)
    void delivery.nack({ reason: reasonOf(error), ...refusalOf(error) })
    const { id, topic } = delivery.event
    report(cause, { topic, id, attempt: delivery.attempt })
  }
  client.on("error", (error) => report(Cause.fail(taggedOf(error) ?? error)))

  const live: Client<T>["live"] = (pattern, options) =>
    Effect.acquireRelease(
      Effect.sync(() => client.subscribe(pattern, options)),
      leave
    ).pipe(
      Effect.tap((subscription) => ask(() => subscription.ready)),
      Effect.map((subscription) => ({
        items: Stream.fromAsyncIterable(subscription, (error) => error).pipe(
          Stream.catch((error) => {
            const tagged = taggedOf(error)
            return tagged?._tag === "HubError" ? Stream.fail(tagged) : Stream.die(error)
          })
        ),
        position: Effect.sync(() => subscription.position)
      }))
    )

  return {
    state: Effect.sync(() => client.state),

    states: Stream.callback<ConnectionState>(
      (queue) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const tell = (state: ConnectionState): void => {
              Queue.offerUnsafe(queue, state)
              if (state._tag === "closed") Queue.endUnsafe(queue)
            }
            const stop = client.on("state", tell)
            tell(client.state)
            return stop
          }),
          (stop) => Effect.sync(stop)
        ),
      // Who is slow misses old ones, and never the last.
      { bufferSize: 16, strategy: "sliding" }
    ),

    connect: ask((signal) => client.connect({ signal })),

    publish: (topic, payload, options = {}) =>
      traced(topic, options, (traced) =>
        request((signal) => client.publish(topic, payload, { ...traced, signal }))
      ),

    subscribe: (pattern, options) => Stream.unwrap(Effect.map(live(pattern, options), ({ items }) => items)),

    live,

    consume: (pattern, group, handler, options) =>
      Effect.scoped(
        Effect.gen(function* () {
          // Made first, so ended last: what is still at work when the group was left is interrupted, and waited for.
          const fork = yield* FiberSet.makeRuntime<Needs<Effect.Services<ReturnType<typeof handler>>>>()
          const subscription = yield* Effect.acquireRelease(
            Effect.sync(() =>
              client.consume(
                pattern,
                group,
                (event, delivery) =>
                  new Promise<void>((resolve) => {
                    const { signal } = delivery
                    const handled = handling(event, delivery.attempt, handler(event, deliveryOf(delivery)))
                    fork(handled, { signal }).addObserver((exit) => {
                      if (Exit.isFailure(exit)) refuse(delivery, exit.cause)
                      resolve()
                    })
                  }),
                options
              )
            ),
            leave
          )
          yield* ask(() => subscription.done)
        })
      )
  }
})

/** The same as a layer, for topics without types. */
export const layer = <R = never>(options: Options<AnyTopics, R>): Layer.Layer<EventHubClient, never, R> =>
  Layer.effect(EventHubClient, make(options))
