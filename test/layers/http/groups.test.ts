/** What an operator sees of consumer groups and does with them, while members are at work; and who may. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { everything, tokenFor, type TokenOptions } from "../../support/tokens.ts"
import { type Answer, ask, askAs, expectProblem, json, read } from "./ops.ts"

let hub: HubProcess
let client: RawClient

const operator = { sub: "olga", scopes: [...everything, "admin:**"] }

beforeAll(async () => {
  hub = await startHub({ GROUP_RETRY_BASE_MS: "60000", GROUP_RETRY_MAX_MS: "60000" })
  client = await RawClient.authenticated(hub.ws)
})

afterAll(async () => {
  await client.close()
  await hub.stop()
})

const number = expect.any(Number) as number

const publish = async (topic: string, id: string, opts: object = {}) =>
  expect(
    await client.request({ op: "PUBLISH", topic, payload: { of: id }, opts: { id, ...opts } })
  ).toMatchObject({
    op: "OK"
  })

const member = async (topic: string, group: string, opts: object = {}, who: RawClient = client) =>
  expect(
    await who.request({ op: "SUBSCRIBE", topic, group, opts: { from: "start", ...opts } })
  ).toMatchObject({ op: "OK" })

/** The ids that a group got from a topic, in their order, as soon as there are `n`. */
const delivered = async (group: string, topic: string, n: number, who: RawClient = client) =>
  (await who.events(n, (message) => message["group"] === group && message["topic"] === topic)).map(
    (message) => (message["event"] as { readonly id: string }).id
  )

const ack = async (topic: string, group: string, ids: ReadonlyArray<string>) =>
  expect(await client.request({ op: "ACK", topic, group, ids })).toMatchObject({ op: "OK" })

const nack = async (topic: string, group: string, id: string, opts: object = {}) =>
  expect(await client.request({ op: "NACK", topic, group, id, ...opts })).toMatchObject({ op: "OK" })

const change = async (path: string, body?: unknown, method = "POST"): Promise<unknown> => {
  const answer = await askAs(hub, operator, path, body === undefined ? { method } : { ...json(body), method })
  expect([path, answer.status, answer.json]).toEqual([path, 200, answer.json])
  return answer.json
}

const lag = (topic: string, group: string) => read(hub, `/lag?topic=${topic}&group=${group}`)

const logged = async (msg: string, group: string, expected: object) => {
  await expect
    .poll(() => hub.lines.find((line) => line.msg === msg && line["group"] === group))
    .toMatchObject(expected)
}

describe("/groups", () => {
  beforeAll(async () => {
    for (const topic of ["list.a", "list.b", "other.a"]) await publish(topic, "1")
    await member("list.*", "lister", { keyOrdered: true, maxAttempts: 7 })
    await member("other.a", "lister")
    await member("list.a", "solo")
    await member("other.a", "stranger")
  })

  const names = (answer: unknown) =>
    (
      answer as {
        readonly groups: ReadonlyArray<{ readonly group: string; readonly patterns: ReadonlyArray<string> }>
      }
    ).groups
      .map(({ group, patterns }) => [group, ...patterns])
      .filter(([group]) => ["lister", "solo", "stranger"].includes(group ?? ""))

  it("lists groups by name", async () => {
    const answer = await read(hub, "/groups", operator)
    expect(answer).toMatchObject({ next: null })
    expect(names(answer)).toEqual([
      ["lister", "list.*", "other.a"],
      ["solo", "list.a"],
      ["stranger", "other.a"]
    ])
    expect(await read(hub, "/groups/solo", operator)).toEqual({
      group: "solo",
      patterns: ["list.a"],
      options: { ackTimeoutMs: 30_000, maxAttempts: 10, keyOrdered: false },
      registeredAt: number,
      lastUsedAt: number,
      paused: false,
      sameHistory: true,
      unused: false,
      active: true,
      topics: [{ topic: "list.a", seq: 0, head: 1, pending: 1, inFlight: 1 }],
      next: null
    })
  })

  it("pages are full of what the token may see, with the patterns that it may see", async () => {
    const mine = { scopes: ["subscribe:list.**"] }
    expect(names(await read(hub, "/groups", mine))).toEqual([
      ["lister", "list.*"],
      ["solo", "list.a"]
    ])
    expect(await read(hub, "/groups/lister", mine)).toMatchObject({
      patterns: ["list.*"],
      topics: [{ topic: "list.a" }, { topic: "list.b" }]
    })
    const first = (await read(hub, "/groups?limit=1", mine)) as { readonly next: string }
    expect(first.next).toBe("lister")
    const second = await read(hub, `/groups?limit=1&after=${first.next}`, mine)
    expect([names(second), second]).toMatchObject([[["solo", "list.a"]], { next: null }])
    expect(await read(hub, "/groups/lister?limit=1", mine)).toMatchObject({
      topics: [{ topic: "list.a" }],
      next: "list.a"
    })
    expect(await read(hub, "/groups/lister?limit=1&after=list.a", mine)).toMatchObject({
      topics: [{ topic: "list.b" }],
      next: null
    })
    expect(names(await read(hub, "/groups", { scopes: ["publish:**"] }))).toEqual([])
    expect(names(await read(hub, "/groups", { scopes: ["admin:other.**"] }))).toEqual([
      ["lister", "other.a"],
      ["stranger", "other.a"]
    ])
  })

  it("a right that is for one group shows that group", async () => {
    const rule = { effect: "allow", action: "subscribe", topics: ["list.a"], groups: ["solo"] }
    const token = { claims: { policy: { rules: [rule] } } }
    expect(names(await read(hub, "/groups", token))).toEqual([["solo", "list.a"]])
    expect(await read(hub, "/groups/solo", token)).toMatchObject({ topics: [{ topic: "list.a" }] })
  })

  it("a group that may not be seen is as one that is not there", async () => {
    const mine = { scopes: ["subscribe:list.**"] }
    const there = await askAs(hub, mine, "/groups/stranger")
    const notThere = await askAs(hub, mine, "/groups/nobody")
    expectProblem(there, 403, /no right to see a group 'stranger'/)
    expectProblem(notThere, 403, /no right to see a group 'nobody'/)
    expectProblem(await askAs(hub, operator, "/groups/nobody"), 404, /there is no group 'nobody'/)
  })

  it("a name may hold anything that a segment may", async () => {
    await member("list.a", "odd/%?#&name")
    const path = `/groups/${encodeURIComponent("odd/%?#&name")}`
    expect(await read(hub, path, operator)).toMatchObject({ group: "odd/%?#&name" })
  })
})

describe("seek", () => {
  it("says what it means, and then it is so", async () => {
    for (const id of ["1", "2", "3", "4"]) await publish("seek.a", id)
    await member("seek.a", "seeker", { credit: 3 })
    await delivered("seeker", "seek.a", 3)
    await ack("seek.a", "seeker", ["1", "3"])
    await delivered("seeker", "seek.a", 4)
    const request = { topic: "seek.a", to: { seq: 0 }, reason: "a bug in the handler" }
    const topics = [{ topic: "seek.a", from: 1, to: 0, again: 2, skipped: 0 }]
    expect(await change("/groups/seeker/seek", { ...request, dryRun: true })).toEqual({
      group: "seeker",
      dryRun: true,
      topics
    })
    expect(await lag("seek.a", "seeker")).toMatchObject({ pending: 2 })
    expect(await change("/groups/seeker/seek", request)).toEqual({ group: "seeker", dryRun: false, topics })
    const all = await delivered("seeker", "seek.a", 7)
    expect(all.slice(4)).toEqual(["1", "2", "3"])
    expect(await lag("seek.a", "seeker")).toMatchObject({ pending: 4 })
    await logged("group seek", "seeker", {
      sub: "olga",
      topic: "seek.a",
      to: { seq: 0 },
      reason: "a bug in the handler",
      topics: 1,
      again: 2,
      skipped: 0
    })
    expect(hub.lines.filter((line) => line.msg === "group seek" && line["group"] === "seeker")).toHaveLength(
      1
    )
  })

  it("on all topics, to a time or the end", async () => {
    for (const topic of ["seek.all.a", "seek.all.b"]) for (const id of ["1", "2"]) await publish(topic, id)
    await member("seek.all.*", "everywhere", { credit: 1 })
    expect(await change("/groups/everywhere/seek", { to: "end" })).toMatchObject({
      topics: [
        { topic: "seek.all.a", from: 0, to: 2, again: 0, skipped: 2 },
        { topic: "seek.all.b", from: 0, to: 2, again: 0, skipped: 2 }
      ]
    })
    expect(await change("/groups/everywhere/seek", { to: { time: 0 }, dryRun: true })).toMatchObject({
      topics: [
        { from: 2, to: 0, again: 2, skipped: 0 },
        { from: 2, to: 0, again: 2, skipped: 0 }
      ]
    })
    expect(await change("/groups/everywhere/seek", { topic: "seek.all.b", to: "start" })).toMatchObject({
      topics: [{ topic: "seek.all.b", from: 2, to: 0, again: 2 }]
    })
  })

  it("refuses what is no place", async () => {
    await publish("seek.no", "1")
    await member("seek.no", "nowhere")
    const seek = (body: unknown) => askAs(hub, operator, "/groups/nowhere/seek", json(body))
    expectProblem(await seek({ topic: "seek.no", to: { seq: 2 } }), 400, /ends at 1, before 2/)
    expectProblem(await seek({ to: { seq: 1 } }), 400, /name that/)
    expectProblem(await seek({ topic: "seek.**", to: { seq: 1 } }), 400, /without wildcards/)
    expectProblem(await seek({ topic: "seek.*x", to: "end" }), 400, /body field 'topic': not a pattern/)
    expectProblem(await seek({ topic: "seek.no", to: "middle" }), 400, /body field 'to'/)
    expectProblem(await seek({ topic: "seek.no", to: { seq: -1 } }), 400, /body field 'to.seq'/)
    expectProblem(await seek({ topic: "seek.no" }), 400, /body field 'to' is missing/)
    expectProblem(await seek({ topc: "seek.no", to: "end" }), 400, /there is no body field 'topc'/)
    expectProblem(await seek({ topic: "seek.other", to: "end" }), 404, /no group 'nowhere' on topic/)
    expect(await lag("seek.no", "nowhere")).toMatchObject({ pending: 1 })
  })
})

describe("pause, resume, remove", () => {
  it("a paused group gets nothing until it is resumed", async () => {
    await publish("pause.a", "1")
    await member("pause.a", "sleeper")
    await delivered("sleeper", "pause.a", 1)
    expect(await change("/groups/sleeper/pause", { reason: "maintenance" })).toEqual({
      group: "sleeper",
      paused: true
    })
    await publish("pause.a", "2")
    await ack("pause.a", "sleeper", ["1"])
    expect(await lag("pause.a", "sleeper")).toMatchObject({ stalled: "paused", pending: 1, inFlight: 0 })
    expect(await read(hub, "/groups/sleeper", operator)).toMatchObject({ paused: true })
    expect(await change("/groups/sleeper/resume")).toEqual({ group: "sleeper", paused: false })
    expect(await delivered("sleeper", "pause.a", 2)).toEqual(["1", "2"])
    expect(await lag("pause.a", "sleeper")).toMatchObject({ stalled: null })
    await logged("group paused", "sleeper", { sub: "olga", reason: "maintenance" })
    await logged("group resumed", "sleeper", { sub: "olga" })
  })

  it("a removed group is forgotten, and its members are told", async () => {
    await publish("remove.a", "1")
    await member("remove.a", "gone")
    await delivered("gone", "remove.a", 1)
    const forgotten = { positions: 1, inFlight: 1, waiting: 0 }
    expect(await change("/groups/gone?dryRun=true&reason=no%20use", undefined, "DELETE")).toEqual({
      group: "gone",
      dryRun: true,
      removed: false,
      ...forgotten
    })
    expect(await read(hub, "/groups/gone", operator)).toMatchObject({ topics: [{ inFlight: 1 }] })
    expect(await change("/groups/gone?reason=no%20use", undefined, "DELETE")).toEqual({
      group: "gone",
      dryRun: false,
      removed: true,
      ...forgotten
    })
    const end = await client.waitFor("END", ({ group, op }) => op === "END" && group === "gone")
    expect(end).toMatchObject({ sub: "remove.a", reason: "removed" })
    for (const path of ["/groups/gone/pause", "/groups/gone/resume", "/groups/gone/seek"]) {
      expectProblem(
        await askAs(hub, operator, path, json(path.endsWith("seek") ? { to: "end" } : {})),
        404,
        /'gone'/
      )
    }
    expectProblem(await askAs(hub, operator, "/groups/gone", { method: "DELETE" }), 404, /no group 'gone'/)
    await logged("group removed", "gone", { sub: "olga", reason: "no use", ...forgotten })
    expect(hub.lines.filter((line) => line.msg.startsWith("group removed"))).toHaveLength(1)
  })
})

describe("blocked keys", () => {
  const path = (group: string) => `/groups/${group}/blocked-keys?topic=keys.a`

  beforeAll(async () => {
    for (const [id, key] of [
      ["a1", "a"],
      ["a2", "a"],
      ["b1", "b"],
      ["b2", "b"],
      ["c1", "c"]
    ] as const) {
      await publish("keys.a", id, { key })
    }
    await member("keys.a", "ordered", { keyOrdered: true })
    await delivered("ordered", "keys.a", 3)
    await nack("keys.a", "ordered", "a1", { reason: "not now" })
    await nack("keys.a", "ordered", "b1", { reason: "never" })
  })

  it("are listed with what they wait for", async () => {
    const answer = await read(hub, path("ordered"))
    expect(answer).toEqual({
      group: "ordered",
      topic: "keys.a",
      total: 2,
      keys: [
        {
          key: "a",
          seq: 1,
          state: "waiting",
          attempt: 1,
          since: number,
          ageMs: number,
          notBefore: number,
          reason: "not now",
          behind: 1
        },
        expect.objectContaining({ key: "b", seq: 3, reason: "never" }) as unknown
      ],
      next: null
    })
    const first = (await read(hub, `${path("ordered")}&limit=1`)) as { readonly next: string }
    expect(first).toMatchObject({ total: 2, keys: [{ key: "a" }] })
    expect(await read(hub, `${path("ordered")}&limit=1&after=${first.next}`)).toMatchObject({
      total: 2,
      keys: [{ key: "b" }],
      next: null
    })
    expectProblem(await askAs(hub, {}, `${path("ordered")}&after=b`), 400, /'after': Expected `next`/)
    expect(await lag("keys.a", "ordered")).toMatchObject({ blockedKeys: 2, waiting: 2, deferred: 2 })
  })

  it("are released: to be tried again, or to be given up, and the others of the key go on", async () => {
    const release = (key: string, mode: string, more: object = {}) =>
      change("/groups/ordered/release-key", { topic: "keys.a", key, mode, reason: "it is fixed", ...more })
    const answer = { group: "ordered", topic: "keys.a", key: "a", mode: "retry", seq: 1 }
    expect(await release("a", "retry", { dryRun: true })).toEqual({ ...answer, dryRun: true })
    expect(await lag("keys.a", "ordered")).toMatchObject({ blockedKeys: 2, waiting: 2 })
    expect(await release("a", "retry")).toEqual({ ...answer, dryRun: false })
    expect((await delivered("ordered", "keys.a", 4)).slice(3)).toEqual(["a1"])
    expect(await release("b", "dead-letter")).toMatchObject({ seq: 3 })
    expect((await delivered("ordered", "keys.a", 5)).slice(4)).toEqual(["b2"])
    await expect.poll(() => lag("keys.a", "ordered")).toMatchObject({ dead: 1, waiting: 0, deferred: 1 })
    await logged("group key released", "ordered", {
      sub: "olga",
      topic: "keys.a",
      key: "a",
      mode: "retry",
      seq: 1,
      reason: "it is fixed"
    })
  })

  it("one that is not blocked is not released", async () => {
    const release = (body: object) =>
      askAs(hub, operator, "/groups/ordered/release-key", json({ topic: "keys.a", mode: "retry", ...body }))
    expectProblem(await release({ key: "c" }), 409, /key 'c' .* none of its events has failed/)
    expectProblem(await release({ key: "c", mode: "dead-letter" }), 409, /none of its events has failed/)
    expectProblem(await release({ key: "c", mode: "away" }), 400, /body field 'mode'/)
    expectProblem(await release({}), 400, /body field 'key' is missing/)
    await member("keys.a", "unordered")
    const unordered = json({ topic: "keys.a", key: "a", mode: "retry" })
    expectProblem(
      await askAs(hub, operator, "/groups/unordered/release-key", unordered),
      409,
      /not key-ordered/
    )
    expect(await read(hub, path("unordered"))).toMatchObject({ total: 0, keys: [] })
  })
})

describe("dead letters", () => {
  const dead = "/dead-letters?group=mourner&topic=dead.a"

  interface Page {
    readonly letters: ReadonlyArray<{ readonly letter: number; readonly status: string; readonly id: string }>
    readonly next: number | null
  }

  const letters = async (query = "") =>
    ((await read(hub, dead + query)) as Page).letters.map(({ id, status }) => [id, status])

  beforeAll(async () => {
    for (const id of ["1", "2", "3"]) await publish("dead.a", id, { key: id, type: "t", headers: { h: "v" } })
    await member("dead.a", "mourner", { maxAttempts: 1 })
    await delivered("mourner", "dead.a", 3)
    for (const id of ["1", "2", "3"]) await nack("dead.a", "mourner", id, { reason: `reason ${id}` })
  })

  it("are listed with why they died, filtered, in pages", async () => {
    await expect.poll(() => letters()).toHaveLength(3)
    expect(await read(hub, `${dead}&letter=2`)).toEqual({
      group: "mourner",
      topic: "dead.a",
      letters: [
        {
          letter: 2,
          status: "dead",
          diedAt: number,
          reason: "reason 2",
          attempts: 1,
          redrives: 0,
          id: "2",
          seq: 2,
          storedAt: number,
          event: {
            id: expect.any(String) as string,
            topic: "$dead.mourner.dead.a",
            seq: 2,
            ts: number,
            storedAt: number,
            payload: { of: "2" },
            type: "t",
            key: "2",
            headers: expect.objectContaining({ h: "v", "dead-reason": "reason 2" }) as object
          }
        }
      ],
      next: null
    })
    const first = (await read(hub, `${dead}&limit=2`)) as Page
    expect([first.letters.map(({ id }) => id), first.next]).toEqual([["1", "2"], 2])
    expect(await letters("&limit=2&after=2")).toEqual([["3", "dead"]])
    expect(await letters("&id=1&id=3")).toHaveLength(2)
    expect(await letters("&reason=son%203")).toEqual([["3", "dead"]])
    expect(await letters("&key=2")).toEqual([["2", "dead"]])
    expect(await letters(`&until=${Date.now() + 60_000}&since=0`)).toHaveLength(3)
    expect(await letters(`&since=${Date.now() + 60_000}`)).toEqual([])
  })

  it("come back, and are told apart from those that did not", async () => {
    await expect.poll(() => letters()).toHaveLength(3)
    const redrive = (body: object) =>
      change("/dead-letters/redrive", { group: "mourner", topic: "dead.a", ...body })
    const filter = { ids: ["1", "2"] }
    const answer = { group: "mourner", topic: "dead.a", matched: 2 }
    expect(await redrive({ filter, dryRun: true })).toEqual({ ...answer, dryRun: true })
    expect(await lag("dead.a", "mourner")).toMatchObject({ dead: 3, redriven: 0 })
    expect(await redrive({ filter, reason: "fixed" })).toEqual({ ...answer, dryRun: false })
    expect((await delivered("mourner", "dead.a", 5)).slice(3).sort()).toEqual(["1", "2"])
    expect(await lag("dead.a", "mourner")).toMatchObject({ dead: 1, redriven: 2, pending: 0, lagMs: 0 })
    await ack("dead.a", "mourner", ["1"])
    await expect
      .poll(() => letters())
      .toEqual([
        ["1", "redriven"],
        ["2", "redriving"],
        ["3", "dead"]
      ])
    expect(await redrive({ filter })).toEqual({ ...answer, matched: 0, dryRun: false })
    await logged("dead letters redriven", "mourner", {
      sub: "olga",
      topic: "dead.a",
      filter,
      reason: "fixed",
      matched: 2
    })
    // It dies again, and that is another letter.
    await nack("dead.a", "mourner", "2", { reason: "again" })
    await expect
      .poll(() => letters())
      .toEqual([
        ["1", "redriven"],
        ["2", "redriven"],
        ["3", "dead"],
        ["2", "dead"]
      ])
    expect(await lag("dead.a", "mourner")).toMatchObject({ dead: 2, redriven: 0 })
  })

  it("a filter that means nothing is refused", async () => {
    for (const [filter, detail] of [
      [{ ids: [] }, /an empty list/],
      [{ letters: [0] }, /body field 'filter.letters.0'/],
      [{ since: 2, until: 1 }, /'since' is not before 'until'/],
      [{ raeson: "x" }, /there is no body field 'filter.raeson'/],
      ["everything", /body field 'filter'/]
    ] as const) {
      const body = { group: "mourner", topic: "dead.a", filter }
      expectProblem(await askAs(hub, operator, "/dead-letters/redrive", json(body)), 400, detail)
    }
    for (const [query, detail] of [
      ["&letter=x", /query parameter 'letter.0'/],
      ["&since=later", /query parameter 'since'/],
      ["&after=-1", /query parameter 'after'/],
      ["&lettr=1", /there is no query parameter 'lettr'/],
      ["&since=2&until=1", /'since' is not before 'until'/]
    ] as const) {
      expectProblem(await askAs(hub, operator, dead + query), 400, detail)
    }
  })

  it("404: no such group, or one that takes nothing of the topic", async () => {
    for (const query of ["group=nobody&topic=dead.a", "group=mourner&topic=dead.b"]) {
      expectProblem(await askAs(hub, {}, `/dead-letters?${query}`), 404, /there is no group/)
    }
    for (const body of [
      { group: "nobody", topic: "dead.a" },
      { group: "mourner", topic: "dead.b" }
    ]) {
      expectProblem(await askAs(hub, operator, "/dead-letters/redrive", json(body)), 404, /there is no group/)
    }
  })
})

describe("who may", () => {
  const requests: ReadonlyArray<readonly [path: string, init?: RequestInit]> = [
    ["/groups"],
    ["/groups/guarded"],
    ["/groups/guarded/seek", json({ to: "end" })],
    ["/groups/guarded/seek", json({ topic: "guard.a", to: "end", dryRun: true })],
    ["/groups/guarded/seek", json({ topic: "guard.*", to: "end" })],
    ["/groups/guarded/pause", { method: "POST" }],
    ["/groups/guarded/resume", json({})],
    ["/groups/guarded", { method: "DELETE" }],
    ["/groups/guarded/blocked-keys?topic=guard.a"],
    ["/groups/guarded/release-key", json({ topic: "guard.a", key: "k", mode: "retry" })],
    ["/dead-letters?group=guarded&topic=guard.a"],
    ["/dead-letters/redrive", json({ group: "guarded", topic: "guard.a" })],
    ["/dead-letters/redrive", json({ group: "guarded", topic: "guard.a", dryRun: true })]
  ]
  const isChange = ([, init]: (typeof requests)[number]) => init !== undefined

  beforeAll(async () => {
    await publish("guard.a", "1")
    await publish("guard.b", "1")
    await member("guard.a", "guarded")
    await member("guard.b", "guarded")
  })

  const about = (name: string, request: (typeof requests)[number]) => {
    const [path, init] = request
    const body = init?.body
    return [
      path.replace("guarded", name),
      typeof body === "string" ? { ...init, body: body.replace("guarded", name) } : init
    ] as const
  }

  const send = (token: TokenOptions, [path, init]: ReturnType<typeof about>): Promise<Answer> =>
    askAs(hub, token, path, init)

  it("401 without a token", async () => {
    for (const [path, init] of requests) expectProblem(await ask(hub, path, init), 401, /token is missing/)
    expectProblem(await ask(hub, "/groups/guarded/seek", json("no seek")), 401, /token is missing/)
  })

  it("403 for a change without the right to administrate, whether there is something or not", async () => {
    const reader = { scopes: [...everything, "*:guard.**", "admin:elsewhere.**"] }
    for (const request of requests.filter(isChange)) {
      expectProblem(await send(reader, about("guarded", request)), 403, /no right to administrate/)
      const there = await send(reader, about("guarded", request))
      const notThere = await send(reader, about("nobody", request))
      expect(notThere.text.replaceAll("nobody", "guarded")).toBe(there.text)
    }
    expect(await read(hub, "/groups/guarded", operator)).toMatchObject({ paused: false })
  })

  it("403 for a look without the right to subscribe, also for who administrates", async () => {
    const admin = { scopes: ["admin:**"] }
    expectProblem(await send(admin, about("guarded", requests[8]!)), 403, /no right to subscribe 'guard\.a'/)
    expectProblem(await send(admin, about("guarded", requests[10]!)), 403, /no right to subscribe/)
    // Both rights, to the letters and to what they hold.
    for (const scopes of [["subscribe:**"], ["subscribe:$dead.**"]]) {
      expectProblem(await send({ scopes }, about("guarded", requests[10]!)), 403, /\$dead\.guarded\.guard\.a/)
    }
    const both = { scopes: ["subscribe:guard.a", "subscribe:$dead.guarded.**"] }
    expect(await send(both, about("guarded", requests[10]!))).toMatchObject({ status: 200 })
  })

  it("a part of a group's topics is enough for these, and not for the group", async () => {
    const part = { sub: "paul", scopes: ["admin:guard.a"] }
    const body = { topic: "guard.a", to: "end" }
    expect(await askAs(hub, part, "/groups/guarded/seek", json(body))).toMatchObject({ status: 200 })
    const more = json({ ...body, topic: "guard.*" })
    expectProblem(await askAs(hub, part, "/groups/guarded/seek", more), 403, /administrate 'guard\.\*'/)
    const all = json({ to: "end" })
    expectProblem(await askAs(hub, part, "/groups/guarded/seek", all), 403, /every topic of group 'guarded'/)
    const whole = { scopes: ["admin:guard.*"] }
    expect(await askAs(hub, whole, "/groups/guarded/pause", { method: "POST" })).toMatchObject({
      status: 200
    })
    expectProblem(await askAs(hub, part, "/groups/guarded/resume", json({})), 403, /every topic/)
    expect(await askAs(hub, whole, "/groups/guarded/resume", { method: "POST" })).toMatchObject({
      status: 200
    })
  })

  it("a deny counts, however wide the allow", async () => {
    const rules = [
      { effect: "deny", action: "admin", topics: ["guard.b"] },
      { effect: "allow", action: "admin", topics: ["**"] }
    ]
    const token = { claims: { policy: { rules } } }
    expectProblem(await askAs(hub, token, "/groups/guarded/pause", { method: "POST" }), 403, /every topic/)
    const seek = (topic: string) =>
      askAs(hub, token, "/groups/guarded/seek", json({ topic, to: "end", dryRun: true }))
    expectProblem(await seek("guard.*"), 403, /guard/)
    expect(await seek("guard.a")).toMatchObject({ status: 200 })
  })

  it("a static token administrates nothing", async () => {
    const machines = await startHub({ STATIC_TOKEN: "a token for machines" })
    for (const request of requests.filter(isChange)) {
      expectProblem(await askAs(machines, "a token for machines", ...request), 403, /no right/)
    }
    await machines.stop()
  })
})

describe("what cannot be read", () => {
  const seek = async (init: RequestInit) =>
    ask(hub, "/groups/guarded/seek", {
      ...init,
      method: "POST",
      headers: { authorization: `Bearer ${await tokenFor(operator)}`, ...init.headers }
    })
  const type = { "content-type": "application/json" }

  it("a body that is no JSON, none, of another type, or too long", async () => {
    expectProblem(await seek({ body: "{nope", headers: type }), 400, /valid JSON/)
    expectProblem(await seek({}), 400, /the body: Expected object/)
    expectProblem(await seek({ body: "[]", headers: type }), 400, /the body: Expected object/)
    const form = { "content-type": "application/x-www-form-urlencoded" }
    expectProblem(await seek({ body: "to=end", headers: form }), 415, /application\/json/)
    const long = JSON.stringify({ to: "end", reason: "x".repeat(300_000) })
    expectProblem(await seek({ body: long, headers: type }), 413, /at most 262144 bytes/)
  })

  it("a reason of several lines, or a long one", async () => {
    for (const [reason, detail] of [
      ["a\nb", /one line/],
      ["x".repeat(1_001), /at most 1000/]
    ] as const) {
      expectProblem(await seek({ ...json({ to: "end", reason }), headers: type }), 400, detail)
      const path = `/groups/guarded?reason=${encodeURIComponent(reason)}`
      expectProblem(await askAs(hub, operator, path, { method: "DELETE" }), 400, detail)
    }
  })

  it("a group's name that is none", async () => {
    for (const [path, init] of [
      ["/groups/a.b", {}],
      ["/groups/a.b/pause", { method: "POST" }],
      ["/groups/a.b/seek", json({ to: "end" })],
      ["/groups/*/blocked-keys?topic=a", {}],
      ["/groups/a.b/release-key", json({ topic: "a", key: "k", mode: "retry" })],
      ["/groups/a.b", { method: "DELETE" }],
      ["/dead-letters?group=a.b&topic=a", {}],
      ["/dead-letters/redrive", json({ group: "a.b", topic: "a" })]
    ] as const) {
      expectProblem(
        await askAs(hub, operator, path, init),
        400,
        /'group': a group's name is one topic segment/
      )
    }
  })

  it("a topic that is a pattern, where one topic is meant", async () => {
    for (const [path, init] of [
      ["/groups/guarded/blocked-keys?topic=guard.*", {}],
      ["/groups/guarded/release-key", json({ topic: "guard.*", key: "k", mode: "retry" })],
      ["/dead-letters?group=guarded&topic=guard.*", {}],
      ["/dead-letters/redrive", json({ group: "guarded", topic: "guard.*" })]
    ] as const) {
      expectProblem(await askAs(hub, operator, path, init), 400, /'topic': not a topic/)
    }
  })

  it("405 names the methods that there are", async () => {
    for (const [method, path, allow] of [
      ["GET", "/groups/guarded/pause", "POST"],
      ["PUT", "/groups", "GET, HEAD"],
      ["POST", "/groups/guarded", "GET, HEAD, DELETE"],
      ["GET", "/dead-letters/redrive", "POST"]
    ] as const) {
      const answer = await ask(hub, path, { method })
      expectProblem(answer, 405, new RegExp(method))
      expect(answer.headers.get("allow")).toBe(allow)
    }
  })
})
