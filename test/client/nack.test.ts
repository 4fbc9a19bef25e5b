/** What a handler's error says about its event, by `Nack` or by a field of the same shape. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Nack, type NackMode } from "../../src/client/index.ts"
import { refusalOf } from "../../src/client/Nack.ts"
import { Release } from "../../src/services/EventBus.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { tokenFor } from "../support/tokens.ts"
import { collector, makeClient, until } from "./clients.ts"

describe("refusalOf", () => {
  it.each<[NackMode, number | undefined]>([
    ["fail", undefined],
    ["release", 0],
    ["release", 43_200_000],
    ["poison", 5]
  ])("reads a Nack: %s, %s", (mode, delayMs) => {
    const nack = new Nack(mode, { ...(delayMs === undefined ? {} : { delayMs }), reason: "why" })
    expect(nack).toMatchObject({ name: "Nack", message: "why", mode, delayMs })
    expect(nack).toBeInstanceOf(Error)
    expect(refusalOf(nack)).toEqual(delayMs === undefined ? { mode } : { mode, delayMs })
  })

  it("reads any error that carries the same, among them the hub's own", () => {
    const error = Object.assign(new Error("busy"), { nack: { mode: "release", delayMs: 70 } })
    expect(refusalOf(error)).toEqual({ mode: "release", delayMs: 70 })
    expect(refusalOf({ nack: { mode: "poison" } })).toEqual({ mode: "poison" })
    expect(refusalOf(new Release({ delayMs: 5 }))).toEqual({ mode: "release", delayMs: 5 })
  })

  it("makes of a delay one that the hub takes", () => {
    const delays = [-1, 0.2, 1e300, Infinity, -Infinity, NaN, "5", null, {}]
    expect(delays.map((delayMs) => refusalOf({ nack: { mode: "fail", delayMs } })?.delayMs)).toEqual([
      0,
      1,
      43_200_000,
      43_200_000,
      0,
      ...[NaN, "5", null, {}].map(() => undefined)
    ])
  })

  it("finds nothing in errors like any other", () => {
    const plain = [
      new Error("x"),
      undefined,
      null,
      "release",
      { nack: undefined },
      { nack: null },
      { nack: "release" },
      { nack: {} },
      { nack: { mode: "" } },
      { nack: { mode: "ack" } },
      { nack: { mode: ["release"] } },
      { nack: { delayMs: 5 } }
    ]
    expect(plain.map(refusalOf)).toEqual(plain.map(() => undefined))
  })
})

describe("a handler that throws it", () => {
  let hub: HubProcess

  beforeAll(async () => {
    // Whoever backs off does not come again within the test.
    hub = await startHub({ GROUP_RETRY_BASE_MS: "3600000", GROUP_RETRY_MAX_MS: "3600000" })
  })

  afterAll(() => hub.stop())

  /** Attempts of an event whose handler throws these, one after the other, and then ends. */
  const attemptsOf = async (topic: string, errors: ReadonlyArray<unknown>) => {
    const { client, errors: told } = makeClient(hub.ws)
    const attempts: Array<number | undefined> = []
    const dead = collector()
    await client.subscribe(`$dead.g.${topic}`, undefined, dead.handler)
    await client.subscribe(
      topic,
      "g",
      (_event, context) => {
        attempts.push(context?.attempt)
        if (attempts.length <= errors.length) throw errors[attempts.length - 1]
      },
      { maxAttempts: 3 }
    )
    await client.publish(topic, 1)
    return { attempts, dead, told }
  }

  it("release: it comes again after its delay, at once without one, and no attempt is counted", async () => {
    const errors = [
      new Nack("release"),
      new Nack("release", { delayMs: 1 }),
      new Release({ delayMs: 1 }),
      Object.assign(new Error("busy"), { nack: { mode: "release", delayMs: 1 } }),
      new Nack("release")
    ]
    const { attempts, told } = await attemptsOf("released", errors)
    await until("it is handled", () => attempts.length === 6)
    expect(attempts).toEqual([1, 1, 1, 1, 1, 1])
    expect(told).toEqual(errors)
  })

  it("fail: its delay takes the place of the back-off, and the attempt counts", async () => {
    const { attempts } = await attemptsOf("failed", [
      new Nack("fail", { delayMs: 0 }),
      new Nack("fail", { delayMs: 1 })
    ])
    await until("it is handled", () => attempts.length === 3)
    expect(attempts).toEqual([1, 2, 3])
  })

  it("poison: it is a dead letter at once", async () => {
    const { attempts, dead } = await attemptsOf("poisonous", [
      new Nack("poison", { reason: "cannot be read" })
    ])
    const [letter] = await dead.first(1)
    expect(letter).toMatchObject({ headers: { "dead-reason": "cannot be read", "dead-attempts": "1" } })
    expect(attempts).toEqual([1])
  })
})

it("is about its own delivery, and not about the next one of the same client", async () => {
  const hub = await startHub()
  const { client } = makeClient(hub.ws)
  const ends: Array<(error?: Error) => void> = []
  const attempts: Array<number | undefined> = []
  const dead = collector()
  await client.subscribe("$dead.g.slow", undefined, dead.handler)
  await client.subscribe(
    "slow",
    "g",
    (_event, context) => {
      attempts.push(context?.attempt)
      return new Promise<void>((resolve, reject) => {
        ends.push((error) => (error === undefined ? resolve() : reject(error)))
      })
    },
    { ackTimeoutMs: 4_000, maxAttempts: 2 }
  )
  await client.publish("slow", 1)
  await until("it came again, since nobody answered", () => attempts.length === 2)
  // Taken for an answer of the second, it would be the last attempt that failed.
  ends[0]!(new Error("I am late"))
  ends[1]!()
  const headers = { authorization: `Bearer ${await tokenFor()}` }
  const lag = async () => (await fetch(`${hub.ops}/lag?topic=slow&group=g`, { headers })).json()
  await expect.poll(lag, { timeout: 20_000 }).toMatchObject({ pending: 0, inFlight: 0 })
  expect(attempts).toEqual([1, 2])
  expect(dead.events).toEqual([])
  await hub.stop()
})
