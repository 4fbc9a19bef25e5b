/** What a client asks for when it comes back, and what it makes of what comes: on a network of the test's. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { type HubError, PromClient, type SubscribeOptions } from "../../src/client/index.ts"
import { collector, gate } from "./clients.ts"
import { FakeNetwork, type FakeSocket, welcome } from "./FakeWebSocket.ts"

beforeEach(() => {
  vi.useFakeTimers()
  vi.spyOn(Math, "random").mockReturnValue(1)
})

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

const settle = () => vi.advanceTimersByTimeAsync(0)

interface Request {
  readonly op: string
  readonly ref: number
  readonly topic?: string
  readonly opts?: Readonly<Record<string, unknown>>
}

const requests = ({ sent }: FakeSocket, op: string): ReadonlyArray<Request> =>
  (sent.flat() as ReadonlyArray<Request>).filter((message) => message.op === op)

const answer = async (socket: FakeSocket, op: string, fields: object = {}) => {
  for (const { ref } of requests(socket, op).slice(-1)) socket.receive({ op: "OK", ref, ...fields })
  await settle()
}

const refuse = async (socket: FakeSocket, op: string, fields: object) => {
  for (const { ref } of requests(socket, op).slice(-1)) {
    socket.receive({ op: "ERR", ref, msg: "no", retryable: false, ...fields })
  }
  await settle()
}

const event = (topic: string, seq: number, more: object = {}) => ({
  op: "EVENT",
  sub: topic,
  topic,
  event: { id: `${topic}-${seq}`, topic, seq, ts: 0, storedAt: 0, payload: seq },
  ...more
})

const gap = (topic: string, from: number, to: number) => ({
  op: "GAP",
  sub: topic,
  topic,
  from,
  to,
  reason: "trimmed"
})

const connected = async () => {
  const network = new FakeNetwork()
  const errors: Array<unknown> = []
  const client = new PromClient("ws://hub", "token", {
    WebSocket: network.WebSocket,
    onError: (error) => errors.push(error)
  })
  void client.connect()
  await settle()
  network.last.accept()
  await settle()
  return { client, network, errors }
}

/** The connection goes, and comes back. */
const reconnect = async (network: FakeNetwork) => {
  network.last.end(1006)
  await vi.advanceTimersByTimeAsync(60_000)
  network.last.accept()
  await settle()
}

describe("a live subscription goes on", () => {
  /** What it asks for at first and when it comes back, after it has seen event 7 of topic `a.b`. */
  const asked = async (pattern: string, options: SubscribeOptions, ok: object) => {
    const { client, network } = await connected()
    // Long after AUTH.
    await vi.advanceTimersByTimeAsync(5_000)
    const { handler } = collector()
    void client.subscribe(pattern, undefined, handler, options)
    await settle()
    const [first] = requests(network.last, "SUBSCRIBE")
    await answer(network.last, "SUBSCRIBE", ok)
    network.last.receive({ ...event("a.b", 7), sub: pattern })
    await settle()
    await reconnect(network)
    const [again] = requests(network.last, "SUBSCRIBE")
    return [first?.opts, again?.opts]
  }
  const { history } = welcome

  it("from the heads it began at, and from the start of topics that were not there", async () => {
    expect(await asked("a.*", {}, { heads: { "a.a": 3, "a.b": 6 } })).toEqual([
      {},
      { from: { topics: { "a.a": 3, "a.b": 7 }, rest: "start" }, history }
    ])
  })

  it("from the start, behind what it has seen", async () => {
    expect(await asked("a.*", { from: "start" }, { heads: { "a.a": 3, "a.b": 6 } })).toEqual([
      { from: "start" },
      { from: { topics: { "a.b": 7 }, rest: "start" }, history }
    ])
  })

  it("from a position of its own", async () => {
    expect(await asked("a.b", { from: { after: 5 }, history }, { heads: { "a.b": 9 } })).toEqual([
      { from: { after: 5 }, history },
      { from: { topics: { "a.b": 7 }, rest: "start" }, history }
    ])
  })

  it("from positions of its own, with the rest from the start or from the heads", async () => {
    const topics = { "a.a": 1, "a.b": 2 }
    const heads = { "a.a": 3, "a.b": 6, "a.c": 9 }
    const seen = { "a.a": 1, "a.b": 7 }
    expect((await asked("a.*", { from: { topics } }, { heads }))[1]).toEqual({
      from: { topics: seen, rest: "start" },
      history
    })
    expect((await asked("a.*", { from: { topics, rest: "new" } }, { heads }))[1]).toEqual({
      from: { topics: { ...seen, "a.c": 9 }, rest: "start" },
      history
    })
  })

  it("from a time, since that names no positions", async () => {
    expect(await asked("a.*", { from: { time: 123 } }, { heads: { "a.b": 9 } })).toEqual([
      { from: { time: 123 } },
      { from: { time: 123 }, history }
    ])
  })

  it("from the time it was made, when the hub did not name all topics", async () => {
    const since = welcome.serverTime + 5_000
    expect((await asked("**", {}, { heads: { "a.b": 6 }, more: true }))[1]).toEqual({
      from: { time: since },
      history
    })
    expect((await asked("**", { from: "start" }, { heads: {}, more: true }))[1]).toEqual({
      from: { topics: { "a.b": 7 }, rest: "start" },
      history
    })
  })

  it("by time when its positions are too many for a frame", async () => {
    const heads = Object.fromEntries(Array.from({ length: 5_001 }, (_, i) => [`t.${i}`, 1]))
    expect((await asked("**", {}, { heads }))[1]).toEqual({
      from: { time: welcome.serverTime + 5_000 },
      history
    })
  })

  it("and hears nothing twice", async () => {
    const { client, network } = await connected()
    const seen = collector()
    void client.subscribe("a", undefined, seen.handler, { from: { time: 0 } })
    await settle()
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([event("a", 1), event("a", 2)])
    await settle()
    await reconnect(network)
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([event("a", 1), event("a", 2), event("a", 3)])
    await settle()
    expect(seen.payloads()).toEqual([1, 2, 3])
  })

  it("behind an event whose handler still runs, which is not handled twice", async () => {
    const { client, network } = await connected()
    const end = gate()
    const seen: Array<number> = []
    void client.subscribe("a", undefined, async ({ seq }) => {
      seen.push(seq)
      if (seq === 2) await end.passed
    })
    await settle()
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([event("a", 1), event("a", 2), event("a", 3)])
    await settle()
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")[0]?.opts?.["from"]).toEqual({
      topics: { a: 1 },
      rest: "start"
    })
    await answer(network.last, "SUBSCRIBE", { heads: { a: 3 } })
    network.last.receive([event("a", 2), event("a", 3)])
    await settle()
    expect(seen).toEqual([1, 2])
    end.open()
    await settle()
    expect(seen).toEqual([1, 2, 3])
  })

  it("with events in the very frame of the answer", async () => {
    const { client, network } = await connected()
    const seen = collector()
    void client.subscribe("a", undefined, seen.handler)
    await settle()
    const [{ ref } = { ref: 0 }] = requests(network.last, "SUBSCRIBE")
    network.last.receive([{ op: "OK", ref, heads: { a: 4 } }, event("a", 5)])
    await settle()
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")[0]?.opts?.["from"]).toEqual({
      topics: { a: 5 },
      rest: "start"
    })
    expect(seen.payloads()).toEqual([5])
  })
})

describe("taking up a subscription again", () => {
  const standing = async (options: SubscribeOptions = {}) => {
    const made = await connected()
    const ends: Array<HubError> = []
    const seen = collector()
    void made.client.subscribe("a", undefined, seen.handler, {
      onEnd: (error) => ends.push(error),
      ...options
    })
    await settle()
    await answer(made.network.last, "SUBSCRIBE", { heads: {} })
    return { ...made, ends, seen }
  }

  it("is tried again when the hub cannot for now", async () => {
    const { ends, network, seen } = await standing()
    await reconnect(network)
    await refuse(network.last, "SUBSCRIBE", { code: "unavailable", retryable: true })
    await vi.advanceTimersByTimeAsync(1_000)
    await refuse(network.last, "SUBSCRIBE", { code: "rate_limited", retryable: true, retryAfterMs: 3_000 })
    await vi.advanceTimersByTimeAsync(2_999)
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(2)
    await vi.advanceTimersByTimeAsync(1)
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(3)
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive(event("a", 1))
    await settle()
    expect([seen.payloads(), ends]).toEqual([[1], []])
  })

  it("stands when the answer came too late, and the hub says that it does", async () => {
    const { ends, network, seen } = await standing()
    await reconnect(network)
    await vi.advanceTimersByTimeAsync(10_000 + 1_000)
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(2)
    await refuse(network.last, "SUBSCRIBE", { code: "already_subscribed" })
    network.last.receive(event("a", 1))
    await settle()
    expect([seen.payloads(), ends]).toEqual([[1], []])
  })

  it("ends it when the hub refuses, and its caller is told", async () => {
    const { client, ends, network } = await standing()
    await reconnect(network)
    await refuse(network.last, "SUBSCRIBE", { code: "unrecoverable_position" })
    expect(ends).toMatchObject([{ code: "unrecoverable_position" }])
    await expect(client.unsubscribe("a")).rejects.toMatchObject({ code: "not_subscribed" })
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")).toEqual([])
  })

  it("does not happen for one that was ended meanwhile", async () => {
    const { client, network } = await standing()
    network.last.end(1006)
    await client.unsubscribe("a")
    await vi.advanceTimersByTimeAsync(60_000)
    network.last.accept()
    await settle()
    expect(requests(network.last, "SUBSCRIBE")).toEqual([])
  })

  it("is not tried again for one that was ended meanwhile", async () => {
    const { client, network } = await standing()
    await reconnect(network)
    await refuse(network.last, "SUBSCRIBE", { code: "unavailable", retryable: true })
    const unsubscribed = client.unsubscribe("a")
    await settle()
    await refuse(network.last, "UNSUBSCRIBE", { code: "not_subscribed" })
    await unsubscribed
    await vi.advanceTimersByTimeAsync(5_000)
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(1)
  })

  it("is asked for by a subscription that did not stand yet, as at first", async () => {
    const { client, network } = await connected()
    const subscribed = client.subscribe("a", undefined, () => {}, { from: "start" })
    await settle()
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")[0]?.opts).toEqual({ from: "start" })
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    await subscribed
  })
})

describe("END", () => {
  it.each([
    ["revoked", "forbidden"],
    ["removed", "not_subscribed"],
    ["history_changed", "unrecoverable_position"],
    ["unavailable", "unavailable"],
    ["something new", "closed"]
  ])("because of %s is told as %s, once", async (reason, code) => {
    const { client, errors, network } = await connected()
    void client.subscribe("a", "g", () => {})
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive([
      { op: "END", sub: "a", group: "g", reason },
      { op: "END", sub: "a", group: "g", reason }
    ])
    expect(errors).toMatchObject([{ name: "HubError", code }])
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")).toEqual([])
  })

  it("takes no answers of handlers that still run", async () => {
    const { client, network } = await connected()
    const end = gate()
    void client.subscribe("a", "g", () => end.passed)
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive(event("a", 1, { group: "g" }))
    network.last.receive({ op: "END", sub: "a", group: "g", reason: "removed" })
    end.open()
    await settle()
    expect(requests(network.last, "ACK")).toEqual([])
  })
})

describe("GAP", () => {
  it("is told in its place among the events, and what it names is not asked for again", async () => {
    const { client, network } = await connected()
    const end = gate()
    const seen: Array<unknown> = []
    void client.subscribe(
      "a",
      undefined,
      async ({ seq }) => {
        await end.passed
        seen.push(seq)
      },
      { onGap: ({ from, to }) => seen.push([from, to]) }
    )
    await settle()
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([event("a", 1), gap("a", 2, 5)])
    await settle()
    expect(seen).toEqual([])
    end.open()
    await settle()
    expect(seen).toEqual([1, [2, 5]])
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")[0]?.opts?.["from"]).toEqual({
      topics: { a: 5 },
      rest: "start"
    })
  })

  it("needs no callback, and one that throws stops nothing", async () => {
    const { client, network } = await connected()
    const seen = collector()
    void client.subscribe("a", undefined, seen.handler)
    await settle()
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([gap("a", 1, 2), event("a", 3)])
    await settle()
    expect(seen.payloads()).toEqual([3])
  })
})

describe("a group's handler", () => {
  it("that ends on another connection than its event came by answers nothing: the event comes again", async () => {
    const { client, network } = await connected()
    const ends: Array<() => void> = []
    void client.subscribe("a", "g", ({ seq }) => new Promise<void>((resolve) => void (ends[seq] = resolve)))
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive([event("a", 1, { group: "g" }), event("a", 2, { group: "g" })])
    ends[1]?.()
    await settle()
    expect(requests(network.last, "ACK")).toMatchObject([{ topic: "a", group: "g", ids: ["a-1"] }])
    await reconnect(network)
    await answer(network.last, "SUBSCRIBE")
    ends[2]?.()
    await settle()
    expect(requests(network.last, "ACK")).toEqual([])
  })

  it("is not begun for events of a connection that is gone", async () => {
    const { client, network } = await connected()
    const end = gate()
    const begun: Array<number> = []
    const handler = async ({ seq }: { readonly seq: number }) => {
      begun.push(seq)
      await end.passed
    }
    void client.subscribe("a", "g", handler, { concurrency: 1 })
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive([event("a", 1, { group: "g" }), event("a", 2, { group: "g" })])
    await reconnect(network)
    end.open()
    await settle()
    expect(begun).toEqual([1])
  })

  it("says why it failed, in a bounded number of words", async () => {
    const { client, network } = await connected()
    void client.subscribe("a", "g", () => {
      throw new Error("x".repeat(5_000))
    })
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive(event("a", 1, { group: "g" }))
    await settle()
    expect(requests(network.last, "NACK")).toMatchObject([{ id: "a-1", reason: "x".repeat(1_000) }])
  })

  it("acknowledges what ends in the same turn together", async () => {
    const { client, network } = await connected()
    const end = gate()
    void client.subscribe("a", "g", () => end.passed)
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive([1, 2, 3].map((seq) => event("a", seq, { group: "g" })))
    end.open()
    await settle()
    expect(requests(network.last, "ACK")).toMatchObject([{ ids: ["a-1", "a-2", "a-3"] }])
  })
})

describe("a publish that was not answered", () => {
  it("is repeated with the same id, in the order of the first time, before what is published later", async () => {
    const { client, network } = await connected()
    const first = client.publish("a", 1)
    const second = client.publish("a", 2, { id: "two" })
    await settle()
    const sent = requests(network.last, "PUBLISH")
    network.last.receive({ op: "OK", ref: sent[0]?.ref, id: "x", seq: 1, storedAt: 0, duplicate: false })
    await first
    network.last.end(1006)
    const third = client.publish("a", 3)
    await vi.advanceTimersByTimeAsync(60_000)
    network.last.accept()
    await settle()
    const again = requests(network.last, "PUBLISH")
    expect(again).toMatchObject([{ payload: 2, opts: { id: "two" } }, { payload: 3 }])
    for (const { ref } of again) {
      network.last.receive({ op: "OK", ref, id: "y", seq: ref, storedAt: 0, duplicate: false })
    }
    expect((await Promise.all([second, third])).map(({ seq }) => seq)).toEqual(again.map(({ ref }) => ref))
  })

  it("follows the subscriptions, which would miss it otherwise", async () => {
    const { client, network } = await connected()
    void client.subscribe("a", undefined, () => {})
    await settle()
    network.last.end(1006)
    void client.publish("a", 1)
    await vi.advanceTimersByTimeAsync(60_000)
    network.last.accept()
    await settle()
    expect((network.last.sent.flat() as ReadonlyArray<Request>).map(({ op }) => op)).toEqual([
      "AUTH",
      "SUBSCRIBE",
      "PUBLISH"
    ])
  })
})

it("closing waits for handlers also while there is no connection", async () => {
  const { client, network } = await connected()
  const end = gate()
  void client.subscribe("a", "g", () => end.passed)
  await settle()
  await answer(network.last, "SUBSCRIBE")
  network.last.receive(event("a", 1, { group: "g" }))
  network.last.end(1006)
  let isClosed = false
  const closed = client.close().then(() => (isClosed = true))
  await vi.advanceTimersByTimeAsync(100)
  expect(isClosed).toBe(false)
  end.open()
  await closed
})

it("closing fails subscriptions that do not stand yet, answered or not", async () => {
  const { client, network } = await connected()
  const failed = client.subscribe("a", undefined, () => {}).catch((error: HubError) => error.code)
  await settle()
  void client.close()
  await settle()
  expect(await failed).toBe("closed")
  await answer(network.last, "UNSUBSCRIBE")
  expect(client.state._tag).toBe("closed")
})

it("a subscription that timed out at first is taken back, since the hub may have it", async () => {
  const { client, network } = await connected()
  const failed = client.subscribe("a", "g", () => {}).catch((error: HubError) => error.code)
  await vi.advanceTimersByTimeAsync(10_000)
  expect(await failed).toBe("timeout")
  expect(requests(network.last, "UNSUBSCRIBE")).toMatchObject([{ topic: "a", group: "g" }])
})
