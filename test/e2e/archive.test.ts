/** A hub's log leaves as files, the store is wiped, and the files bring it back: the same events, in the same places. */
import { createReadStream, readFileSync, statSync } from "node:fs"
import { request } from "node:http"
import { join } from "node:path"
import { describe, expect, it, onTestFinished } from "vitest"
import { askAs, json } from "../layers/http/ops.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { dropDatabase, mongoUrl, urlOfNewDatabase } from "../support/mongo.ts"
import { RawClient } from "../support/RawClient.ts"
import { runCli } from "../support/runCli.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor, type TokenOptions } from "../support/tokens.ts"

const admin: TokenOptions = {
  scopes: ["publish:**", "subscribe:**", "subscribe:$dead.**", "admin:**", "admin:$dead.**"]
}

/** Events may go after a second, which no retry takes with these. */
const hasty = {
  RETENTION_MIN_AGE_MS: "1000",
  RETENTION_INTERVAL_MS: "50",
  OUTBOX_MAX_ATTEMPTS: "1",
  OUTBOX_LEASE_MS: "1000",
  GROUP_MAX_ATTEMPTS: "1",
  GROUP_ACK_TIMEOUT_MS: "1000"
}

const stores: ReadonlyArray<readonly [string, () => Readonly<Record<string, string>>]> = [
  ["sqlite", () => ({ HUB_STORE: `sqlite:${join(temporaryDirectory(), "hub.db")}` })],
  [
    "mongo",
    () => {
      const url = urlOfNewDatabase(mongoUrl ?? "mongodb://127.0.0.1:1/none")
      onTestFinished(() => dropDatabase(url))
      return { MONGO_URL: url }
    }
  ]
]

const start = async (env: Readonly<Record<string, string>>): Promise<HubProcess> => {
  const hub = await startHub(env)
  onTestFinished(async () => void (await hub.stop()))
  return hub
}

const publish = async (hub: HubProcess, events: ReadonlyArray<unknown>): Promise<void> => {
  for (let from = 0; from < events.length; from += 1_000) {
    const { status, text } = await askAs(hub, admin, "/publish", json(events.slice(from, from + 1_000)))
    expect([status, text.includes("error")]).toEqual([200, false])
  }
}

const topicOf = async (hub: HubProcess, topic: string) => {
  const { json } = await askAs(hub, admin, `/topics?pattern=${encodeURIComponent(topic)}`)
  return (json as { readonly topics: ReadonlyArray<{ readonly floor: number }> }).topics[0]
}

/** A group's member that refuses what it gets: it is dead after one attempt. */
const bury = async (hub: HubProcess, topic: string, count: number): Promise<void> => {
  const member = await RawClient.authenticated(hub.ws)
  const subscribe = { op: "SUBSCRIBE", topic, group: "g", opts: { from: "start", credit: 10 } }
  expect(await member.request(subscribe)).toMatchObject({ op: "OK" })
  for (let i = 1; i <= count; i++) {
    await member.waitForAll("an event", ({ op }) => op === "EVENT", i)
    const event = member.messages.filter(({ op }) => op === "EVENT")[i - 1]?.["event"] as {
      readonly id: string
    }
    await member.request({ op: "NACK", topic, group: "g", id: event.id, mode: "poison", reason: "no good" })
  }
  await member.close()
}

const files = ["**", "$dead.**"]

const withoutHeader = (path: string): string => {
  const text = readFileSync(path, "utf8")
  return text.slice(text.indexOf("\n") + 1)
}

describe.each(stores)("over %s", (name, storeOf) => {
  it.skipIf(name === "mongo" && mongoUrl === undefined)(
    "what was exported, wiped and imported is the same, also when the import was cut off",
    { timeout: 120_000 },
    async () => {
      const directory = temporaryDirectory()
      const token = await tokenFor(admin)
      const one = await start({ ...storeOf(), ...hasty, RETENTION: "trimmed: count=20" })
      const env = { HUB_TOKEN: token, HUB_OPS_URL: one.ops }
      const keyed = (from: number, count: number, keys: number) =>
        Array.from({ length: count }, (_, i) => ({
          topic: "trimmed",
          payload: (from + i) % 7 === 0 ? null : { at: from + i },
          key: `k${(from + i) % keys}`,
          type: "t",
          tags: ["é"],
          headers: { "a\n": "\u0000😀" }
        }))
      await publish(one, keyed(0, 150, 100))
      await publish(one, keyed(1_000, 30, 5))
      await publish(
        one,
        Array.from({ length: 60 }, (_, i) => ({ topic: `many.t${i % 20}`, payload: { i }, ts: i }))
      )
      await publish(
        one,
        Array.from({ length: 3_000 }, (_, i) => ({ topic: "long", id: `${i}`, payload: "x".repeat(300) }))
      )
      await bury(one, "many.t1", 3)
      while ((await topicOf(one, "trimmed"))?.floor !== 160) await new Promise((r) => setTimeout(r, 50))
      for (const [i, topic] of files.entries()) {
        const run = await runCli(["export", "--topic", topic, "-o", join(directory, `${i}`), "-s"], env)
        expect(run).toEqual({ code: 0, stdout: "", stderr: "" })
      }
      const latest = await askAs(one, admin, "/latest-by-key?topic=trimmed&limit=1000")
      await one.stop()

      const two = await start(storeOf())
      const there = { ...env, HUB_OPS_URL: two.ops }
      // The connection ends in the middle of the file.
      const path = join(directory, "0")
      const sent = request(`${two.ops}/import`, {
        method: "POST",
        headers: { "content-type": "application/x-ndjson", authorization: `Bearer ${token}` }
      })
      sent.on("error", () => {})
      createReadStream(path, { end: Math.floor(statSync(path).size * 0.6) }).pipe(sent, { end: false })
      while ((await topicOf(two, "long")) === undefined) await new Promise((r) => setTimeout(r, 20))
      sent.destroy()
      for (const i of files.keys()) {
        const run = await runCli(["import", join(directory, `${i}`), "-s"], there)
        expect(run.stderr).toBe("")
        expect(run.stdout).toMatch(/^imported: [\d,]+ restored, 0 appended/)
        expect(run.code).toBe(0)
      }
      for (const [i, topic] of files.entries()) {
        const again = join(directory, `${i} again`)
        expect(await runCli(["export", "--topic", topic, "-o", again, "-s"], there)).toMatchObject({
          code: 0
        })
        expect(withoutHeader(again)).toBe(withoutHeader(join(directory, `${i}`)))
      }
      const same = await askAs(two, admin, "/latest-by-key?topic=trimmed&limit=1000")
      expect((same.json as { readonly items: unknown }).items).toEqual(
        (latest.json as { readonly items: unknown }).items
      )
      expect(await topicOf(two, "trimmed")).toMatchObject({ floor: 160, head: 180 })
      const letters = await askAs(two, admin, "/events?topic=$dead.g.many.t1")
      expect((letters.json as { readonly events: unknown }).events).toHaveLength(3)
    }
  )
})
