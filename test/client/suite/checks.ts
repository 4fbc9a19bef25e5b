/** What scenarios expect, in a few lines that a browser can load, and clients that they make. */
import { type ClientOptions, type ConnectionState, HubError } from "../../../src/client/index.ts"
import type { Setting } from "./Scenario.ts"

export const equal = (what: string, actual: unknown, expected: unknown): void => {
  const [got, wanted] = [actual, expected].map((value) => JSON.stringify(value))
  if (got !== wanted) throw new Error(`${what}: got ${got}, wanted ${wanted}`)
}

export const holds = (what: string, is: boolean): void => {
  if (!is) throw new Error(`it does not hold: ${what}`)
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A condition comes true, at some time. */
export const until = async (what: string, is: () => boolean): Promise<void> => {
  const end = performance.now() + 30_000
  while (!is()) {
    if (performance.now() > end) throw new Error(`it did not happen: ${what}`)
    await sleep(5)
  }
}

/** What a promise fails with. */
export const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => {
      throw new Error("it did not fail")
    },
    (error: unknown) => error
  )

/** The code of what it fails with. */
export const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  const error = await failure(promise)
  return error instanceof HubError ? error.code : String(error)
}

/** Something that is waited for until it is opened. */
export const gate = () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { passed: promise, open: resolve }
}

export const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

/** What all clients of scenarios have: they come back soon, and do not wait long for what fails. */
export const soon = ({ token, url }: Setting) => ({
  url,
  getToken: () => token(),
  reconnectBaseMs: 20,
  reconnectMaxMs: 200,
  closeTimeoutMs: 1_000
})

export const made = (setting: Setting, more: Partial<ClientOptions> = {}) =>
  setting.createClient({ ...soon(setting), ...more } as ClientOptions)

type States = {
  readonly on: (name: "state", listener: (state: ConnectionState) => void) => unknown
}

/** The states that it enters from here on. */
export const statesOf = (client: States): ReadonlyArray<ConnectionState> => {
  const states: Array<ConnectionState> = []
  client.on("state", (state) => states.push(state))
  return states
}

export const tagsOf = (states: ReadonlyArray<ConnectionState>): ReadonlyArray<string> =>
  states.map(({ _tag }) => _tag)

/** The platform's WebSocket, with what is sent by any, and the codes that they are closed with. */
export const recorded = () => {
  const codes: Array<number> = []
  const sent: Array<string> = []
  class Recorded extends WebSocket {
    constructor(url: string, protocols?: Array<string>) {
      super(url, protocols)
      this.addEventListener("close", ({ code }) => codes.push(code))
    }

    override send(data: string): void {
      sent.push(data)
      super.send(data)
    }
  }
  return { codes, sent, WebSocket: Recorded }
}
