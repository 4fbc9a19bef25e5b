/** Why a token may do something, or may not, as the ops API says it. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { ask, askAs, expectProblem, json, read } from "./ops.ts"

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub()
})

afterAll(() => hub.stop())

const mine = { scopes: ["publish:logs.*", "subscribe:orders.**"] }

describe("of the caller's own token", () => {
  it("names the rule that decides, and why the others do not", async () => {
    expect(await read(hub, "/policy/explain?action=subscribe&topic=orders.eu&group=mailer", mine)).toEqual({
      allowed: true,
      reason: "rule 2 allows it: allow subscribe orders.**",
      rule: 2,
      rules: [
        {
          n: 1,
          text: "allow publish logs.*",
          decides: false,
          why: "it is about publish, not about subscribe"
        },
        { n: 2, text: "allow subscribe orders.**", decides: true, why: "it is the first rule that fits" }
      ]
    })
    expect(await read(hub, "/policy/explain?action=admin&topic=orders.**", mine)).toMatchObject({
      allowed: false,
      rule: null,
      reason: "no rule fits, and what no rule allows is denied"
    })
    expect(await read(hub, "/policy/explain?action=publish&topic=x", { scopes: [] })).toMatchObject({
      allowed: false,
      rules: []
    })
  })

  it("a deny among its rules is named, also for a pattern that it touches", async () => {
    const rules = [
      { effect: "deny", action: "subscribe", topics: ["orders.secret"] },
      { effect: "allow", action: "subscribe", topics: ["**"] }
    ]
    expect(
      await read(hub, "/policy/explain?action=subscribe&topic=orders.*", { claims: { policy: { rules } } })
    ).toMatchObject({
      allowed: false,
      rule: 1,
      rules: [{ decides: true }, { why: "it fits, too, but rule 1 comes first" }]
    })
  })

  it("needs a token and parameters that fit", async () => {
    const path = "/policy/explain?action=subscribe&topic=a"
    expectProblem(await ask(hub, path), 401, /token/)
    expectProblem(await askAs(hub, mine, "/policy/explain?action=subscribe"), 400, /'topic' is missing/)
    expectProblem(await askAs(hub, mine, "/policy/explain?action=look&topic=a"), 400, /'action'/)
    expectProblem(await askAs(hub, mine, "/policy/explain?action=publish&topic=a..b"), 400, /'topic'/)
    expectProblem(await askAs(hub, mine, `${path}&group=a.b`), 400, /'group'/)
    expectProblem(await askAs(hub, mine, `${path}&grup=a`), 400, /no query parameter 'grup'/)
  })
})

describe("of a policy given as text", () => {
  const admin = { scopes: ["admin:**"] }
  const explain = (body: object, token: object = admin) =>
    askAs(hub, token, "/policy/explain", json({ action: "subscribe", topic: "a", ...body }))

  it("says what a token with it might do", async () => {
    const policy = "# readers\ndeny subscribe secrets.**\nallow subscribe ** group dev"
    const answer = await explain({ policy, group: "dev" })
    expect(answer).toMatchObject({ status: 200, json: { allowed: true, rule: 2 } })
    expect(await explain({ policy })).toMatchObject({
      json: { allowed: false, rules: [{}, { why: "it is about consumer groups, and none was asked for" }] }
    })
  })

  it("takes a policy file, with the roles, the subject and the claims of a token", async () => {
    const policy =
      "role user:\n  allow subscribe orders.${claim.tenant}.** users.${sub}\nrole guest: deny subscribe *.*.secret"
    const who = { roles: ["user", "guest"], sub: "ann", claims: { tenant: 7 } }
    expect(await explain({ policy, ...who, topic: "orders.7.new" })).toMatchObject({
      status: 200,
      json: {
        allowed: true,
        rule: 2,
        rules: [{ text: "deny subscribe *.*.secret" }, { text: "allow subscribe orders.7.** users.ann" }]
      }
    })
    expect(await explain({ policy, ...who, claims: {}, topic: "orders.7.new" })).toMatchObject({
      json: { allowed: false, rules: [{}, { text: "allow subscribe users.ann" }] }
    })
    expectProblem(await explain({ policy }), 400, /^body field 'roles' is missing/)
    expectProblem(await explain({ policy, roles: ["x"] }), 400, /^body field 'roles': there is no role 'x'/)
    expectProblem(await explain({ policy: "role a: look" }), 400, /^body field 'policy': 1:9: /)
    expectProblem(
      await explain({ policy: "allow * **", sub: "ann" }),
      400,
      /^body field 'sub': the policy has no roles/
    )
  })

  it("says where a text is wrong, and is for those who administrate everything", async () => {
    expectProblem(
      await explain({ policy: "allow subscribe a\nallow look b" }),
      400,
      /^body field 'policy': 2:7: 'look' is no action/
    )
    expectProblem(await explain({ policy: "", grup: "x" }), 400, /no body field 'grup'/)
    expectProblem(await explain({ policy: "" }, { scopes: ["subscribe:**"] }), 403, /no right/)
    expectProblem(await ask(hub, "/policy/explain", json({ policy: "" })), 401, /token/)
  })
})
