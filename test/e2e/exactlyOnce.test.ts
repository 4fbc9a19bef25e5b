/**
 * Events handled by processes that are killed at every step: exactly once where the mark is in the transaction
 * of the writes, once per lease where it is not.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { expect, it, onTestFinished, vi } from "vitest"
import { startHub } from "../support/HubProcess.ts"
import { durableStore } from "../support/hubStore.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"

// Nothing is timed by it: some of these tests start a dozen processes.
vi.setConfig({ testTimeout: 240_000 })

const program = fileURLToPath(new URL("../support/onceConsumer.ts", import.meta.url))

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

interface Consumer {
  readonly process: ChildProcess
  readonly lines: ReadonlyArray<string>
  readonly exited: Promise<ReadonlyArray<unknown>>
  readonly stop: () => Promise<ReadonlyArray<unknown>>
}

/** A hub, events in it, and the database of an application whose processes come and go. */
const scene = async (n: number) => {
  const directory = temporaryDirectory()
  const hub = await startHub(durableStore(join(directory, "hub.db")))
  const publisher = await RawClient.authenticated(hub.ws)
  for (const i of upTo(n)) {
    publisher.send({ op: "PUBLISH", ref: i, topic: `jobs.t${i % 3}`, payload: i, opts: { id: `job-${i}` } })
  }
  await publisher.waitForAll("all answers", ({ op }) => op === "OK", n)
  const path = join(directory, "app.db")
  const db = new DatabaseSync(path)
  db.exec("PRAGMA busy_timeout = 60000; PRAGMA journal_mode = WAL")
  db.exec("CREATE TABLE effects (id TEXT NOT NULL, part INTEGER NOT NULL) STRICT")
  db.exec("CREATE TABLE totals (n INTEGER NOT NULL) STRICT; INSERT INTO totals VALUES (0)")
  db.exec("CREATE TABLE runs (id TEXT NOT NULL, at INTEGER NOT NULL, lease_until INTEGER NOT NULL) STRICT")
  const token = await tokenFor()

  const start = (env: Readonly<Record<string, string>>): Consumer => {
    const child = spawn(process.execPath, [program], {
      env: { PATH: process.env["PATH"], HUB_URL: hub.ws, HUB_TOKEN: token, APP_DB: path, ...env },
      stdio: ["pipe", "pipe", "inherit"]
    })
    onTestFinished(() => void child.kill("SIGKILL"))
    const lines: Array<string> = []
    createInterface({ input: child.stdout }).on("line", (line) => lines.push(line))
    // `close` and not `exit`: everything it said was read.
    const exited = once(child, "close")
    return {
      process: child,
      lines,
      exited,
      stop: async () => {
        await expect.poll(() => lines, { timeout: 60_000 }).toContain("subscribed")
        child.kill("SIGTERM")
        return exited
      }
    }
  }

  /** Ends when the group has nothing to do any more. */
  const idle = async (): Promise<void> => {
    const headers = { authorization: `Bearer ${token}` }
    const open = async () => {
      const topics = Array.from(new Set(upTo(n).map((i) => i % 3)), async (i) => {
        const answer = await fetch(`${hub.ops}/lag?topic=jobs.t${i}&group=app`, { headers })
        const { inFlight, pending } = (await answer.json()) as {
          readonly inFlight: number
          readonly pending: number
        }
        return inFlight + pending
      })
      return (await Promise.all(topics)).reduce((sum, some) => sum + some, 0)
    }
    await expect.poll(open, { timeout: 100_000, interval: 50 }).toBe(0)
  }

  const rows = (sql: string) => db.prepare(sql).all()
  return {
    hub,
    start,
    idle,
    /** Each part of each event's effect, and how often it is there. */
    effects: () =>
      new Map(
        rows("SELECT id || '/' || part AS what, count(*) AS n FROM effects GROUP BY what").map((row) => [
          String(row["what"]),
          Number(row["n"])
        ])
      ),
    total: () => rows("SELECT n FROM totals")[0]?.["n"],
    marks: () => Number(rows("SELECT count(*) AS n FROM hub_dedupe WHERE done_at IS NOT NULL")[0]?.["n"]),
    runs: () =>
      Map.groupBy(
        rows("SELECT id, at, lease_until FROM runs ORDER BY at").map((row) => ({
          id: String(row["id"]),
          at: Number(row["at"]),
          leaseUntil: Number(row["lease_until"])
        })),
        ({ id }) => id
      ),
    end: async (): Promise<void> => {
      db.close()
      await hub.stop()
    }
  }
}

/** Runs a process until it kills itself, at each of these steps: at its first event there, and at its third. */
const dieAtEach = async (
  start: (env: Readonly<Record<string, string>>) => Consumer,
  env: Readonly<Record<string, string>>,
  steps: ReadonlyArray<string>,
  afterEach: (step: string) => void
): Promise<ReadonlyArray<string>> => {
  const lines: Array<string> = []
  for (const after of ["0", "2"]) {
    for (const step of steps) {
      const consumer = start({ ...env, DIE_AT: step, DIE_AFTER: after })
      expect([step, ...(await consumer.exited)]).toEqual([step, null, "SIGKILL"])
      lines.push(...consumer.lines)
      afterEach(step)
    }
  }
  return lines
}

const onceEach = (n: number) =>
  new Map(upTo(n).flatMap((i) => [1, 2].map((part) => [`job-${i}/${part}`, 1] as const)))

const sorted = <A>(map: ReadonlyMap<string, A>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1))

const sum = (n: number) => (n * (n + 1)) / 2

it("in one transaction with its mark, each event's effect is there exactly once, wherever its process is killed", async () => {
  const n = 60
  const { effects, end, idle, marks, start, total } = await scene(n)
  const steps = [
    "before begin",
    "after the mark was inserted",
    "in the middle of the writes",
    "before COMMIT",
    "after COMMIT",
    "after the ACK was sent"
  ]
  const lines = await dieAtEach(start, { FORM: "transaction" }, steps, () => {
    // Whatever was reached: all of an event, or nothing.
    expect([...effects().values()].every((times) => times === 1)).toBe(true)
    expect(effects().size).toBe(2 * marks())
  })
  expect(marks()).toBeGreaterThan(0)
  expect(marks()).toBeLessThan(n)

  const last = start({ FORM: "transaction" })
  await idle()
  expect(await last.stop()).toEqual([0, null])
  expect(sorted(effects())).toEqual(sorted(onceEach(n)))
  expect([total(), marks()]).toEqual([sum(n), n])
  // What was committed by a process that died before it could say so came again, and was not handled again.
  const duplicates = [...lines, ...last.lines].filter((line) => line.startsWith("duplicate"))
  expect(duplicates.length).toBeGreaterThanOrEqual(2)
  await end()
})

it("an event that kills whoever handles it is a dead letter in the end; nothing of it is kept, and all of the others", async () => {
  const n = 12
  const { effects, end, hub, idle, marks, start } = await scene(n)
  const env = { FORM: "transaction", MAX_ATTEMPTS: "5", DIE_AT: "at job-2" }
  for (let i = 0; i < 5; i++) expect(await start(env).exited).toEqual([null, "SIGKILL"])
  const last = start(env)
  await idle()
  expect(await last.stop()).toEqual([0, null])

  expect(sorted(effects())).toEqual(sorted(onceEach(n)).filter(([what]) => !what.startsWith("job-2/")))
  expect(marks()).toBe(n - 1)
  const reader = await RawClient.authenticated(hub.ws)
  await reader.request({ op: "SUBSCRIBE", topic: "$dead.**", opts: { from: "start" } })
  await reader.events(1)
  await reader.settled()
  expect(reader.messages.filter(({ op }) => op === "EVENT")).toMatchObject([
    { event: { payload: 2, headers: { "dead-id": "job-2", "dead-attempts": "5" } } }
  ])
  await end()
})

it("under a lease, a run whose process was killed is taken over after its lease, and there is one run per lease", async () => {
  const n = 30
  const { effects, end, idle, marks, runs, start, total } = await scene(n)
  const env = { FORM: "lease", LEASE_MS: "1500" }
  const inRun = ["in the handler", "in the middle of the writes", "after the effect"]
  await dieAtEach(start, env, ["before begin", ...inRun, "after it was completed"], () => {})
  const last = start(env)
  await idle()
  expect(await last.stop()).toEqual([0, null])
  expect([marks(), runs().size]).toEqual([n, n])

  const all = [...runs().values()]
  const again = all.filter((runs) => runs.length > 1)
  expect(again.length).toBeGreaterThan(0)
  for (const runs of again) {
    runs.slice(1).forEach(({ at }, i) => expect(at).toBeGreaterThanOrEqual(runs[i]!.leaseUntil))
  }
  // Every run more than one for an event is due to a process that was killed in one.
  expect(all.reduce((sum, runs) => sum + runs.length, 0)).toBe(n + 2 * inRun.length)
  // So is every effect that is there twice: this is what the other form is for.
  const repeated = [...effects().values()].reduce((sum, times) => sum + times - 1, 0)
  expect(effects().size).toBe(2 * n)
  expect(repeated).toBe(2 * (0 + 1 + 2))
  expect(Number(total())).toBeGreaterThan(sum(n))
  await end()
})

it("under a lease, a second process that is handed the event of a run gives it back until that is done", async () => {
  const { effects, end, idle, runs, start } = await scene(1)
  const first = start({ FORM: "lease", HOLD: "yes" })
  await expect.poll(() => first.lines, { timeout: 60_000 }).toContain("begun job-1")
  const second = start({ FORM: "lease" })
  const refusals = () => second.lines.filter((line) => line.startsWith("refused"))
  await expect.poll(() => refusals().length, { timeout: 60_000 }).toBeGreaterThanOrEqual(3)
  expect(effects().size).toBe(0)
  first.process.stdin?.write("go on\n")
  await expect.poll(() => first.lines, { timeout: 60_000 }).toContain("handled job-1")
  await idle()
  expect(await Promise.all([first.stop(), second.stop()])).toEqual([
    [0, null],
    [0, null]
  ])
  expect(second.lines).toContain("duplicate job-1")
  expect(runs().get("job-1")).toHaveLength(1)
  expect(sorted(effects())).toEqual(sorted(onceEach(1)))
  await end()
})
