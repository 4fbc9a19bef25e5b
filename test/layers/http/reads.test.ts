/** What the ops API tells of topics, groups and keys, by a hub that has some. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { tokenFor } from "../../support/tokens.ts"
import { askAs, expectProblem, read } from "./ops.ts"

let hub: HubProcess
let client: RawClient

beforeAll(async () => {
  hub = await startHub({ GROUP_RETRY_BASE_MS: "1", GROUP_RETRY_MAX_MS: "1" })
  client = await RawClient.authenticated(hub.ws)
})

afterAll(async () => {
  await client.close()
  await hub.stop()
})

const number = expect.any(Number) as number

const publish = async (topic: string, payload: unknown, opts: object = {}) => {
  const answer = await client.request({ op: "PUBLISH", topic, payload, opts })
  expect(answer.op).toBe("OK")
  return answer as unknown as { readonly id: string; readonly seq: number; readonly storedAt: number }
}

const member = async (topic: string, group: string, opts: object = {}) => {
  const answer = await client.request({ op: "SUBSCRIBE", topic, group, opts: { from: "start", ...opts } })
  expect(answer.op).toBe("OK")
}

const ack = async (topic: string, group: string, ids: ReadonlyArray<string>) =>
  expect(await client.request({ op: "ACK", topic, group, ids })).toMatchObject({ op: "OK" })

const eventsOf = (topic: string, n: number) => client.events(n, (message) => message["topic"] === topic)

describe("/cursors", () => {
  it("names the groups of a topic, how far each is, and the event there", async () => {
    for (let n = 1; n <= 3; n++) await publish("cursors.a", n, { id: `id-${n}`, ts: 1_000 + n })
    await member("cursors.*", "behind")
    await member("cursors.a", "ahead")
    await eventsOf("cursors.a", 6)
    await ack("cursors.a", "ahead", ["id-1", "id-2"])
    // Out of order: what is acknowledged in front of it counts, the cursor waits for the first.
    await ack("cursors.a", "behind", ["id-3"])
    expect(await read(hub, "/cursors?topic=cursors.a")).toEqual({
      topic: "cursors.a",
      cursors: [
        { group: "ahead", seq: 2, lastId: "id-2", lastTs: 1_002, pending: 1, inFlight: 1 },
        { group: "behind", seq: 0, lastId: null, lastTs: null, pending: 2, inFlight: 2 }
      ],
      next: null
    })
    expect(await read(hub, "/cursors?topic=cursors.a&limit=1")).toMatchObject({
      cursors: [{ group: "ahead" }],
      next: "ahead"
    })
    expect(await read(hub, "/cursors?topic=cursors.a&limit=1&after=ahead")).toMatchObject({
      cursors: [{ group: "behind" }],
      next: null
    })
  })

  it("knows a group that takes the topic and was never there", async () => {
    await member("cursors.later.*", "early")
    await client.request({ op: "UNSUBSCRIBE", topic: "cursors.later.*", group: "early" })
    await publish("cursors.later.a", 1)
    expect(await read(hub, "/cursors?topic=cursors.later.a")).toEqual({
      topic: "cursors.later.a",
      cursors: [{ group: "early", seq: 0, lastId: null, lastTs: null, pending: 1, inFlight: 0 }],
      next: null
    })
  })

  it("is empty for a topic without groups, and 404 for none", async () => {
    await publish("alone", 1)
    expect(await read(hub, "/cursors?topic=alone")).toEqual({ topic: "alone", cursors: [], next: null })
    expectProblem(await askAs(hub, {}, "/cursors?topic=nowhere"), 404, /no topic 'nowhere'/)
  })
})

interface Lag {
  readonly arrivalPerSecond: number
  readonly ratePerSecond: number | null
  readonly catchUpMs: number | null
}

describe("/lag", () => {
  it("says how far a group is behind, where it stands and where the topic ends", async () => {
    const stored = []
    for (let n = 1; n <= 5; n++) stored.push(await publish("lag.a", n, { id: `id-${n}`, ts: n }))
    await member("lag.a", "workers", { credit: 2 })
    await eventsOf("lag.a", 2)
    const path = "/lag?topic=lag.a&group=workers"
    /** Without what depends on how fast this machine is. */
    const lag = async () => {
      const { arrivalPerSecond, catchUpMs, ratePerSecond, ...others } = (await read(hub, path)) as Lag
      expect(arrivalPerSecond).toBeGreaterThan(0)
      for (const one of [catchUpMs, ratePerSecond]) expect(one ?? 0).toBeGreaterThanOrEqual(0)
      return others
    }
    const nothingElse = {
      waiting: 0,
      deferred: 0,
      redelivered: 0,
      dead: 0,
      redriven: 0,
      stalled: null,
      blockedKeys: 0
    }
    const tail = { seq: 5, id: "id-5", ts: 5, storedAt: stored[4]?.storedAt }
    expect(await lag()).toEqual({
      topic: "lag.a",
      group: "workers",
      lastCursor: null,
      tail,
      lagMs: number,
      pending: 5,
      inFlight: 2,
      ...nothingElse
    })
    await ack("lag.a", "workers", ["id-1", "id-2"])
    await eventsOf("lag.a", 4)
    await ack("lag.a", "workers", ["id-3", "id-4"])
    await eventsOf("lag.a", 5)
    expect(await read(hub, path)).toMatchObject({
      lastCursor: { seq: 4, id: "id-4", ts: 4, storedAt: stored[3]?.storedAt },
      tail,
      pending: 1,
      inFlight: 1
    })
    await ack("lag.a", "workers", ["id-5"])
    expect(await read(hub, path)).toHaveProperty("catchUpMs", 0)
    expect(await lag()).toEqual({
      topic: "lag.a",
      group: "workers",
      lastCursor: tail,
      tail,
      lagMs: 0,
      pending: 0,
      inFlight: 0,
      ...nothingElse
    })
  })

  it("is the age of the oldest event that is not acknowledged", async () => {
    const first = await publish("lag.age", 1, { id: "first" })
    await publish("lag.age", 2, { id: "second" })
    await member("lag.age", "workers")
    await eventsOf("lag.age", 2)
    await ack("lag.age", "workers", ["second"])
    const before = Date.now()
    const { lagMs } = (await read(hub, "/lag?topic=lag.age&group=workers")) as { readonly lagMs: number }
    expect(lagMs).toBeGreaterThanOrEqual(before - first.storedAt)
  })

  it("counts what was delivered before, and what was given up", async () => {
    await publish("lag.bad", 1, { id: "bad" })
    await member("lag.bad", "twice", { maxAttempts: 2 })
    for (let attempt = 1; attempt <= 2; attempt++) {
      await eventsOf("lag.bad", attempt)
      const path = "/lag?topic=lag.bad&group=twice"
      expect(await read(hub, path)).toMatchObject({ redelivered: attempt - 1, dead: 0, pending: 1 })
      await client.request({ op: "NACK", topic: "lag.bad", group: "twice", id: "bad" })
    }
    await expect
      .poll(() => read(hub, "/lag?topic=lag.bad&group=twice"))
      .toMatchObject({ redelivered: 0, dead: 1, pending: 0, inFlight: 0 })
  })

  it("404: no such topic, no such group, or one that takes nothing of the topic", async () => {
    await publish("lag.other", 1)
    for (const path of [
      "/lag?topic=nowhere&group=workers",
      "/lag?topic=lag.other&group=nobody",
      "/lag?topic=lag.other&group=twice"
    ]) {
      expectProblem(await askAs(hub, {}, path), 404, /^there is no (?:topic|group) '/)
    }
  })
})

describe("/latest-by-key", () => {
  const shown = (event: unknown) => {
    const { key, payload, seq } = event as Readonly<Record<string, unknown>>
    return [key, payload, seq]
  }

  beforeAll(async () => {
    for (const [key, payload] of [
      ["a", 1],
      ["b", 1],
      ["c", 1],
      ["a", 2],
      ["b", null],
      ["__proto__", 1],
      ["seq", 1]
    ]) {
      await publish("latest", payload, { key, type: "state", headers: { h: "v" }, ts: 7 })
    }
    await publish("latest", "without a key")
  })

  it("one key: its last event, whole, or null", async () => {
    expect(await read(hub, "/latest-by-key?topic=latest&key=a")).toEqual({
      id: expect.any(String) as string,
      topic: "latest",
      seq: 4,
      ts: 7,
      storedAt: number,
      payload: 2,
      key: "a",
      type: "state",
      headers: { h: "v" }
    })
    expect(await read(hub, "/latest-by-key?topic=latest&key=b")).toBeNull()
    expect(await read(hub, "/latest-by-key?topic=latest&key=nobody")).toBeNull()
  })

  it("several keys: an object by key, without those that have none", async () => {
    const found = await read(hub, "/latest-by-key?topic=latest&key=a&key=b&key=c&key=nobody")
    expect(Object.entries(found as object).map(([key, event]) => [key, shown(event)])).toEqual([
      ["a", ["a", 2, 4]],
      ["c", ["c", 1, 3]]
    ])
    expect(await read(hub, "/latest-by-key?topic=latest&key=b&key=nobody")).toEqual({})
  })

  it("several keys: any names, also those of the answer itself and of objects", async () => {
    const found = await read(hub, "/latest-by-key?topic=latest&key=__proto__&key=seq")
    expect(Object.keys(found as object)).toEqual(["__proto__", "seq"])
  })

  it("no key: pages of all keys, with the seq and the history from which a live subscription goes on", async () => {
    // A further AUTH tells the history.
    const { history } = await client.request({ op: "AUTH", token: await tokenFor({}) })
    expect(history).toEqual(expect.any(String))
    const items: Array<unknown> = []
    let after = ""
    const seqs = new Set<number>()
    for (;;) {
      const page = (await read(hub, `/latest-by-key?topic=latest&limit=2${after}`)) as {
        readonly topic: string
        readonly seq: number
        readonly history: string
        readonly items: ReadonlyArray<unknown>
        readonly next: string | null
      }
      expect(page.topic).toBe("latest")
      expect(page.history).toBe(history)
      expect(page.items.length).toBeLessThanOrEqual(2)
      items.push(...page.items)
      seqs.add(page.seq)
      if (page.next === null) break
      after = `&after=${page.next}`
    }
    expect(items.map(shown)).toEqual([
      ["__proto__", 1, 6],
      ["a", 2, 4],
      ["c", 1, 3],
      ["seq", 1, 7]
    ])
    expect([...seqs]).toEqual([8])
  })

  it("no key: empty for a topic without keys, and 404 for no topic", async () => {
    await publish("keyless", 1)
    expect(await read(hub, "/latest-by-key?topic=keyless")).toEqual({
      topic: "keyless",
      seq: 1,
      history: expect.any(String),
      items: [],
      next: null
    })
    for (const query of ["", "&key=a", "&key=a&key=b"]) {
      expectProblem(await askAs(hub, {}, `/latest-by-key?topic=nowhere${query}`), 404, /no topic 'nowhere'/)
    }
  })
})

describe("/topics", () => {
  interface Page {
    readonly topics: ReadonlyArray<{ readonly topic: string; readonly head: number }>
    readonly next: string | null
  }

  const pages = async (query: string, scopes: ReadonlyArray<string>) => {
    const found: Array<ReadonlyArray<string>> = []
    let after = ""
    for (;;) {
      const { next, topics } = (await read(hub, `/topics?${query}${after}`, { scopes })) as Page
      found.push(topics.map(({ topic }) => topic))
      if (next === null) return found
      after = `&after=${next}`
    }
  }

  beforeAll(async () => {
    for (const topic of ["a", "b", "c", "d", "e", "f"]) await publish(`list.${topic}.mine`, 1)
    for (const topic of ["a", "b", "c", "d", "e"]) await publish(`list.${topic}.theirs`, 1)
  })

  it("lists topics by name, with their ends", async () => {
    await publish("list.f.mine", 2)
    expect(await read(hub, "/topics?pattern=list.f.**")).toEqual({
      topics: [{ topic: "list.f.mine", head: 2, floor: 0, storedAt: number }],
      next: null
    })
    expect(await read(hub, "/topics?pattern=nothing.**")).toEqual({ topics: [], next: null })
  })

  it("pages: as many as asked for, each once, in order", async () => {
    const found = await pages("pattern=list.**&limit=4", ["subscribe:**"])
    expect(found.map((page) => page.length)).toEqual([4, 4, 3])
    expect(found.flat()).toEqual([...new Set(found.flat())].sort())
  })

  it("holds only those that the token may see, and pages are full all the same", async () => {
    expect(await pages("pattern=list.**&limit=2", ["subscribe:*.*.mine"])).toEqual([
      ["list.a.mine", "list.b.mine"],
      ["list.c.mine", "list.d.mine"],
      ["list.e.mine", "list.f.mine"]
    ])
    expect(await pages("limit=1", ["publish:**"])).toEqual([[]])
  })

  it("holds the hub's own topics for patterns that name them, and whoever may see the originals", async () => {
    await publish("list.dead", 1, { id: "x" })
    await member("list.dead", "gone", { maxAttempts: 1 })
    await eventsOf("list.dead", 1)
    await client.request({ op: "NACK", topic: "list.dead", group: "gone", id: "x" })
    const dead = "$dead.gone.list.dead"
    await expect.poll(() => read(hub, `/topics?pattern=${dead}`)).toHaveProperty("topics.0")
    const seen = (scopes: ReadonlyArray<string>) => pages("pattern=$dead.gone.**", scopes)
    expect(await seen(["subscribe:$dead.**", "subscribe:list.**"])).toEqual([[dead]])
    expect(await seen(["subscribe:$dead.**"])).toEqual([[]])
    expect(await seen(["subscribe:**"])).toEqual([[]])
    expect((await pages("pattern=**", ["subscribe:**", "subscribe:$dead.**"])).flat()).not.toContain(dead)
    expect(await read(hub, `/latest-by-key?topic=${dead}`)).toMatchObject({ seq: 1 })
    const path = `/latest-by-key?topic=${dead}`
    expectProblem(await askAs(hub, { scopes: ["subscribe:$dead.**"] }, path), 403, /no right/)
  })
})
