/** The log over HTTP: looked at, published to, taken out as a file and brought back. */
import { once } from "node:events"
import { type IncomingMessage, request } from "node:http"
import { gunzipSync, gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { tokenFor, type TokenOptions } from "../../support/tokens.ts"
import { ask, askAs, expectProblem, json, read } from "./ops.ts"

const admin: TokenOptions = {
  sub: "ada",
  scopes: ["publish:**", "subscribe:**", "subscribe:$dead.**", "admin:**", "admin:$dead.**"]
}

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub({ LIMIT_PUBLISH_EVENTS: "50", LIMIT_LINE_BYTES: "600000", LIMIT_BAD_LINES: "2" })
})
afterAll(async () => {
  await hub.stop()
})

interface Published {
  readonly results: ReadonlyArray<{ readonly seq: number; readonly id: string; readonly storedAt: number }>
}

const publish = async (events: unknown, token: TokenOptions = admin): Promise<Published["results"]> => {
  const answer = await askAs(hub, token, "/publish", json(events))
  expect([answer.status, answer.text]).toEqual([200, answer.text])
  return (answer.json as Published).results
}

const numbered = (topic: string, count: number) =>
  Array.from({ length: count }, (_, i) => ({ topic, id: `e${i + 1}`, payload: { n: i + 1 } }))

const ndjson = (body: string | Uint8Array<ArrayBuffer>, headers: Readonly<Record<string, string>> = {}) => ({
  method: "POST",
  body,
  headers: { "content-type": "application/x-ndjson", ...headers }
})

const linesOf = (text: string) => text.trimEnd().split("\n")
const idsOf = (json: unknown) =>
  (json as { readonly events: ReadonlyArray<{ readonly topic: string; readonly seq: number }> }).events.map(
    ({ seq, topic }) => `${topic} ${seq}`
  )

describe("POST /publish", () => {
  it("publishes one event, and answers when it is durable", async () => {
    const event = {
      topic: "publish.one",
      id: "i",
      ts: 5,
      payload: { a: [1, null] },
      type: "t",
      key: "k",
      headers: { h: "v" },
      tags: ["x"],
      caused_by: "c",
      sid: "s"
    }
    const [first] = await publish(event)
    expect(first).toEqual({
      topic: "publish.one",
      id: "i",
      seq: 1,
      storedAt: expect.any(Number) as number,
      duplicate: false
    })
    expect(await publish(event)).toEqual([{ ...first, duplicate: true }])
    expect(await read(hub, "/events?topic=publish.one")).toEqual({
      events: [{ ...event, seq: 1, storedAt: first?.storedAt }],
      next: null
    })
  })

  it("publishes several in their order, and makes ids and times that are not given", async () => {
    const results = await publish([
      { topic: "publish.two", payload: 1 },
      { topic: "publish.three", payload: 2 },
      { topic: "publish.two", payload: 3 }
    ])
    expect(results.map(({ seq }) => seq)).toEqual([1, 1, 2])
    const { events } = (await read(hub, "/events?topic=publish.two")) as {
      readonly events: ReadonlyArray<{ readonly id: string; readonly ts: number; readonly storedAt: number }>
    }
    expect(events.map(({ id }) => id)).toEqual([results[0]?.id, results[2]?.id])
    expect(Math.abs(events[0]!.ts - events[0]!.storedAt)).toBeLessThan(60_000)
    expect(await publish([])).toEqual([])
  })

  it("is logged with who did it and why", async () => {
    await askAs(hub, admin, "/publish?reason=a%20repair", json({ topic: "publish.log", payload: 1 }))
    const line = await hub.lineWhere(({ msg, reason }) => msg === "events published" && reason === "a repair")
    expect(line).toMatchObject({ sub: "ada", events: 1, topics: ["publish.log"] })
  })

  it("takes a payload as large as a client may publish, and refuses a larger one", async () => {
    const large = "x".repeat(256 * 1024 - 2)
    await publish({ topic: "publish.large", payload: large })
    const larger = await askAs(hub, admin, "/publish", json({ topic: "publish.large", payload: `${large}x` }))
    expectProblem(larger, 413, /the payload has 262145 bytes; at most 262144/)
    const huge = await askAs(hub, admin, "/publish", json({ topic: "a", payload: "x".repeat(1_100_000) }))
    expectProblem(huge, 413, /a body has at most 1048576 bytes/)
  })

  it("refuses all of them when one is no event, or is not allowed", async () => {
    const good = { topic: "publish.none", payload: 1 }
    const cases: ReadonlyArray<readonly [unknown, number, RegExp, TokenOptions?]> = [
      [{ topic: "publish.none" }, 400, /payload/],
      [[good, { topic: "a..b", payload: 1 }], 400, /event 2: not a topic/],
      [[good, { topic: "$dead.g.a", payload: 1 }], 403, /event 2: no right to publish '\$dead\.g\.a'/],
      [{ ...good, topik: "a" }, 400, /topik/],
      [[good, { topic: "other", payload: 1 }], 403, /event 2: no right/, { scopes: ["publish:publish.**"] }],
      [Array.from({ length: 51 }, () => good), 413, /at most 50 events/],
      ["a", 400, /./]
    ]
    for (const [body, status, detail, token = admin] of cases) {
      expectProblem(await askAs(hub, token, "/publish", json(body)), status, detail)
    }
    expectProblem(await ask(hub, "/publish", json(good)), 401, /token/)
    expectProblem(await askAs(hub, admin, "/events?topic=publish.none"), 404, /no topic/)
  })

  it("spends what a subject may send, and says what was not published", async () => {
    const limited = { ...admin, sub: "slow", claims: { limits: { messages: { perSecond: 1, burst: 3 } } } }
    const results = await publish(numbered("publish.rate", 5), limited)
    expect(results.slice(0, 3).map(({ seq }) => seq)).toEqual([1, 2, 3])
    expect(results.slice(3)).toEqual(
      ["e4", "e5"].map((id) => ({
        topic: "publish.rate",
        id,
        error: {
          code: "rate_limited",
          msg: expect.stringMatching(/too many messages/) as string,
          retryAfterMs: expect.any(Number) as number
        }
      }))
    )
    const none = await askAs(hub, limited, "/publish", json(numbered("publish.rate", 5)))
    expectProblem(none, 429, /too many messages .*come back in \d+ ms/)
  })
})

describe("GET /events", () => {
  beforeAll(async () => {
    await publish([...numbered("events.a", 9), ...numbered("events.b", 4)])
  })

  it("pages through a topic in both directions", async () => {
    for (const order of ["asc", "desc"]) {
      const found: Array<string> = []
      let after = ""
      do {
        const page = (await read(hub, `/events?topic=events.*&order=${order}&limit=4${after}`)) as {
          readonly next: string | null
        }
        found.push(...idsOf(page))
        after = page.next === null ? "" : `&after=${encodeURIComponent(page.next)}`
      } while (after !== "")
      const whole = [9, 4].map((count, i) =>
        Array.from({ length: count }, (_, n) => `events.${"ab"[i]} ${n + 1}`)
      )
      expect(found).toEqual(whole.flatMap((part) => (order === "asc" ? part : part.toReversed())))
    }
  })

  it("begins and ends at a seq or a time", async () => {
    const given = (await read(hub, "/events?topic=events.a")) as {
      readonly events: ReadonlyArray<{ readonly storedAt: number }>
    }
    const { events } = given
    expect(idsOf(await read(hub, "/events?topic=events.a&from=3&to=4"))).toEqual(["events.a 3", "events.a 4"])
    const first = events[0]!.storedAt
    const all = (await read(hub, "/events?topic=events.*")) as typeof given
    // What is published together need not be stored in its order: topics have nothing to do with each other.
    const earliest = Math.min(...all.events.map(({ storedAt }) => storedAt))
    expect(idsOf(await read(hub, `/events?topic=events.*&to=@${earliest}`))).toEqual([])
    const iso = new Date(first).toISOString()
    expect(idsOf(await read(hub, `/events?topic=events.a&from=${iso}&limit=1`))).toEqual(["events.a 1"])
    expect(idsOf(await read(hub, "/events?topic=events.a&from=2999-01-01"))).toEqual([])
  })

  it("says what is wrong with a question", async () => {
    const cases: ReadonlyArray<readonly [string, number, RegExp]> = [
      ["/events", 400, /query parameter 'topic' is missing/],
      ["/events?topic=a..b", 400, /'topic': not a pattern/],
      ["/events?topic=events.*&from=3", 400, /'from': a seq counts the events of one topic/],
      ["/events?topic=events.a&to=soon", 400, /'to': it is none of/],
      ["/events?topic=events.a&after=x", 400, /'after': give what 'next'/],
      ["/events?topic=events.b&after=1:events.a", 400, /'after': 'events.a' is no topic of 'events.b'/],
      ["/events?topic=events.a&order=up", 400, /'order'/],
      ["/events?topic=events.a&limit=0", 400, /'limit'/],
      ["/events?topic=events.none", 404, /there is no topic 'events.none'/],
      ["/export?topic=events.none", 404, /there is no topic/],
      ["/export?topic=events.*&to=3", 400, /'to': a seq/]
    ]
    for (const [path, status, detail] of cases) expectProblem(await askAs(hub, admin, path), status, detail)
    expectProblem(await ask(hub, "/events?topic=events.a"), 401, /token/)
  })

  it("shows what the token may subscribe, and nothing of the rest", async () => {
    const few: TokenOptions = { scopes: ["subscribe:events.b"] }
    expectProblem(await askAs(hub, few, "/events?topic=events.a"), 403, /no right to subscribe 'events.a'/)
    expectProblem(await askAs(hub, few, "/events?topic=events.none"), 403, /no right/)
    expectProblem(await askAs(hub, few, "/export?topic=events.a"), 403, /no right/)
    const page = await read(hub, "/events?topic=**", few)
    expect(new Set(idsOf(page).map((id) => id.split(" ")[0]))).toEqual(new Set(["events.b"]))
    const file = await askAs(hub, few, "/export")
    expect(file.text).not.toContain("events.a")
    expect(JSON.parse(linesOf(file.text).at(-1)!)).toMatchObject({ events: 4, topics: 1 })
  })
})

/** An export as it comes, without what `fetch` would undo. */
const openExport = async (path: string, headers: Readonly<Record<string, string>> = {}) => {
  const sent = request(hub.ops + path, {
    headers: { ...headers, authorization: `Bearer ${await tokenFor(admin)}` }
  })
  sent.end()
  const [answer] = (await once(sent, "response")) as [IncomingMessage]
  return answer
}

describe("GET /export", () => {
  it("is a file of lines, with a header and an end", async () => {
    await publish(numbered("export.a", 3))
    const answer = await openExport("/export?topic=export.a")
    const text = Buffer.concat(await answer.toArray()).toString()
    const [header, ...lines] = linesOf(text).map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(header).toMatchObject({
      format: "event-hub/export",
      version: 1,
      topic: "export.a",
      from: null,
      to: null
    })
    expect(lines.map(({ id }) => id)).toEqual(["e1", "e2", "e3", undefined])
    expect(lines.at(-1)).toMatchObject({ end: true, events: 3, latest: 0, topics: 1 })
    expect(answer.headers).toMatchObject({
      "content-type": "application/x-ndjson",
      "content-disposition": expect.stringMatching(
        /^attachment; filename="export\.a-\d{8}T\d{6}Z\.ndjson"$/
      ) as string,
      vary: "accept-encoding",
      "x-content-type-options": "nosniff"
    })
    expect(answer.headers["content-encoding"]).toBeUndefined()
  })

  it.each([
    ["gzip", true],
    ["br, gzip;q=0.5", true],
    ["gzip;q=0", false],
    ["br", false],
    ["identity", false]
  ])("with Accept-Encoding %s is compressed: %s", async (accepted, isPacked) => {
    const plain = Buffer.concat(await (await openExport("/export?topic=export.a")).toArray())
    const answer = await openExport("/export?topic=export.a", { "accept-encoding": accepted })
    expect(answer.headers["content-encoding"]).toBe(isPacked ? "gzip" : undefined)
    const bytes = Buffer.concat(await answer.toArray())
    const text = (isPacked ? gunzipSync(bytes) : bytes).toString()
    expect(linesOf(text).slice(1)).toEqual(linesOf(plain.toString()).slice(1))
  })

  it("ends when its client goes away, and the hub goes on", async () => {
    const many = Array.from({ length: 50 }, (_, i) => ({
      topic: "export.long",
      id: `${i}`,
      payload: "x".repeat(15_000)
    }))
    for (let round = 0; round < 12; round++) {
      await publish(many.map((event) => ({ ...event, id: `${round} ${event.id}` })))
    }
    const answer = await openExport("/export?topic=export.long")
    await once(answer, "readable")
    answer.destroy()
    const whole = await openExport("/export?topic=export.long")
    const text = Buffer.concat(await whole.toArray()).toString()
    expect(JSON.parse(linesOf(text).at(-1)!)).toMatchObject({ end: true, events: 600 })
  })
})

describe("POST /import", () => {
  const fileOf = async (topic: string) => (await askAs(hub, admin, `/export?topic=${topic}`)).text
  const header =
    '{"format":"event-hub/export","version":1,"history":"h","exportedAt":1,"topic":"**","from":null,"to":null}'

  beforeAll(async () => {
    await publish(numbered("import.a", 5))
  })

  const renamed = (file: string, from: string, to: string) => file.replaceAll(`"${from}"`, `"${to}"`)

  it("brings a file back, compressed or not, and says what it did", async () => {
    const file = await fileOf("import.a")
    // Another topic: the checksum is that of what was exported.
    const other = renamed(file, "import.a", "import.b")
    const report = {
      dryRun: false,
      complete: false,
      missing: "its checksum differs: it was changed on the way",
      lines: 7,
      topics: 1,
      restored: 5,
      appended: 0,
      duplicates: 0,
      latest: 0,
      bad: 0,
      badLines: []
    }
    const dry = await askAs(hub, admin, "/import?dryRun=true", ndjson(other))
    expect([dry.status, dry.json]).toEqual([200, { ...report, dryRun: true }])
    expectProblem(await askAs(hub, admin, "/events?topic=import.b"), 404, /no topic/)
    const packed = ndjson(new Uint8Array(gzipSync(other)), { "content-encoding": "gzip" })
    const done = await askAs(hub, admin, "/import?reason=moved", packed)
    expect([done.status, done.json]).toEqual([200, report])
    const line = await hub.lineWhere(({ msg, reason }) => msg === "events imported" && reason === "moved")
    expect(line).toMatchObject({ sub: "ada", restored: 5, complete: false, bad: 0 })
    const again = await askAs(hub, admin, "/import", ndjson(file))
    expect(again.json).toMatchObject({ complete: true, missing: null, duplicates: 5, restored: 0 })
  })

  it("writes where the token may administrate, and does not say what is elsewhere", async () => {
    await publish([...numbered("import.c", 2), ...numbered("import.d", 2)])
    const file = await fileOf("import.c")
    const lines = ["import.c", "import.d", "import.e"].flatMap((topic) =>
      linesOf(renamed(file, "import.c", topic)).slice(1, -1)
    )
    const some = await askAs(
      hub,
      { scopes: ["admin:import.e"] },
      "/import",
      ndjson([header, ...lines].join("\n"))
    )
    expect(some.json).toMatchObject({
      restored: 2,
      bad: 4,
      badLines: [
        { line: 2, reason: "no right to administrate 'import.c'" },
        { line: 3, reason: "no right to administrate 'import.c'" }
      ]
    })
    const none = await askAs(hub, { scopes: ["subscribe:**", "publish:**"] }, "/import", ndjson(file))
    expectProblem(none, 403, /no right to administrate any topic/)
    expectProblem(await ask(hub, "/import", ndjson(file)), 401, /token/)
  })

  it("refuses what is no export, or is sent in a way that nobody knows", async () => {
    const cases: ReadonlyArray<readonly [RequestInit, number, RegExp]> = [
      [ndjson("hello"), 400, /does not say "format"/],
      [ndjson(""), 400, /nothing in it/],
      [ndjson('{"format":"event-hub/export","version":9}\n'), 400, /version 9/],
      [ndjson("x", { "content-encoding": "br" }), 415, /content-encoding: gzip/],
      [ndjson("x", { "content-type": "text/plain" }), 415, /application\/x-ndjson/]
    ]
    for (const [init, status, detail] of cases) {
      expectProblem(await askAs(hub, admin, "/import", init), status, detail)
    }
    expectProblem(await askAs(hub, admin, "/import?dry=1", ndjson("x")), 400, /dry/)
    expectProblem(await askAs(hub, admin, "/import?dryRun=yes", ndjson("x")), 400, /dryRun/)
    const torn = gzipSync(await fileOf("import.a")).subarray(0, 150)
    const cut = await askAs(
      hub,
      admin,
      "/import",
      ndjson(new Uint8Array(torn), { "content-encoding": "gzip" })
    )
    expectProblem(cut, 400, /it cannot be read to its end: unexpected end of file/)
  })

  it("takes a body of any length, line by line, and no line that is too long", async () => {
    const line = (i: number) =>
      JSON.stringify({
        seq: i,
        storedAt: 5,
        id: `${i}`,
        topic: "import.long",
        ts: 1,
        payload: "x".repeat(100_000)
      })
    const lines = Array.from({ length: 30 }, (_, i) => line(i + 1))
    const report = await askAs(
      hub,
      admin,
      "/import",
      ndjson([header, ...lines, "x".repeat(700_000)].join("\n"))
    )
    expect(report.json).toMatchObject({
      restored: 30,
      bad: 1,
      badLines: [{ line: 32, reason: "it is longer than 600000 bytes" }]
    })
  })

  it("ends at the first bad line when it is told to, whatever is still sent", async () => {
    const body = [header, "bad", ...Array.from({ length: 20 }, () => "x".repeat(500_000))].join("\n")
    const report = await askAs(hub, admin, "/import?strict=true", ndjson(body))
    expect(report.json).toMatchObject({
      complete: false,
      missing: "it was stopped at line 2: it is no JSON object",
      bad: 1
    })
  })

  it("is heard of by live subscribers and groups, from its first event on", async () => {
    const line = (seq: number) =>
      JSON.stringify({ seq, storedAt: 5, id: `e${seq}`, topic: "import.live", ts: 1, payload: seq })
    const live = await RawClient.authenticated(hub.ws)
    const member = await RawClient.authenticated(hub.ws)
    expect(await live.request({ op: "SUBSCRIBE", topic: "import.live" })).toMatchObject({ op: "OK" })
    const joined = await member.request({ op: "SUBSCRIBE", topic: "import.live", group: "importers" })
    expect(joined).toMatchObject({ op: "OK" })
    await askAs(hub, admin, "/import", ndjson([header, line(41), line(42)].join("\n")))
    await askAs(hub, admin, "/import", ndjson([header, line(42), line(43)].join("\n")))
    for (const client of [live, member]) {
      await client.waitForAll("all events", ({ op }) => op === "EVENT", 3)
      const events = client.messages.filter(({ op }) => op === "EVENT").map(({ event }) => event)
      expect(events).toEqual(
        [41, 42, 43].map((seq) => expect.objectContaining({ seq, storedAt: 5, id: `e${seq}` }))
      )
      await client.close()
    }
  })

  it("whose client goes away keeps what it has, and goes on when it is sent again", async () => {
    const lines = Array.from({ length: 4_000 }, (_, i) =>
      JSON.stringify({ seq: i + 1, storedAt: 1_000 + i, id: `${i}`, topic: "import.cut", ts: 1, payload: i })
    )
    const body = `${[header, ...lines].join("\n")}\n`
    const sent = request(`${hub.ops}/import`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson", authorization: `Bearer ${await tokenFor(admin)}` }
    })
    sent.on("error", () => {})
    sent.write(body.slice(0, body.length >> 1))
    for (;;) {
      const { status } = await askAs(hub, admin, "/events?topic=import.cut&limit=1")
      if (status === 200) break
    }
    sent.destroy()
    const whole = await askAs(hub, admin, "/import", ndjson(body))
    expect(whole.json).toMatchObject({ appended: 0, bad: 0 })
    const { duplicates, restored } = whole.json as { readonly duplicates: number; readonly restored: number }
    expect([restored + duplicates, duplicates > 0]).toEqual([4_000, true])
    const last = await read(hub, "/events?topic=import.cut&order=desc&limit=1", admin)
    expect(last).toMatchObject({ events: [{ seq: 4_000, storedAt: 4_999, id: "3999" }] })
  })
})
