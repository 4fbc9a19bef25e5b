/** The client for Effect, against a hub in this process: what it adds to the client, and what its types keep. */
import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Data,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Queue,
  Redacted,
  References,
  Schema,
  Stream,
  Tracer
} from "effect"
import { afterAll, beforeAll, expectTypeOf } from "vitest"
import * as EventHub from "../../src/client/effect.ts"
import { defineTopics, Nack } from "../../src/client/index.ts"
import { type EmbeddedHub, startEmbeddedHub } from "../support/EmbeddedHub.ts"
import { tokenFor } from "../support/tokens.ts"

let hub: EmbeddedHub
beforeAll(async () => void (hub = await startEmbeddedHub()))
afterAll(() => hub.stop())

const token = Effect.promise(() => tokenFor())

const quick = { reconnectBaseMs: 20, reconnectMaxMs: 100, closeTimeoutMs: 1_000 }

const connect = Effect.suspend(() => EventHub.make({ ...quick, url: hub.ws, getToken: token }))

/** The program's own error. */
class Declined extends Data.TaggedError("Declined")<{ readonly why: string }> {}

class Doorbell extends Context.Service<Doorbell, { readonly ring: Effect.Effect<void> }>()("test/Doorbell") {}

const events = <A, E>(items: Stream.Stream<A, E>, n: number) =>
  items.pipe(
    Stream.take(n),
    Stream.runCollect,
    Effect.map((all) => all.map((item) => (item as { readonly payload?: unknown }).payload))
  )

/** Dead letters of a group, as they come. */
const letters = (client: EventHub.Client, group: string, n: number) =>
  client.subscribe(`$dead.${group}.**`, { from: "start" }).pipe(Stream.take(n), Stream.runCollect)

const reasonOf = (item: object): unknown =>
  (item as { readonly headers?: Readonly<Record<string, string>> }).headers?.["dead-reason"]

describe("the connection", () => {
  it.live("is a scoped thing: it says how it stands, and is closed in the end", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const told = yield* Deferred.make<void>()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* connect
          expect(yield* client.state).toEqual({ _tag: "idle" })
          yield* client.states.pipe(
            Stream.runForEach(({ _tag }) => Effect.sync(() => seen.push(_tag))),
            Effect.andThen(Deferred.succeed(told, undefined)),
            Effect.forkDetach({ startImmediately: true })
          )
          expect((yield* client.connect).history).toEqual(expect.any(String))
          expect((yield* client.state)._tag).toBe("ready")
        })
      )
      yield* Deferred.await(told)
      expect(seen).toEqual(["idle", "connecting", "ready", "closed"])
    })
  )

  it.live("a refused token is a tagged error", () =>
    Effect.gen(function* () {
      const client = yield* EventHub.make({ ...quick, url: hub.ws, token: Redacted.make("no token") })
      const code = yield* client.connect.pipe(
        Effect.as("connected"),
        Effect.catchTag("HubError", ({ code, retryable }) => Effect.succeed(`${code} ${retryable}`))
      )
      expect(code).toBe("jwt_invalid false")
    })
  )

  it.live("a token may need a service, and is asked for again when that fails", () =>
    Effect.gen(function* () {
      const told: Array<unknown> = []
      let asked = 0
      const client = yield* EventHub.make({
        ...quick,
        url: hub.ws,
        getToken: Effect.gen(function* () {
          yield* Doorbell.use(({ ring }) => ring)
          if (asked === 1) return yield* new Declined({ why: "nobody is there" })
          return Redacted.make(yield* token)
        }),
        onError: (cause) => Effect.sync(() => told.push(Cause.squash(cause)))
      }).pipe(Effect.provideService(Doorbell, { ring: Effect.sync(() => void asked++) }))
      yield* client.connect
      expect(asked).toBe(2)
      expect(told).toEqual([expect.objectContaining({ _tag: "Declined" })])
    })
  )

  it.live("is a layer, for topics without types", () =>
    EventHub.EventHubClient.use((client) => client.publish("layer.a", 1)).pipe(
      Effect.map((published) => expect(published).toMatchObject({ seq: 1, duplicate: false })),
      Effect.provide(
        Layer.unwrap(Effect.map(token, (token) => EventHub.layer({ ...quick, url: hub.ws, token })))
      )
    )
  )
})

describe("publish", () => {
  it.live("fails with what the hub says", () =>
    Effect.gen(function* () {
      const client = yield* connect
      const error = yield* Effect.flip(client.publish("$own.topic", 1))
      expect(error).toMatchObject({ _tag: "HubError", code: "forbidden", retryable: false })
      expect(error.message).not.toBe("")
    })
  )

  it.live("dies of what no program can act on", () =>
    Effect.gen(function* () {
      const client = yield* connect
      const exit = yield* Effect.exit(client.publish("publish.bug", 1n))
      expect(Exit.isFailure(exit) && Cause.hasDies(exit.cause)).toBe(true)
    })
  )

  it.live("is taken back by interruption", () =>
    Effect.gen(function* () {
      const offered = yield* Deferred.make<string>()
      const client = yield* EventHub.make({ ...quick, url: hub.ws, getToken: Deferred.await(offered) })
      const fiber = yield* Effect.forkChild(client.publish("publish.back", "first"), {
        startImmediately: true
      })
      yield* Fiber.interrupt(fiber)
      yield* Deferred.completeWith(offered, token)
      expect(yield* client.publish("publish.back", "second")).toMatchObject({ seq: 1 })
    })
  )
})

describe("subscribe", () => {
  it.live("is a stream, which unsubscribes when it ends or is interrupted", () =>
    Effect.gen(function* () {
      const client = yield* connect
      for (const n of [1, 2, 3]) yield* client.publish("stream.a", n)
      const items = client.subscribe("stream.*", { from: "start" })
      // Of one pattern there is one at a time: the one before is gone each time.
      expect(yield* events(items, 2)).toEqual([1, 2])
      expect(yield* events(items, 3)).toEqual([1, 2, 3])
      const fiber = yield* Effect.forkChild(Stream.runDrain(items), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      expect(yield* events(items, 1)).toEqual([1])
    })
  )

  it.live("fails with what the hub says", () =>
    Effect.gen(function* () {
      const client = yield* connect
      const error = yield* Effect.flip(Stream.runDrain(client.subscribe("a..b")))
      expect(error).toMatchObject({ _tag: "HubError", code: "invalid_pattern" })
    })
  )

  it.live("stands when `live` has ended, and knows its position", () =>
    Effect.gen(function* () {
      const client = yield* connect
      yield* client.publish("live.a", "before")
      const position = yield* Effect.scoped(
        Effect.gen(function* () {
          const { items, position } = yield* client.live("live.*")
          yield* client.publish("live.a", "one")
          yield* client.publish("live.a", "two")
          const seen = yield* Queue.unbounded<unknown>()
          yield* items.pipe(
            Stream.runForEach((item) => Queue.offer(seen, item)),
            Effect.forkScoped
          )
          expect(yield* Queue.take(seen)).toMatchObject({ _tag: "event", payload: "one" })
          expect(yield* Queue.take(seen)).toMatchObject({ payload: "two" })
          return yield* position
        })
      )
      yield* client.publish("live.a", "three")
      expect(yield* events(client.subscribe("live.*", position), 1)).toEqual(["three"])
    })
  )

  it.live("ends when the client is closed", () =>
    Effect.gen(function* () {
      const standing = yield* Deferred.make<void>()
      const done = yield* Deferred.make<void, EventHub.HubError>()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* connect
          yield* client.live("closed.*").pipe(
            Effect.tap(() => Deferred.succeed(standing, undefined)),
            Effect.flatMap(({ items }) => Stream.runDrain(items)),
            Effect.scoped,
            Deferred.into(done),
            Effect.forkDetach
          )
          yield* Deferred.await(standing)
        })
      )
      yield* Deferred.await(done)
    })
  )
})

describe("consume", () => {
  it.live("acknowledges what succeeds, with the services of the program", () =>
    Effect.gen(function* () {
      const client = yield* connect
      for (const n of [1, 2, 3]) yield* client.publish("group.a", n)
      const handled = yield* Queue.unbounded<unknown>()
      const rings = yield* Queue.unbounded<void>()
      const consume = client
        .consume(
          "group.a",
          "ok",
          ({ payload }, { attempt, deadline, redelivered }) =>
            Effect.gen(function* () {
              yield* Doorbell.use(({ ring }) => ring)
              expect([attempt, redelivered, (yield* deadline) > 0]).toEqual([1, false, true])
              yield* Queue.offer(handled, payload)
            }),
          { from: "start", concurrency: 1 }
        )
        .pipe(Effect.provideService(Doorbell, { ring: Effect.asVoid(Queue.offer(rings, undefined)) }))
      const first = yield* Effect.forkChild(consume)
      expect(yield* Queue.takeN(handled, 3)).toEqual([1, 2, 3])
      yield* Fiber.interrupt(first)
      yield* client.publish("group.a", 4)
      yield* Effect.forkScoped(consume)
      expect(yield* Queue.take(handled)).toBe(4)
      expect(yield* Queue.size(rings)).toBe(4)
    })
  )

  it.live("refuses what fails and what dies, and tells of both", () =>
    Effect.gen(function* () {
      const told = yield* Queue.unbounded<unknown>()
      const client = yield* EventHub.make({
        ...quick,
        url: hub.ws,
        getToken: token,
        onError: (cause) => Queue.offer(told, Cause.squash(cause))
      })
      const handlers: Readonly<Record<string, Effect.Effect<void, Declined | Nack>>> = {
        fails: new Declined({ why: "no" }),
        dies: Effect.die(new Error("a bug")),
        poison: Effect.fail(new Nack("poison", { reason: "hopeless" }))
      }
      for (const name of Object.keys(handlers)) yield* client.publish(`refuse.${name}`, name)
      yield* client
        .consume("refuse.*", "refuse", ({ payload }) => handlers[String(payload)]!, {
          from: "start",
          maxAttempts: 1
        })
        .pipe(Effect.forkScoped)
      const reasons = (yield* letters(client, "refuse", 3)).map(reasonOf)
      expect(reasons.toSorted()).toEqual(["Declined", "a bug", "hopeless"])
      expect(yield* Queue.takeN(told, 3)).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ _tag: "Declined" }),
          expect.objectContaining({ message: "a bug" }),
          expect.objectContaining({ mode: "poison" })
        ])
      )
    })
  )

  it.live("hands the delivery to a handler that answers by itself", () =>
    Effect.gen(function* () {
      const client = yield* connect
      yield* client.publish("hand.a", 1)
      const seen = yield* Queue.unbounded<readonly [number, boolean]>()
      const consume = client.consume(
        "hand.a",
        "hand",
        (_event, { ack, attempt, deadline, extend, nack }) =>
          Effect.gen(function* () {
            const before = yield* deadline
            yield* extend("2 minutes")
            yield* Queue.offer(seen, [attempt, (yield* deadline) > before])
            if (attempt === 1) return yield* nack({ mode: "fail", delay: "1 millis", reason: "later" })
            yield* ack
            const late = yield* Effect.flip(nack())
            expect(late.code).toBe("stale")
          }),
        { from: "start" }
      )
      yield* Effect.forkScoped(consume)
      expect(yield* Queue.takeN(seen, 2)).toEqual([
        [1, true],
        [2, true]
      ])
    })
  )

  it.live(
    "interrupted, it interrupts its handlers, waits for them, and gives their events back uncounted",
    () =>
      Effect.gen(function* () {
        const told: Array<unknown> = []
        const client = yield* EventHub.make({
          ...quick,
          url: hub.ws,
          getToken: token,
          onError: (cause) => Effect.sync(() => told.push(cause))
        })
        yield* client.publish("give.a", 1)
        const begun = yield* Deferred.make<void>()
        const log: Array<string> = []
        const fiber = yield* client
          .consume(
            "give.a",
            "give",
            () =>
              Effect.gen(function* () {
                yield* Effect.addFinalizer(() => Effect.sync(() => log.push("released")))
                yield* Deferred.succeed(begun, undefined)
                return yield* Effect.never
              }).pipe(Effect.onInterrupt(() => Effect.sync(() => log.push("interrupted")))),
            { from: "start" }
          )
          .pipe(Effect.forkChild)
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(fiber)
        expect(log).toEqual(["interrupted", "released"])
        const attempt = yield* Deferred.make<number>()
        yield* client
          .consume("give.a", "give", (_event, delivery) => Deferred.succeed(attempt, delivery.attempt))
          .pipe(Effect.forkScoped)
        expect(yield* Deferred.await(attempt)).toBe(1)
        expect(told).toEqual([])
      })
  )

  it.live("interrupts a handler whose delivery is lost, without a word", () =>
    Effect.gen(function* () {
      const client = yield* connect
      yield* client.publish("lost.a", 1)
      const seen = yield* Queue.unbounded<string>()
      yield* client
        .consume(
          "lost.a",
          "lost",
          (_event, { attempt }) =>
            attempt > 1
              ? Queue.offer(seen, "again")
              : Effect.never.pipe(Effect.onInterrupt(() => Queue.offer(seen, "interrupted"))),
          // Not extended, so that the hub takes it back.
          { from: "start", ackTimeoutMs: 1_000, extendForMs: 0 }
        )
        .pipe(Effect.forkScoped)
      // The hub may be a little earlier than the client's clock.
      expect((yield* Queue.takeN(seen, 2)).toSorted()).toEqual(["again", "interrupted"])
    })
  )

  it.live("ends when the client is closed, which lets its handlers finish", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const log: Array<string> = []
      const done = yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* connect
          yield* client.publish("finish.a", 1)
          const fiber = yield* client
            .consume(
              "finish.a",
              "finish",
              () =>
                Deferred.succeed(begun, undefined).pipe(
                  Effect.andThen(Effect.sleep("20 millis")),
                  Effect.andThen(Effect.sync(() => log.push("finished")))
                ),
              { from: "start" }
            )
            .pipe(Effect.forkDetach)
          yield* Deferred.await(begun)
          return fiber
        })
      )
      yield* Fiber.join(done)
      expect(log).toEqual(["finished"])
    })
  )

  it.live("fails with what the hub says", () =>
    Effect.gen(function* () {
      const client = yield* connect
      yield* client.publish("conflict.a", 1)
      const standing = yield* Deferred.make<void>()
      yield* client
        .consume("conflict.a", "conflict", () => Deferred.succeed(standing, undefined), {
          from: "start",
          maxAttempts: 3
        })
        .pipe(Effect.forkScoped)
      yield* Deferred.await(standing)
      const other = yield* connect
      const error = yield* Effect.flip(
        other.consume("conflict.a", "conflict", () => Effect.void, { maxAttempts: 4 })
      )
      expect(error.code).toBe("group_conflict")
    })
  )

  it.live("logs what nobody asked to be told of", () =>
    Effect.gen(function* () {
      const logged = yield* Queue.unbounded<unknown>()
      const logger = Logger.make(({ fiber, message }) => {
        const { id, ...about } = fiber.getRef(References.CurrentLogAnnotations)
        Queue.offerUnsafe(logged, [message, about, typeof id])
      })
      yield* Effect.gen(function* () {
        const client = yield* connect
        yield* client.publish("logged.a", 1)
        yield* client
          .consume("logged.a", "logged", () => Effect.fail(new Nack("poison")), { from: "start" })
          .pipe(Effect.forkScoped)
        expect(yield* Queue.take(logged)).toEqual([
          ["the client of the hub met an error"],
          { topic: "logged.a", attempt: 1 },
          "string"
        ])
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  )
})

describe("traces", () => {
  it.live("go from who publishes to who handles, where there is one", () =>
    Effect.gen(function* () {
      const client = yield* connect
      const outside = yield* client.publish("trace.a", 1)
      const span = yield* Effect.flatMap(Effect.currentSpan, (span) =>
        Effect.as(client.publish("trace.a", 2), span)
      ).pipe(Effect.withSpan("placing an order"))
      const spans = yield* Queue.unbounded<Tracer.Span>()
      yield* client
        .consume(
          "trace.a",
          "trace",
          () => Effect.flatMap(Effect.currentSpan, (span) => Queue.offer(spans, span)),
          {
            from: "start",
            concurrency: 1
          }
        )
        .pipe(Effect.forkScoped)
      const [first, second] = yield* Queue.takeN(spans, 2)
      expect(outside.seq).toBe(1)
      expect(first).toMatchObject({ name: "EventHubClient.handle", kind: "consumer" })
      expect(first?.traceId).not.toBe(span.traceId)
      expect(second?.traceId).toBe(span.traceId)
      const item = yield* client.subscribe("trace.a", { from: "start" }).pipe(Stream.runHead)
      expect(item).toMatchObject({ value: { payload: 1 } })
      expect(item).not.toMatchObject({ value: { headers: expect.anything() } })
    })
  )
})

describe("typed topics", () => {
  const topics = defineTopics({
    "typed.*.paid": Schema.toStandardSchemaV1(Schema.Struct({ amount: Schema.FiniteFromString })),
    "typed.*.note": Schema.toStandardSchemaV1(Schema.String)
  })

  /** As a program makes a service of its own. */
  class Hub extends Context.Service<Hub, EventHub.Client<typeof topics>>()("test/Hub") {
    static readonly layer = Layer.effect(
      Hub,
      Effect.suspend(() =>
        EventHub.make({ ...quick, url: hub.ws, getToken: token, topics, validatePublish: true })
      )
    )
  }

  it.live("are kept by a service of one's own", () =>
    Effect.gen(function* () {
      const hub = yield* Hub
      yield* hub.publish("typed.eu.paid", { amount: "3" })
      // @ts-expect-error: amounts are strings on the wire
      const refused = yield* Effect.flip(hub.publish("typed.eu.paid", { amount: 3 }))
      expect(refused).toMatchObject({ _tag: "InvalidPayload", topic: "typed.eu.paid" })
      if (refused._tag === "InvalidPayload") expect(refused.issues).toHaveLength(1)
      // @ts-expect-error: no definition matches
      expect((yield* Effect.flip(hub.publish("typed..payed", 3)))._tag).toBe("HubError")
      const [item] = yield* hub
        .subscribe("typed.*.paid", { from: "start" })
        .pipe(Stream.take(1), Stream.runCollect)
      if (item?._tag !== "event") throw new Error("it is no event")
      expectTypeOf(item.payload).toEqualTypeOf<{ readonly amount: number }>()
      expect(item.payload).toEqual({ amount: 3 })
      const amounts = yield* Queue.unbounded<number>()
      const consuming = hub.consume(
        "typed.*.paid",
        "typed",
        ({ payload }) => Queue.offer(amounts, payload.amount),
        { from: "start" }
      )
      expectTypeOf(consuming).toEqualTypeOf<Effect.Effect<void, EventHub.HubError>>()
      yield* Effect.forkScoped(consuming)
      expect(yield* Queue.take(amounts)).toBe(3)
    }).pipe(Effect.provide(Hub.layer))
  )
})
