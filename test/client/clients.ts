/** Clients of hubs under test, and what they were handed; they are closed when the test is over. */
import { onTestFinished, vi } from "vitest"
import { WebSocket } from "ws"
import {
  type PromClientOptions,
  PromClient,
  type TokenSource,
  type WebSocketConstructor,
  type WireEvent
} from "../../src/client/index.ts"
import { tokenFor } from "../support/tokens.ts"

/** Whatever a platform has for a WebSocket: the global one, and `ws`. */
export const platforms: ReadonlyArray<readonly [name: string, options: PromClientOptions]> = [
  ["the global WebSocket", {}],
  ["ws", { WebSocket: WebSocket satisfies WebSocketConstructor }]
]

export interface TestClient {
  readonly client: PromClient
  /** What `onError` was told. */
  readonly errors: ReadonlyArray<unknown>
}

export const makeClient = (
  url: string,
  options: PromClientOptions & { readonly token?: TokenSource } = {}
): TestClient => {
  const { token = () => tokenFor(), ...rest } = options
  const errors: Array<unknown> = []
  const client = new PromClient(url, token, {
    reconnectBaseMs: 20,
    reconnectMaxMs: 200,
    closeTimeoutMs: 100,
    onError: (error) => errors.push(error),
    ...rest
  })
  onTestFinished(() => client.close())
  return { client, errors }
}

/** A condition comes true, at some time. */
export const until = (what: string, is: () => boolean): Promise<void> =>
  vi.waitFor(
    () => {
      if (!is()) throw new Error(`it did not happen: ${what}`)
    },
    { timeout: 20_000, interval: 5 }
  )

/** A handler that remembers; `first(n)` waits for as many. */
export const collector = <T = unknown>() => {
  const events: Array<WireEvent<T>> = []
  return {
    events,
    handler: (event: WireEvent<T>): void => void events.push(event),
    payloads: () => events.map(({ payload }) => payload),
    first: async (n: number): Promise<ReadonlyArray<WireEvent<T>>> => {
      await until(`${n} events`, () => events.length >= n)
      return events.slice(0, n)
    }
  }
}

/** Something that is waited for until it is opened. */
export const gate = () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { passed: promise, open: resolve }
}
