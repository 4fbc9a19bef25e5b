/**
 * The ops API against its own description: schemathesis asks a hub that has topics, groups, dead letters and outbox
 * records whatever /openapi.json allows, and what it does not allow; with all rights, with few, and with none. An
 * answer that the description does not know, or a 5xx that is none of its own, fails.
 *
 * schemathesis comes from PyPI into a directory for temporary files. Where it cannot be had, nothing is checked, which
 * is said, and is no failure.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { RawClient } from "../test/support/RawClient.ts"
import { shopOutbox } from "../test/support/shopOutbox.ts"

const version = "4.32.5"
const seed = "20251122"

/** Seconds: for each step of getting schemathesis, and for all of its runs. */
const limits = { install: 60, runs: 80 }

const fail = (message: string): never => {
  throw new Error(message)
}

// --- schemathesis --------------------------------------------------------------------------------------------

/** Where it is; nothing when it cannot be had. */
const schemathesis = (): string | undefined => {
  const venv = join(tmpdir(), `event-hub-schemathesis-${version}`)
  const command = join(venv, "bin", "schemathesis")
  const works = () =>
    existsSync(command) && spawnSync(command, ["--version"], { encoding: "utf8" }).stdout.includes(version)
  if (works()) return command
  rmSync(venv, { recursive: true, force: true })
  for (const [program, ...args] of [
    ["python3", "-m", "venv", venv],
    [
      join(venv, "bin", "pip"),
      "install",
      "--quiet",
      "--disable-pip-version-check",
      `schemathesis==${version}`
    ]
  ] as const) {
    const { error, status, stderr } = spawnSync(program, args, {
      encoding: "utf8",
      timeout: limits.install * 1_000
    })
    if (status !== 0) {
      process.stdout.write(`${error?.message ?? stderr.trim().split("\n").at(-1)}\n`)
      return undefined
    }
  }
  return works() ? command : undefined
}

/** What it says when something fails inside itself is a book. */
const readable = (output: string): string =>
  output
    .split("\n")
    .map((line) => `${line.slice(0, 300)}\n`)
    .slice(-300)
    .join("")

interface Run {
  readonly name: string
  readonly token: string | undefined
  readonly examples: number
  /** Until then, by `performance.now()`. */
  readonly deadline: number
  /** Names that exist, for every parameter of that name. */
  readonly names?: Readonly<Record<string, string>>
}

/** Of a request that fits the description a hub may still say 400: which names are topics, only it knows. */
const unchecked = ["positive_data_acceptance"]

const check = (command: string, url: string, directory: string, run: Run): Promise<boolean> => {
  const config = join(directory, "schemathesis.toml")
  const names = Object.entries(run.names ?? {}).map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`)
  writeFileSync(config, names.length === 0 ? "" : `[parameters]\n${names.join("")}`)
  const child = spawn(
    command,
    [
      `--config-file=${config}`,
      "run",
      `${url}/openapi.json`,
      "--phases=examples,coverage,fuzzing",
      `--max-examples=${run.examples}`,
      `--seed=${seed}`,
      `--exclude-checks=${unchecked.join()}`,
      "--request-timeout=10",
      // Python 3.11 may fail to parse its own source in two threads at once.
      "--workers=1",
      "--warnings=off",
      "--suppress-health-check=all",
      "--no-shrink",
      ...(run.token === undefined ? [] : ["--header", `Authorization: Bearer ${run.token}`])
    ],
    { cwd: directory, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, NO_COLOR: "1" } }
  )
  let output = ""
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
  let isLate = false
  const begin = performance.now()
  // Told to stop, it says what it has found so far.
  const timers = [
    setTimeout(() => (isLate = child.kill("SIGINT")), run.deadline - begin),
    setTimeout(() => child.kill("SIGKILL"), run.deadline - begin + 5_000)
  ]
  return new Promise((resolve) =>
    child.once("exit", (code) => {
      timers.forEach(clearTimeout)
      const seconds = ((performance.now() - begin) / 1_000).toFixed(1)
      if (isLate && !output.includes("= FAILURES =") && !output.includes("= ERRORS =")) {
        process.stdout.write(`NOT CHECKED to the end: ${run.name}; the time is over after ${seconds} s\n`)
        return resolve(true)
      }
      if (code !== 0) process.stdout.write(readable(output))
      process.stdout.write(
        `${run.name}: ${code === 0 ? "nothing found" : `ended with ${code}`}, ${seconds} s\n`
      )
      resolve(code === 0)
    })
  )
}

// --- a hub with something in it ------------------------------------------------------------------------------

const directory = mkdtempSync(join(tmpdir(), "event-hub-contract-"))
const env = {
  ...process.env,
  JWT_SECRET: "a secret for the time of this run, only",
  HUB_LOG: "json",
  HUB_STORE: `sqlite:${join(directory, "hub.db")}`,
  OUTBOX_SOURCES: `shop=sqlite:${join(directory, "shop.db")} gone=sqlite:${join(directory, "gone.db")}`,
  // It tries many tokens that are none.
  LIMIT_AUTH_DELAY_MS: "0",
  GROUP_RETRY_BASE_MS: "60000",
  GROUP_RETRY_MAX_MS: "60000",
  WS_PORT: "0",
  OPS_PORT: "0"
}

const tokenWith = (...scopes: ReadonlyArray<string>): string => {
  const args = ["src/cli/main.ts", "token", "-s", ...scopes.flatMap((scope) => ["--scope", scope])]
  const { status, stderr, stdout } = spawnSync(process.execPath, args, { env, encoding: "utf8" })
  return status === 0 ? stdout.trim() : fail(stderr)
}

const lineWhere = (hub: ChildProcess, is: (line: Record<string, unknown>) => boolean) =>
  new Promise<Record<string, unknown>>((resolve, reject) => {
    createInterface({ input: hub.stdout! }).on("line", (text) => {
      const line = JSON.parse(text) as Record<string, unknown>
      if (is(line)) resolve(line)
    })
    hub.once("exit", (code) => reject(new Error(`the hub ended with ${code}`)))
  })

interface Delivered {
  readonly id: string
  readonly topic: string
  readonly key: string
}

const fill = async (ws: string, ops: string, token: string): Promise<void> => {
  const client = await RawClient.connect(ws)
  const ask = async (message: Readonly<Record<string, unknown>>): Promise<void> => {
    const answer = await client.request(message)
    if (answer.op !== "OK") fail(`${JSON.stringify(message)} was answered by ${JSON.stringify(answer)}`)
  }
  await ask({ op: "AUTH", token })
  const topic = "orders.eu"
  for (let i = 1; i <= 20; i++) {
    const opts = { id: `id-${i}`, key: `key-${i % 5}`, type: "made", headers: { a: "b" }, tags: ["t"] }
    await ask({ op: "PUBLISH", topic: i % 4 === 0 ? "orders.us" : topic, payload: { i }, opts })
  }
  await ask({
    op: "SUBSCRIBE",
    topic: "orders.*",
    group: "mailer",
    opts: { from: "start", keyOrdered: true }
  })
  const events = await client.events(4)
  const ids = events.map((message) => message["event"] as Delivered)
  const [first, second] = ids.filter((event) => event.topic === topic)
  await ask({ op: "NACK", topic, group: "mailer", id: first?.id, reason: "not now" })
  await ask({ op: "NACK", topic, group: "mailer", id: second?.id, reason: "never" })
  const { status } = await fetch(`${ops}/groups/mailer/release-key`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ topic, key: second?.key, mode: "dead-letter" })
  })
  if (status !== 200) fail(`a key was not released: ${status}`)
  await client.close()
}

const command = schemathesis()
if (command === undefined) {
  process.stdout.write(
    `\nNOT CHECKED: the ops API against /openapi.json. schemathesis ${version} could not be had from PyPI.\n\n`
  )
} else {
  const shop = shopOutbox(join(directory, "shop.db"))
  const hub = spawn(process.execPath, ["src/main.ts"], { env, stdio: ["ignore", "pipe", "inherit"] })
  const exited = new Promise<number | null>((resolve) => hub.once("exit", resolve))
  try {
    const opened = lineWhere(
      hub,
      (line) => line["msg"] === "an outbox is being drained" && line["source"] === "shop"
    )
    const { ops, ws } = await lineWhere(hub, (line) => line["msg"] === "ready")
    await opened
    shop.add([
      { id: "sent", state: "sent" },
      { id: "claimed", state: "claimed", key: "k" },
      { id: "blocked", state: "blocked", key: "k" },
      { id: "later", state: "waiting" },
      { id: "dead", state: "dead", error: "no luck" }
    ])
    const all = tokenWith("publish:**", "subscribe:**", "subscribe:$dead.**", "subscribe:$hub.**", "admin:**")
    await fill(String(ws), String(ops), all)
    const names = { topic: "orders.eu", group: "mailer", source: "shop" }
    const deadline = performance.now() + limits.runs * 1_000
    const runs: ReadonlyArray<Run> = [
      { name: "no token", token: undefined, examples: 2, deadline },
      { name: "a reader", token: tokenWith("subscribe:orders.**"), examples: 5, names, deadline },
      { name: "all rights, names that exist", token: all, examples: 15, names, deadline },
      { name: "all rights", token: all, examples: 15, deadline }
    ]
    for (const run of runs) {
      if (!(await check(command, String(ops), directory, run))) process.exitCode = 1
    }
    if (hub.exitCode !== null) fail(`the hub ended with ${hub.exitCode}`)
    hub.kill("SIGTERM")
    const code = await exited
    if (code !== 0) fail(`the hub ended with ${code}`)
  } finally {
    hub.kill("SIGKILL")
    shop.close()
    rmSync(directory, { recursive: true, force: true })
  }
}
