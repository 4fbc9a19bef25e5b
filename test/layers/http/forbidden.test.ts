/** What is forbidden over HTTP stands in the log with the rule that decides it, and the answer does not name that. */
import { afterAll, beforeAll, expect, it } from "vitest"
import { type EmbeddedHub, startEmbeddedHub } from "../../support/EmbeddedHub.ts"
import { askAs, json } from "./ops.ts"

let hub: EmbeddedHub

beforeAll(async () => {
  hub = await startEmbeddedHub()
})
afterAll(() => hub.stop())

const rules = (...texts: ReadonlyArray<string>) =>
  texts.map((text) => {
    const [effect, action, ...topics] = text.split(" ")
    return { effect, action, topics }
  })

const olga = {
  sub: "olga",
  claims: {
    policy: {
      rules: rules(
        "deny publish pay.**",
        "deny subscribe $dead.**",
        "deny subscribe pay.**",
        "allow * **",
        "deny admin pay.**",
        "allow admin **"
      )
    }
  }
}
const nobody = { sub: "nobody", scopes: [] }

it.each([
  ["a read", olga, "/events?topic=pay.made", undefined, "deny subscribe pay.**"],
  ["dead letters", olga, "/dead-letters?topic=a&group=g", undefined, "deny subscribe $dead.**"],
  ["a publish", olga, "/publish", json({ topic: "pay.made", payload: 1 }), "deny publish pay.**"],
  [
    "a change",
    olga,
    "/groups/g/release-key",
    json({ topic: "pay.made", key: "k", mode: "dead-letter" }),
    "deny admin pay.**"
  ],
  ["what takes all topics", olga, "/revocations", undefined, "deny admin pay.**"],
  ["an import without any right", nobody, "/import", { method: "POST", body: "" }, "none allows it"],
  ["what no rule is about", nobody, "/events?topic=pay.made", undefined, "none allows it"]
] as const)("%s", async (_, who, path, init, rule) => {
  const seen = hub.log.length
  const headers = path === "/import" ? { "content-type": "application/x-ndjson" } : {}
  const asked =
    init === undefined
      ? undefined
      : { ...init, headers: { ...headers, ...("headers" in init ? init.headers : {}) } }
  const { json: answer, status } = await askAs(hub, who, path, asked)
  expect(status).toBe(403)
  expect(JSON.stringify(answer)).not.toContain("deny ")
  const lines = hub.log.slice(seen).filter((line) => line.includes("forbidden over HTTP"))
  expect(lines).toEqual([expect.stringContaining(rule)])
  expect(lines[0]).toContain(who.sub)
})
