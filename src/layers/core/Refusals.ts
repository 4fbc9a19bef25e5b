/** Refused tokens by the address that they came from, and never of more than so many addresses. */
import * as AuthDelay from "../../domain/AuthDelay.ts"
import type { GatewaySettings } from "../../domain/Settings.ts"

export class Refusals {
  readonly #settings: GatewaySettings
  /** The one that was refused longest ago first. */
  readonly #addresses = new Map<string, AuthDelay.Refusals>()

  constructor(settings: GatewaySettings) {
    this.#settings = settings
  }

  /** Counts one more, and says how long the answer to it waits. */
  delayMs(address: string, now: number): number {
    const origin = AuthDelay.originOf(address)
    const refusals = AuthDelay.refuse(this.#addresses.get(origin), now)
    this.#addresses.delete(origin)
    this.#addresses.set(origin, refusals)
    if (this.#addresses.size > this.#settings.maxAuthAddresses) {
      for (const oldest of this.#addresses.keys()) {
        this.#addresses.delete(oldest)
        break
      }
    }
    return AuthDelay.delayMs(refusals, this.#settings)
  }
}
