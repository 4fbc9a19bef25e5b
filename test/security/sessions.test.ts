/** What a hub says of those it turns away, and who it takes them for: in its log, and behind a proxy. */
import { describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { tokenFor } from "../support/tokens.ts"

const withHub = async (
  env: Readonly<Record<string, string>>,
  use: (hub: HubProcess) => Promise<void>
): Promise<void> => {
  const hub = await startHub(env)
  try {
    await use(hub)
  } finally {
    await hub.kill()
  }
}

const from = (forwarded: Readonly<Record<string, string>>) => ({ ws: { headers: forwarded } })

const linesOf = (hub: HubProcess, msg: string) => hub.lines.filter((line) => line.msg === msg)

const refuse = async (hub: HubProcess, token: string, forwarded: Readonly<Record<string, string>> = {}) => {
  const client = await RawClient.connect(hub.ws, from(forwarded))
  const before = performance.now()
  client.send({ op: "AUTH", token })
  expect(await client.closed).toMatchObject({ code: 4401 })
  return performance.now() - before
}

describe("the log", () => {
  it("says what was forbidden, to whom and by which rule: once, and the rest as a number", async () => {
    await withHub({}, async (hub) => {
      const policy = {
        rules: [
          { effect: "deny", action: "publish", topics: ["a.secret"] },
          { effect: "allow", action: "publish", topics: ["a.*"] }
        ]
      }
      const client = await RawClient.authenticated(hub.ws, { sub: "mallory", claims: { policy } })
      for (let i = 0; i < 30; i++) {
        for (const topic of ["a.secret", `b.${i}`]) {
          expect(await client.request({ op: "PUBLISH", topic, payload: 1 })).toMatchObject({
            code: "forbidden"
          })
        }
      }
      expect(await client.request({ op: "SUBSCRIBE", topic: "**" })).toMatchObject({ code: "forbidden" })
      await hub.lineWhere(({ msg, topic }) => msg === "forbidden" && topic === "b.8")
      const { connection } = client.messages[0]!
      const lines = linesOf(hub, "forbidden")
      expect(lines).toHaveLength(10)
      expect(lines[0]).toMatchObject({
        sub: "mallory",
        action: "publish",
        topic: "a.secret",
        rule: "deny publish a.secret",
        connection,
        address: "127.0.0.1"
      })
      expect(lines[1]).toMatchObject({ topic: "b.0", rule: "no rule allows it" })
    })
  })

  it("says why tokens were refused and from where, and never holds one", async () => {
    await withHub({}, async (hub) => {
      const forged = await tokenFor({ secret: "another secret of thirty-two bytes" })
      await refuse(hub, forged)
      const line = await hub.lineWhere(({ msg }) => msg === "a token was refused")
      expect(line).toMatchObject({ code: "jwt_invalid", address: "127.0.0.1" })
      await expect(RawClient.connect(hub.ws, from({ Origin: "https://evil.example" }))).rejects.toThrow("403")
      await expect(RawClient.connect(hub.ws, { protocols: ["mqtt"] })).rejects.toThrow("400")
      await hub.lineWhere(({ reason }) => reason === "subprotocol")
      expect(linesOf(hub, "a connection was refused")).toMatchObject([
        { reason: "origin", origin: "https://evil.example" },
        { reason: "subprotocol", offered: "mqtt" }
      ])
      const signature = forged.split(".")[2]!
      expect(JSON.stringify(hub.lines)).not.toContain(signature)
    })
  })
})

describe("behind a proxy", () => {
  it("clients are told apart by what the proxy adds, and by nothing else", { timeout: 30_000 }, async () => {
    await withHub({ TRUST_PROXY: "true", LIMIT_AUTH_DELAY_MS: "1500" }, async (hub) => {
      // Whatever a client claims to be is not looked at.
      for (let i = 0; i < 3; i++) {
        await refuse(hub, "a", { "X-Forwarded-For": `10.0.0.${i}, 192.0.2.7` })
      }
      const third = await refuse(hub, "b", { "X-Forwarded-For": "10.9.9.9, 192.0.2.7" })
      expect(third).toBeGreaterThanOrEqual(1_499)
      const other = await refuse(hub, "a", { "X-Forwarded-For": "192.0.2.7, 192.0.2.8" })
      expect(other).toBeLessThan(1_499)
      const addresses = linesOf(hub, "a token was refused").map(({ address }) => address)
      expect(new Set(addresses)).toEqual(new Set(["192.0.2.7", "192.0.2.8"]))
    })
  })

  it("all addresses of one IPv6 network are one: it has one line for what is the same", async () => {
    await withHub({ TRUST_PROXY: "true", LIMIT_AUTH_DELAY_MS: "0" }, async (hub) => {
      for (let i = 1; i <= 4; i++) await refuse(hub, "a", { "X-Forwarded-For": `2001:db8:1:2::${i}` })
      await refuse(hub, "a", { "X-Forwarded-For": "2001:db8:1:3::1" })
      await hub.lineWhere(({ address }) => address === "2001:db8:1:3::1")
      const addresses = linesOf(hub, "a token was refused").map(({ address }) => address)
      expect(addresses).toEqual(["2001:db8:1:2::1", "2001:db8:1:3::1"])
    })
  })

  it("a page may connect from the host that the proxy was asked for", async () => {
    const headers = { Origin: "https://hub.example", "X-Forwarded-Host": "evil.example, hub.example" }
    await withHub({ TRUST_PROXY: "true" }, async (hub) => {
      await (await RawClient.connect(hub.ws, from(headers))).close()
      const evil = { Origin: "https://evil.example", "X-Forwarded-Host": "evil.example, hub.example" }
      await expect(RawClient.connect(hub.ws, from(evil))).rejects.toThrow("403")
    })
    await withHub({}, async (hub) => {
      await expect(RawClient.connect(hub.ws, from(headers))).rejects.toThrow("403")
    })
  })
})
