/** The views of the dashboard over a hub with something in each: what they show, and what can be done from them. */
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { hasChromium, launchChromium } from "../support/chromium.ts"
import { RawClient } from "../support/RawClient.ts"
import { returningHub } from "../support/ReturningHub.ts"
import { everything, tokenFor } from "../support/tokens.ts"
import { expectAccessible, goTo, keepPicture, openPage, settled } from "./browser.ts"
import { operatorScopes, type Scene, startScene } from "./scene.ts"

/** Pushes come once a second. */
const patience = { timeout: 15_000 }

describe.runIf(hasChromium("the views of the dashboard are"))("the dashboard", () => {
  let browser: Browser
  let scene: Scene

  beforeAll(async () => {
    browser = await launchChromium()
    scene = await startScene()
  })

  afterAll(async () => {
    await browser?.close()
    await scene?.stop()
  })

  const signedIn = async (hash = "#/", options: object = {}): Promise<Page> => {
    const sign = hash.includes("?") ? "&" : "?"
    const page = await openPage(browser, `${scene.hub.ops}/${hash}${sign}token=${scene.operator}`, options)
    await page.waitForSelector("#nav:not([hidden])")
    await settled(page)
    return page
  }

  const ask = async (path: string): Promise<unknown> => {
    const answer = await fetch(scene.hub.ops + path, {
      headers: { authorization: `Bearer ${scene.operator}` }
    })
    expect([path, answer.status]).toEqual([path, 200])
    return answer.json()
  }

  /** The cells of a table's row. */
  const row = (page: Page, text: string) => page.locator("main tbody tr", { hasText: text }).first()

  /** What the dialog says that it would do, and the name of the button that does it. */
  const outlook = async (page: Page): Promise<readonly [says: string, does: string]> => {
    await page.waitForSelector("dialog #confirm")
    return [
      (await page.textContent("dialog .outlook")) ?? "",
      (await page.textContent("dialog #confirm")) ?? ""
    ]
  }

  const confirm = async (page: Page, done: RegExp) => {
    await page.fill("#reason", "a test")
    await page.click("dialog #confirm")
    await page.locator("dialog").waitFor({ state: "detached" })
    expect(await page.locator("#notes p").last().textContent()).toMatch(done)
    await settled(page)
  }

  /** What was done is in the hub's log, with who and why. */
  const logged = async (msg: string): Promise<void> => {
    await expect
      .poll(() => scene.hub.lines.findLast((line) => line.msg === msg), patience)
      .toMatchObject({ sub: "olga", reason: "a test" })
  }

  const places: ReadonlyArray<readonly [name: string, hash: string]> = [
    ["overview", "#/"],
    ["topics", "#/topics"],
    ["topic", "#/topics/orders.eu.created"],
    ["groups", "#/groups"],
    ["group", "#/groups/mailer"],
    ["group-topic", "#/groups/mailer/orders.eu.created"],
    ["dead-letters", "#/dead-letters"],
    ["dead-letters-inside", "#/dead-letters/mailer/orders.eu.created"],
    ["outbox", "#/outbox"],
    ["outbox-dead", "#/outbox/hub?state=dead"],
    ["live", "#/live?pattern=orders.**&from=start"],
    ["latest", "#/latest?topic=users.changed"],
    ["connections", "#/connections"],
    ["policy", "#/policy?action=subscribe&topic=orders.**"],
    ["nothing", "#/nothing"]
  ]

  it.each([
    ["light", { colorScheme: "light" }],
    ["dark", { colorScheme: "dark" }],
    ["narrow", { colorScheme: "light", viewport: { width: 390, height: 844 } }]
  ] as const)("keeps nobody out, and is kept in pictures: %s", async (look, options) => {
    const page = await signedIn("#/", options)
    await scene.stopReading()
    for (const [name, hash] of places) {
      await goTo(page, hash)
      if (name === "overview") {
        // The charts have something to draw.
        const line = page.locator(".chart .line").first()
        for (let i = 0; i < 6; i++) {
          const before = await line.getAttribute("d")
          for (let n = 0; n < 40 * (1 + (i % 3)); n++) await scene.publish("orders.us.created", { n })
          await expect.poll(() => line.getAttribute("d"), patience).not.toBe(before)
        }
        await page.locator(".needs", { hasText: "3 outbox records were given up" }).waitFor()
      }
      if (name === "dead-letters-inside") await page.locator("details summary").first().click()
      await keepPicture(page, `${name}-${look}`)
      await expectAccessible(page)
      // A list that is too wide moves in itself, and not the page.
      expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true)
    }
    await goTo(page, "#/groups/mailer")
    await page.click("#seek")
    await page.selectOption("#seek-to", "end")
    await page.click("dialog button[type=submit]")
    await outlook(page)
    await keepPicture(page, `seek-${look}`)
    await expectAccessible(page)
    const fits =
      "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.querySelector('dialog'))"
    expect(await page.evaluate(fits)).toBe(true)
    await page.keyboard.press("Escape")
    await page.click("text=Sign out")
    await page.waitForSelector("#token")
    await keepPicture(page, `sign-in-${look}`)
    await expectAccessible(page)
  })

  it("overview: rates, who is furthest behind and what grows, as they change", async () => {
    const page = await signedIn()
    await page
      .locator(".chart", { hasText: "Appended events" })
      .locator(".line[d^='M']")
      .waitFor({ state: "attached" })
    await row(page, "reports").waitFor()
    await scene.publish("orders.eu.returned", {})
    // The group takes that topic, too; nobody asked for it again.
    await page.locator("main tbody tr", { hasText: "orders.eu.returned" }).first().waitFor()
    await page.locator(".chart svg[aria-label*='now']").first().waitFor()
    expect(await page.getAttribute(".chart svg", "aria-label")).toMatch(
      /^Appended events, last \d+ \w+: now .+, highest /
    )
  })

  it("topics: by pattern, page by page, with what they are doing now", async () => {
    const page = await signedIn("#/topics")
    await page.fill("#pattern", "orders.**")
    await page.click("main form button")
    await page.waitForFunction("location.hash === '#/topics?pattern=orders.**'")
    await settled(page)
    expect(await page.locator("main tbody tr").count()).toBeGreaterThanOrEqual(2)
    expect(await row(page, "billing").count()).toBe(0)
    const before = await row(page, "orders.eu.created").locator("td").nth(2).textContent()
    await scene.publish("orders.eu.created", { live: true })
    await expect
      .poll(() => row(page, "orders.eu.created").locator("td").nth(2).textContent(), patience)
      .not.toBe(before)
    await page.click("text=orders.eu.created")
    await page.waitForSelector("h1:text-is('orders.eu.created')")
    await settled(page)
    expect(await page.evaluate("document.activeElement.tagName")).toBe("H1")
    expect(await page.title()).toBe("orders.eu.created · event-hub")
    await row(page, "mailer").waitFor()
    await scene.publish("orders.eu.created", { live: "<img src=x>" })
    await page.click("#newer")
    await page.locator("summary", { hasText: '{"live":"<img src=x>"}' }).waitFor()
    await page.goBack()
    await page.waitForSelector("h1:text-is('Topics')")
    expect(await page.inputValue("#pattern")).toBe("orders.**")
  })

  it("topics: many of them come page by page, and back again", async () => {
    for (let i = 0; i < 60; i++) await scene.publish(`paged.t${String(i).padStart(2, "0")}`, i)
    const page = await signedIn("#/topics?pattern=paged.*")
    expect(await page.locator("main tbody tr").count()).toBe(50)
    await page.click("text=Next page")
    await row(page, "paged.t59").waitFor()
    expect(await page.locator("main tbody tr").count()).toBe(10)
    await page.click("text=First page")
    await row(page, "paged.t00").waitFor()
  })

  it("groups: paused and resumed, with the reason", async () => {
    const page = await signedIn("#/groups")
    await page.click("text=audit")
    await page.waitForSelector("h1:text-is('audit')")
    await page.click("#pause")
    expect(await outlook(page)).toEqual(["", "Resume audit"])
    await confirm(page, /audit is resumed/)
    await logged("group resumed")
    await page.click("#pause")
    expect((await outlook(page))[1]).toBe("Pause audit")
    await confirm(page, /audit is paused/)
    await logged("group paused")
    await page.locator(".badge", { hasText: "paused" }).waitFor()
    // Whoever works by keyboard is still where it was.
    expect(await page.evaluate("document.activeElement.id")).toBe("pause")
  })

  it("groups: sought, after it was said what that means; nothing happens before", async () => {
    const page = await signedIn("#/groups/reports", {
      expected: /^Failed to load resource: .* 400 \(Bad Request\)$/
    })
    await page.click("#seek")
    await page.selectOption("#seek-to", "end")
    await page.fill("#seek-topic", "billing.**")
    expect(await page.locator("#confirm").count()).toBe(0)
    await page.click("dialog button[type=submit]")
    const [says, does] = await outlook(page)
    expect(says).toContain(
      "1 topic would move. 0 acknowledged events would come again, 45 events would never come."
    )
    expect(does).toBe("Seek reports: 0 again, 45 skipped")
    expect(await ask("/lag?topic=billing.invoices&group=reports")).toMatchObject({ pending: 45 })
    // Another choice is another question.
    await page.selectOption("#seek-to", "start")
    expect(await page.locator("#confirm").count()).toBe(0)
    await page.click("dialog button[type=submit]")
    await page.locator("dialog .outlook", { hasText: "Nothing would change" }).waitFor()
    await page.selectOption("#seek-to", "seq")
    await page.fill("#seek-topic", "billing.invoices")
    await page.fill("#seek-seq", "40")
    await page.click("dialog button[type=submit]")
    expect((await outlook(page))[1]).toBe("Seek reports: 0 again, 40 skipped")
    await confirm(page, /reports was sought/)
    await logged("group seek")
    expect(await ask("/lag?topic=billing.invoices&group=reports")).toMatchObject({ pending: 5 })
    expect(await row(page, "billing.invoices").locator("td").nth(1).textContent()).toBe("5")
    await page.click("#seek")
    await page.selectOption("#seek-to", "time")
    await page.click("dialog button[type=submit]")
    await page.locator("dialog .trouble", { hasText: "Choose a time" }).waitFor()
    await page.fill("#seek-topic", "bad*")
    await page.selectOption("#seek-to", "start")
    await page.click("dialog button[type=submit]")
    await page.locator("dialog .trouble", { hasText: /not a pattern|'bad\*'/ }).waitFor()
    await page.keyboard.press("Escape")
    expect(await page.locator("dialog").count()).toBe(0)
    expect(await page.evaluate("document.activeElement.id")).toBe("seek")
  }, 60_000)

  it("groups: why it is behind, and a blocked key that is given up", async () => {
    const page = await signedIn("#/groups/mailer/orders.eu.created")
    await page.locator(".needs", { hasText: "1 key waits for an event that failed" }).waitFor()
    await row(page, "SMTP 451: try again later").waitFor()
    await page.click("text=Give up")
    expect(await outlook(page)).toEqual([
      expect.stringMatching(/^This is about event 1; \d+ events wait behind it\.$/),
      "Give up: event 1 of key customer-1"
    ])
    await confirm(page, /Event 1 of key customer-1 went to the dead letters/)
    await logged("group key released")
    await expect.poll(() => page.locator("text=SMTP 451").count(), patience).toBe(0)
  })

  it("groups: removed, after it was said what is forgotten", async () => {
    const guest = await RawClient.authenticated(scene.hub.ws)
    await guest.request({ op: "SUBSCRIBE", topic: "users.*", group: "guest", opts: { from: "start" } })
    await guest.events(1)
    await guest.close()
    const page = await signedIn("#/groups/guest")
    await page.click("#remove")
    const [says, does] = await outlook(page)
    expect([says, does]).toEqual([
      expect.stringContaining("Its positions on 1 topic would be forgotten"),
      "Remove guest"
    ])
    await confirm(page, /guest was removed/)
    await logged("group removed")
    await page.waitForSelector("h1:text-is('Groups')")
    await row(page, "mailer").waitFor()
    expect(await row(page, "guest").count()).toBe(0)
  })

  it("dead letters: looked into, and brought back: one, those chosen, all", async () => {
    const page = await signedIn("#/dead-letters")
    await row(page, "mailer").getByRole("link").click()
    await page.waitForSelector("h1:text-is('Dead letters of mailer')")
    await settled(page)
    const letter = row(page, "'welcome' is missing")
    expect(await letter.textContent()).toContain("<b>template</b>")
    await letter.locator("summary").click()
    await letter.locator("pre", { hasText: '"customer": "customer-3"' }).waitFor()
    await letter.getByRole("button").click()
    expect(await outlook(page)).toEqual([
      "1 dead letter would come back into mailer.",
      "Redrive 1 dead letter into mailer"
    ])
    await confirm(page, /1 dead letter comes back/)
    await logged("dead letters redriven")
    await page.fill("#reason-part", "e-mail")
    await page.click("text=Filter")
    await page.waitForFunction("location.hash.includes('reason=e-mail')")
    await settled(page)
    expect(await page.locator("main tbody tr").count()).toBe(2)
    await page.locator("main tbody input").first().check()
    await page.click("#redrive-chosen")
    expect((await outlook(page))[1]).toBe("Redrive 1 dead letter into mailer")
    await confirm(page, /1 dead letter comes back/)
    await page.click("#redrive-all")
    expect((await outlook(page))[1]).toBe("Redrive 1 dead letter into mailer")
    await confirm(page, /1 dead letter comes back/)
    await page.click("#redrive-all")
    await page.locator("dialog .outlook", { hasText: "Nothing would happen" }).waitFor()
  })

  it("outbox: why records are dead, and what is done about it", async () => {
    const page = await signedIn("#/outbox")
    await page.getByRole("link", { name: "3 dead records" }).click()
    await page.waitForSelector("h1:text-is('Outbox hub')")
    await settled(page)
    expect(await row(page, "shop.refunds").textContent()).toContain(
      "the log did not take it: <i>unavailable</i>"
    )
    await row(page, "shop.refunds").getByRole("button").click()
    expect(await outlook(page)).toEqual(["This is about 1 record.", "Redrive 1 record of hub"])
    await confirm(page, /Redrive 1 record of hub: done/)
    await expect.poll(() => page.locator("main tbody tr").count(), patience).toBe(2)
    await page.click("#redrive-all")
    expect((await outlook(page))[1]).toBe("Redrive 2 records of hub")
    await confirm(page, /Redrive 2 records of hub: done/)
    await page.locator(".empty", { hasText: "There are none in this state" }).waitFor()
    await page.click("#state-pending")
    await row(page, "shop.reminders").waitFor()

    await page.click("text=All outboxes")
    await page.getByRole("button", { name: "Pause hub" }).click()
    await outlook(page)
    await confirm(page, /Outbox hub is paused/)
    await page.locator(".badge", { hasText: "paused" }).waitFor()
    await page.getByRole("button", { name: "Resume hub" }).click()
    await outlook(page)
    await confirm(page, /Outbox hub is resumed/)
    await page.getByRole("button", { name: "Purge sent records of hub" }).click()
    await page.fill("#purge-hours", "0")
    await page.click("dialog button[type=submit]")
    expect((await outlook(page))[1]).toMatch(/^Delete 1\d sent records of hub$/)
    await confirm(page, /Delete 1\d sent records of hub: done/)
    for (const line of ["outbox records redriven", "outbox paused", "outbox resumed", "outbox purged"])
      await logged(line)
  })

  it("latest by key: each key with its last event, as it changes", async () => {
    const page = await signedIn("#/latest?topic=users.changed")
    expect(await row(page, "ada").textContent()).toContain("Paris")
    await scene.publish("users.changed", { city: "Rome" }, { key: "ada" })
    await page.locator("summary", { hasText: "Rome" }).waitFor()
    await scene.publish("users.changed", null, { key: "grace" })
    await expect.poll(() => row(page, "grace").count(), patience).toBe(0)
    await scene.publish("users.changed", { city: "Oslo" }, { key: "linus" })
    await row(page, "linus").waitFor()
    await page.fill("#key", "nobody")
    await page.click("main form button")
    await page.locator(".empty", { hasText: "no event with this key" }).waitFor()
  })

  it("connections: who does not read comes first", async () => {
    await scene.stopReading()
    const page = await signedIn("#/connections")
    const first = page.locator("main tbody tr").first()
    expect(await first.locator("td").first().textContent()).toBe("report-viewer")
    expect(await first.locator("td").nth(1).textContent()).toMatch(/^\d[\d.]* MB$/)
    const guest = await RawClient.authenticated(scene.hub.ws, { sub: "somebody-new" })
    await row(page, "somebody-new").waitFor()
    await guest.close()
    await expect.poll(() => row(page, "somebody-new").count(), patience).toBe(0)
  })

  it("policy: which rule decides, of the token and of a text", async () => {
    const page = await signedIn("#/policy")
    await page.fill("#topic", "$secret.a")
    await page.click("text=Explain")
    await page.locator("#result", { hasText: "not allowed" }).waitFor()
    await page.click("summary")
    await page.fill("#policy", "deny subscribe orders.secret\nallow subscribe orders.*")
    await page.fill("#topic", "orders.a")
    await page.click("text=Explain")
    await page.locator("#result li.good", { hasText: "allow subscribe orders.*" }).waitFor()
    await page.fill("#policy", "")
    await page.fill("#topic", "")
  })

  it("a token with few rights sees what it may, is told what is missing, and nothing fails", async () => {
    const token = await tokenFor({ sub: "eve", scopes: ["subscribe:orders.eu.**"] })
    const page = await openPage(browser, `${scene.hub.ops}/#token=${token}`)
    await page.waitForSelector("#nav:not([hidden])")
    await settled(page)
    await page.locator("main", { hasText: "subscribe:$hub.stats" }).waitFor()
    expect(await page.locator("nav a").allTextContents()).not.toContain("Outbox")
    expect(await page.locator("nav a").allTextContents()).not.toContain("Connections")
    await keepPicture(page, "reader-overview")
    const seen: Array<string> = []
    for (const [, hash] of places) {
      await goTo(page, hash)
      if (hash.startsWith("#/live")) continue
      await expectAccessible(page)
      seen.push((await page.textContent("main")) ?? "")
    }
    for (const text of seen)
      expect(text).not.toMatch(/billing|users\.changed\b.*Ada|shop\.|flood|report-viewer/)
    await goTo(page, "#/groups/mailer/orders.eu.created")
    await page.locator("main", { hasText: "admin:orders.eu.created" }).waitFor()
    expect(await page.locator("#seek").count()).toBe(0)
    await goTo(page, "#/outbox")
    await page.locator("main", { hasText: "admin:**" }).waitFor()
    await goTo(page, "#/latest?topic=billing.invoices")
    await page.locator("main", { hasText: "subscribe:billing.invoices" }).waitFor()
  })

  it("asks for another token when this one ends, and stays where it is", async () => {
    const token = await tokenFor({ sub: "brief", scopes: everything, expiresIn: 3 })
    const page = await openPage(browser, `${scene.hub.ops}/#/topics?token=${token}`)
    await page.waitForSelector("h1:text-is('Topics')")
    await page.locator("#message", { hasText: /token/ }).waitFor()
    expect(await page.textContent("h1")).toBe("Sign in")
    // The place is kept.
    await page.fill("#token", scene.operator)
    await page.keyboard.press("Enter")
    await page.waitForSelector("h1:text-is('Topics')")
    expect(await page.evaluate("document.activeElement.textContent")).toBe("Topics")
  })

  it("goes on with the figures of a hub that died and came back", async () => {
    const { hub, start } = await returningHub()
    const token = await tokenFor({ scopes: operatorScopes })
    // Chromium itself tells of every connection that fails.
    const page = await openPage(browser, `${hub().ops}/#token=${token}`, {
      expected:
        /^(?:WebSocket connection to '\S+' failed|Failed to load resource: net::ERR_CONNECTION_REFUSED)/
    })
    const id = page.locator(".head code")
    await id.waitFor()
    const before = await id.getAttribute("title")
    await hub().kill()
    await page.waitForSelector('#state[data-state="waiting"]')
    await start()
    await page.waitForSelector('#state[data-state="ready"]')
    await expect.poll(() => id.getAttribute("title"), patience).not.toBe(before)
  })

  it("by the keyboard alone: past the navigation, and into a view", async () => {
    const page = await signedIn()
    await page.keyboard.press("Tab")
    expect(await page.evaluate("document.activeElement.id")).toBe("skip")
    await page.keyboard.press("Enter")
    expect(await page.evaluate("document.activeElement.id")).toBe("view")
    expect(page.url()).toBe(`${scene.hub.ops}/#/`)
    await page.focus("nav a >> nth=2")
    await page.keyboard.press("Enter")
    await page.waitForSelector("h1:text-is('Groups')")
    expect(await page.evaluate("document.activeElement.textContent")).toBe("Groups")
    expect(await page.getAttribute("nav a >> nth=2", "aria-current")).toBe("page")
  })

  it("tells in words when the hub does not answer, and the token is nowhere", async () => {
    const page = await signedIn("#/groups", { expected: /^Failed to load resource: net::ERR_FAILED$/ })
    expect(
      await page.evaluate("location.href + JSON.stringify([sessionStorage, localStorage]) + document.cookie")
    ).not.toContain(scene.operator)
    await page.route("**/topics*", (route) => route.abort())
    await goTo(page, "#/topics")
    await page.locator("[role=alert]", { hasText: "The hub does not answer" }).waitFor()
  })
})
