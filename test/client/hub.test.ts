/** `createClient` against a hub: what a test that plays the hub could have wrong. */
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest"
import { type ClientOptions, createClient } from "../../src/client/index.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { tokenFor } from "../support/tokens.ts"
import { collector, until } from "./clients.ts"

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub()
})

afterAll(() => hub.stop())

const made = (more: Partial<ClientOptions> = {}) => {
  const client = createClient({ url: hub.ws, getToken: () => tokenFor(), ...more } as ClientOptions)
  onTestFinished(() => client.close())
  return client
}

it("a token is replaced on the connection that there is, and a subscription stays", async () => {
  const lifetimes = [60, 600]
  const getToken = () => tokenFor({ expiresIn: lifetimes.shift() ?? 600 })
  const client = made({ getToken, refreshBeforeMs: 59_000 })
  const states: Array<string> = []
  client.on("state", ({ _tag }) => states.push(_tag))
  const seen = collector()
  await client.subscribe("token.a", seen.handler).ready
  const { connection, expiresAt } = await client.connect()
  await until("there is another", () => {
    const { state } = client
    return state._tag === "ready" && state.welcome.expiresAt !== expiresAt
  })
  await client.publish("token.a", 1)
  await seen.first(1)
  expect(await client.connect()).toMatchObject({ connection })
  expect([states, lifetimes]).toEqual([["connecting", "ready"], []])
})

it("deliveries are answered by hand: acknowledged, refused, extended", async () => {
  const client = made()
  const errors: Array<unknown> = []
  client.on("error", (error) => errors.push(error))
  const group = client.consume("hand.a", "g", { from: "start", ackTimeoutMs: 30_000 })
  await group.ready
  for (let n = 1; n <= 3; n++) await client.publish("hand.a", n)
  const attempts: Array<unknown> = []
  for await (const delivery of group) {
    const { attempt, deadline, event } = delivery
    attempts.push([event.payload, attempt])
    if (event.payload === 2 && attempts.length === 2) await delivery.nack({ delayMs: 0 })
    else {
      await delivery.extend(60_000)
      expect(delivery.deadline).toBeGreaterThan(deadline)
      await delivery.ack()
    }
    if (attempts.length === 4) break
  }
  expect(attempts.toSorted()).toEqual([
    [1, 1],
    [2, 1],
    [2, 2],
    [3, 1]
  ])
  expect(errors).toEqual([])
})

it("a slow iterator leaves the hub and comes back, and misses nothing", async () => {
  const client = made()
  const live = client.subscribe("slow.*", { maxBuffered: 10 })
  await live.ready
  await Promise.all(Array.from({ length: 500 }, (_, i) => client.publish("slow.a", i)))
  const seqs: Array<number> = []
  for await (const item of live) {
    if (item._tag === "event") seqs.push(item.seq)
    if (seqs.length === 500) break
  }
  expect(seqs).toEqual(Array.from({ length: 500 }, (_, i) => i + 1))
})
