/** Tokens that are revoked over the ops HTTP API: what may be named, what is answered, and what is kept. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { everything, tokenFor } from "../../support/tokens.ts"
import { ask, askAs, expectProblem, json } from "./ops.ts"

const operator = { sub: "olga", scopes: ["admin:**"] }

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub({ JWT_MAX_AGE_MS: "3600000", JWT_CLOCK_TOLERANCE_MS: "1000" })
})

afterAll(() => hub.stop())

const revoke = (body: object) => askAs(hub, operator, "/revocations", json(body))

const list = async (): Promise<ReadonlyArray<Record<string, unknown>>> => {
  const found: Array<Record<string, unknown>> = []
  let after: string | null = null
  do {
    const more = after === null ? "" : `&after=${after}`
    const { json } = await askAs(hub, operator, `/revocations?limit=2${more}`)
    const page = json as { readonly revocations: typeof found; readonly next: string | null }
    expect(page.revocations.length).toBeLessThanOrEqual(2)
    found.push(...page.revocations)
    after = page.next
  } while (after !== null)
  return found
}

describe("POST /revocations", () => {
  it.each([
    [{}, /names nothing/],
    [{ reason: "why" }, /names nothing/],
    [{ tokenId: "t", sub: "s" }, /two things/],
    [{ tokenId: "t", issuedBefore: 1_700_000_000_000 }, /two things/],
    [{ sub: "s", expiresAt: 1_700_000_000_000 }, /'expiresAt'.*'tokenId' only/],
    [{ issuedBefore: 1_700_000_000 }, /'issuedBefore'.*milliseconds/],
    [{ issuedBefore: 8_000_000_000_000 }, /'issuedBefore'.*later than now/],
    [{ sub: "s", issuedBefore: 8_000_000_000_000 }, /'issuedBefore'.*later than now/],
    [{ issuedBefore: 1_700_000_000_000.5 }, /'issuedBefore'/],
    [{ tokenId: "" }, /'tokenId'/],
    [{ tokenId: "x".repeat(257) }, /'tokenId'/],
    [{ tokenId: "t", expiresAt: 1_700_000_000_000 }, /'expiresAt': it is over.*leave it out/],
    [{ sub: "" }, /'sub'/],
    [{ sub: 1 }, /'sub'/],
    [{ tokenId: "t", reason: "two\nlines" }, /'reason'/],
    [{ jti: "t" }, /no body field 'jti'/]
  ])("refuses %j", async (body, detail) => {
    const before = await list()
    expectProblem(await revoke(body), 400, detail)
    expect(await list()).toEqual(before)
  })

  it("takes a token, and the right to administrate everything", async () => {
    expectProblem(await ask(hub, "/revocations", json({ tokenId: "t" })), 401, /bearer/)
    for (const scopes of [everything, ["admin:orders.**"], []]) {
      for (const init of [json({ tokenId: "t" }), {}]) {
        expectProblem(await askAs(hub, { scopes }, "/revocations", init), 403, /administrate/)
      }
      expectProblem(await askAs(hub, { scopes }, "/revocations/x", { method: "DELETE" }), 403, /administrate/)
    }
  })

  it("closes the connections that it is about, and says how many: of one token, of a subject, of everybody", async () => {
    const claimsOf = (jti: string, iat: number) => ({ claims: { jti, iat } })
    const now = Math.floor(Date.now() / 1000)
    const connect = (sub: string, jti: string, iat: number) =>
      RawClient.authenticated(hub.ws, { sub, ...claimsOf(jti, iat) })
    const [a1, a2, a3, b1, old] = [
      await connect("alice", "a1", now - 60),
      await connect("alice", "a2", now - 60),
      await connect("alice", "a3", now - 20),
      await connect("bob", "b1", now - 60),
      await connect("carol", "c1", now - 600)
    ]
    const silent = await RawClient.connect(hub.ws)
    const dry = await revoke({ tokenId: "a1", dryRun: true })
    expect(dry.json).toEqual({ id: null, dryRun: true, connections: 1, self: false })
    expect((await revoke({ tokenId: "nobody's" })).json).toMatchObject({ connections: 0 })
    const one = await revoke({ tokenId: "a1" })
    expect([one.status, one.json]).toMatchObject([200, { dryRun: false, connections: 1, self: false }])
    expect(await a1.closed).toMatchObject({ code: 4102 })
    const some = await revoke({ sub: "alice", issuedBefore: (now - 30) * 1000 })
    expect(some.json).toMatchObject({ connections: 1 })
    expect(await a2.closed).toMatchObject({ code: 4102 })
    expect((await revoke({ issuedBefore: (now - 300) * 1000 })).json).toMatchObject({ connections: 1 })
    expect(await old.closed).toMatchObject({ code: 4102 })
    expect((await revoke({ sub: "alice" })).json).toMatchObject({ connections: 1 })
    expect(await a3.closed).toMatchObject({ code: 4102 })
    await b1.settled()
    await silent.close()
    await b1.close()
    const again = await RawClient.connect(hub.ws)
    again.send({ op: "AUTH", ref: "1", token: await tokenFor({ sub: "alice", ...claimsOf("a4", now - 1) }) })
    expect(await again.closed).toMatchObject({ code: 4401 })
    const answer = await askAs(hub, { sub: "bob", claims: { jti: "a1" } }, "/topics")
    expectProblem(answer, 401, /it was revoked/)
  })

  it("says that the caller's own token is meant, and does it", async () => {
    const iat = Math.floor(Date.now() / 1000) - 5
    const token = await tokenFor({ sub: "otto", scopes: ["admin:**"], claims: { iat, jti: "otto's" } })
    for (const body of [{ tokenId: "otto's" }, { sub: "otto" }, { issuedBefore: iat * 1000 + 1 }]) {
      const answer = await askAs(hub, token, "/revocations", json({ ...body, dryRun: true }))
      expect([body, answer.json]).toMatchObject([body, { self: true }])
    }
    expect((await askAs(hub, token, "/revocations", json({ sub: "otto" }))).json).toMatchObject({
      self: true
    })
    expectProblem(await askAs(hub, token, "/revocations"), 401, /it was revoked/)
  })
})

describe("what was revoked", () => {
  it("is listed with who did it, why, and until when it is kept", async () => {
    const expiresAt = Date.now() + 60_000
    const issuedBefore = Date.now() - 3_000_000
    const bodies = [
      { tokenId: "listed", expiresAt, reason: "leaked" },
      { sub: "listed", issuedBefore },
      { sub: "listed too" }
    ]
    for (const body of bodies) expect(await revoke(body)).toMatchObject({ status: 200 })
    const last = (await list()).slice(-3)
    const common = { by: "olga", tokenId: null, sub: null, issuedBefore: null, reason: null }
    const time = expect.any(Number) as number
    expect(last).toEqual([
      {
        ...common,
        id: last[0]!["id"],
        tokenId: "listed",
        revokedAt: time,
        reason: "leaked",
        until: expiresAt + 1_000
      },
      {
        ...common,
        id: last[1]!["id"],
        sub: "listed",
        issuedBefore,
        revokedAt: time,
        until: issuedBefore + 3_602_000
      },
      {
        ...common,
        id: last[2]!["id"],
        sub: "listed too",
        issuedBefore: time,
        revokedAt: time,
        until: Number(last[2]!["issuedBefore"]) + 3_602_000
      }
    ])
    await hub.lineWhere(
      ({ msg, reason, sub, tokenId }) =>
        msg === "tokens revoked" && sub === "olga" && reason === "leaked" && tokenId === "listed"
    )
  })

  it("is taken back: the token is good again", async () => {
    const token = await tokenFor({ claims: { jti: "forgiven" } })
    const { json: revoked } = await revoke({ tokenId: "forgiven" })
    const { id } = revoked as { readonly id: string }
    expectProblem(await askAs(hub, token, "/topics"), 401, /it was revoked/)
    const remove = (query = "") => askAs(hub, operator, `/revocations/${id}${query}`, { method: "DELETE" })
    expect((await remove("?dryRun=true")).json).toEqual({ id, dryRun: true })
    expectProblem(await askAs(hub, token, "/topics"), 401, /it was revoked/)
    expect((await remove("?reason=found")).json).toEqual({ id, dryRun: false })
    expect(await askAs(hub, token, "/topics")).toMatchObject({ status: 200 })
    expectProblem(await remove(), 404, /no revocation/)
  })
})
