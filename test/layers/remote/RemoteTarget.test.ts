/** What becomes of a batch that is published to a hub which takes some of it, at once, later, or never. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result } from "effect"
import fc from "fast-check"
import { encodeEvent, type EventRecord, type NewEvent } from "../../../src/domain/Event.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import * as RemoteTarget from "../../../src/layers/remote/RemoteTarget.ts"
import { OutboxTarget, type TargetResult } from "../../../src/services/OutboxTarget.ts"
import { FakeHub, type Reaction } from "./FakeHub.ts"

const recordOf = (event: Partial<NewEvent> & { readonly id: string }): EventRecord =>
  Result.getOrThrow(encodeEvent({ topic: "a", ts: 1, payload: 1, ...event }, Settings.limits))

/** `a1`: of the key `a`; `-1`: of none. */
const recordsOf = (...ids: ReadonlyArray<string>): ReadonlyArray<EventRecord> =>
  ids.map((id) => recordOf(id.startsWith("-") ? { id } : { id, key: id[0]! }))

const withTarget = <A, E>(
  hub: FakeHub,
  use: (target: OutboxTarget["Service"]) => Effect.Effect<A, E>,
  more: Partial<RemoteTarget.Options> = {}
): Effect.Effect<A, E | RemoteTarget.CannotBring> =>
  Effect.flatMap(OutboxTarget, use).pipe(
    Effect.provide(
      RemoteTarget.layer({
        url: "ws://hub.test",
        token: "token",
        WebSocket: hub.WebSocket,
        reconnectBaseMs: 1,
        reconnectMaxMs: 2,
        ...more
      })
    )
  )

const brief = (results: ReadonlyArray<TargetResult>): ReadonlyArray<string> =>
  results.map((result) => `${result.id} ${result._tag === "Appended" ? "stored" : result.reason}`)

const refusing =
  (refused: Readonly<Record<string, Reaction | ReadonlyArray<Reaction>>>) =>
  ({ opts: { id } }: { readonly opts: { readonly id: string } }): Reaction => {
    const reaction = refused[id]
    if (reaction === undefined) return "store"
    if (!Array.isArray(reaction)) return reaction as Reaction
    return (reaction as Array<Reaction>).shift() ?? "store"
  }

describe("RemoteTarget", () => {
  it.live("publishes each record as it is, under its own id, and answers where it is stored", () => {
    const hub = new FakeHub()
    const event = {
      id: "7",
      topic: "orders.created",
      ts: 12,
      type: "t",
      key: "k",
      headers: { h: "1" },
      tags: ["x"],
      caused_by: "6",
      sid: "s",
      payload: { deep: [null, "ö"] }
    }
    return withTarget(hub, (target) =>
      Effect.gen(function* () {
        const stored = { _tag: "Appended", topic: "orders.created", id: "7", seq: 101, storedAt: 5 }
        expect(yield* target.append([recordOf(event)])).toEqual([{ ...stored, duplicate: false }])
        expect(yield* target.append([recordOf(event)])).toEqual([{ ...stored, duplicate: true }])
        const { payload, topic, ...opts } = event
        expect(hub.sent[0]).toEqual({ topic, payload, opts })
        expect(yield* target.append([])).toEqual([])
      })
    )
  })

  it.live("has one event of a key under way, and those of other keys beside it, up to its limit", () => {
    const hub = new FakeHub()
    const records = Array.from({ length: 60 }, (_, i) => recordOf({ id: `${i}`, key: `${i % 20}` }))
    return withTarget(
      hub,
      (target) =>
        Effect.gen(function* () {
          const results = yield* Effect.all(
            [target.append(records.slice(0, 30)), target.append(records.slice(30))],
            {
              concurrency: 2
            }
          )
          expect(results.flat().map(({ id }) => id)).toEqual(records.map(({ id }) => id))
          expect(hub.stored).toHaveLength(60)
          expect(hub.mostUnderWay).toBe(8)
        }),
      { maxInFlight: 8 }
    )
  })

  const later = { code: "rate_limited", retryAfterMs: 2 }

  it.live.each<[string, Readonly<Record<string, Reaction | ReadonlyArray<Reaction>>>, ReadonlyArray<string>]>(
    [
      ["a frame", { a1: { code: "payload_too_large" } }, ["a1 invalid", "a2 stored", "-1 stored"]],
      ["a topic", { a1: { code: "invalid_topic" } }, ["a1 invalid", "a2 stored", "-1 stored"]],
      ["its form", { a1: { code: "bad_request" } }, ["a1 invalid", "a2 stored", "-1 stored"]],
      ["no right", { a1: { code: "forbidden" } }, ["a1 forbidden", "a2 behind_refused", "-1 stored"]],
      ["a store", { a1: { code: "unavailable" } }, ["a1 unavailable", "a2 behind_refused", "-1 stored"]],
      ["a bug", { a1: { code: "internal" } }, ["a1 unavailable", "a2 behind_refused", "-1 stored"]],
      ["a rate", { a1: [later, later], "-1": [later] }, ["a1 stored", "a2 stored", "-1 stored"]],
      [
        "a long queue",
        { a1: [{ code: "unavailable", retryAfterMs: 1 }] },
        ["a1 stored", "a2 stored", "-1 stored"]
      ],
      [
        "a rate that lasts",
        { a1: { code: "rate_limited", retryAfterMs: 60_000 } },
        ["a1 later", "a2 behind_refused", "-1 stored"]
      ],
      ["an answer that is lost", { a1: ["lost"] }, ["a1 stored", "a2 stored", "-1 stored"]],
      ["a connection", { a1: ["gone"] }, ["a1 stored", "a2 stored", "-1 stored"]]
    ]
  )("says what is refused over %s", ([, reactions, expected]) => {
    const hub = new FakeHub(refusing(reactions))
    return withTarget(hub, (target) =>
      Effect.gen(function* () {
        const results = yield* target.append(recordsOf("a1", "a2", "-1"))
        expect(brief(results)).toEqual(expected)
        expect(new Set(hub.stored.map(({ opts }) => opts.id)).size).toBe(hub.stored.length)
      })
    )
  })

  it.live("says in the hub's words what it did not take", () =>
    withTarget(new FakeHub(refusing({ a1: { code: "forbidden" } })), (target) =>
      Effect.gen(function* () {
        const [result] = yield* target.append(recordsOf("a1"))
        expect(result).toEqual({
          _tag: "NotAppended",
          topic: "a",
          id: "a1",
          reason: "forbidden",
          message: "it is forbidden"
        })
      })
    )
  )

  it.live("gives up what a hub does not answer, and sends nothing of it any more", () => {
    const hub = new FakeHub(() => "silent")
    return withTarget(
      hub,
      (target) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(target.append(recordsOf("a1", "a2", "b1")))
          expect(error).toMatchObject({ _tag: "StoreUnavailable", operation: "publish to hub.test" })
          expect(hub.sent.map(({ opts }) => opts.id)).toEqual(["a1", "b1"])
          hub.end()
          yield* Effect.flip(target.append(recordsOf("c1")))
          expect(hub.sent.map(({ opts }) => opts.id)).toEqual(["a1", "b1", "c1"])
          expect(hub.connections).toBe(2)
        }),
      { answerTimeoutMs: 300 }
    )
  })

  it.live("blames only the event that a hub does not answer while it answers others", () =>
    withTarget(
      new FakeHub(refusing({ a1: "silent" })),
      (target) =>
        Effect.gen(function* () {
          const results = yield* target.append(recordsOf("a1", "a2", "b1", "b2", "-1"))
          expect(brief(results)).toEqual([
            "a1 unavailable",
            "a2 behind_refused",
            "b1 stored",
            "b2 stored",
            "-1 stored"
          ])
          // It is stored for all that, and this is the same event.
          expect(brief(yield* target.append(recordsOf("c1")))).toEqual(["c1 stored"])
        }),
      { answerTimeoutMs: 500 }
    )
  )

  it.live("waits for a hub that is not there, and says in time that it is not", () => {
    class Nowhere {
      readyState = 0
      onopen = null
      onmessage = null
      onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null
      onerror = null
      constructor() {
        setImmediate(() => this.onclose?.({ code: 1006, reason: "" }))
      }
      send(): void {}
      close(): void {}
    }
    return withTarget(
      new FakeHub(),
      (target) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(target.append(recordsOf("a1")))
          expect(error._tag).toBe("StoreUnavailable")
        }),
      { answerTimeoutMs: 30, WebSocket: Nowhere }
    )
  })

  it.live("says why a hub does not take its token, and asks again with the next batch", () => {
    let isThere = false
    return withTarget(
      new FakeHub(),
      (target) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(target.append(recordsOf("a1")))
          expect(error).toMatchObject({ _tag: "StoreUnavailable", cause: new Error("no token today") })
          isThere = true
          const results = yield* Effect.retry(target.append(recordsOf("a1")), { times: 100 })
          expect(brief(results)).toEqual(["a1 stored"])
        }),
      {
        answerTimeoutMs: 50,
        token: () => (isThere ? "token" : Promise.reject(new Error("no token today")))
      }
    )
  })

  it.live("has no more events waiting than it may", () =>
    withTarget(
      new FakeHub(() => "silent"),
      (target) =>
        Effect.gen(function* () {
          const first = yield* Effect.forkChild(target.append(recordsOf("a1", "b1")), {
            startImmediately: true
          })
          expect(yield* Effect.flip(target.append(recordsOf("c1", "d1")))).toMatchObject({
            _tag: "Overloaded",
            queued: 2
          })
          yield* Fiber.interrupt(first)
          expect(yield* Effect.flip(target.append(recordsOf("c1", "d1")))).toMatchObject({
            _tag: "StoreUnavailable"
          })
        }),
      { maxQueuedEvents: 3, answerTimeoutMs: 30 }
    )
  )

  it.live.each<[Partial<RemoteTarget.Options>, string]>([
    [{ url: "http://hub.test" }, "its 'url' must begin with ws:// or wss://"],
    [{ url: "hub" }, "its 'url' must begin with ws:// or wss://"],
    [{ maxInFlight: 0 }, "'maxInFlight' must be a whole number above 0"],
    [{ answerTimeoutMs: 0.5 }, "'answerTimeoutMs' must be a whole number above 0"],
    [{ maxQueuedEvents: -1 }, "'maxQueuedEvents' must be a whole number above 0"]
  ])("refuses %j", ([more, reason]) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(withTarget(new FakeHub(), () => Effect.void, more))
      expect(exit).toEqual(Exit.fail(new RemoteTarget.CannotBring({ reason })))
    })
  )

  const reaction: fc.Arbitrary<Reaction> = fc.oneof(
    { weight: 12, arbitrary: fc.constant<Reaction>("store") },
    { weight: 3, arbitrary: fc.constant<Reaction>({ code: "rate_limited", retryAfterMs: 1 }) },
    { weight: 2, arbitrary: fc.constant<Reaction>({ code: "unavailable" }) },
    { weight: 2, arbitrary: fc.constant<Reaction>({ code: "unavailable", retryAfterMs: 1 }) },
    {
      weight: 1,
      arbitrary: fc.constantFrom<Reaction>({ code: "internal" }, { code: "forbidden" }, "lost", "gone")
    }
  )

  it("stores each event once and each key in order, whatever is refused or lost", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ topic: fc.constantFrom("a", "b"), key: fc.constantFrom("x", "y", "z", undefined) }),
          {
            minLength: 1,
            maxLength: 40
          }
        ),
        fc.infiniteStream(reaction),
        fc.infiniteStream(fc.nat(3)),
        fc.integer({ min: 1, max: 10 }),
        fc.integer({ min: 1, max: 30 }),
        async (shapes, reactions, turns, maxInFlight, batchSize) => {
          const hub = new FakeHub(
            () => reactions.next().value,
            () => turns.next().value
          )
          const records = shapes.map(({ key, topic }, i) =>
            recordOf({ id: `${i}`, topic, ...(key === undefined ? {} : { key }) })
          )
          await Effect.runPromise(
            withTarget(
              hub,
              (target) =>
                Effect.gen(function* () {
                  let left = records
                  for (let tries = 0; left.length > 0; tries++) {
                    expect(tries).toBeLessThan(2_000)
                    const batch = left.slice(0, batchSize)
                    const results = yield* target.append(batch)
                    expect(results.map(({ id, topic }) => ({ id, topic }))).toEqual(
                      batch.map(({ id, topic }) => ({ id, topic }))
                    )
                    const done = new Set(results.flatMap(({ _tag, id }) => (_tag === "Appended" ? [id] : [])))
                    for (const id of done) expect(hub.stored.some(({ opts }) => opts.id === id)).toBe(true)
                    left = left.filter(({ id }) => !done.has(id))
                  }
                }),
              { maxInFlight }
            )
          )
          const lines = Map.groupBy(hub.stored, ({ opts, topic }) => `${topic} ${opts.key ?? opts.id}`)
          for (const line of lines.values()) {
            const ids = line.map(({ opts }) => Number(opts.id))
            expect(ids).toEqual(ids.toSorted((a, b) => a - b))
          }
          expect(hub.stored.map(({ opts }) => Number(opts.id)).toSorted((a, b) => a - b)).toEqual(
            records.map((_, i) => i)
          )
          expect([...hub.torn]).toEqual([])
        }
      ),
      { numRuns: 100 }
    ))
})
