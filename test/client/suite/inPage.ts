/** The scenarios in a browser: what the page loads. The test outside runs them by name, and plays the hub's keeper. */
import { createClient } from "../../../src/client/index.ts"
import type { TokenOptions } from "../../support/tokens.ts"
import type { Control } from "./Scenario.ts"
import { scenarios } from "./scenarios.ts"

/** What the test gives the page, and what it takes of it. */
interface Window {
  readonly keepHub: (what: keyof Control, about?: string | boolean) => Promise<void>
  readonly makeToken: (options?: TokenOptions) => Promise<string>
  runScenario?: (name: string, url: string) => Promise<void>
}

const page = globalThis as unknown as Window

page.runScenario = async (name, url) => {
  const scenario = scenarios.find((one) => one.name === name)
  if (!scenario) throw new Error(`there is no scenario '${name}'`)
  const { keepHub, makeToken } = page
  await scenario.run({
    createClient,
    url,
    token: (options) => makeToken(options),
    control: {
      kill: () => keepHub("kill"),
      stop: () => keepHub("stop"),
      start: () => keepHub("start"),
      revoke: (tokenId) => keepHub("revoke", tokenId),
      setOffline: (isOffline) => keepHub("setOffline", isOffline)
    }
  })
}
