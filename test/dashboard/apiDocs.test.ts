/** The page at /docs in a browser: every endpoint is there, can be read, tried, and heard by a screen reader. */
import { fileURLToPath } from "node:url"
import { build } from "esbuild"
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { endpoints } from "../layers/http/endpoints.ts"
import { ask } from "../layers/http/ops.ts"
import { hasChromium, launchChromium } from "../support/chromium.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { tokenFor } from "../support/tokens.ts"
import { expectAccessible, keepPicture, openPage } from "./browser.ts"

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub()
  const client = await RawClient.authenticated(hub.ws)
  await client.request({ op: "PUBLISH", topic: "orders.<b>eu", payload: 1 })
  await client.close()
})

afterAll(() => hub.stop())

it("loads nothing from elsewhere and runs nothing inline", async () => {
  const { headers, status, text, type } = await ask(hub, "/docs")
  expect([status, type]).toEqual([200, "text/html; charset=utf-8"])
  expect(headers.get("content-security-policy")).toMatch(
    /^default-src 'none'; script-src 'self'; .*connect-src 'self';/
  )
  expect(text).not.toMatch(/<script(?![^>]* src=)|<style|\son\w+=|style=|https?:/)
})

it("is 20 kB at most, as a built package serves it", async () => {
  const file = (name: string) =>
    fileURLToPath(new URL(`../../src/dashboard/apiDocs.${name}`, import.meta.url))
  const { outputFiles } = await build({
    entryPoints: ["ts", "css", "html"].map(file),
    loader: { ".html": "copy" },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2024",
    write: false,
    outdir: "out"
  })
  expect(outputFiles).toHaveLength(3)
  expect(outputFiles.reduce((sum, { contents }) => sum + contents.length, 0)).toBeLessThan(20_000)
})

describe.runIf(hasChromium("/docs is"))("in a browser", () => {
  let browser: Browser

  beforeAll(async () => {
    browser = await launchChromium()
  })

  afterAll(() => browser?.close())

  const open = async (): Promise<Page> => {
    const page = await openPage(browser, `${hub.ops}/docs`)
    await page.locator("#state", { hasText: "endpoints" }).waitFor()
    return page
  }

  it("has every endpoint, and finds those that are looked for", async () => {
    const page = await open()
    const shown = await page.locator("summary code").allTextContents()
    for (const { method, path } of endpoints) {
      expect(shown).toContain(`${method} ${path.replace(/:(\w+)/g, "{$1}")}`)
    }
    await page.fill("#find", "longest blocked")
    expect(await page.locator("#state").textContent()).toBe(`1 of ${endpoints.length} endpoints`)
  })

  it("tries an endpoint with a token, and shows the same as a command", async () => {
    const page = await open()
    await page.fill("#token", await tokenFor())
    const one = page.locator("details", { hasText: "GET /topics" }).first()
    await one.locator("summary").click()
    await one.getByLabel("pattern").fill("orders.*")
    expect(await one.locator("form pre").first().textContent()).toBe(
      `curl -H "Authorization: Bearer $HUB_TOKEN" '${hub.ops}/topics?pattern=orders.*'`
    )
    await one.getByRole("button", { name: "Send" }).click()
    const answer = one.locator("form pre[role=status]")
    await expect.poll(() => answer.textContent()).toMatch(/^200 OK\s+\{[^]*"topic": "orders.<b>eu"/)
    const post = page.locator("details", { hasText: "POST /groups/{group}/seek" }).first()
    await post.locator("summary").click()
    await post.getByLabel("group (required)").fill("it's")
    await post.getByLabel("Body, application/json").fill('{ "to": "end" }')
    expect(await post.locator("form pre").first().textContent()).toBe(
      `curl -X POST -H "Authorization: Bearer $HUB_TOKEN" -H 'Content-Type: application/json' -d '{ "to": "end" }' '${hub.ops}/groups/it'\\''s/seek'`
    )
  })

  it.each(["light", "dark"] as const)("can be read and heard: %s", async (scheme) => {
    const page = await open()
    await page.emulateMedia({ colorScheme: scheme })
    for (const name of ["POST /groups/{group}/seek", "GET /cursors", "GET /metrics"]) {
      await page.locator("summary", { hasText: name }).first().click()
    }
    await expectAccessible(page)
    await keepPicture(page, `api-docs-${scheme}`)
  })
})
