/** The hub's own live topics as clients have them: pushed, filtered by rights, and going on after a restart. */
import { expect, it, onTestFinished } from "vitest"
import { type ClientOptions, createClient, type HubError } from "../../src/client/index.ts"
import { returningHub } from "../support/ReturningHub.ts"
import { everything, tokenFor } from "../support/tokens.ts"
import { collector, until } from "./clients.ts"

const scopes = [...everything, "subscribe:$hub.**"]

const made = (url: string, more: Partial<ClientOptions> = {}) => {
  const client = createClient({ url, getToken: () => tokenFor({ scopes }), ...more } as ClientOptions)
  const errors: Array<unknown> = []
  client.on("error", (error) => errors.push(error))
  onTestFinished(() => client.close())
  return { client, errors }
}

interface Stats {
  readonly hub: string
}

const often = { HUB_LIVE_MS: "100", HUB_STANDING_MS: "0" }

it("are pushed as topics grow and groups get on", async () => {
  const { url } = await returningHub(often)
  const { client, errors } = made(url)
  const seen = collector()
  await client.subscribe("$hub.**", seen.handler).ready
  const last = (topic: string) =>
    seen.events.findLast((event) => event.topic === topic)?.payload as Record<string, unknown> | undefined
  await until("there are figures", () => last("$hub.stats") !== undefined)

  const group = client.consume("orders.*", "mailer", { from: "start" })
  await group.ready
  for (let n = 1; n <= 3; n++) await client.publish("orders.eu", n)
  await until("the topic grew", () => last("$hub.topic.orders.eu")?.["head"] === 3)
  expect(last("$hub.topic.orders.eu")).toMatchObject({ topic: "orders.eu", head: 3, floor: 0 })
  await until("the group is behind", () => last("$hub.group.mailer.orders.eu")?.["pending"] === 3)

  let handled = 0
  for await (const delivery of group) {
    await delivery.ack()
    if (++handled === 3) break
  }
  await until("the group has caught up", () => last("$hub.group.mailer.orders.eu")?.["seq"] === 3)
  expect(last("$hub.group.mailer.orders.eu")).toEqual({
    group: "mailer",
    topic: "orders.eu",
    seq: 3,
    head: 3,
    pending: 0,
    inFlight: 0,
    lagMs: 0
  })
  await until("the figures say so", () => last("$hub.stats")?.["pending"] === 0)
  expect(last("$hub.stats")).toMatchObject({ topics: 1, groups: 1, connections: 1 })
  expect(last("$hub.stats")?.["totals"]).toMatchObject({ appended: 3 })
  for (const topic of new Set(seen.events.map((event) => event.topic))) {
    const seqs = seen.events.filter((event) => event.topic === topic).map(({ seq }) => seq)
    expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b))
  }
  expect(errors).toEqual([])
})

it("go on after the hub came back, for a client that knows its positions", async () => {
  const { hub, start, url } = await returningHub(often)
  const { client, errors } = made(url)
  const seen = collector()
  await client.subscribe("$hub.stats", seen.handler).ready
  await seen.first(2)
  await hub().kill()
  const before = seen.events.length
  await start()
  await until("they come again", () => seen.events.length >= before + 3)
  expect(new Set(seen.payloads().map((payload) => (payload as Stats).hub)).size).toBe(2)
  const seqs = seen.events.map(({ seq }) => seq)
  expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b))
  expect(errors).toEqual([])
})

it("are not for groups, and not for publishers", async () => {
  const { url } = await returningHub(often)
  const { client } = made(url, { getToken: () => tokenFor({ scopes: [...scopes, "publish:$hub.**"] }) })
  const ends: Array<HubError> = []
  const group = client.consume("$hub.stats", "g", { onEnd: (error) => ends.push(error) })
  await expect(group.ready).rejects.toMatchObject({ code: "bad_request" })
  await expect(client.publish("$hub.stats", 1)).rejects.toMatchObject({ code: "forbidden" })
})

it("take the right to what they speak of", async () => {
  const { url } = await returningHub(often)
  const publisher = made(url).client
  const may = ["subscribe:$hub.**", "subscribe:orders.**"]
  const { client } = made(url, { getToken: () => tokenFor({ scopes: may }) })
  for (const pattern of ["$hub.**", "$hub.topic.**", "$hub.topic.secret", "$hub.group.*.secret.a"]) {
    await expect(client.subscribe(pattern, () => {}).ready).rejects.toMatchObject({ code: "forbidden" })
  }
  const seen = collector()
  await client.subscribe("$hub.topic.orders.*", seen.handler).ready
  await publisher.publish("secret", 1)
  await publisher.publish("orders.eu", 1)
  await seen.first(1)
  expect(seen.events.map(({ topic }) => topic)).toEqual(["$hub.topic.orders.eu"])
})
