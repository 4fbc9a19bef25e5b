/**
 * How long the dashboard takes to open over 10,000 topics and 200 groups, in a browser that has nothing of it in a
 * cache: from the navigation until the overview is complete, that is, says who is furthest behind and has its first
 * live figures; `frame` is all of it but these. `again` is the second time: the first one makes the hub count what all
 * groups have to do.
 *
 * One group in twenty takes all topics, the others a hundred topics each; all of them are behind by everything.
 */
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { fileURLToPath } from "node:url"
import { SignJWT } from "jose"
import type { Page } from "playwright-core"
import { hasChromium, launchChromium } from "../test/support/chromium.ts"
import { open, startHub } from "./peers/eventHub.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"
import { fillTopics } from "./stores.ts"

const secret = "a secret of thirty-two bytes, or more"

const token = (): Promise<string> =>
  new SignJWT({ scopes: ["subscribe:**", "subscribe:$dead.**", "subscribe:$hub.**", "admin:**"] })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .setSubject("bench")
    .setExpirationTime("1h")
    .sign(new TextEncoder().encode(secret))

const eventsPerTopic = 100
const areas = 100
const topicOf = (i: number): string => `bench.a${i % areas}.t${i}`
const patternOf = (group: number): string => (group % 20 === 0 ? "bench.**" : `bench.a${group % areas}.*`)

/** Groups register by subscribing, and stay when their members leave. */
const registerGroups = async (path: string, groups: number): Promise<void> => {
  const { broker, url } = await startHub(undefined, { HUB_STORE: `sqlite:${path}` })
  let onOk = () => {}
  const member = await open(url, ({ op }) => {
    if (op === "OK") onOk()
  })
  for (let i = 0; i < groups; i++) {
    const answered = new Promise<void>((resolve) => (onOk = resolve))
    const opts = { from: "start", credit: 1 }
    member.send(
      JSON.stringify({ op: "SUBSCRIBE", ref: i + 1, topic: patternOf(i), group: `group-${i}`, opts })
    )
    await answered
    const left = new Promise<void>((resolve) => (onOk = resolve))
    member.send(JSON.stringify({ op: "UNSUBSCRIBE", ref: i + 1, topic: patternOf(i), group: `group-${i}` }))
    await left
  }
  member.close()
  await broker.stop()
}

let made: Promise<string> | undefined

/** The file that each run has a copy of. */
const storeOf = (events: number, groups: number): Promise<string> =>
  (made ??= (async () => {
    const directory = mkdtempSync(join(tmpdir(), "event-hub-bench-"))
    process.once("exit", () => rmSync(directory, { recursive: true }))
    const path = join(directory, "hub.db")
    await fillTopics(path, { topics: Math.ceil(events / eventsPerTopic), events, topicOf })
    await registerGroups(path, groups)
    // What is in the write-ahead log goes to the file, so that the file is all there is.
    const db = new DatabaseSync(path)
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return path
  })())

/**
 * Runs in the page, from its beginning: notes when each of these is there for the first time. (Whoever waits for them
 * from outside looks twice a second in the end.)
 */
const watching = `
  const marks = {}
  const titled = (parent, level, text) =>
    [...document.querySelectorAll(parent)].find((one) => one.querySelector(level)?.textContent === text)
  const there = {
    frame: () => titled("main:not([aria-busy])", "h1", "Overview"),
    ranked: () => titled("section", "h2", "Furthest behind")?.querySelector("tbody tr"),
    live: () => document.querySelector(".charts .line[d^=M]"),
    needs: () => document.querySelector(".needs li")
  }
  new MutationObserver((_, observer) => {
    for (const [name, look] of Object.entries(there)) if (!(name in marks) && look()) marks[name] = performance.now()
    if (Object.keys(marks).length === Object.keys(there).length) {
      observer.disconnect()
      document.documentElement.dataset.marks = JSON.stringify(marks)
    }
  }).observe(document, { attributes: true, childList: true, subtree: true })`

interface Marks {
  readonly frame: number
  readonly ranked: number
  readonly live: number
  readonly needs: number
}

/** Milliseconds since the navigation when all of it was there, by the page's own clock. */
const marksOf = async (page: Page): Promise<Marks> => {
  const root = await page.waitForSelector("html[data-marks]", { state: "attached" })
  return JSON.parse((await root.getAttribute("data-marks")) ?? "") as Marks
}

const measure = async (
  events: number,
  groups: number,
  program: string | undefined
): Promise<Row["figures"]> => {
  const file = await storeOf(events, groups)
  const env = { JWT_SECRET: secret }
  const { broker, ops } = await startHub((path) => Promise.resolve(copyFileSync(file, path)), env, program)
  const browser = await launchChromium()
  const failed: Array<string> = []
  const openOverview = async () => {
    const context = await browser.newContext()
    const page = await context.newPage()
    await page.addInitScript(watching)
    let bytes = 0
    page.on("response", (response) => {
      if (new URL(response.url()).pathname.startsWith("/assets/")) {
        void response.body().then((body) => (bytes += body.length))
      }
    })
    page.on("console", (message) => failed.push(message.text()))
    await page.goto(`${ops}/#token=${await token()}`, { waitUntil: "commit" })
    const marks = await marksOf(page)
    await context.close()
    return { frame: marks.frame, complete: Math.max(...Object.values(marks)), bytes }
  }
  try {
    const first = await openOverview()
    const again = await openOverview()
    if (failed.length > 0) throw new Error(`the page complained: ${failed.join("; ")}`)
    return {
      "complete ms": first.complete,
      "frame ms": first.frame,
      "again: complete ms": again.complete,
      "again: frame ms": again.frame,
      "assets kB": first.bytes / 1_000
    }
  } finally {
    await browser.close()
    await broker.stop()
  }
}

/** What users of the package run. */
const dist = fileURLToPath(new URL("../dist/main.js", import.meta.url))
const source = "event-hub (sqlite), from its source"
const compiled = "event-hub (sqlite), the package"

const noBrowser = () => (hasChromium("the dashboard is") ? undefined : "there is no Chromium")

export const dashboard: Scenario = {
  name: "dashboard",
  title: ({ events, subscribers }) =>
    `opened over ${events} events in ${Math.ceil(events / eventsPerTopic)} topics, and ${subscribers} groups`,
  defaults: { events: 1_000_000, inFlight: 0, subscribers: 200 },
  runs: ({ events, subscribers }) => {
    const run = (name: string, program: string | undefined, missing: Run["missing"]): Run => ({
      name,
      missing,
      run: () => measure(events, subscribers, program)
    })
    return [
      run(source, undefined, noBrowser),
      run(compiled, dist, () => (existsSync(dist) ? noBrowser() : "there is no dist; run: npm run build"))
    ]
  },
  wanted: () =>
    [source, compiled].flatMap((run) => [
      { run, figure: "complete ms", atMost: 1_000 },
      { run, figure: "again: complete ms", atMost: 1_000 }
    ])
}
