/** The examples, run as their headers say. */
import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const run = (name: string, ...args: ReadonlyArray<string>): string => {
  const { status, stderr, stdout } = spawnSync(
    process.execPath,
    ["--conditions=event-hub-source", `examples/${name}`, ...args],
    { cwd: root, encoding: "utf8" }
  )
  expect(stderr).toBe("")
  expect(status).toBe(0)
  return stdout
}

const tested = ["embed.ts", "outbox-sqlite.ts"]

it("every example is run here", () => {
  expect(
    readdirSync(join(root, "examples"))
      .filter((name) => name.endsWith(".ts"))
      .sort()
  ).toEqual(tested)
})

it("embed: the services in a program of one's own", () => {
  expect(run("embed.ts")).toBe(
    'published as #1\nhandled orders.created #1: {"item":"a kettle"}\nhandled orders.paid #1: {"amount":40}\n'
  )
})

it("outbox-sqlite: with a hub that comes later, and with one that runs", async () => {
  const path = join(temporaryDirectory(), "hub.db")
  const output = run("outbox-sqlite.ts", path)
  expect(output).toBe(
    "order 1 for a kettle is placed\n" +
      "no order and no event for a ghost: nobody paid for it\n" +
      "order 2 for a lamp is placed\n" +
      "2 events wait for the hub\n"
  )
  const hub = await startHub({ HUB_STORE: `sqlite:${path}` })
  const client = await RawClient.authenticated(hub.ws)
  await client.request({ op: "SUBSCRIBE", topic: "orders.*", opts: { from: "start" } })
  await client.events(2)
  run("outbox-sqlite.ts", path)
  const events = await client.events(4)
  expect(
    events.map((message) => {
      const { payload, seq } = message["event"] as {
        readonly seq: number
        readonly payload: { readonly item: string }
      }
      return [seq, payload.item]
    })
  ).toEqual([
    [1, "a kettle"],
    [2, "a lamp"],
    [3, "a kettle"],
    [4, "a lamp"]
  ])
  await hub.stop()
})
