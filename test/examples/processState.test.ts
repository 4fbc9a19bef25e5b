/** The processes of a machine as events, and the page that shows them: its pure parts, and all of it in a browser. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { createClient } from "event-hub/client"
import fc from "fast-check"
import type { Browser, BrowserContext, Page } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { readLatest } from "../../examples/process-state/latest.ts"
import { compareBy, LatestStates, matcher } from "../../examples/process-state/page/rows.ts"
import {
  changesBetween,
  parsePsLine,
  parseStat,
  type Stat,
  statesOf,
  type Units
} from "../../examples/process-state/processes.ts"
import { processReader } from "../../examples/process-state/readProcesses.ts"
import { ProcessState, topic, topics } from "../../examples/process-state/topics.ts"
import { hasChromium, launchChromium } from "../support/chromium.ts"
import { startHub } from "../support/HubProcess.ts"
import { freePort, returningHub } from "../support/ReturningHub.ts"
import { tokenFor } from "../support/tokens.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const stateOf = (pid: number, more: Partial<ProcessState> = {}): ProcessState => ({
  pid,
  name: `process-${pid}`,
  state: "sleeping",
  cpuPercent: 0,
  rssBytes: 4096,
  startedAt: Date.UTC(2026, 0, 2),
  ...more
})

// --- pure ----------------------------------------------------------------------------------------------------

const words = ProcessState.entries.state.options

/** Of few values, so that two of them are often alike in something. */
const anyState: fc.Arbitrary<ProcessState> = fc.record(
  {
    pid: fc.nat(5),
    name: fc.constantFrom("a", "b", "node 10", "node 9"),
    state: fc.constantFrom(...words),
    cpuPercent: fc.constantFrom(0, 0.5, 12),
    rssBytes: fc.nat(3),
    startedAt: fc.nat(3)
  },
  { noNullPrototype: true }
)

const anyStates = fc
  .uniqueArray(anyState, { selector: ({ pid }) => pid })
  .map((states) => new Map(states.map((state) => [String(state.pid), state])))

const units: Units = { ticksPerSecond: 100, bytesPerPage: 4096, bootedAt: 1_000_000 }

describe("/proc", () => {
  const letters = ["R", "S", "D", "I", "T", "t", "Z", "X"]
  // What ends a name, and does not.
  const anyName = fc.string({ unit: fc.constantFrom("(", ")", " ", "\n", "S", "1", "é", "a") })

  it("a line gives what is in it, whatever the name is", () => {
    fc.assert(
      fc.property(
        fc.nat(),
        anyName,
        fc.constantFrom(...letters),
        fc.array(fc.nat(), { minLength: 49, maxLength: 49 }),
        (pid, name, letter, numbers) => {
          const field = (n: number) => numbers[n - 4]!
          expect(parseStat(`${pid} (${name}) ${letter} ${numbers.join(" ")}\n`)).toEqual({
            pid,
            name,
            state: parseStat(`1 (x) ${letter} ${numbers.join(" ")}`)?.state,
            ticks: field(14) + field(15),
            startTicks: field(22),
            rssPages: field(24)
          })
        }
      )
    )
  })

  it("a line that is none gives nothing", () => {
    fc.assert(fc.property(fc.string(), (text) => parseStat(text) === undefined))
    expect(parseStat("1 (init) S 1 2 3")).toBeUndefined()
  })

  const stat = (ticks: number, startTicks = 50): Stat => ({
    pid: 7,
    name: "seven",
    state: "running",
    ticks,
    startTicks,
    rssPages: 3
  })
  const sample = (at: number, one: Stat) => ({ at, stats: new Map([["7", one]]) })

  it("how busy a process is, is what it used since the sample before", () => {
    const expected = { pid: 7, name: "seven", state: "running", rssBytes: 12_288, startedAt: 1_000_500 }
    const first = sample(5_000, stat(10))
    const cpu = (ticks: number, startTicks?: number) =>
      statesOf(sample(7_000, stat(ticks, startTicks)), first, units).get("7")?.cpuPercent
    expect(statesOf(first, undefined, units).get("7")).toEqual({ ...expected, cpuPercent: 0 })
    expect(statesOf(sample(7_000, stat(60)), first, units).get("7")).toEqual({ ...expected, cpuPercent: 25 })
    expect(cpu(10)).toBe(0)
    expect(cpu(410)).toBe(200)
    // Another process under the same pid.
    expect(cpu(60, 51)).toBe(0)
    expect(statesOf(sample(5_000, stat(60)), first, units).get("7")?.cpuPercent).toBe(0)
  })

  it.skipIf(!existsSync("/proc/self/stat"))("reads this process", () => {
    expect(parseStat(readFileSync(`/proc/${process.pid}/stat`, "utf8"))).toMatchObject({ pid: process.pid })
  })
})

describe("ps", () => {
  it("a line gives what is in it", () => {
    const line = "  412 Ss    1.5  2048 Fri Jan  2 03:04:05 2026 /Applications/A b.app/MacOS/A b"
    const state = stateOf(412, {
      name: "A b",
      cpuPercent: 1.5,
      rssBytes: 2_097_152,
      startedAt: Date.UTC(2026, 0, 2, 3, 4, 5)
    })
    expect(parsePsLine(line)).toEqual(state)
    expect(parsePsLine("1 Z 0.0 0 Fri Jan  2 03:04:05 2026 sh <defunct>")).toMatchObject({
      name: "sh",
      state: "zombie"
    })
    expect(parsePsLine("")).toBeUndefined()
    expect(parsePsLine("PID STAT %CPU RSS STARTED COMMAND")).toBeUndefined()
  })

  it("a line that is none gives nothing", () => {
    fc.assert(fc.property(fc.string(), (text) => parsePsLine(text) === undefined))
  })
})

it.each(["any", "ps"] as const)("the processes of this machine, by %s means", async (source) => {
  if (source === "ps" && spawnSync("ps", ["-A"]).error) return console.warn("There is no ps here.")
  const states = await (await processReader(source))()
  expect(states.get(String(process.pid))).toMatchObject({ pid: process.pid })
  for (const [key, state] of states) {
    expect(key).toBe(String(state.pid))
    expect(topics.schemaOf(topic)?.["~standard"].validate(state)).toMatchObject({ value: state })
  }
})

describe("changes", () => {
  it("make what is known into what is, and are none that change nothing", () => {
    fc.assert(
      fc.property(anyStates, anyStates, (known, current) => {
        const result = new Map(known)
        const changes = changesBetween(known, current)
        for (const { key, state } of changes) {
          expect(state).not.toEqual(known.get(key) ?? null)
          if (state) result.set(key, state)
          else result.delete(key)
        }
        expect(result).toEqual(current)
        expect(new Set(changes.map(({ key }) => key)).size).toBe(changes.length)
        expect(changesBetween(current, structuredClone(current))).toEqual([])
      })
    )
  })
})

describe("the page's rows", () => {
  it("are those of the whole log, however pages were read while it grew", () => {
    const anyLog = fc.array(fc.record({ key: fc.nat(5), isNull: fc.boolean() }), { maxLength: 60 })
    fc.assert(
      fc.property(anyLog, fc.array(fc.nat(60), { minLength: 6, maxLength: 6 }), (log, times) => {
        const events = log.map(({ isNull, key }, i) => ({
          key: String(key),
          seq: i + 1,
          state: isNull ? null : stateOf(key, { startedAt: i })
        }))
        const latestAt = (seq: number) => {
          const latest = new Map<string, (typeof events)[number]>()
          for (const event of events.slice(0, seq)) latest.set(event.key, event)
          return latest
        }
        // Each key is on a page of its own, and each page is read at a time of its own.
        const readAt = times.map((time) => Math.min(time, events.length)).sort((a, b) => a - b)
        const items = readAt.flatMap((seq, key) => {
          const { seq: own = 0, state = null } = latestAt(seq).get(String(key)) ?? {}
          return state ? [{ key: String(key), seq: own, state }] : []
        })
        const states = new LatestStates({ items })
        for (const { key, seq, state } of events.slice(readAt[0])) states.apply(key, seq, state)
        const expected = [...latestAt(events.length)].flatMap(([key, { state }]) =>
          state ? [[key, state] as const] : []
        )
        expect(states.all).toEqual(new Map(expected))
      })
    )
  })

  it("say whether an event changed anything", () => {
    const states = new LatestStates({ items: [{ key: "1", seq: 5, state: stateOf(1) }] })
    expect(states.apply("1", 4, null)).toBe(false)
    expect(states.apply("1", 5, stateOf(2))).toBe(false)
    expect(states.apply("2", 6, null)).toBe(false)
    expect(states.apply("1", 7, null)).toBe(true)
    expect(states.apply("1", 8, stateOf(1))).toBe(true)
  })

  it("are sorted by any column, in either direction, those that are alike by pid", () => {
    const anyColumn = fc.constantFrom(...(["pid", "name", "state", "cpuPercent", "rssBytes"] as const))
    fc.assert(
      fc.property(fc.array(anyState), anyColumn, fc.boolean(), (states, column, isDescending) => {
        const compare = compareBy({ column, isDescending })
        const opposite = compareBy({ column, isDescending: !isDescending })
        const sorted = states.toSorted(compare)
        for (const [i, b] of sorted.entries()) {
          const a = sorted[i - 1] ?? b
          expect(compare(a, b)).toBeLessThanOrEqual(0)
          if (a[column] === b[column]) expect(a.pid).toBeLessThanOrEqual(b.pid)
          else expect(opposite(a, b)).toBeGreaterThan(0)
        }
      })
    )
    const names = ["node 10", "node 9", "Bash"].map((name) => stateOf(1, { name }))
    expect(names.sort(compareBy({ column: "name", isDescending: false })).map(({ name }) => name)).toEqual([
      "Bash",
      "node 9",
      "node 10"
    ])
  })

  it("are those that have every word of the filter", () => {
    const state = stateOf(412, { name: "My Editor", state: "stopped" })
    const fits = (filter: string) => matcher(filter)(state)
    for (const filter of ["", "  ", "412", "editor", "EDIT stop", " 41 my "])
      expect([filter, fits(filter)]).toEqual([filter, true])
    for (const filter of ["413", "editor running"]) expect([filter, fits(filter)]).toEqual([filter, false])
  })
})

// --- in a browser --------------------------------------------------------------------------------------------

const screenshots = join(root, "test-output", "process-state")

interface Script {
  readonly process: ChildProcess
  readonly errors: ReadonlyArray<string>
  /** The first line of its output for which `is` holds; waits for it. */
  readonly lineWhere: (is: (line: string) => boolean) => Promise<string>
}

const runScript = (
  name: string,
  env: Readonly<Record<string, string>>,
  ...args: ReadonlyArray<string>
): Script => {
  const child = spawn(
    process.execPath,
    ["--conditions=event-hub-source", `examples/process-state/${name}`, ...args],
    { cwd: root, env: { PATH: process.env["PATH"], ...env }, stdio: ["ignore", "pipe", "pipe"] }
  )
  const exited = once(child, "exit")
  onTestFinished(async () => {
    child.kill("SIGKILL")
    await exited
  })
  const lines: Array<string> = []
  const errors: Array<string> = []
  const output = createInterface({ input: child.stdout })
  output.on("line", (line) => lines.push(line))
  createInterface({ input: child.stderr }).on("line", (line) => errors.push(line))
  const lineWhere = (is: (line: string) => boolean): Promise<string> =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = lines.find(is)
        if (found !== undefined) resolve(found)
      }
      look()
      output.on("line", look)
      void exited.then(() => reject(new Error(`${name} ended: ${errors.join("\n")}`)))
    })
  return { process: child, errors, lineWhere }
}

const readerToken = () => tokenFor({ scopes: [`subscribe:${topic}`] })
const publisherToken = () => tokenFor({ scopes: [`publish:${topic}`, `subscribe:${topic}`] })

interface Hub {
  readonly ws: string
  readonly ops: string
}

const serve = async (hub: Hub, env: Readonly<Record<string, string>> = {}) => {
  const script = runScript("serve.ts", {
    HUB_URL: hub.ws,
    HUB_OPS_URL: hub.ops,
    HUB_TOKEN: await readerToken(),
    PORT: "0",
    ...env
  })
  return { ...script, link: await script.lineWhere((line) => line.startsWith("http:")) }
}

/** What is registered last is ended first: pages go before their hub does, and have nothing to complain of. */
const hubWith = async (env: Readonly<Record<string, string>> = {}): Promise<Hub> => {
  const hub = await startHub(env)
  onTestFinished(async () => void (await hub.stop()))
  return hub
}

/** Publishes what a test makes up. */
const publisherOf = async (url: string) => {
  const client = createClient({ url, token: await publisherToken(), topics })
  onTestFinished(() => client.close())
  return (pid: number, state: ProcessState | null) => client.publish(topic, state, { key: String(pid) })
}

describe.runIf(hasChromium("the page of process states is"))("the page", () => {
  let browser: Browser
  let context: BrowserContext

  beforeAll(async () => {
    mkdirSync(screenshots, { recursive: true })
    browser = await launchChromium()
    context = await browser.newContext({ viewport: { width: 1100, height: 720 } })
  })

  afterAll(async () => {
    await browser?.close()
  })

  /** A page of its own, which must not complain of anything else. */
  const open = async (link: string, expected: RegExp = /^$/): Promise<Page> => {
    const page = await context.newPage()
    const complaints: Array<string> = []
    page.on("console", (message) => complaints.push(message.text()))
    page.on("pageerror", (error) => complaints.push(String(error)))
    onTestFinished(async () => {
      await page.close()
      expect(complaints.filter((complaint) => !expected.test(complaint))).toEqual([])
    })
    await page.goto(link)
    return page
  }

  /** Chromium itself tells of every connection, and every answer, that is an error. */
  const outage = /^WebSocket connection to '\S+' failed|^Failed to load resource/

  const isIn = (page: Page, state: string) => page.waitForSelector(`#state[data-state="${state}"]`)
  const row = (page: Page, pid: number) => page.locator(`tr[data-key="${pid}"]`)
  const shownState = (page: Page, pid: number, state: string) =>
    row(page, pid).locator(`[data-state="${state}"]`).waitFor()

  /** What stands in a column, from the top. */
  const column = (page: Page, n: number): Promise<ReadonlyArray<string>> =>
    page.evaluate(
      `Array.from(document.querySelectorAll("tbody tr"), (row) => row.children[${n}].textContent)`
    )

  const frame = (page: Page) =>
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")

  it("shows a process that starts, changes and ends, also while the hub is killed and comes back", async () => {
    const { hub, start, url } = await returningHub({ OPS_PORT: String(await freePort()) })
    const { ops } = hub()
    const env = { HUB_URL: url, HUB_OPS_URL: ops, HUB_TOKEN: await publisherToken() }
    const publishing = runScript("publish.ts", env, "100")
    await publishing.lineWhere((line) => line.endsWith("processes changed"))
    const { link } = await serve({ ws: url, ops })
    const page = await open(link, outage)
    await isIn(page, "live")
    // The token is in the fragment only until it is read.
    expect(link).toContain("#token=")
    expect(page.url()).toBe(new URL("/", link).href)
    await row(page, process.pid).waitFor()

    const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1_000_000)"], { stdio: "ignore" })
    onTestFinished(() => void child.kill("SIGKILL"))
    const pid = child.pid!
    await row(page, pid).waitFor()
    child.kill("SIGSTOP")
    await shownState(page, pid, "stopped")
    await page.screenshot({ path: join(screenshots, "light.png") })
    await page.emulateMedia({ colorScheme: "dark" })
    await page.screenshot({ path: join(screenshots, "dark.png") })
    await page.emulateMedia({ colorScheme: "light" })

    await hub().kill()
    await isIn(page, "reconnecting")
    expect(await page.textContent("#state")).toMatch(/^reconnecting, shown as of /)
    await page.screenshot({ path: join(screenshots, "reconnecting.png") })
    const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1_000_000)"], { stdio: "ignore" })
    onTestFinished(() => void other.kill("SIGKILL"))
    child.kill("SIGCONT")
    await start()
    await isIn(page, "live")
    expect(await page.textContent("#state")).toBe("live")
    await row(page, other.pid!).waitFor()
    await shownState(page, pid, "sleeping")
    child.kill("SIGKILL")
    await row(page, pid).waitFor({ state: "detached" })

    // When nothing changes any more, the page has what the hub has.
    const ended = once(publishing.process, "exit")
    publishing.process.kill("SIGTERM")
    expect(await ended).toEqual([0, null])
    const token = await readerToken()
    await expect
      .poll(async () => {
        const { items } = await readLatest({ base: ops, token })
        return [await column(page, 0), items.map(({ key }) => key)].map((pids) => pids.toSorted().join())
      })
      .toSatisfy(([shown, held]) => shown === held)
    expect(publishing.errors).toEqual([])
  })

  it("takes back what ended while nobody looked", async () => {
    const hub = await hubWith()
    const publish = await publisherOf(hub.ws)
    // Above every pid that a system gives.
    const gone = 2 ** 30
    await publish(gone, stateOf(gone))
    const { link } = await serve(hub)
    const page = await open(link)
    await row(page, gone).waitFor()
    runScript("publish.ts", { HUB_URL: hub.ws, HUB_OPS_URL: hub.ops, HUB_TOKEN: await publisherToken() })
    await row(page, gone).waitFor({ state: "detached" })
    await row(page, process.pid).waitFor()
  })

  it("shows what is in an event as text, whatever it is", async () => {
    const hub = await hubWith()
    const publish = await publisherOf(hub.ws)
    const attack = `<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>`
    await publish(1, stateOf(1, { name: attack }))
    const { link } = await serve(hub)
    const page = await open(link)
    await row(page, 1).waitFor()
    await publish(2, stateOf(2, { name: `"><b>${attack}` }))
    await row(page, 2).waitFor()
    expect(await column(page, 1)).toEqual([attack, `"><b>${attack}`])
    expect(await page.locator("tbody :is(img, script, b)").count()).toBe(0)
    expect(await page.evaluate("window.hacked")).toBeUndefined()
  })

  it("passes over what is no process state, and says so", async () => {
    const hub = await hubWith()
    const token = await publisherToken()
    const client = createClient({ url: hub.ws, token })
    onTestFinished(() => client.close())
    await client.publish(topic, { pid: "one" }, { key: "1" })
    await client.publish(topic, stateOf(2), { key: "2" })
    const { link } = await serve(hub)
    const page = await open(link)
    await row(page, 2).waitFor()
    expect(await page.textContent("#count")).toBe("1 process, and 1 value that is none")
    await client.publish(topic, "what?", { key: "2" })
    await row(page, 2).waitFor({ state: "detached" })
    await page.locator("#count", { hasText: "0 processes, and 2 values that are none" }).waitFor()
    await client.publish(topic, stateOf(3))
    await client.publish(topic, stateOf(4), { key: "4" })
    await row(page, 4).waitFor()
    expect(await column(page, 0)).toEqual(["4"])
  })

  it("shows a thousand keys, page by page, sorted and filtered while they change", async () => {
    const hub = await hubWith()
    const publish = await publisherOf(hub.ws)
    const pids = Array.from({ length: 1_100 }, (_, i) => i + 1)
    const all = new Map(
      pids.map((pid) => [
        pid,
        stateOf(pid, {
          cpuPercent: (pid * 7) % 100,
          rssBytes: ((pid * 37) % 1_000) * 1_048_576,
          state: words[pid % words.length]!
        })
      ])
    )
    const publishAll = () => Promise.all(Array.from(all, ([pid, state]) => publish(pid, state)))
    await publishAll()
    const { link } = await serve(hub)
    const page = await context.newPage()
    onTestFinished(() => page.close())
    const asked: Array<string> = []
    page.on("request", (request) => {
      if (request.url().includes("/latest-by-key?")) asked.push(request.url())
    })
    await page.goto(link)
    await page.locator("#count", { hasText: /^1,100 processes$/ }).waitFor()
    expect(asked.length).toBe(3)
    const inOrder = (...order: Parameters<typeof compareBy>) =>
      [...all.values()].sort(compareBy(...order)).map(({ pid }) => String(pid))
    expect(await column(page, 0)).toEqual(inOrder({ column: "cpuPercent", isDescending: true }))
    const sorted = page.locator("th[aria-sort]")
    expect(await sorted.getAttribute("aria-sort")).toBe("descending")

    // Half of them change at once, most of those in place.
    for (const [pid, state] of all) {
      if (pid % 2 === 0) all.set(pid, { ...state, cpuPercent: (pid * 13) % 90, name: `renamed-${pid}` })
    }
    await publishAll()
    await expect.poll(() => column(page, 0)).toEqual(inOrder({ column: "cpuPercent", isDescending: true }))

    await page.click("th >> text=Name")
    expect(await sorted.getAttribute("aria-sort")).toBe("ascending")
    await frame(page)
    expect(await column(page, 0)).toEqual(inOrder({ column: "name", isDescending: false }))
    await page.click("th >> text=Name")
    await frame(page)
    expect(await column(page, 0)).toEqual(inOrder({ column: "name", isDescending: true }))
    await page.click("th >> text=Memory")
    await page.fill("#filter", "renamed-10 run")
    await frame(page)
    const filtered = [...all.values()].filter(matcher("renamed-10 run"))
    expect(filtered.length).toBeGreaterThan(0)
    expect(await column(page, 1)).toEqual(
      filtered.sort(compareBy({ column: "rssBytes", isDescending: true })).map(({ name }) => name)
    )
    expect(await page.textContent("#count")).toBe(`${filtered.length} of 1,100 processes`)
    // One that begins to fit comes in, and one that fits no more goes.
    const [first] = filtered
    await publish(first!.pid, { ...first!, name: "other" })
    await publish(1, stateOf(1, { name: "renamed-10x", state: "running" }))
    await row(page, first!.pid).waitFor({ state: "detached" })
    await row(page, 1).waitFor()
    await page.fill("#filter", "nobody is called that")
    await page.locator("text=No process fits the filter.").waitFor()
    await page.fill("#filter", "")
    await page.locator("#count", { hasText: /^1,100 processes$/ }).waitFor()
    await page.screenshot({ path: join(screenshots, "thousand.png") })
    await page.setViewportSize({ width: 390, height: 720 })
    await page.screenshot({ path: join(screenshots, "narrow.png") })
  })

  it("begins anew when the hub comes back with another history", async () => {
    const OPS_PORT = String(await freePort())
    const { hub, start, url } = await returningHub({ OPS_PORT, HUB_STORE: "memory:" })
    const publish = await publisherOf(url)
    for (const pid of [1, 2, 3]) await publish(pid, stateOf(pid))
    const { link } = await serve({ ws: url, ops: hub().ops })
    const page = await open(link, outage)
    await isIn(page, "live")
    await row(page, 3).waitFor()
    await hub().kill()
    await isIn(page, "reconnecting")
    await start()
    await publish(2, stateOf(2, { name: "of the new life" }))
    await row(page, 3).waitFor({ state: "detached" })
    await row(page, 2).locator("text=of the new life").waitFor()
    expect(await column(page, 0)).toEqual(["2"])
    await publish(4, stateOf(4))
    await row(page, 4).waitFor()
  })

  it("reads everything again after a gap, which may have held the end of a process", async () => {
    const hub = await hubWith()
    const publish = await publisherOf(hub.ws)
    for (const pid of [1, 2]) await publish(pid, stateOf(pid))
    const { link } = await serve(hub)
    const page = await context.newPage()
    onTestFinished(() => page.close())
    // As if the hub had trimmed the end of the second one before the page could read it.
    await page.routeWebSocket(/.*/, (socket) => {
      const server = socket.connectToServer()
      server.onMessage((frame) => {
        const isEnd = String(frame).includes('"payload":null')
        const gap = { op: "GAP", sub: topic, topic, from: 3, to: 3, reason: "trimmed" }
        socket.send(isEnd ? JSON.stringify(gap) : frame)
      })
    })
    await page.goto(link)
    await isIn(page, "live")
    await row(page, 2).waitFor()
    await publish(2, null)
    await row(page, 2).waitFor({ state: "detached" })
    await publish(3, stateOf(3))
    await row(page, 3).waitFor()
    expect((await column(page, 0)).toSorted()).toEqual(["1", "3"])
  })

  it("can be read by those who do not see it", async () => {
    const hub = await hubWith()
    const publish = await publisherOf(hub.ws)
    await publish(1, stateOf(1))
    const { link } = await serve(hub)
    const page = await open(link)
    await row(page, 1).waitFor()
    await page.getByRole("table", { name: "Live state of each process, by pid" }).waitFor()
    await page.getByRole("rowheader", { name: "process-1" }).waitFor()
    await page.getByRole("status").filter({ hasText: "live" }).waitFor()
    await page.getByRole("searchbox", { name: "Filter by pid, name or state" }).waitFor()
    expect(await page.locator("[aria-live], [role=status], [role=alert], [role=log]").count()).toBe(1)
    const headers = await page.getByRole("columnheader").allInnerTexts()
    expect(headers.map((text) => text.trim())).toEqual(["PID", "Name", "State", "CPU", "Memory", "Started"])
    expect(await page.locator('thead th:not([scope="col"]), tbody th:not([scope="row"])').count()).toBe(0)
    // By keyboard alone.
    await page.focus("#filter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    expect(await page.locator("th[aria-sort]").innerText()).toBe("PID")
  })

  it("says what is wrong with its token", async () => {
    const hub = await hubWith()
    const { link } = await serve(hub, { HUB_TOKEN: await tokenFor({ scopes: ["subscribe:other"] }) })
    const forbidden = await open(link, outage)
    await forbidden.locator("#state", { hasText: `no right to subscribe '${topic}'` }).waitFor()
    const bad = await open(`${new URL("/", link).href}#token=nonsense`, outage)
    await isIn(bad, "closed")
    expect(await bad.textContent("#state")).toMatch(/^not connected: ./)
    const none = await open(new URL("/", link).href)
    await isIn(none, "closed")
    expect(await none.textContent("#state")).toBe("not connected: there is no token in the link")
  })

  it("needs its origin on the hub's list, where there is one; its server says so", async () => {
    const PORT = String(await freePort())
    const strict = await hubWith({ HUB_ORIGINS: "https://app.example.com" })
    const refused = await serve(strict)
    await expect
      .poll(() => refused.errors)
      .toEqual([`the hub refuses pages of ${new URL(refused.link).origin}: add it to HUB_ORIGINS`])
    const hub = await hubWith({ HUB_ORIGINS: `https://app.example.com,http://127.0.0.1:${PORT}` })
    const { errors, link } = await serve(hub, { PORT })
    await isIn(await open(link, /404/), "live")
    expect(errors).toEqual([])
  })
})
