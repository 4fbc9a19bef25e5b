/** Who is behind, which topics grow, which connections are slow: asked for by HTTP, of a hub in a process of its own. */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { placesShown } from "../../../src/layers/http/StandingHandlers.ts"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { everything } from "../../support/tokens.ts"
import { ask, askAs, expectProblem, read } from "./ops.ts"

let hub: HubProcess
let client: RawClient

const publish = async (topic: string, payload: unknown = 1) => {
  const answer = await client.request({ op: "PUBLISH", topic, payload })
  expect(answer).toMatchObject({ op: "OK" })
}

const join = (topic: string, group: string) =>
  client.request({ op: "SUBSCRIBE", topic, group, opts: { from: "start", credit: 1 } })

const admin = { scopes: ["admin:**"] }

beforeAll(async () => {
  hub = await startHub({ HUB_STANDING_MS: "0" })
  client = await RawClient.authenticated(hub.ws, { scopes: everything })
})

afterAll(async () => {
  client.socket.close()
  await hub.stop()
})

describe("/top by lag", () => {
  beforeAll(async () => {
    await join("a.**", "first")
    for (let n = 1; n <= 3; n++) await publish("a.many", n)
    await publish("a.one")
    await join("a.one", "second")
  })

  it("names the places where most is pending first, with the age of what waits", async () => {
    const place = { inFlight: expect.any(Number), seq: 0, lagMs: expect.any(Number) }
    expect(await read(hub, "/top?by=lag")).toEqual({
      by: "lag",
      items: [
        { group: "first", topic: "a.many", pending: 3, head: 3, ...place },
        { group: "first", topic: "a.one", pending: 1, head: 1, ...place },
        { group: "second", topic: "a.one", pending: 1, head: 1, ...place }
      ]
    })
    expect(await read(hub, "/top?by=lag&limit=1")).toMatchObject({ items: [{ topic: "a.many" }] })
  })

  it("holds what the token may see, live or in the group, and is full all the same", async () => {
    const seen = async (...scopes: ReadonlyArray<string>) =>
      ((await read(hub, "/top?by=lag&limit=2", { scopes })) as { items: Array<{ topic: string }> }).items.map(
        ({ topic }) => topic
      )
    expect(await seen("subscribe:a.one")).toEqual(["a.one", "a.one"])
    expect(await seen("publish:**", "admin:**")).toEqual([])
    const policy = { rules: [{ effect: "allow", action: "subscribe", topics: ["**"], groups: ["second"] }] }
    const inGroup = await read(hub, "/top?by=lag", { claims: { policy } })
    expect(inGroup).toMatchObject({ items: [{ group: "second", topic: "a.one" }] })
  })

  it("is told with the groups", async () => {
    const own = { members: 1, pending: 4, topicsBehind: 2, inFlight: expect.any(Number) }
    const { groups } = (await read(hub, "/groups", { scopes: ["subscribe:**"] })) as {
      groups: ReadonlyArray<object>
    }
    expect(groups).toMatchObject([
      { group: "first", ...own },
      { group: "second", pending: 1 }
    ])
  })

  it("is not told of a group whose patterns are hidden in part", async () => {
    await join("b.x", "first")
    const token = { scopes: ["subscribe:a.**"] }
    const { groups } = (await read(hub, "/groups", token)) as { groups: ReadonlyArray<object> }
    expect(groups).toMatchObject([
      { group: "first", patterns: ["a.**"], pending: null, inFlight: null, topicsBehind: null },
      { group: "second", pending: 1 }
    ])
  })
})

describe("the places that show", () => {
  it("are asked about by their topic once, and by their groups where it does not show by itself", () => {
    const asked: Array<string> = []
    const show = placesShown((topic, group) => {
      asked.push(group === undefined ? topic : `${group} ${topic}`)
      return topic === "open" || group === "g"
    })
    const places = ["open", "closed", "other"].flatMap((topic) => ["g", "h", "i"].map((g) => [g, topic]))
    expect(places.filter(([group, topic]) => show(group!, topic!))).toEqual([
      ["g", "open"],
      ["h", "open"],
      ["i", "open"],
      ["g", "closed"],
      ["g", "other"]
    ])
    expect(asked).toEqual([
      "open",
      ...["closed", "g closed", "h closed", "i closed"],
      ...["other", "g other", "h other", "i other"]
    ])
  })
})

describe("/top by rate", () => {
  it("names the topics that grow fastest first, and those alone that the token may see", async () => {
    for (let n = 1; n <= 5; n++) await publish("rate.fast", "x".repeat(100))
    for (let n = 1; n <= 2; n++) await publish("rate.slow", n)
    const scopes = ["subscribe:rate.*"]
    const { items } = (await read(hub, "/top?by=rate", { scopes })) as {
      items: ReadonlyArray<{ eventsPerSecond: number; bytesPerSecond: number }>
    }
    expect(items).toMatchObject([
      { topic: "rate.fast", head: 5 },
      { topic: "rate.slow", head: 2 }
    ])
    expect(items[0]!.eventsPerSecond).toBeGreaterThan(items[1]!.eventsPerSecond)
    expect(items[0]!.bytesPerSecond).toBeGreaterThan(100 * items[0]!.eventsPerSecond)
    expect(await read(hub, "/top?by=rate", { scopes: [] })).toEqual({ by: "rate", items: [] })
  })
})

describe("connections", () => {
  it("show the one that does not read first, with what waits for it", async () => {
    const slowHub = await startHub({ LIMIT_OUTBOUND_BYTES: String(64 * 1024) })
    onTestFinished(async () => void (await slowHub.stop()))
    const connect = async (sub: string) => {
      const made = await RawClient.authenticated(slowHub.ws, { sub })
      onTestFinished(() => made.socket.terminate())
      return made
    }
    const quick = await connect("quick")
    const stuck = await connect("stuck")
    for (const one of [quick, stuck]) await one.request({ op: "SUBSCRIBE", topic: "big.*" })
    stuck.socket.pause()
    const publisher = await connect("publisher")
    const slow = async () =>
      ((await read(slowHub, "/top?by=slow", admin)) as { items: ReadonlyArray<Record<string, unknown>> })
        .items
    // However much the system's own buffers take.
    const payload = "x".repeat(200 * 1024)
    await expect
      .poll(
        async () => {
          await publisher.request({ op: "PUBLISH", topic: "big.a", payload })
          return (await slow())[0]
        },
        { timeout: 20_000, interval: 1 }
      )
      .toMatchObject({ sub: "stuck", slowSince: expect.any(Number), behind: 1 })
    const [first, ...others] = await slow()
    expect(first!["outboundBytes"]).toBeGreaterThanOrEqual(64 * 1024)
    expect(others.map(({ slowSince }) => slowSince)).toEqual([null, null])

    // Pages hold each once, the slowest first.
    const found: Array<unknown> = []
    let next: string | null = ""
    while (next !== null) {
      const after: string = next === "" ? "" : `&after=${encodeURIComponent(next)}`
      const page = (await read(slowHub, `/connections?limit=1${after}`, admin)) as {
        connections: ReadonlyArray<{ sub: string }>
        next: string | null
      }
      found.push(...page.connections.map(({ sub }) => sub))
      next = page.next
    }
    expect(found[0]).toBe("stuck")
    expect(found.toSorted()).toEqual(["publisher", "quick", "stuck"])

    stuck.socket.resume()
    await expect
      .poll(async () => (await slow()).map(({ slowSince }) => slowSince))
      .toEqual([null, null, null])
    await expect.poll(async () => new Set((await slow()).map(({ delivered }) => delivered)).size).toBe(2)
  })

  it("take the right to administrate everything", async () => {
    for (const path of ["/connections", "/top?by=slow"]) {
      expectProblem(await ask(hub, path), 401, /token/)
      for (const scopes of [["subscribe:**"], ["admin:orders.**"]]) {
        expectProblem(await askAs(hub, { scopes }, path), 403, /no right to administrate/)
      }
      expect((await askAs(hub, admin, path)).status).toBe(200)
    }
  })
})

describe("a request that does not fit", () => {
  it.each([
    ["/top", /'by' is missing/],
    ["/top?by=size", /'by'/],
    ["/top?by=lag&limit=0", /'limit'/],
    ["/top?by=lag&limit=1001", /'limit'/],
    ["/top?by=lag&after=x", /'after'/],
    ["/connections?limit=x", /'limit'/],
    ["/connections?after=x", /'after'/],
    ["/connections?by=lag", /'by'/]
  ])("%s", async (path, detail) => {
    expectProblem(await askAs(hub, admin, path), 400, detail)
  })
})
