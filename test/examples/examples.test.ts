/** The examples, run as their headers say. Those that are services on MongoDB have orderServices.test.ts. */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"

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

const tested = [
  "consumer.ts",
  "embed.ts",
  "once-only-consumer.ts",
  "order-service-effect.ts",
  "order-service-mongo.ts",
  "outbox-sqlite.ts"
]

it("every example is run here or beside", () => {
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

it("once-only-consumer: what is delivered again is not handled again", () => {
  expect(run("once-only-consumer.ts")).toBe(
    "delivery 1: Error: the power went\n" +
      "delivery 2: handled\n" +
      "one delivery more: duplicate\n" +
      "ann has -40\n" +
      "bob has 40\n" +
      "the bank was told of payment-1\n" +
      "the bank is not told again\n"
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

it("consumer: handles each event once, and ends when it is told to", async () => {
  const hub = await startHub()
  const publisher = await RawClient.authenticated(hub.ws)
  const payload = { id: 7, item: "a kettle" }
  await publisher.request({ op: "PUBLISH", topic: "orders.created", payload })
  const child = spawn(process.execPath, ["--conditions=event-hub-source", "examples/consumer.ts"], {
    cwd: root,
    env: { PATH: process.env["PATH"], HUB_URL: hub.ws, HUB_TOKEN: await tokenFor() },
    stdio: ["ignore", "pipe", "inherit"]
  })
  const lines: Array<string> = []
  const exited = once(child, "exit")
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line)
    if (line.startsWith("mail")) child.kill("SIGINT")
  }
  expect(lines).toContain("mail about order 7: a kettle (attempt 1)")
  expect(await exited).toEqual([0, null])
  const token = await tokenFor()
  const lag = await fetch(`${hub.ops}/lag?topic=orders.created&group=mailer`, {
    headers: { authorization: `Bearer ${token}` }
  })
  expect(await lag.json()).toMatchObject({ pending: 0, inFlight: 0 })
  await hub.stop()
})
