/** Everything that the ops API refuses, and how: by whom it is asked first, then what, then whether it is there. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { tokenFor } from "../../support/tokens.ts"
import { ask, askAs, askRaw, expectProblem } from "./ops.ts"

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub({ STATIC_TOKEN: "a token for machines" })
  const client = await RawClient.authenticated(hub.ws)
  for (const topic of ["mine.a", "secret.a"]) {
    await client.request({ op: "PUBLISH", topic, payload: 1 })
    await client.request({ op: "SUBSCRIBE", topic, group: "g", opts: { from: "start" } })
  }
  await client.close()
})

afterAll(() => hub.stop())

const protectedPaths = [
  "/topics",
  "/cursors?topic=mine.a",
  "/lag?topic=mine.a&group=g",
  "/latest-by-key?topic=mine.a"
]

describe("401", () => {
  const challenge = (answer: { readonly headers: Headers }) =>
    expect(answer.headers.get("www-authenticate")).toMatch(/^Bearer/)

  it.each([...protectedPaths, "/cursors", "/cursors?topic=nowhere", "/cursors?topic=bad.*"])(
    "without a token, before anything else: %s",
    async (path) => {
      const answer = await ask(hub, path)
      expectProblem(answer, 401, /a bearer token is missing/)
      challenge(answer)
    }
  )

  it.each([
    ["another scheme", () => "Basic dXNlcjpwYXNz"],
    ["nothing behind the scheme", () => "Bearer "],
    ["what is no token", () => "Bearer x.y.z"],
    ["a foreign secret", async () => `Bearer ${await tokenFor({ secret: "x".repeat(32) })}`],
    ["a token that has expired", async () => `Bearer ${await tokenFor({ expiresIn: -60 })}`]
  ])("with %s", async (_what, authorization) => {
    const headers = { authorization: await authorization() }
    const answer = await ask(hub, "/topics", { headers })
    expectProblem(answer, 401, /token/)
    challenge(answer)
    expect(answer.text).not.toContain("secret")
  })

  it("says of an expired token that it has", async () => {
    expectProblem(await askAs(hub, { expiresIn: -60 }, "/topics"), 401, /expired/)
  })

  it("takes no token from the URL", async () => {
    expectProblem(await ask(hub, `/topics?token=${await tokenFor()}&access_token=x`), 401, /missing/)
  })
})

it.each(protectedPaths)("a static token is good for %s", async (path) => {
  expect(await askAs(hub, "a token for machines", path)).toMatchObject({ status: 200 })
  expect(await askAs(hub, "a token for machine", path)).toMatchObject({ status: 401 })
})

describe("400 names the parameter", () => {
  it.each([
    ["/cursors", "'topic' is missing"],
    ["/lag?group=g", "'topic' is missing"],
    ["/lag?topic=mine.a", "'group' is missing"],
    ["/latest-by-key", "'topic' is missing"],
    ["/cursors?topic=", "'topic': not a topic"],
    ["/cursors?topic=mine.*", "'topic': not a topic"],
    ["/cursors?topic=mine.a&topic=mine.b", "'topic': "],
    ["/lag?topic=mine.a&group=", "'group': "],
    ["/lag?topic=mine.a&group=a.b", "'group': "],
    ["/latest-by-key?topic=mine.a&limit=0", "'limit': "],
    ["/latest-by-key?topic=mine.a&limit=1001", "'limit': "],
    ["/latest-by-key?topic=mine.a&limit=many", "'limit': "],
    [`/latest-by-key?topic=mine.a${"&key=k".repeat(1_001)}`, "'key': at most 1000"],
    ["/topics?pattern=a*", "'pattern': not a pattern"],
    ["/topics?limit=1.5", "'limit': "]
  ])("%s", async (path, detail) => {
    expectProblem(await askAs(hub, {}, path), 400, new RegExp(`^query parameter ${detail}`))
  })

  it("before it says whether the token is enough", async () => {
    const nothing = { scopes: [] }
    expectProblem(await askAs(hub, nothing, "/lag?topic=secret.a"), 400, /'group' is missing/)
    expectProblem(await askAs(hub, nothing, "/cursors?topic=secret.*"), 400, /not a topic/)
  })
})

describe("403", () => {
  const mine = { scopes: ["subscribe:mine.**", "publish:**"] }

  it.each(["/cursors?topic=", "/lag?group=g&topic=", "/latest-by-key?topic=", "/latest-by-key?key=k&topic="])(
    "for a topic that the token may not subscribe, whether there is one or not: %s",
    async (path) => {
      const there = await askAs(hub, mine, `${path}secret.a`)
      const notThere = await askAs(hub, mine, `${path}secret.b`)
      expectProblem(there, 403, /no right to subscribe 'secret\.a'/)
      expectProblem(notThere, 403, /no right to subscribe 'secret\.b'/)
      expect(await askAs(hub, mine, `${path}mine.a`)).toMatchObject({ status: 200 })
      expectProblem(await askAs(hub, mine, `${path}mine.b`), 404, /no topic/)
    }
  )

  it("a right that is for one group shows that group's lag, and nothing else of the topic", async () => {
    const rule = { effect: "allow", action: "subscribe", topics: ["mine.a"], groups: ["g"] }
    const token = { claims: { policy: { rules: [rule] } } }
    expect(await askAs(hub, token, "/lag?topic=mine.a&group=g")).toMatchObject({ status: 200 })
    expectProblem(await askAs(hub, token, "/lag?topic=mine.a&group=h"), 403, /no right/)
    expectProblem(await askAs(hub, token, "/cursors?topic=mine.a"), 403, /no right/)
    expectProblem(await askAs(hub, token, "/latest-by-key?topic=mine.a"), 403, /no right/)
  })
})

describe("what is not there", () => {
  it.each(["/nowhere", "/lag/x", "/assets/", "/openapi", "/docs/x?y=z"])("GET %s is 404", async (path) => {
    expectProblem(await ask(hub, path), 404, /there is nothing at \//)
  })

  it.each(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])(
    "%s changes nothing, and the answer says so",
    async (method) => {
      const answer = await ask(hub, "/lag", { method })
      expectProblem(answer, 405, new RegExp(method))
      expect(answer.headers.get("allow")).toBe("GET, HEAD")
      expectProblem(await ask(hub, "/nowhere", { method }), 404, /nothing/)
    }
  )

  it.each(["TRACE", "PROPFIND"])("%s likewise, which browsers would not send", async (method) => {
    const there = await askRaw(hub, "/lag", {}, method)
    expect(there).toMatchObject({
      status: 405,
      headers: { allow: "GET, HEAD", "content-type": "application/problem+json" }
    })
    expect(await askRaw(hub, "/nowhere", {}, method)).toMatchObject({
      status: 404,
      headers: { "content-type": "application/problem+json", "x-content-type-options": "nosniff" }
    })
  })

  it("a name of any length that there can be is looked for", async () => {
    const longest = encodeURIComponent("%".repeat(64))
    expectProblem(await askAs(hub, { scopes: ["admin:**"] }, `/groups/${longest}`), 404, /no group '%%/)
  })

  it("the pages are for GET alone", async () => {
    for (const path of ["/", "/docs", "/openapi.json"]) {
      expectProblem(await ask(hub, path, { method: "POST" }), 405, /GET, HEAD/)
    }
  })

  it("HEAD is GET without the text", async () => {
    for (const [path, status] of [
      ["/healthz", 200],
      ["/", 200],
      ["/topics", 401],
      ["/nowhere", 404]
    ] as const) {
      const [head, get] = [await ask(hub, path, { method: "HEAD" }), await ask(hub, path)]
      expect([path, head.status, head.text]).toEqual([path, status, ""])
      expect([head.status, head.type]).toEqual([get.status, get.type])
    }
  })
})
