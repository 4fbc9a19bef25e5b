/** The live tail in a browser: what it shows, that nothing in an event is more than text, and that it comes back. */
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { hasChromium, launchChromium } from "../support/chromium.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { returningHub } from "../support/ReturningHub.ts"
import { everything, tokenFor } from "../support/tokens.ts"
import { openPage } from "./browser.ts"

describe.runIf(hasChromium("the dashboard is"))("the page", () => {
  let browser: Browser
  /** Nobody has configured it. */
  let hub: HubProcess
  let publisher: RawClient

  beforeAll(async () => {
    hub = await startHub({ JWT_SECRET: "" })
    publisher = await RawClient.connect(hub.ws)
    await publisher.request({ op: "AUTH", token: await hub.devToken() })
    browser = await launchChromium()
  })

  afterAll(async () => {
    await browser?.close()
    await publisher?.close()
    await hub?.stop()
  })

  const publish = (topic: string, payload: unknown, opts: object = {}, by: RawClient = publisher) =>
    by.request({ op: "PUBLISH", topic, payload, opts })

  const open = (url: string, expected?: RegExp): Promise<Page> =>
    openPage(browser, url, expected === undefined ? {} : { expected })

  const follow = async (page: Page, { pattern = "**", fromStart = false } = {}) => {
    await page.fill("#pattern", pattern)
    await page.setChecked("#start", fromStart)
    await page.click("#form button[type=submit]")
  }

  const connected = (page: Page) => page.waitForSelector('#state[data-state="ready"]')

  /** Follows, and is known to: an event that was published for it has come. */
  const following = async (page: Page, topic: string, by: RawClient = publisher) => {
    await connected(page)
    await expect
      .poll(async () => {
        await publish(topic, "are you there?", {}, by)
        return page.locator("tbody tr").count()
      })
      .toBeGreaterThan(0)
    const last = await publish(topic, "here we go", {}, by)
    await page.locator("tbody tr", { hasText: "here we go" }).waitFor()
    return Number(last["seq"])
  }

  /** Topic, seq, key and payload, the newest first. */
  const rows = async (page: Page): Promise<ReadonlyArray<ReadonlyArray<string>>> => {
    const lines = await page.evaluate<ReadonlyArray<ReadonlyArray<string>>>(
      `Array.from(document.querySelectorAll("tbody tr"), (row) =>
        Array.from(row.children, (cell) => cell.textContent))`
    )
    return lines.map(([_stored, ...rest]) => rest)
  }

  it("opened by the link that an unconfigured hub prints, it shows events as they are stored", async () => {
    await hub.devToken()
    const link = String(hub.lines.find((line) => "page" in line)?.["page"])
    const page = await open(link)
    await page.waitForSelector("h1:text-is('Overview')")
    expect(page.url()).toBe(`${hub.ops}/`)
    await page.click("nav >> text=Live tail")
    await follow(page)
    const seq = await following(page, "link.a")
    expect(page.url()).toBe(`${hub.ops}/#/live?pattern=**`)
    await publish("link.b", { order: 1 }, { key: "k", type: "created" })
    await page.locator("tbody tr", { hasText: "link.b" }).waitFor()
    expect((await rows(page)).slice(0, 2)).toEqual([
      ["link.b", "1", "k", '{"order":1}'],
      ["link.a", String(seq), "", '"here we go"']
    ])
    expect(await page.textContent("#state")).toBe("connected")
    expect(await page.textContent("#count")).toBe(`${await page.locator("tbody tr").count()} events`)
    expect(await page.locator("tbody td").first().textContent()).toMatch(/^\d\d:\d\d:\d\d\.\d{3}$/)
  })

  it("shows what is in an event as text, whatever it is", async () => {
    const page = await open(`${hub.ops}/#/live?token=${await hub.devToken()}`)
    const attack = `<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>`
    await publish("attack", { note: attack }, { key: attack, type: `"><b>${attack}`, headers: { h: attack } })
    await publish("attack", attack)
    await follow(page, { pattern: "attack", fromStart: true })
    await page.locator("tbody tr").nth(1).waitFor()
    expect(await rows(page)).toEqual([
      ["attack", "2", "", JSON.stringify(attack)],
      ["attack", "1", attack, JSON.stringify({ note: attack })]
    ])
    expect(await page.locator("tbody :is(img, script, b)").count()).toBe(0)
    expect(await page.evaluate("window.hacked")).toBeUndefined()
    // A pattern, and what the hub says of it, likewise.
    await follow(page, { pattern: `<img src=x onerror="window.hacked=true">*` })
    await page.locator("#message:not(:empty)").waitFor()
    expect(await page.locator("main img").count()).toBe(0)
    expect(await page.evaluate("window.hacked")).toBeUndefined()
  })

  it("follows what it is told to, from the start or from now on", async () => {
    const page = await open(`${hub.ops}/#/live?token=${await hub.devToken()}`)
    for (const topic of ["tail.a", "tail.b", "other.a"]) await publish(topic, "before")
    await follow(page, { pattern: "tail.*", fromStart: true })
    await page.locator("tbody tr").nth(1).waitFor()
    expect((await rows(page)).map(([topic]) => topic).sort()).toEqual(["tail.a", "tail.b"])
    await follow(page, { pattern: "tail.b" })
    await following(page, "tail.b")
    await publish("tail.a", "elsewhere")
    await publish("tail.b", "after")
    await page.locator("tbody tr", { hasText: "after" }).waitFor()
    const shown = await rows(page)
    expect(new Set(shown.map(([topic]) => topic))).toEqual(new Set(["tail.b"]))
    expect(shown.map(([, , , payload]) => payload)).not.toContain('"before"')
  })

  it("pauses: what comes meanwhile is shown when it goes on", async () => {
    const page = await open(`${hub.ops}/#/live?token=${await hub.devToken()}`)
    await follow(page, { pattern: "pause.*" })
    await following(page, "pause.a")
    const before = await page.locator("tbody tr").count()
    await page.click("#pause")
    await page.locator("#count", { hasText: "paused" }).waitFor()
    for (let i = 0; i < 5; i++) await publish("pause.b", i)
    await page.locator("#count", { hasText: `${before + 5} events, paused` }).waitFor()
    expect(await page.locator("tbody tr").count()).toBe(before)
    expect(await page.getAttribute("#pause", "aria-pressed")).toBe("true")
    await page.click("#pause")
    await page
      .locator("tbody tr")
      .nth(before + 4)
      .waitFor()
    expect((await rows(page)).slice(0, 5).map(([, , , payload]) => payload)).toEqual([
      "4",
      "3",
      "2",
      "1",
      "0"
    ])
  })

  it("stops, and shows nothing more", async () => {
    const page = await open(`${hub.ops}/#/live?token=${await hub.devToken()}`)
    await follow(page, { pattern: "stop.*" })
    await following(page, "stop.a")
    await page.click("#stop")
    const before = await rows(page)
    await publish("stop.a", "too late")
    await page.evaluate(
      "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
    )
    expect(await rows(page)).toEqual(before)
    expect(await page.isDisabled("#stop")).toBe(true)
    expect(await page.textContent("#message")).toBe("")
  })

  it("keeps the newest 200 of many events, cuts what is long, and counts them all", async () => {
    const page = await open(`${hub.ops}/#/live?token=${await hub.devToken()}`)
    await publish("many", "x".repeat(10_000))
    for (let i = 2; i <= 450; i++) publisher.send({ op: "PUBLISH", topic: "many", payload: i })
    await publisher.settled()
    await follow(page, { pattern: "many", fromStart: true })
    await page.locator("#count", { hasText: "450 events" }).waitFor()
    const shown = await rows(page)
    expect(shown.map(([, seq]) => Number(seq))).toEqual(Array.from({ length: 200 }, (_, i) => 450 - i))
    await publish("long", "x".repeat(10_000))
    await follow(page, { pattern: "long", fromStart: true })
    await page.locator("tbody tr").first().waitFor()
    expect((await rows(page))[0]?.[3]).toBe(`"${"x".repeat(1_999)}…`)
  })

  it("says what is wrong, and can be tried again", async () => {
    const page = await open(`${hub.ops}/#/live?pattern=bad*`)
    await page.fill("#token", "nonsense")
    await page.click("form button")
    await page.locator("#message", { hasText: "the token was refused" }).waitFor()
    expect(await page.textContent("#state")).toBe("not connected")
    await page.fill("#token", await hub.devToken())
    await page.keyboard.press("Enter")
    await page.waitForSelector("h1:text-is('Live tail')")
    await page.locator("#message", { hasText: "not a pattern" }).waitFor()
    expect(await page.textContent("#count")).toBe("No events yet.")
    await follow(page, { pattern: "again" })
    await following(page, "again")
    expect(await page.textContent("#message")).toBe("")
  })

  it("connects again after the hub died and came back, and goes on where it was", async () => {
    const { hub: current, start, url } = await returningHub()
    const token = await tokenFor({ scopes: everything })
    // Chromium itself tells of every connection that fails.
    const page = await open(`${current().ops}/#/live?token=${token}`, /^WebSocket connection to '\S+' failed/)
    const first = await RawClient.authenticated(url)
    await follow(page, { pattern: "life.*", fromStart: true })
    const seq = await following(page, "life.a", first)
    await current().kill()
    await page.locator("#state", { hasText: "connecting again" }).waitFor()
    await start()
    const second = await RawClient.authenticated(url)
    await publish("life.a", "while it was away", {}, second)
    await connected(page)
    await publish("life.a", "back", {}, second)
    await page.locator("tbody tr", { hasText: "back" }).waitFor()
    expect((await rows(page)).map((row) => Number(row[1]))).toEqual(
      Array.from({ length: seq + 2 }, (_, i) => seq + 2 - i)
    )
    await second.close()
  })
})
