/** Roles of a policy file against a hub as it runs: what they allow, and what a change of the file takes away. */
import { existsSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { type HubProcess, runToEnd, secret, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"

const hubs: Array<HubProcess> = []

afterEach(async () => {
  await Promise.all(hubs.splice(0).map((hub) => hub.stop()))
})

const written = (text: string): string => {
  const path = join(temporaryDirectory(), "policies.txt")
  writeFileSync(path, text)
  return path
}

/** As one does it: whole, or not at all. */
const replace = (path: string, text: string): void => {
  writeFileSync(`${path}.next`, text)
  renameSync(`${path}.next`, path)
}

const start = async (policy: string, intervalMs = 100): Promise<HubProcess> => {
  const hub = await startHub({ HUB_POLICY: policy, HUB_FILES_INTERVAL_MS: String(intervalMs) })
  hubs.push(hub)
  return hub
}

/** With roles, and without scopes unless they are given. */
const withRoles = (roles: unknown, more: object = {}) => ({ scopes: [], claims: { roles, ...more } })

const connected = (hub: HubProcess, roles: ReadonlyArray<string>, more: object = {}) =>
  RawClient.authenticated(hub.ws, withRoles(roles, more))

const ended = (client: RawClient, topic: string) =>
  client.waitFor(`END of ${topic}`, (message) => message.op === "END" && message["sub"] === topic)

const again = (level: string) => (line: { readonly [field: string]: unknown }) =>
  line["level"] === level && line["setting"] === "HUB_POLICY"

const policies = `
role dev:
  allow publish orders.**
  allow subscribe orders.** logs.*
role auditor:
  deny subscribe *.secret
  allow subscribe **
role tenant:
  deny subscribe orders.\${claim.tenant}.secret
  allow subscribe orders.\${claim.tenant}.** users.\${sub}
`

describe("roles", () => {
  it("give a token its rights, fill placeholders, and what one denies another does not allow", async () => {
    const hub = await start(written(policies))
    const both = await connected(hub, ["dev", "auditor"])
    const subscribe = async (client: RawClient, topic: string) =>
      (await client.request({ op: "SUBSCRIBE", topic })).op
    expect(await subscribe(both, "orders.secret")).toBe("ERR")
    expect(await subscribe(both, "orders.open")).toBe("OK")
    expect(await subscribe(both, "anything")).toBe("OK")
    expect((await both.request({ op: "PUBLISH", topic: "orders.open", payload: 1 })).op).toBe("OK")
    await both.events(1)

    const tenant = await connected(hub, ["tenant"], { tenant: 7 })
    for (const [topic, expected] of [
      ["orders.7.new", "OK"],
      ["orders.7.secret", "ERR"],
      ["orders.8.new", "ERR"],
      ["users.tester", "OK"],
      ["users.other", "ERR"],
      ["orders.**", "ERR"]
    ] as const) {
      expect([topic, await subscribe(tenant, topic)]).toEqual([topic, expected])
    }

    for (const bad of ["*", "**", "7.**", "", "$hub", null]) {
      const hostile = await connected(hub, ["tenant", "auditor"], { tenant: bad })
      expect(await subscribe(hostile, "orders.7.secret")).toBe("ERR")
      await hostile.close()
      const alone = await connected(hub, ["tenant"], { tenant: bad })
      expect(await subscribe(alone, "orders.7.new")).toBe("ERR")
      await alone.close()
    }
  })

  it("that are unknown, or no list, refuse the token on every way in, and the log says why", async () => {
    const hub = await start(written(policies))
    for (const roles of [["dev", "admin"], "dev", null, [1]]) {
      const token = await tokenFor(withRoles(roles))
      const client = await RawClient.connect(hub.ws)
      expect(await client.request({ op: "AUTH", token })).toMatchObject({ op: "ERR", code: "jwt_invalid" })
      expect((await client.closed).code).toBe(4401)
      const answer = await fetch(`${hub.ops}/topics`, { headers: { authorization: `Bearer ${token}` } })
      expect(answer.status).toBe(401)
    }
    const { why } = await hub.lineWhere((line) => line.msg === "a token was refused")
    expect(why).toBe("there is no role 'admin' in the policy file")
  })

  it("are named in answers to those only who administrate the topic", async () => {
    const hub = await start(
      written("role plain:\n deny publish secrets.*\nrole chief:\n deny publish secrets.*\n allow admin **")
    )
    const ruleFor = async (role: string) => {
      const client = await connected(hub, [role])
      const answer = await client.request({ op: "PUBLISH", topic: "secrets.a", payload: 1 })
      expect(answer).toMatchObject({ op: "ERR", code: "forbidden" })
      return answer["rule"]
    }
    expect(await ruleFor("plain")).toBeUndefined()
    expect(await ruleFor("chief")).toBe("deny publish secrets.*")
  })
})

it("rules of roles are explained to those only who administrate the topic", async () => {
  const hub = await start(
    written(
      "role plain:\n deny subscribe secrets.*\n allow subscribe orders.**\n" +
        "role some:\n deny subscribe secrets.*\n allow admin orders.**\nrole chief:\n deny subscribe secrets.*\n allow admin **"
    )
  )
  const explain = async (role: string, topic: string, scopes: ReadonlyArray<string> = []) => {
    const token = await tokenFor({ scopes: [...scopes], claims: { roles: [role] } })
    const query = new URLSearchParams({ action: "subscribe", topic })
    const answer = await fetch(`${hub.ops}/policy/explain?${query}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    return (await answer.json()) as { readonly rules: ReadonlyArray<{ readonly text: string }> }
  }
  const nothing = { allowed: false, rule: null, rules: [] }
  const together = "what its roles and its own rules say together does not allow it"
  for (const topic of ["secrets.a", "secrets.**", "news", "$hub.topic.secrets.a"]) {
    expect(await explain("plain", topic)).toEqual({ ...nothing, reason: together })
  }
  expect(await explain("plain", "orders.a")).toEqual({
    ...nothing,
    allowed: true,
    reason: "its roles allow it"
  })
  const own = { n: 1, text: "allow subscribe **" }
  const after = { ...own, decides: false, why: "it fits, too, but a rule of its roles comes first" }
  expect(await explain("plain", "secrets.a", ["subscribe:**"])).toEqual({
    ...nothing,
    reason: together,
    rules: [after]
  })
  expect(await explain("plain", "news", ["subscribe:**"])).toEqual({
    allowed: true,
    reason: "rule 1 allows it: allow subscribe **",
    rule: 1,
    rules: [{ ...own, decides: true, why: "it is the first rule that fits" }]
  })
  expect((await explain("some", "secrets.a")).rules).toEqual([])
  expect((await explain("some", "**")).rules).toEqual([])
  expect((await explain("some", "$dead.g.orders.a")).rules).toEqual([])
  expect((await explain("some", "orders.*")).rules).toHaveLength(2)
  expect(await explain("chief", "secrets.a")).toMatchObject({ rule: 1, rules: [{ decides: true }, {}] })
})

describe("a policy file that changes", () => {
  it("ends the subscriptions that lost their right, and no others, and gives new rights", async () => {
    const path = written(policies)
    const hub = await start(path)
    const dev = await connected(hub, ["dev"])
    for (const topic of ["orders.a", "logs.a", "logs.b"]) {
      expect((await dev.request({ op: "SUBSCRIBE", topic })).op).toBe("OK")
    }
    expect((await dev.request({ op: "SUBSCRIBE", topic: "news" })).op).toBe("ERR")
    replace(path, policies.replace("orders.** logs.*", "orders.** news logs.b"))
    expect(await ended(dev, "logs.a")).toMatchObject({ reason: "revoked" })
    expect((await dev.request({ op: "SUBSCRIBE", topic: "news" })).op).toBe("OK")
    expect((await dev.request({ op: "SUBSCRIBE", topic: "logs.a" })).op).toBe("ERR")
    expect(dev.messages.filter(({ op }) => op === "END")).toHaveLength(1)
    await dev.request({ op: "PUBLISH", topic: "orders.a", payload: 1 })
    await dev.events(1)
  })

  it("without a role takes all rights of those who have it, and they stay connected", async () => {
    const path = written(policies)
    const hub = await start(path)
    const both = await RawClient.authenticated(hub.ws, {
      scopes: ["subscribe:mine"],
      claims: { roles: ["dev", "auditor"] }
    })
    const scoped = await RawClient.authenticated(hub.ws, { scopes: ["subscribe:**"] })
    for (const topic of ["mine", "orders.a"]) await both.request({ op: "SUBSCRIBE", topic })
    await scoped.request({ op: "SUBSCRIBE", topic: "**" })
    replace(path, policies.replace("role auditor", "role auditors"))
    for (const topic of ["mine", "orders.a"]) {
      expect(await ended(both, topic)).toMatchObject({ reason: "revoked" })
    }
    expect(await both.request({ op: "PUBLISH", topic: "orders.a", payload: 1 })).toMatchObject({
      code: "forbidden"
    })
    await scoped.settled()
    expect(scoped.messages.some(({ op }) => op === "END")).toBe(false)
  })

  it("and cannot be used keeps the old one, and the log says all that is wrong", async () => {
    const path = written(policies)
    const hub = await start(path)
    const dev = await connected(hub, ["dev"])
    await dev.request({ op: "SUBSCRIBE", topic: "logs.a" })
    replace(path, "role dev:\n  alow publish a\nrole b")
    const { why } = await hub.lineWhere(again("error"))
    expect(why).toBe(
      `${path}:2:3: a rule begins with 'allow' or 'deny', not 'alow'; ${path}:3:7: a ':' is missing behind the name: role b:`
    )
    expect((await dev.request({ op: "SUBSCRIBE", topic: "logs.b" })).op).toBe("OK")
    await connected(hub, ["auditor"])
    expect(dev.messages.some(({ op }) => op === "END")).toBe(false)
    replace(path, "role auditor:")
    await ended(dev, "logs.a")
  })

  it("is looked at on SIGHUP", async () => {
    const path = written(policies)
    const hub = await start(path, 600_000)
    const dev = await connected(hub, ["dev"])
    await dev.request({ op: "SUBSCRIBE", topic: "logs.a" })
    replace(path, "role dev:\n allow subscribe orders.**")
    hub.process.kill("SIGHUP")
    expect(await ended(dev, "logs.a")).toMatchObject({ reason: "revoked" })
    await hub.lineWhere(again("info"))
  })
})

it("a policy file that cannot be used stops a start that has touched nothing, in one line", async () => {
  const path = written("role dev:\n  allow look a\n")
  const data = temporaryDirectory()
  const { code, stderr, stdout } = await runToEnd(
    { JWT_SECRET: secret, HUB_STORE: `sqlite:${join(data, "hub.db")}`, HUB_POLICY: path },
    data
  )
  expect([code, stdout]).toEqual([1, ""])
  expect(stderr).toBe(
    `event-hub: HUB_POLICY: ${path}:2:9: 'look' is no action; the actions are publish, subscribe, admin, *\n`
  )
  expect(existsSync(join(data, "hub.db"))).toBe(false)
})
