/**
 * One suite for the client, in Node and in a browser, against hubs that are started, killed and stopped.
 *
 * The scenarios are in `suite/`. The browser gets them as a bundle, shows how they ended, and a picture of that is
 * left in test-output/client.
 */
import { mkdirSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"
import type { Browser, BrowserContext, Page } from "playwright-core"
import { afterAll, beforeAll, describe, it, onTestFinished } from "vitest"
import { createClient } from "../../src/client/index.ts"
import { hasChromium, launchChromium } from "../support/chromium.ts"
import { type EmbeddedHub, startEmbeddedHub } from "../support/EmbeddedHub.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { returningHub } from "../support/ReturningHub.ts"
import { tokenFor, type TokenOptions } from "../support/tokens.ts"
import type { Control, Scenario } from "./suite/Scenario.ts"
import { scenarios } from "./suite/scenarios.ts"

type Env = Readonly<Record<string, string>>

interface Kept {
  readonly url: string
  readonly control: Omit<Control, "setOffline">
}

const refuse = (): Promise<never> => Promise.reject(new Error("the scenario has no hub for this"))

const nothing = { kill: refuse, stop: refuse, start: refuse, revoke: refuse }

/** The hub that a scenario wants, until its test is over. */
const keep = async ({ hub }: Scenario, shared: () => HubProcess, env: Env): Promise<Kept> => {
  if (hub === undefined) return { url: shared().ws, control: nothing }
  if (hub === "revocable") {
    const embedded: EmbeddedHub = await startEmbeddedHub(env)
    onTestFinished(() => embedded.stop())
    const revoke = async (tokenId: string) =>
      void (await embedded.run(embedded.revocations.revoke({ _tag: "Token", tokenId })))
    return { url: embedded.ws, control: { ...nothing, revoke } }
  }
  const returning = await returningHub({ ...env, ...hub })
  const control = {
    kill: async () => void (await returning.hub().kill()),
    stop: async () => void (await returning.hub().stop()),
    start: async () => void (await returning.start()),
    revoke: refuse
  }
  return { url: returning.url, control }
}

/** A hub for the scenarios that leave it as it is. */
const sharedHub = (env: () => Env): (() => HubProcess) => {
  let hub: HubProcess | undefined
  beforeAll(async () => {
    hub = await startHub(env())
  })
  afterAll(() => hub?.stop())
  return () => hub!
}

describe("in Node", () => {
  const shared = sharedHub(() => ({}))
  const inNode = scenarios.filter(({ isForPages }) => isForPages !== true)
  it.each(inNode.map((scenario) => [scenario.name, scenario] as const))("%s", async (_name, scenario) => {
    const { control, url } = await keep(scenario, shared, {})
    const setOffline = refuse
    await scenario.run({ createClient, url, token: tokenFor, control: { ...control, setOffline } })
  })
})

// --- in a browser ----------------------------------------------------------------------------------------------

const html = `<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>event-hub/client</title>
<style>
  body { font: 15px/1.6 system-ui, sans-serif; margin: 2rem; max-width: 60rem }
  li { list-style: none } li::before { display: inline-block; width: 1.5em }
  .passed::before { content: "✓"; color: #070 } .failed::before { content: "✗"; color: #b00 } .failed { color: #b00 }
</style>
<h1>event-hub/client</h1>
<p id="browser"></p>
<ul id="results"></ul>
<script>document.getElementById("browser").textContent = navigator.userAgent</script>
<script type="module" src="/suite.js"></script>
`

/** A page with the scenarios; gives its address. */
const serve = async (): Promise<{ readonly server: Server; readonly origin: string }> => {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("suite/inPage.ts", import.meta.url))],
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false
  })
  const [{ text }] = outputFiles as [(typeof outputFiles)[number]]
  const server = createServer(({ url }, response) => {
    const isScript = url === "/suite.js"
    response.setHeader(
      "Content-Type",
      isScript ? "text/javascript; charset=utf-8" : "text/html; charset=utf-8"
    )
    response.end(isScript ? text : html)
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return { server, origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

const pictures = fileURLToPath(new URL("../../test-output/client/", import.meta.url))

describe.runIf(hasChromium("the client is"))("in Chromium", () => {
  let server: Server | undefined
  let browser: Browser | undefined
  let context: BrowserContext
  let page: Page
  /** Of the page, and nobody else's: hubs let in who comes from it. */
  let env: Env
  /** Of the scenario that runs. */
  let control: Control

  beforeAll(async () => {
    const served = await serve()
    server = served.server
    env = { HUB_ORIGINS: served.origin }
    browser = await launchChromium()
    context = await browser.newContext({ viewport: { width: 900, height: 700 } })
    page = await context.newPage()
    const keepHub = (what: keyof Control, about?: string | boolean) =>
      (control[what] as (about?: string | boolean) => Promise<void>)(about)
    await page.exposeFunction("keepHub", keepHub)
    await page.exposeFunction("makeToken", (options?: TokenOptions) => tokenFor(options))
    await page.goto(served.origin)
  })
  const shared = sharedHub(() => env)

  afterAll(async () => {
    mkdirSync(pictures, { recursive: true })
    await page?.screenshot({ path: `${pictures}suite.png`, fullPage: true })
    await browser?.close()
    server?.close()
    server?.closeAllConnections()
  })

  const show = (name: string, outcome: "passed" | "failed", ms: number) =>
    page.evaluate(
      `{
        const line = document.createElement("li")
        line.className = ${JSON.stringify(outcome)}
        line.textContent = ${JSON.stringify(`${name} (${Math.round(ms)} ms)`)}
        document.getElementById("results").append(line)
      }`
    )

  it.each(scenarios.map((scenario) => [scenario.name, scenario] as const))("%s", async (name, scenario) => {
    const { control: kept, url } = await keep(scenario, shared, env)
    control = { ...kept, setOffline: (isOffline) => context.setOffline(isOffline) }
    const begin = performance.now()
    try {
      await page.evaluate(`runScenario(${JSON.stringify(name)}, ${JSON.stringify(url)})`)
      await show(name, "passed", performance.now() - begin)
    } catch (error) {
      await context.setOffline(false)
      await show(name, "failed", performance.now() - begin)
      throw error
    }
  })
})
