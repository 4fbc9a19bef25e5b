/**
 * What the client has to do wherever it runs, as plain functions: Node calls them, and a browser gets them as a bundle.
 *
 * A scenario knows no test library and nothing of Node. What it needs of the world outside is in `Setting`.
 */
import type { createClient } from "../../../src/client/index.ts"
import type { TokenOptions } from "../../support/tokens.ts"

/** The hub of a scenario, from outside. */
export interface Control {
  /** SIGKILL: no code of the hub runs any more. */
  readonly kill: () => Promise<void>
  /** SIGTERM; ends when the hub has. */
  readonly stop: () => Promise<void>
  /** The same store behind the same address. */
  readonly start: () => Promise<void>
  /** A token, by its `jti`. */
  readonly revoke: (tokenId: string) => Promise<void>
  /** Takes the network from the browser, or gives it back. */
  readonly setOffline: (isOffline: boolean) => Promise<void>
}

export interface Setting {
  readonly createClient: typeof createClient
  /** Of the hub; it stays when the hub goes and comes back. */
  readonly url: string
  readonly token: (options?: TokenOptions) => Promise<string>
  readonly control: Control
}

export interface Scenario {
  readonly name: string
  /**
   * Settings of a hub of its own, which it may end; without them it is one of many on a hub. A `revocable` one is in
   * the process of the test, since a hub of its own takes revocations from nobody.
   */
  readonly hub?: Readonly<Record<string, string>> | "revocable"
  /** It is about what only browsers have. */
  readonly isForPages?: boolean
  readonly run: (setting: Setting) => Promise<void>
}
