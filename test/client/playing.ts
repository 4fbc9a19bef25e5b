/** What tests on a network of their own need to play the hub. */
import { vi } from "vitest"
import { type ClientOptions, createClient } from "../../src/client/index.ts"
import { FakeNetwork, type FakeSocket } from "./FakeWebSocket.ts"

/** What was begun runs until it waits for time or for the network. */
export const settle = () => vi.advanceTimersByTimeAsync(0)

export interface Request {
  readonly op: string
  readonly ref: number
  readonly topic?: string
  readonly payload?: unknown
  readonly id?: string
  readonly ids?: ReadonlyArray<string>
  readonly mode?: string
  readonly reason?: string
  readonly byMs?: number
  readonly opts?: Readonly<Record<string, unknown>>
}

export const requests = ({ sent }: FakeSocket, op: string): ReadonlyArray<Request> =>
  (sent.flat() as ReadonlyArray<Request>).filter((message) => message.op === op)

/** Answers the last request of its kind. */
export const answer = async (socket: FakeSocket, op: string, fields: object = {}) => {
  for (const { ref } of requests(socket, op).slice(-1)) socket.receive({ op: "OK", ref, ...fields })
  await settle()
}

export const refuse = async (socket: FakeSocket, op: string, code: string, more: object = {}) => {
  for (const { ref } of requests(socket, op).slice(-1)) {
    socket.receive({ op: "ERR", ref, code, msg: "no", retryable: false, ...more })
  }
  await settle()
}

export const event = (topic: string, seq: number, more: object = {}) => ({
  op: "EVENT",
  sub: topic,
  topic,
  event: { id: `${topic}-${seq}`, topic, seq, ts: 0, storedAt: 0, payload: seq },
  ...more
})

/** An event of group `g`; hubs of `FakeWebSocket` have the time 1,000 when a connection is made. */
export const delivery = (topic: string, seq: number, deadline = 31_000, attempt = 1) =>
  event(topic, seq, { group: "g", ctx: { attempt, redelivered: attempt > 1, deadline } })

export const gap = (topic: string, from: number, to: number) => ({
  op: "GAP",
  sub: topic,
  topic,
  from,
  to,
  reason: "trimmed"
})

/** A client, and what its `error` listeners were told. */
export const made = (options: Partial<ClientOptions> = {}) => {
  const network = new FakeNetwork()
  const errors: Array<unknown> = []
  const client = createClient({
    url: "ws://hub",
    token: "t",
    WebSocket: network.WebSocket,
    ...options
  } as ClientOptions)
  client.on("error", (error) => errors.push(error))
  return { client, network, errors }
}

export const connected = async (options: Partial<ClientOptions> = {}) => {
  const all = made(options)
  void all.client.connect()
  await settle()
  all.network.last.accept()
  await settle()
  return all
}

/** The connection goes, and comes back. */
export const reconnect = async (network: FakeNetwork) => {
  network.last.end(1006)
  await vi.advanceTimersByTimeAsync(60_000)
  network.last.accept()
  await settle()
}

/** A promise that fails is nobody's fault; gives what it failed with. */
export const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => {
      throw new Error("it did not fail")
    },
    (error: unknown) => error
  )

/** Whatever an iterable gives, as it comes. */
export const drained = <A>(items: AsyncIterable<A>) => {
  const seen: Array<A> = []
  const ended = (async () => {
    for await (const item of items) seen.push(item)
  })()
  ended.catch(() => {})
  return { seen, ended }
}
