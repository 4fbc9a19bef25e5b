/** What the conformance tests share: a hub per file, clients that end with it, and names that nobody else uses. */
import { afterAll, beforeAll, expect } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { type ConnectOptions, type Message, RawClient } from "../../support/RawClient.ts"
import { type TokenOptions } from "../../support/tokens.ts"

export interface TestHub {
  readonly url: string
  readonly process: HubProcess
  /** Connected, without AUTH. */
  readonly connect: (options?: ConnectOptions) => Promise<RawClient>
  /** Connected, with AUTH answered by OK. */
  readonly client: (token?: TokenOptions, options?: ConnectOptions) => Promise<RawClient>
}

/** A hub for the tests of the file, or of the `describe` that it is called in. */
export const useHub = (env: Readonly<Record<string, string>> = {}): TestHub => {
  let hub: HubProcess | undefined
  const running = (): HubProcess => {
    if (hub === undefined) throw new Error("the hub is not started yet")
    return hub
  }
  beforeAll(async () => {
    hub = await startHub(env)
  })
  afterAll(async () => {
    await hub?.kill()
  })
  return {
    get url() {
      return running().ws
    },
    get process() {
      return running()
    },
    connect: (options) => RawClient.connect(running().ws, options),
    client: (token, options) => RawClient.authenticated(running().ws, token, options)
  }
}

/** As the first clients connect: they offer no subprotocol. */
export const legacy: ConnectOptions = { protocols: [] }

let names = 0

/** A topic, or the first segment of some, that no other test of the file uses. */
export const fresh = (name = "topic"): string => `${name}-${++names}`

/** Sends a request that has to be answered by OK. */
export const ok = async (client: RawClient, message: Readonly<Record<string, unknown>>): Promise<Message> => {
  const answer = await client.request(message)
  expect(answer).toMatchObject({ op: "OK" })
  return answer
}

/** Sends a request that has to be refused, and answers with the ERR. */
export const refused = async (
  client: RawClient,
  message: Readonly<Record<string, unknown>>,
  code: string
): Promise<Message> => {
  const answer = await client.request(message)
  expect(answer).toMatchObject({ op: "ERR", code, msg: expect.any(String), retryable: expect.any(Boolean) })
  return answer
}

/** Publishes so many events, each when the one before is stored; their payloads count from 1. */
export const publish = async (client: RawClient, topic: string, n = 1): Promise<ReadonlyArray<Message>> => {
  const answers: Array<Message> = []
  for (let i = 1; i <= n; i++) answers.push(await ok(client, { op: "PUBLISH", topic, payload: i }))
  return answers
}

interface Delivered {
  readonly id: string
  readonly topic: string
  readonly seq: number
  readonly ts: number
  readonly storedAt: number
  readonly payload: unknown
  readonly key?: string
  readonly type?: string
  readonly headers?: Readonly<Record<string, string>>
}

interface Context {
  readonly attempt: number
  readonly redelivered: boolean
  readonly deadline: number
}

export const eventOf = (message: Message | undefined): Delivered => message?.["event"] as Delivered

export const contextOf = (message: Message | undefined): Context => message?.["ctx"] as Context

export const idOf = (message: Message | undefined): string => eventOf(message).id

/** The EVENTs that came so far. */
export const eventsOf = (client: RawClient, is: (message: Message) => boolean = () => true) =>
  client.messages.filter((message) => message.op === "EVENT" && is(message))

export const payloadsOf = (messages: ReadonlyArray<Message>): ReadonlyArray<unknown> =>
  messages.map((message) => eventOf(message).payload)

export const seqsOf = (messages: ReadonlyArray<Message>): ReadonlyArray<number> =>
  messages.map((message) => eventOf(message).seq)

export const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

/** What an answer refers to: the event as it was delivered to this group. */
export const about = (message: Message | undefined) => ({
  topic: message?.["topic"],
  group: message?.["group"],
  id: idOf(message)
})
