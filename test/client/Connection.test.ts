/** When a connection comes back, how long it waits, and when it does not: on a network and a clock of the test's. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { Connection, type ConnectionEvents, type ConnectionState } from "../../src/client/Connection.ts"
import type { ConnectionOptions, HubError, TokenSource } from "../../src/client/index.ts"
import { CloseCode } from "../../src/protocol/Codes.ts"
import { FakeNetwork, welcome } from "./FakeWebSocket.ts"

beforeEach(() => {
  vi.useFakeTimers()
  // The longest wait there is under the jitter.
  vi.spyOn(Math, "random").mockReturnValue(1)
})

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

/** What was begun runs until it waits for time or for the network. */
const settle = () => vi.advanceTimersByTimeAsync(0)

interface Fixture {
  readonly token?: TokenSource
  readonly options?: ConnectionOptions
  readonly events?: Partial<ConnectionEvents>
  readonly url?: string
}

const begin = async ({ events, options, token = "token", url = "ws://hub" }: Fixture = {}) => {
  const network = new FakeNetwork()
  const states: Array<ConnectionState> = []
  const errors: Array<unknown> = []
  const connection = new Connection(
    url,
    token,
    {
      onReady: () => {},
      onMessage: () => {},
      onState: (state) => states.push(state),
      onLost: () => {},
      onError: (error) => errors.push(error),
      ...events
    },
    { WebSocket: network.WebSocket, ...options }
  )
  connection.start()
  await settle()
  return { network, connection, states, errors }
}

const connected = async (fixture: Fixture = {}) => {
  const made = await begin(fixture)
  made.network.last.accept()
  await settle()
  expect(made.connection.state._tag).toBe("ready")
  return made
}

const waitOf = ({ state }: Connection): number => {
  if (state._tag !== "waiting") throw new Error(`it is ${state._tag}`)
  return state.retryInMs
}

/** Waits for the next socket, which comes neither sooner nor later. */
const nextSocket = async (network: FakeNetwork, afterMs: number) => {
  const before = network.sockets.length
  if (afterMs > 0) {
    await vi.advanceTimersByTimeAsync(afterMs - 1)
    expect(network.sockets).toHaveLength(before)
  }
  await vi.advanceTimersByTimeAsync(1)
  expect(network.sockets).toHaveLength(before + 1)
  return network.last
}

it("offers the subprotocol and sends AUTH first", async () => {
  const { network } = await begin()
  expect(network.last.protocols).toEqual(["event-hub.v1"])
  network.last.open()
  await settle()
  expect(network.last.sent).toEqual([{ op: "AUTH", token: "token", ref: 1 }])
})

describe("the number of a close", () => {
  const { authTimeout, badFrames, frameTooBig, normal, originRefused, revoked, tokenExpired, tokenRefused } =
    CloseCode

  it.each([normal, frameTooBig, badFrames, tokenRefused, originRefused])("%i stops it", async (code) => {
    const { connection, network } = await connected()
    network.last.end(code, "why")
    expect(connection.state).toMatchObject({ _tag: "closed", error: { code: "closed", retryable: false } })
    await vi.advanceTimersByTimeAsync(120_000)
    expect(network.sockets).toHaveLength(1)
  })

  it.each([
    CloseCode.goingAway,
    CloseCode.restart,
    CloseCode.overloaded,
    CloseCode.heartbeatLost,
    CloseCode.slowConsumer,
    1005,
    1006,
    4999
  ])("%i brings it back after the back-off", async (code) => {
    const { connection, network } = await connected()
    network.last.end(code)
    expect(waitOf(connection)).toBe(500)
    await nextSocket(network, 500)
  })

  it.each([tokenExpired, revoked, authTimeout])("%i asks for another token, at once", async (code) => {
    let n = 0
    const { network } = await connected({ token: () => `token ${++n}` })
    network.last.end(code)
    await settle()
    network.last.open()
    await settle()
    expect(network.last.sent).toMatchObject([{ op: "AUTH", token: "token 2" }])
  })

  it.each([tokenExpired, revoked, authTimeout])("%i stops it when the token is the same", async (code) => {
    const { connection, network } = await connected()
    network.last.end(code)
    await settle()
    expect(connection.state).toMatchObject({ _tag: "closed", error: { code: "token_expired" } })
    expect(network.sockets).toHaveLength(1)
  })

  it.each([CloseCode.rateLimited, CloseCode.tooManyConnections])(
    "%i brings it back after what the hub said",
    async (code) => {
      const { connection, network } = await connected()
      network.last.receive({ op: "ERR", code: "rate_limited", msg: "", retryable: true, retryAfterMs: 7_000 })
      network.last.end(code)
      expect(waitOf(connection)).toBe(7_000)
      // Said of one connection, it is over with it.
      const second = await nextSocket(network, 7_000)
      second.end(code)
      expect(waitOf(connection)).toBe(1_000)
    }
  )

  it("says less than the refusal of a token, which is the reason then", async () => {
    const { connection, network } = await begin()
    network.last.open()
    await settle()
    network.last.receive({ op: "ERR", ref: 1, code: "jwt_invalid", msg: "no", retryable: false })
    network.last.end(tokenRefused, "jwt_invalid")
    expect(connection.state).toMatchObject({ _tag: "closed", error: { code: "jwt_invalid", message: "no" } })
  })

  it("asks for another token where the one that was sent is over already, and stops when that is the same", async () => {
    let n = 0
    const { connection, network } = await begin({ token: () => `token ${Math.min(++n, 2)}` })
    const refuse = async () => {
      network.last.open()
      await settle()
      network.last.receive({ op: "ERR", ref: n, code: "token_expired", msg: "over", retryable: false })
      network.last.end(tokenRefused, "token_expired")
      await settle()
    }
    await refuse()
    await settle()
    network.last.open()
    await settle()
    expect(network.last.sent).toMatchObject([{ op: "AUTH", token: "token 2" }])
    await refuse()
    await vi.advanceTimersByTimeAsync(waitOf(connection))
    expect(connection.state).toMatchObject({ _tag: "closed", error: { code: "token_expired" } })
    expect(network.sockets).toHaveLength(2)
  })
})

describe("the back-off", () => {
  it("doubles up to its cap", async () => {
    const { connection, network } = await begin({ options: { reconnectMaxMs: 3_000 } })
    for (const wait of [500, 1_000, 2_000, 3_000, 3_000]) {
      network.last.end(1006)
      expect(waitOf(connection)).toBe(wait)
      await nextSocket(network, wait)
    }
  })

  it("is spread over the whole time", async () => {
    const { connection, network } = await begin({ options: { reconnectBaseMs: 1_000 } })
    vi.mocked(Math.random).mockReturnValue(0.25)
    network.last.end(1006)
    expect(waitOf(connection)).toBe(250)
  })

  it("stays up while connections do not last", async () => {
    const { connection, network } = await connected()
    for (const wait of [500, 1_000, 2_000]) {
      await vi.advanceTimersByTimeAsync(9_000)
      network.last.end(CloseCode.restart)
      expect(waitOf(connection)).toBe(wait)
      ;(await nextSocket(network, wait)).accept()
      await settle()
    }
  })

  it("begins anew after ten stable seconds, and only by the connection that had them", async () => {
    const { connection, network } = await connected()
    network.last.end(1006)
    ;(await nextSocket(network, 500)).accept()
    await vi.advanceTimersByTimeAsync(10_000)
    for (const wait of [500, 1_000, 2_000]) {
      network.last.end(1006)
      expect(waitOf(connection)).toBe(wait)
      await nextSocket(network, wait)
    }
  })

  it("begins anew when a stable connection fell silent, too", async () => {
    const { connection, network } = await begin()
    network.last.end(1006)
    ;(await nextSocket(network, 500)).accept()
    await vi.advanceTimersByTimeAsync(welcome.heartbeatMs + 10_000)
    expect(waitOf(connection)).toBe(500)
    const third = await nextSocket(network, 500)
    third.end(1006)
    expect(waitOf(connection)).toBe(1_000)
  })

  it("holds for tokens that the hub never likes", async () => {
    let n = 0
    const { connection, network } = await connected({ token: () => `token ${++n}` })
    network.last.end(CloseCode.tokenExpired)
    await settle()
    for (const wait of [1_000, 2_000]) {
      network.last.accept()
      await settle()
      network.last.end(CloseCode.tokenExpired)
      expect(waitOf(connection)).toBe(wait)
      await nextSocket(network, wait)
    }
    expect(n).toBe(4)
  })
})

it("what this client does not know, such as EXPIRING, is nothing to it", async () => {
  const { connection, network } = await connected()
  const socket = network.last
  const before = socket.sent.length
  socket.receive({ op: "EXPIRING", expiresAt: 60_000, closesInMs: 65_000 })
  socket.receive([{ op: "SOMETHING NEW" }, { op: "EXPIRING", expiresAt: 60_000, closesInMs: 65_000 }])
  await settle()
  expect(socket.sent).toHaveLength(before)
  expect(network.last).toBe(socket)
  expect(connection.state._tag).toBe("ready")
})

describe("DRAIN", () => {
  it("gives the slot in which to come back", async () => {
    const { connection, network } = await connected()
    network.last.receive({ op: "DRAIN", retryAfterMs: 3_210 })
    network.last.end(CloseCode.restart)
    expect(waitOf(connection)).toBe(3_210)
    await nextSocket(network, 3_210)
  })

  it("is for one time: a hub that is not back yet is met with the back-off", async () => {
    const { connection, network } = await connected()
    network.last.receive({ op: "DRAIN", retryAfterMs: 0 })
    network.last.end(CloseCode.restart)
    expect(waitOf(connection)).toBe(0)
    // Not from the bottom: all clients of the hub are on their way.
    for (const wait of [2_000, 4_000]) {
      const socket = await nextSocket(network, wait === 2_000 ? 0 : wait / 2)
      socket.end(1006)
      expect(waitOf(connection)).toBe(wait)
    }
  })

  it("holds although a PING is under way", async () => {
    const { connection, network, states } = await connected()
    await vi.advanceTimersByTimeAsync(welcome.heartbeatMs)
    expect(network.last.sent.at(-1)).toMatchObject({ op: "PING" })
    network.last.receive({ op: "DRAIN", retryAfterMs: 40_000 })
    network.last.end(CloseCode.restart)
    await vi.advanceTimersByTimeAsync(39_999)
    expect(waitOf(connection)).toBe(40_000)
    expect(states.filter(({ _tag }) => _tag === "waiting")).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(network.sockets).toHaveLength(2)
  })
})

describe("one socket at a time", () => {
  it("an old one that fell silent is dropped before the next is opened, and heard no more", async () => {
    const messages: Array<unknown> = []
    const { connection, network } = await connected({
      events: { onMessage: (message) => messages.push(message) }
    })
    const [first] = network.sockets
    await vi.advanceTimersByTimeAsync(welcome.heartbeatMs + 10_000)
    expect(network.log).toEqual(["open 1", "close 1"])
    ;(await nextSocket(network, 500)).accept()
    await settle()
    expect(network.log).toEqual(["open 1", "close 1", "open 2"])
    expect([first?.onopen, first?.onmessage, first?.onclose]).toEqual([null, null, null])
    first?.receive({ op: "DRAIN", retryAfterMs: 1 })
    first?.end(1006)
    expect(messages).toEqual([])
    expect(connection.state._tag).toBe("ready")
  })

  it("one that does not open is given up after the time of a request", async () => {
    const { connection, network } = await begin({ options: { requestTimeoutMs: 3_000 } })
    await vi.advanceTimersByTimeAsync(3_000)
    expect(network.log).toEqual(["open 1", "close 1"])
    await nextSocket(network, waitOf(connection))
  })

  it("so is one on which AUTH is not answered", async () => {
    const { connection, network } = await begin({ options: { requestTimeoutMs: 3_000 } })
    await vi.advanceTimersByTimeAsync(2_000)
    network.last.open()
    await vi.advanceTimersByTimeAsync(3_000)
    expect(network.log).toEqual(["open 1", "close 1"])
    await nextSocket(network, waitOf(connection))
  })

  it("an answered PING keeps it", async () => {
    const { connection, network } = await connected()
    for (let i = 1; i <= 3; i++) {
      await vi.advanceTimersByTimeAsync(welcome.heartbeatMs)
      const { op, ref } = network.last.sent.at(-1) as { readonly op: string; readonly ref: number }
      expect(op).toBe("PING")
      network.last.receive({ op: "OK", ref, serverTime: 1 })
    }
    await vi.advanceTimersByTimeAsync(10_000)
    expect(connection.state._tag).toBe("ready")
    expect(network.sockets).toHaveLength(1)
  })
})

describe("the token", () => {
  it("is asked for on every connection", async () => {
    const asked = vi.fn<() => Promise<string>>(() => Promise.resolve("token"))
    const { network } = await connected({ token: asked })
    network.last.end(1006)
    ;(await nextSocket(network, 500)).accept()
    await settle()
    expect(asked).toHaveBeenCalledTimes(2)
  })

  it("that cannot be had is told of, and asked for again; and it still has to be a new one", async () => {
    let answers: Array<string | Error> = ["old", new Error("no network"), "old"]
    const token = () => {
      const [answer, ...rest] = answers
      answers = rest
      return typeof answer === "string" ? Promise.resolve(answer) : Promise.reject(answer ?? new Error("?"))
    }
    const { connection, errors, network } = await connected({ token })
    network.last.end(CloseCode.tokenExpired)
    await settle()
    expect(errors).toEqual([new Error("no network")])
    await vi.advanceTimersByTimeAsync(waitOf(connection))
    expect(connection.state).toMatchObject({ _tag: "closed", error: { code: "token_expired" } })
  })
})

describe("closing", () => {
  it("sends what is on its way, and tells whoever waits for an answer", async () => {
    const { connection, network } = await connected()
    connection.send({ op: "ACK" })
    const request = connection.request({ op: "PUBLISH" })
    connection.close()
    expect(network.last.sent.at(-1)).toEqual([{ op: "ACK" }, { op: "PUBLISH", ref: 2 }])
    await expect(request).rejects.toMatchObject({ code: "closed" })
    expect(network.log).toEqual(["open 1", "close 1"])
    expect(vi.getTimerCount()).toBe(0)
  })

  it.each(["connecting", "ready", "waiting"] as const)(
    "from the callback that says '%s' leaves nothing behind",
    async (tag) => {
      const closing: { connection?: Connection } = {}
      const onReady = vi.fn<() => void>()
      const { connection, network } = await begin({
        events: {
          onReady,
          onState: ({ _tag }) => {
            if (_tag === tag) closing.connection?.close()
          }
        }
      })
      closing.connection = connection
      if (tag !== "connecting") network.last.accept()
      await settle()
      network.last.end(1006)
      await vi.advanceTimersByTimeAsync(60_000)
      expect(connection.state._tag).toBe("closed")
      expect(onReady).toHaveBeenCalledTimes(tag === "waiting" ? 1 : 0)
      expect(network.sockets).toHaveLength(1)
      expect(vi.getTimerCount()).toBe(0)
    }
  )

  it("happens by itself where no socket can be made", async () => {
    expect((await begin({ url: "hub" })).connection.state).toMatchObject({
      _tag: "closed",
      error: { code: "closed", message: "cannot connect to 'hub': SyntaxError: the URL is invalid" }
    })
  })
})

describe("frames", () => {
  it("hold what is sent in one turn, as many messages and bytes as the hub takes", async () => {
    const { connection, network } = await connected()
    const { sent } = network.last
    sent.length = 0
    for (let i = 1; i <= 6; i++) connection.send({ i })
    await settle()
    expect(sent).toEqual([
      [{ i: 1 }, { i: 2 }, { i: 3 }, { i: 4 }],
      [{ i: 5 }, { i: 6 }]
    ])
    sent.length = 0
    const long = "x".repeat(400)
    for (let i = 1; i <= 3; i++) connection.send({ long })
    await settle()
    expect(sent).toEqual([[{ long }, { long }], { long }])
  })

  it("that would be too large are refused here, counted in bytes", async () => {
    const { connection, network } = await connected()
    network.last.sent.length = 0
    const euros = (n: number) => connection.request({ euros: "€".repeat(n) })
    await expect(euros(1_000)).rejects.toMatchObject({ code: "payload_too_large", retryable: false })
    const fits = euros(990)
    await settle()
    expect(network.last.sent).toMatchObject([{ euros: "€".repeat(990) }])
    network.last.receive([{ op: "OK", ref: (network.last.sent[0] as { readonly ref: number }).ref }])
    await expect(fits).resolves.toMatchObject({ op: "OK" })
  })

  it("that are broken, and answers that nobody waits for, are passed over", async () => {
    const { connection, network } = await connected()
    network.last.receive("{")
    network.last.receive([null, 1, {}, { op: "OK", ref: 99 }])
    const answer = connection.request({ op: "PING" })
    await settle()
    network.last.receive({ op: "OK", ref: 2 })
    await expect(answer).resolves.toMatchObject({ op: "OK" })
  })

  it("an answer that does not come in time is a typed error, and too late it is nothing", async () => {
    const { connection, network } = await connected({ options: { requestTimeoutMs: 2_000 } })
    const answer = connection.request({ op: "PUBLISH" }).catch((error: HubError) => error)
    await vi.advanceTimersByTimeAsync(2_000)
    expect(await answer).toMatchObject({ name: "HubError", code: "timeout", retryable: true })
    network.last.receive({ op: "OK", ref: 2 })
    expect(connection.state._tag).toBe("ready")
  })
})

it("without a connection, a request fails at once and a message is dropped", async () => {
  const { connection, network } = await begin()
  connection.send({ op: "ACK" })
  await expect(connection.request({ op: "PUBLISH" })).rejects.toMatchObject({
    code: "closed",
    retryable: true
  })
  network.last.accept()
  await settle()
  expect(network.last.sent).toHaveLength(1)
})
