/**
 * `npm start` as the README says it, by the machine's own npm: a hub on both ports with its default settings; a burst
 * whose lag counts down to 0; SIGTERM to npm, twice, ends it with 0.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { RawClient } from "../test/support/RawClient.ts"

const burst = 5_000
const topic = "process.state"
const secret = "a secret for the time of this run, only"
const directory = mkdtempSync(join(tmpdir(), "event-hub-smoke-"))
const env = { ...process.env, JWT_SECRET: secret, HUB_STORE: `sqlite:${join(directory, "hub.db")}` }

const fail = (message: string): never => {
  throw new Error(message)
}

const answers = async (url: string, hub: ChildProcess): Promise<void> => {
  for (let i = 0; i < 600; i++) {
    if (hub.exitCode !== null) fail(`npm start ended with ${hub.exitCode}`)
    const up = await fetch(url).then(
      (answer) => answer.status === 200,
      () => false
    )
    if (up) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  fail(`${url} does not answer`)
}

const hub = spawn("npm", ["start"], { env, stdio: ["ignore", "inherit", "inherit"] })
const exited = new Promise<number | null>((resolve) => hub.once("exit", resolve))
try {
  await answers("http://127.0.0.1:8082/readyz", hub)

  const { stdout, status } = spawnSync(
    "npm",
    ["run", "-s", "token", "--", "-s", "--scope", `publish:${topic}`, "--scope", "subscribe:process.**"],
    { env, encoding: "utf8" }
  )
  if (status !== 0) fail("npm run token failed")
  const token = stdout.trim()

  const connect = async (): Promise<RawClient> => {
    const client = await RawClient.connect("ws://127.0.0.1:8090")
    const { op } = await client.request({ op: "AUTH", token })
    return op === "OK" ? client : fail("the minted token was refused")
  }
  const consumer = await connect()
  await consumer.request({ op: "SUBSCRIBE", topic: "process.**", group: "smoke" })
  const publisher = await connect()
  const refused = await publisher.request({ op: "PUBLISH", topic: "elsewhere", payload: 1 })
  if (refused["code"] !== "forbidden") fail("a topic without a right was not refused")
  for (let i = 1; i <= burst; i++) publisher.send({ op: "PUBLISH", ref: i, topic, payload: { i } })
  await publisher.waitForAll("every OK", ({ op, ref }) => op === "OK" && typeof ref === "number", burst)

  const pending = async (): Promise<number> => {
    const answer = await fetch(`http://127.0.0.1:8082/lag?topic=${topic}&group=smoke`, {
      headers: { authorization: `Bearer ${token}` }
    })
    return ((await answer.json()) as { readonly pending: number }).pending
  }
  const seen = [await pending()]
  for (let acked = 0; acked < burst; acked += 100) {
    const events = (await consumer.events(acked + 100)).slice(acked)
    const ids = events.map((message) => (message["event"] as { readonly id: string }).id)
    const { op } = await consumer.request({ op: "ACK", topic, group: "smoke", ids })
    if (op !== "OK") fail("an ACK was refused")
    if ((acked + 100) % 1_000 === 0) seen.push(await pending())
  }
  if (seen.join() !== "5000,4000,3000,2000,1000,0") fail(`pending went ${seen.join(", ")}`)

  const begin = performance.now()
  hub.kill("SIGTERM")
  await consumer.waitFor("DRAIN", ({ op }) => op === "DRAIN")
  hub.kill("SIGTERM")
  const code = await exited
  if (code !== 0) fail(`npm start ended with ${code}`)
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  process.stdout.write(`pending went ${seen.join(", ")}; npm start ended with 0 after ${seconds} s\n`)
} finally {
  hub.kill("SIGKILL")
  rmSync(directory, { recursive: true, force: true })
}
