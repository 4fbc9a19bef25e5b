/** A hub that stops and comes back, and tokens that run out: what its clients are told, and what they do. */
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { expect, it, onTestFinished } from "vitest"
import { WebSocket } from "ws"
import { createClient, type Gap, type HubError } from "../../src/client/index.ts"
import { encodeEvent } from "../../src/domain/Event.ts"
import { limits } from "../../src/domain/Settings.ts"
import * as RandomIds from "../../src/layers/core/RandomIds.ts"
import * as SqliteDatabase from "../../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteEventStore from "../../src/layers/sqlite/SqliteEventStore.ts"
import { EventStore } from "../../src/services/EventStore.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"
import { collector, gate, makeClient, until } from "./clients.ts"
import { returningHub } from "../support/ReturningHub.ts"

const patient = { requestTimeoutMs: 30_000 }

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

it("a hub that stops takes answers and publishes to the end, gives each client its slot, and they come back", async () => {
  const { hub, start, url } = await returningHub({ HUB_RECONNECT_SPREAD_MS: "400", HUB_DRAIN_MS: "2500" })
  const clients = upTo(4).map(() => {
    const waits: Array<number> = []
    const made = makeClient(url, {
      ...patient,
      onState: (state) => {
        if (state._tag === "waiting") waits.push(state.retryInMs)
      }
    })
    return { ...made, waits }
  })
  for (const { client } of clients) await client.connect()
  const worker = clients[3]!.client
  const begun = gate()
  const end = gate()
  const handled: Array<unknown> = []
  const done = collector()
  await worker.subscribe("done", undefined, done.handler)
  await worker.subscribe("jobs", "g", async ({ payload }, context) => {
    begun.open()
    await end.passed
    await worker.publish("done", payload)
    handled.push([payload, context?.attempt])
  })
  await worker.publish("jobs", 1)
  await begun.passed

  const stopped = hub().stop()
  await until("it drains", () => hub().lines.some(({ msg }) => msg === "stopping"))
  end.open()
  expect(await stopped).toEqual({ code: 0, signal: null })
  expect(handled).toEqual([[1, 1]])
  await until("all know", () => clients.every(({ waits }) => waits.length > 0))
  expect(clients.map(({ waits }) => waits[0])).toEqual([0, 100, 200, 300])

  await start()
  await Promise.all(clients.map(({ client }, i) => client.publish("jobs", i + 2)))
  await done.first(5)
  await until("all are handled", () => handled.length === 5)
  expect(handled.toSorted()).toEqual(upTo(5).map((n) => [n, 1]))
  expect(clients.flatMap(({ errors }) => errors)).toEqual([])
})

it("a token that runs out is asked for again, and subscriptions go on; without another the client ends", async () => {
  // The hub looks at the clock ten times a second.
  const { url } = await returningHub({ HUB_HEARTBEAT_MS: "1000", JWT_CLOCK_TOLERANCE_MS: "0" })
  const lifetimes = [3, 600]
  const states: Array<string> = []
  const renewing = makeClient(url, {
    token: () => tokenFor({ expiresIn: lifetimes.shift() ?? 600 }),
    refreshBeforeMs: 0,
    onState: ({ _tag }) => states.push(_tag)
  })
  const seen = collector()
  await renewing.client.subscribe("a", undefined, seen.handler)
  const { client: ending } = makeClient(url, { token: await tokenFor({ expiresIn: 3 }) })
  const ends: Array<HubError> = []
  await ending.subscribe("a", undefined, () => {}, { onEnd: (error) => ends.push(error) })
  await renewing.client.publish("a", 1)

  await until("it is connected again", () => states.filter((tag) => tag === "ready").length === 2)
  await renewing.client.publish("a", 2)
  await seen.first(2)
  expect(states).toEqual(["connecting", "ready", "connecting", "ready"])
  expect([seen.payloads(), lifetimes, renewing.errors]).toEqual([[1, 2], [], []])

  await until("it is closed", () => ending.state._tag === "closed")
  expect(ending.state).toMatchObject({ error: { code: "token_expired" } })
  expect(ends).toMatchObject([{ code: "token_expired" }])
  await expect(ending.publish("a", 1)).rejects.toMatchObject({ code: "token_expired" })
})

it("what was trimmed while it was away is told as a gap, and it goes on behind it", async () => {
  const file = join(temporaryDirectory(), "hub.db")
  const { hub, start, url } = await returningHub({ HUB_STORE: `sqlite:${file}` })
  const { client } = makeClient(url, patient)
  const seen: Array<number | Gap> = []
  await client.subscribe("a", undefined, ({ seq }) => void seen.push(seq), {
    onGap: (gap) => seen.push(gap)
  })
  for (const n of upTo(3)) await client.publish("a", n)
  await until("the first three", () => seen.length === 3)
  await hub().stop()

  const store = SqliteEventStore.layer({ ...SqliteEventStore.defaults, retention: { minAgeMs: 0 } }).pipe(
    Layer.provide(SqliteDatabase.layer({ path: file })),
    Layer.provide(RandomIds.layer)
  )
  await Effect.runPromise(
    Effect.gen(function* () {
      const events = yield* EventStore
      for (const n of [4, 5, 6, 7]) {
        const event = { id: `id-${n}`, topic: "a", ts: 0, payload: n }
        yield* events.append([yield* Effect.fromResult(encodeEvent(event, limits))])
      }
      expect(yield* events.trim({ topic: "a", upTo: 5 })).toBe(5)
    }).pipe(Effect.provide(store))
  )

  await start()
  await until("the rest", () => seen.length === 6)
  const gap = { op: "GAP", sub: "a", topic: "a", from: 4, to: 5, reason: "trimmed" }
  expect(seen).toEqual([1, 2, 3, gap, 6, 7])
})

it("a store that is another one ends live subscriptions, and groups begin anew in it", async () => {
  const { hub, start, url } = await returningHub({ HUB_STORE: "memory:" })
  const { client, errors } = makeClient(url, patient)
  const ends: Array<HubError> = []
  const handled: Array<unknown> = []
  await client.subscribe("a", undefined, () => {}, { onEnd: (error) => ends.push(error) })
  await client.subscribe("a", "g", ({ payload }) => void handled.push(payload), { from: "start" })
  await client.publish("a", 1)
  await until("it is handled", () => handled.length === 1)
  await hub().kill()
  await start()
  await client.publish("a", 2)
  await until("it is handled", () => handled.length === 2)
  expect(handled).toEqual([1, 2])
  await until("the end", () => ends.length === 1)
  expect(ends).toMatchObject([{ code: "unrecoverable_position", retryable: false }])
  expect(errors).toEqual([])
})

it("1,000 clients of a hub that restarts wait for their slots, no more than twice the mean in any 100 ms", async () => {
  const count = 1_000
  const spreadMs = 5_000
  const windowMs = 100
  const { hub, start, url } = await returningHub({ HUB_RECONNECT_SPREAD_MS: String(spreadMs) })
  const token = await tokenFor()
  const clients = upTo(count).map(() => {
    /** When it was told to wait, for how long, and when it came: of the first wait. */
    const first = { told: NaN, at: NaN, came: NaN }
    const client = createClient({ url, token, WebSocket, requestTimeoutMs: 30_000, closeTimeoutMs: 100 })
    client.on("state", (state) => {
      const now = performance.now()
      if (state._tag === "waiting" && Number.isNaN(first.told)) {
        first.told = state.retryInMs
        first.at = now
      } else if (state._tag === "connecting" && Number.isNaN(first.came) && !Number.isNaN(first.told)) {
        first.came = now
      }
    })
    return { client, first }
  })
  onTestFinished(async () => void (await Promise.all(clients.map(({ client }) => client.close()))))
  for (let from = 0; from < count; from += 100) {
    await Promise.all(clients.slice(from, from + 100).map(({ client }) => client.connect()))
  }

  const stoppedAt = performance.now()
  expect(await hub().stop()).toEqual({ code: 0, signal: null })
  await start()
  await until("all have come", () => clients.every(({ first }) => !Number.isNaN(first.came)))
  await Promise.all(clients.map(({ client }) => client.connect()))

  const waits = clients.map(({ first }) => first)
  const told = waits.map((wait) => wait.told).toSorted((a, b) => a - b)
  expect(told).toEqual(upTo(count).map((n) => ((n - 1) * spreadMs) / count))
  // Nobody comes before its slot. That nobody comes after it is no matter of a busy machine: see drain.test.ts.
  expect(waits.filter(({ came, told }) => came - stoppedAt < told - 2)).toEqual([])
  // When each is due, however late a busy machine is then.
  const due = waits.map(({ at, told }) => at + told).toSorted((a, b) => a - b)
  const most = Math.max(
    ...due.map((begin, i) => due.slice(i).filter((time) => time < begin + windowMs).length)
  )
  expect(most).toBeLessThanOrEqual((2 * count * windowMs) / spreadMs)
})
