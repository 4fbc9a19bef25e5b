/**
 * Pages of the dashboard in a browser: they must not complain, talk to nobody but their hub, and have nothing that
 * axe-core finds. What they look like is kept in test-output/dashboard.
 */
import { mkdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import axe from "axe-core"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import { expect, onTestFinished } from "vitest"

const pictures = fileURLToPath(new URL("../../test-output/dashboard/", import.meta.url))

/** A page of its own; closed, and asked for its complaints, when the test ends. */
export const openPage = async (
  browser: Browser,
  url: string,
  options: BrowserContextOptions & { readonly expected?: RegExp } = {}
): Promise<Page> => {
  const { expected = /^$/, ...more } = options
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...more })
  const page = await context.newPage()
  const complaints: Array<string> = []
  const hosts = new Set<string>()
  page.on("console", (message) => complaints.push(message.text()))
  page.on("pageerror", (error) => complaints.push(String(error)))
  page.on("request", (request) => hosts.add(new URL(request.url()).host))
  page.on("websocket", (socket) => hosts.add(new URL(socket.url()).hostname))
  onTestFinished(async () => {
    await context.close()
    expect(complaints.filter((complaint) => !expected.test(complaint))).toEqual([])
    // What is inline has no host.
    hosts.delete("")
    expect([...hosts].filter((host) => ![new URL(url).host, "127.0.0.1"].includes(host))).toEqual([])
  })
  await page.goto(url)
  return page
}

/** The view is there, with all that it loads first. */
export const settled = (page: Page) => page.waitForSelector("main:not([aria-busy]) h1")

export const goTo = async (page: Page, hash: string): Promise<void> => {
  await page.evaluate(`location.hash = ${JSON.stringify(hash)}`)
  await page.waitForFunction(`location.hash === ${JSON.stringify(hash)}`)
  await settled(page)
}

interface Violation {
  readonly id: string
  readonly nodes: ReadonlyArray<{ readonly html: string; readonly failureSummary?: string }>
}

/** WCAG 2.2 A and AA, and what axe-core calls good practice. */
export const expectAccessible = async (page: Page): Promise<void> => {
  await page.evaluate(axe.source)
  const { violations } = await page.evaluate<{ readonly violations: ReadonlyArray<Violation> }>(
    "axe.run(document, { resultTypes: ['violations'] })"
  )
  expect(
    violations.map(({ id, nodes }) => [
      id,
      ...nodes.map(({ failureSummary, html }) => `${html}: ${failureSummary}`)
    ])
  ).toEqual([])
}

export const keepPicture = async (page: Page, name: string): Promise<void> => {
  mkdirSync(pictures, { recursive: true })
  await page.screenshot({ path: `${pictures}${name}.png` })
}
